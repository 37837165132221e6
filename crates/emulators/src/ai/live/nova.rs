//! Deepgram `/v1/listen`.

use serde_json::{Value, json};
use tokio::time::Instant;

use super::ears::{Ears, Format};
use super::line::{Line, Next};
use super::{Asked, Refusal, deepgram_key, deepgram_refusal};
use crate::ai::reply::id;
use crate::speech::{HeardWord, VadEvent};

/// A final result comes after so many words, whether speech has ended or not.
const LONG: usize = 6;

const KNOWN: &[&str] = &[
    "model",
    "encoding",
    "sample_rate",
    "channels",
    "language",
    "interim_results",
    "punctuate",
    "smart_format",
    "endpointing",
    "utterance_end_ms",
    "vad_events",
    "diarize",
    "diarize_model",
    "keyterm",
    "keywords",
    "numerals",
    "redact",
    "replace",
    "search",
    "tag",
    "mip_opt_out",
    "no_delay",
    "multichannel",
    "profanity_filter",
    "version",
    "callback",
    "callback_method",
    "extra",
    "filler_words",
    "dictation",
    "detect_entities",
];

pub(super) struct Query {
    format: Format,
    interim: bool,
    vad_events: bool,
    endpointing_ms: Option<u32>,
    utterance_end_ms: Option<u32>,
}

/// `encoding` and `sample_rate`, as both listeners want them.
pub(super) fn format(asked: &Asked) -> Result<Format, String> {
    let rate = asked.query("sample_rate");
    let rate: Option<u32> = rate.map(|rate| rate.parse().map_err(|_| "Invalid sample_rate.")).transpose()?;
    match (asked.query("encoding").as_deref(), rate) {
        (Some("linear16"), Some(rate @ 8_000..=48_000)) => Ok(Format::Pcm(rate)),
        (Some("mulaw"), Some(8_000)) => Ok(Format::Mulaw),
        (Some("alaw"), Some(8_000)) => Ok(Format::Alaw),
        (Some(_), None) => Err("sample_rate is required for raw audio.".into()),
        (None, _) => Err("The emulator hears raw audio only: give encoding and sample_rate.".into()),
        (Some(encoding), Some(rate)) => Err(format!("Unsupported encoding {encoding} at {rate} Hz.")),
    }
}

pub(super) fn admit(asked: &Asked) -> Result<Query, Refusal> {
    deepgram_key(asked)?;
    let refuse = |message: &str| deepgram_refusal(400, message);
    asked.no_more_than(KNOWN).map_err(|message| refuse(&message))?;
    let model = asked.query("model").unwrap_or_else(|| "base".into());
    if !["nova", "base", "enhanced", "whisper"].iter().any(|family| model.starts_with(family)) {
        return Err(refuse(&format!("No such model/language/tier combination found: {model}.")));
    }
    if asked.query("keyterm").is_some() && !model.starts_with("nova-3") {
        return Err(refuse("Keyterm is only supported by Nova-3."));
    }
    if asked.query("channels").is_some_and(|channels| channels != "1") {
        return Err(refuse("The emulator hears one channel only."));
    }
    let flag = |name: &str| asked.query(name).as_deref() == Some("true");
    let number = |name: &str| asked.query(name).and_then(|value| value.parse::<u32>().ok());
    let interim = flag("interim_results");
    let utterance_end_ms = number("utterance_end_ms");
    if let Some(ms) = utterance_end_ms
        && (!interim || !(1_000..=5_000).contains(&ms))
    {
        return Err(refuse("utterance_end_ms needs interim_results=true and a value from 1000 to 5000."));
    }
    let endpointing_ms = match asked.query("endpointing").as_deref() {
        Some("false") => None,
        None => Some(10),
        Some(_) => Some(number("endpointing").ok_or_else(|| refuse("Invalid endpointing."))?),
    };
    let format = format(asked).map_err(|message| refuse(&message))?;
    Ok(Query { format, interim, vad_events: flag("vad_events"), endpointing_ms, utterance_end_ms })
}

struct State {
    query: Query,
    ears: Ears,
    request_id: String,
    words: Vec<HeardWord>,
    /// Where the result in progress begins, in seconds.
    start: f64,
    /// The end of the last word, in milliseconds, until its `UtteranceEnd` was sent.
    last_word_end: Option<u32>,
}

impl State {
    fn result(&mut self, is_final: bool, speech_final: bool, from_finalize: bool) -> Value {
        let seconds = |ms: u32| f64::from(ms) / 1_000.0;
        let text = self.words.iter().map(|word| word.text.as_str()).collect::<Vec<_>>().join(" ");
        let words: Vec<Value> = self
            .words
            .iter()
            .map(|word| {
                let plain: String =
                    word.text.to_lowercase().chars().filter(|c| c.is_alphanumeric()).collect();
                json!({"word": plain, "punctuated_word": word.text, "start": seconds(word.start_ms),
                    "end": seconds(word.end_ms), "confidence": 0.98})
            })
            .collect();
        let now = self.ears.seconds();
        let result = json!({
            "type": "Results", "channel_index": [0, 1], "start": self.start, "duration": now - self.start,
            "is_final": is_final, "speech_final": speech_final, "from_finalize": from_finalize,
            "channel": {"alternatives": [{"transcript": text, "confidence": 0.98, "words": words}]},
            "metadata": {"request_id": self.request_id, "model_info": {"name": "general-nova-3", "version": "0",
                "arch": "nova-3"}, "model_uuid": id("")},
        });
        if is_final {
            self.words.clear();
            self.start = now;
        }
        result
    }

    async fn hear(&mut self, bytes: &[u8], line: &mut Line) {
        let noticed = self.ears.notice(bytes);
        for event in &noticed.turns {
            if let (VadEvent::SpeechStarted { at_ms }, true) = (event, self.query.vad_events) {
                let timestamp = f64::from(*at_ms) / 1_000.0;
                line.send(json!({"type": "SpeechStarted", "channel": [0, 1], "timestamp": timestamp})).await;
            }
        }
        for word in noticed.words {
            line.heard(&word.text);
            self.last_word_end = Some(word.end_ms);
            self.words.push(word);
            if self.words.len() >= LONG {
                let result = self.result(true, false, false);
                line.send(result).await;
            } else if self.query.interim {
                let result = self.result(false, false, false);
                line.send(result).await;
            }
        }
        let stopped = noticed.turns.iter().any(|event| matches!(event, VadEvent::SpeechStopped { .. }));
        if stopped && self.query.endpointing_ms.is_some() {
            let result = self.result(true, true, false);
            line.send(result).await;
        }
        if let (Some(end), Some(gap)) = (self.last_word_end, self.query.utterance_end_ms)
            && self.ears.seconds() * 1_000.0 >= f64::from(end + gap)
        {
            self.last_word_end = None;
            let end = f64::from(end) / 1_000.0;
            line.send(json!({"type": "UtteranceEnd", "channel": [0, 1], "last_word_end": end})).await;
        }
    }
}

pub(super) async fn serve(line: &mut Line, query: Query) {
    line.trouble = (json!({"type": "Error", "variant": "INTERNAL", "description": "internal error"}), 1011);
    // Detection wants a little more silence than the vendor's shortest endpointing.
    let silence = query.endpointing_ms.unwrap_or(300).max(100);
    let ears = Ears::new(query.format, &[silence]);
    let mut state =
        State { query, ears, request_id: id(""), words: Vec::new(), start: 0.0, last_word_end: None };
    let patience = line.vendor_time(10.0);
    let mut last = Instant::now();
    loop {
        match line.next(Some(last + patience)).await {
            Next::Gone => return,
            Next::Due => {
                line.complain("silent for too long");
                let reason = "NET-0001: Deepgram did not receive audio data or a text message within the timeout window.";
                return line.close(1011, reason).await;
            }
            Next::Binary(bytes) => {
                last = Instant::now();
                state.hear(&bytes, line).await;
            }
            Next::Text(text) => {
                last = Instant::now();
                let message: Value = serde_json::from_str(&text).unwrap_or_default();
                match message["type"].as_str().unwrap_or_default() {
                    "KeepAlive" => {}
                    "Finalize" => {
                        let result = state.result(true, false, true);
                        line.send(result).await;
                    }
                    "CloseStream" => {
                        if !state.words.is_empty() {
                            let result = state.result(true, true, false);
                            line.send(result).await;
                        }
                        let metadata = json!({"type": "Metadata", "transaction_key": "deprecated",
                            "request_id": state.request_id, "sha256": "", "created": "2026-11-21T12:00:00.000Z",
                            "duration": state.ears.seconds(), "channels": 1});
                        line.send(metadata).await;
                        return line.close(1000, "").await;
                    }
                    other => {
                        line.complain(format!("unknown message {other:?}"));
                        let error = json!({"type": "Error", "variant": "UNKNOWN_MESSAGE",
                            "description": "The message could not be parsed."});
                        line.send(error).await;
                        return line.close(1008, "DATA-0000: The message could not be parsed.").await;
                    }
                }
            }
        }
    }
}
