//! ElevenLabs `multi-stream-input`.

use std::collections::VecDeque;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde_json::{Value, json};
use tokio::time::Instant;

use super::ears::Format;
use super::line::{Line, Next};
use super::studio::{Piece, speak};
use super::{Asked, Refusal};
use crate::ai::shape::{Field, Kind, object};

/// A sixth context closes the socket.
const MOST_CONTEXTS: usize = 5;
/// Without a flush, the vendor speaks when so many characters have come.
const SCHEDULE: usize = 120;
const PIECE_MS: u32 = 250;

const KNOWN: &[&str] = &[
    "model_id",
    "output_format",
    "language_code",
    "enable_logging",
    "enable_ssml_parsing",
    "inactivity_timeout",
    "sync_alignment",
    "auto_mode",
    "apply_text_normalization",
    "seed",
    "single_use_token",
    "authorization",
];

const MESSAGE: &[Field] = &[
    ("text", Kind::Text, false),
    ("context_id", Kind::Text, false),
    ("voice_settings", Kind::Object, false),
    ("generation_config", Kind::Object, false),
    ("pronunciation_dictionary_locators", Kind::List, false),
    ("xi_api_key", Kind::Text, false),
    ("authorization", Kind::Text, false),
    ("flush", Kind::Flag, false),
    ("close_context", Kind::Flag, false),
    ("close_socket", Kind::Flag, false),
];

pub(super) struct Query {
    format: Format,
    aligned: bool,
    inactivity: f64,
}

pub(super) fn admit(asked: &Asked) -> Result<Query, Refusal> {
    let refuse = |status: u16, kind: &str, message: &str| {
        (status, json!({"detail": {"status": kind, "message": message}}))
    };
    let bad = |message: &str| refuse(400, "invalid_request", message);
    let Some(voice) = asked
        .path
        .strip_prefix("/elevenlabs/v1/text-to-speech/")
        .and_then(|rest| rest.strip_suffix("/multi-stream-input"))
    else {
        return Err(refuse(404, "not_found", "Not found"));
    };
    if !asked.admits(asked.header("xi-api-key")) {
        return Err(refuse(401, "invalid_api_key", "Invalid API key"));
    }
    if voice.is_empty() || voice.contains('/') {
        return Err(refuse(404, "voice_not_found", "A voice with this id was not found."));
    }
    asked.no_more_than(KNOWN).map_err(|message| bad(&message))?;
    if asked.query("model_id").is_some_and(|model| !model.starts_with("eleven_") || model == "eleven_v3") {
        return Err(refuse(400, "model_not_found", "This model cannot be used over WebSocket."));
    }
    let output = asked.query("output_format").unwrap_or_else(|| "mp3_44100_128".into());
    let format = match output.as_str() {
        "ulaw_8000" => Format::Mulaw,
        "alaw_8000" => Format::Alaw,
        pcm => match pcm.strip_prefix("pcm_").and_then(|rate| rate.parse().ok()) {
            Some(rate @ (8_000 | 16_000 | 22_050 | 24_000 | 44_100 | 48_000)) => Format::Pcm(rate),
            _ => return Err(bad("The emulator speaks pcm, ulaw and alaw only.")),
        },
    };
    let inactivity = asked.query("inactivity_timeout").map_or(Some(20.0), |value| value.parse().ok());
    let inactivity = inactivity.filter(|seconds| (1.0..=180.0).contains(seconds));
    let inactivity = inactivity.ok_or_else(|| bad("inactivity_timeout must be between 1 and 180."))?;
    Ok(Query { format, aligned: asked.query("sync_alignment").as_deref() == Some("true"), inactivity })
}

struct Context {
    name: String,
    text: String,
}

struct State {
    query: Query,
    contexts: Vec<Context>,
    out: VecDeque<Value>,
}

impl State {
    async fn generate(&mut self, name: &str, line: &mut Line) {
        let Some(context) = self.contexts.iter_mut().find(|context| context.name == name) else { return };
        let text = std::mem::take(&mut context.text);
        if text.trim().is_empty() {
            return;
        }
        let pieces = speak(&line.shared.options.speaker, &text, self.query.format, PIECE_MS).await;
        line.spoke(pieces.iter().flat_map(|piece| &piece.words).map(|word| word.text.clone()));
        for piece in pieces {
            let alignment = if self.query.aligned { alignment(&piece) } else { Value::Null };
            let message = json!({"audio": STANDARD.encode(&piece.audio), "contextId": name, "isFinal": null,
                "alignment": alignment, "normalizedAlignment": alignment});
            self.out.push_back(message);
        }
    }

    async fn close_context(&mut self, name: &str, line: &mut Line) {
        self.generate(name, line).await;
        if self.contexts.iter().any(|context| context.name == name) {
            self.out.push_back(json!({"isFinal": true, "contextId": name}));
        }
    }
}

/// Characters with times from the start of the chunk; each word shares its own.
fn alignment(piece: &Piece) -> Value {
    let (mut chars, mut starts, mut durations) = (Vec::new(), Vec::new(), Vec::new());
    for word in &piece.words {
        let count = word.text.chars().count().max(1) as u32;
        let start = word.start_ms - piece.start_ms;
        let share = (word.end_ms - word.start_ms) / count;
        for (index, character) in word.text.chars().enumerate() {
            chars.push(character.to_string());
            starts.push(start + share * index as u32);
            durations.push(share);
        }
        chars.push(" ".into());
        starts.push(start + share * count);
        durations.push(0);
    }
    json!({"chars": chars, "charStartTimesMs": starts, "charDurationsMs": durations})
}

pub(super) async fn serve(line: &mut Line, query: Query) {
    line.trouble = (json!({"message": "Internal error", "error": "internal_error", "code": 1011}), 1011);
    let patience = line.vendor_time(query.inactivity);
    let mut state = State { query, contexts: Vec::new(), out: VecDeque::new() };
    let (mut at, mut last, mut closing) = (Instant::now(), Instant::now(), false);
    loop {
        if closing && state.out.is_empty() {
            return line.close(1000, "").await;
        }
        let due = if state.out.is_empty() { last + patience } else { at };
        match line.next(Some(due)).await {
            Next::Gone => return,
            Next::Due => {
                let Some(message) = state.out.pop_front() else {
                    line.complain("silent for too long");
                    let told = format!(
                        "Have not received a new text input within the timeout of {} seconds.",
                        state.query.inactivity
                    );
                    let error = json!({"message": told, "error": "input_timeout_exceeded", "code": 1008});
                    line.send(error).await;
                    return line.close(1008, "input_timeout_exceeded").await;
                };
                at = Instant::now() + line.options().gap;
                if message["isFinal"] == true {
                    let name = message["contextId"].as_str().unwrap_or_default();
                    state.contexts.retain(|context| context.name != name);
                }
                line.send(message).await;
            }
            Next::Binary(_) => {
                line.complain("binary message");
                return line.close(1003, "binary messages are not supported").await;
            }
            Next::Text(text) => {
                last = Instant::now();
                let message: Value = serde_json::from_str(&text).unwrap_or_default();
                if object(&message, "", MESSAGE).is_err() {
                    line.complain(format!("invalid message {text}"));
                    line.send(
                        json!({"message": "Invalid message", "error": "invalid_message", "code": 1008}),
                    )
                    .await;
                    return line.close(1008, "invalid_message").await;
                }
                if message["close_socket"] == true {
                    let names: Vec<String> =
                        state.contexts.iter().map(|context| context.name.clone()).collect();
                    for name in names {
                        state.close_context(&name, line).await;
                    }
                    closing = true;
                    continue;
                }
                let name = message["context_id"].as_str().unwrap_or("default").to_owned();
                if state.out.is_empty() {
                    at = Instant::now() + line.options().latency;
                }
                if message["close_context"] == true {
                    state.close_context(&name, line).await;
                    continue;
                }
                let text = message["text"].as_str().unwrap_or_default();
                if !state.contexts.iter().any(|context| context.name == name) {
                    if text.is_empty() {
                        continue;
                    }
                    if state.contexts.len() >= MOST_CONTEXTS {
                        line.complain("a sixth context");
                        return line.close(1008, "max_active_conversations").await;
                    }
                    state.contexts.push(Context { name: name.clone(), text: String::new() });
                }
                let Some(context) = state.contexts.iter_mut().find(|context| context.name == name) else {
                    continue;
                };
                context.text.push_str(text);
                if message["flush"] == true || context.text.len() > SCHEDULE {
                    state.generate(&name, line).await;
                }
            }
        }
    }
}
