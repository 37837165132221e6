//! Streaming speech to text.

use std::ops::RangeInclusive;
use std::time::Duration;

use async_trait::async_trait;

use super::{Encoding, Live};
use crate::Error;
use crate::providers::Attempt;
use crate::speech::Word;
use crate::usage::Usage;

/// What will be heard, and how turns are judged.
#[derive(Debug, Clone, PartialEq)]
pub struct ListeningRequest {
    /// The audio that will be sent.
    pub encoding: Encoding,
    /// BCP 47 language, where it is known.
    pub language: Option<String>,
    /// Names and terms that the recogniser should know.
    pub keyterms: Vec<String>,
    /// How sure the recogniser must be that a turn has ended, 0 to 1; unset: the vendor's default.
    pub end_threshold: Option<f32>,
    /// How sure it must be to say so ahead ([`ListeningEvent::EagerEnd`]); unset: it says nothing ahead.
    pub eager_threshold: Option<f32>,
    /// Silence that ends a turn in any case; unset: the vendor's default.
    pub end_silence: Option<Duration>,
}

impl ListeningRequest {
    /// Audio of this encoding, in any language.
    #[must_use]
    pub fn new(encoding: Encoding) -> Self {
        Self {
            encoding,
            language: None,
            keyterms: Vec::new(),
            end_threshold: None,
            eager_threshold: None,
            end_silence: None,
        }
    }
}

/// What a listener is told.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ListeningCommand {
    /// The next audio, in the encoding of the request; some 20 to 100 ms.
    Audio(bytes::Bytes),
    /// The turn is over, whatever the recogniser thinks: it answers with [`ListeningEvent::EndOfTurn`].
    EndTurn,
    /// No more audio comes. What is still to be said about it follows, then [`ListeningEvent::Finished`] and the end.
    Finish,
}

/// What was heard of one turn.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Heard {
    /// The turn's number on this socket, from 0.
    pub turn: u64,
    /// The words.
    pub text: String,
    /// Their times in milliseconds from the first audio of the socket; empty where the vendor does not say.
    pub words: Vec<Word>,
    /// How sure the recogniser is, 0 to 1, where it says.
    pub confidence: Option<f32>,
    /// The language that was heard, where the vendor says.
    pub language: Option<String>,
}

/// What a listener says.
#[derive(Debug, Clone, PartialEq)]
pub enum ListeningEvent {
    /// The vendor listens; its id of the session, for its support.
    Ready(Option<String>),
    /// Somebody began to speak, this many milliseconds after the first audio, where the vendor says.
    SpeechStarted {
        /// The turn.
        turn: u64,
        /// When.
        at_ms: Option<u64>,
    },
    /// All words of the turn so far; they may still change, and this replaces what was told before.
    Partial(Heard),
    /// All words of the turn so far, which will not change; more may follow.
    Final(Heard),
    /// The turn has probably ended with these words: an answer may be prepared.
    EagerEnd(Heard),
    /// It had not: what was prepared is void.
    Resumed {
        /// The turn that goes on.
        turn: u64,
    },
    /// The turn has ended with these words.
    EndOfTurn(Heard),
    /// Worth a line in the log; the socket goes on.
    Warning(String),
    /// Everything has been said; the socket closes.
    Finished(Usage),
}

/// A listener.
pub type Listening = Live<ListeningCommand, ListeningEvent>;

/// What a vendor's model can hear.
#[derive(Debug, Clone, PartialEq)]
pub struct ListeningCapabilities {
    /// Rates of PCM that it takes, in Hz.
    pub pcm_rates: RangeInclusive<u32>,
    /// Whether it takes G.711 at 8 kHz.
    pub g711: bool,
    /// Whether it judges ends of turns by meaning, rather than by silence alone.
    pub judges_turns: bool,
    /// Whether it can say ahead that a turn has probably ended.
    pub eager: bool,
    /// Whether a turn can be ended from outside.
    pub end_turn: bool,
    /// Whether words come with their times.
    pub word_times: bool,
}

impl ListeningCapabilities {
    /// Whether it takes this encoding.
    #[must_use]
    pub fn takes(&self, encoding: Encoding) -> bool {
        match encoding {
            Encoding::Pcm16(rate) => self.pcm_rates.contains(&rate),
            Encoding::Mulaw | Encoding::Alaw => self.g711,
        }
    }
}

/// Hears as people speak.
#[async_trait]
pub trait SpeechToText: Send + Sync {
    /// What a model of it can do.
    fn capabilities(&self, model: &str) -> ListeningCapabilities;

    /// Opens a socket. [`ListeningEvent::Ready`] follows within [`Attempt::first_byte`], or an error does; while the
    /// vendor owes words, it may be silent for [`Attempt::idle`].
    ///
    /// # Errors
    /// [`Error::Provider`].
    async fn listen(&self, request: &ListeningRequest, attempt: &Attempt) -> Result<Listening, Error>;
}
