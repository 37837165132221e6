//! Cartesia over WebSocket (`/tts/websocket`): many utterances at a time, each a context. Sources:
//! `../shared/specs/voice.md` §3.4 and the types of `cartesia` 4.2 (PyPI).

use std::collections::{HashMap, VecDeque};

use async_trait::async_trait;
use bytes::Bytes;
use serde::Deserialize;
use serde_json::{Value, json};

use super::channel::{Broken, Dialect, Frame, Frames, Phase};
use super::socket::{Dialer, Upgrade};
use super::speaking::{
    Speaking, SpeakingCapabilities, SpeakingCommand, SpeakingEvent, SpeakingRequest, TextToSpeech, Utterance,
};
use super::{Encoding, Payload};
use crate::Error;
use crate::error::Fault;
use crate::providers::Attempt;
use crate::providers::cartesia::{VERSION, VOICE, explain};
use crate::providers::wire::{below, context_failure, with_query};
use crate::speech::Word;
use crate::usage::Usage;

/// Contexts that are open or not yet forgotten.
const MOST_CONTEXTS: usize = 64;
/// How long the vendor waits for more text before it speaks what it has: whole sentences sound better.
const BUFFER_MS: u32 = 1_000;

/// The adapter.
#[derive(Debug, Clone)]
pub struct CartesiaLive {
    dialer: Dialer,
}

impl CartesiaLive {
    /// Over these sockets.
    #[must_use]
    pub fn new(dialer: Dialer) -> Self {
        Self { dialer }
    }
}

/// Refuses what a vendor does not speak before anything is dialled.
pub(super) fn permitted(
    request: &SpeakingRequest,
    can: &SpeakingCapabilities,
    attempt: &Attempt,
) -> Result<(), Error> {
    let lacking = match () {
        () if !can.speaks(request.encoding) => "speak this encoding of audio",
        () if request.speed.is_some_and(|speed| !can.speeds.contains(&speed)) => "speak at this speed",
        () => return Ok(()),
    };
    Err(context_failure(attempt, Fault::Unsupported, format!("it does not {lacking}")))
}

#[async_trait]
impl TextToSpeech for CartesiaLive {
    fn capabilities(&self, _: &str) -> SpeakingCapabilities {
        SpeakingCapabilities {
            pcm_rates: &[8_000, 16_000, 22_050, 24_000, 44_100, 48_000],
            mulaw: true,
            alaw: true,
            word_times: true,
            // The smallest plan's.
            utterances: 2,
            speeds: 0.6..=1.5,
        }
    }

    async fn open(&self, request: &SpeakingRequest, attempt: &Attempt) -> Result<Speaking, Error> {
        permitted(request, &self.capabilities(&attempt.model), attempt)?;
        let url = with_query(below(&attempt.base_url, "tts/websocket"), [("cartesia_version", VERSION)]);
        let upgrade = match &attempt.key {
            None => Upgrade::default(),
            Some(key) => Upgrade::default()
                .secret("x-api-key", key.expose())
                .map_err(|message| context_failure(attempt, Fault::Unauthorized, message))?,
        };
        let dialect = Contexts::new(request, &attempt.model);
        self.dialer.open(url, upgrade, attempt, explain, dialect).await
    }
}

/// One socket's reader and writer. Pure.
#[derive(Debug)]
pub struct Contexts {
    /// What every message repeats.
    template: Value,
    contexts: HashMap<Utterance, State>,
    finishing: bool,
    characters: u64,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum State {
    /// More text may come.
    Open,
    /// The vendor speaks it to its end.
    Ended,
    /// What still comes of it is dropped.
    Cancelled,
}

#[derive(Deserialize)]
struct Message<'a> {
    #[serde(rename = "type")]
    kind: String,
    #[serde(default)]
    context_id: Option<String>,
    #[serde(default, borrow)]
    data: Option<&'a str>,
    #[serde(default)]
    word_timestamps: Option<Timestamps>,
    #[serde(default)]
    status_code: Option<u16>,
    #[serde(default)]
    error_code: Option<String>,
    #[serde(default)]
    title: Option<String>,
    #[serde(default)]
    message: Option<String>,
    #[serde(default)]
    error: Option<String>,
}

#[derive(Deserialize)]
struct Timestamps {
    words: Vec<String>,
    start: Vec<f64>,
    end: Vec<f64>,
}

impl Contexts {
    /// A socket that speaks as `request` says, by this model.
    #[must_use]
    pub fn new(request: &SpeakingRequest, model: &str) -> Self {
        let (encoding, rate) = match request.encoding {
            Encoding::Pcm16(rate) => ("pcm_s16le", rate),
            Encoding::Mulaw => ("pcm_mulaw", 8_000),
            Encoding::Alaw => ("pcm_alaw", 8_000),
        };
        let voice = request.voice.as_deref().unwrap_or(VOICE);
        let mut template = json!({
            "model_id": model,
            "voice": {"mode": "id", "id": voice},
            "output_format": {"container": "raw", "encoding": encoding, "sample_rate": rate},
            "add_timestamps": request.word_times,
            "max_buffer_delay_ms": BUFFER_MS,
        });
        if let Some(language) = &request.language {
            template["language"] = json!(language.split('-').next());
        }
        if let Some(speed) = request.speed {
            template["generation_config"] = json!({"speed": speed});
        }
        Self { template, contexts: HashMap::new(), finishing: false, characters: 0 }
    }

    fn generate(&self, utterance: Utterance, text: &str, more: bool, flush: bool) -> Value {
        let mut message = self.template.clone();
        message["context_id"] = json!(utterance.to_string());
        message["transcript"] = json!(text);
        message["continue"] = json!(more);
        if flush {
            message["flush"] = json!(true);
        }
        message
    }

    fn settle(&mut self, utterance: Utterance, out: &mut Frames) {
        self.contexts.remove(&utterance);
        self.close_if_done(out);
    }

    fn close_if_done(&self, out: &mut Frames) {
        if self.finishing && self.contexts.values().all(|state| *state == State::Cancelled) {
            out.close();
        }
    }

    fn error(
        &mut self,
        message: Message<'_>,
        utterance: Option<Utterance>,
    ) -> Result<Option<String>, Broken> {
        let text = [message.message, message.title, message.error].into_iter().flatten().next();
        let text = text.unwrap_or_default();
        let status = message.status_code.unwrap_or(500);
        let code = message.error_code.unwrap_or_default();
        if utterance.is_some() {
            return Ok(Some(format!("{status} {code} {text}")));
        }
        let fault = match status {
            401 => Fault::Unauthorized,
            402 => Fault::Billing,
            429 => Fault::RateLimited,
            500.. => Fault::ServerError,
            _ => Fault::InvalidRequest,
        };
        Err(Broken::Failed { fault, message: text })
    }
}

impl Dialect for Contexts {
    type Command = SpeakingCommand;
    type Event = SpeakingEvent;

    fn open(&mut self, events: &mut VecDeque<SpeakingEvent>, _: &mut Frames) {
        // The vendor does not greet.
        events.push_back(SpeakingEvent::Ready(None));
    }

    fn command(
        &mut self,
        command: SpeakingCommand,
        events: &mut VecDeque<SpeakingEvent>,
        out: &mut Frames,
    ) -> Result<(), Broken> {
        match command {
            SpeakingCommand::Text(utterance, text) => {
                match self.contexts.get(&utterance) {
                    Some(State::Open) => {}
                    Some(_) => return Err(Broken::Unsupported("say more of an utterance that has ended")),
                    None if self.contexts.len() >= MOST_CONTEXTS => {
                        let message = format!("{MOST_CONTEXTS} utterances are open already");
                        return Err(Broken::Failed { fault: Fault::Busy, message });
                    }
                    None => {}
                }
                self.contexts.insert(utterance, State::Open);
                self.characters += text.chars().count() as u64;
                out.send(self.generate(utterance, &text, true, false));
            }
            SpeakingCommand::Flush(utterance) => {
                if self.contexts.get(&utterance) == Some(&State::Open) {
                    out.send(self.generate(utterance, "", true, true));
                }
            }
            SpeakingCommand::End(utterance) => match self.contexts.get_mut(&utterance) {
                Some(state @ State::Open) => {
                    *state = State::Ended;
                    out.send(self.generate(utterance, "", false, false));
                }
                Some(_) => {}
                // Nothing was to be said.
                None => events.push_back(SpeakingEvent::Done(utterance)),
            },
            SpeakingCommand::Cancel(utterance) => {
                // The vendor does not answer; what it still sends is dropped.
                if let Some(state) = self.contexts.get_mut(&utterance) {
                    *state = State::Cancelled;
                    out.send(json!({"context_id": utterance.to_string(), "cancel": true}));
                }
                events.push_back(SpeakingEvent::Cancelled(utterance));
                self.close_if_done(out);
                if self.contexts.len() >= MOST_CONTEXTS {
                    self.contexts.retain(|_, state| *state != State::Cancelled);
                }
            }
            SpeakingCommand::Finish => {
                self.finishing = true;
                let open: Vec<Utterance> = self
                    .contexts
                    .iter()
                    .filter(|(_, state)| **state == State::Open)
                    .map(|(u, _)| *u)
                    .collect();
                for utterance in open {
                    self.contexts.insert(utterance, State::Ended);
                    out.send(self.generate(utterance, "", false, false));
                }
                self.close_if_done(out);
            }
        }
        Ok(())
    }

    fn frame(
        &mut self,
        frame: Frame,
        events: &mut VecDeque<SpeakingEvent>,
        out: &mut Frames,
    ) -> Result<(), Broken> {
        let Frame::Text(text) = frame else {
            return Err(Broken::Malformed("a binary message, which this protocol does not have".into()));
        };
        let text = Bytes::from(text);
        let message: Message<'_> = serde_json::from_slice(&text)?;
        let utterance =
            message.context_id.as_deref().and_then(number).filter(|u| self.contexts.contains_key(u));
        let state = utterance.and_then(|utterance| self.contexts.get(&utterance).copied());
        match (message.kind.as_str(), utterance) {
            ("chunk", Some(utterance)) if state != Some(State::Cancelled) => {
                let data = message.data.ok_or_else(|| Broken::Malformed("a chunk without data".into()))?;
                let payload = Payload::Base64(text.slice_ref(data.as_bytes()));
                events.push_back(SpeakingEvent::Audio(utterance, payload));
            }
            ("timestamps", Some(utterance)) if state != Some(State::Cancelled) => {
                let times = message.word_timestamps;
                let times = times.ok_or_else(|| Broken::Malformed("timestamps without words".into()))?;
                let words = times.words.into_iter().zip(times.start).zip(times.end);
                let ms = |seconds: f64| (seconds.max(0.0) * 1_000.0).round() as u64;
                let words = words
                    .map(|((text, start), end)| Word { text, start_ms: ms(start), end_ms: ms(end) })
                    .collect();
                events.push_back(SpeakingEvent::Words(utterance, words));
            }
            ("flush_done", Some(utterance)) if state == Some(State::Open) => {
                events.push_back(SpeakingEvent::Flushed(utterance));
            }
            ("done", Some(utterance)) => {
                if state == Some(State::Ended) || state == Some(State::Open) {
                    events.push_back(SpeakingEvent::Done(utterance));
                }
                self.settle(utterance, out);
            }
            ("error", _) => {
                // Errors of contexts that we have forgotten concern nobody.
                if message.context_id.is_some() && utterance.is_none() {
                    return Ok(());
                }
                if let Some(told) = self.error(message, utterance)?
                    && let Some(utterance) = utterance
                {
                    if state != Some(State::Cancelled) {
                        events.push_back(SpeakingEvent::Failed(utterance, told));
                    }
                    self.settle(utterance, out);
                }
            }
            _ => {}
        }
        Ok(())
    }

    fn closed(
        &mut self,
        code: Option<u16>,
        reason: &str,
        events: &mut VecDeque<SpeakingEvent>,
    ) -> Result<(), Broken> {
        let owed = self.contexts.values().any(|state| *state != State::Cancelled);
        // 1005: an answer to our close frame, which had no code.
        if !self.finishing || owed || !matches!(code, None | Some(1000 | 1005)) {
            return Err(super::openai::ended(code, reason));
        }
        let usage = Usage { characters: self.characters, ..Usage::default() };
        events.push_back(SpeakingEvent::Finished(usage));
        Ok(())
    }

    fn phase(&self) -> Phase {
        match self.finishing || self.contexts.values().any(|state| *state == State::Ended) {
            true => Phase::Owing,
            false => Phase::Quiet,
        }
    }
}

pub(super) fn number(name: &str) -> Option<Utterance> {
    name.strip_prefix('u')?.parse().ok().map(Utterance)
}

#[cfg(test)]
mod tests {
    use super::*;

    const A: Utterance = Utterance(7);

    #[test]
    fn events_find_their_utterance() {
        let request = SpeakingRequest::new(Encoding::Mulaw);
        let mut dialect = Contexts::new(&request, "sonic-3");
        let (mut events, mut out) = (VecDeque::new(), Frames::default());
        dialect.command(SpeakingCommand::Text(A, "Hi.".into()), &mut events, &mut out).unwrap();
        dialect.command(SpeakingCommand::End(A), &mut events, &mut out).unwrap();
        for text in [
            r#"{"type":"chunk","data":"/+8=","done":false,"status_code":206,"step_time":1.0,"context_id":"u7"}"#,
            r#"{"type":"timestamps","done":false,"status_code":206,"context_id":"u7",
               "word_timestamps":{"words":["Hi."],"start":[0.0],"end":[0.25]}}"#,
            r#"{"type":"chunk","data":"AA==","done":false,"status_code":206,"step_time":1.0,"context_id":"u8"}"#,
            r#"{"type":"done","done":true,"status_code":200,"context_id":"u7"}"#,
        ] {
            dialect.frame(Frame::Text(text.into()), &mut events, &mut out).unwrap();
        }
        let word = Word { text: "Hi.".into(), start_ms: 0, end_ms: 250 };
        let expected = [
            SpeakingEvent::Audio(A, Payload::Base64("/+8=".into())),
            SpeakingEvent::Words(A, vec![word]),
            SpeakingEvent::Done(A),
        ];
        assert_eq!(events, expected);
    }

    #[test]
    fn nothing_of_a_cancelled_context_is_handed_on() {
        let mut dialect = Contexts::new(&SpeakingRequest::new(Encoding::Mulaw), "sonic-3");
        let (mut events, mut out) = (VecDeque::new(), Frames::default());
        dialect.command(SpeakingCommand::Text(A, "Hi.".into()), &mut events, &mut out).unwrap();
        dialect.command(SpeakingCommand::Cancel(A), &mut events, &mut out).unwrap();
        let late = r#"{"type":"chunk","data":"/+8=","context_id":"u7"}"#;
        dialect.frame(Frame::Text(late.into()), &mut events, &mut out).unwrap();
        assert_eq!(events, [SpeakingEvent::Cancelled(A)]);
    }
}
