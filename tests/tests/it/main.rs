//! The whole product as a person runs it: the real binary, real signals, real telephone audio.
#![allow(clippy::unwrap_used)] // a failed unwrap is a failed test, also in the tests' own functions

mod auth;
mod binary;
mod clients;
mod moving;
mod realtime;
mod rest;
mod salon;
mod storage;
mod studio;
mod survival;
