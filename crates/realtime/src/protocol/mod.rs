//! Phoenix channels on the wire, in both serialisations that `realtime-js` negotiates by `vsn`.
//!
//! Version 1 is a JSON object for each message, version 2 a JSON array, and binary frames for what users broadcast.
//! Whatever is sent is encoded once into a finished WebSocket frame, since servers do not mask: all receivers share it.

mod decode;
mod encode;

use std::borrow::Cow;

use bytes::Bytes;
use serde_json::value::RawValue;

pub use decode::Malformed;
pub use encode::{binary_frame, close_frame, json_string, text_frame};

/// How messages are written.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Version {
    /// `vsn=1.0.0`: `{"topic", "event", "payload", "ref"}`.
    V1,
    /// `vsn=2.0.0`: `[join_ref, ref, topic, event, payload]`.
    V2,
}

impl Version {
    /// What `vsn` of the query string asks for; none is version 1. `None` for versions that do not exist.
    pub fn negotiate(vsn: Option<&str>) -> Option<Self> {
        match vsn.map(|vsn| vsn.split('.').next().unwrap_or_default()) {
            None | Some("1") => Some(Self::V1),
            Some("2") => Some(Self::V2),
            Some(_) => None,
        }
    }
}

/// A client's number of a message (`ref`, `join_ref`), kept as the JSON text that it wrote: it comes back unchanged.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Ref(Option<Box<str>>);

impl Ref {
    /// None: `null`.
    pub const NONE: Self = Self(None);

    fn raw(value: Option<&RawValue>) -> Self {
        Self(value.map(|value| value.get().into()))
    }

    fn text(text: &str) -> Self {
        if text.is_empty() { Self(None) } else { Self(Some(encode::json_string(text).into())) }
    }

    /// JSON text.
    pub fn json(&self) -> &str {
        self.0.as_deref().unwrap_or("null")
    }

    /// Whether the client gave one.
    pub fn is_some(&self) -> bool {
        self.0.is_some()
    }
}

/// A message of a client.
#[derive(Debug)]
pub struct Incoming<'a> {
    /// Which join of the channel it belongs to.
    pub join_ref: Ref,
    /// Its number, which replies repeat.
    pub reference: Ref,
    /// Channel, such as `realtime:room`.
    pub topic: Cow<'a, str>,
    /// What it is, such as `phx_join`.
    pub event: Cow<'a, str>,
    /// What it carries.
    pub payload: Payload<'a>,
}

/// What a message carries.
#[derive(Debug)]
pub enum Payload<'a> {
    /// JSON.
    Json(&'a RawValue),
    /// A broadcast in a binary frame.
    User(UserBroadcast),
}

/// A user's broadcast as version 2 sends it in a binary frame.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct UserBroadcast {
    /// The user's event.
    pub event: Box<str>,
    /// What `data` is.
    pub encoding: Encoding,
    /// The user's payload.
    pub data: Bytes,
}

/// What the payload of a [`UserBroadcast`] is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Encoding {
    /// Any bytes.
    Binary,
    /// JSON text.
    Json,
}

impl<'a> Incoming<'a> {
    /// Reads a text frame.
    ///
    /// # Errors
    /// What a client of this version would not write.
    pub fn text(version: Version, text: &'a str) -> Result<Self, Malformed> {
        decode::text(version, text)
    }

    /// Reads a binary frame, which only version 2 has.
    ///
    /// # Errors
    /// What a client of this version would not write.
    pub fn binary(version: Version, bytes: &'a Bytes) -> Result<Self, Malformed> {
        decode::binary(version, bytes)
    }
}

/// A message of the server, without its payload.
#[derive(Debug, Clone, Copy)]
pub struct Head<'a> {
    /// Which join it belongs to; none for what all members get.
    pub join_ref: &'a Ref,
    /// Which message it answers.
    pub reference: &'a Ref,
    /// Channel.
    pub topic: &'a str,
}

impl Version {
    /// Any message, as a finished frame. `payload` is JSON text.
    pub fn message(self, head: Head<'_>, event: &str, payload: &[u8]) -> Bytes {
        encode::message(self, head, event, payload)
    }

    /// The answer to a message. `response` is JSON text.
    pub fn reply(self, head: Head<'_>, ok: bool, response: &str) -> Bytes {
        let status = if ok { "ok" } else { "error" };
        let payload = format!(r#"{{"status":"{status}","response":{response}}}"#);
        encode::message(self, head, "phx_reply", payload.as_bytes())
    }

    /// What every member of a channel gets: neither answers a message nor belongs to a join.
    pub fn to_all(self, topic: &str, event: &str, payload: &[u8]) -> Bytes {
        let head = Head { join_ref: &Ref::NONE, reference: &Ref::NONE, topic };
        encode::message(self, head, event, payload)
    }
}

/// A user's broadcast as a binary frame of version 2. `None` where topic, event or meta is longer than the format can
/// tell (255 bytes).
pub fn user_broadcast(topic: &str, broadcast: &UserBroadcast, meta: &[u8]) -> Option<Bytes> {
    encode::user_broadcast(topic, broadcast, meta)
}
