//! What has been applied: the Supabase command line's own table, with content hashes beside it.

use std::collections::BTreeMap;
use std::time::Duration;

use tokio::time::Instant;
use tokio_postgres::Client;
use tokio_postgres::error::SqlState;
use tokio_postgres::types::Type;

use super::error::MigrationError;
use super::execute::Prepared;
use super::source::{Loaded, Migration, Source};

/// Where a migration stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum State {
    /// In the source, not in the database.
    Pending,
    /// In both, with the same content.
    Applied,
    /// In both; another tool applied it, so that its content is not known.
    AppliedElsewhere,
    /// In the database only.
    MissingLocally,
    /// In both, but the file has been changed since.
    EditedAfterApply,
}

impl State {
    /// The state as `longhouse db list` prints it.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Pending => "pending",
            Self::Applied => "applied",
            Self::AppliedElsewhere => "applied-elsewhere",
            Self::MissingLocally => "missing-locally",
            Self::EditedAfterApply => "edited-after-apply",
        }
    }
}

/// One migration and its state.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Entry {
    /// Its version.
    pub version: String,
    /// Its name, as far as known.
    pub name: String,
    /// Where it stands.
    pub state: State,
}

/// All migrations of a source and of the database, in order of versions.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Status {
    /// One entry a version.
    pub entries: Vec<Entry>,
    /// `.sql` files that are not migrations by their name.
    pub ignored: Vec<String>,
}

/// Compares a source with the database, in one round trip. Changes nothing.
///
/// # Errors
/// When the source or the database cannot be read.
pub async fn status(client: &Client, source: &Source) -> Result<Status, MigrationError> {
    let loaded = source.load()?;
    let applied = read(client).await?;
    Ok(Status { entries: compare(&loaded.migrations, &applied), ignored: loaded.ignored })
}

/// A row of the ledger.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Applied {
    name: String,
    sha256: Option<String>,
}

/// The ledger by version; empty when no migration has ever been applied here.
pub(super) async fn read(client: &Client) -> Result<BTreeMap<String, Applied>, MigrationError> {
    // Through json, because the table of an old command line has no column `name`.
    let sql = "select m.version::text, coalesce(to_jsonb(m) ->> 'name', '') as name, h.sha256
        from supabase_migrations.schema_migrations m
        left join longhouse.migration_hashes h on h.version = m.version";
    let rows = match client.query_typed(sql, &[]).await {
        Ok(rows) => rows,
        Err(error) if is_missing(&error) => {
            return read_without_hashes(client).await;
        }
        Err(error) => return Err(MigrationError::database("reading the applied migrations")(error)),
    };
    Ok(rows
        .iter()
        .map(|row| (row.get("version"), Applied { name: row.get("name"), sha256: row.get("sha256") }))
        .collect())
}

/// A database that only the Supabase command line has seen, or nobody.
async fn read_without_hashes(client: &Client) -> Result<BTreeMap<String, Applied>, MigrationError> {
    let sql = "select m.version::text, coalesce(to_jsonb(m) ->> 'name', '') as name
        from supabase_migrations.schema_migrations m";
    match client.query_typed(sql, &[]).await {
        Ok(rows) => Ok(rows
            .iter()
            .map(|row| (row.get("version"), Applied { name: row.get("name"), sha256: None }))
            .collect()),
        Err(error) if is_missing(&error) => Ok(BTreeMap::new()),
        Err(error) => Err(MigrationError::database("reading the applied migrations")(error)),
    }
}

fn is_missing(error: &tokio_postgres::Error) -> bool {
    matches!(error.code(), Some(&SqlState::UNDEFINED_TABLE | &SqlState::INVALID_SCHEMA_NAME))
}

pub(super) fn compare(migrations: &[Migration], applied: &BTreeMap<String, Applied>) -> Vec<Entry> {
    let mut entries: BTreeMap<&str, Entry> = applied
        .iter()
        .map(|(version, row)| {
            let (version_owned, name) = (version.clone(), row.name.clone());
            (version.as_str(), Entry { version: version_owned, name, state: State::MissingLocally })
        })
        .collect();
    for migration in migrations {
        let state = match applied.get(&migration.version) {
            None => State::Pending,
            Some(Applied { sha256: None, .. }) => State::AppliedElsewhere,
            Some(Applied { sha256: Some(hash), .. }) if *hash == migration.sha256() => State::Applied,
            Some(_) => State::EditedAfterApply,
        };
        let entry = Entry { version: migration.version.clone(), name: migration.name.clone(), state };
        entries.insert(&migration.version, entry);
    }
    entries.into_values().collect()
}

/// The row that belongs to a file.
pub(super) enum Record<'a> {
    /// A project's migration.
    Project { migration: &'a Migration, statements: Vec<String> },
    /// An application's migration.
    App { app: &'a str, migration: &'a Migration },
    /// A seed file, as the Supabase command line records it.
    Seed { path: &'a str, hash: &'a str },
}

impl Record<'_> {
    pub(super) async fn write(&self, client: &Client) -> Result<(), MigrationError> {
        let doing = MigrationError::database("recording what was applied");
        match self {
            Self::Project { migration, statements } => {
                let sql = "with hash as (
                        insert into longhouse.migration_hashes (version, sha256) values ($1, $4)
                        on conflict (version) do update set sha256 = excluded.sha256, recorded_at = now()
                    )
                    insert into supabase_migrations.schema_migrations (version, name, statements)
                    values ($1, $2, $3)
                    on conflict (version) do update set name = excluded.name, statements = excluded.statements";
                client
                    .execute_typed(
                        sql,
                        &[
                            (&migration.version, Type::TEXT),
                            (&migration.name, Type::TEXT),
                            (statements, Type::TEXT_ARRAY),
                            (&migration.sha256(), Type::TEXT),
                        ],
                    )
                    .await
            }
            Self::App { app, migration } => {
                let sql = "insert into longhouse.app_migrations (app, version, name, checksum)
                    values ($1, $2, $3, $4)";
                client
                    .execute_typed(
                        sql,
                        &[
                            (app, Type::TEXT),
                            (&migration.version, Type::TEXT),
                            (&migration.name, Type::TEXT),
                            (&migration.sha256(), Type::TEXT),
                        ],
                    )
                    .await
            }
            Self::Seed { path, hash } => {
                let sql = "insert into supabase_migrations.seed_files (path, hash) values ($1, $2)
                    on conflict (path) do update set hash = excluded.hash";
                client.execute_typed(sql, &[(path, Type::TEXT), (hash, Type::TEXT)]).await
            }
        }
        .map(|_| ())
        .map_err(doing)
    }
}

/// Makes the ledger tables where they are missing, just as the Supabase command line would.
pub(super) async fn ensure(client: &Client) -> Result<(), MigrationError> {
    let doing = || MigrationError::database("looking for the migration tables");
    let sql = "select count(*) = 4
        from pg_attribute a join pg_class c on c.oid = a.attrelid join pg_namespace n on n.oid = c.relnamespace
        where n.nspname = 'supabase_migrations' and a.attnum > 0 and not a.attisdropped
        and (c.relname, a.attname) in (('schema_migrations', 'version'), ('schema_migrations', 'name'),
          ('schema_migrations', 'statements'), ('seed_files', 'hash'))";
    let rows = client.query_typed(sql, &[]).await.map_err(doing())?;
    if rows.first().is_some_and(|row| row.get(0)) {
        return Ok(());
    }
    client
        .batch_execute(
            "create schema if not exists supabase_migrations;
            create table if not exists supabase_migrations.schema_migrations (version text primary key);
            alter table supabase_migrations.schema_migrations add column if not exists statements text[];
            alter table supabase_migrations.schema_migrations add column if not exists name text;
            create table if not exists supabase_migrations.seed_files (path text primary key, hash text not null)",
        )
        .await
        .map_err(MigrationError::database("making the migration tables"))
}

/// Marks versions as applied (with the content of their files) or as not applied, without running anything.
///
/// # Errors
/// When a version to be marked as applied has no file.
pub async fn repair(
    client: &mut Client,
    source: &Source,
    applied: bool,
    versions: &[String],
) -> Result<(), MigrationError> {
    let Loaded { migrations, .. } = if applied { source.load()? } else { Loaded::default() };
    lock(client, LOCK_WAIT).await?;
    let result = repair_locked(client, &migrations, applied, versions).await;
    unlock(client).await;
    result
}

async fn repair_locked(
    client: &mut Client,
    migrations: &[Migration],
    applied: bool,
    versions: &[String],
) -> Result<(), MigrationError> {
    ensure(client).await?;
    let doing = MigrationError::database("repairing the ledger");
    let transaction = client.transaction().await.map_err(&doing)?;
    for version in versions {
        if applied {
            let migration = migrations
                .iter()
                .find(|migration| migration.version == *version)
                .ok_or_else(|| MigrationError::UnknownVersion(version.clone()))?;
            let statements =
                Prepared::new(&migration.file, &migration.sql, Some(version))?.recorded_statements();
            Record::Project { migration, statements }.write(transaction.client()).await?;
        } else {
            let sql = "with hash as (delete from longhouse.migration_hashes where version = $1)
                delete from supabase_migrations.schema_migrations where version = $1";
            transaction.execute_typed(sql, &[(version, Type::TEXT)]).await.map_err(&doing)?;
        }
    }
    transaction.commit().await.map_err(&doing)
}

/// The advisory lock of everything that migrates this database ("longmigr" in ASCII).
const LOCK: i64 = 0x6c6f_6e67_6d69_6772;

/// How long to wait for another run by default: long migrations take minutes.
pub(super) const LOCK_WAIT: Duration = Duration::from_secs(600);

/// Takes the lock for this session, or says who holds it.
pub(super) async fn lock(client: &Client, wait: Duration) -> Result<(), MigrationError> {
    let doing = || MigrationError::database("waiting for another migration run");
    let start = Instant::now();
    loop {
        let sql = "select pg_try_advisory_lock($1)";
        let rows = client.query_typed(sql, &[(&LOCK, Type::INT8)]).await.map_err(doing())?;
        if rows.first().is_some_and(|row| row.get(0)) {
            return Ok(());
        }
        if start.elapsed() >= wait {
            let sql = "select a.pid, coalesce(a.application_name, '') as name
                from pg_locks l join pg_stat_activity a on a.pid = l.pid
                where l.locktype = 'advisory' and l.granted and l.objsubid = 1
                and (l.classid::int8 << 32 | l.objid::int8) = $1";
            let rows = client.query_typed(sql, &[(&LOCK, Type::INT8)]).await.map_err(doing())?;
            let holder = rows.first().map(|row| {
                let (pid, name): (i32, String) = (row.get("pid"), row.get("name"));
                format!(" (Postgres process {pid}, application `{name}`)")
            });
            return Err(MigrationError::Locked(wait, holder.unwrap_or_default()));
        }
        // Polled, not queued: a wait inside of Postgres would hold back `create index concurrently` of the holder.
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
}

pub(super) async fn unlock(client: &Client) {
    if client.is_closed() {
        return;
    }
    if let Err(error) = client.query_typed("select pg_advisory_unlock($1)", &[(&LOCK, Type::INT8)]).await {
        // The lock ends with the session anyway.
        tracing::warn!(%error, "could not release the migration lock");
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_state_is_told_from_the_files_and_the_ledger() {
        let migration = |version: &str, sql: &'static str| Migration {
            version: version.into(),
            name: "m".into(),
            file: format!("{version}_m.sql"),
            sql: sql.into(),
        };
        let local = [migration("1", "a"), migration("2", "b"), migration("3", "c"), migration("5", "e")];
        let row = |sha256: Option<String>| Applied { name: "m".into(), sha256 };
        let applied = BTreeMap::from([
            ("1".to_owned(), row(Some(local[0].sha256()))),
            ("2".to_owned(), row(None)),
            ("3".to_owned(), row(Some("other".into()))),
            ("4".to_owned(), row(None)),
        ]);
        let states: Vec<_> =
            compare(&local, &applied).into_iter().map(|entry| (entry.version, entry.state)).collect();
        let expected = [
            ("1", State::Applied),
            ("2", State::AppliedElsewhere),
            ("3", State::EditedAfterApply),
            ("4", State::MissingLocally),
            ("5", State::Pending),
        ];
        assert_eq!(states, expected.map(|(version, state)| (version.to_owned(), state)));
    }
}
