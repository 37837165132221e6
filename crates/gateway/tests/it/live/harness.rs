//! Vendors, speech, and what comes of both.

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Duration;

use longhouse_emulators::ai::{LiveOptions, Options, Server};
use longhouse_emulators::g711;
use longhouse_emulators::speech::{CaptionDecoder, Resampler, SAMPLE_RATE, Speaker};
use longhouse_gateway::chat::Tool;
use longhouse_gateway::keys::ApiKey;
use longhouse_gateway::live::cartesia::CartesiaLive;
use longhouse_gateway::live::deepgram::DeepgramLive;
use longhouse_gateway::live::elevenlabs::ElevenLabsLive;
use longhouse_gateway::live::gemini::GeminiLive;
use longhouse_gateway::live::openai::OpenAiLive;
use longhouse_gateway::live::xai::XaiLive;
use longhouse_gateway::live::{
    Dialer, Encoding, Listening, ListeningCommand, ListeningEvent, ListeningRequest, Live, Payload, Session,
    SessionRequest, Speaking, SpeakingCommand, SpeakingEvent, SpeakingRequest, SpeechToSpeech, SpeechToText,
    TextToSpeech, Utterance,
};
use longhouse_gateway::providers::Attempt;
use longhouse_gateway::speech::Word;
use longhouse_gateway::{Error, ProviderName};
use tokio::time::Instant;
use url::Url;

use crate::harness::{KEY, soon};

/// Something that listens.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) enum Ear {
    Flux,
    Nova,
    OpenAi,
}

/// Something that speaks.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) enum Mouth {
    Aura,
    Cartesia,
    ElevenLabs,
}

/// Something that does both.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) enum Mind {
    OpenAi,
    Xai,
    Gemini,
}

pub(super) struct Desk {
    pub(super) server: Server,
    pub(super) dialer: Dialer,
    pub(super) key: String,
    pub(super) first_byte: Duration,
    pub(super) idle: Duration,
}

impl Desk {
    pub(super) async fn new() -> Self {
        Self::with(LiveOptions::default()).await
    }

    pub(super) async fn with(live: LiveOptions) -> Self {
        let realtime = longhouse_emulators::openai::Options {
            first_audio_latency: live.latency,
            delta_gap: live.gap,
            transcription_delay: live.latency,
            ..longhouse_emulators::openai::Options::default()
        };
        let options = Options { api_key: Some(KEY.into()), live, realtime, ..Options::default() };
        let server = Server::start(options).await.unwrap();
        Self {
            server,
            dialer: Dialer::new(),
            key: KEY.into(),
            first_byte: Duration::from_secs(5),
            idle: Duration::from_secs(5),
        }
    }

    pub(super) fn attempt(&self, base_url: Url, model: &str) -> Attempt {
        Attempt {
            provider: ProviderName::new("vendor"),
            model: model.into(),
            key: Some(ApiKey::new(self.key.clone().into())),
            base_url,
            trusted_address: true,
            deadline: Instant::now() + Duration::from_secs(20),
            first_byte: self.first_byte,
            idle: self.idle,
            idempotency_key: "k".into(),
        }
    }

    pub(super) async fn listen(&self, ear: Ear, request: &ListeningRequest) -> Result<Listening, Error> {
        let deepgram = DeepgramLive::new(self.dialer.clone());
        match ear {
            Ear::Flux => {
                deepgram.listen(request, &self.attempt(self.server.deepgram(), "flux-general-en")).await
            }
            Ear::Nova => deepgram.listen(request, &self.attempt(self.server.deepgram(), "nova-3")).await,
            Ear::OpenAi => {
                let one = OpenAiLive::new(self.dialer.clone());
                one.listen(request, &self.attempt(self.server.openai(), "gpt-transcribe")).await
            }
        }
    }

    pub(super) async fn speak(&self, mouth: Mouth, request: &SpeakingRequest) -> Result<Speaking, Error> {
        let (one, attempt): (Arc<dyn TextToSpeech>, Attempt) = match mouth {
            Mouth::Aura => (
                Arc::new(DeepgramLive::new(self.dialer.clone())),
                self.attempt(self.server.deepgram(), "aura-2-thalia-en"),
            ),
            Mouth::Cartesia => (
                Arc::new(CartesiaLive::new(self.dialer.clone())),
                self.attempt(self.server.cartesia(), "sonic-3"),
            ),
            Mouth::ElevenLabs => (
                Arc::new(ElevenLabsLive::new(self.dialer.clone())),
                self.attempt(self.server.elevenlabs(), "eleven_flash_v2_5"),
            ),
        };
        one.open(request, &attempt).await
    }

    pub(super) async fn converse(&self, mind: Mind, request: &SessionRequest) -> Result<Session, Error> {
        let (one, attempt): (Arc<dyn SpeechToSpeech>, Attempt) = match mind {
            Mind::OpenAi => (
                Arc::new(OpenAiLive::new(self.dialer.clone())),
                self.attempt(self.server.openai(), "gpt-realtime-2.1"),
            ),
            Mind::Xai => (
                Arc::new(XaiLive::new(self.dialer.clone())),
                self.attempt(self.server.xai(), "grok-voice-latest"),
            ),
            Mind::Gemini => (
                Arc::new(GeminiLive::new(self.dialer.clone())),
                self.attempt(self.server.gemini(), "gemini-live-2.5-flash"),
            ),
        };
        one.converse(request, &attempt).await
    }
}

impl Mind {
    /// What telephones would send it, or what it takes instead.
    pub(super) fn input(self) -> Encoding {
        if self == Self::Gemini { Encoding::Pcm16(16_000) } else { Encoding::Mulaw }
    }

    pub(super) fn output(self) -> Encoding {
        if self == Self::Gemini { Encoding::Pcm16(24_000) } else { Encoding::Mulaw }
    }

    pub(super) fn request(self) -> SessionRequest {
        let tool = |name: &str| Tool {
            name: name.into(),
            description: "Tells something.".into(),
            parameters: serde_json::json!({"type": "object", "properties": {"city": {"type": "string"}}}),
            strict: false,
        };
        SessionRequest {
            output: self.output(),
            tools: vec![tool("weather"), tool("clock")],
            ..SessionRequest::new("Be brief.", self.input())
        }
    }
}

/// Speech in an encoding, with silence after it, in pieces of 20 ms.
pub(super) async fn speech(text: &str, encoding: Encoding, silence_ms: usize) -> Vec<bytes::Bytes> {
    let mut samples = Speaker::detect().say(text).await.samples.clone();
    samples.extend(std::iter::repeat_n(0, silence_ms * 8));
    let bytes = match encoding {
        Encoding::Mulaw => g711::linear_to_mulaw(&samples),
        Encoding::Alaw => g711::linear_to_alaw(&samples),
        Encoding::Pcm16(rate) => {
            let samples = match rate {
                SAMPLE_RATE => samples,
                rate => Resampler::whole(SAMPLE_RATE, rate, &samples),
            };
            samples.iter().flat_map(|sample| sample.to_le_bytes()).collect()
        }
    };
    let size = (encoding.rate() * encoding.sample_bytes() / 50) as usize;
    bytes.chunks(size).map(bytes::Bytes::copy_from_slice).collect()
}

/// The words that a listener with perfect ears hears in audio.
pub(super) fn words(audio: &[u8], encoding: Encoding) -> Vec<String> {
    let mut samples = match encoding {
        Encoding::Mulaw => g711::mulaw_to_linear(audio),
        Encoding::Alaw => g711::alaw_to_linear(audio),
        Encoding::Pcm16(rate) => {
            let samples: Vec<i16> = audio.chunks_exact(2).map(|b| i16::from_le_bytes([b[0], b[1]])).collect();
            if rate == SAMPLE_RATE { samples } else { Resampler::whole(rate, SAMPLE_RATE, &samples) }
        }
    };
    samples.extend([0; 800]);
    CaptionDecoder::new().push(&samples).into_iter().map(|word| word.text).collect()
}

pub(super) fn raw(payload: &Payload) -> bytes::Bytes {
    payload.decoded().unwrap()
}

/// A live channel, and events that came while something was sent.
pub(super) struct Tape<C, E> {
    pub(super) live: Live<C, E>,
    pending: VecDeque<E>,
}

impl<C, E: std::fmt::Debug> Tape<C, E> {
    pub(super) fn new(live: Live<C, E>) -> Self {
        Self { live, pending: VecDeque::new() }
    }

    pub(super) fn send(&mut self, command: C) {
        self.live.send(command).unwrap();
    }

    /// Sends, and lets it leave.
    pub(super) async fn feed(&mut self, commands: impl IntoIterator<Item = C>) {
        for command in commands {
            self.send(command);
            while let Ok(event) = tokio::time::timeout(Duration::from_micros(200), self.live.next()).await {
                self.pending.push_back(event.expect("it goes on").expect("it goes well"));
            }
        }
    }

    /// The next event, soon.
    pub(super) async fn event(&mut self) -> E {
        match self.pending.pop_front() {
            Some(event) => event,
            None => soon(self.live.next()).await.expect("it goes on").expect("it goes well"),
        }
    }
}

/// The audio and the words of an utterance, to its end.
pub(super) async fn utterance(
    speaking: &mut Tape<SpeakingCommand, SpeakingEvent>,
    wanted: Utterance,
) -> (Vec<u8>, Vec<Word>) {
    let (mut audio, mut times) = (Vec::new(), Vec::new());
    loop {
        match speaking.event().await {
            SpeakingEvent::Audio(of, payload) if of == wanted => audio.extend_from_slice(&raw(&payload)),
            SpeakingEvent::Words(of, words) if of == wanted => times.extend(words),
            SpeakingEvent::Done(of) if of == wanted => return (audio, times),
            SpeakingEvent::Failed(of, why) => panic!("{of}: {why}"),
            _ => {}
        }
    }
}

/// The text of the next turn that ends, and what was said before.
pub(super) async fn turn(
    listening: &mut Tape<ListeningCommand, ListeningEvent>,
) -> (String, Vec<ListeningEvent>) {
    let mut before = Vec::new();
    loop {
        match listening.event().await {
            ListeningEvent::EndOfTurn(heard) => return (heard.text, before),
            other => before.push(other),
        }
    }
}
