//! Cartesia over HTTP: speech (`POST /tts/bytes`). Sources: the vendor's API reference and the types of
//! `@cartesia/cartesia-js` 4.2 (npm).

use async_trait::async_trait;
use http::{Method, StatusCode};
use reqwest::RequestBuilder;
use serde::Deserialize;
use serde_json::{Value, json};

use super::openai::number;
use super::wire::below;
use super::{Attempt, Listing, Speech, Wire, sentences, spoken, with_secret};
use crate::Error;
use crate::error::Fault;
use crate::speech::{AudioFormat, SpeechRequest, SpeechStream};

/// The version of the interface that this adapter speaks.
pub(crate) const VERSION: &str = "2025-04-16";
/// Most characters of one request.
const MOST_CHARACTERS: usize = 20_000;
/// A voice that every account has.
pub(crate) const VOICE: &str = "694f9389-aac1-45b6-b726-9d9369183238";

/// The adapter.
#[derive(Debug, Clone)]
pub struct Cartesia {
    wire: Wire,
}

impl Cartesia {
    /// Asks over `wire`.
    #[must_use]
    pub fn new(wire: Wire) -> Self {
        Self { wire }
    }

    fn request(&self, method: Method, attempt: &Attempt, path: &str) -> RequestBuilder {
        let url = below(&attempt.base_url, path);
        let request = self.wire.request_to(method, attempt, url).header("cartesia-version", VERSION);
        match &attempt.key {
            Some(key) => with_secret(request, "x-api-key", key.expose()),
            None => request,
        }
    }
}

#[async_trait]
impl Speech for Cartesia {
    async fn speak(&self, request: &SpeechRequest, attempt: &Attempt) -> Result<SpeechStream, Error> {
        let pieces = sentences::pieces(&request.text, MOST_CHARACTERS);
        let format =
            output_format(request.format).ok_or_else(|| spoken::no_format(attempt, request.format))?;
        if pieces.len() > 1 && request.format == AudioFormat::Wav {
            let message = format!("texts over {MOST_CHARACTERS} characters need the format mp3 or pcm");
            return Err(Error::InvalidRequest(message));
        }
        let requests = pieces
            .iter()
            .map(|piece| {
                let mut body = json!({
                    "model_id": &*attempt.model,
                    "transcript": piece,
                    "voice": {"mode": "id", "id": request.voice.as_deref().unwrap_or(VOICE)},
                    "output_format": format,
                });
                if let Some(language) = &request.language {
                    body["language"] = language.split('-').next().unwrap_or(language).into();
                }
                if let Some(speed) = request.speed {
                    body["generation_config"] = json!({"speed": number(speed.clamp(0.6, 1.5))});
                }
                self.request(Method::POST, attempt, "tts/bytes").json(&body)
            })
            .collect();
        let characters = request.text.chars().count() as u64;
        spoken::speak(&self.wire, requests, attempt, explain, request.format, characters).await
    }
}

fn output_format(format: AudioFormat) -> Option<Value> {
    Some(match format {
        AudioFormat::Mp3 => json!({"container": "mp3", "sample_rate": 44_100, "bit_rate": 128_000}),
        AudioFormat::Wav => json!({"container": "wav", "encoding": "pcm_s16le", "sample_rate": 44_100}),
        AudioFormat::Pcm(rate @ (8_000 | 16_000 | 22_050 | 24_000 | 44_100 | 48_000)) => {
            json!({"container": "raw", "encoding": "pcm_s16le", "sample_rate": rate})
        }
        AudioFormat::Mulaw => json!({"container": "raw", "encoding": "pcm_mulaw", "sample_rate": 8_000}),
        AudioFormat::Pcm(_) | AudioFormat::Opus | AudioFormat::Flac | AudioFormat::Aac => return None,
    })
}

#[async_trait]
impl Listing for Cartesia {
    async fn list(&self, attempt: &Attempt) -> Result<Vec<String>, Error> {
        #[derive(Deserialize)]
        struct Voices {
            data: Vec<Voice>,
        }
        #[derive(Deserialize)]
        struct Voice {
            id: String,
        }
        let request = self.request(Method::GET, attempt, "voices");
        let voices: Voices = self.wire.send(request, attempt, explain).await?.json().await?;
        Ok(voices.data.into_iter().map(|voice| voice.id).collect())
    }
}

/// `{"error_code", "title", "message", "request_id"}`; older ones only `{"error"}` or a text.
pub(crate) fn explain(_: StatusCode, body: &Value) -> (Option<Fault>, String) {
    let message =
        [&body["message"], &body["title"], &body["error"], body].into_iter().find_map(Value::as_str);
    let fault = match body["error_code"].as_str().unwrap_or_default() {
        "quota_exceeded" | "plan_upgrade_required" => Some(Fault::Billing),
        "concurrency_limited" => Some(Fault::RateLimited),
        "voice_not_found" | "model_not_found" => Some(Fault::NotFound),
        _ => None,
    };
    (fault, message.unwrap_or_default().to_owned())
}
