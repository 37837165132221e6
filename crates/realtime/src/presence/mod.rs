//! Who is on a channel, on all servers together.
//!
//! Each server owns what its own sockets track, and tells the others in numbered deltas; who misses one asks for the
//! owner's whole state. So everything has one writer, and views converge whenever messages flow again. [`Replica`] is
//! this protocol without socket or clock; [`Diffs`] gathers what clients are told.

mod diffs;
mod replica;
#[cfg(test)]
mod simulation;
mod wire;

use std::fmt::Write as _;
use std::sync::Arc;

pub(crate) use diffs::Diffs;
pub(crate) use replica::{BEAT, Effect, Message, Replica};

use crate::bus::NodeId;
use crate::protocol::json_string;

/// A channel: whether it is the private one of this name, and the name on the wire.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(crate) struct Topic {
    pub(crate) private: bool,
    pub(crate) name: Arc<str>,
}

/// One channel of one socket, among all servers.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(crate) struct EntryId {
    pub(crate) node: NodeId,
    pub(crate) serial: u64,
}

/// What somebody tracks.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Entry {
    /// The key that the client chose, shared by all of a person's tabs.
    pub(crate) key: Arc<str>,
    /// `phx_ref`: another for each change of what is tracked.
    pub(crate) reference: Arc<str>,
    /// The JSON object that clients get, with `phx_ref` in it.
    pub(crate) meta: Arc<str>,
}

impl Entry {
    /// `payload` is a JSON object. `previous` is the `phx_ref` that this one follows.
    pub(crate) fn new(key: Arc<str>, reference: String, previous: Option<&str>, payload: &str) -> Self {
        let mut meta = format!(r#"{{"phx_ref":{}"#, json_string(&reference));
        if let Some(previous) = previous {
            write!(meta, r#","phx_ref_prev":{}"#, json_string(previous)).expect("text takes text");
        }
        let members = payload.trim().trim_start_matches('{').trim_start();
        if members != "}" {
            meta.push(',');
        }
        meta.push_str(members);
        Self { key, reference: reference.into(), meta: meta.into() }
    }
}

/// `{"key":{"metas":[…]},…}` of entries, as `presence_state` has them.
pub(crate) fn grouped<'e>(entries: impl Iterator<Item = &'e Entry>) -> String {
    let mut sorted: Vec<&Entry> = entries.collect();
    sorted.sort_by(|one, other| one.key.cmp(&other.key));
    let mut out = String::from("{");
    let mut open: Option<&str> = None;
    for entry in sorted {
        if open == Some(&*entry.key) {
            out.push(',');
        } else {
            if open.is_some() {
                out.push_str("]},");
            }
            out.push_str(&json_string(&entry.key));
            out.push_str(r#":{"metas":["#);
            open = Some(&entry.key);
        }
        out.push_str(&entry.meta);
    }
    if open.is_some() {
        out.push_str("]}");
    }
    out.push('}');
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_clients_see() {
        let entry = |key: &str, payload: &str| Entry::new(key.into(), "r".into(), None, payload);
        let entries = [entry("b", r#"{"x":1}"#), entry("a", " { } "), entry("b", "{}")];
        let json = grouped(entries.iter());
        assert_eq!(
            json,
            r#"{"a":{"metas":[{"phx_ref":"r"}]},"b":{"metas":[{"phx_ref":"r","x":1},{"phx_ref":"r"}]}}"#
        );
        assert_eq!(grouped([].iter()), "{}");
        let next = Entry::new("b".into(), "s".into(), Some("r"), r#"{"x":1}"#);
        assert_eq!(&*next.meta, r#"{"phx_ref":"s","phx_ref_prev":"r","x":1}"#);
    }
}
