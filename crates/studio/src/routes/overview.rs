//! `GET /studio/v1/overview`: how the project is, in figures.

use std::collections::BTreeMap;

use axum::Json;
use axum::extract::State;
use longhouse_database::ServiceReason;
use longhouse_operations::health::{CheckResult, Status};
use serde::Serialize;
use utoipa::ToSchema;

use crate::{Error, Studio, operators};

/// How the project is.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct Overview {
    /// `ok`, `degraded` or `failed`: the worst of all checks.
    status: Status,
    version: &'static str,
    uptime_seconds: u64,
    /// Latest migration of the database.
    migration_version: Option<String>,
    /// By name.
    checks: BTreeMap<&'static str, CheckResult>,
    sessions: Sessions,
    database: DatabaseFacts,
    people: People,
    files: Files,
}

/// Calls and conversations of the server that answers.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct Sessions {
    active: usize,
    /// Null when unbounded.
    max: Option<usize>,
}

/// What the database says of itself.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct DatabaseFacts {
    /// e.g. `15.18`.
    version: String,
    bytes: i64,
    connections: i64,
    max_connections: i64,
    /// Outside of the platform's own schemas.
    tables: i64,
    /// Of these, tables that visitors or users may touch while no policy is asked.
    tables_open: i64,
}

/// Accounts.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct People {
    users: i64,
    /// Made in the last seven days.
    new_users: i64,
    /// Who signed in during the last seven days.
    active_users: i64,
    /// Sessions that are open.
    sessions: i64,
}

/// What is stored; zeros where files are not served here.
#[derive(Debug, Default, Serialize, ToSchema)]
pub(crate) struct Files {
    buckets: i64,
    objects: i64,
    bytes: i64,
}

#[utoipa::path(
    get, path = "/studio/v1/overview", tag = "studio",
    responses((status = 200, body = Overview), (status = 401), (status = 403, description = "Not an operator"))
)]
pub(crate) async fn overview(State(studio): State<Studio>) -> Result<Json<Overview>, Error> {
    let inner = &studio.inner;
    let report = inner.health.report().await;
    let max = Some(report.capacity.max).filter(|max| *max != usize::MAX);
    Ok(Json(Overview {
        status: report.status(),
        version: inner.version,
        uptime_seconds: report.uptime.as_secs(),
        migration_version: report.migration_version.clone(),
        sessions: Sessions { active: report.capacity.active, max },
        checks: report.checks,
        database: database(&studio).await?,
        people: people(&studio).await?,
        files: if inner.has_storage { files(&studio).await? } else { Files::default() },
    }))
}

async fn database(studio: &Studio) -> Result<DatabaseFacts, Error> {
    const SQL: &str = "select current_setting('server_version'), pg_database_size(current_database()),
            (select count(*) from pg_stat_activity where datname = current_database()),
            current_setting('max_connections')::bigint,
            count(*) filter (where not platform), count(*) filter (where open)
        from (
          select n.nspname = any ($2) as platform,
            n.nspname = any ($1) and not c.relrowsecurity and exists (
              select from unnest(array['anon', 'authenticated']) role
              where has_schema_privilege(role, n.oid, 'usage')
                and has_table_privilege(role, c.oid, 'select, insert, update, delete')) as open
          from pg_class c join pg_namespace n on n.oid = c.relnamespace
          where c.relkind in ('r', 'p') and n.nspname !~ '^pg_' and n.nspname <> 'information_schema'
        ) tables";
    let reason = ServiceReason::because("the Studio's overview counts tables of every schema");
    let acting = studio.inner.database.as_service(reason);
    let rows = acting.query(SQL, &[&(studio.inner.exposed_schemas)(), &super::tables::PLATFORM]).await?;
    let row = &rows[0];
    let version: String = row.get(0);
    Ok(DatabaseFacts {
        version: version.split(' ').next().unwrap_or_default().to_owned(),
        bytes: row.get(1),
        connections: row.get(2),
        max_connections: row.get(3),
        tables: row.get(4),
        tables_open: row.get(5),
    })
}

async fn people(studio: &Studio) -> Result<People, Error> {
    const SQL: &str = "select count(*), count(*) filter (where created_at > now() - interval '7 days'),
            count(*) filter (where last_sign_in_at > now() - interval '7 days'),
            (select count(*) from auth.sessions where coalesce(not_after > now(), true))
        from auth.users where deleted_at is null";
    let row = operators::accounts(&studio.inner.database, SQL, &[]).await?;
    let count = |column: usize| row.as_ref().map_or(0, |row| row.get::<_, i64>(column));
    Ok(People { users: count(0), new_users: count(1), active_users: count(2), sessions: count(3) })
}

async fn files(studio: &Studio) -> Result<Files, Error> {
    const SQL: &str = "select (select count(*) from storage.buckets), count(*),
            coalesce(sum((metadata ->> 'size')::numeric), 0)::bigint from storage.objects";
    let reason = ServiceReason::because("the Studio's overview counts files of everybody");
    let row = studio.inner.database.as_service(reason).query_opt(SQL, &[]).await?;
    let count = |column: usize| row.as_ref().map_or(0, |row| row.get::<_, i64>(column));
    Ok(Files { buckets: count(0), objects: count(1), bytes: count(2) })
}
