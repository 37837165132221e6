//! Streaming text to speech.

use std::fmt;
use std::ops::RangeInclusive;

use async_trait::async_trait;

use super::{Encoding, Live, Payload};
use crate::Error;
use crate::providers::Attempt;
use crate::speech::Word;
use crate::usage::Usage;

/// Who speaks, and how.
#[derive(Debug, Clone, PartialEq)]
pub struct SpeakingRequest {
    /// The encoding that is wanted.
    pub encoding: Encoding,
    /// The vendor's id of the voice; unset: the vendor's default.
    pub voice: Option<String>,
    /// BCP 47 language, where the vendor wants to know.
    pub language: Option<String>,
    /// 1.0 is the voice's own pace.
    pub speed: Option<f32>,
    /// Whether the times of words are wanted, where the vendor has them.
    pub word_times: bool,
}

impl SpeakingRequest {
    /// The default voice.
    #[must_use]
    pub fn new(encoding: Encoding) -> Self {
        Self { encoding, voice: None, language: None, speed: None, word_times: true }
    }
}

/// Something that is said in one go, with one intonation: usually an answer. Numbered by the application.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Utterance(pub u64);

impl fmt::Display for Utterance {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "u{}", self.0)
    }
}

/// What a speaker is told.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum SpeakingCommand {
    /// The next piece of an utterance, spaces included, as the language model writes it.
    Text(Utterance, String),
    /// Speak what there is, without waiting for a sentence to end.
    Flush(Utterance),
    /// The utterance is complete: it is spoken to its end, then [`SpeakingEvent::Done`] follows.
    End(Utterance),
    /// Stop: no further audio of it is handed on, whether the vendor goes on or not.
    /// [`SpeakingEvent::Cancelled`] follows when the vendor has stopped.
    Cancel(Utterance),
    /// Nothing more will be said: what has been is spoken to its end, then [`SpeakingEvent::Finished`] and the end.
    Finish,
}

/// What a speaker says.
#[derive(Debug, Clone, PartialEq)]
pub enum SpeakingEvent {
    /// It can be told something; the vendor's id of the session, for its support.
    Ready(Option<String>),
    /// The next audio of an utterance, in the encoding of the request.
    Audio(Utterance, Payload),
    /// When words are spoken, in milliseconds from the start of the utterance's audio. They may come before or after
    /// that audio.
    Words(Utterance, Vec<Word>),
    /// What was flushed has been spoken.
    Flushed(Utterance),
    /// All audio of the utterance has come.
    Done(Utterance),
    /// The vendor has stopped speaking it.
    Cancelled(Utterance),
    /// The vendor cannot speak this utterance; others are not affected.
    Failed(Utterance, String),
    /// Worth a line in the log; the socket goes on.
    Warning(String),
    /// Everything has been said; the socket closes.
    Finished(Usage),
}

/// A speaker.
pub type Speaking = Live<SpeakingCommand, SpeakingEvent>;

/// What a vendor's voices can do.
#[derive(Debug, Clone, PartialEq)]
pub struct SpeakingCapabilities {
    /// Rates of PCM, in Hz.
    pub pcm_rates: &'static [u32],
    /// Whether it speaks mu-law at 8 kHz.
    pub mulaw: bool,
    /// Whether it speaks A-law at 8 kHz.
    pub alaw: bool,
    /// Whether words come with their times.
    pub word_times: bool,
    /// How many utterances it speaks at a time on one socket; with 1, the next waits for the one before.
    pub utterances: usize,
    /// Paces that it takes.
    pub speeds: RangeInclusive<f32>,
}

impl SpeakingCapabilities {
    /// Whether it speaks this encoding.
    #[must_use]
    pub fn speaks(&self, encoding: Encoding) -> bool {
        match encoding {
            Encoding::Pcm16(rate) => self.pcm_rates.contains(&rate),
            Encoding::Mulaw => self.mulaw,
            Encoding::Alaw => self.alaw,
        }
    }
}

/// Speaks as text is written.
#[async_trait]
pub trait TextToSpeech: Send + Sync {
    /// What it can do.
    fn capabilities(&self, model: &str) -> SpeakingCapabilities;

    /// Opens a socket. [`SpeakingEvent::Ready`] follows within [`Attempt::first_byte`], or an error does; while
    /// the vendor owes audio, it may be silent for [`Attempt::idle`].
    ///
    /// # Errors
    /// [`Error::Provider`].
    async fn open(&self, request: &SpeakingRequest, attempt: &Attempt) -> Result<Speaking, Error>;
}
