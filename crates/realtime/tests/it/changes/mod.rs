//! Changes of a real database: what subscribers receive of what is committed.

mod broadcasts;
mod failover;
mod fidelity;
mod filters;
mod harness;
mod policies;
mod visibility;
