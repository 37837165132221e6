//! Keys on disk, tokens good and bad, and what a request's headers are worth.
#![allow(clippy::unwrap_used)] // a failed unwrap is a failed test, also in the tests' own functions

mod keys;
mod tokens;
