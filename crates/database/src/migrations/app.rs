//! The migrations of an application that ships with Longhouse, in a schema of its own.

use tokio_postgres::Client;
use tokio_postgres::types::Type;

use super::error::MigrationError;
use super::execute::{Prepared, run};
use super::ledger::{LOCK_WAIT, Record, lock, unlock};
use super::source::{Embedded, Migration};

/// Brings the schema of an application up to date; returns the versions applied now. One round trip when current.
///
/// The schema is made where it is missing, and is first on the search path while the files run. What they create
/// belongs to the login of `client`: use the migration owner's. Versions that a newer binary has applied are left
/// alone, so that an older one can run beside it.
///
/// # Errors
/// When a file fails, or was changed after it had been applied here.
pub async fn app(
    client: &mut Client,
    app: &str,
    migrations: &[Embedded],
) -> Result<Vec<String>, MigrationError> {
    if !is_schema_name(app) {
        return Err(MigrationError::BadApp(app.to_owned()));
    }
    let mut migrations: Vec<Migration> = migrations.iter().map(|migration| migration.load(app)).collect();
    migrations.sort_by(|a, b| a.version.cmp(&b.version));
    if pending(client, app, &migrations).await?.is_empty() {
        return Ok(Vec::new());
    }
    lock(client, LOCK_WAIT).await?;
    let result = apply_locked(client, app, &migrations).await;
    unlock(client).await;
    result
}

async fn apply_locked(
    client: &mut Client,
    app: &str,
    migrations: &[Migration],
) -> Result<Vec<String>, MigrationError> {
    // Asked again: whoever held the lock may have done the work.
    let pending = pending(client, app, migrations).await?;
    let prepared = pending
        .iter()
        .map(|migration| Prepared::new(&migration.file, &migration.sql, None))
        .collect::<Result<Vec<_>, _>>()?;
    // A checked name; `set local` has no effect outside of a transaction, where stepwise files run.
    let prelude = format!(
        "do $$ begin if not exists (select from pg_namespace where nspname = '{app}') then
           create schema {app}; end if; end $$;
         set search_path to {app}, public, extensions"
    );
    for (migration, prepared) in pending.iter().zip(&prepared) {
        run(client, prepared, &prelude, &Record::App { app, migration }).await?;
        tracing::info!(app, version = migration.version, name = migration.name, "migration applied");
    }
    Ok(pending.iter().map(|migration| migration.version.clone()).collect())
}

async fn pending<'a>(
    client: &Client,
    app: &str,
    migrations: &'a [Migration],
) -> Result<Vec<&'a Migration>, MigrationError> {
    let sql = "select version, checksum from longhouse.app_migrations where app = $1";
    let doing = MigrationError::database("reading an application's migrations");
    let rows = client.query_typed(sql, &[(&app, Type::TEXT)]).await.map_err(doing)?;
    let applied: Vec<(String, String)> =
        rows.iter().map(|row| (row.get("version"), row.get("checksum"))).collect();
    let mut pending = Vec::new();
    for migration in migrations {
        match applied.iter().find(|(version, _)| *version == migration.version) {
            None => pending.push(migration),
            Some((_, checksum)) if *checksum == migration.sha256() => {}
            Some(_) => {
                return Err(MigrationError::AppEdited {
                    app: app.to_owned(),
                    version: migration.version.clone(),
                    name: migration.name.clone(),
                });
            }
        }
    }
    Ok(pending)
}

/// The name goes into SQL as it is, so it must be plain, and no schema that others rely on.
fn is_schema_name(app: &str) -> bool {
    let plain = app.bytes().all(|byte| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'_')
        && app.starts_with(|c: char| c.is_ascii_lowercase());
    plain && app.len() <= 63 && !app.starts_with("pg_") && !super::reset::PLATFORM_SCHEMAS.contains(&app)
}
