//! Integration tests of the emulators, over real sockets, with real keys and real audio.
#![allow(clippy::unwrap_used)] // a failed unwrap is a failed test, also in the tests' own functions

mod ai;
mod oidc;
mod openai;
mod smtp;
mod speech;
mod twilio;
