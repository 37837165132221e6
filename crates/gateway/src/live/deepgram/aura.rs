//! Aura: one utterance at a time on a socket, without word times. Others wait here for their turn.

use std::collections::VecDeque;

use serde::Deserialize;
use serde_json::json;

use super::{ended, failed};
use crate::live::Payload;
use crate::live::channel::{Broken, Dialect, Frame, Frames, Phase};
use crate::live::speaking::{SpeakingCommand, SpeakingEvent, Utterance};
use crate::providers::sentences;
use crate::usage::Usage;

/// Most characters of one message.
const MOST_CHARACTERS: usize = 2_000;
/// Most utterances that wait.
const MOST_WAITING: usize = 64;

/// One socket's reader and writer. Pure.
#[derive(Debug, Default)]
pub struct Aura {
    ready: bool,
    current: Option<Current>,
    waiting: VecDeque<Waiting>,
    /// `Clear` without its answer: audio that still comes is of no use.
    clearing: Option<Utterance>,
    finishing: bool,
    closing: bool,
    characters: u64,
}

#[derive(Debug)]
struct Current {
    utterance: Utterance,
    /// Text that no flush has followed yet.
    unflushed: bool,
    /// Flushes without their answer.
    flushes: u32,
    /// All text has come.
    complete: bool,
}

#[derive(Debug)]
struct Waiting {
    utterance: Utterance,
    text: String,
    complete: bool,
}

#[derive(Deserialize)]
#[serde(tag = "type")]
enum Message {
    Metadata {
        #[serde(default)]
        request_id: Option<String>,
    },
    Flushed {},
    Cleared {},
    Warning {
        #[serde(default)]
        code: String,
        #[serde(default)]
        description: String,
    },
    Error {
        #[serde(default)]
        code: String,
        #[serde(default)]
        description: String,
    },
    #[serde(other)]
    Other,
}

impl Aura {
    fn speak(&mut self, text: &str, out: &mut Frames) {
        self.characters += text.chars().count() as u64;
        if text.chars().count() <= MOST_CHARACTERS {
            out.send(json!({"type": "Speak", "text": text}));
        } else {
            for piece in sentences::pieces(text, MOST_CHARACTERS - 1) {
                out.send(json!({"type": "Speak", "text": format!("{piece} ")}));
            }
        }
    }

    fn text(&mut self, utterance: Utterance, text: &str, out: &mut Frames) -> Result<(), Broken> {
        if self.current.is_none() && self.clearing.is_none() && self.waiting.is_empty() {
            let (unflushed, flushes, complete) = (false, 0, false);
            self.current = Some(Current { utterance, unflushed, flushes, complete });
        }
        if let Some(current) = self.current.as_mut().filter(|current| current.utterance == utterance) {
            current.unflushed |= !text.trim().is_empty();
            self.speak(text, out);
            return Ok(());
        }
        let full = self.waiting.len() >= MOST_WAITING;
        match self.waiting.iter_mut().find(|waiting| waiting.utterance == utterance) {
            Some(waiting) => waiting.text.push_str(text),
            None if full => {
                return Err(Broken::Failed {
                    fault: crate::error::Fault::Busy,
                    message: format!("{MOST_WAITING} utterances wait already"),
                });
            }
            None => {
                self.waiting.push_back(Waiting { utterance, text: text.to_owned(), complete: false });
            }
        }
        Ok(())
    }

    fn flush(&mut self, out: &mut Frames) {
        if let Some(current) = &mut self.current
            && current.unflushed
        {
            current.unflushed = false;
            current.flushes += 1;
            out.send(json!({"type": "Flush"}));
        }
    }

    /// Takes up what waits, as far as it can be said now; closes when nothing is left.
    fn advance(&mut self, events: &mut VecDeque<SpeakingEvent>, out: &mut Frames) {
        loop {
            if self.clearing.is_some() {
                return;
            }
            if let Some(current) = &self.current {
                if !current.complete || current.unflushed || current.flushes > 0 {
                    return;
                }
                events.push_back(SpeakingEvent::Done(current.utterance));
                self.current = None;
            }
            let Some(next) = self.waiting.pop_front() else { break };
            let unflushed = !next.text.trim().is_empty();
            self.current =
                Some(Current { utterance: next.utterance, unflushed, flushes: 0, complete: next.complete });
            if unflushed {
                self.speak(&next.text, out);
            }
            if next.complete {
                self.flush(out);
            }
        }
        if self.finishing && !std::mem::replace(&mut self.closing, true) {
            out.send(json!({"type": "Close"}));
        }
    }

    fn end(&mut self, utterance: Utterance, events: &mut VecDeque<SpeakingEvent>, out: &mut Frames) {
        if let Some(current) = self.current.as_mut().filter(|current| current.utterance == utterance) {
            current.complete = true;
            self.flush(out);
            self.advance(events, out);
        } else if let Some(waiting) = self.waiting.iter_mut().find(|waiting| waiting.utterance == utterance) {
            waiting.complete = true;
        } else {
            // Nothing was to be said.
            events.push_back(SpeakingEvent::Done(utterance));
        }
    }

    fn cancel(&mut self, utterance: Utterance, events: &mut VecDeque<SpeakingEvent>, out: &mut Frames) {
        if self.current.as_ref().is_some_and(|current| current.utterance == utterance) {
            self.current = None;
            self.clearing = Some(utterance);
            out.send(json!({"type": "Clear"}));
            return;
        }
        self.waiting.retain(|waiting| waiting.utterance != utterance);
        events.push_back(SpeakingEvent::Cancelled(utterance));
    }
}

impl Dialect for Aura {
    type Command = SpeakingCommand;
    type Event = SpeakingEvent;

    fn open(&mut self, _: &mut VecDeque<SpeakingEvent>, _: &mut Frames) {}

    fn command(
        &mut self,
        command: SpeakingCommand,
        events: &mut VecDeque<SpeakingEvent>,
        out: &mut Frames,
    ) -> Result<(), Broken> {
        match command {
            SpeakingCommand::Text(utterance, text) => return self.text(utterance, &text, out),
            SpeakingCommand::Flush(utterance) => {
                if self.current.as_ref().is_some_and(|current| current.utterance == utterance) {
                    self.flush(out);
                }
            }
            SpeakingCommand::End(utterance) => self.end(utterance, events, out),
            SpeakingCommand::Cancel(utterance) => self.cancel(utterance, events, out),
            SpeakingCommand::Finish => {
                self.finishing = true;
                if let Some(current) = &mut self.current {
                    current.complete = true;
                }
                self.waiting.iter_mut().for_each(|waiting| waiting.complete = true);
                self.flush(out);
                self.advance(events, out);
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
        let text = match frame {
            Frame::Binary(audio) => {
                if let Some(current) = self.current.as_ref().filter(|_| self.clearing.is_none()) {
                    events.push_back(SpeakingEvent::Audio(current.utterance, Payload::Raw(audio)));
                }
                return Ok(());
            }
            Frame::Text(text) => text,
        };
        match serde_json::from_str(&text)? {
            Message::Metadata { request_id } if !self.ready => {
                self.ready = true;
                events.push_back(SpeakingEvent::Ready(request_id));
            }
            Message::Flushed {} if self.clearing.is_none() => {
                if let Some(current) = &mut self.current {
                    current.flushes = current.flushes.saturating_sub(1);
                    if !current.complete {
                        events.push_back(SpeakingEvent::Flushed(current.utterance));
                    }
                }
                self.advance(events, out);
            }
            Message::Cleared {} => {
                if let Some(utterance) = self.clearing.take() {
                    events.push_back(SpeakingEvent::Cancelled(utterance));
                }
                self.advance(events, out);
            }
            Message::Warning { code, description } => {
                events.push_back(SpeakingEvent::Warning(format!("{code}: {description}")));
            }
            Message::Error { code, description } => return Err(failed(&code, &description)),
            Message::Metadata { .. } | Message::Flushed {} | Message::Other => {}
        }
        Ok(())
    }

    fn closed(
        &mut self,
        code: Option<u16>,
        reason: &str,
        events: &mut VecDeque<SpeakingEvent>,
    ) -> Result<(), Broken> {
        let owed = self.current.is_some() || self.clearing.is_some();
        if !self.finishing || owed || !matches!(code, Some(1000)) {
            return Err(ended(code, reason));
        }
        let usage = Usage { characters: self.characters, ..Usage::default() };
        events.push_back(SpeakingEvent::Finished(usage));
        Ok(())
    }

    fn phase(&self) -> Phase {
        let flushing = self.current.as_ref().is_some_and(|current| current.flushes > 0);
        match (self.ready, flushing || self.clearing.is_some() || self.finishing) {
            (false, _) => Phase::Opening,
            (true, false) => Phase::Quiet,
            (true, true) => Phase::Owing,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const A: Utterance = Utterance(1);
    const B: Utterance = Utterance(2);

    #[test]
    fn the_next_utterance_waits_for_the_one_before() {
        let (mut aura, mut events, mut out) = (Aura::default(), VecDeque::new(), Frames::default());
        let mut tell = |aura: &mut Aura, command| {
            aura.command(command, &mut events, &mut out).unwrap();
            out.drain().count()
        };
        assert_eq!(tell(&mut aura, SpeakingCommand::Text(A, "One.".into())), 1);
        assert_eq!(tell(&mut aura, SpeakingCommand::Text(B, "Two.".into())), 0);
        assert_eq!(tell(&mut aura, SpeakingCommand::End(B)), 0);
        assert_eq!(tell(&mut aura, SpeakingCommand::End(A)), 1);
        let flushed = Frame::Text(r#"{"type":"Flushed","sequence_id":0}"#.into());
        aura.frame(flushed, &mut events, &mut out).unwrap();
        assert_eq!(events, [SpeakingEvent::Done(A)]);
        assert_eq!(out.drain().count(), 2, "the text and the flush of the next");
    }

    #[test]
    fn audio_of_what_was_cancelled_is_dropped() {
        let (mut aura, mut events, mut out) = (Aura::default(), VecDeque::new(), Frames::default());
        aura.command(SpeakingCommand::Text(A, "One.".into()), &mut events, &mut out).unwrap();
        aura.command(SpeakingCommand::Cancel(A), &mut events, &mut out).unwrap();
        aura.frame(Frame::Binary(vec![0; 8].into()), &mut events, &mut out).unwrap();
        let cleared = Frame::Text(r#"{"type":"Cleared","sequence_id":0}"#.into());
        aura.frame(cleared, &mut events, &mut out).unwrap();
        assert_eq!(events, [SpeakingEvent::Cancelled(A)]);
    }
}
