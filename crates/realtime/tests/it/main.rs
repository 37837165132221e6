//! Realtime over real sockets, on a real Postgres.
#![allow(clippy::unwrap_used)] // a failed unwrap is a failed test, also in the tests' own functions
#![allow(clippy::large_futures)] // each test runs alone

mod broadcast;
mod changes;
mod connecting;
mod following;
mod harness;
mod http;
mod joining;
mod limits;
mod presence;
mod servers;
