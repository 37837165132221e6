//! A PostgREST-compatible API over any Postgres schema.

pub mod config;
pub mod request;
pub mod schema;
