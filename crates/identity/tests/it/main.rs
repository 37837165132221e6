//! Keys on disk, tokens good and bad, and `/auth/v1` on a real database.
#![allow(clippy::unwrap_used)] // a failed unwrap is a failed test, also in the tests' own functions
#![allow(dead_code)] // the harness serves several areas of tests

mod accounts;
mod admin;
mod authenticator;
mod harness;
mod hooks;
mod imported_keys;
mod key_ring;
mod keys;
mod mail;
mod mfa;
mod oauth;
mod pages;
mod passkeys;
mod tokens;
