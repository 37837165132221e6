//! The Realtime protocol as a dialect, and the adapter that speaks it.

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use async_trait::async_trait;
use bytes::Bytes;
use serde::Deserialize;
use serde_json::Value;
use url::Url;

use super::commands::{Command, configuration};
use super::events::{ApiError, ResponseStatus, ServerEvent, parse};
use crate::Error;
use crate::chat::ToolCall;
use crate::error::Fault;
use crate::live::Payload;
use crate::live::channel::{Broken, Dialect, Frame, Frames, Held, Phase};
use crate::live::session::{
    About, Id, OutputEnding, Session, SessionCapabilities, SessionCommand, SessionEvent, SessionRequest,
    SpeechToSpeech, TextState, Turns, VendorError,
};
use crate::live::socket::{Dialer, Upgrade};
use crate::providers::Attempt;
use crate::providers::openai::{explain, fault_of_code};
use crate::providers::wire::{below, context_failure, with_query};
use crate::usage::Usage;

/// Commands whose errors can still be told apart.
const MOST_REMEMBERED: usize = 64;

/// Whose protocol it is: vendors that follow `OpenAI`'s differ in small things.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in crate::live) enum Flavour {
    OpenAi,
    Xai,
}

/// One session's reader and writer. Pure.
#[derive(Debug)]
pub struct Realtime {
    request: SessionRequest,
    flavour: Flavour,
    id: Option<String>,
    expires_at: Option<SystemTime>,
    /// Whether the vendor has greeted, before which it takes nothing.
    greeted: bool,
    held: Held<SessionCommand>,
    ready: bool,
    /// Events that we have named, and what those were that may still be refused.
    named: u64,
    remembered: VecDeque<(u64, About)>,
    asked: u64,
    /// Answers under way, and those that are still to begin.
    open: Vec<Id>,
    expected: u32,
    /// Names that come with every delta, so that each is allocated once.
    last: Option<(Id, Id)>,
}

impl Realtime {
    /// A session as `request` describes it.
    #[must_use]
    pub fn new(request: SessionRequest) -> Self {
        Self::flavoured(request, Flavour::OpenAi)
    }

    pub(in crate::live) fn flavoured(request: SessionRequest, flavour: Flavour) -> Self {
        Self {
            request,
            flavour,
            id: None,
            expires_at: None,
            greeted: false,
            held: Held::default(),
            ready: false,
            named: 0,
            remembered: VecDeque::new(),
            asked: 0,
            open: Vec::new(),
            expected: 0,
            last: None,
        }
    }

    fn write(&mut self, command: &Command<'_>, about: About, out: &mut Frames) {
        let number = self.name(about);
        out.send(command.to_json(number));
    }

    fn name(&mut self, about: About) -> u64 {
        self.named += 1;
        self.remembered.push_back((self.named, about));
        if self.remembered.len() > MOST_REMEMBERED {
            self.remembered.pop_front();
        }
        self.named
    }

    /// The vendor has greeted: it is told what it should be, and what waited.
    fn greet(&mut self, out: &mut Frames) -> Result<(), Broken> {
        self.greeted = true;
        let mut event = match self.flavour {
            Flavour::OpenAi => configuration(&self.request),
            Flavour::Xai => crate::live::xai::configuration(&self.request),
        };
        event["event_id"] = super::event_id(self.name(About::Configuration)).into();
        out.send(event);
        self.held.take().into_iter().try_for_each(|command| self.tell(command, out))
    }

    fn tell(&mut self, command: SessionCommand, out: &mut Frames) -> Result<(), Broken> {
        let malformed = |_| Broken::Malformed("the audio is not base64".into());
        match command {
            SessionCommand::Audio(payload) => {
                let base64 = payload.base64().map_err(malformed)?;
                out.audio(Command::Append(&base64).to_json(0).into());
            }
            SessionCommand::Text(text) => {
                self.write(&Command::Text(&text), About::Other, out);
                self.ask(&Command::Respond, out);
            }
            SessionCommand::History(item) => self.write(&Command::History(&item), About::Other, out),
            SessionCommand::ToolOutput { call_id, output, .. } => {
                self.write(&Command::ToolOutput { call_id: &call_id, output: &output }, About::Other, out);
            }
            SessionCommand::Respond { instructions: None } => self.ask(&Command::Respond, out),
            SessionCommand::Respond { instructions: Some(text) } => {
                self.ask(&Command::RespondWith(&text), out);
            }
            SessionCommand::Aside { instructions } => self.ask(&Command::Summarise(&instructions), out),
            SessionCommand::Truncate { part, heard_ms } => {
                let truncate = Command::Truncate { item_id: &part, audio_end_ms: heard_ms };
                self.write(&truncate, About::Truncate, out);
            }
            SessionCommand::Cancel => self.write(&Command::Cancel, About::Cancel, out),
            // Turns begin with the audio.
            SessionCommand::StartTurn => {}
            SessionCommand::EndTurn => {
                self.write(&Command::Commit, About::Other, out);
                self.ask(&Command::Respond, out);
            }
            SessionCommand::ClearInput => self.write(&Command::Clear, About::Other, out),
            SessionCommand::Instructions(text) => {
                self.write(&Command::Instructions(&text), About::Configuration, out);
            }
        }
        Ok(())
    }

    fn ask(&mut self, command: &Command<'_>, out: &mut Frames) {
        let about = About::Respond(self.asked);
        self.asked += 1;
        self.expected += 1;
        self.write(command, about, out);
    }

    fn names(&mut self, output: &str, part: &str) -> (Id, Id) {
        match &self.last {
            Some((o, p)) if **o == *output && **p == *part => (Arc::clone(o), Arc::clone(p)),
            _ => {
                let names: (Id, Id) = (output.into(), part.into());
                self.last = Some(names.clone());
                names
            }
        }
    }

    fn error(&self, error: &ApiError) -> VendorError {
        let number: Option<u64> = error.event_id.strip_prefix("lh").and_then(|number| number.parse().ok());
        let about = number.map(|number| {
            self.remembered.iter().find(|(n, _)| *n == number).map_or(About::Other, |(_, about)| *about)
        });
        VendorError {
            code: error.code.clone(),
            message: error.message.clone(),
            fault: fault(error),
            ends_session: error.ends_session() || error.is_fatal(),
            about,
        }
    }

    fn event(
        &mut self,
        event: ServerEvent<'_>,
        text: &Bytes,
        events: &mut VecDeque<SessionEvent>,
    ) -> Result<(), Broken> {
        let event = match event {
            ServerEvent::SessionCreated { expires_at } => {
                self.id = session_id(text);
                self.expires_at = expires_at.map(|at| UNIX_EPOCH + Duration::from_secs(at));
                return Ok(());
            }
            ServerEvent::SessionUpdated if self.ready => return Ok(()),
            ServerEvent::SessionUpdated => {
                self.ready = true;
                SessionEvent::Ready { id: self.id.clone(), expires_at: self.expires_at }
            }
            ServerEvent::SpeechStarted { item_id } => SessionEvent::SpeechStarted {
                utterance: Some(item_id.as_ref().into()),
                at_ms: offset(text, "audio_start_ms"),
            },
            ServerEvent::SpeechStopped => SessionEvent::SpeechStopped { at_ms: offset(text, "audio_end_ms") },
            ServerEvent::Committed { item_id } => {
                if self.request.turns != Turns::Manual {
                    self.expected += 1;
                }
                SessionEvent::Committed { utterance: Some(item_id.as_ref().into()) }
            }
            ServerEvent::IdleTimeout => SessionEvent::CallerSilent,
            ServerEvent::CallerTranscript { item_id, text } => SessionEvent::CallerText {
                utterance: Some(item_id.as_ref().into()),
                state: if text.is_some() { TextState::Whole } else { TextState::Failed },
                text: text.unwrap_or_default().into_owned(),
            },
            ServerEvent::CallerTranscriptDelta { item_id, text, is_whole } => SessionEvent::CallerText {
                utterance: Some(item_id.as_ref().into()),
                text: text.into_owned(),
                state: if is_whole { TextState::SoFar } else { TextState::More },
            },
            ServerEvent::ResponseCreated { response_id, is_summary } => {
                self.expected = self.expected.saturating_sub(1);
                let output: Id = response_id.into();
                self.open.push(Arc::clone(&output));
                if is_summary {
                    return Ok(());
                }
                SessionEvent::OutputStarted { output }
            }
            ServerEvent::Audio { response_id, item_id, payload } => {
                let (output, part) = self.names(&response_id, &item_id);
                SessionEvent::Audio {
                    output,
                    part,
                    payload: Payload::Base64(text.slice_ref(payload.as_bytes())),
                }
            }
            ServerEvent::AgentTranscript { response_id, item_id, text } => {
                let (output, part) = self.names(&response_id, &item_id);
                SessionEvent::AgentText { output, part, text: text.into_owned(), span_ms: None }
            }
            ServerEvent::AudioDone { item_id } => SessionEvent::AudioDone { part: item_id.as_ref().into() },
            ServerEvent::FunctionCall { response_id, call_id, name, arguments } => SessionEvent::ToolCall {
                output: Some(response_id.as_ref().into()),
                call: ToolCall {
                    id: call_id.into_owned(),
                    name: name.into_owned(),
                    arguments: arguments.into_owned(),
                    signature: None,
                },
            },
            ServerEvent::ResponseDone { response_id, status, summary, failure } => {
                self.open.retain(|output| **output != *response_id);
                if let Some(summary) = summary {
                    let text = (status == ResponseStatus::Completed).then_some(summary);
                    events.push_back(SessionEvent::Aside(text.filter(|text| !text.trim().is_empty())));
                    return Ok(());
                }
                SessionEvent::OutputDone {
                    output: response_id.into(),
                    ending: match status {
                        ResponseStatus::Completed => OutputEnding::Completed,
                        ResponseStatus::Cancelled => OutputEnding::Cancelled,
                        ResponseStatus::Incomplete => OutputEnding::Incomplete,
                        ResponseStatus::Failed => OutputEnding::Failed,
                    },
                    failure: failure
                        .filter(|_| status == ResponseStatus::Failed)
                        .map(|failure| self.error(&failure)),
                    usage: usage(text),
                }
            }
            ServerEvent::Error(error) => {
                let told = self.error(&error);
                if let Some(About::Respond(_)) = told.about {
                    self.expected = self.expected.saturating_sub(1);
                }
                // Without its configuration the session is not the one that was asked for.
                if !self.ready || told.is_fatal() {
                    return Err(Broken::Failed { fault: told.fault, message: told.message });
                }
                SessionEvent::Error(told)
            }
            ServerEvent::Ignored => return Ok(()),
            ServerEvent::Unknown(kind) => SessionEvent::Unknown(kind),
        };
        events.push_back(event);
        Ok(())
    }
}

impl Dialect for Realtime {
    type Command = SessionCommand;
    type Event = SessionEvent;

    fn open(&mut self, _: &mut VecDeque<SessionEvent>, _: &mut Frames) {}

    fn command(
        &mut self,
        command: SessionCommand,
        _: &mut VecDeque<SessionEvent>,
        out: &mut Frames,
    ) -> Result<(), Broken> {
        match &command {
            SessionCommand::Truncate { .. } if self.flavour == Flavour::Xai => {
                Err(Broken::Unsupported("forget what was not heard"))
            }
            SessionCommand::Aside { .. } if self.flavour == Flavour::Xai => {
                Err(Broken::Unsupported("answer beside the conversation"))
            }
            _ if !self.greeted => self.held.push(command),
            _ => self.tell(command, out),
        }
    }

    fn frame(
        &mut self,
        frame: Frame,
        events: &mut VecDeque<SessionEvent>,
        out: &mut Frames,
    ) -> Result<(), Broken> {
        let Frame::Text(text) = frame else {
            return Err(Broken::Malformed("a binary message, which this protocol does not have".into()));
        };
        let text = Bytes::from(text);
        let borrowed = std::str::from_utf8(&text).map_err(|error| Broken::Malformed(error.to_string()))?;
        let event = parse(borrowed).map_err(|error| Broken::Malformed(error.to_string()))?;
        // xAI may name the conversation only.
        let greeting = matches!(event, ServerEvent::SessionCreated { .. })
            || (self.flavour == Flavour::Xai && matches!(event, ServerEvent::Ignored));
        self.event(event, &text, events)?;
        if greeting && !self.greeted {
            self.greet(out)?;
        }
        Ok(())
    }

    fn closed(
        &mut self,
        code: Option<u16>,
        reason: &str,
        _: &mut VecDeque<SessionEvent>,
    ) -> Result<(), Broken> {
        Err(ended(code, reason))
    }

    fn phase(&self) -> Phase {
        match (self.ready, self.open.is_empty() && self.expected == 0) {
            (false, _) => Phase::Opening,
            (true, true) => Phase::Quiet,
            (true, false) => Phase::Owing,
        }
    }
}

/// A session that its vendor ended.
pub(in crate::live) fn ended(code: Option<u16>, reason: &str) -> Broken {
    match code {
        None => Broken::Interrupted("the connection broke".into()),
        Some(1008) => Broken::Failed { fault: Fault::InvalidRequest, message: reason.to_owned() },
        Some(1011) => Broken::Failed { fault: Fault::ServerError, message: reason.to_owned() },
        Some(1013) => Broken::Failed { fault: Fault::Overloaded, message: reason.to_owned() },
        Some(code) => Broken::Interrupted(format!("closed with {code} {reason}")),
    }
}

fn fault(error: &ApiError) -> Fault {
    fault_of_code(&error.code).or_else(|| fault_of_code(&error.kind)).unwrap_or(match error.code.as_str() {
        "session_expired" => Fault::Interrupted,
        _ => Fault::InvalidRequest,
    })
}

fn session_id(text: &[u8]) -> Option<String> {
    #[derive(Deserialize)]
    struct Event {
        session: Named,
    }
    #[derive(Deserialize)]
    struct Named {
        id: String,
    }
    serde_json::from_slice::<Event>(text).ok().map(|event| event.session.id)
}

fn offset(text: &[u8], field: &str) -> Option<u64> {
    serde_json::from_slice::<Value>(text).ok()?.get(field)?.as_u64()
}

/// `response.done` says what the response consumed.
fn usage(text: &[u8]) -> Option<Usage> {
    #[derive(Deserialize)]
    struct Event {
        response: Response,
    }
    #[derive(Deserialize)]
    struct Response {
        usage: Option<Counted>,
    }
    #[derive(Deserialize, Default)]
    #[serde(default)]
    struct Counted {
        input_tokens: u64,
        output_tokens: u64,
        input_token_details: Details,
        output_token_details: Details,
    }
    #[derive(Deserialize, Default)]
    #[serde(default)]
    struct Details {
        cached_tokens: u64,
        audio_tokens: u64,
    }
    let counted = serde_json::from_slice::<Event>(text).ok()?.response.usage?;
    Some(Usage {
        input_tokens: counted.input_tokens,
        cached_input_tokens: counted.input_token_details.cached_tokens,
        input_audio_tokens: counted.input_token_details.audio_tokens,
        output_tokens: counted.output_tokens,
        output_media_tokens: counted.output_token_details.audio_tokens,
        ..Usage::default()
    })
}

/// Sessions and streaming transcription of `OpenAI`.
#[derive(Debug, Clone)]
pub struct OpenAiLive {
    pub(super) dialer: Dialer,
}

impl OpenAiLive {
    /// Over these sockets.
    #[must_use]
    pub fn new(dialer: Dialer) -> Self {
        Self { dialer }
    }
}

/// An upgrade that carries a bearer token.
pub(in crate::live) fn bearer(attempt: &Attempt) -> Result<Upgrade, Error> {
    let upgrade = Upgrade::default();
    match &attempt.key {
        None => Ok(upgrade),
        Some(key) => upgrade
            .secret("authorization", &format!("Bearer {}", key.expose()))
            .map_err(|message| context_failure(attempt, Fault::Unauthorized, message)),
    }
}

pub(in crate::live) fn realtime_url(attempt: &Attempt) -> Url {
    with_query(below(&attempt.base_url, "realtime"), [("model", &*attempt.model)])
}

/// Refuses what a vendor does not speak before anything is dialled.
pub(in crate::live) fn permitted(
    request: &SessionRequest,
    can: &SessionCapabilities,
    attempt: &Attempt,
) -> Result<(), Error> {
    let lacking = match () {
        () if !can.hears(request.input) => "hear this encoding of audio",
        () if !can.speaks(request.output) => "speak this encoding of audio",
        () if request.turns == Turns::Manual && !can.manual_turns => "let others end turns",
        () if request.idle_timeout.is_some() && !can.idle_timeout => "speak after a silence",
        () => return Ok(()),
    };
    Err(context_failure(attempt, Fault::Unsupported, format!("it does not {lacking}")))
}

#[async_trait]
impl SpeechToSpeech for OpenAiLive {
    fn capabilities(&self, _: &str) -> SessionCapabilities {
        SessionCapabilities {
            input_rates: &[24_000],
            output_rates: &[24_000],
            g711: true,
            truncate: true,
            cancel: true,
            aside: true,
            respond_with: true,
            instructions: true,
            tool_history: true,
            manual_turns: true,
            idle_timeout: true,
            answers_tools: false,
            resumable: false,
        }
    }

    async fn converse(&self, request: &SessionRequest, attempt: &Attempt) -> Result<Session, Error> {
        permitted(request, &self.capabilities(&attempt.model), attempt)?;
        let dialect = Realtime::new(request.clone());
        self.dialer.open(realtime_url(attempt), bearer(attempt)?, attempt, explain, dialect).await
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::live::Encoding;

    fn read(dialect: &mut Realtime, text: &str) -> Result<Vec<SessionEvent>, Broken> {
        let (mut events, mut out) = (VecDeque::new(), Frames::default());
        dialect.frame(Frame::Text(text.to_owned().into()), &mut events, &mut out)?;
        Ok(events.into())
    }

    fn ready() -> Realtime {
        let mut dialect = Realtime::new(SessionRequest::new("Be kind.", Encoding::Mulaw));
        dialect.open(&mut VecDeque::new(), &mut Frames::default());
        let created = r#"{"type":"session.created","session":{"id":"s1","expires_at":1800000000}}"#;
        assert!(read(&mut dialect, created).unwrap().is_empty());
        let events = read(&mut dialect, r#"{"type":"session.updated","session":{}}"#).unwrap();
        let [SessionEvent::Ready { id: Some(id), expires_at: Some(_) }] = &events[..] else { panic!() };
        assert_eq!(id, "s1");
        dialect
    }

    #[test]
    fn audio_is_not_copied() {
        let mut dialect = ready();
        let text = r#"{"type":"response.output_audio.delta","response_id":"r","item_id":"i","delta":"/+8="}"#;
        let events = read(&mut dialect, text).unwrap();
        let [SessionEvent::Audio { payload, .. }] = &events[..] else { panic!() };
        assert_eq!(*payload, Payload::Base64("/+8=".into()));
    }

    #[test]
    fn an_error_says_which_command_it_answers() {
        let mut dialect = ready();
        let mut out = Frames::default();
        for instructions in [None, Some("x".to_owned())] {
            dialect
                .command(SessionCommand::Respond { instructions }, &mut VecDeque::new(), &mut out)
                .unwrap();
        }
        assert_eq!(dialect.phase(), Phase::Owing);
        let last = out.drain().last().unwrap();
        let Frame::Text(last) = last else { panic!() };
        let id = serde_json::from_str::<Value>(&last).unwrap()["event_id"].as_str().unwrap().to_owned();
        let error = format!(
            r#"{{"type":"error","error":{{"type":"invalid_request_error","code":"c","message":"m","event_id":"{id}"}}}}"#
        );
        let events = read(&mut dialect, &error).unwrap();
        let [SessionEvent::Error(error)] = &events[..] else { panic!() };
        assert_eq!(error.about, Some(About::Respond(1)));
    }

    #[test]
    fn an_error_before_the_configuration_holds_ends_the_session() {
        let mut dialect = Realtime::new(SessionRequest::new("", Encoding::Mulaw));
        let error = r#"{"type":"error","error":{"type":"invalid_request_error","code":null,"message":"no"}}"#;
        assert!(matches!(read(&mut dialect, error), Err(Broken::Failed { .. })));
    }
}
