//! Realtime over real sockets, on a real Postgres.
#![allow(clippy::unwrap_used)] // a failed unwrap is a failed test, also in the tests' own functions

mod changes;
