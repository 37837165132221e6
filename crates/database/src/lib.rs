//! Managed cluster, pools, role transactions, bootstrap schema and migrations.

mod claims;

pub use claims::Claims;
