//! A session's settings: the object that the client sees, and what the server reads from it.

use serde_json::{Value, json};

use super::validate::ApiError;
use crate::{
    g711,
    speech::{Resampler, VadOptions},
};

/// An audio encoding on the wire.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Format {
    Pcm24,
    Mulaw,
    Alaw,
}

impl Format {
    fn of(value: &Value) -> Self {
        match value["type"].as_str() {
            Some("audio/pcmu") => Self::Mulaw,
            Some("audio/pcma") => Self::Alaw,
            _ => Self::Pcm24,
        }
    }

    /// Decodes received bytes to 8 kHz. `resampler` carries the state between calls.
    pub(super) fn decode(self, bytes: &[u8], resampler: &mut Resampler) -> Result<Vec<i16>, ApiError> {
        match self {
            Self::Mulaw => Ok(g711::mulaw_to_linear(bytes)),
            Self::Alaw => Ok(g711::alaw_to_linear(bytes)),
            Self::Pcm24 if !bytes.len().is_multiple_of(2) => Err(ApiError::value(
                "audio",
                "Invalid 'audio': 16-bit PCM must have an even number of bytes.",
            )),
            Self::Pcm24 => {
                let samples: Vec<i16> =
                    bytes.chunks_exact(2).map(|b| i16::from_le_bytes([b[0], b[1]])).collect();
                Ok(resampler.push(&samples))
            }
        }
    }

    pub(super) fn encode(self, samples: &[i16]) -> Vec<u8> {
        match self {
            Self::Mulaw => g711::linear_to_mulaw(samples),
            Self::Alaw => g711::linear_to_alaw(samples),
            Self::Pcm24 => {
                Resampler::whole(8_000, 24_000, samples).iter().flat_map(|s| s.to_le_bytes()).collect()
            }
        }
    }

    pub(super) fn bytes_per_ms(self) -> usize {
        if self == Self::Pcm24 { 48 } else { 8 }
    }
}

/// Who decides when the user's turn is over.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) enum Turns {
    /// The client commits.
    Manual,
    Detected {
        vad: VadOptions,
        create_response: bool,
        interrupt_response: bool,
        idle_timeout_ms: Option<u32>,
    },
}

/// The effective session.
#[derive(Debug, Clone)]
pub(super) struct Config {
    /// The `session` object as the client sees it.
    pub(super) value: Value,
    pub(super) input: Format,
    pub(super) output: Format,
    pub(super) transcribe: bool,
    pub(super) turns: Turns,
}

impl Config {
    pub(super) fn new(id: &str, model: &str, expires_at: u64) -> Self {
        let pcm = json!({"type": "audio/pcm", "rate": 24_000});
        Self::read(json!({
            "type": "realtime", "object": "realtime.session", "id": id, "model": model, "expires_at": expires_at,
            "output_modalities": ["audio"], "instructions": "", "tools": [], "tool_choice": "auto",
            "max_output_tokens": "inf", "tracing": null, "truncation": "auto", "prompt": null, "include": null,
            "audio": {
                "input": {
                    "format": pcm, "transcription": null, "noise_reduction": null,
                    "turn_detection": turn_defaults(&json!({"type": "server_vad"})),
                },
                "output": {"format": pcm, "voice": "marin", "speed": 1.0},
            },
        }))
    }

    /// A session that only listens.
    pub(super) fn transcription(id: &str, expires_at: u64) -> Self {
        Self::read(json!({
            "type": "transcription", "object": "realtime.transcription_session", "id": id, "expires_at": expires_at,
            "include": null,
            "audio": {"input": {
                "format": {"type": "audio/pcm", "rate": 24_000}, "transcription": null, "noise_reduction": null,
                "turn_detection": turn_defaults(&json!({"type": "server_vad"})),
            }},
        }))
    }

    fn read(value: Value) -> Self {
        let (input, output) = (&value["audio"]["input"], &value["audio"]["output"]);
        let mut turns = turns(&input["turn_detection"]);
        if let (Turns::Detected { create_response, .. }, true) =
            (&mut turns, value["type"] == "transcription")
        {
            *create_response = false;
        }
        Self {
            input: Format::of(&input["format"]),
            output: Format::of(&output["format"]),
            transcribe: !input["transcription"].is_null(),
            turns,
            value,
        }
    }

    /// Applies a validated `session.update`: only the fields that it names change.
    pub(super) fn updated(&self, change: &Value, spoken: bool) -> Result<Self, ApiError> {
        if let Some(model) = change.get("model")
            && *model != self.value["model"]
        {
            let message =
                format!("Cannot change the model of a session from {} to {model}.", self.value["model"]);
            return Err(ApiError::value("session.model", message));
        }
        if change["type"] != self.value["type"] {
            let message = format!("Cannot change the type of a session from {}.", self.value["type"]);
            return Err(ApiError::value("session.type", message));
        }
        let voice = &change["audio"]["output"]["voice"];
        if spoken && !voice.is_null() && *voice != self.value["audio"]["output"]["voice"] {
            let message = "Cannot update a conversation's voice if assistant audio is present.";
            return Err(ApiError::new("cannot_update_voice", message, None));
        }
        let mut value = self.value.clone();
        for (name, new) in change.as_object().into_iter().flatten() {
            if name != "audio" {
                value[name] = new.clone();
            }
        }
        for side in ["input", "output"] {
            for (name, new) in change["audio"][side].as_object().into_iter().flatten() {
                let turn = name == "turn_detection" && !new.is_null();
                value["audio"][side][name] = if turn { turn_defaults(new) } else { new.clone() };
            }
        }
        Ok(Self::read(value))
    }

    pub(super) fn instructions(&self) -> &str {
        self.value["instructions"].as_str().unwrap_or_default()
    }
}

/// Fills in what the client left out, as the vendor echoes it.
fn turn_defaults(given: &Value) -> Value {
    let mut full = if given["type"] == "semantic_vad" {
        json!({"eagerness": "auto"})
    } else {
        json!({"threshold": 0.5, "prefix_padding_ms": 300, "silence_duration_ms": 500, "idle_timeout_ms": null})
    };
    full["create_response"] = json!(true);
    full["interrupt_response"] = json!(true);
    for (name, value) in given.as_object().into_iter().flatten() {
        full[name] = value.clone();
    }
    full
}

fn turns(value: &Value) -> Turns {
    if value.is_null() {
        return Turns::Manual;
    }
    let number = |name: &str, default: u64| value[name].as_u64().unwrap_or(default) as u32;
    let vad = if value["type"] == "semantic_vad" {
        // The vendor waits until the words sound finished; without a model of that, an eager listener waits less.
        let silence_duration_ms = match value["eagerness"].as_str() {
            Some("low") => 2_000,
            Some("high") => 400,
            _ => 1_000,
        };
        VadOptions { silence_duration_ms, ..VadOptions::default() }
    } else {
        VadOptions {
            threshold: value["threshold"].as_f64().unwrap_or(0.5) as f32,
            prefix_padding_ms: number("prefix_padding_ms", 300),
            silence_duration_ms: number("silence_duration_ms", 500),
        }
    };
    Turns::Detected {
        vad,
        create_response: value["create_response"].as_bool().unwrap_or(true),
        interrupt_response: value["interrupt_response"].as_bool().unwrap_or(true),
        idle_timeout_ms: value["idle_timeout_ms"].as_u64().map(|ms| ms as u32),
    }
}
