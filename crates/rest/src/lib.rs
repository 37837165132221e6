//! A PostgREST-compatible API over any Postgres schema.

pub mod admin;
pub mod api;
pub mod auth;
pub mod config;
pub mod config_file;
mod describe;
pub mod error;
mod execute;
pub mod openapi;
pub mod plan;
pub mod reload;
pub mod request;
pub mod response;
pub mod schema;
pub mod sql;
pub mod standalone;
