//! Managed cluster, pools, role transactions, bootstrap schema and migrations.

mod claims;
pub mod cluster;
mod pool;
#[cfg(feature = "testing")]
pub mod testing;

pub use claims::Claims;
pub use pool::{Acting, Database, DatabaseOptions, Error, RoleTransaction, ServiceReason, connect_client};
pub use tokio_postgres;
