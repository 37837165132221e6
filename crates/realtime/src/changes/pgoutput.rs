//! The messages of Postgres' plugin `pgoutput`, protocol version 1.
//! <https://www.postgresql.org/docs/current/protocol-logicalrep-message-formats.html>
//!
//! The leader passes the messages on to the other servers as they are, so there is one format only, with one addition:
//! a value of kind `x` was left out because its row is too large.

use bytes::{Buf as _, BufMut as _, Bytes, BytesMut};

/// A place in the log of the database.
pub(super) type Lsn = u64;

/// A message, read.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Message {
    /// A transaction's changes follow.
    Begin {
        /// Where its commit is.
        commit: Lsn,
        /// Microseconds since 2000-01-01.
        at: i64,
    },
    /// A transaction has ended.
    Commit {
        /// Where the next begins.
        end: Lsn,
    },
    /// How a table looks from here on.
    Relation(Relation),
    /// A row's change.
    Row(RowChange),
    /// Something else that does not matter here: truncations, types, origins.
    Other,
}

/// A table as its rows were written.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Relation {
    pub(super) oid: u32,
    pub(super) schema: String,
    pub(super) table: String,
    /// Whether old rows come whole (`replica identity full`).
    pub(super) full: bool,
    pub(super) columns: Vec<RelationColumn>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct RelationColumn {
    pub(super) name: String,
    /// Part of the replica identity.
    pub(super) key: bool,
    pub(super) type_oid: u32,
}

/// What happened to a row.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(super) enum Operation {
    Insert,
    Update,
    Delete,
}

impl Operation {
    pub(super) fn name(self) -> &'static str {
        match self {
            Self::Insert => "INSERT",
            Self::Update => "UPDATE",
            Self::Delete => "DELETE",
        }
    }
}

/// The change of a row, in columns of the relation that was described last.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct RowChange {
    pub(super) relation: u32,
    pub(super) operation: Operation,
    /// The old row, or only its key: then the other columns are null.
    pub(super) old: Option<Vec<Cell>>,
    /// Whether `old` is only a key.
    pub(super) old_is_key: bool,
    pub(super) new: Option<Vec<Cell>>,
}

/// A value.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Cell {
    Null,
    /// Stored apart and not changed, so not logged.
    Unchanged,
    /// Left out because the row is too large.
    Dropped,
    /// In Postgres' text format.
    Text(Bytes),
}

impl Cell {
    pub(super) fn text(&self) -> Option<&str> {
        match self {
            Self::Text(bytes) => std::str::from_utf8(bytes).ok(),
            _ => None,
        }
    }
}

/// Why a message cannot be read.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("a message of the replication stream cannot be read; is Postgres newer than Longhouse knows?")]
pub(super) struct Malformed;

type Result<T> = std::result::Result<T, Malformed>;

/// Reads a message. One that was cut gives what came, and the rest of the row as [`Cell::Dropped`].
pub(super) fn read(mut body: Bytes, cut: bool) -> Result<Message> {
    let body = &mut body;
    match body.try_get_u8().map_err(|_| Malformed)? {
        b'B' => {
            let commit = long(body)?;
            Ok(Message::Begin { commit, at: long(body)?.cast_signed() })
        }
        b'C' => {
            byte(body)?;
            long(body)?;
            Ok(Message::Commit { end: long(body)? })
        }
        b'R' => relation(body).map(Message::Relation),
        b'I' => row(body, Operation::Insert, cut).map(Message::Row),
        b'U' => row(body, Operation::Update, cut).map(Message::Row),
        b'D' => row(body, Operation::Delete, cut).map(Message::Row),
        _ => Ok(Message::Other),
    }
}

fn relation(body: &mut Bytes) -> Result<Relation> {
    let oid = int(body)?;
    let schema = string(body)?;
    // The catalog's own schema is sent as nothing.
    let schema = if schema.is_empty() { "pg_catalog".to_owned() } else { schema };
    let table = string(body)?;
    let full = byte(body)? == b'f';
    let count = short(body)?;
    let mut columns = Vec::with_capacity(count.into());
    for _ in 0..count {
        let key = byte(body)? & 1 == 1;
        let name = string(body)?;
        let type_oid = int(body)?;
        int(body)?;
        columns.push(RelationColumn { name, key, type_oid });
    }
    Ok(Relation { oid, schema, table, full, columns })
}

fn row(body: &mut Bytes, operation: Operation, cut: bool) -> Result<RowChange> {
    let relation = int(body)?;
    let mut change = RowChange { relation, operation, old: None, old_is_key: false, new: None };
    while !body.is_empty() {
        match byte(body)? {
            kind @ (b'K' | b'O') => {
                change.old_is_key = kind == b'K';
                change.old = Some(tuple(body, cut)?);
            }
            b'N' => change.new = Some(tuple(body, cut)?),
            _ => return Err(Malformed),
        }
    }
    let whole = match operation {
        Operation::Delete => change.old.is_some(),
        Operation::Insert | Operation::Update => {
            if cut && change.new.is_none() {
                change.new = change.old.as_ref().map(|old| vec![Cell::Dropped; old.len()]);
            }
            change.new.is_some()
        }
    };
    if whole { Ok(change) } else { Err(Malformed) }
}

fn tuple(body: &mut Bytes, cut: bool) -> Result<Vec<Cell>> {
    let count = usize::from(short(body)?);
    let mut cells = Vec::with_capacity(count);
    while cells.len() < count {
        match cell(body) {
            Ok(cell) => cells.push(cell),
            Err(Malformed) if cut => {
                body.clear();
                cells.resize(count, Cell::Dropped);
            }
            Err(Malformed) => return Err(Malformed),
        }
    }
    Ok(cells)
}

fn cell(body: &mut Bytes) -> Result<Cell> {
    Ok(match byte(body)? {
        b'n' => Cell::Null,
        b'u' => Cell::Unchanged,
        b'x' => Cell::Dropped,
        b't' => {
            let length = int(body)? as usize;
            if length > body.len() {
                return Err(Malformed);
            }
            Cell::Text(body.split_to(length))
        }
        _ => return Err(Malformed),
    })
}

/// Writes a row's change without its values longer than `longest`.
pub(super) fn shorten(change: &RowChange, longest: usize) -> Bytes {
    let mut out = BytesMut::new();
    out.put_u8(match change.operation {
        Operation::Insert => b'I',
        Operation::Update => b'U',
        Operation::Delete => b'D',
    });
    out.put_u32(change.relation);
    let mut put = |kind: u8, cells: &[Cell]| {
        out.put_u8(kind);
        out.put_u16(u16::try_from(cells.len()).unwrap_or(u16::MAX));
        for cell in cells {
            match cell {
                Cell::Null => out.put_u8(b'n'),
                Cell::Unchanged => out.put_u8(b'u'),
                Cell::Text(text) if text.len() <= longest => {
                    out.put_u8(b't');
                    out.put_u32(u32::try_from(text.len()).unwrap_or(0));
                    out.put_slice(text);
                }
                Cell::Text(_) | Cell::Dropped => out.put_u8(b'x'),
            }
        }
    };
    if let Some(old) = &change.old {
        put(if change.old_is_key { b'K' } else { b'O' }, old);
    }
    if let Some(new) = &change.new {
        put(b'N', new);
    }
    out.freeze()
}

fn byte(body: &mut Bytes) -> Result<u8> {
    body.try_get_u8().map_err(|_| Malformed)
}

fn short(body: &mut Bytes) -> Result<u16> {
    body.try_get_u16().map_err(|_| Malformed)
}

fn int(body: &mut Bytes) -> Result<u32> {
    body.try_get_u32().map_err(|_| Malformed)
}

fn long(body: &mut Bytes) -> Result<u64> {
    body.try_get_u64().map_err(|_| Malformed)
}

fn string(body: &mut Bytes) -> Result<String> {
    let end = body.iter().position(|&byte| byte == 0).ok_or(Malformed)?;
    let text = body.split_to(end);
    body.advance(1);
    String::from_utf8(text.to_vec()).map_err(|_| Malformed)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn text(value: &str) -> Cell {
        Cell::Text(Bytes::copy_from_slice(value.as_bytes()))
    }

    fn update() -> RowChange {
        RowChange {
            relation: 7,
            operation: Operation::Update,
            old: Some(vec![text("1"), Cell::Null, Cell::Null]),
            old_is_key: true,
            new: Some(vec![text("2"), Cell::Unchanged, text("a long value")]),
        }
    }

    #[test]
    fn what_is_written_is_read_again() {
        let change = update();
        assert_eq!(read(shorten(&change, 100), false), Ok(Message::Row(change.clone())));
        let Ok(Message::Row(short)) = read(shorten(&change, 3), false) else { panic!() };
        assert_eq!(short.new.unwrap(), [text("2"), Cell::Unchanged, Cell::Dropped]);
    }

    #[test]
    fn a_cut_row_keeps_what_came() {
        let whole = shorten(&update(), 100);
        let Ok(Message::Row(cut)) = read(whole.slice(..whole.len() - 1), true) else { panic!() };
        assert_eq!(cut.new.unwrap(), [text("2"), Cell::Unchanged, Cell::Dropped]);
        assert_eq!(read(whole.slice(..whole.len() - 1), false), Err(Malformed));
    }

    #[test]
    fn relations_are_read() {
        let mut body = BytesMut::from(&b"R\0\0\0\x07public\0notes\0d\0\x02"[..]);
        body.put_slice(b"\x01id\0\0\0\0\x14\xff\xff\xff\xff");
        body.put_slice(b"\x00body\0\0\0\0\x19\xff\xff\xff\xff");
        let Ok(Message::Relation(relation)) = read(body.freeze(), false) else { panic!() };
        assert_eq!(
            (relation.schema.as_str(), relation.table.as_str(), relation.full),
            ("public", "notes", false)
        );
        let columns: Vec<_> = relation.columns.iter().map(|c| (c.name.as_str(), c.key, c.type_oid)).collect();
        assert_eq!(columns, [("id", true, 20), ("body", false, 25)]);
    }

    proptest! {
        #[test]
        fn nothing_that_comes_panics(bytes: Vec<u8>, cut: bool, kind in prop::sample::select(b"BCRIUDTX".to_vec())) {
            let mut message = vec![kind];
            message.extend(bytes);
            let _ = read(message.into(), cut);
        }
    }
}
