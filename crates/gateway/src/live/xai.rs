//! xAI voice sessions (`/v1/realtime`): `OpenAI`'s protocol with differences of its own.
//!
//! Turn detection and the voice stand at the top of the session rather than within `audio`; PCM of any rate between 8
//! and 48 kHz; transcripts of the caller come as all words so far; the server pings within the protocol; no responses
//! beside the conversation. Sources: `../shared/specs/voice.md` §3.6 and the vendor's guide "Grok Voice Agent API".

use async_trait::async_trait;
use serde_json::{Value, json};

use super::openai::{Flavour, Realtime, commands};
use super::session::{Session, SessionCapabilities, SessionRequest, SpeechToSpeech};
use super::socket::Dialer;
use crate::Error;
use crate::live::openai::{bearer, permitted, realtime_url};
use crate::providers::Attempt;
use crate::providers::openai::explain;

/// The adapter.
#[derive(Debug, Clone)]
pub struct XaiLive {
    dialer: Dialer,
}

impl XaiLive {
    /// Over these sockets.
    #[must_use]
    pub fn new(dialer: Dialer) -> Self {
        Self { dialer }
    }
}

/// `session.update` in xAI's shape.
pub(super) fn configuration(request: &SessionRequest) -> Value {
    let mut event = commands::configuration(request);
    let session = &mut event["session"];
    let detection = session["audio"]["input"]["turn_detection"].take();
    let voice = session["audio"]["output"]["voice"].take();
    if let Some(input) = session["audio"]["input"].as_object_mut() {
        input.remove("turn_detection");
        // The vendor writes down what it hears without being asked.
        input.remove("transcription");
    }
    if let Some(output) = session["audio"]["output"].as_object_mut() {
        output.remove("voice");
    }
    if let Some(session) = session.as_object_mut() {
        session.remove("type");
        session.remove("output_modalities");
        session.remove("tool_choice");
        session.insert("turn_detection".into(), plain(detection));
        if voice.is_string() {
            session.insert("voice".into(), voice);
        }
        if let Some(id) = &request.resume {
            session.insert("resumption".into(), json!({ "enabled": true, "conversation_id": id }));
        }
    }
    event
}

/// Only what the vendor knows of turn detection.
fn plain(mut detection: Value) -> Value {
    if let Some(fields) = detection.as_object_mut() {
        fields.retain(|name, _| {
            matches!(name.as_str(), "type" | "threshold" | "prefix_padding_ms" | "silence_duration_ms")
        });
        fields.insert("type".into(), "server_vad".into());
    }
    detection
}

#[async_trait]
impl SpeechToSpeech for XaiLive {
    fn capabilities(&self, _: &str) -> SessionCapabilities {
        SessionCapabilities {
            input_rates: RATES,
            output_rates: RATES,
            g711: true,
            truncate: false,
            cancel: true,
            aside: false,
            respond_with: true,
            instructions: true,
            tool_history: true,
            manual_turns: true,
            idle_timeout: false,
            answers_tools: false,
            resumable: true,
        }
    }

    async fn converse(&self, request: &SessionRequest, attempt: &Attempt) -> Result<Session, Error> {
        permitted(request, &self.capabilities(&attempt.model), attempt)?;
        let dialect = Realtime::flavoured(request.clone(), Flavour::Xai);
        self.dialer.open(realtime_url(attempt), bearer(attempt)?, attempt, explain, dialect).await
    }
}

const RATES: &[u32] = &[8_000, 16_000, 22_050, 24_000, 32_000, 44_100, 48_000];

#[cfg(test)]
mod tests {
    use super::*;
    use crate::live::Encoding;

    #[test]
    fn the_session_has_the_vendors_shape() {
        let mut request = SessionRequest::new("Be kind.", Encoding::Mulaw);
        request.voice = Some("ara".into());
        let session = configuration(&request)["session"].clone();
        assert_eq!(session["voice"], "ara");
        assert_eq!(session["turn_detection"]["type"], "server_vad");
        assert_eq!(session["audio"]["input"], json!({ "format": { "type": "audio/pcmu" } }));
        assert!(session["turn_detection"].get("create_response").is_none());
    }
}
