//! A PostgREST-compatible API over any Postgres schema.

pub mod auth;
pub mod config;
pub mod error;
pub mod plan;
pub mod request;
pub mod schema;
pub mod sql;
