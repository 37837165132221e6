//! Integration tests on a real Postgres, in one binary.

mod admin;
mod api;
mod large;
mod load;
mod reload;
mod schema;
