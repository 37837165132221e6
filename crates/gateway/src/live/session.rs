//! Models that hear and speak by themselves.
//!
//! Vendors differ in what they let go of: `OpenAI` Realtime has turns, items and responses; Gemini Live has turns but no
//! items; `OpenAI` Live has neither. So everything beyond audio in both directions is optional here: ids are given
//! where a vendor has them, and [`SessionCapabilities`] says which commands it understands.

use std::sync::Arc;
use std::time::{Duration, SystemTime};

use async_trait::async_trait;
use serde::{Deserialize, Serialize};

use super::{Encoding, Live, Payload};
use crate::Error;
use crate::chat::{Tool, ToolCall};
use crate::error::Fault;
use crate::providers::Attempt;
use crate::usage::Usage;

/// A vendor's name for something: a response, an item, an utterance.
pub type Id = Arc<str>;

/// What a session is told to be.
#[derive(Debug, Clone, PartialEq)]
pub struct SessionRequest {
    /// System prompt.
    pub instructions: String,
    /// The vendor's name of the voice; unset: the vendor's default.
    pub voice: Option<String>,
    /// Language of the conversation as ISO 639-1, where it is known.
    pub language: Option<String>,
    /// Functions that the model may call.
    pub tools: Vec<Tool>,
    /// The audio that will be sent.
    pub input: Encoding,
    /// The audio that is wanted.
    pub output: Encoding,
    /// Model that writes down the caller's words, where the vendor lets one choose; unset: the vendor's default.
    pub transcription_model: Option<String>,
    /// Who decides when a turn is over.
    pub turns: Turns,
    /// Silence after which the model speaks of its own accord, where the vendor offers it.
    pub idle_timeout: Option<Duration>,
    /// Goes on with an earlier session ([`SessionEvent::Resumable`]), where the vendor keeps one.
    pub resume: Option<String>,
}

impl SessionRequest {
    /// A session that detects turns, with the same encoding both ways.
    #[must_use]
    pub fn new(instructions: &str, encoding: Encoding) -> Self {
        Self {
            instructions: instructions.to_owned(),
            voice: None,
            language: None,
            tools: Vec::new(),
            input: encoding,
            output: encoding,
            transcription_model: None,
            turns: Turns::default(),
            idle_timeout: None,
            resume: None,
        }
    }
}

/// Who decides when a turn is over.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Turns {
    /// The vendor, by silence.
    Silence {
        /// How sure it must be that somebody speaks, 0 to 1; unset: its default.
        threshold: Option<f32>,
        /// The silence; unset: its default.
        silence: Option<Duration>,
    },
    /// The vendor, by what was said.
    Meaning,
    /// The application, by [`SessionCommand::StartTurn`] and [`SessionCommand::EndTurn`].
    Manual,
}

impl Default for Turns {
    fn default() -> Self {
        Self::Silence { threshold: None, silence: None }
    }
}

/// Something said or done earlier, given to a session that takes over.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum HistoryItem {
    /// What happened before the kept turns.
    Summary(String),
    /// The caller's words.
    Caller(String),
    /// The agent's words, as far as they were heard.
    Agent(String),
    /// A function that the agent called.
    ToolCall {
        /// Id that ties call and output together.
        call_id: String,
        /// Function name.
        name: String,
        /// Arguments as the model wrote them.
        arguments: String,
    },
    /// What that function answered.
    ToolOutput {
        /// The call's id.
        call_id: String,
        /// JSON text.
        output: String,
    },
}

/// What a session is told.
#[derive(Debug, Clone, PartialEq)]
pub enum SessionCommand {
    /// Caller audio, in the encoding of the request. No acknowledgement.
    Audio(Payload),
    /// The caller wrote something, which the model answers.
    Text(String),
    /// Something of an earlier session, before anything is said in this one. Not answered.
    History(HistoryItem),
    /// The result of a function call. Where [`SessionCapabilities::answers_tools`] is false, the model answers it only
    /// when [`SessionCommand::Respond`] follows.
    ToolOutput {
        /// The call's id.
        call_id: String,
        /// Function name.
        name: String,
        /// JSON text.
        output: String,
    },
    /// The model speaks now: from the conversation as it stands, or by these instructions and without tools.
    Respond {
        /// What it is told for this once.
        instructions: Option<String>,
    },
    /// Asks for a written answer beside the conversation; it comes as [`SessionEvent::Aside`].
    Aside {
        /// What it is told.
        instructions: String,
    },
    /// The caller heard only this much of an output: the model forgets the rest.
    Truncate {
        /// The part that was cut.
        part: Id,
        /// Milliseconds of it that were heard.
        heard_ms: u64,
    },
    /// Stop speaking.
    Cancel,
    /// The caller begins to speak ([`Turns::Manual`]).
    StartTurn,
    /// The caller has spoken ([`Turns::Manual`]).
    EndTurn,
    /// What was heard and not yet answered is forgotten.
    ClearInput,
    /// From now on, the instructions are these.
    Instructions(String),
}

/// What a session says.
#[derive(Debug, Clone, PartialEq)]
pub enum SessionEvent {
    /// It is configured and hears.
    Ready {
        /// The vendor's id of the session, for its support.
        id: Option<String>,
        /// When the vendor ends it, where it says.
        expires_at: Option<SystemTime>,
    },
    /// The caller began to speak.
    SpeechStarted {
        /// What the caller's words will be called.
        utterance: Option<Id>,
        /// Milliseconds after the first audio.
        at_ms: Option<u64>,
    },
    /// The caller stopped speaking.
    SpeechStopped {
        /// Milliseconds after the first audio.
        at_ms: Option<u64>,
    },
    /// The caller's turn is over, and the model has it.
    Committed {
        /// What the caller's words are called.
        utterance: Option<Id>,
    },
    /// The caller said nothing for the idle timeout; the model speaks by itself now.
    CallerSilent,
    /// What the caller said, often late.
    CallerText {
        /// Which words.
        utterance: Option<Id>,
        /// The words, or what follows them, by `state`.
        text: String,
        /// Whether it is more, all so far, or all.
        state: TextState,
    },
    /// The model begins to answer.
    OutputStarted {
        /// The answer.
        output: Id,
    },
    /// The next audio of an answer.
    Audio {
        /// The answer.
        output: Id,
        /// The part of it that can be truncated.
        part: Id,
        /// In the encoding of the request.
        payload: Payload,
    },
    /// What the agent says, ahead of, beside or after its audio.
    AgentText {
        /// The answer.
        output: Id,
        /// The part.
        part: Id,
        /// The next piece of text.
        text: String,
        /// Milliseconds of the session in which it is spoken, where the vendor says.
        span_ms: Option<(u64, u64)>,
    },
    /// The part's audio is complete.
    AudioDone {
        /// The part.
        part: Id,
    },
    /// The model wants a function run; arguments are complete JSON text, not checked.
    ToolCall {
        /// The answer that it belongs to, where the vendor says.
        output: Option<Id>,
        /// The call.
        call: ToolCall,
    },
    /// The model no longer wants these results.
    ToolCallsCancelled {
        /// Ids of the calls.
        call_ids: Vec<String>,
    },
    /// An answer has ended.
    OutputDone {
        /// The answer.
        output: Id,
        /// How.
        ending: OutputEnding,
        /// Why it failed, as far as said.
        failure: Option<VendorError>,
        /// What it consumed, where the vendor says.
        usage: Option<Usage>,
    },
    /// The answer to [`SessionCommand::Aside`]; `None` when the model gave none.
    Aside(Option<String>),
    /// The session ends in this time: open another.
    Leaving(Duration),
    /// With this handle another socket can go on where this one is now.
    Resumable(String),
    /// Something went wrong; most errors leave the session usable.
    Error(VendorError),
    /// Not known to us; count it.
    Unknown(String),
}

/// Whether a text is more, all so far, or all.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum TextState {
    /// It follows what was told before.
    More,
    /// It replaces what was told before.
    SoFar,
    /// It replaces what was told before, and is the end.
    Whole,
    /// The vendor could not write it down; the text is empty.
    Failed,
}

/// How an answer ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum OutputEnding {
    /// Said in full.
    Completed,
    /// Stopped by the caller's speech or by us.
    Cancelled,
    /// Stopped by a limit.
    Incomplete,
    /// The model failed.
    Failed,
}

/// An error in the vendor's words.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct VendorError {
    /// Its code, such as `session_expired`; empty where it has none.
    pub code: String,
    /// Text for people.
    pub message: String,
    /// What it means.
    pub fault: Fault,
    /// Whether the session is over.
    pub ends_session: bool,
    /// What it answers, when one of ours caused it.
    pub about: Option<About>,
}

/// Which of our commands an error answers.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum About {
    /// The configuration.
    Configuration,
    /// [`SessionCommand::Respond`]; this many were sent before it.
    Respond(u64),
    /// [`SessionCommand::Truncate`].
    Truncate,
    /// [`SessionCommand::Cancel`].
    Cancel,
    /// Any other.
    Other,
}

impl VendorError {
    /// Whether another attempt with the same key and model cannot succeed either.
    #[must_use]
    pub fn is_fatal(&self) -> bool {
        matches!(
            self.fault,
            Fault::Unauthorized
                | Fault::Forbidden
                | Fault::Billing
                | Fault::NotFound
                | Fault::ForbiddenAddress
        )
    }
}

/// A session.
pub type Session = Live<SessionCommand, SessionEvent>;

/// Which commands a vendor understands, and what it hears and speaks.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct SessionCapabilities {
    /// Rates of PCM that it hears, in Hz.
    pub input_rates: &'static [u32],
    /// Rates of PCM that it speaks, in Hz.
    pub output_rates: &'static [u32],
    /// Whether it hears and speaks G.711 at 8 kHz, so that telephone audio passes through untouched.
    pub g711: bool,
    /// [`SessionCommand::Truncate`].
    pub truncate: bool,
    /// [`SessionCommand::Cancel`].
    pub cancel: bool,
    /// [`SessionCommand::Aside`].
    pub aside: bool,
    /// [`SessionCommand::Respond`] with instructions.
    pub respond_with: bool,
    /// [`SessionCommand::Instructions`].
    pub instructions: bool,
    /// [`SessionCommand::History`] with function calls and their outputs; without, they are told as text.
    pub tool_history: bool,
    /// [`Turns::Manual`].
    pub manual_turns: bool,
    /// [`SessionRequest::idle_timeout`].
    pub idle_timeout: bool,
    /// Whether the model answers a function's result by itself.
    pub answers_tools: bool,
    /// Whether [`SessionEvent::Resumable`] comes.
    pub resumable: bool,
}

impl SessionCapabilities {
    /// Whether audio of this encoding can be sent.
    #[must_use]
    pub fn hears(&self, encoding: Encoding) -> bool {
        match encoding {
            Encoding::Pcm16(rate) => self.input_rates.contains(&rate),
            Encoding::Mulaw | Encoding::Alaw => self.g711,
        }
    }

    /// Whether it speaks this encoding.
    #[must_use]
    pub fn speaks(&self, encoding: Encoding) -> bool {
        match encoding {
            Encoding::Pcm16(rate) => self.output_rates.contains(&rate),
            Encoding::Mulaw | Encoding::Alaw => self.g711,
        }
    }
}

/// Hears and speaks.
#[async_trait]
pub trait SpeechToSpeech: Send + Sync {
    /// What a model of it can do.
    fn capabilities(&self, model: &str) -> SessionCapabilities;

    /// Opens a session. [`SessionEvent::Ready`] follows within [`Attempt::first_byte`], or an error does; while the
    /// model owes an answer, it may be silent for [`Attempt::idle`].
    ///
    /// # Errors
    /// [`Error::Provider`].
    async fn converse(&self, request: &SessionRequest, attempt: &Attempt) -> Result<Session, Error>;
}
