//! Deepgram `/v2/listen`: Flux.

use serde_json::{Value, json};
use tokio::time::Instant;

use super::ears::{Ears, Format};
use super::line::{Line, Next};
use super::{Asked, Refusal, deepgram_key, deepgram_refusal, nova};
use crate::ai::reply::id;
use crate::speech::{HeardWord, VadEvent};

/// Silence after which a turn has probably ended.
const EAGER_MS: u32 = 200;
/// Silence after which it has.
const END_MS: u32 = 600;

const KNOWN: &[&str] = &[
    "model",
    "encoding",
    "sample_rate",
    "eot_threshold",
    "eager_eot_threshold",
    "eot_timeout_ms",
    "keyterm",
    "language_hint",
    "tag",
    "mip_opt_out",
    "numerals",
    "redact",
    "profanity_filter",
    "detect_entities",
];

pub(super) struct Query {
    format: Format,
    eager: bool,
}

pub(super) fn admit(asked: &Asked) -> Result<Query, Refusal> {
    deepgram_key(asked)?;
    let refuse = |message: &str| deepgram_refusal(400, message);
    asked.no_more_than(KNOWN).map_err(|message| refuse(&message))?;
    let model = asked.query("model").unwrap_or_default();
    if !["flux-general-en", "flux-general-multi"].contains(&model.as_str()) {
        return Err(refuse(&format!("No such model: {model}.")));
    }
    if asked.query("language_hint").is_some() && model != "flux-general-multi" {
        return Err(refuse("language_hint is only supported by flux-general-multi."));
    }
    let number = |name: &str, least: f64, most: f64| match asked.query(name) {
        None => Ok(None),
        Some(value) => match value.parse::<f64>() {
            Ok(value) if (least..=most).contains(&value) => Ok(Some(value)),
            _ => Err(refuse(&format!("{name} must be between {least} and {most}."))),
        },
    };
    let end = number("eot_threshold", 0.5, 0.9)?;
    let eager = number("eager_eot_threshold", 0.3, 0.9)?;
    number("eot_timeout_ms", 500.0, 10_000.0)?;
    if eager.is_some_and(|eager| eager > end.unwrap_or(0.7)) {
        return Err(refuse("eager_eot_threshold must not exceed eot_threshold."));
    }
    let format = nova::format(asked).map_err(|message| refuse(&message))?;
    Ok(Query { format, eager: eager.is_some() })
}

struct State {
    query: Query,
    ears: Ears,
    request_id: String,
    sequence: u64,
    turn: u64,
    words: Vec<HeardWord>,
    start: f64,
    eager: bool,
}

impl State {
    async fn message(&mut self, mut message: Value, line: &mut Line) {
        message["request_id"] = json!(self.request_id);
        message["sequence_id"] = json!(self.sequence);
        self.sequence += 1;
        line.send(message).await;
    }

    async fn tell(&mut self, event: &str, confidence: f64, trigger: Option<&str>, line: &mut Line) {
        let text = self.words.iter().map(|word| word.text.as_str()).collect::<Vec<_>>().join(" ");
        let seconds = |ms: u32| f64::from(ms) / 1_000.0;
        let word = |word: &HeardWord| json!({"word": word.text, "confidence": 0.97, "start": seconds(word.start_ms), "end": seconds(word.end_ms)});
        let words: Vec<Value> = self.words.iter().map(word).collect();
        let mut info = json!({"type": "TurnInfo", "event": event, "turn_index": self.turn,
            "audio_window_start": self.start, "audio_window_end": self.ears.seconds(), "transcript": text, "words": words,
            "end_of_turn_confidence": confidence});
        if let Some(trigger) = trigger {
            info["trigger"] = json!(trigger);
        }
        self.message(info, line).await;
    }

    async fn end(&mut self, trigger: &str, line: &mut Line) {
        self.tell("EndOfTurn", 0.85, Some(trigger), line).await;
        self.words.clear();
        self.turn += 1;
        self.start = self.ears.seconds();
        self.eager = false;
    }

    async fn hear(&mut self, bytes: &[u8], line: &mut Line) {
        let (words, turns) = self.ears.push(bytes);
        let [eager, end] = &turns[..] else { return };
        let resumed = eager.iter().any(|event| matches!(event, VadEvent::SpeechStarted { .. }));
        if resumed && self.eager {
            self.eager = false;
            self.tell("TurnResumed", 0.1, None, line).await;
        }
        for word in words {
            line.heard(&word.text);
            self.words.push(word);
            let event = if self.words.len() == 1 { "StartOfTurn" } else { "Update" };
            self.tell(event, 0.05, None, line).await;
        }
        let stopped =
            |events: &[VadEvent]| events.iter().any(|e| matches!(e, VadEvent::SpeechStopped { .. }));
        if stopped(eager) && self.query.eager && !self.words.is_empty() {
            self.eager = true;
            self.tell("EagerEndOfTurn", 0.5, None, line).await;
        }
        if stopped(end) && !self.words.is_empty() {
            self.end("model", line).await;
        }
    }

    async fn fail(&mut self, code: &str, description: &str, close: u16, line: &mut Line) {
        line.complain(format!("{code}: {description}"));
        self.message(json!({"type": "Error", "code": code, "description": description}), line).await;
        line.close(close, &format!("{code}: {description}")).await;
    }
}

pub(super) async fn serve(line: &mut Line, query: Query) {
    line.trouble = (
        json!({"type": "Error", "sequence_id": 9, "code": "INTERNAL_SERVER_ERROR", "description": "internal error"}),
        1011,
    );
    let ears = Ears::new(query.format, &[EAGER_MS, END_MS]);
    let mut state = State {
        query,
        ears,
        request_id: id(""),
        sequence: 0,
        turn: 0,
        words: Vec::new(),
        start: 0.0,
        eager: false,
    };
    state.message(json!({"type": "Connected"}), line).await;
    let patience = line.vendor_time(60.0);
    let mut last = Instant::now();
    loop {
        match line.next(Some(last + patience)).await {
            Next::Gone => return,
            Next::Due => {
                return state.fail("NET-0001", "no audio within the timeout window", 1011, line).await;
            }
            Next::Binary(bytes) => {
                last = Instant::now();
                state.hear(&bytes, line).await;
            }
            Next::Text(text) => {
                last = Instant::now();
                let message: Value = serde_json::from_str(&text).unwrap_or_default();
                match message["type"].as_str().unwrap_or_default() {
                    "ForceEndTurn" if state.words.is_empty() => {
                        let warning = json!({"type": "Warning", "code": "NO_ACTIVE_TURN", "description": "no turn is active"});
                        state.message(warning, line).await;
                    }
                    "ForceEndTurn" => state.end("manual", line).await,
                    "CloseStream" => {
                        if !state.words.is_empty() {
                            state.end("timeout", line).await;
                        }
                        return line.close(1000, "").await;
                    }
                    // In particular `KeepAlive`: silence is streamed here.
                    other => {
                        let description = format!("unknown message type {other:?}");
                        return state.fail("UNPARSABLE_CLIENT_MESSAGE", &description, 1008, line).await;
                    }
                }
            }
        }
    }
}
