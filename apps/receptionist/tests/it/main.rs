//! The receptionist, end to end: real Postgres, real sockets, real speech.
#![allow(clippy::unwrap_used)] // a failed unwrap is a failed test, also in the tests' own functions

mod barge_in;
mod booking;
mod calls;
mod endings;
mod handshake;
mod harness;
mod journal;
mod knowledge;
mod outage;
mod passthrough;
mod people;
mod permissions;
mod tools;
mod upstream;
mod webhook;
