//! Deepgram `/v1/speak`: Aura.

use std::collections::VecDeque;

use serde_json::{Value, json};
use tokio::time::Instant;

use super::ears::Format;
use super::line::{Line, Next};
use super::studio::speak;
use super::{Asked, Refusal, deepgram_key, deepgram_refusal};
use crate::ai::reply::id;

/// Most characters of one message.
const MOST_CHARACTERS: usize = 2_000;
/// Flushes in a minute.
const MOST_FLUSHES: usize = 20;
const PIECE_MS: u32 = 120;

const KNOWN: &[&str] = &["model", "encoding", "sample_rate", "speed", "mip_opt_out", "tag"];

pub(super) struct Query {
    format: Format,
    model: String,
}

pub(super) fn admit(asked: &Asked) -> Result<Query, Refusal> {
    deepgram_key(asked)?;
    let refuse = |message: String| deepgram_refusal(400, &message);
    asked.no_more_than(KNOWN).map_err(refuse)?;
    let model = asked.query("model").unwrap_or_else(|| "aura-asteria-en".into());
    if !model.starts_with("aura-") {
        return Err(refuse(format!("No such model: {model}.")));
    }
    let speed = asked.query("speed").map_or(Some(1.0), |speed| speed.parse::<f32>().ok());
    if !speed.is_some_and(|speed| (0.7..=1.5).contains(&speed)) {
        return Err(refuse("speed must be between 0.7 and 1.5.".into()));
    }
    let rate = asked.query("sample_rate").map_or(Some(24_000), |rate| rate.parse().ok());
    let format = match (asked.query("encoding").as_deref().unwrap_or("linear16"), rate) {
        ("linear16", Some(rate @ (8_000 | 16_000 | 24_000 | 32_000 | 48_000))) => Format::Pcm(rate),
        ("mulaw", Some(8_000)) => Format::Mulaw,
        ("alaw", Some(8_000)) => Format::Alaw,
        (encoding, rate) => return Err(refuse(format!("Unsupported encoding {encoding} at {rate:?} Hz."))),
    };
    Ok(Query { format, model })
}

enum Out {
    Audio(Vec<u8>),
    Flushed,
}

pub(super) async fn serve(line: &mut Line, query: Query) {
    line.trouble = (json!({"type": "Error", "code": "NET-0000", "description": "internal error"}), 1011);
    let metadata = json!({"type": "Metadata", "request_id": id(""), "model_name": query.model,
        "model_version": "2026-01-01", "model_uuid": id("")});
    line.send(metadata).await;
    let mut out: VecDeque<Out> = VecDeque::new();
    let (mut text, mut sequence, mut closing) = (String::new(), 0_u64, false);
    let mut flushes: VecDeque<Instant> = VecDeque::new();
    let mut at = Instant::now();
    loop {
        if closing && out.is_empty() {
            return line.close(1000, "").await;
        }
        let due = (!out.is_empty()).then_some(at);
        match line.next(due).await {
            Next::Gone => return,
            Next::Due => {
                at = Instant::now() + line.options().gap;
                match out.pop_front() {
                    Some(Out::Audio(bytes)) => line.send_audio(bytes).await,
                    Some(Out::Flushed) => {
                        line.send(json!({"type": "Flushed", "sequence_id": sequence})).await;
                        sequence += 1;
                    }
                    None => {}
                }
            }
            Next::Binary(_) => {
                line.complain("binary message");
                let error = json!({"type": "Error", "code": "MESSAGE-0000", "description": "binary message"});
                line.send(error).await;
                return line.close(1008, "MESSAGE-0000: binary message").await;
            }
            Next::Text(message) => {
                let message: Value = serde_json::from_str(&message).unwrap_or_default();
                match message["type"].as_str().unwrap_or_default() {
                    "Speak" => {
                        let more = message["text"].as_str().unwrap_or_default();
                        if more.is_empty() || more.chars().count() > MOST_CHARACTERS {
                            line.complain("empty or too long text");
                            let error = json!({"type": "Error", "code": "DATA-0001", "description": "Invalid text length"});
                            line.send(error).await;
                            return line.close(1008, "DATA-0001: Invalid text length").await;
                        }
                        text.push_str(more);
                    }
                    "Flush" => {
                        let minute = line.vendor_time(60.0);
                        flushes.retain(|at| at.elapsed() < minute);
                        if flushes.len() >= MOST_FLUSHES {
                            line.complain("too many flushes");
                            let warning = json!({"type": "Warning", "code": "EXCESSIVE_FLUSH",
                                "description": "Exceeded the limit of 20 flushes in 60 seconds."});
                            line.send(warning).await;
                            continue;
                        }
                        flushes.push_back(Instant::now());
                        let whole = std::mem::take(&mut text);
                        let pieces =
                            speak(&line.shared.options.speaker, &whole, query.format, PIECE_MS).await;
                        line.spoke(
                            pieces.iter().flat_map(|piece| &piece.words).map(|word| word.text.clone()),
                        );
                        if out.is_empty() {
                            at = Instant::now() + line.options().latency;
                        }
                        out.extend(pieces.into_iter().map(|piece| Out::Audio(piece.audio)));
                        out.push_back(Out::Flushed);
                    }
                    "Clear" => {
                        out.clear();
                        text.clear();
                        line.send(json!({"type": "Cleared", "sequence_id": sequence})).await;
                        sequence += 1;
                    }
                    "Close" => closing = true,
                    other => {
                        line.complain(format!("unknown message {other:?}"));
                        let error = json!({"type": "Error", "code": "MESSAGE-0000", "description": "unknown message type"});
                        line.send(error).await;
                        return line.close(1008, "MESSAGE-0000: unknown message type").await;
                    }
                }
            }
        }
    }
}
