//! The JSON of a change, as `realtime-js` expects it.

use std::fmt::Write as _;

use bytes::Bytes;
use chrono::{DateTime, Duration, SecondsFormat, Utc};

use super::batch::Entry;
use super::catalog::Table;
use super::pgoutput::{Cell, Operation, Relation};
use super::values::write_string;

/// A value as far as the log tells it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Seen<'r> {
    /// It was not logged, or left out.
    Missing,
    Null,
    Text(&'r str),
}

/// Which columns somebody gets to see.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(super) struct View {
    /// For each column of the table.
    pub(super) columns: Vec<bool>,
    /// Of old rows only the primary key: row-level security cannot be asked about them.
    pub(super) old_keys_only: bool,
}

/// A change together with its table of today: columns are found by name.
#[derive(Debug, Clone, Copy)]
pub(super) struct Row<'r> {
    pub(super) entry: &'r Entry,
    pub(super) table: &'r Table,
    /// For each column of the table its place in the relation.
    pub(super) places: &'r [Option<usize>],
}

/// Where the columns of a table are in its rows as they were logged.
pub(super) fn places(table: &Table, relation: &Relation) -> Vec<Option<usize>> {
    let place = |name: &str| relation.columns.iter().position(|column| column.name == name);
    table.columns.iter().map(|column| place(&column.name)).collect()
}

fn seen(cell: Option<&Cell>) -> Seen<'_> {
    match cell {
        Some(Cell::Null) => Seen::Null,
        Some(cell @ Cell::Text(_)) => cell.text().map_or(Seen::Missing, Seen::Text),
        Some(Cell::Unchanged | Cell::Dropped) | None => Seen::Missing,
    }
}

impl<'r> Row<'r> {
    /// A value of the row as it is now. What was not logged because it has not changed is in the old row, if that is
    /// logged whole.
    pub(super) fn new_value(&self, column: usize) -> Seen<'r> {
        let Some(place) = self.places[column] else { return Seen::Missing };
        let row = &self.entry.row;
        let new = row.new.as_ref().and_then(|cells| cells.get(place));
        match (new, &row.old) {
            (Some(Cell::Unchanged), Some(old)) if !row.old_is_key => seen(old.get(place)),
            (new, _) => seen(new),
        }
    }

    /// A value of the row as it was, by the table's replica identity.
    pub(super) fn old_value(&self, column: usize) -> Seen<'r> {
        let Some(place) = self.places[column] else { return Seen::Missing };
        let (row, relation) = (&self.entry.row, &self.entry.relation);
        let key = relation.columns.get(place).is_some_and(|column| column.key);
        match &row.old {
            Some(_) if row.old_is_key && !key => Seen::Missing,
            Some(old) => seen(old.get(place)),
            // An update that left the key alone.
            None if key && row.operation == Operation::Update && !relation.full => self.new_value(column),
            None => Seen::Missing,
        }
    }

    /// A value that a filter may look at: only what the holder would receive.
    pub(super) fn filtered_value(&self, column: usize, view: &View) -> Seen<'r> {
        if !view.columns[column] {
            return Seen::Missing;
        }
        match self.entry.row.operation {
            Operation::Delete if view.old_keys_only && !self.table.columns[column].key => Seen::Missing,
            Operation::Delete => self.old_value(column),
            Operation::Insert | Operation::Update => self.new_value(column),
        }
    }

    /// The object that clients get as `data`.
    pub(super) fn data(&self, view: &View) -> Bytes {
        let entry = self.entry;
        let operation = entry.row.operation;
        let mut out = String::with_capacity(256 + entry.raw.len() * 2);
        out.push_str("{\"schema\":");
        write_string(&entry.relation.schema, &mut out);
        out.push_str(",\"table\":");
        write_string(&entry.relation.table, &mut out);
        let _ = write!(out, ",\"commit_timestamp\":\"{}\"", timestamp(entry.at));
        let _ = write!(out, ",\"type\":\"{}\",\"columns\":[", operation.name());
        let mut first = true;
        for (column, _) in self.table.columns.iter().zip(&view.columns).filter(|(_, visible)| **visible) {
            out.push_str(if first { "{\"name\":" } else { ",{\"name\":" });
            write_string(&column.name, &mut out);
            out.push_str(",\"type\":");
            write_string(&column.type_name, &mut out);
            out.push('}');
            first = false;
        }
        out.push(']');
        if operation != Operation::Delete {
            out.push_str(",\"record\":");
            self.object(&mut out, |column| match view.columns[column] {
                true => self.new_value(column),
                false => Seen::Missing,
            });
        }
        if operation != Operation::Insert {
            out.push_str(",\"old_record\":");
            self.object(&mut out, |column| {
                let shown = view.columns[column] && (!view.old_keys_only || self.table.columns[column].key);
                if shown { self.old_value(column) } else { Seen::Missing }
            });
        }
        out.push_str(match entry.oversize {
            true => ",\"errors\":[\"Error 413: Payload Too Large\"]}",
            false => ",\"errors\":null}",
        });
        out.into()
    }

    fn object(&self, out: &mut String, value: impl Fn(usize) -> Seen<'r>) {
        let mut open = '{';
        for (index, column) in self.table.columns.iter().enumerate() {
            let value = value(index);
            if value == Seen::Missing {
                continue;
            }
            out.push(open);
            open = ',';
            write_string(&column.name, out);
            out.push(':');
            match value {
                Seen::Text(text) => column.kind.write(text, out),
                Seen::Null | Seen::Missing => out.push_str("null"),
            }
        }
        if open == '{' {
            out.push('{');
        }
        out.push('}');
    }

    /// The row as Postgres can read it again: an object with values in their text format.
    pub(super) fn as_input(&self, out: &mut String) {
        let mut open = '{';
        for (index, column) in self.table.columns.iter().enumerate() {
            let Seen::Text(text) = self.new_value(index) else { continue };
            out.push(open);
            open = ',';
            write_string(&column.name, out);
            out.push(':');
            match column.kind {
                super::values::Kind::Json => column.kind.write(text, out),
                _ => write_string(text, out),
            }
        }
        if open == '{' {
            out.push('{');
        }
        out.push('}');
    }
}

/// When that was, given in Postgres' microseconds.
pub(super) fn moment(at: i64) -> DateTime<Utc> {
    let epoch = DateTime::from_timestamp(946_684_800, 0).unwrap_or_default();
    epoch.checked_add_signed(Duration::microseconds(at)).unwrap_or(epoch)
}

fn timestamp(at: i64) -> String {
    moment(at).to_rfc3339_opts(SecondsFormat::Millis, true)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn moments_are_shown_in_milliseconds() {
        assert_eq!(timestamp(0), "2000-01-01T00:00:00.000Z");
        assert_eq!(timestamp(848_000_000_123_999), "2026-11-14T19:33:20.123Z");
        assert_eq!(timestamp(i64::MAX), "2000-01-01T00:00:00.000Z");
    }
}
