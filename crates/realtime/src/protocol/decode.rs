//! What clients send.

use std::borrow::Cow;

use bytes::Bytes;
use serde::Deserialize;
use serde_json::value::RawValue;

use super::{Encoding, Incoming, Payload, Ref, UserBroadcast, Version};

/// A frame that no client of this protocol writes; its connection is closed.
#[derive(Debug, thiserror::Error)]
pub enum Malformed {
    /// Not the JSON that the version prescribes.
    #[error("expected {expected}: {source}")]
    Json {
        /// What the version prescribes.
        expected: &'static str,
        /// Where it fails.
        source: serde_json::Error,
    },
    /// A binary frame where there is none, or of no known kind, or too short for its own lengths.
    #[error("this binary frame cannot be read; send it as realtime-js does with vsn=2.0.0")]
    Binary,
}

#[derive(Deserialize)]
struct Object<'a> {
    #[serde(borrow)]
    topic: Cow<'a, str>,
    #[serde(borrow)]
    event: Cow<'a, str>,
    #[serde(borrow)]
    payload: &'a RawValue,
    #[serde(borrow, rename = "ref", default)]
    reference: Option<&'a RawValue>,
    #[serde(borrow, default)]
    join_ref: Option<&'a RawValue>,
}

type Array<'a> = (Option<&'a RawValue>, Option<&'a RawValue>, Cow<'a, str>, Cow<'a, str>, &'a RawValue);

pub(super) fn text(version: Version, text: &str) -> Result<Incoming<'_>, Malformed> {
    match version {
        Version::V1 => {
            let object: Object<'_> = serde_json::from_str(text).map_err(|source| Malformed::Json {
                expected: "an object with topic, event, payload and ref",
                source,
            })?;
            Ok(Incoming {
                join_ref: Ref::raw(object.join_ref),
                reference: Ref::raw(object.reference),
                topic: object.topic,
                event: object.event,
                payload: Payload::Json(object.payload),
            })
        }
        Version::V2 => {
            let (join_ref, reference, topic, event, payload): Array<'_> = serde_json::from_str(text)
                .map_err(|source| Malformed::Json {
                    expected: "an array of join_ref, ref, topic, event and payload",
                    source,
                })?;
            Ok(Incoming {
                join_ref: Ref::raw(join_ref),
                reference: Ref::raw(reference),
                topic,
                event,
                payload: Payload::Json(payload),
            })
        }
    }
}

/// Kind of the frame in which users' broadcasts arrive.
const USER_BROADCAST_PUSH: u8 = 3;

pub(super) fn binary(version: Version, bytes: &Bytes) -> Result<Incoming<'_>, Malformed> {
    if version == Version::V1 || bytes.len() < 7 || bytes[0] != USER_BROADCAST_PUSH {
        return Err(Malformed::Binary);
    }
    let mut at = 7;
    let mut field = |length: u8| {
        let from = at;
        at += usize::from(length);
        bytes.get(from..at).and_then(|field| std::str::from_utf8(field).ok()).ok_or(Malformed::Binary)
    };
    let join_ref = field(bytes[1])?;
    let reference = field(bytes[2])?;
    let topic = field(bytes[3])?;
    let event = field(bytes[4])?;
    let _metadata = field(bytes[5])?;
    let encoding = match bytes[6] {
        0 => Encoding::Binary,
        _ => Encoding::Json,
    };
    let data = bytes.slice(at..);
    // Goes on to others inside of JSON, so that it must be JSON.
    if encoding == Encoding::Json {
        serde_json::from_slice::<&RawValue>(&data)
            .map_err(|source| Malformed::Json { expected: "JSON as the payload of a broadcast", source })?;
    }
    Ok(Incoming {
        join_ref: Ref::text(join_ref),
        reference: Ref::text(reference),
        topic: Cow::Borrowed(topic),
        event: Cow::Borrowed("broadcast"),
        payload: Payload::User(UserBroadcast { event: event.into(), encoding, data }),
    })
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use rstest::rstest;

    use super::*;

    fn shown(message: &Incoming<'_>) -> String {
        let payload = match &message.payload {
            Payload::Json(json) => json.get().to_owned(),
            Payload::User(user) => format!("{} {:?} {:?}", user.event, user.encoding, user.data),
        };
        format!(
            "{} {} {} {} {payload}",
            message.join_ref.json(),
            message.reference.json(),
            message.topic,
            message.event
        )
    }

    #[rstest]
    #[case::object(
        Version::V1,
        r#"{"topic":"realtime:a","event":"phx_join","payload":{"x":1},"ref":"1","join_ref":"1"}"#,
        r#""1" "1" realtime:a phx_join {"x":1}"#
    )]
    #[case::old(
        Version::V1,
        r#"{"topic":"phoenix","event":"heartbeat","payload":{},"ref":7}"#,
        "null 7 phoenix heartbeat {}"
    )]
    #[case::escaped(
        Version::V1,
        r#"{"topic":"a\n\"b","event":"e","payload":null,"ref":null}"#,
        "null null a\n\"b e null"
    )]
    #[case::array(
        Version::V2,
        r#"["1","2","realtime:a","broadcast",{"type":"broadcast"}]"#,
        r#""1" "2" realtime:a broadcast {"type":"broadcast"}"#
    )]
    #[case::nothing(
        Version::V2,
        r#"[null,"3","phoenix","heartbeat",{}]"#,
        r#"null "3" phoenix heartbeat {}"#
    )]
    fn text_frames(#[case] version: Version, #[case] frame: &str, #[case] expected: &str) {
        assert_eq!(shown(&text(version, frame).unwrap()), expected);
    }

    #[rstest]
    #[case::not_json(Version::V1, "hello")]
    #[case::no_topic(Version::V1, r#"{"event":"e","payload":{},"ref":null}"#)]
    #[case::array_in_1(Version::V1, r#"[null,null,"t","e",{}]"#)]
    #[case::short(Version::V2, r#"[null,null,"t","e"]"#)]
    #[case::object_in_2(Version::V2, r#"{"topic":"a","event":"e","payload":{},"ref":null}"#)]
    fn what_is_not_the_protocol(#[case] version: Version, #[case] frame: &str) {
        assert!(text(version, frame).is_err());
    }

    #[test]
    fn broadcasts_of_users() {
        let mut frame = vec![3, 1, 2, 10, 2, 0, 1];
        frame.extend_from_slice(br#"112realtime:xev{"a":"b"}"#);
        let frame = Bytes::from(frame);
        let message = binary(Version::V2, &frame).unwrap();
        assert_eq!(shown(&message), r#""1" "12" realtime:x broadcast ev Json b"{\"a\":\"b\"}""#);
        assert!(binary(Version::V1, &frame).is_err());
        assert!(binary(Version::V2, &frame.slice(..12)).is_err());
    }

    proptest! {
        #[test]
        fn no_frame_panics(bytes in proptest::collection::vec(any::<u8>(), 0..64), frame in ".{0,64}") {
            let mut push = vec![3];
            push.extend_from_slice(&bytes);
            let _ = binary(Version::V2, &Bytes::from(push));
            let _ = text(Version::V1, &frame);
            let _ = text(Version::V2, &frame);
        }
    }
}
