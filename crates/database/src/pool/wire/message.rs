//! Messages of Postgres' frontend/backend protocol 3.0, as far as prepared statements in pipelines need them.
//! <https://www.postgresql.org/docs/current/protocol-message-formats.html>

use std::sync::Arc;

use bytes::{Buf as _, BufMut as _, Bytes, BytesMut};
use tokio_postgres::error::SqlState;
use tokio_postgres::types::Oid;

use super::super::Error;

/// Type byte and length, which counts itself.
pub(super) const HEADER: usize = 5;

/// A value for a parameter. Text leaves its type to Postgres, which takes it from the context as it does for a literal
/// in quotes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Param {
    /// A value in Postgres' text format; none is null.
    Text(Option<Bytes>),
    /// A value in Postgres' binary format, say the bytes of a `bytea`; none is null.
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

/// What Postgres said when it refused.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Refusal {
    /// SQLSTATE.
    pub code: SqlState,
    /// Primary message.
    pub message: String,
    /// Detail.
    pub detail: Option<String>,
    /// Hint.
    pub hint: Option<String>,
}

impl Refusal {
    /// Reads the body of an `ErrorResponse`.
    pub(super) fn read(mut body: &[u8]) -> Self {
        let mut refusal =
            Self { code: SqlState::INTERNAL_ERROR, message: String::new(), detail: None, hint: None };
        while let Some((&field, rest)) = body.split_first() {
            let Some(end) = rest.iter().position(|&byte| byte == 0) else { break };
            let text = || String::from_utf8_lossy(&rest[..end]).into_owned();
            match field {
                b'C' => refusal.code = SqlState::from_code(&text()),
                b'M' => refusal.message = text(),
                b'D' => refusal.detail = Some(text()),
                b'H' => refusal.hint = Some(text()),
                _ => {}
            }
            body = &rest[end + 1..];
        }
        refusal
    }
}

/// One row, as it came. Columns are found when they are asked for; their values share the row's memory.
#[derive(Debug, Clone)]
pub struct Row {
    /// Number of columns, then length and value of each.
    body: Bytes,
    types: Arc<[Oid]>,
}

impl Row {
    pub(super) fn new(body: Bytes, types: Arc<[Oid]>) -> Self {
        Self { body, types }
    }

    /// The column's value in Postgres' binary format, which is the text itself for text and JSON of either kind. None
    /// when it is null, or when there is no such column.
    pub fn get(&self, column: usize) -> Option<Bytes> {
        let mut rest = &self.body[..];
        let columns = rest.try_get_i16().ok()?;
        if column >= usize::try_from(columns).ok()? {
            return None;
        }
        for skipped in 0..=column {
            // Null has length -1.
            let length = usize::try_from(rest.try_get_i32().ok()?);
            if skipped == column {
                let value = rest.get(..length.ok()?)?;
                let value = if self.types.get(column) == Some(&JSONB) { value.get(1..)? } else { value };
                return Some(self.body.slice_ref(value));
            }
            rest = rest.get(length.unwrap_or(0)..)?;
        }
        None
    }

    /// The value of a `text` column, or of one that is sent like it.
    pub fn text(&self, column: usize) -> Option<String> {
        self.get(column).map(|value| String::from_utf8_lossy(&value).into_owned())
    }

    /// The value of a `bigint` column.
    pub fn bigint(&self, column: usize) -> Option<i64> {
        Some(i64::from_be_bytes(self.get(column)?[..].try_into().ok()?))
    }

    /// The values of a `text[]` column; nulls in it count as empty.
    pub fn texts(&self, column: usize) -> Option<Vec<String>> {
        let value = self.get(column)?;
        let mut rest = &value[..];
        let dimensions = rest.try_get_i32().ok()?;
        let (_has_nulls, _type) = (rest.try_get_i32().ok()?, rest.try_get_u32().ok()?);
        let mut count = i32::from(dimensions > 0);
        for _ in 0..dimensions {
            count *= rest.try_get_i32().ok()?;
            let _lower_bound = rest.try_get_i32().ok()?;
        }
        let mut texts = Vec::new();
        for _ in 0..count {
            let length = usize::try_from(rest.try_get_i32().ok()?).unwrap_or(0);
            texts.push(String::from_utf8_lossy(rest.get(..length)?).into_owned());
            rest = &rest[length..];
        }
        Some(texts)
    }
}

/// Type `jsonb`: its binary form is its text behind a version.
pub(super) const JSONB: Oid = 3802;

/// Types of the columns, from the body of a `RowDescription`.
pub(super) fn column_types(mut body: &[u8]) -> Option<Arc<[Oid]>> {
    let columns = body.try_get_u16().ok()?;
    let mut types = Vec::with_capacity(usize::from(columns));
    for _ in 0..columns {
        let name = body.iter().position(|&byte| byte == 0)?;
        // Table and column number, then type; behind it size, modifier and format.
        let mut field = body.get(name + 1 + 6..)?;
        types.push(field.try_get_u32().ok()?);
        body = field.get(8..)?;
    }
    Some(types.into())
}

/// Writes a message whose body `write` makes.
fn message(into: &mut BytesMut, kind: u8, write: impl FnOnce(&mut BytesMut)) -> Result<(), Error> {
    into.put_u8(kind);
    let start = into.len();
    into.put_i32(0);
    write(into);
    let length = i32::try_from(into.len() - start).map_err(|_| Error::TooLarge)?;
    into[start..start + 4].copy_from_slice(&length.to_be_bytes());
    Ok(())
}

fn text(into: &mut BytesMut, text: &str) {
    // A zero byte would end the text early, and what follows be read as something else.
    let text = text.split('\0').next().unwrap_or_default();
    into.put_slice(text.as_bytes());
    into.put_u8(0);
}

/// Parses a statement under a name, all types of its parameters to be inferred, and asks for its columns.
pub(super) fn parse_and_describe(into: &mut BytesMut, name: &str, sql: &str) -> Result<(), Error> {
    message(into, b'P', |into| {
        text(into, name);
        text(into, sql);
        into.put_i16(0);
    })?;
    message(into, b'D', |into| {
        into.put_u8(b'S');
        text(into, name);
    })
}

/// Binds values to a statement, all columns to come in binary, and executes it to its end.
pub(super) fn bind_and_execute(into: &mut BytesMut, name: &str, params: &[Param]) -> Result<(), Error> {
    let count = u16::try_from(params.len()).map_err(|_| Error::TooLarge)?;
    let mut fits = true;
    message(into, b'B', |into| {
        text(into, "");
        text(into, name);
        into.put_u16(count);
        for param in params {
            into.put_i16(i16::from(matches!(param, Param::Binary(_))));
        }
        into.put_u16(count);
        for param in params {
            let (Param::Text(value) | Param::Binary(value)) = param;
            match value {
                None => into.put_i32(-1),
                Some(value) => {
                    fits &= i32::try_from(value.len()).is_ok();
                    into.put_i32(i32::try_from(value.len()).unwrap_or(-1));
                    into.put_slice(value);
                }
            }
        }
        into.put_i16(1);
        into.put_i16(1);
    })?;
    if !fits {
        return Err(Error::TooLarge);
    }
    message(into, b'E', |into| {
        text(into, "");
        into.put_i32(0);
    })
}

/// Forgets a prepared statement.
pub(super) fn close(into: &mut BytesMut, name: &str) -> Result<(), Error> {
    message(into, b'C', |into| {
        into.put_u8(b'S');
        text(into, name);
    })
}

/// Ends a pipeline: what follows an error is skipped up to here.
pub(super) fn sync(into: &mut BytesMut) -> Result<(), Error> {
    message(into, b'S', |_| {})
}

#[cfg(test)]
mod tests {
    use tokio_postgres::types::Type;

    use super::*;

    fn row(values: &[Option<&[u8]>], types: &[Type]) -> Row {
        let mut body = BytesMut::new();
        body.put_i16(i16::try_from(values.len()).unwrap());
        for value in values {
            match value {
                None => body.put_i32(-1),
                Some(value) => {
                    body.put_i32(i32::try_from(value.len()).unwrap());
                    body.put_slice(value);
                }
            }
        }
        Row::new(body.freeze(), types.iter().map(Type::oid).collect())
    }

    #[test]
    fn columns_are_found_behind_nulls() {
        let row = row(
            &[None, Some(&7_i64.to_be_bytes()), Some(b""), Some(b"\x01{}")],
            &[Type::TEXT, Type::INT8, Type::TEXT, Type::JSONB],
        );
        assert_eq!((row.get(0), row.bigint(1)), (None, Some(7)));
        assert_eq!((row.text(2).as_deref(), row.text(3).as_deref()), (Some(""), Some("{}")));
        assert_eq!(Type::JSONB.oid(), JSONB);
        assert_eq!((row.get(4), row.bigint(2)), (None, None), "no such column; not a bigint");
    }

    #[test]
    fn arrays_of_texts_are_read() {
        let array = |dimensions: i32, texts: &[&str]| {
            let mut value = BytesMut::new();
            value.put_i32(dimensions);
            value.put_i32(0);
            value.put_u32(Type::TEXT.oid());
            if dimensions > 0 {
                value.put_i32(i32::try_from(texts.len()).unwrap());
                value.put_i32(1);
            }
            for text in texts {
                value.put_i32(i32::try_from(text.len()).unwrap());
                value.put_slice(text.as_bytes());
            }
            row(&[Some(&value)], &[Type::TEXT_ARRAY]).texts(0)
        };
        assert_eq!(array(1, &["id=eq.1", ""]), Some(vec!["id=eq.1".to_owned(), String::new()]));
        assert_eq!(array(0, &[]), Some(Vec::new()));
    }

    #[test]
    fn refusals_are_read_whatever_else_they_hold() {
        let refusal = Refusal::read(b"SERROR\0C23505\0Mtwice\0Dthe key\0Xnew field\0\0");
        assert_eq!(refusal.code, SqlState::UNIQUE_VIOLATION);
        assert_eq!((refusal.message.as_str(), refusal.detail.as_deref()), ("twice", Some("the key")));
        assert_eq!(refusal.hint, None);
        assert_eq!(Refusal::read(b"Mcut").message, "");
    }

    #[test]
    fn types_of_columns_are_read() {
        let mut body = BytesMut::new();
        body.put_u16(2);
        for (name, of) in [("a", Type::INT8), ("body", Type::JSON)] {
            text(&mut body, name);
            body.put_u32(0);
            body.put_u16(0);
            body.put_u32(of.oid());
            body.put_slice(&[0; 8]);
        }
        assert_eq!(column_types(&body).as_deref(), Some(&[Type::INT8.oid(), Type::JSON.oid()][..]));
        assert_eq!(column_types(&body[..20]), None);
    }

    #[test]
    fn a_zero_byte_ends_no_statement_early() {
        let mut out = BytesMut::new();
        parse_and_describe(&mut out, "s1", "select 1\0; drop table x").unwrap();
        assert!(!String::from_utf8_lossy(&out).contains("drop"));
    }
}
