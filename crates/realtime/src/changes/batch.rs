//! Changes on their way from the server that reads them to all servers.

use std::sync::Arc;

use bytes::{Buf as _, BufMut as _, Bytes, BytesMut};

use super::pgoutput::{self, Lsn, Message, Relation, RowChange};

const CHANGES: u8 = 1;
const RESET: u8 = 2;

/// Where a change stands in the order of commits.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Default)]
pub(super) struct Position {
    /// Where its transaction's commit is in the log.
    pub(super) commit: Lsn,
    /// Which change of the transaction it is.
    pub(super) index: u32,
}

/// A change of a row.
#[derive(Debug, Clone)]
pub(super) struct Entry {
    pub(super) position: Position,
    /// When it was committed, in microseconds since 2000-01-01.
    pub(super) at: i64,
    /// Whether values were left out because the row is too large.
    pub(super) oversize: bool,
    pub(super) relation: Arc<Relation>,
    pub(super) row: RowChange,
    /// The row as it is sent on.
    pub(super) raw: Bytes,
}

/// Changes in the order of their commits.
#[derive(Debug, Clone, Default)]
pub(super) struct Batch {
    /// Of which database's log: positions of different ones cannot be compared.
    pub(super) epoch: u64,
    /// Counts the batches of one leader, so that whoever misses one knows.
    pub(super) number: u64,
    /// Everything up to here has been handed out, messages of the database included.
    pub(super) handled: Position,
    pub(super) entries: Vec<Entry>,
    /// Descriptions of the entries' tables, as Postgres sent them.
    pub(super) relations: Vec<Bytes>,
}

/// What servers tell each other.
#[derive(Debug)]
pub(super) enum Notice {
    Changes(Batch),
    /// Changes were lost, and why.
    Reset(String),
}

/// Writes a batch.
pub(super) fn encode(batch: &Batch) -> Bytes {
    let rows: usize = batch.entries.iter().map(|entry| entry.raw.len() + 25).sum();
    let relations: usize = batch.relations.iter().map(|raw| raw.len() + 4).sum();
    let mut out = BytesMut::with_capacity(64 + rows + relations);
    out.put_u8(CHANGES);
    out.put_u64(batch.epoch);
    out.put_u64(batch.number);
    out.put_u64(batch.handled.commit);
    out.put_u32(batch.handled.index);
    let put = |out: &mut BytesMut, raw: &Bytes| {
        out.put_u32(u32::try_from(raw.len()).unwrap_or(0));
        out.put_slice(raw);
    };
    out.put_u32(u32::try_from(batch.relations.len()).unwrap_or(0));
    for raw in &batch.relations {
        put(&mut out, raw);
    }
    for entry in &batch.entries {
        out.put_u64(entry.position.commit);
        out.put_u32(entry.position.index);
        out.put_i64(entry.at);
        out.put_u8(entry.oversize.into());
        put(&mut out, &entry.raw);
    }
    out.freeze()
}

/// Writes that changes were lost.
pub(super) fn encode_reset(why: &str) -> Bytes {
    let mut out = BytesMut::with_capacity(why.len() + 1);
    out.put_u8(RESET);
    out.put_slice(why.as_bytes());
    out.freeze()
}

/// Reads what another server wrote; none if that makes no sense, say because it is of another version.
pub(super) fn decode(mut bytes: Bytes) -> Option<Notice> {
    let from = &mut bytes;
    match from.try_get_u8().ok()? {
        RESET => Some(Notice::Reset(String::from_utf8_lossy(from).into_owned())),
        CHANGES => {
            let mut batch = Batch {
                epoch: from.try_get_u64().ok()?,
                number: from.try_get_u64().ok()?,
                handled: Position { commit: from.try_get_u64().ok()?, index: from.try_get_u32().ok()? },
                ..Batch::default()
            };
            let mut relations: Vec<Arc<Relation>> = Vec::new();
            for _ in 0..from.try_get_u32().ok()? {
                let raw = slice(from)?;
                let Ok(Message::Relation(relation)) = pgoutput::read(raw.clone(), false) else { return None };
                relations.push(Arc::new(relation));
                batch.relations.push(raw);
            }
            while !from.is_empty() {
                let position = Position { commit: from.try_get_u64().ok()?, index: from.try_get_u32().ok()? };
                let at = from.try_get_i64().ok()?;
                let oversize = from.try_get_u8().ok()? != 0;
                let raw = slice(from)?;
                let Ok(Message::Row(row)) = pgoutput::read(raw.clone(), false) else { return None };
                let relation = relations.iter().rev().find(|relation| relation.oid == row.relation)?;
                batch.entries.push(Entry {
                    position,
                    at,
                    oversize,
                    relation: Arc::clone(relation),
                    row,
                    raw,
                });
            }
            Some(Notice::Changes(batch))
        }
        _ => None,
    }
}

fn slice(from: &mut Bytes) -> Option<Bytes> {
    let length = from.try_get_u32().ok()? as usize;
    (length <= from.len()).then(|| from.split_to(length))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn a_batch_arrives_as_it_was_sent() {
        let relation =
            Bytes::from_static(b"R\0\0\0\x07public\0notes\0d\0\x01\x01id\0\0\0\0\x14\xff\xff\xff\xff");
        let raw = Bytes::from_static(b"I\0\0\0\x07N\0\x01t\0\0\0\x015");
        let Ok(Message::Relation(parsed)) = pgoutput::read(relation.clone(), false) else { panic!() };
        let Ok(Message::Row(row)) = pgoutput::read(raw.clone(), false) else { panic!() };
        let position = Position { commit: 5, index: 1 };
        let entry = Entry { position, at: -3, oversize: true, relation: Arc::new(parsed), row, raw };
        let batch =
            Batch { epoch: 1, number: 2, handled: position, entries: vec![entry], relations: vec![relation] };
        let Some(Notice::Changes(got)) = decode(encode(&batch)) else { panic!() };
        assert_eq!((got.epoch, got.number, got.handled), (1, 2, position));
        let [entry] = got.entries.as_slice() else { panic!() };
        assert_eq!((entry.position, entry.at, entry.oversize), (position, -3, true));
        assert_eq!(entry.relation.table, "notes");
        assert_eq!(entry.row, batch.entries[0].row);
        assert!(matches!(decode(encode_reset("why")), Some(Notice::Reset(why)) if why == "why"));
    }

    proptest! {
        #[test]
        fn nothing_that_comes_panics(bytes: Vec<u8>, kind in 0_u8..3) {
            let mut message = vec![kind];
            message.extend(bytes);
            let _ = decode(message.into());
        }
    }
}
