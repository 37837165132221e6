//! Runs one file of SQL, and cleans the session after it.

use std::ops::Range;
use std::pin::pin;

use futures_util::TryStreamExt as _;
use tokio_postgres::{Client, SimpleQueryMessage};

use super::error::{Aftermath, Failure, MigrationError};
use super::ledger::Record;
use super::lexer::{self, Statement};
use super::plan::{Plan, plan};

/// A file that has been split and planned, so that mistakes show before anything runs.
pub(super) struct Prepared<'a> {
    file: &'a str,
    sql: &'a str,
    /// `None` for seeds.
    version: Option<&'a str>,
    statements: Vec<Statement<'a>>,
    plan: Plan,
}

impl<'a> Prepared<'a> {
    pub(super) fn new(file: &'a str, sql: &'a str, version: Option<&'a str>) -> Result<Self, MigrationError> {
        let statements =
            lexer::split(sql).map_err(|source| MigrationError::Lex { file: file.to_owned(), source })?;
        let plan = plan(&statements, sql.len())
            .map_err(|source| MigrationError::Unbalanced { file: file.to_owned(), source })?;
        Ok(Self { file, sql, version, statements, plan })
    }

    /// The statements as the Supabase command line records them: without the closing `;`.
    pub(super) fn recorded_statements(&self) -> Vec<String> {
        self.code().iter().map(|s| self.sql[s.span.start..s.code.end].trim().to_owned()).collect()
    }

    fn code(&self) -> Vec<&Statement<'a>> {
        self.statements.iter().filter(|statement| !statement.is_empty()).collect()
    }

    fn failure(
        &self,
        sent: Range<usize>,
        statement: Option<&Statement<'_>>,
        error: &tokio_postgres::Error,
        aftermath: Aftermath,
    ) -> MigrationError {
        MigrationError::Failed(Failure::locate(self.file, self.sql, sent, statement, error, aftermath))
    }
}

/// Takes back what a file may have changed in the session: role, settings, cursors, temporary tables.
/// Not `discard all`, which would give up the lock that serialises runs.
const CLEAN_UP: &str = "set session authorization default; reset all; close all; unlisten *; discard temp; \
    discard sequences; \
    do $$ declare name text; begin
      for name in select p.name from pg_prepared_statements p where p.from_sql loop
        execute format('deallocate %I', name);
      end loop;
    end $$";

/// Inside the file's transaction, before the ledger row: errors of deferred constraints belong to the file, and the
/// row is written as the login whatever role the file has set.
const SETTLE: &str = "set constraints all immediate; set session authorization default";

/// Runs a file and writes its row: in one transaction, or the row after the last statement.
/// `prelude` is SQL of ours that comes first in that transaction.
pub(super) async fn run(
    client: &mut Client,
    prepared: &Prepared<'_>,
    prelude: &str,
    record: &Record<'_>,
) -> Result<(), MigrationError> {
    let result = match &prepared.plan {
        Plan::Whole(range) => run_whole(client, prepared, range.clone(), prelude, record).await,
        Plan::Stepwise { .. } => run_stepwise(client, prepared, prelude, record).await,
    };
    if client.is_closed() {
        return result;
    }
    let cleaned =
        client.batch_execute(CLEAN_UP).await.map_err(MigrationError::database("cleaning the session"));
    result.and(cleaned)
}

async fn run_whole(
    client: &mut Client,
    prepared: &Prepared<'_>,
    range: Range<usize>,
    prelude: &str,
    record: &Record<'_>,
) -> Result<(), MigrationError> {
    let begin = MigrationError::database("beginning a transaction");
    let transaction = client.transaction().await.map_err(begin)?;
    if !prelude.is_empty() {
        let doing = MigrationError::database("preparing a transaction");
        transaction.batch_execute(prelude).await.map_err(doing)?;
    }
    let mut inside = prepared.code();
    inside.retain(|s| s.code.start >= range.start && s.code.start < range.end);
    if !inside.is_empty() {
        // The server says after each statement that it is done: what has been counted when an error comes is
        // the statement's number, also for errors without a position.
        let mut done = 0;
        if let Err(error) = send(transaction.client(), &prepared.sql[range.clone()], &mut done).await {
            return Err(prepared.failure(range, inside.get(done).copied(), &error, Aftermath::Nothing));
        }
    }
    let last = inside.last().copied();
    let at_end = |error: tokio_postgres::Error| {
        // The server's position, if any, is in our SQL here.
        let end = prepared.sql.len()..prepared.sql.len();
        prepared.failure(end, last, &error, Aftermath::Nothing)
    };
    transaction.batch_execute(SETTLE).await.map_err(at_end)?;
    record.write(transaction.client()).await?;
    transaction.commit().await.map_err(at_end)
}

async fn run_stepwise(
    client: &mut Client,
    prepared: &Prepared<'_>,
    prelude: &str,
    record: &Record<'_>,
) -> Result<(), MigrationError> {
    if !prelude.is_empty() {
        let doing = MigrationError::database("preparing the session");
        client.batch_execute(prelude).await.map_err(doing)?;
    }
    let code = prepared.code();
    let total = code.len();
    for (done, statement) in code.into_iter().enumerate() {
        let sent = statement.span.clone();
        if let Err(error) = send(client, &prepared.sql[sent.clone()], &mut 0).await {
            if !client.is_closed() {
                // A transaction that the file had opened is taken back as a whole; outside of one this only warns.
                let doing = MigrationError::database("rolling back");
                client.batch_execute("rollback").await.map_err(doing)?;
            }
            let aftermath = Aftermath::Partial { version: prepared.version.map(str::to_owned), done, total };
            return Err(prepared.failure(sent, Some(statement), &error, aftermath));
        }
    }
    client
        .batch_execute("set session authorization default")
        .await
        .map_err(MigrationError::database("resetting the role"))?;
    record.write(client).await
}

/// Sends text as it is; `done` counts the statements that have finished. Rows of selects are dropped as they come.
async fn send(client: &Client, sql: &str, done: &mut usize) -> Result<(), tokio_postgres::Error> {
    let mut messages = pin!(client.simple_query_raw(sql).await?);
    while let Some(message) = messages.try_next().await? {
        if matches!(message, SimpleQueryMessage::CommandComplete(_)) {
            *done += 1;
        }
    }
    Ok(())
}
