//! From plan to SQL: text with `$n` in it, and the values for them.

mod call;
mod condition;
mod fragment;
mod read;
mod settings;
mod statement;
mod write;

#[cfg(test)]
mod tests;

pub use longhouse_database::batch::Param;

pub(crate) use fragment::Sql;
pub(crate) use settings::{pre_request, settings};
pub(crate) use statement::{call, explained_count, read, write};

/// A statement with its parameters.
#[derive(Debug, Clone, PartialEq)]
pub struct Statement {
    /// Text; `$1` is the first parameter.
    pub sql: String,
    /// Values.
    pub params: Vec<Param>,
}
