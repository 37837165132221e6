//! Applies what is pending.

use std::path::{Path, PathBuf};
use std::time::Duration;

use tokio_postgres::Client;
use tokio_postgres::types::Type;

use super::error::MigrationError;
use super::execute::{Prepared, run};
use super::ledger::{self, Entry, LOCK_WAIT, Record, State, compare, ensure, lock, unlock};
use super::source::{Loaded, Migration, Source, hash, read_sql};

/// A step of a run, for whoever shows progress.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Progress<'a> {
    /// Another run holds the lock, or may; waiting for our turn.
    Waiting,
    /// A migration begins.
    Applying {
        /// Path of the file.
        file: &'a str,
        /// Its number among those of this run, from 1.
        number: usize,
        /// How many this run applies.
        total: usize,
    },
    /// The seed begins.
    Seeding {
        /// Path of the file.
        file: &'a str,
    },
}

/// How to push.
#[derive(Clone)]
pub struct PushOptions<'a> {
    /// Only say what would be applied.
    pub dry_run: bool,
    /// Also apply migrations that are older than the newest applied one.
    pub include_all: bool,
    /// Seed file to load after the migrations, unless it was loaded before.
    pub include_seed: Option<PathBuf>,
    /// Longest wait for another run to end. Default 10 minutes.
    pub lock_wait: Duration,
    /// Told of each step.
    pub progress: &'a (dyn Fn(Progress<'_>) + Send + Sync),
}

impl Default for PushOptions<'_> {
    fn default() -> Self {
        Self {
            dry_run: false,
            include_all: false,
            include_seed: None,
            lock_wait: LOCK_WAIT,
            progress: &|_| {},
        }
    }
}

/// What became of the seed file.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum SeedOutcome {
    /// None was asked for.
    NotAsked,
    /// Loaded now (or would be, in a dry run).
    Loaded,
    /// Loaded before with this content.
    Unchanged,
    /// Loaded before with other content; not loaded again, because seeds seldom can be. `longhouse db reset` does.
    Changed,
}

/// What a push did, or would do.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PushReport {
    /// Migrations applied in this order (in a dry run: that would be).
    pub applied: Vec<Entry>,
    /// Applied earlier, but their files have been changed since.
    pub edited: Vec<Entry>,
    /// `.sql` files that are not migrations by their name.
    pub ignored: Vec<String>,
    /// What became of the seed file.
    pub seed: SeedOutcome,
}

/// Applies the pending migrations of a source in order of their versions.
///
/// All files are read and split before the first one runs. Every file is applied completely or, unless Postgres
/// cannot run it in a transaction, not at all; files before a failing one stay applied.
///
/// # Errors
/// [`MigrationError::Failed`] tells file, line, column and what Postgres said. Pending migrations older than applied
/// ones, and applied ones without a file, are refused as by the Supabase command line.
pub async fn push(
    client: &mut Client,
    source: &Source,
    options: PushOptions<'_>,
) -> Result<PushReport, MigrationError> {
    let loaded = source.load()?;
    if options.dry_run {
        return dry_run(client, source, loaded, &options).await;
    }
    (options.progress)(Progress::Waiting);
    lock(client, options.lock_wait).await?;
    let result = push_locked(client, source, loaded, &options).await;
    unlock(client).await;
    result
}

async fn dry_run(
    client: &Client,
    source: &Source,
    loaded: Loaded,
    options: &PushOptions<'_>,
) -> Result<PushReport, MigrationError> {
    let entries = compare(&loaded.migrations, &ledger::read(client).await?);
    check_order(&entries, source, options.include_all)?;
    for migration in pending(&loaded.migrations, &entries) {
        Prepared::new(&migration.file, &migration.sql, Some(&migration.version))?;
    }
    let seed = match &options.include_seed {
        Some(path) => seed_state(client, path, &read_sql(path)?).await?,
        None => SeedOutcome::NotAsked,
    };
    let (applied, edited) = (of_state(&entries, State::Pending), of_state(&entries, State::EditedAfterApply));
    Ok(PushReport { applied, edited, ignored: loaded.ignored, seed })
}

/// The push proper, for a caller that holds the lock.
pub(super) async fn push_locked(
    client: &mut Client,
    source: &Source,
    loaded: Loaded,
    options: &PushOptions<'_>,
) -> Result<PushReport, MigrationError> {
    ensure(client).await?;
    let entries = compare(&loaded.migrations, &ledger::read(client).await?);
    check_order(&entries, source, options.include_all)?;

    let pending: Vec<&Migration> = pending(&loaded.migrations, &entries).collect();
    let prepared = pending
        .iter()
        .map(|migration| Prepared::new(&migration.file, &migration.sql, Some(&migration.version)))
        .collect::<Result<Vec<_>, _>>()?;
    for (index, (migration, prepared)) in pending.iter().zip(&prepared).enumerate() {
        (options.progress)(Progress::Applying {
            file: &migration.file,
            number: index + 1,
            total: pending.len(),
        });
        let record = Record::Project { migration, statements: prepared.recorded_statements() };
        run(client, prepared, "", &record).await?;
        tracing::info!(version = migration.version, name = migration.name, "migration applied");
    }

    let seed = match &options.include_seed {
        Some(path) => {
            let sql = read_sql(path)?;
            let outcome = seed_state(client, path, &sql).await?;
            if outcome == SeedOutcome::Loaded {
                load_seed(client, path, &sql, options).await?;
            }
            outcome
        }
        None => SeedOutcome::NotAsked,
    };
    let (applied, edited) = (of_state(&entries, State::Pending), of_state(&entries, State::EditedAfterApply));
    Ok(PushReport { applied, edited, ignored: loaded.ignored, seed })
}

fn pending<'a>(migrations: &'a [Migration], entries: &'a [Entry]) -> impl Iterator<Item = &'a Migration> {
    migrations.iter().filter(|migration| {
        entries.iter().any(|entry| entry.version == migration.version && entry.state == State::Pending)
    })
}

fn of_state(entries: &[Entry], state: State) -> Vec<Entry> {
    entries.iter().filter(|entry| entry.state == state).cloned().collect()
}

/// The Supabase command line's two conditions: no history that we do not know, and no rewriting of it.
fn check_order(entries: &[Entry], source: &Source, include_all: bool) -> Result<(), MigrationError> {
    let versions = |entries: Vec<Entry>| entries.into_iter().map(|entry| entry.version).collect::<Vec<_>>();
    let missing = versions(of_state(entries, State::MissingLocally));
    if !missing.is_empty() {
        let place = match source {
            Source::Folder(folder) => folder.display().to_string(),
            Source::Embedded(_) => "this binary".into(),
        };
        return Err(MigrationError::MissingLocally { versions: missing, place });
    }
    let Some(newest) = entries.iter().rev().find(|entry| entry.state != State::Pending) else {
        return Ok(());
    };
    let late: Vec<String> = versions(of_state(entries, State::Pending))
        .into_iter()
        .filter(|version| *version < newest.version)
        .collect();
    if late.is_empty() || include_all {
        return Ok(());
    }
    Err(MigrationError::OutOfOrder { versions: late, newest: newest.version.clone() })
}

async fn seed_state(client: &Client, path: &Path, sql: &str) -> Result<SeedOutcome, MigrationError> {
    let query = "select hash from supabase_migrations.seed_files where path = $1";
    let path = path.display().to_string();
    let rows = match client.query_typed(query, &[(&path, Type::TEXT)]).await {
        Ok(rows) => rows,
        // A database that no migration has reached yet, in a dry run.
        Err(error) if error.as_db_error().is_some_and(|e| e.code().code() == "42P01") => Vec::new(),
        Err(error) => return Err(MigrationError::database("reading the loaded seeds")(error)),
    };
    Ok(match rows.first() {
        None => SeedOutcome::Loaded,
        Some(row) if row.get::<_, String>(0) == hash(sql) => SeedOutcome::Unchanged,
        Some(_) => SeedOutcome::Changed,
    })
}

async fn load_seed(
    client: &mut Client,
    path: &Path,
    sql: &str,
    options: &PushOptions<'_>,
) -> Result<(), MigrationError> {
    let file = path.display().to_string();
    (options.progress)(Progress::Seeding { file: &file });
    let prepared = Prepared::new(&file, sql, None)?;
    run(client, &prepared, "", &Record::Seed { path: &file, hash: &hash(sql) }).await
}
