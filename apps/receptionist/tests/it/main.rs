//! The receptionist, end to end: real Postgres, real sockets, real speech.

mod calls;
mod harness;
