//! Which adapter serves which protocol.

use std::sync::Arc;

use crate::capability::Protocol;
use crate::live::cartesia::CartesiaLive;
use crate::live::deepgram::DeepgramLive;
use crate::live::elevenlabs::ElevenLabsLive;
use crate::live::gemini::GeminiLive;
use crate::live::offline::OfflineSpeech;
use crate::live::openai::OpenAiLive;
use crate::live::xai::XaiLive;
use crate::live::{Dialer, SpeechToSpeech, SpeechToText, TextToSpeech};
use crate::offline::Offline;
use crate::providers::anthropic::Anthropic;
use crate::providers::cartesia::Cartesia;
use crate::providers::deepgram::Deepgram;
use crate::providers::elevenlabs::ElevenLabs;
use crate::providers::gemini::Gemini;
use crate::providers::openai::OpenAi;
use crate::providers::replicate::Replicate;
use crate::providers::{Chat, Embedding, ImageMaking, Listing, Moderating, Speech, Transcription, Wire};

/// What one protocol offers.
#[derive(Clone, Default)]
pub(super) struct Adapter {
    pub(super) chat: Option<Arc<dyn Chat>>,
    pub(super) speech: Option<Arc<dyn Speech>>,
    pub(super) transcription: Option<Arc<dyn Transcription>>,
    pub(super) images: Option<Arc<dyn ImageMaking>>,
    pub(super) embeddings: Option<Arc<dyn Embedding>>,
    pub(super) moderation: Option<Arc<dyn Moderating>>,
    pub(super) listing: Option<Arc<dyn Listing>>,
    pub(super) listening: Option<Arc<dyn SpeechToText>>,
    pub(super) speaking: Option<Arc<dyn TextToSpeech>>,
    pub(super) session: Option<Arc<dyn SpeechToSpeech>>,
}

impl Adapter {
    pub(super) fn of(protocol: Protocol, wire: &Wire, dialer: &Dialer) -> Self {
        let mut adapter = Self::of_requests(protocol, wire.clone());
        let dialer = dialer.clone();
        match protocol {
            Protocol::Openai => {
                let one = Arc::new(OpenAiLive::new(dialer));
                adapter.listening = Some(one.clone());
                adapter.session = Some(one);
            }
            Protocol::Xai => adapter.session = Some(Arc::new(XaiLive::new(dialer))),
            Protocol::Gemini => adapter.session = Some(Arc::new(GeminiLive::new(dialer))),
            Protocol::Deepgram => {
                let one = Arc::new(DeepgramLive::new(dialer));
                adapter.listening = Some(one.clone());
                adapter.speaking = Some(one);
            }
            Protocol::Elevenlabs => adapter.speaking = Some(Arc::new(ElevenLabsLive::new(dialer))),
            Protocol::Cartesia => adapter.speaking = Some(Arc::new(CartesiaLive::new(dialer))),
            Protocol::Offline => adapter.speaking = Some(Arc::new(OfflineSpeech::detect())),
            Protocol::OpenaiCompatible | Protocol::Anthropic | Protocol::Replicate => {}
        }
        adapter
    }

    fn of_requests(protocol: Protocol, wire: Wire) -> Self {
        match protocol {
            Protocol::Openai | Protocol::OpenaiCompatible | Protocol::Xai => {
                let vendor = protocol == Protocol::Openai;
                let one = Arc::new(if vendor { OpenAi::vendor(wire) } else { OpenAi::compatible(wire) });
                Self {
                    chat: Some(one.clone()),
                    speech: Some(one.clone()),
                    transcription: Some(one.clone()),
                    images: Some(one.clone()),
                    embeddings: Some(one.clone()),
                    moderation: Some(one.clone()),
                    listing: Some(one),
                    ..Self::default()
                }
            }
            Protocol::Anthropic => {
                let one = Arc::new(Anthropic::new(wire));
                Self { chat: Some(one.clone()), listing: Some(one), ..Self::default() }
            }
            Protocol::Gemini => {
                let one = Arc::new(Gemini::new(wire));
                Self {
                    chat: Some(one.clone()),
                    images: Some(one.clone()),
                    embeddings: Some(one.clone()),
                    listing: Some(one),
                    ..Self::default()
                }
            }
            Protocol::Deepgram => {
                let one = Arc::new(Deepgram::new(wire));
                Self {
                    speech: Some(one.clone()),
                    transcription: Some(one.clone()),
                    listing: Some(one),
                    ..Self::default()
                }
            }
            Protocol::Elevenlabs => {
                let one = Arc::new(ElevenLabs::new(wire));
                Self {
                    speech: Some(one.clone()),
                    transcription: Some(one.clone()),
                    listing: Some(one),
                    ..Self::default()
                }
            }
            Protocol::Cartesia => {
                let one = Arc::new(Cartesia::new(wire));
                Self { speech: Some(one.clone()), listing: Some(one), ..Self::default() }
            }
            Protocol::Replicate => {
                let one = Arc::new(Replicate::new(wire));
                Self { images: Some(one.clone()), listing: Some(one), ..Self::default() }
            }
            Protocol::Offline => {
                let one = Arc::new(Offline::detect());
                Self {
                    chat: Some(one.clone()),
                    speech: Some(one.clone()),
                    images: Some(one.clone()),
                    embeddings: Some(one.clone()),
                    moderation: Some(one.clone()),
                    listing: Some(one),
                    ..Self::default()
                }
            }
        }
    }
}
