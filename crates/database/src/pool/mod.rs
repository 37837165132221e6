//! One [`Database`]: pooled connections, and transactions that act as somebody.

mod acting;
pub mod batch;
mod end;
mod listening;
mod pipeline;
mod requests;
mod tls;
mod wire;

/// Logical replication.
pub mod replication {
    pub use super::wire::{Message, Replication, ReplicationStream};
}

use std::path::PathBuf;
use std::str::FromStr;
use std::sync::Arc;
use std::time::Duration;

use deadpool_postgres::{Manager, ManagerConfig, Object, Pool, RecyclingMethod, Runtime, Timeouts};
use secrecy::{ExposeSecret, SecretString};
use tokio_postgres::error::SqlState;

pub use acting::{Acting, RoleTransaction, ServiceReason};
pub use end::End;
pub use listening::connect_listening;
pub use pipeline::Step;
pub use requests::Lifetimes;

use crate::Claims;
use requests::Requests;

/// Most statements that a connection keeps prepared; beyond it starts anew, so that requests of ever new shapes
/// cannot fill the server's memory.
const MOST_PREPARED: usize = 1_000;

/// How to reach a database.
#[derive(Debug, Clone)]
pub struct DatabaseOptions {
    /// `postgres://user:password@host:port/database?sslmode=…` of the role that requests connect as
    /// (`authenticator`, or an owner that may `set role`).
    pub url: SecretString,
    /// Most connections at once for batches ([`Database::batch`]), and as many for everything else.
    pub pool_size: usize,
    /// Longest wait for a free connection, and for a new one to open.
    pub pool_timeout: Duration,
    /// Certificate authorities for `sslmode=verify-*`; unset: the system's.
    pub ca_file: Option<PathBuf>,
}

/// What can go wrong between us and Postgres.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The URL cannot be parsed.
    #[error("the database URL is not valid: {0}; expected postgres://user:password@host:port/database")]
    Url(String),
    /// The TLS set-up failed.
    #[error("TLS to the database cannot be set up: {0}")]
    Tls(String),
    /// No connection within the time limit.
    #[error("the database has no free connection: {0}; raise database.pool_size or look for slow queries")]
    Busy(String),
    /// The server cannot be reached or refused the login.
    #[error("cannot connect to the database: {0}; check that it runs and that database.url is right")]
    Unavailable(String),
    /// Postgres refused a statement.
    #[error("{}", describe(.0))]
    Query(#[from] tokio_postgres::Error),
    /// Postgres refused a statement of a batch.
    #[error("{} (SQLSTATE {})", .0.message, .0.code.code())]
    Refused(Box<batch::Refusal>),
    /// The connection broke in the middle of a batch.
    #[error("the database connection failed: {0}; try again")]
    Lost(#[source] std::io::Error),
    /// A statement that the protocol cannot carry.
    #[error("a statement has more than 65535 parameters, or one of 2 GB; send less at once")]
    TooLarge,
}

fn describe(error: &tokio_postgres::Error) -> String {
    match error.as_db_error() {
        Some(e) => format!("{} (SQLSTATE {})", e.message(), e.code().code()),
        None => format!("the database connection failed: {error}"),
    }
}

impl Error {
    /// SQLSTATE of a refused statement.
    pub fn sql_state(&self) -> Option<&SqlState> {
        match self {
            Self::Query(e) => e.code(),
            Self::Refused(refusal) => Some(&refusal.code),
            _ => None,
        }
    }

    /// What Postgres, or a function that raised, says of a refused statement.
    pub fn refusal(&self) -> Option<&str> {
        match self {
            Self::Query(error) => error.as_db_error().map(tokio_postgres::error::DbError::message),
            Self::Refused(refusal) => Some(refusal.message.as_str()),
            _ => None,
        }
    }

    /// Whether a prepared statement is of before a migration that changed what it names: it did nothing, and prepared
    /// anew it works.
    fn is_stale_plan(&self) -> bool {
        self.sql_state() == Some(&SqlState::FEATURE_NOT_SUPPORTED)
            && self.refusal().is_some_and(|message| message.contains("cached plan"))
    }

    /// Whether trying again on another connection may help: the server was away, not the statement wrong.
    pub fn is_transient(&self) -> bool {
        match self {
            Self::Busy(_) | Self::Unavailable(_) | Self::Lost(_) => true,
            Self::Query(_) | Self::Refused(_) => match self.sql_state() {
                None => true,
                Some(code) => {
                    // 08 connection, 53 resources, 57P shutdown, 40 serialisation; statement and lock timeouts, a
                    // server that became read-only (failover), a connection left in a broken transaction.
                    let class = &code.code()[..2];
                    matches!(class, "08" | "53" | "40")
                        || code.code().starts_with("57P")
                        || matches!(code.code(), "57014" | "55P03" | "25006" | "25P02" | "25001")
                }
            },
            _ => false,
        }
    }
}

/// Pooled access to one Postgres database. Cheap to clone.
#[derive(Debug, Clone)]
pub struct Database {
    pool: Pool,
    requests: Arc<Requests>,
}

impl Database {
    /// Opens the pool and proves it with one connection.
    ///
    /// # Errors
    /// [`Error::Url`], [`Error::Tls`] or [`Error::Unavailable`] with what to check.
    pub async fn connect(options: &DatabaseOptions) -> Result<Self, Error> {
        let (config, tls) = parse(options)?;
        let requests = Requests::new(wire::Connector::new(config.clone(), tls.clone()), options);
        let manager =
            Manager::from_config(config, tls, ManagerConfig { recycling_method: RecyclingMethod::Fast });
        let pool = Pool::builder(manager)
            .max_size(options.pool_size)
            .runtime(Runtime::Tokio1)
            .timeouts(Timeouts {
                wait: Some(options.pool_timeout),
                create: Some(options.pool_timeout),
                recycle: Some(options.pool_timeout),
            })
            .build()
            .map_err(|e| Error::Unavailable(e.to_string()))?;
        let database = Self { pool, requests: Arc::new(requests) };
        drop(database.connection().await?);
        Ok(database)
    }

    /// Acts as the holder of `claims`: role and claims are set, so row-level security decides.
    pub fn as_role<'a>(&'a self, claims: &'a Claims) -> Acting<'a> {
        Acting::new(self, claims.role(), claims.json())
    }

    /// Acts as `service_role`, past row-level security. Only for system work that no user stands behind.
    pub fn as_service(&self, reason: ServiceReason) -> Acting<'_> {
        tracing::debug!(reason = reason.0, "acting as service_role");
        Acting::new(self, "service_role", r#"{"role":"service_role"}"#)
    }

    /// Round trip to the server, for health checks.
    ///
    /// # Errors
    /// Why the database cannot be used.
    pub async fn ping(&self) -> Result<(), Error> {
        self.connection().await?.simple_query("").await?;
        Ok(())
    }

    /// Closes connections for batches when they have lived, or been idle, for so long. Set it before the first use.
    #[must_use]
    pub fn with_lifetimes(self, lifetimes: Lifetimes) -> Self {
        self.requests.set_lifetimes(lifetimes);
        self
    }

    /// (connections in use, connections open, most connections).
    pub fn pool_status(&self) -> (usize, usize, usize) {
        let status = self.pool.status();
        let (in_use, open, most) = self.requests.status();
        (status.size - status.available.min(status.size) + in_use, status.size + open, status.max_size + most)
    }

    /// The same of the connections for batches alone.
    pub fn batch_status(&self) -> (usize, usize, usize) {
        self.requests.status()
    }

    pub(crate) async fn connection(&self) -> Result<Object, Error> {
        use deadpool_postgres::PoolError;
        self.pool.get().await.map_err(|e| match e {
            PoolError::Timeout(kind) => Error::Busy(format!("{kind:?} took too long")),
            PoolError::Backend(e) => match e.code() {
                Some(_) => Error::Unavailable(describe(&e)),
                None => Error::Unavailable(with_sources(&e)),
            },
            other => Error::Unavailable(other.to_string()),
        })
    }
}

/// tokio-postgres says only "error connecting to server"; what a person needs is in the sources.
fn with_sources(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(inner) = source {
        text.push_str(": ");
        text.push_str(&inner.to_string());
        source = inner.source();
    }
    text
}

fn parse(
    options: &DatabaseOptions,
) -> Result<(tokio_postgres::Config, tokio_postgres_rustls::MakeRustlsConnect), Error> {
    let (url, mode) = tls::split_mode(options.url.expose_secret(), options.ca_file.as_deref());
    let mut config = tokio_postgres::Config::from_str(&url).map_err(|e| Error::Url(with_sources(&e)))?;
    config.connect_timeout(options.pool_timeout);
    if config.get_application_name().is_none() {
        config.application_name("longhouse");
    }
    Ok((config, tls::connector(&mode)?))
}

/// One connection of its own, outside of any pool: for set-up, migrations and listening.
/// Its IO runs in a spawned task that ends with the client.
///
/// # Errors
/// As [`Database::connect`].
pub async fn connect_client(options: &DatabaseOptions) -> Result<tokio_postgres::Client, Error> {
    let (config, tls) = parse(options)?;
    let (client, connection) = config.connect(tls).await.map_err(|e| Error::Unavailable(with_sources(&e)))?;
    tokio::spawn(async move {
        if let Err(error) = connection.await {
            tracing::debug!(%error, "database connection ended");
        }
    });
    Ok(client)
}
