//! A message to everybody on a channel: what is sent, and how it travels between servers.

use std::cell::OnceCell;
use std::sync::Arc;

use bytes::{Buf, BufMut, Bytes, BytesMut};
use serde_json::value::RawValue;

use crate::changes::{BroadcastPayload, DatabaseBroadcast};
use crate::protocol::{Encoding, UserBroadcast, Version, json_string, user_broadcast};

/// Begins the name of every channel on the wire.
pub(crate) const PREFIX: &str = "realtime:";

/// A message to everybody on a channel.
#[derive(Debug, Clone)]
pub(crate) struct Broadcast {
    /// Whether for the private channel of this name, or the public one.
    pub(crate) private: bool,
    /// Name of the channel with the prefix.
    pub(crate) topic: Arc<str>,
    /// Its id in `realtime.messages`, where it has one: who had it replayed does not get it again.
    pub(crate) id: Option<Box<str>>,
    pub(crate) body: Body,
}

#[derive(Debug, Clone)]
pub(crate) enum Body {
    /// The JSON object that clients get, as a client wrote it.
    Payload(Bytes),
    /// In a binary frame for those who can read it.
    User(UserBroadcast),
}

impl Broadcast {
    /// A message that comes from elsewhere than a channel: from HTTP or the database.
    pub(crate) fn from_outside(
        private: bool,
        topic: &str,
        id: Option<Box<str>>,
        event: &str,
        payload: &BroadcastPayload,
    ) -> Self {
        let body = match payload {
            BroadcastPayload::Json(json) => Body::Payload(json_payload(event, json, id.as_deref(), false)),
            BroadcastPayload::Binary(data) => Body::User(UserBroadcast {
                event: event.into(),
                encoding: Encoding::Binary,
                data: data.clone(),
            }),
        };
        Self { private, topic: format!("{PREFIX}{topic}").into(), id, body }
    }

    /// The frame for clients of `version`; none if they cannot be told.
    pub(crate) fn frame(&self, version: Version) -> Option<Bytes> {
        match (&self.body, version) {
            (Body::Payload(payload), version) => Some(version.to_all(&self.topic, "broadcast", payload)),
            (Body::User(user), Version::V2) => {
                let meta = self.id.as_deref().map(|id| format!(r#"{{"id":{}}}"#, json_string(id)));
                user_broadcast(&self.topic, user, meta.unwrap_or_default().as_bytes())
                    .or_else(|| self.as_json(user, version))
            }
            (Body::User(user), Version::V1) => self.as_json(user, version),
        }
    }

    fn as_json(&self, user: &UserBroadcast, version: Version) -> Option<Bytes> {
        (user.encoding == Encoding::Json).then(|| {
            let payload = json_payload(&user.event, &user.data, self.id.as_deref(), false);
            version.to_all(&self.topic, "broadcast", &payload)
        })
    }

    /// For other servers.
    pub(crate) fn to_bus(&self) -> Bytes {
        let id = self.id.as_deref().unwrap_or_default();
        let mut out = BytesMut::with_capacity(self.topic.len() + id.len() + 64);
        let kind = match &self.body {
            Body::Payload(_) => 0,
            Body::User(UserBroadcast { encoding: Encoding::Binary, .. }) => 1,
            Body::User(UserBroadcast { encoding: Encoding::Json, .. }) => 2,
        };
        out.put_u8(kind | if self.private { 0x80 } else { 0 });
        put_text(&mut out, &self.topic);
        put_text(&mut out, id);
        match &self.body {
            Body::Payload(payload) => out.put_slice(payload),
            Body::User(user) => {
                put_text(&mut out, &user.event);
                out.put_slice(&user.data);
            }
        }
        out.freeze()
    }

    /// Of another server; none for what no server of this version sends.
    pub(crate) fn from_bus(mut bytes: Bytes) -> Option<Self> {
        let kind = bytes.try_get_u8().ok()?;
        let topic = take_text(&mut bytes)?;
        let id = take_text(&mut bytes)?;
        let encoding = match kind & 0x7f {
            0 => None,
            1 => Some(Encoding::Binary),
            2 => Some(Encoding::Json),
            _ => return None,
        };
        let body = match encoding {
            None => Body::Payload(bytes),
            Some(encoding) => {
                let event = take_text(&mut bytes)?;
                Body::User(UserBroadcast { event, encoding, data: bytes })
            }
        };
        let id = (!id.is_empty()).then_some(id);
        Some(Self { private: kind & 0x80 != 0, topic: topic.into(), id, body })
    }
}

impl From<DatabaseBroadcast> for Broadcast {
    fn from(message: DatabaseBroadcast) -> Self {
        let DatabaseBroadcast { id, topic, event, payload, private } = message;
        Self::from_outside(private, &topic, Some(id.into()), &event, &payload)
    }
}

/// The object that clients get for a message of HTTP, the database or a replay. `payload` is JSON.
pub(crate) fn json_payload(event: &str, payload: &[u8], id: Option<&str>, replayed: bool) -> Bytes {
    let mut out = BytesMut::with_capacity(payload.len() + event.len() + 96);
    out.put_slice(br#"{"event":"#);
    out.put_slice(json_string(event).as_bytes());
    out.put_slice(br#","payload":"#);
    out.put_slice(payload);
    out.put_slice(br#","type":"broadcast""#);
    if let Some(id) = id {
        out.put_slice(br#","meta":{"#);
        if replayed {
            out.put_slice(br#""replayed":true,"#);
        }
        out.put_slice(br#""id":"#);
        out.put_slice(json_string(id).as_bytes());
        out.put_slice(b"}");
    }
    out.put_slice(b"}");
    out.freeze()
}

/// The frame of an earlier message; none for bytes to clients that cannot be told.
pub(crate) fn replayed_frame(version: Version, topic: &str, earlier: &DatabaseBroadcast) -> Option<Bytes> {
    match &earlier.payload {
        BroadcastPayload::Json(json) => {
            let payload = json_payload(&earlier.event, json, Some(&earlier.id), true);
            Some(version.to_all(topic, "broadcast", &payload))
        }
        BroadcastPayload::Binary(data) if version == Version::V2 => {
            let meta = format!(r#"{{"replayed":true,"id":{}}}"#, json_string(&earlier.id));
            let user = UserBroadcast {
                event: earlier.event.as_str().into(),
                encoding: Encoding::Binary,
                data: data.clone(),
            };
            user_broadcast(topic, &user, meta.as_bytes())
        }
        BroadcastPayload::Binary(_) => None,
    }
}

/// Whether this is an object: whatever else `payload` may be, clients could not read it as a message.
pub(crate) fn is_object(payload: &RawValue) -> bool {
    payload.get().starts_with('{')
}

fn put_text(out: &mut BytesMut, text: &str) {
    out.put_u32(text.len() as u32);
    out.put_slice(text.as_bytes());
}

fn take_text(bytes: &mut Bytes) -> Option<Box<str>> {
    let length = bytes.try_get_u32().ok()? as usize;
    if bytes.len() < length {
        return None;
    }
    String::from_utf8(bytes.split_to(length).into()).ok().map(Into::into)
}

/// The frames of one message, each made when the first client needs it.
pub(crate) struct Frames<'b> {
    broadcast: &'b Broadcast,
    v1: OnceCell<Option<Bytes>>,
    v2: OnceCell<Option<Bytes>>,
}

impl<'b> Frames<'b> {
    pub(crate) fn of(broadcast: &'b Broadcast) -> Self {
        Self { broadcast, v1: OnceCell::new(), v2: OnceCell::new() }
    }

    pub(crate) fn get(&self, version: Version) -> Option<&Bytes> {
        let cell = match version {
            Version::V1 => &self.v1,
            Version::V2 => &self.v2,
        };
        cell.get_or_init(|| self.broadcast.frame(version)).as_ref()
    }
}

#[cfg(test)]
mod tests {
    use rstest::rstest;

    use super::*;

    fn user(encoding: Encoding) -> Broadcast {
        let user = UserBroadcast { event: "e".into(), encoding, data: Bytes::from_static(b"[1]") };
        Broadcast { private: true, topic: "realtime:a".into(), id: Some("x".into()), body: Body::User(user) }
    }

    #[rstest]
    #[case(user(Encoding::Json))]
    #[case(user(Encoding::Binary))]
    #[case(Broadcast::from_outside(false, "a", None, "e", &BroadcastPayload::Json(Bytes::from_static(b"{}"))))]
    fn arrives_at_other_servers_as_it_is(#[case] broadcast: Broadcast) {
        let there = Broadcast::from_bus(broadcast.to_bus()).unwrap();
        assert_eq!(
            (there.private, &there.topic, &there.id),
            (broadcast.private, &broadcast.topic, &broadcast.id)
        );
        for version in [Version::V1, Version::V2] {
            assert_eq!(there.frame(version), broadcast.frame(version));
        }
        let bytes = broadcast.to_bus();
        for length in 0..9 {
            assert!(Broadcast::from_bus(bytes.slice(..length)).is_none());
        }
    }

    #[test]
    fn the_older_version_gets_json_and_no_bytes() {
        let frame = user(Encoding::Json).frame(Version::V1).unwrap();
        let text = String::from_utf8_lossy(&frame);
        assert!(
            text.contains(r#""payload":{"event":"e","payload":[1],"type":"broadcast","meta":{"id":"x"}}"#),
            "{text}"
        );
        assert!(user(Encoding::Binary).frame(Version::V1).is_none());
    }
}
