//! Storage over real sockets, a real Postgres and a real disk.
#![allow(clippy::unwrap_used)] // a failed unwrap is a failed test, also in the tests' own functions

mod buckets;
mod checking;
mod downloads;
mod failpoints;
mod harness;
mod ledger;
mod listing;
mod refusals;
mod relocating;
mod remote;
mod s3;
mod signing;
mod transform;
mod tus;
mod uploads;
