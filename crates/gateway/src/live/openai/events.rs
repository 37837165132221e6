//! Server events, reduced to what a session acts on.

use std::borrow::Cow;

use serde::Deserialize;
use serde_json::value::RawValue;

use super::commands::SUMMARY_PURPOSE;

/// An error as the API reports it.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
pub struct ApiError {
    /// Class, e.g. `invalid_request_error`.
    #[serde(rename = "type", default)]
    pub kind: String,
    /// Code, e.g. `session_expired`.
    #[serde(default, deserialize_with = "null_as_empty")]
    pub code: String,
    /// Text for people.
    #[serde(default)]
    pub message: String,
    /// The client event that caused it; empty when the server's own doing did.
    #[serde(default, deserialize_with = "null_as_empty")]
    pub event_id: String,
}

impl ApiError {
    /// Whether the account or the request makes every further attempt pointless.
    pub fn is_fatal(&self) -> bool {
        matches!(
            self.code.as_str(),
            "insufficient_quota"
                | "invalid_api_key"
                | "account_deactivated"
                | "billing_hard_limit_reached"
                | "beta_api_shape_disabled"
                | "model_not_found"
        )
    }

    /// Whether the session itself is over.
    pub fn ends_session(&self) -> bool {
        self.code == "session_expired"
    }
}

/// How a response ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ResponseStatus {
    /// Said in full.
    Completed,
    /// Stopped by the caller's speech or by us.
    Cancelled,
    /// Stopped by a limit.
    Incomplete,
    /// The model failed.
    Failed,
}

/// A server event that matters to a session.
#[derive(Debug, PartialEq)]
pub enum ServerEvent<'a> {
    /// The session exists.
    SessionCreated {
        /// When it will be ended, Unix seconds.
        expires_at: Option<u64>,
    },
    /// Our configuration holds.
    SessionUpdated,
    /// The caller began to speak.
    SpeechStarted {
        /// Item that will hold the speech.
        item_id: Cow<'a, str>,
    },
    /// The caller stopped speaking.
    SpeechStopped,
    /// The caller's speech became an item.
    Committed {
        /// Its id.
        item_id: Cow<'a, str>,
    },
    /// The caller said nothing for the idle timeout.
    IdleTimeout,
    /// What the caller said, often late.
    CallerTranscript {
        /// Item it belongs to.
        item_id: Cow<'a, str>,
        /// The words; `None` when transcription failed.
        text: Option<Cow<'a, str>>,
    },
    /// What the caller said, as it is written down.
    CallerTranscriptDelta {
        /// Item it belongs to.
        item_id: Cow<'a, str>,
        /// The words, or what follows those before.
        text: Cow<'a, str>,
        /// Whether these are all words so far, as xAI sends them.
        is_whole: bool,
    },
    /// A response has begun.
    ResponseCreated {
        /// Its id.
        response_id: String,
        /// Whether it is the written summary rather than speech.
        is_summary: bool,
    },
    /// Audio of a response.
    Audio {
        /// Response it belongs to.
        response_id: Cow<'a, str>,
        /// Item it belongs to.
        item_id: Cow<'a, str>,
        /// Base64 in the session's output format.
        payload: &'a str,
    },
    /// An item's audio is complete.
    AudioDone {
        /// The item.
        item_id: Cow<'a, str>,
    },
    /// Words of a response, ahead of or beside their audio.
    AgentTranscript {
        /// Response they belong to.
        response_id: Cow<'a, str>,
        /// Item they belong to.
        item_id: Cow<'a, str>,
        /// Next piece of text.
        text: Cow<'a, str>,
    },
    /// The model wants a function run; arguments are complete.
    FunctionCall {
        /// Response it belongs to.
        response_id: Cow<'a, str>,
        /// Id for the output.
        call_id: Cow<'a, str>,
        /// Function name.
        name: Cow<'a, str>,
        /// JSON text, not checked.
        arguments: Cow<'a, str>,
    },
    /// A response has ended.
    ResponseDone {
        /// Its id.
        response_id: String,
        /// How.
        status: ResponseStatus,
        /// The text, when it was the written summary.
        summary: Option<String>,
        /// Why it failed, as far as said.
        failure: Option<ApiError>,
    },
    /// Something went wrong; most errors leave the session usable.
    Error(ApiError),
    /// Known and without meaning for us.
    Ignored,
    /// Not known; counted.
    Unknown(String),
}

/// A message that is no server event.
#[derive(Debug, thiserror::Error)]
#[error("not a realtime server event: {0}")]
pub struct Malformed(String);

#[derive(Deserialize)]
struct Envelope<'a> {
    #[serde(borrow, rename = "type")]
    kind: Cow<'a, str>,
    #[serde(borrow, default)]
    item_id: Option<Cow<'a, str>>,
    #[serde(borrow, default)]
    response_id: Option<Cow<'a, str>>,
    #[serde(borrow, default)]
    delta: Option<&'a RawValue>,
    #[serde(borrow, default)]
    transcript: Option<Cow<'a, str>>,
    #[serde(borrow, default)]
    call_id: Option<Cow<'a, str>>,
    #[serde(borrow, default)]
    name: Option<Cow<'a, str>>,
    #[serde(borrow, default)]
    arguments: Option<Cow<'a, str>>,
    #[serde(borrow, default)]
    session: Option<&'a RawValue>,
    #[serde(borrow, default)]
    response: Option<&'a RawValue>,
    #[serde(default)]
    error: Option<ApiError>,
}

#[derive(Deserialize)]
struct SessionBody {
    expires_at: Option<u64>,
}

#[derive(Deserialize)]
struct ResponseBody {
    id: String,
    #[serde(default)]
    status: String,
    #[serde(default)]
    status_details: Option<StatusDetails>,
    #[serde(default)]
    metadata: Option<serde_json::Map<String, serde_json::Value>>,
    #[serde(default)]
    output: Vec<OutputItem>,
}

#[derive(Deserialize)]
struct StatusDetails {
    #[serde(default)]
    reason: Option<String>,
    #[serde(default)]
    error: Option<ApiError>,
}

#[derive(Deserialize)]
struct OutputItem {
    #[serde(default)]
    content: Vec<OutputPart>,
}

#[derive(Deserialize)]
struct OutputPart {
    #[serde(default)]
    text: Option<String>,
}

impl ResponseBody {
    fn is_summary(&self) -> bool {
        self.metadata
            .as_ref()
            .and_then(|m| m.get("purpose"))
            .is_some_and(|purpose| purpose == SUMMARY_PURPOSE)
    }
}

fn null_as_empty<'de, D: serde::Deserializer<'de>>(deserializer: D) -> Result<String, D::Error> {
    Ok(Option::<String>::deserialize(deserializer)?.unwrap_or_default())
}

/// Reads one server event.
///
/// # Errors
/// [`Malformed`] when it is not JSON or lacks a field its type must have.
pub fn parse(text: &str) -> Result<ServerEvent<'_>, Malformed> {
    let event: Envelope<'_> = serde_json::from_str(text).map_err(|e| Malformed(e.to_string()))?;
    let missing = || Malformed(format!("`{}` lacks a field", event.kind));
    macro_rules! need {
        ($field:ident) => {
            event.$field.clone().ok_or_else(missing)?
        };
    }
    Ok(match event.kind.as_ref() {
        // The second name is the beta's, still used by compatible servers.
        "response.output_audio.delta" | "response.audio.delta" => {
            let raw = event.delta.ok_or_else(missing)?.get();
            // Base64 never needs JSON escapes, so the text between the quotes is the payload.
            let payload = raw.strip_prefix('"').and_then(|r| r.strip_suffix('"')).ok_or_else(missing)?;
            if payload.contains('\\') {
                return Err(Malformed("audio is not plain base64".into()));
            }
            ServerEvent::Audio { response_id: need!(response_id), item_id: need!(item_id), payload }
        }
        "response.output_audio_transcript.delta" | "response.audio_transcript.delta" => {
            ServerEvent::AgentTranscript {
                response_id: need!(response_id),
                item_id: need!(item_id),
                text: text_of(event.delta).ok_or_else(missing)?,
            }
        }
        "response.output_audio.done" | "response.audio.done" => {
            ServerEvent::AudioDone { item_id: need!(item_id) }
        }
        "input_audio_buffer.speech_started" => ServerEvent::SpeechStarted { item_id: need!(item_id) },
        "input_audio_buffer.speech_stopped" => ServerEvent::SpeechStopped,
        "input_audio_buffer.committed" => ServerEvent::Committed { item_id: need!(item_id) },
        "input_audio_buffer.timeout_triggered" => ServerEvent::IdleTimeout,
        "conversation.item.input_audio_transcription.completed" => {
            ServerEvent::CallerTranscript { item_id: need!(item_id), text: Some(need!(transcript)) }
        }
        "conversation.item.input_audio_transcription.delta" => ServerEvent::CallerTranscriptDelta {
            item_id: need!(item_id),
            text: text_of(event.delta).unwrap_or_default(),
            is_whole: false,
        },
        "conversation.item.input_audio_transcription.updated" => ServerEvent::CallerTranscriptDelta {
            item_id: need!(item_id),
            text: need!(transcript),
            is_whole: true,
        },
        "conversation.item.input_audio_transcription.failed" => {
            ServerEvent::CallerTranscript { item_id: need!(item_id), text: None }
        }
        "response.function_call_arguments.done" => ServerEvent::FunctionCall {
            response_id: need!(response_id),
            call_id: need!(call_id),
            name: need!(name),
            arguments: need!(arguments),
        },
        "session.created" => {
            let session: Option<SessionBody> = event.session.and_then(|s| serde_json::from_str(s.get()).ok());
            ServerEvent::SessionCreated { expires_at: session.and_then(|s| s.expires_at) }
        }
        "session.updated" => ServerEvent::SessionUpdated,
        "response.created" => {
            let body = response_body(event.response)?;
            ServerEvent::ResponseCreated { is_summary: body.is_summary(), response_id: body.id }
        }
        "response.done" => {
            let body = response_body(event.response)?;
            let status = match body.status.as_str() {
                "completed" => ResponseStatus::Completed,
                "cancelled" => ResponseStatus::Cancelled,
                "incomplete" => ResponseStatus::Incomplete,
                _ => ResponseStatus::Failed,
            };
            let summary = body.is_summary().then(|| {
                body.output
                    .iter()
                    .flat_map(|o| &o.content)
                    .filter_map(|c| c.text.as_deref())
                    .collect::<String>()
            });
            let failure = body.status_details.and_then(|d| {
                let reason = |message| ApiError {
                    kind: String::new(),
                    code: String::new(),
                    message,
                    event_id: String::new(),
                };
                d.error.or(d.reason.map(reason))
            });
            ServerEvent::ResponseDone { response_id: body.id, status, summary, failure }
        }
        "error" => {
            ServerEvent::Error(event.error.ok_or_else(|| Malformed("`error` without `error`".into()))?)
        }
        kind if is_known(kind) => ServerEvent::Ignored,
        other => ServerEvent::Unknown(other.chars().take(80).collect()),
    })
}

fn response_body(raw: Option<&RawValue>) -> Result<ResponseBody, Malformed> {
    let raw = raw.ok_or_else(|| Malformed("response event without `response`".into()))?;
    serde_json::from_str(raw.get()).map_err(|e| Malformed(e.to_string()))
}

fn text_of(raw: Option<&RawValue>) -> Option<Cow<'_, str>> {
    let raw = raw?.get();
    match raw.strip_prefix('"').and_then(|r| r.strip_suffix('"')) {
        Some(plain) if !plain.contains('\\') => Some(Cow::Borrowed(plain)),
        _ => serde_json::from_str::<String>(raw).ok().map(Cow::Owned),
    }
}

fn is_known(kind: &str) -> bool {
    const FAMILIES: [&str; 7] = [
        "conversation.item.",
        "response.output_item.",
        "response.content_part.",
        "response.output_audio_transcript.",
        "response.output_text.",
        "response.mcp_",
        "mcp_list_tools.",
    ];
    const OTHERS: [&str; 8] = [
        "ping",
        "conversation.updated",
        "conversation.created",
        "input_audio_buffer.cleared",
        "input_audio_buffer.dtmf_event_received",
        "response.function_call_arguments.delta",
        "response.audio_transcript.done",
        "rate_limits.updated",
    ];
    OTHERS.contains(&kind) || FAMILIES.iter().any(|family| kind.starts_with(family))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_audio_and_words() {
        let event = parse(r#"{"type":"response.output_audio.delta","event_id":"e","response_id":"r1","item_id":"i1","output_index":0,"content_index":0,"delta":"/+8="}"#).unwrap();
        assert_eq!(
            event,
            ServerEvent::Audio { response_id: "r1".into(), item_id: "i1".into(), payload: "/+8=" }
        );
        let event = parse(r#"{"type":"response.output_audio_transcript.delta","response_id":"r1","item_id":"i1","delta":"say \"hi\"\u00e9"}"#).unwrap();
        assert_eq!(
            event,
            ServerEvent::AgentTranscript {
                response_id: "r1".into(),
                item_id: "i1".into(),
                text: "say \"hi\"é".into()
            }
        );
    }

    /// B12: the names of function-call events are exactly these.
    #[test]
    fn function_calls_have_their_exact_name() {
        let event = parse(r#"{"type":"response.function_call_arguments.done","response_id":"r","item_id":"i","call_id":"c","name":"f","arguments":"{}"}"#).unwrap();
        assert!(matches!(event, ServerEvent::FunctionCall { .. }));
        let event = parse(r#"{"type":"response.function_call.arguments.done","response_id":"r"}"#).unwrap();
        assert_eq!(event, ServerEvent::Unknown("response.function_call.arguments.done".into()));
    }

    #[test]
    fn errors_may_have_no_code() {
        let event = parse(
            r#"{"type":"error","error":{"type":"server_error","code":null,"message":"m","param":null}}"#,
        )
        .unwrap();
        let ServerEvent::Error(error) = event else { panic!() };
        assert!(!error.is_fatal() && error.code.is_empty());
    }

    #[test]
    fn a_summary_is_recognised_by_its_metadata() {
        let event = parse(
            r#"{"type":"response.done","response":{"id":"r","status":"completed","metadata":{"purpose":"handover-summary"},
                "output":[{"type":"message","content":[{"type":"output_text","text":"Asked for prices."}]}]}}"#,
        )
        .unwrap();
        let ServerEvent::ResponseDone { summary, .. } = event else { panic!() };
        assert_eq!(summary.as_deref(), Some("Asked for prices."));
    }
}
