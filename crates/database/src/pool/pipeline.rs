//! A whole transaction in one network round trip, for callers that bring every statement of it.

use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::task::Poll;

use deadpool_postgres::Object;
use futures_util::future::join_all;
use futures_util::join;
use tokio_postgres::Row;
use tokio_postgres::types::{ToSql, Type};

use super::acting::is_stale_plan;
use super::{Database, Error};

/// Most statements that a connection keeps prepared; beyond it starts anew, so that requests of ever new shapes
/// cannot fill the server's memory.
const MOST_PREPARED: usize = 1000;

/// One statement of a [`Pipeline`].
#[derive(Debug, Clone, Copy)]
pub struct Step<'p> {
    /// Its text.
    pub sql: &'p str,
    /// Its parameters.
    pub params: &'p [&'p (dyn ToSql + Sync)],
}

/// How a [`Pipeline`] ends when its statements succeeded.
#[derive(Clone, Copy)]
pub enum End<'p> {
    /// Commit.
    Commit,
    /// Check deferred constraints, then roll back.
    Rollback,
    /// Wait for the rows of every step, which costs a round trip, and commit if this says so.
    CommitIf(&'p (dyn Fn(&[Vec<Row>]) -> bool + Send + Sync)),
}

impl std::fmt::Debug for End<'_> {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter.write_str(match self {
            Self::Commit => "Commit",
            Self::Rollback => "Rollback",
            Self::CommitIf(_) => "CommitIf",
        })
    }
}

/// A transaction: `begin`, steps, end. All of it leaves before the first answer is awaited, except that a statement
/// which the connection has not prepared yet is prepared on the way.
#[derive(Debug, Clone, Copy)]
pub struct Pipeline<'p> {
    /// `begin` with its modes.
    pub begin: &'p str,
    /// Statements.
    pub steps: &'p [Step<'p>],
    /// Whether to prepare them and keep them prepared. Otherwise Postgres parses them anew each time, with every
    /// parameter's type inferred.
    pub prepared: bool,
    /// The end.
    pub end: End<'p>,
}

/// Throws a connection away that would go back to the pool within a transaction.
pub(super) struct Guard {
    connection: Option<Object>,
    ended: AtomicBool,
}

impl Guard {
    pub(super) fn new(connection: Object) -> Self {
        Self { connection: Some(connection), ended: AtomicBool::new(true) }
    }

    pub(super) fn connection(&self) -> &Object {
        self.connection.as_ref().expect("present until drop")
    }

    /// A transaction is about to begin.
    pub(super) fn begun(&self) {
        self.ended.store(false, Ordering::Relaxed);
    }

    /// Its end is about to be sent: from here on it ends whether or not anybody waits.
    pub(super) fn ended(&self) {
        self.ended.store(true, Ordering::Relaxed);
    }
}

impl Drop for Guard {
    fn drop(&mut self) {
        if !self.ended.load(Ordering::Relaxed)
            && let Some(connection) = self.connection.take()
        {
            drop(Object::take(connection));
        }
    }
}

impl Database {
    /// Runs a transaction and returns the rows of each step. Dropping the future while it runs rolls back, or, once
    /// its end was sent, lets it finish unseen.
    ///
    /// # Errors
    /// The first refusal of Postgres (nothing is changed then), or why there is no connection.
    pub async fn pipeline(&self, pipeline: &Pipeline<'_>) -> Result<Vec<Vec<Row>>, Error> {
        let connection = self.connection().await?;
        if connection.statement_cache.size() > MOST_PREPARED {
            connection.statement_cache.clear();
        }
        let guard = Guard::new(connection);
        match run(&guard, pipeline).await {
            Err(error) if pipeline.prepared && is_stale_plan(&error) => {
                // A migration changed a table under a prepared statement; the transaction did nothing.
                for step in pipeline.steps {
                    guard.connection().statement_cache.remove(step.sql, &[]);
                }
                run(&guard, pipeline).await
            }
            result => result,
        }
    }
}

async fn run(guard: &Guard, pipeline: &Pipeline<'_>) -> Result<Vec<Vec<Row>>, Error> {
    let connection = guard.connection();
    guard.begun();
    // Steps that were sent, or never will be. `join!` and a short `join_all` poll in order, so that whoever waits for
    // its turn gets it in the poll in which the one before it was sent.
    let sent = AtomicUsize::new(0);
    let turn = |index: usize| {
        let sent = &sent;
        std::future::poll_fn(move |_| {
            if sent.load(Ordering::Relaxed) >= index { Poll::Ready(()) } else { Poll::Pending }
        })
    };
    let step = async |index: usize, step: &Step<'_>| -> Result<Vec<Row>, Error> {
        turn(index).await;
        if pipeline.prepared {
            let statement = connection.prepare_cached(step.sql).await;
            sent.store(index + 1, Ordering::Relaxed);
            Ok(connection.query(&statement?, step.params).await?)
        } else {
            sent.store(index + 1, Ordering::Relaxed);
            let typed: Vec<_> = step.params.iter().map(|&param| (param, Type::UNKNOWN)).collect();
            Ok(connection.query_typed(step.sql, &typed).await?)
        }
    };
    let steps = join_all(pipeline.steps.iter().enumerate().map(|(index, of)| step(index, of)));
    let finish = async |command: &str| -> Result<(), Error> {
        guard.ended();
        Ok(connection.batch_execute(command).await?)
    };
    let begin = async { Ok::<(), Error>(connection.batch_execute(pipeline.begin).await?) };

    let (begun, results, ended) = match pipeline.end {
        End::Commit => join!(begin, steps, async {
            turn(pipeline.steps.len()).await;
            finish("commit").await
        }),
        End::Rollback => join!(begin, steps, async {
            turn(pipeline.steps.len()).await;
            let (checked, ended) =
                join!(connection.batch_execute("set constraints all immediate"), finish("rollback"));
            checked?;
            ended
        }),
        End::CommitIf(decide) => {
            let (begun, results) = join!(begin, steps);
            let results: Result<Vec<_>, Error> = results.into_iter().collect();
            let commit = results.as_ref().is_ok_and(|rows| decide(rows));
            let ended = finish(if commit { "commit" } else { "rollback" }).await;
            begun?;
            let rows = results?;
            ended?;
            return Ok(rows);
        }
    };
    begun?;
    let rows = results.into_iter().collect::<Result<Vec<_>, Error>>()?;
    ended?;
    Ok(rows)
}
