//! The person's side of a conversation, whatever carries it.

use std::task::{Context, Poll};
use std::time::Duration;

use super::events::TurnMeasures;
use crate::session::{BoxFuture, Ending};

/// What a person's side tells.
#[derive(Debug, Clone, PartialEq)]
pub enum CallerEvent {
    /// The next audio, at the session's rate.
    Audio(Vec<i16>),
    /// They typed this.
    Text(String),
    /// They pressed a key.
    Digit(char),
    /// They want the agent to stop.
    Interrupt,
    /// Their utterance is over.
    Commit,
    /// This many samples were played since the session began, dropped ones not counted.
    Played(u64),
    /// What was not played was dropped; how much was played in all, where they can tell.
    Cleared(Option<u64>),
    /// A tool that runs on their side has answered.
    ToolResult {
        /// Which call.
        call_id: String,
        /// Its answer.
        output: serde_json::Value,
    },
    /// Their connection is lost; they may come back.
    Away,
    /// They are back, and have played this much in all, where they know.
    Back(Option<u64>),
    /// They are gone.
    Gone(Ending),
}

/// What a person's side is told.
#[derive(Debug, Clone, PartialEq)]
pub enum CallerCommand {
    /// Play this, at the session's rate.
    Audio(Vec<i16>),
    /// Say when everything so far is played ([`CallerEvent::Played`]), where only that can be told.
    Mark(u64),
    /// Drop what was not played ([`CallerEvent::Cleared`]).
    Clear,
    /// Show the agent's words.
    Show(String),
    /// Show the person's words.
    Transcript {
        /// The words.
        text: String,
        /// Whether they will not change any more.
        is_final: bool,
    },
    /// A tool is run.
    Tool {
        /// Its id.
        call_id: String,
        /// Its name.
        name: String,
        /// Its arguments.
        arguments: serde_json::Map<String, serde_json::Value>,
    },
    /// The answer is over.
    AnswerOver {
        /// Whether it was cut.
        interrupted: bool,
    },
    /// What the turn was like.
    Measured(TurnMeasures),
    /// The conversation is over; what follows is the close.
    Ending(Ending),
}

/// A connection to a person.
pub trait Caller: Send + 'static {
    /// The next event; pending while there is none. Writes what is queued meanwhile. After
    /// [`CallerEvent::Gone`] nothing follows.
    fn poll_event(&mut self, context: &mut Context<'_>) -> Poll<CallerEvent>;

    /// Queues a command. What is queued is bounded: a person who does not read is [`CallerEvent::Gone`].
    fn send(&mut self, command: CallerCommand);

    /// Sends what is queued and says goodbye, within `limit`.
    fn close(self: Box<Self>, ending: Ending, limit: Duration) -> BoxFuture<'static, ()>;
}
