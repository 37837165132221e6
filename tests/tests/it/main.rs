//! The whole product as a person runs it: the real binary, real signals, real telephone audio.
#![allow(clippy::unwrap_used)] // a failed unwrap is a failed test, also in the tests' own functions

mod binary;
mod clients;
mod rest;
mod survival;
