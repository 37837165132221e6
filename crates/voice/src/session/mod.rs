//! One session: a caller on one side, a speech model on the other, and the state between them.
//!
//! [`core::Core`] decides (pure, in virtual time); [`driver`] does the IO. An application supplies a [`Host`].

pub mod core;
pub mod driver;
mod meters;
pub mod playback;
mod replay;
mod time;
mod transcript;
mod wire;

use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

pub use meters::describe as describe_metrics;
pub use time::Millis;
pub use transcript::Speaker;

use crate::callers::twilio::frames::Start;
use crate::upstreams::realtime::{HistoryItem, SessionShape};

/// Times and bounds of a session.
#[derive(Debug, Clone)]
pub struct Settings {
    /// Longest wait for the caller's `start` message.
    pub start_timeout: Duration,
    /// Longest wait for the application's decision.
    pub admit_timeout: Duration,
    /// Longest wait from an open upstream socket to a configured session.
    pub ready_timeout: Duration,
    /// Longest silence of an upstream that owes us something.
    pub stall_timeout: Duration,
    /// Longest time without any upstream before the session gives up.
    pub outage_budget: Duration,
    /// Life of an upstream session; another takes over before it ends.
    pub session_cap: Duration,
    /// Longest run of one tool.
    pub tool_timeout: Duration,
    /// Silence during a tool before the agent says that it is looking.
    pub filler_after: Duration,
    /// Longest session.
    pub max_duration: Duration,
    /// Longest time without any sign of life from a socket, pings included: then its other end is gone.
    pub silence_timeout: Duration,
    /// Period of the health log line.
    pub health_interval: Duration,
}

impl Default for Settings {
    fn default() -> Self {
        Self {
            start_timeout: Duration::from_secs(5),
            admit_timeout: Duration::from_secs(5),
            ready_timeout: Duration::from_secs(5),
            stall_timeout: Duration::from_secs(8),
            outage_budget: Duration::from_secs(8),
            session_cap: Duration::from_secs(60 * 60),
            tool_timeout: Duration::from_secs(8),
            filler_after: Duration::from_millis(1_200),
            max_duration: Duration::from_secs(4 * 60 * 60),
            silence_timeout: Duration::from_secs(20),
            health_interval: Duration::from_secs(30),
        }
    }
}

/// Who answers a call.
#[derive(Debug, Clone)]
pub struct Agent {
    /// Prompt, voice and tools.
    pub shape: SessionShape,
    /// What the agent says first, word for word; without it the agent waits for the caller.
    pub greeting: Option<String>,
}

/// An admitted caller.
pub struct Admission {
    /// Who answers.
    pub agent: Agent,
    /// The application's side of this call.
    pub call: Arc<dyn Call>,
    /// What was said before, when this stream continues a call.
    pub resumed: Option<Resumed>,
}

/// An earlier part of the same call.
#[derive(Debug, Clone, Default)]
pub struct Resumed {
    /// What was said, oldest first.
    pub history: Vec<HistoryItem>,
    /// Number of the next turn.
    pub next_ordinal: i32,
    /// Time since the call began.
    pub elapsed: Duration,
}

/// Something that was said, as the transcript stores it. A later one with the same ordinal replaces it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Turn {
    /// Place in the conversation, in order of speech.
    pub ordinal: i32,
    /// Who spoke.
    pub speaker: Speaker,
    /// The words that were heard.
    pub text: String,
    /// When it began.
    pub started: Millis,
    /// When it ended, or how far it has come.
    pub ended: Millis,
    /// The caller cut in.
    pub interrupted: bool,
}

/// What a session reports while it goes on.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Entry {
    /// A turn, new or grown.
    Turn(Turn),
    /// A tool was run.
    Tool {
        /// Place in the conversation of the turn it followed.
        after: i32,
        /// Function name.
        name: String,
        /// Arguments as the model wrote them.
        arguments: String,
        /// Its answer.
        output: String,
        /// How long it took.
        took: Duration,
    },
    /// The session is alive.
    Alive,
}

/// A request to run a tool.
#[derive(Debug, Clone, PartialEq)]
pub struct ToolCall {
    /// Unique in the conversation; with the call it is an idempotency key.
    pub call_id: String,
    /// Function name.
    pub name: String,
    /// Checked to be a JSON object.
    pub arguments: serde_json::Map<String, serde_json::Value>,
}

/// What a tool says, and what it does to the session.
#[derive(Debug, Clone, PartialEq)]
pub struct ToolAnswer {
    /// For the model.
    pub output: serde_json::Value,
    /// Ends the session after the agent has spoken.
    pub then: Option<Ending>,
}

/// Why a session ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Ending {
    /// No `start`, or not ours.
    Refused,
    /// The caller hung up.
    CallerHungUp,
    /// The caller's connection broke without a goodbye; the call may come back.
    ConnectionLost,
    /// The agent said goodbye.
    AgentEnded,
    /// The caller goes to a person.
    Transferred,
    /// No speech service could be reached.
    UpstreamFailed,
    /// This server is stopping; another goes on with the call.
    HandedOver,
    /// The longest session is over.
    TimeLimit,
    /// The session itself failed.
    Crashed,
}

impl Ending {
    /// Stable name for rows, logs and metrics.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Refused => "refused",
            Self::CallerHungUp => "caller_hung_up",
            Self::ConnectionLost => "connection_lost",
            Self::AgentEnded => "agent_ended",
            Self::Transferred => "transferred",
            Self::UpstreamFailed => "upstream_failed",
            Self::HandedOver => "handed_over",
            Self::TimeLimit => "time_limit",
            Self::Crashed => "crashed",
        }
    }
}

/// A boxed future, as object-safe traits need.
pub type BoxFuture<'a, T> = Pin<Box<dyn Future<Output = T> + Send + 'a>>;

/// The application that callers come to.
pub trait Host: Send + Sync + 'static {
    /// Decides whether a stream is genuine and who answers it. `Err` ends the stream with that reason.
    fn admit(&self, start: Start) -> BoxFuture<'static, Result<Admission, String>>;
}

/// The application's side of one call.
pub trait Call: Send + Sync + 'static {
    /// Runs a tool. Cancelled by the session's tool timeout.
    fn run_tool(&self, call: ToolCall) -> BoxFuture<'static, ToolAnswer>;
    /// Takes a report. Must not block; what it cannot take it must count.
    fn record(&self, entry: Entry);
    /// Everything reported is stored and the call is closed when this returns.
    fn finish(&self, ending: Ending, at: Millis) -> BoxFuture<'static, ()>;
}
