//! Migrations: of a project (`supabase/migrations/*.sql`, recorded as the Supabase command line does) and of the
//! applications that ship with Longhouse.
//!
//! A file is sent to the server whole and in one transaction together with its ledger row, so that a failure, or a
//! killed process, leaves nothing of it. Files that Postgres refuses to run in a transaction (`create index
//! concurrently`, `vacuum`, …) or that have transactions of their own run statement by statement; when such a file
//! fails, the error says exactly which statements stay. The [`lexer`] decides which it is, and finds the statement
//! that an error belongs to; it never changes the text.
//!
//! Concurrent runs are serialised by an advisory lock, so the connection must be a session of its own: not one from
//! a transaction-pooling proxy.

mod app;
mod error;
mod execute;
mod ledger;
pub mod lexer;
mod plan;
mod push;
mod reset;
mod source;

pub use app::app;
pub use error::{Aftermath, Failure, MigrationError};
pub use ledger::{Entry, State, Status, repair, status};
pub use plan::{Plan, Unbalanced, plan};
pub use push::{Progress, PushOptions, PushReport, SeedOutcome, push};
pub use reset::reset;
pub use source::{Embedded, Loaded, Migration, Source, new};
