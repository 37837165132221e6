//! Takes a database back to the platform schema, then applies everything again.

use tokio_postgres::Client;
use tokio_postgres::types::Type;

use super::error::MigrationError;
use super::ledger::{ensure, lock, unlock};
use super::push::{Progress, PushOptions, PushReport, push_locked};
use super::source::Source;

/// Schemas that are not the project's to drop: Longhouse's, Supabase's and Postgres' own.
pub(super) const PLATFORM_SCHEMAS: &[&str] = &[
    "_analytics",
    "_realtime",
    "ai_archive",
    "auth",
    "cron",
    "extensions",
    "graphql",
    "graphql_public",
    "information_schema",
    "longhouse",
    "net",
    "pgbouncer",
    "pgmq",
    "pgsodium",
    "pgsodium_masks",
    "pgtle",
    "public",
    "realtime",
    "storage",
    "supabase_functions",
    "supabase_migrations",
    "vault",
];

/// Empties the database of everything that the project made, then pushes all its migrations and loads its seed.
///
/// Dropped are the contents of `public`, other schemas, policies on the platform's tables, publications and
/// extensions of the project, its files' rows, and all accounts. Schemas of Longhouse's applications and roles, which
/// belong to the whole cluster, stay. The emptying is one transaction; `options.dry_run` is not for this.
///
/// # Errors
/// As [`super::push`]; and when something belongs to another role.
pub async fn reset(
    client: &mut Client,
    source: &Source,
    options: PushOptions<'_>,
) -> Result<PushReport, MigrationError> {
    // Read first: a missing folder must not cost the data.
    let loaded = source.load()?;
    if let Some(seed) = &options.include_seed {
        super::source::read_sql(seed)?;
    }
    (options.progress)(Progress::Waiting);
    lock(client, options.lock_wait).await?;
    let result = match empty(client).await {
        Ok(()) => push_locked(client, source, loaded, &options).await,
        Err(error) => Err(error),
    };
    unlock(client).await;
    result
}

async fn empty(client: &mut Client) -> Result<(), MigrationError> {
    ensure(client).await?;
    let doing = MigrationError::database("emptying the database");
    let transaction = client.transaction().await.map_err(&doing)?;
    let platform = PLATFORM_SCHEMAS.join(",");
    transaction
        .query_typed("select set_config('longhouse.platform', $1, true)", &[(&platform, Type::TEXT)])
        .await
        .map_err(&doing)?;
    transaction.batch_execute(include_str!("reset.sql")).await.map_err(&doing)?;
    transaction.commit().await.map_err(&doing)
}
