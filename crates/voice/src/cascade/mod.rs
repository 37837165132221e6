//! A conversation over a cascade: speech recognition, a language model, speech synthesis.
//!
//! [`core::Core`] decides: it is a pure state machine in virtual time, counted in samples, which takes [`Event`]s and
//! returns [`Effect`]s. [`driver::run`] does the IO, between a [`Caller`] and [`services::Services`].
//!
//! What the core promises, and its simulation checks with thousands of seeds:
//!
//! * The stored transcript and what the model is told are exactly the words that the person heard.
//! * The agent falls silent at once when somebody speaks, and goes on where it stopped if that was nothing.
//! * No words of the person are lost, and they stand in the order in which they were spoken.
//! * Nothing grows without a bound, and a conversation that is asked to end does.

mod caller;
mod clock;
pub mod core;
pub mod driver;
mod events;
mod language;
mod ledger;
mod mouth;
mod playout;
pub mod recording;
mod sentences;
pub mod services;
mod words;

use std::time::Duration;

pub use caller::{Caller, CallerCommand, CallerEvent};
pub use clock::{Rate, Samples};
pub use events::{Effect, Event, Hearing, Said, Speech, Thought, TurnMeasures, Voice};
pub use language::Language;
pub use sentences::{Directions, Sentences};

/// Who tells that the person has finished.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Turns {
    /// The recogniser tells turns.
    Recognizer,
    /// Silence does: after `eager` the answer is begun, after `end` it is given.
    Silence {
        /// Silence after which the turn is probably over.
        eager: Duration,
        /// Silence after which it is.
        end: Duration,
    },
    /// The person does ([`Event::Committed`]).
    Manual,
}

/// Words of the agent that are fixed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Saying {
    /// The words.
    pub text: String,
    /// Whether they are said to the end, whoever speaks meanwhile: a notice of recording, say.
    pub protected: bool,
}

/// What an agent does when nobody speaks.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Idle {
    /// Silence of both sides before the agent asks.
    pub after: Duration,
    /// What it says, one after the other.
    pub prompts: Vec<String>,
    /// What it says after those, and then ends the conversation; without it, it goes on waiting.
    pub goodbye: Option<String>,
}

/// Manners and bounds of a conversation.
#[derive(Debug, Clone, PartialEq)]
pub struct Settings {
    /// Samples a second of all audio.
    pub rate: Rate,
    /// The language, until the recogniser hears another.
    pub language: Language,
    /// Whether the person speaks; if not, they type.
    pub voice_input: bool,
    /// Whether the agent speaks; if not, it writes.
    pub voice_output: bool,
    /// What the agent says first.
    pub greeting: Option<Saying>,
    /// Who tells turns.
    pub turns: Turns,
    /// Whether answers are begun when the turn is only probably over.
    pub speculate: bool,
    /// Silence after a voice that turned out to say nothing, before the agent goes on.
    pub resume_after: Duration,
    /// Longest time for which a voice without words silences the agent.
    pub max_pause: Duration,
    /// Whether a word that was broken off by a pause is said again, rather than gone on with from the exact sample.
    pub resume_whole_words: bool,
    /// Whether the synthesiser is known to tell when words are spoken; noticed when it does.
    pub word_times: bool,
    /// Longest wait for final words after the end of speech.
    pub final_timeout: Duration,
    /// Run time of tools after which the agent says that it is looking.
    pub filler_after: Duration,
    /// What it says then; `None` for the language's own words.
    pub filler: Option<String>,
    /// Longest run of a tool, as a last resort: whoever runs tools bounds them as well.
    pub tool_timeout: Duration,
    /// Silence.
    pub idle: Option<Idle>,
    /// Longest conversation.
    pub max_duration: Duration,
    /// Longest time without a speech recogniser.
    pub outage_budget: Duration,
    /// How far sending is ahead of playing.
    pub lead: Duration,
    /// Unsent speech above which no more is asked for.
    pub ahead: Duration,
    /// Pause after which keys that were pressed are one number.
    pub digit_gap: Duration,
    /// How much of the person's audio whoever runs the core keeps, to be heard again.
    pub ring: Duration,
    /// Whether `*smiles*` and `(smiles)` are left out.
    pub strip_directions: bool,
}

impl Default for Settings {
    fn default() -> Self {
        Self {
            rate: Rate(16_000),
            language: Language::English,
            voice_input: true,
            voice_output: true,
            greeting: None,
            turns: Turns::Silence { eager: Duration::from_millis(300), end: Duration::from_millis(700) },
            speculate: true,
            resume_after: Duration::from_millis(600),
            max_pause: Duration::from_secs(2),
            resume_whole_words: true,
            word_times: false,
            final_timeout: Duration::from_millis(1_500),
            filler_after: Duration::from_millis(700),
            filler: None,
            tool_timeout: Duration::from_secs(10),
            idle: None,
            max_duration: Duration::from_secs(4 * 60 * 60),
            outage_budget: Duration::from_secs(8),
            lead: Duration::from_millis(200),
            ahead: Duration::from_secs(8),
            digit_gap: Duration::from_secs(2),
            ring: Duration::from_secs(20),
            strip_directions: true,
        }
    }
}
