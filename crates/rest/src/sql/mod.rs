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

use std::error::Error as StdError;

use bytes::{BufMut, Bytes, BytesMut};
use tokio_postgres::types::{Format, IsNull, ToSql, Type, to_sql_checked};

pub(crate) use fragment::Sql;
pub use fragment::quote_ident;
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

/// A value for a parameter. It is sent in Postgres' text format, so that Postgres decides its type from the context,
/// as it does for a literal in quotes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Param {
    /// A value as text; none is null.
    Text(Option<Bytes>),
    /// The bytes of a `bytea`; none is null.
    Binary(Option<Bytes>),
}

impl From<String> for Param {
    fn from(value: String) -> Self {
        Self::Text(Some(Bytes::from(value)))
    }
}

impl From<&str> for Param {
    fn from(value: &str) -> Self {
        Self::Text(Some(Bytes::copy_from_slice(value.as_bytes())))
    }
}

impl ToSql for Param {
    fn to_sql(&self, _: &Type, out: &mut BytesMut) -> Result<IsNull, Box<dyn StdError + Sync + Send>> {
        let (Self::Text(value) | Self::Binary(value)) = self;
        Ok(match value {
            Some(value) => {
                out.put_slice(value);
                IsNull::No
            }
            None => IsNull::Yes,
        })
    }

    fn accepts(_: &Type) -> bool {
        true
    }

    fn encode_format(&self, _: &Type) -> Format {
        match self {
            Self::Text(_) => Format::Text,
            Self::Binary(_) => Format::Binary,
        }
    }

    to_sql_checked!();
}
