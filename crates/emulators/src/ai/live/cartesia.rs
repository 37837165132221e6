//! Cartesia `/tts/websocket`.

use std::collections::{HashMap, VecDeque};

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde_json::{Value, json};
use tokio::time::Instant;

use super::ears::Format;
use super::line::{Line, Next};
use super::studio::speak;
use super::{Asked, Refusal};
use crate::ai::reply::id;
use crate::ai::shape::{Field, Kind, object};

/// The vendor closes after this silence, in seconds.
const IDLE: f64 = 300.0;
const PIECE_MS: u32 = 100;

const GENERATION: &[Field] = &[
    ("model_id", Kind::Text, true),
    ("transcript", Kind::Text, true),
    ("voice", Kind::Object, true),
    ("output_format", Kind::Object, true),
    ("context_id", Kind::Text, true),
    ("language", Kind::Text, false),
    ("continue", Kind::Flag, false),
    ("flush", Kind::Flag, false),
    ("add_timestamps", Kind::Flag, false),
    ("add_phoneme_timestamps", Kind::Flag, false),
    ("use_normalized_timestamps", Kind::Flag, false),
    ("max_buffer_delay_ms", Kind::Whole(0, 5_000), false),
    ("generation_config", Kind::Object, false),
    ("pronunciation_dict_id", Kind::Text, false),
    ("speed", Kind::Any, false),
];

const CANCELLATION: &[Field] = &[("context_id", Kind::Text, true), ("cancel", Kind::Flag, true)];

pub(super) fn admit(asked: &Asked) -> Result<(), Refusal> {
    let refuse = |status: u16, message: &str| {
        (
            status,
            json!({"error_code": "refused", "title": message, "message": message, "status_code": status}),
        )
    };
    let bearer = asked.header("authorization").and_then(|value| value.strip_prefix("Bearer "));
    let query = asked.query("api_key").or_else(|| asked.query("access_token"));
    if !asked.admits(asked.header("x-api-key").or(bearer).or(query.as_deref())) {
        return Err(refuse(401, "Invalid API key"));
    }
    let version = asked.query("cartesia_version");
    let version = version.as_deref().or(asked.header("cartesia-version"));
    let dated = |version: &str| version.len() == 10 && version.starts_with("202");
    if version.is_some_and(dated) {
        Ok(())
    } else {
        Err(refuse(400, "cartesia_version is missing or unknown"))
    }
}

struct Context {
    format: Format,
    timestamps: bool,
    /// Text that is not spoken yet.
    text: String,
    /// Speech so far, in milliseconds.
    spoken_ms: u32,
    /// No more text comes.
    complete: bool,
    /// What every message of the context must repeat.
    shape: Value,
}

struct State {
    contexts: HashMap<String, Context>,
    out: VecDeque<(String, Value)>,
}

fn format(output: &Value) -> Result<Format, String> {
    let rate = output["sample_rate"].as_u64().unwrap_or_default() as u32;
    let container = output["container"].as_str().unwrap_or_default();
    let fields: &[Field] = &[
        ("container", Kind::OneOf(&["raw"]), true),
        ("encoding", Kind::OneOf(&["pcm_s16le", "pcm_f32le", "pcm_mulaw", "pcm_alaw"]), true),
        ("sample_rate", Kind::Whole(8_000, 48_000), true),
    ];
    object(output, "output_format", fields)
        .map_err(|problem| format!("invalid {}: {:?} ({container})", problem.path, problem.what))?;
    match (output["encoding"].as_str(), rate) {
        (Some("pcm_s16le"), rate) => Ok(Format::Pcm(rate)),
        (Some("pcm_mulaw"), 8_000) => Ok(Format::Mulaw),
        (Some("pcm_alaw"), 8_000) => Ok(Format::Alaw),
        _ => Err("the emulator does not make this output_format".into()),
    }
}

impl State {
    /// Judges a message and takes it in. The error is the vendor's message.
    async fn generate(&mut self, message: &Value, line: &mut Line) -> Result<(), (u16, String)> {
        let bad = |message: String| (400, message);
        object(message, "", GENERATION)
            .map_err(|problem| bad(format!("invalid {}: {:?}", problem.path, problem.what)))?;
        if !message["model_id"].as_str().is_some_and(|model| model.starts_with("sonic")) {
            return Err((404, "model not found".into()));
        }
        let voice = &message["voice"];
        if voice["mode"] != "id" || uuid::Uuid::parse_str(voice["id"].as_str().unwrap_or_default()).is_err() {
            return Err((404, "voice not found".into()));
        }
        let format = format(&message["output_format"]).map_err(bad)?;
        let name = message["context_id"].as_str().unwrap_or_default().to_owned();
        let (text, more) = (message["transcript"].as_str().unwrap_or_default(), message["continue"] == true);
        let shape = json!([message["model_id"], message["voice"], message["output_format"]]);
        if !self.contexts.contains_key(&name) {
            if self.contexts.len() >= line.options().cartesia_contexts {
                return Err((429, "Too many concurrent contexts for your plan.".into()));
            }
            if text.trim().is_empty() && !more {
                return Err(bad("transcript must not be empty".into()));
            }
            let timestamps = message["add_timestamps"] == true;
            let (text, complete) = (String::new(), false);
            self.contexts.insert(
                name.clone(),
                Context { format, timestamps, text, spoken_ms: 0, complete, shape: shape.clone() },
            );
        }
        let Some(context) = self.contexts.get_mut(&name) else { return Ok(()) };
        if context.complete {
            return Err(bad("the context has been completed".into()));
        }
        if context.shape != shape {
            return Err(bad("model_id, voice and output_format must stay the same within a context".into()));
        }
        context.text.push_str(text);
        context.complete = !more;
        let flush = message["flush"] == true;
        let sentence = context.text.trim_end().ends_with(['.', '!', '?']);
        if (sentence || flush || !more) && !context.text.trim().is_empty() {
            let whole = std::mem::take(&mut context.text);
            let pieces = speak(&line.shared.options.speaker, &whole, context.format, PIECE_MS).await;
            line.spoke(pieces.iter().flat_map(|piece| &piece.words).map(|word| word.text.clone()));
            let from = context.spoken_ms;
            for piece in pieces {
                let chunk = json!({"type": "chunk", "data": STANDARD.encode(&piece.audio), "done": false,
                    "status_code": 206, "step_time": 12.5, "context_id": name});
                context.spoken_ms = from
                    + piece.start_ms
                    + (piece.audio.len() as u64 * 1_000 / u64::from(context.format.bytes_per_second()))
                        as u32;
                self.out.push_back((name.clone(), chunk));
                if context.timestamps && !piece.words.is_empty() {
                    let seconds = |ms: u32| f64::from(from + ms) / 1_000.0;
                    let texts: Vec<&str> = piece.words.iter().map(|word| word.text.as_str()).collect();
                    let starts: Vec<f64> = piece.words.iter().map(|word| seconds(word.start_ms)).collect();
                    let ends: Vec<f64> = piece.words.iter().map(|word| seconds(word.end_ms)).collect();
                    let times = json!({"type": "timestamps", "done": false, "status_code": 206, "context_id": name,
                        "word_timestamps": {"words": texts, "start": starts, "end": ends}});
                    self.out.push_back((name.clone(), times));
                }
            }
        }
        if flush {
            let done = json!({"type": "flush_done", "flush_done": true, "flush_id": 1, "done": false,
                "status_code": 206, "context_id": name});
            self.out.push_back((name.clone(), done));
        }
        if !more {
            let done = json!({"type": "done", "done": true, "status_code": 200, "context_id": name});
            self.out.push_back((name.clone(), done));
        }
        Ok(())
    }
}

pub(super) async fn serve(line: &mut Line) {
    line.trouble = (
        json!({"type": "error", "status_code": 500, "done": true, "title": "Internal error", "message": "Internal error",
            "error_code": "internal_error", "request_id": id("")}),
        1011,
    );
    let mut state = State { contexts: HashMap::new(), out: VecDeque::new() };
    let (mut at, mut last) = (Instant::now(), Instant::now());
    let patience = line.vendor_time(IDLE);
    loop {
        let due = if state.out.is_empty() { last + patience } else { at };
        match line.next(Some(due)).await {
            Next::Gone => return,
            Next::Due => {
                let Some((name, message)) = state.out.pop_front() else {
                    line.complain("silent for too long");
                    return line.close(1000, "idle timeout").await;
                };
                at = Instant::now() + line.options().gap;
                last = Instant::now();
                if message["type"] == "done" {
                    state.contexts.remove(&name);
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
                let name = message["context_id"].as_str().map(str::to_owned);
                if !message["cancel"].is_null() && object(&message, "", CANCELLATION).is_ok() {
                    let name = name.unwrap_or_default();
                    state.out.retain(|(of, _)| *of != name);
                    state.contexts.remove(&name);
                    continue;
                }
                if state.out.is_empty() {
                    at = Instant::now() + line.options().latency;
                }
                if let Err((status, told)) = state.generate(&message, line).await {
                    line.complain(told.clone());
                    let error = json!({"type": "error", "context_id": name, "status_code": status, "done": true,
                        "error_code": if status == 429 { "concurrency_limited" } else { "invalid_request" },
                        "title": told, "message": told, "request_id": id("")});
                    line.send(error).await;
                }
            }
        }
    }
}
