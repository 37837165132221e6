//! The gateway against strict emulators, over real sockets.
#![allow(clippy::unwrap_used)] // a failed unwrap is a failed test, also in the tests' own functions

mod api;
mod conformance;
mod database;
mod guarding;
mod harness;
mod jobs;
mod keys;
mod ledger;
mod live;
mod media;
mod offline;
mod quotas;
mod routing;
mod sdks;
