//! Text to speech.

use std::fmt;
use std::pin::Pin;
use std::task::{Context, Poll};

use bytes::Bytes;
use futures_util::{Stream, StreamExt as _};
use serde::{Deserialize, Serialize};

use crate::Error;
use crate::usage::Usage;

/// What to say, and how.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct SpeechRequest {
    /// The text. Adapters split what is longer than the provider takes at sentence ends.
    pub text: String,
    /// The provider's name or id of the voice; unset: the provider's default.
    pub voice: Option<String>,
    /// BCP 47 language, where the provider wants to know.
    pub language: Option<String>,
    /// Direction for voices that take it: mood, pace, character.
    pub instructions: Option<String>,
    /// 1.0 is the voice's own pace.
    pub speed: Option<f32>,
    /// How the audio is encoded.
    pub format: AudioFormat,
}

impl SpeechRequest {
    /// Says a text in the default voice.
    #[must_use]
    pub fn new(text: &str, format: AudioFormat) -> Self {
        Self { text: text.to_owned(), voice: None, language: None, instructions: None, speed: None, format }
    }
}

/// Encodings of audio.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum AudioFormat {
    /// MPEG layer 3.
    Mp3,
    /// RIFF with 16-bit samples.
    Wav,
    /// Opus in Ogg.
    Opus,
    /// Free lossless.
    Flac,
    /// AAC in ADTS frames.
    Aac,
    /// Raw 16-bit little-endian mono at this rate in Hz.
    Pcm(u32),
    /// Raw mu-law mono at 8 kHz, as telephones speak.
    Mulaw,
}

impl AudioFormat {
    /// Its media type.
    #[must_use]
    pub fn mime(self) -> String {
        match self {
            Self::Mp3 => "audio/mpeg".into(),
            Self::Wav => "audio/wav".into(),
            Self::Opus => "audio/ogg".into(),
            Self::Flac => "audio/flac".into(),
            Self::Aac => "audio/aac".into(),
            Self::Pcm(rate) => format!("audio/pcm;rate={rate}"),
            Self::Mulaw => "audio/x-mulaw;rate=8000".into(),
        }
    }

    /// Bytes a second, for encodings of constant rate.
    #[must_use]
    pub fn bytes_per_second(self) -> Option<u32> {
        match self {
            Self::Pcm(rate) => Some(rate * 2),
            Self::Mulaw => Some(8_000),
            _ => None,
        }
    }
}

/// A piece of spoken audio.
#[derive(Debug, Clone, PartialEq)]
pub enum SpeechEvent {
    /// The next bytes.
    Audio(Bytes),
    /// When words are spoken, from the start of the audio, where the provider says.
    Words(Vec<Word>),
    /// The end.
    Finished(Usage),
}

/// A word and its time.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Word {
    /// The word.
    pub text: String,
    /// Start in milliseconds.
    pub start_ms: u64,
    /// End in milliseconds.
    pub end_ms: u64,
}

/// Audio as it is made. Dropping it frees the provider at once.
pub struct SpeechStream {
    format: AudioFormat,
    events: Pin<Box<dyn Stream<Item = Result<SpeechEvent, Error>> + Send>>,
}

impl SpeechStream {
    /// Wraps a stream of events that ends with [`SpeechEvent::Finished`] or an error.
    pub fn new(
        format: AudioFormat,
        events: impl Stream<Item = Result<SpeechEvent, Error>> + Send + 'static,
    ) -> Self {
        Self { format, events: Box::pin(events) }
    }

    /// How the audio is encoded: as asked, except that the offline provider has no encoders and gives WAV instead.
    #[must_use]
    pub fn format(&self) -> AudioFormat {
        self.format
    }

    /// All of it, at most `limit` bytes.
    ///
    /// # Errors
    /// The stream's, or [`Error::InvalidRequest`] beyond the limit.
    pub async fn collect(mut self, limit: usize) -> Result<(Bytes, Usage), Error> {
        let mut audio = Vec::new();
        while let Some(event) = self.next().await {
            match event? {
                SpeechEvent::Audio(bytes) if audio.len() + bytes.len() > limit => {
                    return Err(Error::InvalidRequest(format!(
                        "the audio exceeds {limit} bytes: speak less at once"
                    )));
                }
                SpeechEvent::Audio(bytes) => audio.extend_from_slice(&bytes),
                SpeechEvent::Words(_) => {}
                SpeechEvent::Finished(usage) => return Ok((audio.into(), usage)),
            }
        }
        Ok((audio.into(), Usage::default()))
    }
}

impl Stream for SpeechStream {
    type Item = Result<SpeechEvent, Error>;

    fn poll_next(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        self.events.as_mut().poll_next(context)
    }
}

impl fmt::Debug for SpeechStream {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("SpeechStream")
    }
}
