//! Integration tests on a real Postgres, in one binary.

mod reload;
mod schema;
