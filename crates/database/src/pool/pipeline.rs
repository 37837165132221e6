//! Several statements in one transaction and one network round trip: what [`super::Acting::pipeline`] sends.

use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::task::Poll;

use deadpool_postgres::Object;
use futures_util::future::join_all;
use futures_util::join;
use tokio_postgres::Row;
use tokio_postgres::types::ToSql;

use super::{Database, End, Error, MOST_PREPARED};

/// One statement of a transaction.
#[derive(Debug, Clone, Copy)]
pub struct Step<'p> {
    /// Its text.
    pub sql: &'p str,
    /// Its parameters.
    pub params: &'p [&'p (dyn ToSql + Sync)],
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
    /// Runs a transaction and returns the rows of each step. All of it leaves before the first answer is awaited, except
    /// that a statement which the connection has not prepared yet is prepared on the way. Dropping the future while it
    /// runs rolls back, or, once its end was sent, lets it finish unseen.
    ///
    /// # Errors
    /// The first refusal of Postgres (nothing is changed then), or why there is no connection.
    pub(super) async fn pipeline(&self, steps: &[Step<'_>], end: End<'_>) -> Result<Vec<Vec<Row>>, Error> {
        let connection = self.connection().await?;
        if connection.statement_cache.size() > MOST_PREPARED {
            connection.statement_cache.clear();
        }
        let guard = Guard::new(connection);
        match run(&guard, steps, end).await {
            Err(error) if error.is_stale_plan() => {
                // A migration changed a table under a prepared statement; the transaction did nothing.
                for step in steps {
                    guard.connection().statement_cache.remove(step.sql, &[]);
                }
                run(&guard, steps, end).await
            }
            result => result,
        }
    }
}

async fn run(guard: &Guard, steps: &[Step<'_>], end: End<'_>) -> Result<Vec<Vec<Row>>, Error> {
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
        let statement = connection.prepare_cached(step.sql).await;
        sent.store(index + 1, Ordering::Relaxed);
        Ok(connection.query(&statement?, step.params).await?)
    };
    let all = join_all(steps.iter().enumerate().map(|(index, of)| step(index, of)));
    let finish = async |command: &str| -> Result<(), Error> {
        guard.ended();
        Ok(connection.batch_execute(command).await?)
    };
    let begin = async { Ok::<(), Error>(connection.batch_execute("begin").await?) };

    let (begun, results, ended) = match end {
        End::Commit => join!(begin, all, async {
            turn(steps.len()).await;
            finish("commit").await
        }),
        End::Rollback => join!(begin, all, async {
            turn(steps.len()).await;
            let (checked, ended) =
                join!(connection.batch_execute("set constraints all immediate"), finish("rollback"));
            checked?;
            ended
        }),
        End::CommitIf(decide) => {
            let (begun, results) = join!(begin, all);
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
