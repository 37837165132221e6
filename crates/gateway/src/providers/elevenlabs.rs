//! ElevenLabs over HTTP: speech (`POST /v1/text-to-speech/{voice}/stream`) and recordings (`POST /v1/speech-to-text`).
//! Sources: the vendor's API reference and the types of `@elevenlabs/elevenlabs-js` 2.73 (npm).

use async_trait::async_trait;
use http::{Method, StatusCode};
use reqwest::RequestBuilder;
use reqwest::multipart::{Form, Part};
use serde::Deserialize;
use serde_json::{Value, json};
use url::Url;

use super::openai::number;
use super::wire::{below, with_query};
use super::{Attempt, Listing, Speech, Transcription, Wire, sentences, spoken, with_secret};
use crate::Error;
use crate::error::Fault;
use crate::speech::{AudioFormat, SpeechRequest, SpeechStream, Word};
use crate::transcription::{Transcript, TranscriptionRequest};
use crate::usage::Usage;

/// Most characters of one request: the least of current models.
const MOST_CHARACTERS: usize = 5_000;
/// A voice that every account has.
pub(crate) const VOICE: &str = "21m00Tcm4TlvDq8ikWAM";

/// The adapter.
#[derive(Debug, Clone)]
pub struct ElevenLabs {
    wire: Wire,
}

impl ElevenLabs {
    /// Asks over `wire`.
    #[must_use]
    pub fn new(wire: Wire) -> Self {
        Self { wire }
    }

    fn request(&self, method: Method, attempt: &Attempt, url: Url) -> RequestBuilder {
        let request = self.wire.request_to(method, attempt, url);
        match &attempt.key {
            Some(key) => with_secret(request, "xi-api-key", key.expose()),
            None => request,
        }
    }
}

#[async_trait]
impl Speech for ElevenLabs {
    async fn speak(&self, request: &SpeechRequest, attempt: &Attempt) -> Result<SpeechStream, Error> {
        let pieces = sentences::pieces(&request.text, MOST_CHARACTERS);
        let format = format_name(request.format).ok_or_else(|| spoken::no_format(attempt, request.format))?;
        let voice = request.voice.as_deref().unwrap_or(VOICE);
        if !voice.bytes().all(|byte| byte.is_ascii_alphanumeric()) {
            let message = format!("`{voice}` is no voice of this provider: use the id of a voice");
            return Err(Error::InvalidRequest(message));
        }
        let path = format!("v1/text-to-speech/{voice}/stream");
        let url = with_query(below(&attempt.base_url, &path), [("output_format", format)]);
        let body = |index: usize| {
            let mut body = json!({"text": pieces[index], "model_id": &*attempt.model});
            // The neighbours decide the melody at the cuts.
            if index > 0 {
                body["previous_text"] = pieces[index - 1].into();
            }
            if let Some(next) = pieces.get(index + 1) {
                body["next_text"] = (*next).into();
            }
            if let Some(language) = &request.language {
                body["language_code"] = language.split('-').next().unwrap_or(language).into();
            }
            if let Some(speed) = request.speed {
                body["voice_settings"] = json!({"speed": number(speed.clamp(0.7, 1.2))});
            }
            body
        };
        let requests = (0..pieces.len())
            .map(|index| self.request(Method::POST, attempt, url.clone()).json(&body(index)))
            .collect();
        let characters = request.text.chars().count() as u64;
        spoken::speak(&self.wire, requests, attempt, explain, request.format, characters).await
    }
}

fn format_name(format: AudioFormat) -> Option<&'static str> {
    Some(match format {
        AudioFormat::Mp3 => "mp3_44100_128",
        AudioFormat::Opus => "opus_48000_64",
        AudioFormat::Pcm(8_000) => "pcm_8000",
        AudioFormat::Pcm(16_000) => "pcm_16000",
        AudioFormat::Pcm(22_050) => "pcm_22050",
        AudioFormat::Pcm(24_000) => "pcm_24000",
        AudioFormat::Pcm(44_100) => "pcm_44100",
        AudioFormat::Pcm(48_000) => "pcm_48000",
        AudioFormat::Mulaw => "ulaw_8000",
        AudioFormat::Pcm(_) | AudioFormat::Wav | AudioFormat::Flac | AudioFormat::Aac => return None,
    })
}

#[derive(Deserialize)]
struct Heard {
    text: String,
    language_code: Option<String>,
    audio_duration_secs: Option<f64>,
    #[serde(default)]
    words: Vec<WrittenWord>,
}

#[derive(Deserialize)]
struct WrittenWord {
    text: String,
    start: Option<f64>,
    end: Option<f64>,
    #[serde(rename = "type")]
    kind: String,
}

#[async_trait]
impl Transcription for ElevenLabs {
    async fn transcribe(
        &self,
        request: &TranscriptionRequest,
        attempt: &Attempt,
    ) -> Result<Transcript, Error> {
        let file = Part::stream(request.audio.data.clone())
            .file_name(request.audio.file_name())
            .mime_str(&request.audio.mime)
            .map_err(|_| Error::InvalidRequest(format!("`{}` is no media type", request.audio.mime)))?;
        let mut form = Form::new().text("model_id", attempt.model.to_string());
        if let Some(language) = &request.language {
            form = form.text("language_code", language.clone());
        }
        for hint in &request.hints {
            form = form.text("keyterms", hint.clone());
        }
        let url = below(&attempt.base_url, "v1/speech-to-text");
        let post = self.request(Method::POST, attempt, url).multipart(form.part("file", file));
        let heard: Heard = self.wire.send(post, attempt, explain).await?.json().await?;
        let end = heard.words.iter().filter_map(|word| word.end).fold(0.0, f64::max);
        let duration_ms = ms(heard.audio_duration_secs.unwrap_or(end));
        let words = heard.words.into_iter().filter(|word| request.words && word.kind == "word");
        Ok(Transcript {
            text: heard.text,
            language: heard.language_code,
            duration_ms: Some(duration_ms),
            words: words
                .map(|word| Word {
                    text: word.text,
                    start_ms: ms(word.start.unwrap_or_default()),
                    end_ms: ms(word.end.unwrap_or_default()),
                })
                .collect(),
            usage: Usage {
                audio_ms: duration_ms,
                estimated: heard.audio_duration_secs.is_none(),
                ..Usage::default()
            },
        })
    }
}

#[async_trait]
impl Listing for ElevenLabs {
    async fn list(&self, attempt: &Attempt) -> Result<Vec<String>, Error> {
        #[derive(Deserialize)]
        struct Model {
            model_id: String,
        }
        let request = self.request(Method::GET, attempt, below(&attempt.base_url, "v1/models"));
        let models: Vec<Model> = self.wire.send(request, attempt, explain).await?.json().await?;
        Ok(models.into_iter().map(|model| model.model_id).collect())
    }
}

fn ms(seconds: f64) -> u64 {
    (seconds.max(0.0) * 1_000.0).round() as u64
}

/// `{"detail": {"status", "message"}}`, or `{"detail": [{"msg", …}]}` for invalid requests.
pub(crate) fn explain(_: StatusCode, body: &Value) -> (Option<Fault>, String) {
    let detail = &body["detail"];
    let message = [&detail["message"], &detail[0]["msg"], detail].into_iter().find_map(Value::as_str);
    let fault = match detail["status"].as_str().unwrap_or_default() {
        "invalid_api_key" => Some(Fault::Unauthorized),
        "quota_exceeded" => Some(Fault::Billing),
        "too_many_concurrent_requests" => Some(Fault::RateLimited),
        "system_busy" => Some(Fault::Overloaded),
        "voice_not_found" | "model_not_found" => Some(Fault::NotFound),
        _ => None,
    };
    (fault, message.unwrap_or_default().to_owned())
}
