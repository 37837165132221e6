//! Media Streams messages: text JSON in both directions, mu-law in base64.
//!
//! Source: Twilio, "Media Streams: WebSocket messages". Only `media`, `mark` and `clear` may be sent.

use std::borrow::Cow;
use std::collections::BTreeMap;
use std::fmt::Write as _;

use serde::Deserialize;

/// A message from Twilio.
#[derive(Debug, PartialEq)]
pub enum Incoming<'a> {
    /// The socket speaks Media Streams.
    Connected,
    /// The call's particulars; sent once.
    Start(Start),
    /// About 20 ms of the caller's voice.
    Media {
        /// Base64 mu-law, 8 kHz.
        payload: &'a str,
        /// Milliseconds since the stream began.
        timestamp_ms: u64,
    },
    /// A key was pressed.
    Dtmf {
        /// `0`–`9`, `*` or `#`.
        digit: char,
    },
    /// Our mark was reached, or flushed by a clear.
    Mark {
        /// The name we gave it.
        name: Cow<'a, str>,
    },
    /// The call has ended or left the stream. Nothing may be sent after it.
    Stop,
    /// An event we do not know; counted, not an error.
    Unknown(String),
}

/// The `start` message.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Start {
    /// `MZ…`: every message to Twilio names it.
    pub stream_sid: String,
    /// `CA…`: the call.
    pub call_sid: String,
    /// `AC…`: the account.
    pub account_sid: String,
    /// `<Parameter>`s of the TwiML.
    pub parameters: BTreeMap<String, String>,
    /// Whether the audio is mu-law, 8 kHz, mono, as bidirectional streams always are.
    pub is_ulaw_8k: bool,
}

/// A message that is not Media Streams JSON.
#[derive(Debug, thiserror::Error)]
#[error("not a Media Streams message: {0}")]
pub struct Malformed(String);

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Envelope<'a> {
    #[serde(borrow)]
    event: Cow<'a, str>,
    #[serde(borrow, default)]
    stream_sid: Option<Cow<'a, str>>,
    #[serde(borrow, default)]
    media: Option<Media<'a>>,
    #[serde(default)]
    start: Option<StartBody>,
    #[serde(borrow, default)]
    mark: Option<Mark<'a>>,
    #[serde(borrow, default)]
    dtmf: Option<Dtmf<'a>>,
}

#[derive(Deserialize)]
struct Media<'a> {
    #[serde(borrow)]
    payload: &'a str,
    #[serde(borrow, default)]
    timestamp: Option<Cow<'a, str>>,
    #[serde(borrow, default)]
    track: Option<Cow<'a, str>>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct StartBody {
    stream_sid: Option<String>,
    call_sid: String,
    #[serde(default)]
    account_sid: String,
    #[serde(default)]
    custom_parameters: BTreeMap<String, String>,
    media_format: Option<MediaFormat>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct MediaFormat {
    encoding: String,
    sample_rate: u32,
    channels: u32,
}

#[derive(Deserialize)]
struct Mark<'a> {
    #[serde(borrow)]
    name: Cow<'a, str>,
}

#[derive(Deserialize)]
struct Dtmf<'a> {
    #[serde(borrow)]
    digit: Cow<'a, str>,
}

/// Reads one message.
///
/// # Errors
/// [`Malformed`] when it is not JSON of the documented shape.
pub fn parse(text: &str) -> Result<Incoming<'_>, Malformed> {
    let envelope: Envelope<'_> = serde_json::from_str(text).map_err(|e| Malformed(e.to_string()))?;
    let missing = |what: &str| Malformed(format!("`{}` without `{what}`", envelope.event));
    Ok(match envelope.event.as_ref() {
        "media" => {
            let media = envelope.media.as_ref().ok_or_else(|| missing("media"))?;
            // Bidirectional streams carry only the caller; another track would be our own voice.
            if media.track.as_deref().is_some_and(|t| t != "inbound" && t != "inbound_track") {
                return Ok(Incoming::Unknown("media of another track".into()));
            }
            let timestamp_ms = media.timestamp.as_deref().and_then(|t| t.parse().ok()).unwrap_or(0);
            Incoming::Media { payload: media.payload, timestamp_ms }
        }
        "mark" => Incoming::Mark {
            name: envelope.mark.ok_or_else(|| Malformed("`mark` without `mark`".into()))?.name,
        },
        "start" => {
            let start = envelope.start.ok_or_else(|| Malformed("`start` without `start`".into()))?;
            let stream_sid = start
                .stream_sid
                .or_else(|| envelope.stream_sid.map(Cow::into_owned))
                .ok_or_else(|| Malformed("`start` without `streamSid`".into()))?;
            let is_ulaw_8k = start
                .media_format
                .is_none_or(|f| f.encoding == "audio/x-mulaw" && f.sample_rate == 8_000 && f.channels == 1);
            Incoming::Start(Start {
                stream_sid,
                call_sid: start.call_sid,
                account_sid: start.account_sid,
                parameters: start.custom_parameters,
                is_ulaw_8k,
            })
        }
        "stop" => Incoming::Stop,
        "connected" => Incoming::Connected,
        "dtmf" => {
            let digit = envelope.dtmf.as_ref().and_then(|d| d.digit.chars().next());
            Incoming::Dtmf { digit: digit.ok_or_else(|| missing("dtmf.digit"))? }
        }
        other => Incoming::Unknown(other.chars().take(64).collect()),
    })
}

/// Writes messages to one stream.
#[derive(Debug, Clone)]
pub struct Writer {
    /// `streamSid` as a JSON string, so that it is escaped once.
    stream_sid: String,
}

impl Writer {
    /// A writer for the stream that `start` announced.
    pub fn new(stream_sid: &str) -> Self {
        Self { stream_sid: serde_json::Value::from(stream_sid).to_string() }
    }

    /// Audio to play after what is already queued. `payload` is base64 mu-law without any header.
    pub fn media(&self, payload: &str) -> String {
        let mut text = String::with_capacity(payload.len() + self.stream_sid.len() + 56);
        text.push_str(r#"{"event":"media","streamSid":"#);
        text.push_str(&self.stream_sid);
        text.push_str(r#","media":{"payload":""#);
        text.push_str(payload);
        text.push_str(r#""}}"#);
        text
    }

    /// Asks to be told when everything queued so far has been played.
    pub fn mark(&self, id: u64) -> String {
        let mut text = String::with_capacity(self.stream_sid.len() + 64);
        // Writing to a String cannot fail.
        let _ =
            write!(text, r#"{{"event":"mark","streamSid":{},"mark":{{"name":"{id}"}}}}"#, self.stream_sid);
        text
    }

    /// Drops what is queued but not yet played.
    pub fn clear(&self) -> String {
        format!(r#"{{"event":"clear","streamSid":{}}}"#, self.stream_sid)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_every_documented_message() {
        assert_eq!(
            parse(r#"{"event":"connected","protocol":"Call","version":"1.0.0"}"#).unwrap(),
            Incoming::Connected
        );
        let start = parse(
            r#"{"event":"start","sequenceNumber":"1","start":{"accountSid":"AC1","streamSid":"MZ1","callSid":"CA1",
                "tracks":["inbound"],"mediaFormat":{"encoding":"audio/x-mulaw","sampleRate":8000,"channels":1},
                "customParameters":{"from":"+1555"}},"streamSid":"MZ1"}"#,
        )
        .unwrap();
        let Incoming::Start(start) = start else { panic!("{start:?}") };
        assert_eq!((start.stream_sid.as_str(), start.call_sid.as_str()), ("MZ1", "CA1"));
        assert_eq!(start.parameters["from"], "+1555");
        assert!(start.is_ulaw_8k);
        assert_eq!(
            parse(r#"{"event":"media","sequenceNumber":"4","media":{"track":"inbound","chunk":"2","timestamp":"40","payload":"//8="},"streamSid":"MZ1"}"#).unwrap(),
            Incoming::Media { payload: "//8=", timestamp_ms: 40 }
        );
        assert_eq!(
            parse(r#"{"event":"dtmf","streamSid":"MZ1","sequenceNumber":"5","dtmf":{"track":"inbound_track","digit":"0"}}"#).unwrap(),
            Incoming::Dtmf { digit: '0' }
        );
        assert_eq!(
            parse(r#"{"event":"mark","sequenceNumber":"4","streamSid":"MZ1","mark":{"name":"7"}}"#).unwrap(),
            Incoming::Mark { name: "7".into() }
        );
        assert_eq!(
            parse(r#"{"event":"stop","sequenceNumber":"5","stop":{"accountSid":"AC1","callSid":"CA1"},"streamSid":"MZ1"}"#).unwrap(),
            Incoming::Stop
        );
        assert_eq!(parse(r#"{"event":"future"}"#).unwrap(), Incoming::Unknown("future".into()));
    }

    #[test]
    fn malformed_messages_are_refused() {
        for text in [
            "",
            "[]",
            "nonsense",
            r#"{"event":"media"}"#,
            r#"{"event":"start","start":{}}"#,
            r#"{"event":1}"#,
        ] {
            assert!(parse(text).is_err(), "{text}");
        }
    }

    /// B4: extra fields or other events end the stream, so the output is pinned to the letter.
    #[test]
    fn writes_exactly_the_documented_fields() {
        let writer = Writer::new("MZ\"1");
        assert_eq!(
            writer.media("AAAA"),
            r#"{"event":"media","streamSid":"MZ\"1","media":{"payload":"AAAA"}}"#
        );
        assert_eq!(writer.mark(12), r#"{"event":"mark","streamSid":"MZ\"1","mark":{"name":"12"}}"#);
        assert_eq!(writer.clear(), r#"{"event":"clear","streamSid":"MZ\"1"}"#);
    }
}
