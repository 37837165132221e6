//! `POST /audio/transcriptions`.

use async_trait::async_trait;
use reqwest::multipart::{Form, Part};
use serde::Deserialize;

use super::{OpenAi, explain};
use crate::Error;
use crate::providers::{Attempt, Transcription};
use crate::speech::Word;
use crate::transcription::{Transcript, TranscriptionRequest};
use crate::usage::Usage;

/// Largest upload.
const MOST_BYTES: usize = 25 << 20;

#[derive(Deserialize)]
struct Answer {
    text: String,
    language: Option<String>,
    duration: Option<f64>,
    #[serde(default)]
    words: Vec<WrittenWord>,
    usage: Option<WrittenUsage>,
}

#[derive(Deserialize)]
struct WrittenWord {
    word: String,
    start: f64,
    end: f64,
}

#[derive(Deserialize)]
#[serde(tag = "type", rename_all = "snake_case")]
enum WrittenUsage {
    Tokens { input_tokens: u64, output_tokens: u64, input_token_details: Option<InputDetails> },
    Duration { seconds: f64 },
}

#[derive(Deserialize)]
struct InputDetails {
    #[serde(default)]
    audio_tokens: u64,
}

#[async_trait]
impl Transcription for OpenAi {
    async fn transcribe(
        &self,
        request: &TranscriptionRequest,
        attempt: &Attempt,
    ) -> Result<Transcript, Error> {
        if request.audio.data.len() > MOST_BYTES {
            let message = "recordings may have at most 25 MiB: split or compress this one";
            return Err(Error::InvalidRequest(message.into()));
        }
        let invalid = |_| Error::InvalidRequest(format!("`{}` is no media type", request.audio.mime));
        let file = Part::stream(request.audio.data.clone())
            .file_name(request.audio.file_name())
            .mime_str(&request.audio.mime)
            .map_err(invalid)?;
        // Only Whisper, there and at compatible servers, knows when words are said.
        let words = request.words && attempt.model.contains("whisper");
        let mut form = Form::new()
            .text("model", attempt.model.to_string())
            .text("response_format", if words { "verbose_json" } else { "json" });
        if words {
            form = form.text("timestamp_granularities[]", "word");
        }
        if let Some(language) = &request.language {
            form = form.text("language", language.clone());
        }
        if !request.hints.is_empty() {
            form = form.text("prompt", request.hints.join(", "));
        }
        let post = self.post(attempt, "audio/transcriptions").multipart(form.part("file", file));
        let answer: Answer = self.wire.send(post, attempt, explain).await?.json().await?;
        Ok(answer.into())
    }
}

fn ms(seconds: f64) -> u64 {
    (seconds.max(0.0) * 1_000.0).round() as u64
}

impl From<Answer> for Transcript {
    fn from(answer: Answer) -> Self {
        let mut usage = Usage::default();
        match &answer.usage {
            Some(WrittenUsage::Tokens { input_tokens, output_tokens, input_token_details }) => {
                usage.input_tokens = *input_tokens;
                usage.output_tokens = *output_tokens;
                usage.input_audio_tokens = input_token_details.as_ref().map_or(0, |d| d.audio_tokens);
            }
            Some(WrittenUsage::Duration { seconds }) => usage.audio_ms = ms(*seconds),
            None => {
                usage.audio_ms = answer.duration.map(ms).unwrap_or_default();
                usage.estimated = answer.duration.is_none();
            }
        }
        let words = answer.words.into_iter();
        Self {
            text: answer.text,
            language: answer.language,
            duration_ms: answer.duration.map(ms),
            words: words.map(|w| Word { text: w.word, start_ms: ms(w.start), end_ms: ms(w.end) }).collect(),
            usage,
        }
    }
}
