//! ElevenLabs over WebSocket (`multi-stream-input`): up to five utterances at a time, each a context; more wait here.
//! Sources: `../shared/specs/voice.md` §3.5 and the types of `elevenlabs` 2.78 (PyPI).

use std::collections::VecDeque;
use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use serde::Deserialize;
use serde_json::json;

use super::caps::ELEVENLABS_INACTIVITY;
use super::cartesia::{number, permitted};
use super::channel::{Broken, Dialect, Frame, Frames, Phase};
use super::socket::{Dialer, Upgrade};
use super::speaking::{
    Speaking, SpeakingCapabilities, SpeakingCommand, SpeakingEvent, SpeakingRequest, TextToSpeech, Utterance,
};
use super::{Encoding, Payload};
use crate::Error;
use crate::error::Fault;
use crate::providers::Attempt;
use crate::providers::elevenlabs::{VOICE, explain};
use crate::providers::wire::{below, context_failure, with_query};
use crate::speech::Word;
use crate::usage::Usage;

/// A sixth context closes the socket.
const MOST_CONTEXTS: usize = 5;
/// Most utterances that wait.
const MOST_WAITING: usize = 64;

/// The adapter.
#[derive(Debug, Clone)]
pub struct ElevenLabsLive {
    dialer: Dialer,
}

impl ElevenLabsLive {
    /// Over these sockets.
    #[must_use]
    pub fn new(dialer: Dialer) -> Self {
        Self { dialer }
    }
}

#[async_trait]
impl TextToSpeech for ElevenLabsLive {
    fn capabilities(&self, _: &str) -> SpeakingCapabilities {
        SpeakingCapabilities {
            pcm_rates: &[8_000, 16_000, 22_050, 24_000, 44_100, 48_000],
            mulaw: true,
            alaw: true,
            word_times: true,
            utterances: MOST_CONTEXTS,
            speeds: 0.7..=1.2,
        }
    }

    async fn open(&self, request: &SpeakingRequest, attempt: &Attempt) -> Result<Speaking, Error> {
        permitted(request, &self.capabilities(&attempt.model), attempt)?;
        let voice = request.voice.as_deref().unwrap_or(VOICE);
        if !voice.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'_' || b == b'-') || voice.is_empty() {
            let message = format!("`{voice}` is no id of a voice");
            return Err(context_failure(attempt, Fault::InvalidRequest, message));
        }
        let path = format!("v1/text-to-speech/{voice}/multi-stream-input");
        let format = match request.encoding {
            Encoding::Pcm16(rate) => format!("pcm_{rate}"),
            Encoding::Mulaw => "ulaw_8000".to_owned(),
            Encoding::Alaw => "alaw_8000".to_owned(),
        };
        let mut query = vec![
            ("model_id", attempt.model.to_string()),
            ("output_format", format),
            ("inactivity_timeout", ELEVENLABS_INACTIVITY.as_secs().to_string()),
        ];
        if request.word_times {
            query.push(("sync_alignment", "true".to_owned()));
        }
        if let Some(language) = request.language.as_ref().and_then(|language| language.split('-').next()) {
            query.push(("language_code", language.to_owned()));
        }
        let url = with_query(below(&attempt.base_url, &path), query);
        let upgrade = match &attempt.key {
            None => Upgrade::default(),
            Some(key) => Upgrade::default()
                .secret("xi-api-key", key.expose())
                .map_err(|message| context_failure(attempt, Fault::Unauthorized, message))?,
        };
        self.dialer.open(url, upgrade, attempt, explain, MultiContext::new(request)).await
    }
}

/// One socket's reader and writer. Pure.
#[derive(Debug)]
pub struct MultiContext {
    encoding: Encoding,
    speed: Option<f32>,
    contexts: Vec<Context>,
    waiting: VecDeque<Waiting>,
    finishing: bool,
    characters: u64,
}

#[derive(Debug)]
struct Context {
    utterance: Utterance,
    /// The beginning of a word whose end has not come: the vendor takes whole words.
    tail: String,
    closed: bool,
    cancelled: bool,
    /// Bytes of audio so far: chunks' times count from their own start.
    bytes: usize,
    /// A word whose end is in the next chunk.
    word: Option<Word>,
}

#[derive(Debug)]
struct Waiting {
    utterance: Utterance,
    text: String,
    complete: bool,
}

#[derive(Deserialize)]
struct Message<'a> {
    #[serde(default, borrow)]
    audio: Option<&'a str>,
    #[serde(default, alias = "contextId")]
    context_id: Option<String>,
    #[serde(default, alias = "isFinal")]
    is_final: Option<bool>,
    #[serde(default)]
    alignment: Option<Alignment>,
    #[serde(default)]
    error: Option<String>,
    #[serde(default)]
    message: Option<String>,
}

#[derive(Deserialize)]
struct Alignment {
    #[serde(default)]
    chars: Vec<String>,
    #[serde(default, rename = "charStartTimesMs", alias = "char_start_times_ms")]
    starts: Vec<u64>,
    #[serde(default, rename = "charDurationsMs", alias = "char_durations_ms", alias = "charsDurationsMs")]
    durations: Vec<u64>,
}

impl MultiContext {
    /// A socket that speaks as `request` says.
    #[must_use]
    pub fn new(request: &SpeakingRequest) -> Self {
        Self {
            encoding: request.encoding,
            speed: request.speed,
            contexts: Vec::new(),
            waiting: VecDeque::new(),
            finishing: false,
            characters: 0,
        }
    }

    fn context(&mut self, utterance: Utterance) -> Option<&mut Context> {
        self.contexts.iter_mut().find(|context| context.utterance == utterance)
    }

    fn begin(&mut self, utterance: Utterance, out: &mut Frames) {
        let mut first = json!({"text": " ", "context_id": utterance.to_string()});
        if let Some(speed) = self.speed {
            first["voice_settings"] = json!({"speed": speed});
        }
        out.send(first);
        let (tail, word) = (String::new(), None);
        self.contexts.push(Context { utterance, tail, closed: false, cancelled: false, bytes: 0, word });
    }

    fn text(&mut self, utterance: Utterance, text: &str, out: &mut Frames) -> Result<(), Broken> {
        if self.context(utterance).is_none() {
            if let Some(waiting) = self.waiting.iter_mut().find(|waiting| waiting.utterance == utterance) {
                waiting.text.push_str(text);
                return Ok(());
            }
            if self.contexts.len() >= MOST_CONTEXTS {
                if self.waiting.len() >= MOST_WAITING {
                    let message = format!("{MOST_WAITING} utterances wait already");
                    return Err(Broken::Failed { fault: Fault::Busy, message });
                }
                self.waiting.push_back(Waiting { utterance, text: text.to_owned(), complete: false });
                return Ok(());
            }
            self.begin(utterance, out);
        }
        let mut sent = 0;
        if let Some(context) = self.context(utterance) {
            if context.closed {
                return Err(Broken::Unsupported("say more of an utterance that has ended"));
            }
            context.tail.push_str(text);
            if let Some(cut) = context.tail.rfind(char::is_whitespace) {
                let rest = context.tail.split_off(cut);
                let words = std::mem::replace(&mut context.tail, rest.trim_start().to_owned());
                if !words.trim().is_empty() {
                    sent = words.trim_end().chars().count() as u64 + 1;
                    out.send(json!({"text": format!("{} ", words.trim_end()), "context_id": utterance.to_string()}));
                }
            }
        }
        self.characters += sent;
        Ok(())
    }

    /// Says what is left of the last word.
    fn flush(&mut self, utterance: Utterance, out: &mut Frames) {
        let mut sent = 0;
        if let Some(context) = self.context(utterance).filter(|context| !context.closed) {
            let tail = std::mem::take(&mut context.tail);
            sent = tail.chars().count() as u64 + u64::from(!tail.is_empty());
            out.send(json!({"text": format!("{tail} "), "context_id": utterance.to_string(), "flush": true}));
        }
        self.characters += sent;
    }

    fn close_context(&mut self, utterance: Utterance, out: &mut Frames) {
        if let Some(context) = self.context(utterance)
            && !std::mem::replace(&mut context.closed, true)
        {
            out.send(json!({"context_id": utterance.to_string(), "close_context": true}));
        }
    }

    fn settle(&mut self, utterance: Utterance, out: &mut Frames) {
        self.contexts.retain(|context| context.utterance != utterance);
        while self.contexts.len() < MOST_CONTEXTS
            && let Some(next) = self.waiting.pop_front()
        {
            self.begin(next.utterance, out);
            // It fits: a place has just become free.
            let _ = self.text(next.utterance, &next.text, out);
            if next.complete {
                self.flush(next.utterance, out);
                self.close_context(next.utterance, out);
            }
        }
        self.close_if_done(out);
    }

    fn close_if_done(&self, out: &mut Frames) {
        if self.finishing && self.contexts.is_empty() && self.waiting.is_empty() {
            out.send(json!({"close_socket": true}));
        }
    }
}

impl Context {
    /// Words that are complete with this chunk, whose characters have times from its start.
    fn words(&mut self, alignment: &Alignment, offset_ms: u64) -> Vec<Word> {
        let mut words = Vec::new();
        let times = alignment.starts.iter().zip(&alignment.durations);
        for (character, (start, duration)) in alignment.chars.iter().zip(times) {
            if character.trim().is_empty() {
                words.extend(self.word.take());
                continue;
            }
            let (start_ms, end_ms) = (offset_ms + start, offset_ms + start + duration);
            let word = self.word.get_or_insert(Word { text: String::new(), start_ms, end_ms });
            word.text.push_str(character);
            word.end_ms = end_ms;
        }
        words
    }
}

impl Dialect for MultiContext {
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
            SpeakingCommand::Text(utterance, text) => return self.text(utterance, &text, out),
            SpeakingCommand::Flush(utterance) => self.flush(utterance, out),
            SpeakingCommand::End(utterance) => {
                if self.context(utterance).is_some() {
                    self.flush(utterance, out);
                    self.close_context(utterance, out);
                } else if let Some(waiting) = self.waiting.iter_mut().find(|w| w.utterance == utterance) {
                    waiting.complete = true;
                } else {
                    events.push_back(SpeakingEvent::Done(utterance));
                }
            }
            SpeakingCommand::Cancel(utterance) => match self.context(utterance) {
                Some(context) => {
                    context.cancelled = true;
                    self.close_context(utterance, out);
                }
                None => {
                    self.waiting.retain(|waiting| waiting.utterance != utterance);
                    events.push_back(SpeakingEvent::Cancelled(utterance));
                }
            },
            SpeakingCommand::Finish => {
                self.finishing = true;
                self.waiting.iter_mut().for_each(|waiting| waiting.complete = true);
                let open: Vec<Utterance> = self.contexts.iter().map(|context| context.utterance).collect();
                for utterance in open {
                    self.flush(utterance, out);
                    self.close_context(utterance, out);
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
        if let Some(error) = message.error.or(message.message.filter(|_| message.audio.is_none())) {
            return Err(failed(&error, ""));
        }
        let encoding = self.encoding;
        let Some(utterance) = message.context_id.as_deref().and_then(number) else { return Ok(()) };
        let Some(context) = self.context(utterance) else { return Ok(()) };
        if let Some(audio) = message.audio.filter(|audio| !audio.is_empty())
            && !context.cancelled
        {
            let payload = Payload::Base64(text.slice_ref(audio.as_bytes()));
            let offset = encoding.duration(context.bytes).as_millis() as u64;
            context.bytes += payload.audio_len();
            let words =
                message.alignment.map(|alignment| context.words(&alignment, offset)).unwrap_or_default();
            events.push_back(SpeakingEvent::Audio(utterance, payload));
            if !words.is_empty() {
                events.push_back(SpeakingEvent::Words(utterance, words));
            }
        }
        if message.is_final == Some(true) {
            if context.cancelled {
                events.push_back(SpeakingEvent::Cancelled(utterance));
            } else {
                let last = context.word.take();
                events.extend(last.map(|word| SpeakingEvent::Words(utterance, vec![word])));
                events.push_back(SpeakingEvent::Done(utterance));
            }
            self.settle(utterance, out);
        }
        Ok(())
    }

    fn closed(
        &mut self,
        code: Option<u16>,
        reason: &str,
        events: &mut VecDeque<SpeakingEvent>,
    ) -> Result<(), Broken> {
        let owed = !self.contexts.is_empty() || !self.waiting.is_empty();
        if !self.finishing || owed || !matches!(code, Some(1000)) {
            return match code {
                Some(1008) => Err(failed(reason, reason)),
                _ => Err(super::openai::ended(code, reason)),
            };
        }
        let usage = Usage { characters: self.characters, ..Usage::default() };
        events.push_back(SpeakingEvent::Finished(usage));
        Ok(())
    }

    fn phase(&self) -> Phase {
        match self.finishing || self.contexts.iter().any(|context| context.closed) {
            true => Phase::Owing,
            false => Phase::Quiet,
        }
    }

    fn patience(&self) -> Option<Duration> {
        (!self.contexts.is_empty()).then_some(ELEVENLABS_INACTIVITY)
    }

    fn keep_alive(&mut self, out: &mut Frames) {
        for context in self.contexts.iter().filter(|context| !context.closed) {
            out.send(json!({"text": "", "context_id": context.utterance.to_string()}));
        }
    }
}

/// What the vendor's errors mean, by their names or words.
fn failed(name: &str, reason: &str) -> Broken {
    let fault = match name {
        name if name.contains("max_active_conversations") => Fault::RateLimited,
        name if name.contains("quota") => Fault::Billing,
        name if name.contains("api_key") || name.contains("auth") => Fault::Unauthorized,
        name if name.contains("too_many") || name.contains("rate") => Fault::RateLimited,
        name if name.contains("busy") => Fault::Overloaded,
        name if name.contains("not_found") || name.contains("not exist") => Fault::NotFound,
        _ => Fault::InvalidRequest,
    };
    let message = if reason.is_empty() { name } else { reason };
    Broken::Failed { fault, message: message.to_owned() }
}

#[cfg(test)]
mod tests {
    use serde_json::Value;

    use super::*;

    fn json_of(frame: Frame) -> Value {
        match frame {
            Frame::Text(text) => serde_json::from_str(&text).unwrap(),
            Frame::Binary(_) => panic!("no binary messages here"),
        }
    }

    fn told(dialect: &mut MultiContext, commands: &[SpeakingCommand]) -> (Vec<Value>, Vec<SpeakingEvent>) {
        let (mut events, mut out) = (VecDeque::new(), Frames::default());
        for command in commands {
            dialect.command(command.clone(), &mut events, &mut out).unwrap();
        }
        (out.drain().map(json_of).collect(), events.into())
    }

    #[test]
    fn words_are_sent_whole() {
        let mut dialect = MultiContext::new(&SpeakingRequest::new(Encoding::Mulaw));
        let u = Utterance(1);
        let pieces = ["Hel", "lo the", "re.", " By", "e"].map(|text| SpeakingCommand::Text(u, text.into()));
        let (mut sent, _) = told(&mut dialect, &pieces);
        sent.extend(told(&mut dialect, &[SpeakingCommand::End(u)]).0);
        let texts: Vec<_> = sent.iter().filter_map(|message| message["text"].as_str()).collect();
        assert_eq!(texts, [" ", "Hello ", "there. ", "Bye "]);
        assert_eq!(sent.last().unwrap()["close_context"], true);
    }

    #[test]
    fn the_sixth_utterance_waits() {
        let mut dialect = MultiContext::new(&SpeakingRequest::new(Encoding::Mulaw));
        let commands: Vec<_> =
            (0..6).map(|n| SpeakingCommand::Text(Utterance(n), format!("Number {n} "))).collect();
        let (sent, _) = told(&mut dialect, &commands);
        assert!(sent.iter().all(|message| message["context_id"] != "u5"), "{sent:?}");
        let (mut events, mut out) = (VecDeque::new(), Frames::default());
        let last = Frame::Text(r#"{"isFinal":true,"contextId":"u0"}"#.into());
        dialect.frame(last, &mut events, &mut out).unwrap();
        let sent: Vec<_> = out.drain().map(json_of).collect();
        assert_eq!(sent[1], json!({"text": "Number 5 ", "context_id": "u5"}));
    }

    #[test]
    fn words_go_on_over_chunks() {
        let mut dialect = MultiContext::new(&SpeakingRequest::new(Encoding::Mulaw));
        told(&mut dialect, &[SpeakingCommand::Text(Utterance(1), "hi you ".into())]);
        let (mut events, mut out) = (VecDeque::new(), Frames::default());
        let audio = Payload::Raw(vec![0xff; 800].into()).base64().unwrap().into_owned();
        for (chars, starts) in
            [(["h", "i", " ", "y"], [0, 20, 40, 80]), (["o", "u", ".", " "], [0, 10, 20, 30])]
        {
            let message = json!({"audio": audio, "contextId": "u1", "alignment":
                {"chars": chars, "charStartTimesMs": starts, "charDurationsMs": [10, 10, 10, 10]}});
            dialect.frame(message.into(), &mut events, &mut out).unwrap();
        }
        let words: Vec<Word> = events
            .into_iter()
            .filter_map(|event| match event {
                SpeakingEvent::Words(_, words) => Some(words),
                _ => None,
            })
            .flatten()
            .collect();
        let times: Vec<_> = words.iter().map(|w| (w.text.as_str(), w.start_ms, w.end_ms)).collect();
        assert_eq!(times, [("hi", 0, 30), ("you.", 80, 130)]);
    }
}
