//! `POST /audio/speech`.

use async_trait::async_trait;
use serde_json::{Value, json};

use super::completions::number;
use super::{OpenAi, explain};
use crate::Error;
use crate::providers::{Attempt, Speech, sentences, spoken};
use crate::speech::{AudioFormat, SpeechRequest, SpeechStream};

/// Most characters of one request.
const MOST_CHARACTERS: usize = 4_096;

#[async_trait]
impl Speech for OpenAi {
    async fn speak(&self, request: &SpeechRequest, attempt: &Attempt) -> Result<SpeechStream, Error> {
        let pieces = sentences::pieces(&request.text, MOST_CHARACTERS);
        // Files with one header for everything cannot be put together from pieces.
        let joinable = !matches!(request.format, AudioFormat::Wav | AudioFormat::Flac);
        if pieces.len() > 1 && !joinable {
            let message =
                format!("texts over {MOST_CHARACTERS} characters need the format mp3, opus, aac or pcm");
            return Err(Error::InvalidRequest(message));
        }
        let format = format_name(request.format).ok_or_else(|| spoken::no_format(attempt, request.format))?;
        let requests = pieces
            .iter()
            .map(|piece| {
                let body = body(request, piece, &attempt.model, format);
                self.post(attempt, "audio/speech").json(&body)
            })
            .collect();
        let characters = request.text.chars().count() as u64;
        spoken::speak(&self.wire, requests, attempt, explain, request.format, characters).await
    }
}

fn body(request: &SpeechRequest, text: &str, model: &str, format: &str) -> Value {
    let voice = request.voice.as_deref().unwrap_or("coral");
    let mut body = json!({"model": model, "input": text, "voice": voice, "response_format": format});
    if let Some(instructions) = &request.instructions {
        body["instructions"] = instructions.as_str().into();
    }
    if let Some(speed) = request.speed {
        body["speed"] = number(speed.clamp(0.25, 4.0));
    }
    body
}

/// The vendor's `pcm` is always 24 kHz.
fn format_name(format: AudioFormat) -> Option<&'static str> {
    Some(match format {
        AudioFormat::Mp3 => "mp3",
        AudioFormat::Wav => "wav",
        AudioFormat::Opus => "opus",
        AudioFormat::Flac => "flac",
        AudioFormat::Aac => "aac",
        AudioFormat::Pcm(24_000) => "pcm",
        AudioFormat::Pcm(_) | AudioFormat::Mulaw => return None,
    })
}
