//! Integration tests on a real Postgres, in one binary.

mod api;
mod reload;
mod schema;
