//! The receptionist, end to end: real Postgres, real sockets, real speech.

mod barge_in;
mod calls;
mod endings;
mod handshake;
mod harness;
mod journal;
mod knowledge;
mod outage;
mod passthrough;
mod permissions;
mod tools;
mod upstream;
mod webhook;
