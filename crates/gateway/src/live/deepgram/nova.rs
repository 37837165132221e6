//! Nova and its older relatives: results are pieces, from which turns are put together here.

use std::collections::VecDeque;
use std::time::Duration;

use serde::Deserialize;
use serde_json::json;

use super::{RawWord, encoding, ended, failed, ms};
use crate::live::channel::{Broken, Dialect, Frame, Frames, Phase};
use crate::live::listening::{Heard, ListeningCommand, ListeningEvent, ListeningRequest};
use crate::speech::Word;
use crate::usage::Usage;

/// The vendor closes after this silence.
const PATIENCE: Duration = Duration::from_secs(10);

pub(super) fn query(request: &ListeningRequest, model: &str) -> Vec<(&'static str, String)> {
    let mut query: Vec<(&'static str, String)> = encoding(request.encoding).into();
    let silence = request.end_silence.unwrap_or(Duration::from_millis(300));
    let fixed = [
        ("channels", "1".to_owned()),
        ("interim_results", "true".to_owned()),
        ("punctuate", "true".to_owned()),
        ("vad_events", "true".to_owned()),
        ("endpointing", silence.as_millis().to_string()),
        // The vendor takes at least a second here.
        ("utterance_end_ms", silence.as_millis().clamp(1_000, 5_000).to_string()),
    ];
    query.extend(fixed);
    if let Some(language) = &request.language {
        query.push(("language", language.clone()));
    }
    // Only the newest generation knows terms.
    if model.starts_with("nova-3") {
        query.extend(request.keyterms.iter().map(|term| ("keyterm", term.clone())));
    }
    query
}

/// One socket's reader and writer. Pure.
#[derive(Debug, Default)]
pub struct Nova {
    turn: u64,
    text: String,
    words: Vec<Word>,
    confidence: Option<f32>,
    /// `Finalize` without its answer.
    forced: bool,
    finishing: bool,
    audio_ms: u64,
}

#[derive(Deserialize)]
#[serde(tag = "type")]
enum Message {
    Results(Results),
    SpeechStarted {
        timestamp: f64,
    },
    UtteranceEnd {},
    Metadata {
        #[serde(default)]
        duration: f64,
    },
    Error {
        #[serde(default)]
        variant: String,
        #[serde(default)]
        code: Option<String>,
        #[serde(default)]
        description: String,
    },
    #[serde(other)]
    Other,
}

#[derive(Deserialize)]
struct Results {
    start: f64,
    duration: f64,
    #[serde(default)]
    is_final: bool,
    #[serde(default)]
    speech_final: bool,
    #[serde(default)]
    from_finalize: bool,
    channel: Channel,
}

#[derive(Deserialize)]
struct Channel {
    alternatives: Vec<Alternative>,
}

#[derive(Deserialize)]
struct Alternative {
    transcript: String,
    #[serde(default)]
    confidence: Option<f32>,
    #[serde(default)]
    words: Vec<RawWord>,
}

impl Nova {
    fn heard(&self) -> Heard {
        Heard {
            turn: self.turn,
            text: self.text.clone(),
            words: self.words.clone(),
            confidence: self.confidence,
            language: None,
        }
    }

    fn end_turn(&mut self, events: &mut VecDeque<ListeningEvent>) {
        events.push_back(ListeningEvent::EndOfTurn(self.heard()));
        self.turn += 1;
        self.text.clear();
        self.words.clear();
        self.confidence = None;
    }

    fn results(&mut self, results: Results, events: &mut VecDeque<ListeningEvent>) {
        self.audio_ms = self.audio_ms.max(ms(results.start + results.duration));
        if let Some(best) = results.channel.alternatives.into_iter().next()
            && !best.transcript.is_empty()
        {
            let mut heard = self.heard();
            if !heard.text.is_empty() {
                heard.text.push(' ');
            }
            heard.text.push_str(&best.transcript);
            heard.words.extend(best.words.into_iter().filter_map(RawWord::timed));
            heard.confidence = best.confidence;
            if results.is_final {
                self.text.clone_from(&heard.text);
                self.words.clone_from(&heard.words);
                self.confidence = heard.confidence;
            }
            let ends = results.speech_final || results.from_finalize;
            if !(results.is_final && ends) {
                events.push_back(match results.is_final {
                    true => ListeningEvent::Final(heard),
                    false => ListeningEvent::Partial(heard),
                });
            }
        }
        let forced = results.from_finalize && std::mem::take(&mut self.forced);
        if forced || (results.is_final && results.speech_final && !self.text.is_empty()) {
            self.end_turn(events);
        }
    }
}

impl Dialect for Nova {
    type Command = ListeningCommand;
    type Event = ListeningEvent;

    fn open(&mut self, events: &mut VecDeque<ListeningEvent>, _: &mut Frames) {
        // The vendor says nothing before it has heard something.
        events.push_back(ListeningEvent::Ready(None));
    }

    fn command(
        &mut self,
        command: ListeningCommand,
        _: &mut VecDeque<ListeningEvent>,
        out: &mut Frames,
    ) -> Result<(), Broken> {
        match command {
            ListeningCommand::Audio(bytes) => out.audio(Frame::Binary(bytes)),
            ListeningCommand::EndTurn => {
                self.forced = true;
                out.send(json!({"type": "Finalize"}));
            }
            ListeningCommand::Finish => {
                self.finishing = true;
                out.send(json!({"type": "CloseStream"}));
            }
        }
        Ok(())
    }

    fn frame(
        &mut self,
        frame: Frame,
        events: &mut VecDeque<ListeningEvent>,
        _: &mut Frames,
    ) -> Result<(), Broken> {
        let Frame::Text(text) = frame else {
            return Err(Broken::Malformed("a binary message, which this protocol does not have".into()));
        };
        match serde_json::from_str(&text)? {
            Message::Results(results) => self.results(results, events),
            Message::SpeechStarted { timestamp } => {
                events
                    .push_back(ListeningEvent::SpeechStarted { turn: self.turn, at_ms: Some(ms(timestamp)) });
            }
            Message::UtteranceEnd {} if !self.text.is_empty() => self.end_turn(events),
            Message::Metadata { duration } => self.audio_ms = self.audio_ms.max(ms(duration)),
            Message::Error { variant, code, description } => {
                return Err(failed(&code.unwrap_or(variant), &description));
            }
            Message::UtteranceEnd {} | Message::Other => {}
        }
        Ok(())
    }

    fn closed(
        &mut self,
        code: Option<u16>,
        reason: &str,
        events: &mut VecDeque<ListeningEvent>,
    ) -> Result<(), Broken> {
        if !self.finishing || !matches!(code, Some(1000)) {
            return Err(ended(code, reason));
        }
        if !self.text.is_empty() {
            self.end_turn(events);
        }
        events.push_back(ListeningEvent::Finished(Usage { audio_ms: self.audio_ms, ..Usage::default() }));
        Ok(())
    }

    fn phase(&self) -> Phase {
        if self.forced || self.finishing { Phase::Owing } else { Phase::Quiet }
    }

    fn patience(&self) -> Option<Duration> {
        Some(PATIENCE)
    }

    fn keep_alive(&mut self, out: &mut Frames) {
        out.send(json!({"type": "KeepAlive"}));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn result(text: &str, is_final: bool, speech_final: bool) -> String {
        json!({"type": "Results", "channel_index": [0, 1], "start": 0.0, "duration": 1.0, "is_final": is_final,
            "speech_final": speech_final, "channel": {"alternatives": [{"transcript": text, "confidence": 0.9, "words": []}]},
            "metadata": {"request_id": "r"}})
        .to_string()
    }

    #[test]
    fn finals_are_put_together_until_speech_ends() {
        let mut nova = Nova::default();
        let mut events = VecDeque::new();
        for text in [
            result("one", false, false),
            result("one two", true, false),
            result("three", false, false),
            result("three four", true, true),
            json!({"type": "UtteranceEnd", "channel": [0, 1], "last_word_end": 1.0}).to_string(),
        ] {
            nova.frame(Frame::Text(text.into()), &mut events, &mut Frames::default()).unwrap();
        }
        let texts: Vec<String> = events
            .into_iter()
            .map(|event| match event {
                ListeningEvent::Partial(heard) => format!("p {}", heard.text),
                ListeningEvent::Final(heard) => format!("f {}", heard.text),
                ListeningEvent::EndOfTurn(heard) => format!("e {}", heard.text),
                other => format!("{other:?}"),
            })
            .collect();
        assert_eq!(texts, ["p one", "f one two", "p one two three", "e one two three four"]);
    }
}
