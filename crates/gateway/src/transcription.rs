//! Speech to text, of whole recordings.

use serde::{Deserialize, Serialize};

use crate::media::Media;
use crate::speech::Word;
use crate::usage::Usage;

/// A recording to write down.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct TranscriptionRequest {
    /// The recording.
    pub audio: Media,
    /// ISO 639-1 language, where known.
    pub language: Option<String>,
    /// Words to expect: names, products, places.
    pub hints: Vec<String>,
    /// Whether times of words are wanted.
    pub words: bool,
}

impl TranscriptionRequest {
    /// A recording in a language to be found out.
    #[must_use]
    pub fn new(audio: Media) -> Self {
        Self { audio, language: None, hints: Vec::new(), words: false }
    }
}

/// What was said.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct Transcript {
    /// The text.
    pub text: String,
    /// The language, where the provider says.
    pub language: Option<String>,
    /// Milliseconds of audio, where the provider says.
    pub duration_ms: Option<u64>,
    /// Words with times, where asked for and known.
    pub words: Vec<Word>,
    /// What it consumed.
    pub usage: Usage,
}
