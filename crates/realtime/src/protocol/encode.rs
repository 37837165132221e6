//! What the server sends, as finished WebSocket frames (RFC 6455 §5.2).

use bytes::Bytes;

use super::{Encoding, Head, UserBroadcast, Version};

/// Longest header of an unmasked frame.
const HEADER: usize = 10;
const TEXT: u8 = 0x81;
const BINARY: u8 = 0x82;
const CLOSE: u8 = 0x88;
/// Kind of the frame in which users' broadcasts leave.
const USER_BROADCAST: u8 = 4;

fn frame(opcode: u8, capacity: usize, write: impl FnOnce(&mut Vec<u8>)) -> Bytes {
    let mut buffer = Vec::with_capacity(HEADER + capacity);
    buffer.resize(HEADER, 0);
    write(&mut buffer);
    let length = buffer.len() - HEADER;
    let start = match length {
        0..=125 => {
            buffer[HEADER - 1] = length as u8;
            HEADER - 2
        }
        126..=0xffff => {
            buffer[HEADER - 3] = 126;
            buffer[HEADER - 2..HEADER].copy_from_slice(&(length as u16).to_be_bytes());
            HEADER - 4
        }
        _ => {
            buffer[1] = 127;
            buffer[2..HEADER].copy_from_slice(&(length as u64).to_be_bytes());
            0
        }
    };
    buffer[start] = opcode;
    Bytes::from(buffer).slice(start..)
}

/// Text as one frame.
pub fn text_frame(text: &[u8]) -> Bytes {
    frame(TEXT, text.len(), |buffer| buffer.extend_from_slice(text))
}

/// Bytes as one frame.
pub fn binary_frame(bytes: &[u8]) -> Bytes {
    frame(BINARY, bytes.len(), |buffer| buffer.extend_from_slice(bytes))
}

/// The frame that closes a connection. `reason` is at most 123 bytes.
pub fn close_frame(code: u16, reason: &str) -> Bytes {
    frame(CLOSE, 2 + reason.len(), |buffer| {
        buffer.extend_from_slice(&code.to_be_bytes());
        buffer.extend_from_slice(&reason.as_bytes()[..reason.len().min(123)]);
    })
}

/// Text as a JSON string.
pub fn json_string(text: &str) -> String {
    serde_json::to_string(text).expect("text is JSON")
}

fn write_string(buffer: &mut Vec<u8>, text: &str) {
    serde_json::to_writer(buffer, text).expect("text is JSON, and memory takes it");
}

pub(super) fn message(version: Version, head: Head<'_>, event: &str, payload: &[u8]) -> Bytes {
    let Head { join_ref, reference, topic } = head;
    let capacity =
        payload.len() + topic.len() + event.len() + join_ref.json().len() + reference.json().len() + 48;
    frame(TEXT, capacity, |buffer| match version {
        Version::V1 => {
            buffer.extend_from_slice(br#"{"topic":"#);
            write_string(buffer, topic);
            buffer.extend_from_slice(br#","event":"#);
            write_string(buffer, event);
            buffer.extend_from_slice(br#","payload":"#);
            buffer.extend_from_slice(payload);
            buffer.extend_from_slice(br#","ref":"#);
            buffer.extend_from_slice(reference.json().as_bytes());
            buffer.push(b'}');
        }
        Version::V2 => {
            buffer.push(b'[');
            buffer.extend_from_slice(join_ref.json().as_bytes());
            buffer.push(b',');
            buffer.extend_from_slice(reference.json().as_bytes());
            buffer.push(b',');
            write_string(buffer, topic);
            buffer.push(b',');
            write_string(buffer, event);
            buffer.push(b',');
            buffer.extend_from_slice(payload);
            buffer.push(b']');
        }
    })
}

pub(super) fn user_broadcast(topic: &str, broadcast: &UserBroadcast, meta: &[u8]) -> Option<Bytes> {
    let UserBroadcast { event, encoding, data } = broadcast;
    let [topic_length, event_length, meta_length] =
        [topic.len(), event.len(), meta.len()].map(|length| u8::try_from(length).ok());
    let header = [
        USER_BROADCAST,
        topic_length?,
        event_length?,
        meta_length?,
        match encoding {
            Encoding::Binary => 0,
            Encoding::Json => 1,
        },
    ];
    let capacity = header.len() + topic.len() + event.len() + meta.len() + data.len();
    Some(frame(BINARY, capacity, |buffer| {
        for part in [&header, topic.as_bytes(), event.as_bytes(), meta, data] {
            buffer.extend_from_slice(part);
        }
    }))
}

#[cfg(test)]
mod tests {
    use rstest::rstest;

    use super::super::Ref;
    use super::*;

    #[rstest]
    #[case(0, &[0x81, 0])]
    #[case(125, &[0x81, 125])]
    #[case(126, &[0x81, 126, 0, 126])]
    #[case(65_535, &[0x81, 126, 255, 255])]
    #[case(65_536, &[0x81, 127, 0, 0, 0, 0, 0, 1, 0, 0])]
    fn headers(#[case] length: usize, #[case] header: &[u8]) {
        let frame = text_frame(&vec![b'x'; length]);
        assert_eq!(&frame[..header.len()], header);
        assert_eq!(frame.len(), header.len() + length);
    }

    #[test]
    fn messages_of_both_versions() {
        let one = Ref::text("1");
        let head = Head { join_ref: &one, reference: &Ref::NONE, topic: "realtime:\"a\"" };
        let text = |frame: Bytes| String::from_utf8(frame[2..].to_vec()).unwrap();
        assert_eq!(
            text(Version::V1.message(head, "system", b"{}")),
            r#"{"topic":"realtime:\"a\"","event":"system","payload":{},"ref":null}"#
        );
        assert_eq!(
            text(Version::V2.reply(head, false, r#"{"reason":"no"}"#)),
            r#"["1",null,"realtime:\"a\"","phx_reply",{"status":"error","response":{"reason":"no"}}]"#
        );
    }

    #[test]
    fn users_broadcasts() {
        let broadcast = UserBroadcast {
            event: "ev".into(),
            encoding: Encoding::Binary,
            data: Bytes::from_static(b"\x01\x02"),
        };
        let frame = user_broadcast("realtime:x", &broadcast, b"{}").unwrap();
        assert_eq!(&frame[2..], b"\x04\x0a\x02\x02\x00realtime:xev{}\x01\x02");
        assert!(user_broadcast(&"x".repeat(256), &broadcast, b"").is_none());
    }
}
