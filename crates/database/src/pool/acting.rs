//! Statements that run as somebody: role, claims and statement leave in one round trip.

use std::sync::atomic::{AtomicBool, Ordering};
use std::task::Poll;

use deadpool_postgres::Object;
use futures_util::join;
use tokio_postgres::types::ToSql;
use tokio_postgres::{Row, Statement};

use super::pipeline::{Guard, Step};
use super::{Database, End, Error};

/// Why a piece of system work must pass row-level security. Shows up in debug logs.
#[derive(Debug, Clone, Copy)]
pub struct ServiceReason(pub(super) &'static str);

impl ServiceReason {
    /// States the reason, e.g. `"close calls that a crashed server left open"`.
    pub const fn because(reason: &'static str) -> Self {
        Self(reason)
    }
}

/// Sets what `set local role` and PostgREST's claim settings set; as a statement, so that it can be prepared.
const ASSUME: &str = "select set_config('role', $1, true), set_config('request.jwt.claims', $2, true)";

/// Sets one setting for the transaction.
const SET: &str = "select set_config($1, $2, true)";

type Params<'p> = &'p [&'p (dyn ToSql + Sync)];

/// A database handle that acts as one role with one set of claims.
#[derive(Debug, Clone, Copy)]
pub struct Acting<'a> {
    database: &'a Database,
    role: &'a str,
    claims: &'a str,
}

impl<'a> Acting<'a> {
    pub(super) fn new(database: &'a Database, role: &'a str, claims: &'a str) -> Self {
        Self { database, role, claims }
    }

    /// Runs one statement in a transaction of its own and returns its rows. Begin, role, claims, statement
    /// and commit are pipelined: one network round trip once the connection has prepared the statement.
    ///
    /// # Errors
    /// [`Error::Query`] with Postgres' refusal (nothing is changed), or why there is no connection.
    pub async fn query(&self, sql: &str, params: Params<'_>) -> Result<Vec<Row>, Error> {
        let guard = Guard::new(self.database.connection().await?);
        match self.query_on(&guard, sql, params).await {
            Err(error) if error.is_stale_plan() => {
                // A migration changed a table under a prepared statement; the transaction did nothing.
                guard.connection().statement_cache.remove(sql, &[]);
                self.query_on(&guard, sql, params).await
            }
            result => result,
        }
    }

    async fn query_on(&self, guard: &Guard, sql: &str, params: Params<'_>) -> Result<Vec<Row>, Error> {
        let run = async |statement| Ok(guard.connection().query(&statement, params).await?);
        self.pipelined(guard, sql, run).await
    }

    /// As [`Self::query`], for at most one row.
    ///
    /// # Errors
    /// As [`Self::query`].
    pub async fn query_opt(&self, sql: &str, params: Params<'_>) -> Result<Option<Row>, Error> {
        Ok(self.query(sql, params).await?.into_iter().next())
    }

    /// As [`Self::query`], for a statement whose rows do not matter; returns the number of rows it changed.
    ///
    /// # Errors
    /// As [`Self::query`].
    pub async fn execute(&self, sql: &str, params: Params<'_>) -> Result<u64, Error> {
        let guard = Guard::new(self.database.connection().await?);
        let run = async |statement| Ok(guard.connection().execute(&statement, params).await?);
        self.pipelined(&guard, sql, run).await
    }

    /// Begin, role and claims, statement, commit: all sent before the first answer is awaited.
    ///
    /// A statement that this connection has not prepared yet costs one more round trip: it must be parsed as the
    /// role, because Postgres checks the right to use a schema while parsing. Dropped before the commit was sent, the
    /// connection is thrown away with its transaction.
    async fn pipelined<T>(
        &self,
        guard: &Guard,
        sql: &str,
        run: impl AsyncFnOnce(Statement) -> Result<T, Error>,
    ) -> Result<T, Error> {
        let connection = guard.connection();
        let assume = connection.prepare_cached(ASSUME).await?;
        let identity: [&(dyn ToSql + Sync); 2] = [&self.role, &self.claims];
        guard.begun();
        let parsed = AtomicBool::new(false);
        let statement = async {
            let statement = connection.prepare_cached(sql).await;
            parsed.store(true, Ordering::Relaxed);
            run(statement?).await
        };
        // `join!` polls in order, so the commit leaves right behind the statement, never before it.
        let commit = async {
            std::future::poll_fn(|_| {
                if parsed.load(Ordering::Relaxed) { Poll::Ready(()) } else { Poll::Pending }
            })
            .await;
            guard.ended();
            connection.batch_execute("commit").await
        };
        let (begin, assumed, result, committed) = join!(
            connection.batch_execute("begin"),
            connection.query(&assume, &identity),
            statement,
            commit,
        );
        begin?;
        assumed?;
        let value = result?;
        committed?;
        Ok(value)
    }

    /// Runs several statements in one transaction of its own and returns the rows of each, in one network round trip
    /// once they are prepared. `settings` (name, value) hold for this transaction, beside role and claims.
    ///
    /// # Errors
    /// As [`Self::query`]; the first refusal counts.
    pub async fn pipeline(
        &self,
        settings: &[(&str, &str)],
        steps: &[Step<'_>],
        end: End<'_>,
    ) -> Result<Vec<Vec<Row>>, Error> {
        let identity: [&(dyn ToSql + Sync); 2] = [&self.role, &self.claims];
        let settings: Vec<[&(dyn ToSql + Sync); 2]> =
            settings.iter().map(|(name, value)| [name as _, value as _]).collect();
        let mut all = Vec::with_capacity(1 + settings.len() + steps.len());
        // Settings first: as the role, custom ones may be set too, but this way none depends on its rights.
        all.extend(settings.iter().map(|params| Step { sql: SET, params }));
        all.push(Step { sql: ASSUME, params: &identity });
        all.extend_from_slice(steps);
        let mut rows = self.database.pipeline(&all, end).await?;
        Ok(rows.split_off(1 + settings.len()))
    }

    /// Opens a transaction for several statements. Dropped without [`RoleTransaction::commit`], it rolls back.
    ///
    /// # Errors
    /// Why there is no connection, or that the role may not be assumed.
    pub async fn transaction(&self) -> Result<RoleTransaction, Error> {
        let connection = self.database.connection().await?;
        let assume = connection.prepare_cached(ASSUME).await?;
        let transaction = RoleTransaction { connection: Some(connection) };
        let identity: [&(dyn ToSql + Sync); 2] = [&self.role, &self.claims];
        let (begin, assumed) = {
            let connection = transaction.connection();
            join!(connection.batch_execute("begin"), connection.query(&assume, &identity))
        };
        begin?;
        assumed?;
        Ok(transaction)
    }
}

/// Several statements that act as one role and commit together.
#[derive(Debug)]
pub struct RoleTransaction {
    connection: Option<Object>,
}

impl RoleTransaction {
    fn connection(&self) -> &Object {
        self.connection.as_ref().expect("present until commit or drop")
    }

    /// Runs a statement and returns its rows.
    ///
    /// # Errors
    /// Postgres' refusal; the transaction can then only roll back.
    pub async fn query(&self, sql: &str, params: Params<'_>) -> Result<Vec<Row>, Error> {
        let statement = self.connection().prepare_cached(sql).await?;
        Ok(self.connection().query(&statement, params).await?)
    }

    /// Runs a statement and returns at most one row.
    ///
    /// # Errors
    /// As [`Self::query`].
    pub async fn query_opt(&self, sql: &str, params: Params<'_>) -> Result<Option<Row>, Error> {
        Ok(self.query(sql, params).await?.into_iter().next())
    }

    /// Runs a statement and returns the number of rows it changed.
    ///
    /// # Errors
    /// As [`Self::query`].
    pub async fn execute(&self, sql: &str, params: Params<'_>) -> Result<u64, Error> {
        let statement = self.connection().prepare_cached(sql).await?;
        Ok(self.connection().execute(&statement, params).await?)
    }

    /// Makes everything permanent.
    ///
    /// # Errors
    /// Deferred constraints, or a lost connection (then the outcome is unknown).
    pub async fn commit(mut self) -> Result<(), Error> {
        let connection = self.connection.take().expect("present until commit or drop");
        connection.batch_execute("commit").await?;
        Ok(())
    }
}

impl Drop for RoleTransaction {
    fn drop(&mut self) {
        let Some(connection) = self.connection.take() else { return };
        // The connection goes back to the pool only after the rollback, so nobody inherits the role.
        if let Ok(runtime) = tokio::runtime::Handle::try_current() {
            runtime.spawn(async move {
                if connection.batch_execute("rollback").await.is_err() {
                    drop(Object::take(connection));
                }
            });
        } else {
            drop(Object::take(connection));
        }
    }
}
