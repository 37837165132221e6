//! How servers write presence on the bus: JSON, since it is little and rare.

use bytes::Bytes;
use serde::{Deserialize, Serialize};

use super::replica::{Delta, Message};
use super::{Entry, Topic};
use crate::bus::NodeId;

#[derive(Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "snake_case")]
enum Written {
    Track { number: u64, tracked: Tracked },
    Untrack { number: u64, serial: u64 },
    Beat { number: u64 },
    Hello,
    Ask { whom: u64 },
    State { number: u64, part: u32, parts: u32, entries: Vec<Tracked> },
    Bye,
}

#[derive(Serialize, Deserialize)]
struct Tracked {
    serial: u64,
    private: bool,
    topic: String,
    key: String,
    reference: String,
    meta: String,
}

impl Tracked {
    fn of(serial: u64, topic: &Topic, entry: &Entry) -> Self {
        Self {
            serial,
            private: topic.private,
            topic: topic.name.as_ref().into(),
            key: entry.key.as_ref().into(),
            reference: entry.reference.as_ref().into(),
            meta: entry.meta.as_ref().into(),
        }
    }

    fn read(self) -> (u64, Topic, Entry) {
        let topic = Topic { private: self.private, name: self.topic.into() };
        let entry = Entry { key: self.key.into(), reference: self.reference.into(), meta: self.meta.into() };
        (self.serial, topic, entry)
    }
}

impl Message {
    /// For other servers.
    pub(crate) fn to_bus(&self) -> Bytes {
        let written = match self {
            Self::Delta { number, delta: Delta::Track { serial, topic, entry } } => {
                Written::Track { number: *number, tracked: Tracked::of(*serial, topic, entry) }
            }
            Self::Delta { number, delta: Delta::Untrack { serial } } => {
                Written::Untrack { number: *number, serial: *serial }
            }
            Self::Beat { number } => Written::Beat { number: *number },
            Self::Hello => Written::Hello,
            Self::Ask { whom } => Written::Ask { whom: whom.number() },
            Self::State { number, part, parts, entries } => Written::State {
                number: *number,
                part: *part,
                parts: *parts,
                entries: entries
                    .iter()
                    .map(|(serial, topic, entry)| Tracked::of(*serial, topic, entry))
                    .collect(),
            },
            Self::Bye => Written::Bye,
        };
        serde_json::to_vec(&written).expect("plain data is JSON").into()
    }

    /// Of another server; none for what no server of this version sends.
    pub(crate) fn from_bus(bytes: &[u8]) -> Option<Self> {
        Some(match serde_json::from_slice(bytes).ok()? {
            Written::Track { number, tracked } => {
                let (serial, topic, entry) = tracked.read();
                Self::Delta { number, delta: Delta::Track { serial, topic, entry } }
            }
            Written::Untrack { number, serial } => Self::Delta { number, delta: Delta::Untrack { serial } },
            Written::Beat { number } => Self::Beat { number },
            Written::Hello => Self::Hello,
            Written::Ask { whom } => Self::Ask { whom: NodeId::from_number(whom) },
            Written::State { number, part, parts, entries } => {
                Self::State { number, part, parts, entries: entries.into_iter().map(Tracked::read).collect() }
            }
            Written::Bye => Self::Bye,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn arrives_as_it_was_sent() {
        let topic = Topic { private: true, name: "realtime:a".into() };
        let entry = Entry::new("k".into(), "r".into(), None, r#"{"n":"ä"}"#);
        let messages = [
            Message::Delta {
                number: 1,
                delta: Delta::Track { serial: 2, topic: topic.clone(), entry: entry.clone() },
            },
            Message::Delta { number: 2, delta: Delta::Untrack { serial: 2 } },
            Message::Beat { number: 2 },
            Message::Hello,
            Message::Ask { whom: NodeId::from_number(u64::MAX) },
            Message::State { number: 2, part: 0, parts: 1, entries: vec![(2, topic, entry)] },
            Message::Bye,
        ];
        for message in messages {
            assert_eq!(Message::from_bus(&message.to_bus()), Some(message));
        }
        assert_eq!(Message::from_bus(b"{}"), None);
    }
}
