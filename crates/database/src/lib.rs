//! Managed cluster, pools, role transactions, bootstrap schema and migrations.

pub mod bootstrap;
mod claims;
pub mod cluster;
mod identifier;
pub mod migrations;
mod pool;
#[cfg(feature = "testing")]
pub mod testing;

pub use claims::Claims;
pub use identifier::{push_ident, quote_ident};
pub use pool::{
    Acting, Database, DatabaseOptions, End, Error, Lifetimes, RoleTransaction, ServiceReason, Step, batch,
    connect_client, connect_listening, replication,
};
pub use tokio_postgres;
