//! The user's side of a session: the audio buffer, turns, and what was understood.

use std::time::Duration;

use base64::{Engine, prelude::BASE64_STANDARD};
use serde_json::json;

use super::{
    Vendor,
    config::{Config, Format, Turns},
    conversation::Item,
    lock,
    rules::{Prompt, UNINTELLIGIBLE},
    session::{Due, Session},
    validate::ApiError,
};
use crate::speech::{CaptionDecoder, Resampler, Vad, VadEvent, VadOptions};

/// The least that can be committed.
const MIN_COMMIT_MS: f64 = 100.0;

/// What has been heard of the user.
pub(super) struct Input {
    resampler: Resampler,
    captions: CaptionDecoder,
    vad: Vad,
    /// Samples since the last commit or clear.
    buffered: usize,
    /// Samples since the session began.
    received: usize,
    words: Vec<String>,
    /// Whether anybody spoke since the last commit, with words or without.
    speech: bool,
    /// The item that the turn in progress will become.
    turn: Option<String>,
}

impl Input {
    pub(super) fn new(config: &Config) -> Self {
        Self {
            resampler: Resampler::new(24_000, 8_000),
            captions: CaptionDecoder::new(),
            vad: Vad::new(vad_options(config)),
            buffered: 0,
            received: 0,
            words: Vec::new(),
            speech: false,
            turn: None,
        }
    }

    pub(super) fn configure(&mut self, old: &Config, new: &Config) {
        if old.input != new.input {
            self.resampler = Resampler::new(24_000, 8_000);
            self.captions = CaptionDecoder::new();
        }
        self.vad.set_options(vad_options(new));
    }

    pub(super) fn clear(&mut self) {
        self.buffered = 0;
        self.words.clear();
        self.speech = false;
    }

    fn received_ms(&self) -> u32 {
        (self.received / 8) as u32
    }

    /// What the buffer holds in words, emptying it.
    fn take(&mut self) -> (String, f64) {
        let text = match self.words.as_slice() {
            [] if self.speech => UNINTELLIGIBLE.to_owned(),
            words => words.join(" "),
        };
        let seconds = self.buffered as f64 / 8_000.0;
        self.clear();
        (text, seconds)
    }
}

fn vad_options(config: &Config) -> VadOptions {
    match config.turns {
        Turns::Detected { vad, .. } => vad,
        Turns::Manual => VadOptions::default(),
    }
}

fn decode_base64(audio: &str, param: &str) -> Result<Vec<u8>, ApiError> {
    BASE64_STANDARD.decode(audio).map_err(|_| {
        ApiError::value(
            param,
            format!("Invalid '{param}'. Expected base64-encoded audio bytes, but got an invalid value."),
        )
    })
}

impl Session {
    pub(super) async fn append(&mut self, audio: &str) -> Result<(), ApiError> {
        let bytes = decode_base64(audio, "audio")?;
        let samples = self.config.input.decode(&bytes, &mut self.input.resampler)?;
        let seconds = bytes.len() as f64 / (self.config.input.bytes_per_ms() * 1_000) as f64;
        lock(&self.record).append(&bytes, seconds, self.shared.options.record_audio);
        self.input.received += samples.len();
        self.input.buffered += samples.len();
        let words = self.input.captions.push(&samples);
        if !words.is_empty() {
            lock(&self.record).hear(&words);
            self.input.words.extend(words.into_iter().map(|word| word.text));
        }
        for event in self.input.vad.push(&samples) {
            self.turn(event).await;
        }
        self.audio_misfortunes().await;
        Ok(())
    }

    async fn turn(&mut self, event: VadEvent) {
        let Turns::Detected { create_response, interrupt_response, .. } = self.config.turns else {
            self.input.speech = true;
            return;
        };
        match event {
            VadEvent::SpeechStarted { at_ms } => {
                self.idle += 1;
                self.input.speech = true;
                let item_id = self.id("item");
                self.input.turn = Some(item_id.clone());
                let event = json!({
                    "type": "input_audio_buffer.speech_started", "audio_start_ms": at_ms, "item_id": item_id,
                });
                self.send(event).await;
                let active = self.responses.iter().find(|r| r.in_conversation).map(|r| r.id.clone());
                if interrupt_response && let Some(id) = active {
                    self.cancel(&id, "turn_detected").await;
                }
            }
            VadEvent::SpeechStopped { at_ms } => {
                let item_id = match self.input.turn.take() {
                    Some(id) => id,
                    None => return, // the turn began before turn detection was switched on
                };
                let event = json!({
                    "type": "input_audio_buffer.speech_stopped", "audio_end_ms": at_ms, "item_id": item_id,
                });
                self.send(event).await;
                self.commit(item_id).await;
                if create_response {
                    self.respond_to_turn(Prompt::default()).await;
                }
            }
        }
    }

    pub(super) async fn manual_commit(&mut self) -> Result<(), ApiError> {
        let buffered_ms = self.input.buffered as f64 / 8.0;
        // The resampler still holds a little of 24 kHz audio.
        let slack = if self.config.input == Format::Pcm24 { 5.0 } else { 0.0 };
        if buffered_ms + slack < MIN_COMMIT_MS {
            let message = format!(
                "Error committing input audio buffer: buffer too small. Expected at least 100ms of audio, but buffer only \
                 has {buffered_ms:.2}ms of audio."
            );
            return Err(ApiError::new("input_audio_buffer_commit_empty", message, None));
        }
        let item_id = match self.input.turn.take() {
            Some(id) => id,
            None => self.id("item"),
        };
        self.commit(item_id).await;
        Ok(())
    }

    /// Makes the buffer the user's next message.
    async fn commit(&mut self, item_id: String) {
        self.idle += 1;
        let (text, seconds) = self.input.take();
        let before = self.conversation.last_id().map(str::to_owned);
        let event =
            json!({"type": "input_audio_buffer.committed", "previous_item_id": before, "item_id": item_id});
        self.send(event).await;
        let content = json!([{"type": "input_audio", "transcript": null}]);
        let body = json!({"type": "message", "status": "completed", "role": "user", "content": content});
        let mut item = Item::new(item_id.clone(), body);
        item.heard = Some(text.clone());
        let body = item.body.clone();
        self.conversation.push(item);
        for kind in ["conversation.item.added", "conversation.item.done"] {
            self.send(json!({"type": kind, "previous_item_id": before, "item": body})).await;
        }
        if self.config.transcribe {
            let delay = self.shared.options.transcription_delay;
            self.after(delay, Due::Transcript { item_id, text, seconds });
        }
    }

    pub(super) async fn transcribed(&mut self, item_id: &str, text: &str, seconds: f64) {
        let Some(item) = self.conversation.get_mut(item_id) else { return };
        item.body["content"][0]["transcript"] = json!(text);
        const KIND: &str = "conversation.item.input_audio_transcription";
        for (index, word) in text.split(' ').filter(|w| !w.is_empty()).enumerate() {
            let event = match self.shared.options.vendor {
                Vendor::OpenAi => {
                    let delta = if index == 0 { word.to_owned() } else { format!(" {word}") };
                    json!({"type": format!("{KIND}.delta"), "item_id": item_id, "content_index": 0, "delta": delta})
                }
                Vendor::Xai => {
                    let so_far = text.split(' ').take(index + 1).collect::<Vec<_>>().join(" ");
                    json!({"type": format!("{KIND}.updated"), "item_id": item_id, "content_index": 0, "transcript": so_far})
                }
            };
            self.send(event).await;
        }
        let usage = json!({"type": "duration", "seconds": seconds.ceil()});
        let event = json!({
            "type": format!("{KIND}.completed"), "item_id": item_id, "content_index": 0,
            "transcript": text, "usage": usage,
        });
        self.send(event).await;
    }

    /// Starts the idle timeout when the assistant's audio will have been played.
    pub(super) fn start_idle_clock(&mut self, playing: Duration) {
        if let Turns::Detected { idle_timeout_ms: Some(idle_ms), .. } = self.config.turns {
            self.idle += 1;
            let wait = playing + Duration::from_millis(u64::from(idle_ms));
            self.after(wait, Due::Idle(self.idle));
        }
    }

    pub(super) async fn idled(&mut self, idle: u64) {
        if idle != self.idle || self.input.vad.is_speaking() || !self.responses.is_empty() {
            return;
        }
        let Turns::Detected { idle_timeout_ms: Some(idle_ms), .. } = self.config.turns else { return };
        let end_ms = self.input.received_ms();
        let item_id = self.id("item");
        let event = json!({
            "type": "input_audio_buffer.timeout_triggered", "audio_start_ms": end_ms.saturating_sub(idle_ms),
            "audio_end_ms": end_ms, "item_id": item_id,
        });
        self.send(event).await;
        self.commit(item_id).await;
        self.respond_to_turn(Prompt { idle: true, ..Prompt::default() }).await;
    }

    /// Reads the words out of audio that the client puts into an item, and keeps the audio out of the item's JSON.
    pub(super) fn understand(&mut self, item: &mut Item) -> Result<(), ApiError> {
        let mut heard = Vec::new();
        let is_user = item.body["role"] == "user";
        for part in item.body["content"].as_array_mut().into_iter().flatten() {
            if let Some(text) = part["text"].as_str() {
                heard.push(text.to_owned());
            }
            let Some(audio) = part.as_object_mut().and_then(|part| part.remove("audio")) else { continue };
            let bytes = decode_base64(audio.as_str().unwrap_or_default(), "item.content.audio")?;
            let mut resampler = Resampler::new(24_000, 8_000);
            let mut samples = self.config.input.decode(&bytes, &mut resampler)?;
            samples.extend([0; 400]);
            let words = CaptionDecoder::new().push(&samples);
            heard.extend(words.into_iter().map(|word| word.text));
        }
        if is_user && !heard.is_empty() {
            item.heard = Some(heard.join(" "));
        }
        Ok(())
    }
}
