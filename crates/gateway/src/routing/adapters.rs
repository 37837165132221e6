//! Which adapter serves which protocol.

use std::sync::Arc;

use crate::capability::Protocol;
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
}

impl Adapter {
    pub(super) fn of(protocol: Protocol, wire: &Wire) -> Self {
        let wire = wire.clone();
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
