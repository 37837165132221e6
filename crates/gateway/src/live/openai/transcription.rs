//! Streaming transcription: a Realtime session that only listens.

use std::collections::VecDeque;

use async_trait::async_trait;
use serde_json::{Value, json};

use super::commands::{Command, format};
use super::events::{ServerEvent, parse};
use super::realtime::{OpenAiLive, bearer, ended};
use crate::Error;
use crate::error::Fault;
use crate::live::channel::{Broken, Dialect, Frame, Frames, Held, Phase};
use crate::live::listening::{
    Heard, Listening, ListeningCapabilities, ListeningCommand, ListeningEvent, ListeningRequest, SpeechToText,
};
use crate::live::{Encoding, Payload};
use crate::providers::Attempt;
use crate::providers::openai::{explain, fault_of_code};
use crate::providers::wire::{below, context_failure, with_query};
use crate::usage::Usage;

/// Turns whose words have not come.
const MOST_OPEN: usize = 256;

/// One socket's reader and writer. Pure.
#[derive(Debug)]
pub struct Transcriber {
    request: ListeningRequest,
    model: String,
    id: Option<String>,
    /// Whether the vendor has greeted, before which it takes nothing.
    greeted: bool,
    held: Held<ListeningCommand>,
    ready: bool,
    next_turn: u64,
    /// Turns that began and whose words are not complete, in order: the vendor's name, and the words so far.
    open: VecDeque<Turn>,
    /// A commit of ours without an answer.
    committing: bool,
    finishing: bool,
    bytes: usize,
}

#[derive(Debug)]
struct Turn {
    item: String,
    number: u64,
    text: String,
    committed: bool,
}

impl Transcriber {
    /// A socket that writes down what it hears by this model.
    #[must_use]
    pub fn new(request: &ListeningRequest, model: &str) -> Self {
        Self {
            request: request.clone(),
            model: model.to_owned(),
            id: None,
            greeted: false,
            held: Held::default(),
            ready: false,
            next_turn: 0,
            open: VecDeque::new(),
            committing: false,
            finishing: false,
            bytes: 0,
        }
    }

    fn configuration(&self) -> Value {
        let mut transcription = json!({"model": self.model});
        if let Some(language) = self.request.language.as_ref().and_then(|l| l.split('-').next()) {
            transcription["language"] = json!(language);
        }
        if !self.request.keyterms.is_empty() {
            transcription["prompt"] =
                json!(format!("Expect these terms: {}.", self.request.keyterms.join(", ")));
        }
        let silence = self.request.end_silence.map_or(500, |silence| silence.as_millis() as u64);
        json!({"type": "session.update", "event_id": "lh1", "session": {
            "type": "transcription",
            "audio": {"input": {
                "format": format(self.request.encoding),
                "transcription": transcription,
                "turn_detection": {"type": "server_vad", "threshold": 0.5, "prefix_padding_ms": 300,
                    "silence_duration_ms": silence},
            }},
        }})
    }

    fn tell(&mut self, command: ListeningCommand, out: &mut Frames) -> Result<(), Broken> {
        match command {
            ListeningCommand::Audio(bytes) => {
                self.bytes += bytes.len();
                let payload = Payload::Raw(bytes);
                let base64 = payload.base64().map_err(|error| Broken::Malformed(error.to_string()))?;
                out.audio(Command::Append(&base64).to_json(0).into());
            }
            ListeningCommand::EndTurn => self.commit(out),
            ListeningCommand::Finish => {
                self.finishing = true;
                self.commit(out);
            }
        }
        Ok(())
    }

    fn turn(&mut self, item: &str) -> Result<&mut Turn, Broken> {
        if let Some(index) = self.open.iter().position(|turn| turn.item == item) {
            return Ok(&mut self.open[index]);
        }
        if self.open.len() >= MOST_OPEN {
            return Err(Broken::Malformed(format!("{MOST_OPEN} turns without words")));
        }
        let number = self.next_turn;
        self.next_turn += 1;
        self.open.push_back(Turn { item: item.to_owned(), number, text: String::new(), committed: false });
        let last = self.open.len() - 1;
        Ok(&mut self.open[last])
    }

    fn commit(&mut self, out: &mut Frames) {
        self.committing = true;
        out.send(Command::Commit.to_json(2));
    }

    fn close_if_done(&self, out: &mut Frames) {
        if self.finishing && !self.committing && self.open.iter().all(|turn| !turn.committed) {
            out.close();
        }
    }

    fn event(&mut self, event: ServerEvent<'_>, events: &mut VecDeque<ListeningEvent>) -> Result<(), Broken> {
        match event {
            ServerEvent::SessionUpdated if !self.ready => {
                self.ready = true;
                events.push_back(ListeningEvent::Ready(self.id.take()));
            }
            ServerEvent::SpeechStarted { item_id } => {
                let turn = self.turn(&item_id)?.number;
                events.push_back(ListeningEvent::SpeechStarted { turn, at_ms: None });
            }
            ServerEvent::Committed { item_id } => {
                self.committing = false;
                self.turn(&item_id)?.committed = true;
            }
            ServerEvent::CallerTranscriptDelta { item_id, text, is_whole } => {
                let turn = self.turn(&item_id)?;
                if is_whole {
                    turn.text.clear();
                }
                turn.text.push_str(&text);
                let heard = Heard { turn: turn.number, text: turn.text.clone(), ..Heard::default() };
                events.push_back(ListeningEvent::Partial(heard));
            }
            ServerEvent::CallerTranscript { item_id, text } => {
                let turn = self.turn(&item_id)?.number;
                self.open.retain(|turn| turn.item != *item_id);
                if text.is_none() {
                    events.push_back(ListeningEvent::Warning("a turn could not be written down".into()));
                }
                let text = text.unwrap_or_default().into_owned();
                events.push_back(ListeningEvent::EndOfTurn(Heard { turn, text, ..Heard::default() }));
            }
            // Nothing was left to commit.
            ServerEvent::Error(error) if error.code == "input_audio_buffer_commit_empty" => {
                self.committing = false;
                if !self.finishing {
                    let turn = self.next_turn;
                    events.push_back(ListeningEvent::EndOfTurn(Heard { turn, ..Heard::default() }));
                }
            }
            ServerEvent::Error(error) if !self.ready || error.is_fatal() || error.ends_session() => {
                let fault = fault_of_code(&error.code).unwrap_or(match error.ends_session() {
                    true => Fault::Interrupted,
                    false => Fault::InvalidRequest,
                });
                return Err(Broken::Failed { fault, message: error.message });
            }
            ServerEvent::Error(error) => events.push_back(ListeningEvent::Warning(error.message)),
            _ => {}
        }
        Ok(())
    }
}

impl Dialect for Transcriber {
    type Command = ListeningCommand;
    type Event = ListeningEvent;

    fn open(&mut self, _: &mut VecDeque<ListeningEvent>, _: &mut Frames) {}

    fn command(
        &mut self,
        command: ListeningCommand,
        _: &mut VecDeque<ListeningEvent>,
        out: &mut Frames,
    ) -> Result<(), Broken> {
        if !self.greeted {
            return self.held.push(command);
        }
        self.tell(command, out)
    }

    fn frame(
        &mut self,
        frame: Frame,
        events: &mut VecDeque<ListeningEvent>,
        out: &mut Frames,
    ) -> Result<(), Broken> {
        let Frame::Text(text) = frame else {
            return Err(Broken::Malformed("a binary message, which this protocol does not have".into()));
        };
        let event = parse(&text).map_err(|error| Broken::Malformed(error.to_string()))?;
        if matches!(event, ServerEvent::SessionCreated { .. }) {
            self.id = serde_json::from_str::<Value>(&text)?["session"]["id"].as_str().map(str::to_owned);
            self.greeted = true;
            out.send(self.configuration());
            return self.held.take().into_iter().try_for_each(|command| self.tell(command, out));
        }
        self.event(event, events)?;
        self.close_if_done(out);
        Ok(())
    }

    fn closed(
        &mut self,
        code: Option<u16>,
        reason: &str,
        events: &mut VecDeque<ListeningEvent>,
    ) -> Result<(), Broken> {
        let owed = self.committing || self.open.iter().any(|turn| turn.committed);
        if !self.finishing || owed || !matches!(code, None | Some(1000 | 1005)) {
            return Err(ended(code, reason));
        }
        let audio_ms = self.request.encoding.duration(self.bytes).as_millis() as u64;
        events.push_back(ListeningEvent::Finished(Usage { audio_ms, ..Usage::default() }));
        Ok(())
    }

    fn phase(&self) -> Phase {
        let owing = self.committing || self.finishing || self.open.iter().any(|turn| turn.committed);
        match (self.ready, owing) {
            (false, _) => Phase::Opening,
            (true, false) => Phase::Quiet,
            (true, true) => Phase::Owing,
        }
    }
}

#[async_trait]
impl SpeechToText for OpenAiLive {
    fn capabilities(&self, _: &str) -> ListeningCapabilities {
        ListeningCapabilities {
            pcm_rates: 24_000..=24_000,
            g711: true,
            judges_turns: false,
            eager: false,
            end_turn: true,
            word_times: false,
        }
    }

    async fn listen(&self, request: &ListeningRequest, attempt: &Attempt) -> Result<Listening, Error> {
        if let Encoding::Pcm16(rate) = request.encoding
            && rate != 24_000
        {
            return Err(context_failure(attempt, Fault::Unsupported, "it hears PCM at 24 kHz only"));
        }
        let url = with_query(below(&attempt.base_url, "realtime"), [("intent", "transcription")]);
        let dialect = Transcriber::new(request, &attempt.model);
        self.dialer.open(url, bearer(attempt)?, attempt, explain, dialect).await
    }
}
