//! Deepgram over WebSocket: Flux (`/v2/listen`), Nova (`/v1/listen`) and Aura (`/v1/speak`). Sources:
//! `../shared/specs/voice.md` §3.3 and the types of `deepgram-sdk` 7.17 (PyPI).

mod aura;
mod flux;
mod nova;

use async_trait::async_trait;

pub use self::aura::Aura;
pub use self::flux::Flux;
pub use self::nova::Nova;
use super::channel::Broken;
use super::listening::{Listening, ListeningCapabilities, ListeningRequest, SpeechToText};
use super::socket::{Dialer, Upgrade};
use super::speaking::{Speaking, SpeakingCapabilities, SpeakingRequest, TextToSpeech};
use super::{Encoding, cartesia};
use crate::Error;
use crate::error::Fault;
use crate::providers::Attempt;
use crate::providers::deepgram::explain;
use crate::providers::wire::{below, context_failure, with_query};
use crate::speech::Word;

/// The adapter.
#[derive(Debug, Clone)]
pub struct DeepgramLive {
    dialer: Dialer,
}

impl DeepgramLive {
    /// Over these sockets.
    #[must_use]
    pub fn new(dialer: Dialer) -> Self {
        Self { dialer }
    }
}

fn upgrade(attempt: &Attempt) -> Result<Upgrade, Error> {
    match &attempt.key {
        None => Ok(Upgrade::default()),
        Some(key) => Upgrade::default()
            .secret("authorization", &format!("Token {}", key.expose()))
            .map_err(|message| context_failure(attempt, Fault::Unauthorized, message)),
    }
}

/// The query's names for an encoding.
fn encoding(encoding: Encoding) -> [(&'static str, String); 2] {
    let name = match encoding {
        Encoding::Pcm16(_) => "linear16",
        Encoding::Mulaw => "mulaw",
        Encoding::Alaw => "alaw",
    };
    [("encoding", name.to_owned()), ("sample_rate", encoding.rate().to_string())]
}

fn ms(seconds: f64) -> u64 {
    (seconds.max(0.0) * 1_000.0).round() as u64
}

/// A recognised word, as both interfaces write it.
#[derive(Debug, serde::Deserialize)]
struct RawWord {
    word: String,
    #[serde(default)]
    punctuated_word: Option<String>,
    #[serde(default)]
    start: Option<f64>,
    #[serde(default)]
    end: Option<f64>,
}

impl RawWord {
    fn timed(self) -> Option<Word> {
        let (start_ms, end_ms) = (ms(self.start?), ms(self.end?));
        Some(Word { text: self.punctuated_word.unwrap_or(self.word), start_ms, end_ms })
    }
}

/// What an error's code or a close means.
fn failed(code: &str, message: &str) -> Broken {
    let fault = match code.split('-').next().unwrap_or_default() {
        "NET" => Fault::Interrupted,
        "DATA" | "MESSAGE" | "UNPARSABLE" => Fault::InvalidRequest,
        "BIG" => Fault::TooLarge,
        "AUTH" => Fault::Unauthorized,
        _ if code.contains("RATE") || code.contains("TOO_MANY") => Fault::RateLimited,
        _ => Fault::ServerError,
    };
    Broken::Failed { fault, message: format!("{code} {message}").trim().to_owned() }
}

/// A close before everything was said.
fn ended(code: Option<u16>, reason: &str) -> Broken {
    match reason.split_whitespace().next() {
        Some(named) if named.contains("-0") => {
            failed(named.trim_end_matches(':'), reason.trim_start_matches(named).trim())
        }
        _ => super::openai::ended(code, reason),
    }
}

#[async_trait]
impl SpeechToText for DeepgramLive {
    fn capabilities(&self, model: &str) -> ListeningCapabilities {
        let flux = model.starts_with("flux");
        ListeningCapabilities {
            pcm_rates: 8_000..=48_000,
            g711: true,
            judges_turns: flux,
            eager: flux,
            end_turn: true,
            word_times: true,
        }
    }

    async fn listen(&self, request: &ListeningRequest, attempt: &Attempt) -> Result<Listening, Error> {
        if !SpeechToText::capabilities(self, &attempt.model).takes(request.encoding) {
            return Err(context_failure(attempt, Fault::Unsupported, "it does not hear this encoding"));
        }
        let upgrade = upgrade(attempt)?;
        let model = [("model", attempt.model.to_string())];
        if attempt.model.starts_with("flux") {
            let url = with_query(below(&attempt.base_url, "v2/listen"), model);
            let url = with_query(url, flux::query(request, &attempt.model));
            self.dialer.open(url, upgrade, attempt, explain, Flux::default()).await
        } else {
            let url = with_query(below(&attempt.base_url, "v1/listen"), model);
            let url = with_query(url, nova::query(request, &attempt.model));
            self.dialer.open(url, upgrade, attempt, explain, Nova::default()).await
        }
    }
}

#[async_trait]
impl TextToSpeech for DeepgramLive {
    fn capabilities(&self, _: &str) -> SpeakingCapabilities {
        SpeakingCapabilities {
            pcm_rates: &[8_000, 16_000, 24_000, 32_000, 48_000],
            mulaw: true,
            alaw: true,
            word_times: false,
            utterances: 1,
            speeds: 0.7..=1.5,
        }
    }

    async fn open(&self, request: &SpeakingRequest, attempt: &Attempt) -> Result<Speaking, Error> {
        cartesia::permitted(request, &TextToSpeech::capabilities(self, &attempt.model), attempt)?;
        // The model is the voice.
        let voice = request.voice.as_deref().unwrap_or(&attempt.model).to_owned();
        let url = with_query(below(&attempt.base_url, "v1/speak"), [("model", voice)]);
        let mut url = with_query(url, encoding(request.encoding));
        if let Some(speed) = request.speed {
            url = with_query(url, [("speed", speed.to_string())]);
        }
        self.dialer.open(url, upgrade(attempt)?, attempt, explain, Aura::default()).await
    }
}
