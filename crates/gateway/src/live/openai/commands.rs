//! Client events, in today's field names.

use std::time::Duration;

use serde_json::{Value, json};

use super::super::Encoding;
use super::super::session::{HistoryItem, SessionRequest, Turns};
use crate::chat::Tool;

/// A function that the model may call.
#[derive(Debug, Clone, PartialEq)]
pub struct ToolSpec {
    /// Name, `[a-zA-Z0-9_-]{1,64}`.
    pub name: &'static str,
    /// When and why to call it, for the model.
    pub description: String,
    /// JSON schema of the arguments.
    pub parameters: Value,
}

/// What a session is told to be.
#[derive(Debug, Clone, PartialEq)]
pub struct SessionShape {
    /// System prompt.
    pub instructions: String,
    /// Voice name; fixed after the first audio.
    pub voice: String,
    /// Model that writes down the caller's words.
    pub transcription_model: String,
    /// Language of the call as ISO 639-1, if known.
    pub language: Option<String>,
    /// Functions the model may call.
    pub tools: Vec<ToolSpec>,
    /// Silence after which the server reports a timeout and speaks, in milliseconds (the vendor takes 5000–30000).
    pub idle_timeout_ms: Option<u32>,
}

/// A client event. [`Command::to_json`] gives its text.
#[derive(Debug, Clone, PartialEq)]
pub enum Command<'a> {
    /// Configures the session; sent once after `session.created`.
    Configure(&'a SessionShape),
    /// Caller audio, base64 mu-law. No acknowledgement.
    Append(&'a str),
    /// Puts an earlier item into the conversation.
    History(&'a HistoryItem),
    /// Result of a function call.
    ToolOutput {
        /// The call's id.
        call_id: &'a str,
        /// JSON text.
        output: &'a str,
    },
    /// The caller wrote something.
    Text(&'a str),
    /// The caller has spoken, where the session does not find out itself.
    Commit,
    /// What was heard and not committed is forgotten.
    Clear,
    /// The instructions are these from now on.
    Instructions(&'a str),
    /// Asks for a response from the conversation as it stands.
    Respond,
    /// Asks for a response with instructions of its own and without tools.
    RespondWith(&'a str),
    /// Asks for a written summary beside the conversation.
    Summarise(&'a str),
    /// Cuts the agent's item to what was heard.
    Truncate {
        /// The assistant item.
        item_id: &'a str,
        /// Milliseconds of audio that the caller heard.
        audio_end_ms: u64,
    },
    /// Stops the current response.
    Cancel,
}

/// Metadata value by which the answer to [`Command::Summarise`] is recognised.
pub(super) const SUMMARY_PURPOSE: &str = "handover-summary";

/// Writes down the caller's words where the request does not say who should.
const TRANSCRIBER: &str = "gpt-transcribe";

/// How an event is named, so that an error tells which one caused it.
#[must_use]
pub fn event_id(number: u64) -> String {
    format!("lh{number}")
}

const APPEND: &str = r#"{"type":"input_audio_buffer.append","audio":""#;

impl Command<'_> {
    /// Whether a message is caller audio, which may be dropped when an upstream does not keep up.
    pub fn is_audio(message: &str) -> bool {
        message.starts_with(APPEND)
    }

    /// The event as JSON text. `event_id` comes back in an error that this event causes.
    pub fn to_json(&self, event_id: u64) -> String {
        if let Self::Append(payload) = self {
            // The hot path: fifty a second and call, so by hand. Base64 needs no escaping.
            let mut text = String::with_capacity(payload.len() + 56);
            text.push_str(APPEND);
            text.push_str(payload);
            text.push_str(r#""}"#);
            return text;
        }
        let mut event = match self {
            Self::Append(_) => unreachable!("handled above"),
            Self::Configure(shape) => configuration(&shape.request()),
            Self::History(item) => history(item),
            Self::ToolOutput { call_id, output } => json!({
                "type": "conversation.item.create",
                "item": { "type": "function_call_output", "call_id": call_id, "output": output },
            }),
            Self::Text(text) => history(&HistoryItem::Caller((*text).to_owned())),
            Self::Commit => json!({ "type": "input_audio_buffer.commit" }),
            Self::Clear => json!({ "type": "input_audio_buffer.clear" }),
            Self::Instructions(text) => {
                json!({ "type": "session.update", "session": { "type": "realtime", "instructions": text } })
            }
            Self::Respond => json!({ "type": "response.create" }),
            Self::RespondWith(instructions) => json!({
                "type": "response.create",
                "response": { "instructions": instructions, "tool_choice": "none" },
            }),
            Self::Summarise(instructions) => json!({
                "type": "response.create",
                "response": {
                    "conversation": "none",
                    "output_modalities": ["text"],
                    "instructions": instructions,
                    "tool_choice": "none",
                    "metadata": { "purpose": SUMMARY_PURPOSE },
                },
            }),
            Self::Truncate { item_id, audio_end_ms } => json!({
                "type": "conversation.item.truncate",
                "item_id": item_id,
                "content_index": 0,
                "audio_end_ms": audio_end_ms,
            }),
            Self::Cancel => json!({ "type": "response.cancel" }),
        };
        event["event_id"] = json!(self::event_id(event_id));
        event.to_string()
    }
}

impl SessionShape {
    fn request(&self) -> SessionRequest {
        let tool = |tool: &ToolSpec| Tool {
            name: tool.name.to_owned(),
            description: tool.description.clone(),
            parameters: tool.parameters.clone(),
            strict: false,
        };
        SessionRequest {
            voice: Some(self.voice.clone()),
            language: self.language.clone(),
            tools: self.tools.iter().map(tool).collect(),
            transcription_model: Some(self.transcription_model.clone()),
            turns: Turns::Silence { threshold: Some(0.5), silence: Some(Duration::from_millis(500)) },
            idle_timeout: self.idle_timeout_ms.map(|ms| Duration::from_millis(ms.into())),
            ..SessionRequest::new(&self.instructions, Encoding::Mulaw)
        }
    }
}

pub(super) fn format(encoding: Encoding) -> Value {
    match encoding {
        Encoding::Pcm16(rate) => json!({ "type": "audio/pcm", "rate": rate }),
        Encoding::Mulaw => json!({ "type": "audio/pcmu" }),
        Encoding::Alaw => json!({ "type": "audio/pcma" }),
    }
}

/// `session.update` of a whole session.
pub(in crate::live) fn configuration(request: &SessionRequest) -> Value {
    let mut transcription = json!({ "model": request.transcription_model.as_deref().unwrap_or(TRANSCRIBER) });
    if let Some(language) = &request.language {
        transcription["language"] = json!(language);
    }
    let mut output = json!({ "format": format(request.output) });
    if let Some(voice) = &request.voice {
        output["voice"] = json!(voice);
    }
    let tools: Vec<Value> = request
        .tools
        .iter()
        .map(|tool| {
            json!({ "type": "function", "name": tool.name, "description": tool.description, "parameters": tool.parameters })
        })
        .collect();
    json!({
        "type": "session.update",
        "session": {
            "type": "realtime",
            "output_modalities": ["audio"],
            "instructions": request.instructions,
            "tools": tools,
            "tool_choice": "auto",
            "audio": {
                "input": {
                    "format": format(request.input),
                    "transcription": transcription,
                    "turn_detection": turn_detection(request),
                },
                "output": output,
            },
        },
    })
}

fn turn_detection(request: &SessionRequest) -> Value {
    let mut detection = match request.turns {
        Turns::Manual => return Value::Null,
        Turns::Meaning => json!({ "type": "semantic_vad" }),
        Turns::Silence { threshold, silence } => json!({
            "type": "server_vad",
            "threshold": threshold.unwrap_or(0.5),
            "prefix_padding_ms": 300,
            "silence_duration_ms": silence.map_or(500, |silence| silence.as_millis() as u64),
        }),
    };
    detection["create_response"] = json!(true);
    detection["interrupt_response"] = json!(true);
    if let (Some(idle), Turns::Silence { .. }) = (request.idle_timeout, request.turns) {
        detection["idle_timeout_ms"] = json!(idle.as_millis() as u64);
    }
    detection
}

fn history(item: &HistoryItem) -> Value {
    let message = |role: &str, kind: &str, text: &str| json!({ "type": "message", "role": role, "content": [{ "type": kind, "text": text }] });
    let item = match item {
        HistoryItem::Summary(text) => message("system", "input_text", &format!("The call so far: {text}")),
        HistoryItem::Caller(text) => message("user", "input_text", text),
        HistoryItem::Agent(text) => message("assistant", "output_text", text),
        HistoryItem::ToolCall { call_id, name, arguments } => {
            json!({ "type": "function_call", "call_id": call_id, "name": name, "arguments": arguments })
        }
        HistoryItem::ToolOutput { call_id, output } => {
            json!({ "type": "function_call_output", "call_id": call_id, "output": output })
        }
    };
    json!({ "type": "conversation.item.create", "item": item })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parsed(command: &Command<'_>) -> Value {
        serde_json::from_str(&command.to_json(3)).unwrap()
    }

    #[test]
    fn the_session_has_the_ga_shape() {
        let shape = SessionShape {
            instructions: "Be kind.".into(),
            voice: "marin".into(),
            transcription_model: "gpt-transcribe".into(),
            language: Some("en".into()),
            tools: vec![ToolSpec {
                name: "end_call",
                description: "Ends".into(),
                parameters: json!({"type":"object"}),
            }],
            idle_timeout_ms: Some(15_000),
        };
        let event = parsed(&Command::Configure(&shape));
        assert_eq!(event["event_id"], "lh3");
        let session = &event["session"];
        assert_eq!(session["type"], "realtime");
        assert_eq!(session["audio"]["input"]["format"]["type"], "audio/pcmu");
        assert_eq!(session["audio"]["output"]["format"]["type"], "audio/pcmu");
        assert_eq!(session["audio"]["input"]["turn_detection"]["idle_timeout_ms"], 15_000);
        // Names of the beta shape are refused by the server.
        for gone in ["modalities", "voice", "temperature", "input_audio_format", "turn_detection"] {
            assert!(session.get(gone).is_none(), "{gone}");
        }
    }

    /// B9: an assistant item with `input_text` is invalid, and so the greeting was never spoken.
    #[test]
    fn history_has_the_content_type_of_its_role() {
        let agent = HistoryItem::Agent("Hello".into());
        assert_eq!(parsed(&Command::History(&agent))["item"]["content"][0]["type"], "output_text");
        let caller = HistoryItem::Caller("Hi".into());
        assert_eq!(parsed(&Command::History(&caller))["item"]["content"][0]["type"], "input_text");
    }

    #[test]
    fn append_carries_the_payload_unchanged() {
        assert_eq!(
            Command::Append("/+8=").to_json(9),
            r#"{"type":"input_audio_buffer.append","audio":"/+8="}"#
        );
    }
}
