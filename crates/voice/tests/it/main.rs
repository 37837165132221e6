//! Sessions on real sockets whose other ends misbehave.
#![allow(clippy::unwrap_used)] // a failed unwrap is a failed test, also in the tests' own functions

mod audio;
mod conversation;
mod host;
mod sockets;
