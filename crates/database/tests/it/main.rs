//! Integration tests of the database crate.

mod bootstrap;
mod cluster;
mod migrations;
mod pool;
