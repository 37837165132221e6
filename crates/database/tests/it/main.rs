//! Integration tests of the database crate.
#![allow(clippy::unwrap_used)] // a failed unwrap is a failed test, also in the tests' own functions

mod batch;
mod bootstrap;
mod cluster;
mod migrations;
mod pool;
mod realtime;
