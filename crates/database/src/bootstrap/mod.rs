//! The platform schema that Supabase projects expect to find: roles, schemas, `auth.uid()` and its kin, accounts,
//! buckets, default privileges and Longhouse's own ledger.
//!
//! The schema is a list of parts, each an idempotent `.sql` file with a version. [`apply`] compares the list with
//! `longhouse.schema_versions` in one round trip and runs, in one transaction, the parts that are missing or older.
//! A part recorded by a newer Longhouse is left alone, so that an older server can run beside it.
//!
//! | database | what happens |
//! |---|---|
//! | managed cluster, or any database as superuser | everything; `postgres` becomes the migration owner |
//! | plain Postgres, login with `createrole` and enough else | everything, owned by that login |
//! | hosted Supabase | only the schema `longhouse`; nothing of theirs is touched |

mod rights;

use std::time::Duration;

use secrecy::{ExposeSecret, SecretString};
use sha2::{Digest, Sha256};
use tokio_postgres::error::SqlState;
use tokio_postgres::types::Type;
use tokio_postgres::{Client, Transaction};

use rights::Facts;

/// One idempotent file of the platform schema.
struct Part {
    name: &'static str,
    version: i32,
    sql: &'static str,
    /// Whether it goes into a hosted Supabase project too.
    hosted: bool,
}

/// In the order in which they build on each other. Raise `version` with every change of a file.
const PARTS: &[Part] = &[
    Part { name: "roles", version: 3, sql: include_str!("sql/roles.sql"), hosted: false },
    Part { name: DATABASE, version: 1, sql: include_str!("sql/database.sql"), hosted: false },
    Part { name: "longhouse", version: 1, sql: include_str!("sql/longhouse.sql"), hosted: true },
    Part { name: "schemas", version: 1, sql: include_str!("sql/schemas.sql"), hosted: false },
    Part { name: "extensions", version: 1, sql: include_str!("sql/extensions.sql"), hosted: false },
    Part { name: "auth", version: 2, sql: include_str!("sql/auth.sql"), hosted: false },
    Part { name: "auth_unused", version: 1, sql: include_str!("sql/auth_unused.sql"), hosted: false },
    Part { name: "auth_rights", version: 2, sql: include_str!("sql/auth_rights.sql"), hosted: false },
    Part { name: "auth_service", version: 1, sql: include_str!("sql/auth_service.sql"), hosted: false },
    Part { name: "storage", version: 2, sql: include_str!("sql/storage.sql"), hosted: false },
    Part { name: "realtime", version: 2, sql: include_str!("sql/realtime.sql"), hosted: false },
    Part { name: "rest", version: 1, sql: include_str!("sql/rest.sql"), hosted: false },
    Part { name: "studio", version: 1, sql: include_str!("sql/studio.sql"), hosted: false },
];

/// The part that `create database … template` does not copy.
const DATABASE: &str = "database";

/// Serialises set-up of one database ("longhous" in ASCII).
const LOCK: i64 = 0x6c6f_6e67_686f_7573;

/// Set-up of two databases of one cluster can collide on the shared role catalogs; the loser tries again.
const ATTEMPTS: u32 = 8;

/// How long to wait for another set-up before giving up.
const LOCK_TIMEOUT: &str = "60s";

/// Passwords for the logins that the bootstrap makes.
#[derive(Debug, Clone)]
pub struct Passwords {
    /// Of `postgres`, the migration owner.
    pub owner: SecretString,
    /// Of `authenticator`, the login of the request pool.
    pub authenticator: SecretString,
}

/// Whose platform the database is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Platform {
    /// Longhouse set it up.
    Longhouse,
    /// A Supabase project: only the schema `longhouse` is ours.
    Supabase,
}

/// What [`apply`] found and did.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Report {
    /// Whose platform the database is.
    pub platform: Platform,
    /// Parts that were applied now, with their versions; empty when everything was current.
    pub applied: Vec<(&'static str, i32)>,
    /// Parts that a newer Longhouse has already taken further; they were left alone.
    pub newer: Vec<&'static str>,
}

/// Why the platform schema could not be set up.
#[derive(Debug, thiserror::Error)]
pub enum BootstrapError {
    /// The server is too old for what the schema uses.
    #[error(
        "this is Postgres {0}; Longhouse needs Postgres 14 to 18: upgrade the server or point DATABASE_URL at another"
    )]
    UnsupportedVersion(String),
    /// The login may not do what is needed.
    #[error(
        "the login {user} cannot set up this database: it lacks {}.\nConnect once as an administrator, or have one run:\n\n{sql}",
        .missing.join(", ")
    )]
    InsufficientRights {
        /// Login that was used.
        user: String,
        /// What it lacks, in words.
        missing: Vec<String>,
        /// What an administrator has to run so that it suffices.
        sql: String,
    },
    /// A part exists in an older version that this login may not change.
    #[error(
        "the platform schema is older than this Longhouse ({}) and the login {user} may not change it: \
         start `longhouse serve` once on the managed cluster, or run this command with the superuser's URL",
        .parts.join(", ")
    )]
    Outdated {
        /// Login that was used.
        user: String,
        /// Parts that wait for an upgrade.
        parts: Vec<&'static str>,
    },
    /// A part's SQL failed.
    #[error("could not set up the part `{part}` of the platform schema: {}", describe(.source))]
    Part {
        /// Name of the part.
        part: &'static str,
        /// What Postgres said.
        source: tokio_postgres::Error,
    },
    /// The connection or a query failed.
    #[error("could not read the state of the platform schema: {}; check that the database is up and reachable", describe(.0))]
    Database(#[from] tokio_postgres::Error),
}

/// What Postgres says is in the source error, which `Display` of the driver's error leaves out.
fn describe(error: &tokio_postgres::Error) -> String {
    match error.as_db_error() {
        Some(db) => {
            let hint = db.hint().map(|h| format!(" ({h})")).unwrap_or_default();
            format!("{} [{}]{hint}", db.message(), db.code().code())
        }
        None => error.to_string(),
    }
}

impl BootstrapError {
    /// Whether another set-up in the same cluster got in between.
    fn is_race(&self) -> bool {
        let (Self::Part { source, .. } | Self::Database(source)) = self else { return false };
        let Some(db) = source.as_db_error() else { return false };
        [SqlState::DUPLICATE_OBJECT, SqlState::UNIQUE_VIOLATION, SqlState::T_R_DEADLOCK_DETECTED]
            .contains(db.code())
            || db.message().contains("tuple concurrently")
    }
}

/// Brings the platform schema up to date: one round trip when it already is.
///
/// `passwords` are set on `postgres` and `authenticator` where they are made now, or have none yet; they are not
/// changed otherwise (see [`set_passwords`]). Only a superuser can set them; without them those roles cannot log in by
/// password.
///
/// # Errors
/// [`BootstrapError::InsufficientRights`] names what the login lacks and the SQL that an administrator has to run.
pub async fn apply(client: &mut Client, passwords: Option<&Passwords>) -> Result<Report, BootstrapError> {
    if let Some(report) = check(client).await {
        return Ok(report);
    }
    let mut attempt = 1;
    loop {
        match apply_once(client, passwords).await {
            Err(error) if error.is_race() && attempt < ATTEMPTS => {
                tracing::debug!(attempt, %error, "set-up of another database got in between; trying again");
                tokio::time::sleep(Duration::from_millis(25) * attempt).await;
                attempt += 1;
            }
            result => return result,
        }
    }
}

/// Sets the passwords of `postgres` and `authenticator`; the way to rotate them. Needs a superuser.
///
/// # Errors
/// When the login may not change those roles.
pub async fn set_passwords(client: &mut Client, passwords: &Passwords) -> Result<(), BootstrapError> {
    let transaction = client.transaction().await?;
    transaction.batch_execute("set local search_path = pg_catalog").await?;
    set_password(&transaction, "postgres", &passwords.owner).await?;
    set_password(&transaction, "authenticator", &passwords.authenticator).await?;
    Ok(transaction.commit().await?)
}

/// The report when nothing is to do; `None` when something is, or when there is no ledger yet.
async fn check(client: &Client) -> Option<Report> {
    // `astray`: a copy of a template belongs to the superuser who made it and has none of the database's settings.
    let sql = "select v.part, v.version, v.checksum, d.datdba = u.oid and u.rolsuper and exists (
            select from pg_roles o where o.rolname = 'postgres' and not o.rolsuper) as astray
        from longhouse.schema_versions v, pg_database d, pg_roles u
        where d.datname = current_database() and u.rolname = current_user";
    let rows = client.query_typed(sql, &[]).await.ok()?;
    let ledger: Vec<Recorded> = rows.iter().map(Recorded::from_row).collect();
    let astray = rows.first()?.get::<_, bool>("astray");
    let platform = platform_of(&ledger)?;
    if !pending(&ledger, platform).is_empty() || (astray && platform == Platform::Longhouse) {
        return None;
    }
    Some(Report { platform, applied: Vec::new(), newer: newer(&ledger) })
}

/// A row of the ledger.
struct Recorded {
    part: String,
    version: i32,
    checksum: String,
}

impl Recorded {
    fn from_row(row: &tokio_postgres::Row) -> Self {
        Self { part: row.get("part"), version: row.get("version"), checksum: row.get("checksum") }
    }
}

/// A ledger with our roles in it is our platform; one with only our own schema is a guest in someone else's.
fn platform_of(ledger: &[Recorded]) -> Option<Platform> {
    if ledger.iter().any(|row| row.part == "roles") {
        Some(Platform::Longhouse)
    } else if ledger.iter().any(|row| row.part == "longhouse") {
        Some(Platform::Supabase)
    } else {
        None
    }
}

/// Parts that are missing, older, or of the same version with other content (a file changed in development).
fn pending(ledger: &[Recorded], platform: Platform) -> Vec<&'static Part> {
    PARTS
        .iter()
        .filter(|part| part.hosted || platform == Platform::Longhouse)
        .filter(|part| match ledger.iter().find(|row| row.part == part.name) {
            None => true,
            Some(row) => {
                row.version < part.version
                    || (row.version == part.version && row.checksum != checksum(part.sql))
            }
        })
        .collect()
}

fn newer(ledger: &[Recorded]) -> Vec<&'static str> {
    let recorded = |part: &Part| ledger.iter().any(|row| row.part == part.name && row.version > part.version);
    PARTS.iter().filter(|part| recorded(part)).map(|part| part.name).collect()
}

fn checksum(sql: &str) -> String {
    hex::encode(Sha256::digest(sql.as_bytes()))
}

async fn apply_once(client: &mut Client, passwords: Option<&Passwords>) -> Result<Report, BootstrapError> {
    let transaction = client.transaction().await?;
    // The owner may create functions in public: none of them may get between a superuser and Postgres' own.
    transaction
        .batch_execute(&format!(
            "set local search_path = pg_catalog; set local lock_timeout = '{LOCK_TIMEOUT}'; set local statement_timeout = 0; \
             set local client_min_messages = warning; select pg_advisory_xact_lock({LOCK})"
        ))
        .await?;
    let facts = Facts::read(&transaction).await?;
    facts.check_version()?;

    let ledger = match facts.has_ledger {
        true => transaction
            .query_typed("select part, version, checksum from longhouse.schema_versions", &[])
            .await?
            .iter()
            .map(Recorded::from_row)
            .collect(),
        false => Vec::new(),
    };
    let platform = platform_of(&ledger).unwrap_or(match facts.supabase() {
        true => Platform::Supabase,
        false => Platform::Longhouse,
    });
    let mut parts = pending(&ledger, platform);
    if platform == Platform::Longhouse && facts.database_astray() && !parts.iter().any(|p| p.name == DATABASE)
    {
        parts.extend(PARTS.iter().filter(|part| part.name == DATABASE));
    }

    match platform {
        Platform::Supabase => facts.require_for_guest()?,
        Platform::Longhouse if !ledger.is_empty() && !facts.may_upgrade() => {
            return Err(BootstrapError::Outdated {
                user: facts.user,
                parts: parts.iter().map(|p| p.name).collect(),
            });
        }
        Platform::Longhouse => facts.require_for_platform()?,
    }

    if facts.superuser {
        // Advisory locks end at the database; roles do not. This catalog is shared by the cluster.
        transaction.batch_execute("lock table pg_catalog.pg_authid in share row exclusive mode").await?;
    }
    let owner = facts.owner(passwords.is_some(), platform);
    transaction
        .query_typed(
            "select set_config('longhouse.owner', $1, true), set_config('longhouse.superuser', $2, true)",
            &[(&owner, Type::TEXT), (&facts.superuser.to_string(), Type::TEXT)],
        )
        .await?;

    let without_password = match (passwords, facts.superuser) {
        (Some(_), true) => without_password(&transaction).await?,
        _ => Vec::new(),
    };
    for part in &parts {
        run_part(&transaction, part).await?;
    }
    if let Some(passwords) = passwords {
        for role in without_password {
            let password = if role == "postgres" { &passwords.owner } else { &passwords.authenticator };
            set_password(&transaction, role, password).await?;
        }
    }
    for part in &parts {
        transaction
            .execute_typed(
                "insert into longhouse.schema_versions (part, version, checksum) values ($1, $2, $3)
                 on conflict (part) do update
                 set version = excluded.version, checksum = excluded.checksum, applied_at = now()",
                &[(&part.name, Type::TEXT), (&part.version, Type::INT4), (&checksum(part.sql), Type::TEXT)],
            )
            .await?;
    }
    transaction.commit().await?;
    Ok(Report {
        platform,
        applied: parts.iter().map(|part| (part.name, part.version)).collect(),
        newer: newer(&ledger),
    })
}

async fn run_part(transaction: &Transaction<'_>, part: &Part) -> Result<(), BootstrapError> {
    transaction
        .batch_execute(part.sql)
        .await
        .map_err(|source| BootstrapError::Part { part: part.name, source })
}

/// Which of our logins are missing or cannot log in yet.
async fn without_password(transaction: &Transaction<'_>) -> Result<Vec<&'static str>, BootstrapError> {
    let rows = transaction
        .query_typed("select rolname::text from pg_authid where rolpassword is not null", &[])
        .await?;
    let set: Vec<String> = rows.iter().map(|row| row.get(0)).collect();
    Ok(["postgres", "authenticator"].into_iter().filter(|role| !set.iter().any(|s| s == role)).collect())
}

/// `alter role` takes no parameters, so the password travels as a bound setting: it is in no statement text.
async fn set_password(
    transaction: &Transaction<'_>,
    role: &str,
    password: &SecretString,
) -> Result<(), BootstrapError> {
    transaction
        .query_typed(
            "select set_config('longhouse.role', $1, true), set_config('longhouse.password', $2, true)",
            &[(&role, Type::TEXT), (&password.expose_secret(), Type::TEXT)],
        )
        .await?;
    transaction
        .batch_execute(
            "do $$ begin
               execute format('alter role %I password %L',
                 current_setting('longhouse.role'), current_setting('longhouse.password'));
             end $$;
             select set_config('longhouse.password', '', true)",
        )
        .await?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn recorded(part: &Part) -> Recorded {
        Recorded { part: part.name.into(), version: part.version, checksum: checksum(part.sql) }
    }

    #[test]
    fn a_current_ledger_leaves_nothing_pending() {
        let ledger: Vec<Recorded> = PARTS.iter().map(recorded).collect();
        assert_eq!(platform_of(&ledger), Some(Platform::Longhouse));
        assert!(pending(&ledger, Platform::Longhouse).is_empty());
        assert!(newer(&ledger).is_empty());
    }

    #[test]
    fn older_changed_and_missing_parts_are_pending_and_newer_ones_are_left_alone() {
        let mut ledger: Vec<Recorded> = PARTS.iter().map(recorded).collect();
        ledger[0].version -= 1;
        ledger[3].checksum = "something else".into();
        ledger[5].version += 1;
        ledger.retain(|row| row.part != "storage");
        let names: Vec<_> = pending(&ledger, Platform::Longhouse).iter().map(|part| part.name).collect();
        assert_eq!(names, ["roles", "schemas", "storage"]);
        assert_eq!(newer(&ledger), ["auth"]);
    }

    #[test]
    fn a_hosted_project_only_ever_gets_our_own_schema() {
        let names: Vec<_> = pending(&[], Platform::Supabase).iter().map(|part| part.name).collect();
        assert_eq!(names, ["longhouse"]);
    }
}
