//! Health, readiness, metrics and logs.

mod error;
pub mod health;
pub mod logs;
pub mod metrics;

pub use error::Error;
