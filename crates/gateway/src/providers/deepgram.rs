//! Deepgram over HTTP: recordings (`POST /v1/listen`) and Aura speech (`POST /v1/speak`). Sources: the vendor's API
//! reference and the types of `@deepgram/sdk` 5.13 (npm).

use async_trait::async_trait;
use http::{Method, StatusCode, header};
use reqwest::RequestBuilder;
use serde::Deserialize;
use serde_json::{Value, json};
use url::Url;

use super::wire::{Context, below, with_query};
use super::{Attempt, Listing, Speech, Transcription, Wire, sentences, spoken, with_secret};
use crate::Error;
use crate::error::Fault;
use crate::speech::{AudioFormat, SpeechRequest, SpeechStream, Word};
use crate::transcription::{Transcript, TranscriptionRequest};
use crate::usage::Usage;

/// Most characters of one request to Aura.
const MOST_CHARACTERS: usize = 2_000;

/// The adapter.
#[derive(Debug, Clone)]
pub struct Deepgram {
    wire: Wire,
}

impl Deepgram {
    /// Asks over `wire`.
    #[must_use]
    pub fn new(wire: Wire) -> Self {
        Self { wire }
    }

    fn request(&self, method: Method, attempt: &Attempt, url: Url) -> RequestBuilder {
        let request = self.wire.request_to(method, attempt, url);
        match &attempt.key {
            Some(key) => with_secret(request, "authorization", &format!("Token {}", key.expose())),
            None => request,
        }
    }
}

#[derive(Deserialize)]
struct Heard {
    metadata: Metadata,
    results: Results,
}

#[derive(Deserialize)]
struct Metadata {
    duration: f64,
}

#[derive(Deserialize)]
struct Results {
    channels: Vec<Channel>,
}

#[derive(Deserialize)]
struct Channel {
    alternatives: Vec<Alternative>,
    detected_language: Option<String>,
}

#[derive(Deserialize)]
struct Alternative {
    transcript: String,
    #[serde(default)]
    words: Vec<WrittenWord>,
}

#[derive(Deserialize)]
struct WrittenWord {
    word: String,
    punctuated_word: Option<String>,
    start: f64,
    end: f64,
}

#[async_trait]
impl Transcription for Deepgram {
    async fn transcribe(
        &self,
        request: &TranscriptionRequest,
        attempt: &Attempt,
    ) -> Result<Transcript, Error> {
        let mut query = vec![("model", attempt.model.to_string()), ("smart_format", "true".into())];
        match &request.language {
            Some(language) => query.push(("language", language.clone())),
            None => query.push(("detect_language", "true".into())),
        }
        // Nova 3 calls hints keyterms; older models keywords.
        let hint = if attempt.model.starts_with("nova-3") { "keyterm" } else { "keywords" };
        query.extend(request.hints.iter().map(|word| (hint, word.clone())));
        let url = with_query(below(&attempt.base_url, "v1/listen"), query);
        let post = self
            .request(Method::POST, attempt, url)
            .header(header::CONTENT_TYPE, &request.audio.mime)
            .body(request.audio.data.clone());
        let heard: Heard = self.wire.send(post, attempt, explain).await?.json().await?;
        let missing = || Context::of(attempt).fail(Fault::Malformed, "a transcript without a channel");
        let channel = heard.results.channels.into_iter().next().ok_or_else(missing)?;
        let language = channel.detected_language.or_else(|| request.language.clone());
        let best = channel.alternatives.into_iter().next().ok_or_else(missing)?;
        let words = best.words.into_iter().filter(|_| request.words).map(|word| Word {
            text: word.punctuated_word.unwrap_or(word.word),
            start_ms: ms(word.start),
            end_ms: ms(word.end),
        });
        Ok(Transcript {
            text: best.transcript,
            language,
            duration_ms: Some(ms(heard.metadata.duration)),
            words: words.collect(),
            usage: Usage { audio_ms: ms(heard.metadata.duration), ..Usage::default() },
        })
    }
}

#[async_trait]
impl Speech for Deepgram {
    async fn speak(&self, request: &SpeechRequest, attempt: &Attempt) -> Result<SpeechStream, Error> {
        let pieces = sentences::pieces(&request.text, MOST_CHARACTERS);
        let (encoding, container, rate) =
            encoding(request.format).ok_or_else(|| spoken::no_format(attempt, request.format))?;
        if pieces.len() > 1 && container == Some("wav") {
            let message = format!("texts over {MOST_CHARACTERS} characters need the format mp3, opus or pcm");
            return Err(Error::InvalidRequest(message));
        }
        // The model is the voice: aura-2-thalia-en.
        let model = request.voice.clone().unwrap_or_else(|| attempt.model.to_string());
        let mut query = vec![("model", model), ("encoding", encoding.to_owned())];
        query.extend(container.map(|container| ("container", container.to_owned())));
        query.extend(rate.map(|rate| ("sample_rate", rate.to_string())));
        query.extend(request.speed.map(|speed| ("speed", speed.clamp(0.7, 1.5).to_string())));
        let url = with_query(below(&attempt.base_url, "v1/speak"), query);
        let requests = pieces
            .iter()
            .map(|piece| self.request(Method::POST, attempt, url.clone()).json(&json!({"text": piece})))
            .collect();
        let characters = request.text.chars().count() as u64;
        spoken::speak(&self.wire, requests, attempt, explain, request.format, characters).await
    }
}

/// Encoding, container and sample rate.
fn encoding(format: AudioFormat) -> Option<(&'static str, Option<&'static str>, Option<u32>)> {
    Some(match format {
        AudioFormat::Mp3 => ("mp3", None, None),
        AudioFormat::Opus => ("opus", Some("ogg"), None),
        AudioFormat::Flac => ("flac", None, None),
        AudioFormat::Aac => ("aac", None, None),
        AudioFormat::Wav => ("linear16", Some("wav"), Some(24_000)),
        AudioFormat::Pcm(rate @ (8_000 | 16_000 | 24_000 | 32_000 | 48_000)) => {
            ("linear16", Some("none"), Some(rate))
        }
        AudioFormat::Pcm(_) => return None,
        AudioFormat::Mulaw => ("mulaw", Some("none"), Some(8_000)),
    })
}

#[async_trait]
impl Listing for Deepgram {
    async fn list(&self, attempt: &Attempt) -> Result<Vec<String>, Error> {
        #[derive(Deserialize)]
        struct Models {
            #[serde(default)]
            stt: Vec<Model>,
            #[serde(default)]
            tts: Vec<Model>,
        }
        #[derive(Deserialize)]
        struct Model {
            canonical_name: String,
        }
        // The list of models is public: the projects are asked first, because only a valid key sees them.
        let projects = self.request(Method::GET, attempt, below(&attempt.base_url, "v1/projects"));
        let _: Value = self.wire.send(projects, attempt, explain).await?.json().await?;
        let request = self.request(Method::GET, attempt, below(&attempt.base_url, "v1/models"));
        let models: Models = self.wire.send(request, attempt, explain).await?.json().await?;
        Ok(models.stt.into_iter().chain(models.tts).map(|model| model.canonical_name).collect())
    }
}

fn ms(seconds: f64) -> u64 {
    (seconds.max(0.0) * 1_000.0).round() as u64
}

/// `{"err_code", "err_msg", "request_id"}`, or `{"category", "message", "details"}`.
pub(crate) fn explain(_: StatusCode, body: &Value) -> (Option<Fault>, String) {
    let text = |name: &str| body[name].as_str().unwrap_or_default();
    let message = [text("err_msg"), text("message"), text("details")].into_iter().find(|m| !m.is_empty());
    let fault = match text("err_code") {
        "INVALID_AUTH" => Some(Fault::Unauthorized),
        "INSUFFICIENT_PERMISSIONS" | "FORBIDDEN" => Some(Fault::Forbidden),
        "ASR_PAYMENT_REQUIRED" => Some(Fault::Billing),
        "TOO_MANY_REQUESTS" => Some(Fault::RateLimited),
        _ => None,
    };
    (fault, message.unwrap_or_default().to_owned())
}
