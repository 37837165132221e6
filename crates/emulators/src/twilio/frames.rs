//! Media Streams messages: builders for what Twilio sends, a strict parser for what it accepts.

use std::borrow::Cow;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde::Deserialize;
use serde_json::{Map, Value, json};

use super::twiml::Problem;

/// `connected`, the first message of a stream.
pub fn connected() -> String {
    json!({"event": "connected", "protocol": "Call", "version": "1.0.0"}).to_string()
}

/// What a `start` message names.
#[derive(Debug, Clone)]
pub struct Start {
    /// `MZ` and 32 hexadecimal digits.
    pub stream_sid: String,
    /// `CA` and 32 hexadecimal digits.
    pub call_sid: String,
    /// `AC` and 32 hexadecimal digits.
    pub account_sid: String,
    /// The `<Parameter>`s of the TwiML.
    pub parameters: Vec<(String, String)>,
}

/// `start`, the second message; its sequence number is always 1.
pub fn start(start: &Start) -> String {
    let parameters: Map<String, Value> =
        start.parameters.iter().map(|(n, v)| (n.clone(), Value::String(v.clone()))).collect();
    json!({
        "event": "start",
        "sequenceNumber": "1",
        "streamSid": start.stream_sid,
        "start": {
            "accountSid": start.account_sid,
            "streamSid": start.stream_sid,
            "callSid": start.call_sid,
            "tracks": ["inbound"],
            "mediaFormat": {"encoding": "audio/x-mulaw", "sampleRate": 8000, "channels": 1},
            "customParameters": parameters,
        },
    })
    .to_string()
}

/// `media`: mu-law audio of the caller; `chunk` counts from 1, `timestamp_ms` from the stream's start.
pub fn media(stream_sid: &str, sequence: u32, chunk: u32, timestamp_ms: u32, ulaw: &[u8]) -> String {
    // Written by hand: fifty times a second per call, and no value needs escaping.
    format!(
        "{{\"event\":\"media\",\"sequenceNumber\":\"{sequence}\",\"media\":{{\"track\":\"inbound\",\
         \"chunk\":\"{chunk}\",\"timestamp\":\"{timestamp_ms}\",\"payload\":\"{}\"}},\
         \"streamSid\":\"{stream_sid}\"}}",
        STANDARD.encode(ulaw)
    )
}

/// `dtmf`: the caller pressed a key.
pub fn dtmf(stream_sid: &str, sequence: u32, digit: char) -> String {
    json!({
        "event": "dtmf",
        "streamSid": stream_sid,
        "sequenceNumber": sequence.to_string(),
        "dtmf": {"track": "inbound_track", "digit": digit.to_string()},
    })
    .to_string()
}

/// `mark`: the far side's mark was reached, or flushed by `clear`.
pub fn mark(stream_sid: &str, sequence: u32, name: &str) -> String {
    json!({
        "event": "mark",
        "streamSid": stream_sid,
        "sequenceNumber": sequence.to_string(),
        "mark": {"name": name},
    })
    .to_string()
}

/// `stop`: the call has ended, or left the stream.
pub fn stop(stream_sid: &str, sequence: u32, account_sid: &str, call_sid: &str) -> String {
    json!({
        "event": "stop",
        "streamSid": stream_sid,
        "sequenceNumber": sequence.to_string(),
        "stop": {"accountSid": account_sid, "callSid": call_sid},
    })
    .to_string()
}

/// A message that Twilio accepts.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum FromServer {
    Media(Vec<u8>),
    Mark(String),
    Clear,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Envelope<'a> {
    #[serde(borrow)]
    event: Cow<'a, str>,
    #[serde(borrow, rename = "streamSid")]
    stream_sid: Cow<'a, str>,
    #[serde(borrow)]
    media: Option<Media<'a>>,
    mark: Option<Mark>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Media<'a> {
    #[serde(borrow)]
    payload: Cow<'a, str>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Mark {
    name: String,
}

/// Parses one text message from the server, with exactly the documented fields.
///
/// 31951: not a valid message; 31924: not one of the three messages.
pub(crate) fn parse(text: &str, stream_sid: &str) -> Result<FromServer, Problem> {
    let invalid = |message: String| Problem::new(31951, message);
    let envelope: Envelope<'_> = serde_json::from_str(text).map_err(|error| {
        let event = serde_json::from_str::<Value>(text)
            .ok()
            .and_then(|value| value.get("event").and_then(Value::as_str).map(str::to_owned));
        match event {
            Some(event) if !["media", "mark", "clear"].contains(&event.as_str()) => unknown(&event),
            _ => invalid(format!("the message is not valid ({error})")),
        }
    })?;
    if envelope.stream_sid != stream_sid {
        return Err(invalid(format!(
            "streamSid is {:?}, this stream is {stream_sid}: use the one of the start message",
            envelope.stream_sid
        )));
    }
    match (envelope.event.as_ref(), envelope.media, envelope.mark) {
        ("media", Some(media), None) => {
            let audio = STANDARD
                .decode(media.payload.as_bytes())
                .map_err(|e| invalid(format!("media.payload is not standard base64 ({e})")))?;
            if audio.is_empty() {
                return Err(invalid("media.payload is empty".to_owned()));
            }
            if audio.starts_with(b"RIFF") {
                return Err(invalid("media.payload has a file header: send bare mu-law".to_owned()));
            }
            Ok(FromServer::Media(audio))
        }
        ("mark", None, Some(mark)) => Ok(FromServer::Mark(mark.name)),
        ("clear", None, None) => Ok(FromServer::Clear),
        ("media" | "mark" | "clear", _, _) => {
            Err(invalid(format!("{} has missing or foreign fields", envelope.event)))
        }
        (other, _, _) => Err(unknown(other)),
    }
}

fn unknown(event: &str) -> Problem {
    let event: String = event.chars().take(40).collect();
    Problem::new(31924, format!("event {event:?} is not one of media, mark and clear"))
}

#[cfg(test)]
mod tests {
    use rstest::rstest;

    use super::*;

    #[test]
    fn accepts_the_three_messages() {
        let sid = "MZ1";
        let media = r#"{"event":"media","streamSid":"MZ1","media":{"payload":"//8A"}}"#;
        assert_eq!(parse(media, sid), Ok(FromServer::Media(vec![255, 255, 0])));
        let mark = r#"{"event":"mark","streamSid":"MZ1","mark":{"name":"a\"b"}}"#;
        assert_eq!(parse(mark, sid), Ok(FromServer::Mark("a\"b".into())));
        assert_eq!(parse(r#"{"event":"clear","streamSid":"MZ1"}"#, sid), Ok(FromServer::Clear));
    }

    #[rstest]
    #[case("nonsense", 31951)]
    #[case("[]", 31951)]
    #[case(r#"{"event":"clear"}"#, 31951)]
    #[case(r#"{"event":"clear","streamSid":"MZ2"}"#, 31951)]
    #[case(r#"{"event":"clear","streamSid":"MZ1","x":1}"#, 31951)]
    #[case(r#"{"event":"clear","streamSid":"MZ1","mark":{"name":"a"}}"#, 31951)]
    #[case(r#"{"event":"media","streamSid":"MZ1","media":{"payload":"/w=="},"sequenceNumber":"1"}"#, 31951)]
    #[case(r#"{"event":"media","streamSid":"MZ1","media":{"payload":"/w==","track":"outbound"}}"#, 31951)]
    #[case(r#"{"event":"media","streamSid":"MZ1","media":{"payload":"/w"}}"#, 31951)]
    #[case(r#"{"event":"media","streamSid":"MZ1","media":{"payload":""}}"#, 31951)]
    #[case(r#"{"event":"media","streamSid":"MZ1","media":{"payload":"UklGRgAA"}}"#, 31951)]
    #[case(r#"{"event":"media","streamSid":"MZ1"}"#, 31951)]
    #[case(r#"{"event":"mark","streamSid":"MZ1","mark":{"name":7}}"#, 31951)]
    #[case(r#"{"event":"mark","streamSid":"MZ1","mark":{}}"#, 31951)]
    #[case(r#"{"event":"stop","streamSid":"MZ1"}"#, 31924)]
    #[case(r#"{"event":"hangup","reason":"bye"}"#, 31924)]
    fn refuses(#[case] text: &str, #[case] code: u32) {
        assert_eq!(parse(text, "MZ1").unwrap_err().code, code);
    }

    #[test]
    fn numbers_travel_as_strings() {
        let message: Value = serde_json::from_str(&media("MZ1", 3, 2, 20, &[0xFF; 160])).unwrap();
        assert_eq!(message["sequenceNumber"], "3");
        assert_eq!(message["media"]["chunk"], "2");
        assert_eq!(message["media"]["timestamp"], "20");
        assert_eq!(message["media"]["payload"].as_str().unwrap().len(), 216);
    }
}
