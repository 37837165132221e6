//! Flux: a recogniser that judges turns by their meaning.

use std::collections::VecDeque;

use serde::Deserialize;
use serde_json::json;

use super::{RawWord, encoding, ended, failed, ms};
use crate::live::channel::{Broken, Dialect, Frame, Frames, Phase};
use crate::live::listening::{Heard, ListeningCommand, ListeningEvent, ListeningRequest};
use crate::usage::Usage;

pub(super) fn query(request: &ListeningRequest, model: &str) -> Vec<(&'static str, String)> {
    let mut query: Vec<(&'static str, String)> = encoding(request.encoding).into();
    if let Some(threshold) = request.end_threshold {
        query.push(("eot_threshold", threshold.clamp(0.5, 0.9).to_string()));
    }
    if let Some(threshold) = request.eager_threshold {
        query.push(("eager_eot_threshold", threshold.clamp(0.3, 0.9).to_string()));
    }
    if let Some(silence) = request.end_silence {
        query.push(("eot_timeout_ms", silence.as_millis().clamp(500, 10_000).to_string()));
    }
    if let (Some(language), true) = (&request.language, model.contains("multi")) {
        let language = language.split('-').next().unwrap_or(language);
        query.push(("language_hint", language.to_owned()));
    }
    query.extend(request.keyterms.iter().map(|term| ("keyterm", term.clone())));
    query
}

/// One socket's reader and writer. Pure.
#[derive(Debug, Default)]
pub struct Flux {
    ready: bool,
    /// Whether an answer to `ForceEndTurn` or `CloseStream` is owed.
    forced: bool,
    finishing: bool,
    /// How far the recogniser has come, in milliseconds of audio.
    heard_ms: u64,
}

#[derive(Deserialize)]
#[serde(tag = "type")]
enum Message {
    Connected {
        request_id: Option<String>,
    },
    TurnInfo(TurnInfo),
    Error {
        #[serde(default)]
        code: String,
        #[serde(default)]
        description: String,
    },
    Warning {
        #[serde(default)]
        code: String,
        #[serde(default)]
        description: String,
    },
    ConfigureFailure {
        #[serde(default)]
        description: Option<String>,
    },
    #[serde(other)]
    Other,
}

#[derive(Deserialize)]
struct TurnInfo {
    event: String,
    turn_index: u64,
    audio_window_start: f64,
    audio_window_end: f64,
    transcript: String,
    #[serde(default)]
    words: Vec<RawWord>,
    #[serde(default)]
    end_of_turn_confidence: Option<f32>,
    #[serde(default)]
    languages: Option<Vec<String>>,
}

impl Dialect for Flux {
    type Command = ListeningCommand;
    type Event = ListeningEvent;

    fn open(&mut self, _: &mut VecDeque<ListeningEvent>, _: &mut Frames) {}

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
                out.send(json!({"type": "ForceEndTurn"}));
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
            Message::Connected { request_id } => {
                self.ready = true;
                events.push_back(ListeningEvent::Ready(request_id));
            }
            Message::TurnInfo(info) => self.turn(info, events),
            Message::Error { code, description } => return Err(failed(&code, &description)),
            Message::Warning { code, description } => {
                // Nothing to end: no answer follows.
                self.forced = false;
                events.push_back(ListeningEvent::Warning(format!("{code}: {description}")));
            }
            Message::ConfigureFailure { description } => {
                events.push_back(ListeningEvent::Warning(description.unwrap_or_default()));
            }
            Message::Other => {}
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
        events.push_back(ListeningEvent::Finished(Usage { audio_ms: self.heard_ms, ..Usage::default() }));
        Ok(())
    }

    fn phase(&self) -> Phase {
        match (self.ready, self.forced || self.finishing) {
            (false, _) => Phase::Opening,
            (true, false) => Phase::Quiet,
            (true, true) => Phase::Owing,
        }
    }
}

impl Flux {
    fn turn(&mut self, info: TurnInfo, events: &mut VecDeque<ListeningEvent>) {
        self.heard_ms = self.heard_ms.max(ms(info.audio_window_end));
        let turn = info.turn_index;
        let start = ms(info.audio_window_start);
        let heard = Heard {
            turn,
            text: info.transcript,
            words: info.words.into_iter().filter_map(RawWord::timed).collect(),
            confidence: info.end_of_turn_confidence,
            language: info.languages.and_then(|languages| languages.into_iter().next()),
        };
        let said = !heard.text.is_empty();
        let event = match info.event.as_str() {
            "StartOfTurn" => {
                let at_ms = heard.words.first().map_or(start, |word| word.start_ms);
                events.push_back(ListeningEvent::SpeechStarted { turn, at_ms: Some(at_ms) });
                said.then_some(ListeningEvent::Partial(heard))
            }
            "Update" => said.then_some(ListeningEvent::Partial(heard)),
            "EagerEndOfTurn" => Some(ListeningEvent::EagerEnd(heard)),
            "TurnResumed" => Some(ListeningEvent::Resumed { turn }),
            "EndOfTurn" => {
                self.forced = false;
                Some(ListeningEvent::EndOfTurn(heard))
            }
            other => Some(ListeningEvent::Warning(format!("an unknown event of a turn: {other}"))),
        };
        events.extend(event);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_turn_as_the_vendors_types_write_it() {
        let mut flux = Flux::default();
        let mut events = VecDeque::new();
        for text in [
            r#"{"type":"Connected","request_id":"r","sequence_id":0}"#,
            r#"{"type":"TurnInfo","request_id":"r","sequence_id":1,"event":"StartOfTurn","turn_index":0,"audio_window_start":0.0,
               "audio_window_end":0.24,"transcript":"hello","words":[{"word":"hello","confidence":0.9,"start":0.1,"end":0.2}],
               "end_of_turn_confidence":0.1}"#,
            r#"{"type":"TurnInfo","request_id":"r","sequence_id":2,"event":"EagerEndOfTurn","turn_index":0,"audio_window_start":0.0,
               "audio_window_end":0.8,"transcript":"hello there","words":[],"end_of_turn_confidence":0.5}"#,
            r#"{"type":"TurnInfo","request_id":"r","sequence_id":3,"event":"TurnResumed","turn_index":0,"audio_window_start":0.0,
               "audio_window_end":1.0,"transcript":"hello there","words":[],"end_of_turn_confidence":0.1}"#,
            r#"{"type":"TurnInfo","request_id":"r","sequence_id":4,"event":"EndOfTurn","turn_index":0,"audio_window_start":0.0,
               "audio_window_end":1.6,"transcript":"hello there friend","words":[],"end_of_turn_confidence":0.9,"trigger":"model"}"#,
        ] {
            flux.frame(Frame::Text(text.into()), &mut events, &mut Frames::default()).unwrap();
        }
        let kinds: Vec<_> = events
            .iter()
            .map(|event| match event {
                ListeningEvent::Ready(id) => format!("ready {}", id.clone().unwrap_or_default()),
                ListeningEvent::SpeechStarted { turn, at_ms } => {
                    format!("started {turn} {}", at_ms.unwrap_or(0))
                }
                ListeningEvent::Partial(heard) => format!("partial {}", heard.text),
                ListeningEvent::EagerEnd(heard) => format!("eager {}", heard.text),
                ListeningEvent::Resumed { turn } => format!("resumed {turn}"),
                ListeningEvent::EndOfTurn(heard) => format!("end {}", heard.text),
                other => format!("{other:?}"),
            })
            .collect();
        let expected = [
            "ready r",
            "started 0 100",
            "partial hello",
            "eager hello there",
            "resumed 0",
            "end hello there friend",
        ];
        assert_eq!(kinds, expected);
    }
}
