//! What happened in a session, for those who run or test against the emulator.

use std::time::Instant;

use serde_json::{Value, json};

use crate::speech::HeardWord;

/// Events kept for each session; later ones are only counted.
const MAX_EVENTS: usize = 4_096;
/// Words and utterances kept for each session: the oldest make room.
const MAX_WORDS: usize = 16_384;
/// Raw audio kept for each direction when asked to: about two hours of mu-law.
const MAX_AUDIO: usize = 64 << 20;

/// One event from the client. A run of `input_audio_buffer.append` is one entry with its count and bytes.
#[derive(Debug, Clone, PartialEq)]
pub struct ClientEvent {
    /// Milliseconds since the upgrade (of the first of a run).
    pub at_ms: u64,
    /// The event's `type`, or `"?"` where it had none.
    pub kind: String,
    /// The event; for audio `{"appends": n, "bytes": n}`.
    pub body: Value,
}

/// One `error` event that was sent.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SentError {
    /// Milliseconds since the upgrade.
    pub at_ms: u64,
    /// The vendor's code.
    pub code: String,
    /// The message.
    pub message: String,
    /// The offending parameter.
    pub param: Option<String>,
}

/// How a session ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Closed {
    /// Milliseconds since the upgrade.
    pub at_ms: u64,
    /// The close code; 1005 when the client's frame had none and 1006 when there was no frame.
    pub code: u16,
    /// The close reason.
    pub reason: String,
    /// Whether the client ended it.
    pub by_client: bool,
}

/// One thing that the assistant said aloud.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Said {
    /// The conversation item.
    pub item_id: String,
    /// The words sent, then only those heard once the client has truncated the item.
    pub text: String,
    /// Audio sent, in milliseconds.
    pub audio_ms: u32,
    /// Where the client truncated it.
    pub truncated_ms: Option<u32>,
}

/// The log of one session.
#[derive(Debug, Clone)]
pub struct SessionRecord {
    /// The number of the session, from 0.
    pub index: usize,
    /// The model asked for.
    pub model: String,
    /// What the client sent.
    pub client_events: Vec<ClientEvent>,
    /// The types of what was sent, with the milliseconds since the upgrade; deltas are left out.
    pub server_events: Vec<(u64, String)>,
    /// The errors sent.
    pub errors: Vec<SentError>,
    /// How it ended, if it has.
    pub closed: Option<Closed>,
    /// Appends received.
    pub appends: u64,
    /// Seconds of audio received.
    pub audio_in_seconds: f64,
    /// Seconds of audio sent.
    pub audio_out_seconds: f64,
    /// Words read from the received audio's captions, with their place in it.
    pub heard: Vec<HeardWord>,
    /// What the assistant said, in order.
    pub said: Vec<Said>,
    /// The bytes received, when [`Options::record_audio`](super::Options::record_audio) is set.
    pub audio_in: Vec<u8>,
    /// The bytes sent, likewise.
    pub audio_out: Vec<u8>,
    opened: Instant,
}

impl SessionRecord {
    pub(super) fn new(index: usize, model: String) -> Self {
        Self {
            index,
            model,
            client_events: Vec::new(),
            server_events: Vec::new(),
            errors: Vec::new(),
            closed: None,
            appends: 0,
            audio_in_seconds: 0.0,
            audio_out_seconds: 0.0,
            heard: Vec::new(),
            said: Vec::new(),
            audio_in: Vec::new(),
            audio_out: Vec::new(),
            opened: Instant::now(),
        }
    }

    pub(super) fn at_ms(&self) -> u64 {
        self.opened.elapsed().as_millis() as u64
    }

    pub(super) fn client(&mut self, kind: &str, body: &Value) {
        if self.client_events.len() < MAX_EVENTS {
            let at_ms = self.at_ms();
            self.client_events.push(ClientEvent { at_ms, kind: kind.to_owned(), body: body.clone() });
        }
    }

    pub(super) fn append(&mut self, audio: &[u8], seconds: f64, keep: bool) {
        self.appends += 1;
        self.audio_in_seconds += seconds;
        if keep {
            keep_bytes(&mut self.audio_in, audio);
        }
        const KIND: &str = "input_audio_buffer.append";
        if let Some(last) = self.client_events.last_mut()
            && last.kind == KIND
            && let (Some(appends), Some(bytes)) = (last.body["appends"].as_u64(), last.body["bytes"].as_u64())
        {
            last.body = json!({"appends": appends + 1, "bytes": bytes + audio.len() as u64});
            return;
        }
        self.client(KIND, &json!({"appends": 1, "bytes": audio.len()}));
    }

    pub(super) fn sent_audio(&mut self, audio: &[u8], seconds: f64, keep: bool) {
        self.audio_out_seconds += seconds;
        if keep {
            keep_bytes(&mut self.audio_out, audio);
        }
    }

    pub(super) fn server(&mut self, kind: &str) {
        if !kind.ends_with(".delta") && self.server_events.len() < MAX_EVENTS {
            let at_ms = self.at_ms();
            self.server_events.push((at_ms, kind.to_owned()));
        }
    }

    pub(super) fn error(&mut self, code: &str, message: &str, param: Option<&str>) {
        if self.errors.len() < MAX_EVENTS {
            let at_ms = self.at_ms();
            let (code, message) = (code.to_owned(), message.to_owned());
            self.errors.push(SentError { at_ms, code, message, param: param.map(str::to_owned) });
        }
    }

    pub(super) fn hear(&mut self, words: &[HeardWord]) {
        self.heard.extend_from_slice(words);
        let excess = self.heard.len().saturating_sub(MAX_WORDS);
        self.heard.drain(..excess);
    }

    pub(super) fn say(&mut self, item_id: &str, text: &str, audio_ms: u32) {
        if let Some(said) = self.said.iter_mut().rev().find(|s| s.item_id == item_id) {
            said.audio_ms = audio_ms;
            if said.truncated_ms.is_none() {
                text.clone_into(&mut said.text);
            }
        } else if self.said.len() < MAX_EVENTS {
            let (item_id, text) = (item_id.to_owned(), text.to_owned());
            self.said.push(Said { item_id, text, audio_ms, truncated_ms: None });
        }
    }

    pub(super) fn truncate(&mut self, item_id: &str, heard: &str, at_ms: u32) {
        if let Some(said) = self.said.iter_mut().rev().find(|s| s.item_id == item_id) {
            heard.clone_into(&mut said.text);
            said.truncated_ms = Some(at_ms);
        }
    }

    pub(super) fn close(&mut self, code: u16, reason: &str, by_client: bool) {
        if self.closed.is_none() {
            self.closed = Some(Closed { at_ms: self.at_ms(), code, reason: reason.to_owned(), by_client });
        }
    }
}

fn keep_bytes(kept: &mut Vec<u8>, more: &[u8]) {
    let room = MAX_AUDIO.saturating_sub(kept.len());
    kept.extend_from_slice(&more[..more.len().min(room)]);
}
