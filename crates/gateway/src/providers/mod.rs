//! Adapters: one folder for each wire protocol, one trait for each modality.
//!
//! An adapter turns a request into the provider's own, and its answer into ours; it knows no other provider, retries
//! nothing and decides nothing. All of them go through [`Wire`], which keeps time, sizes and addresses in bounds.

pub mod anthropic;
pub mod cartesia;
pub mod deepgram;
pub mod elevenlabs;
pub mod gemini;
pub mod openai;
pub mod replicate;
pub(crate) mod sentences;
mod spoken;
mod sse;
pub(crate) mod wire;

use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use http::HeaderValue;
use reqwest::RequestBuilder;
use tokio::time::Instant;
use url::Url;

use self::wire::Context;
pub use self::wire::Wire;
use crate::Error;
use crate::chat::{ChatRequest, ChatStream};
use crate::embeddings::{EmbeddingRequest, Embeddings};
use crate::images::{ImageRequest, Images};
use crate::keys::ApiKey;
use crate::model::ProviderName;
use crate::moderation::{Moderation, ModerationRequest};
use crate::speech::{SpeechRequest, SpeechStream};
use crate::transcription::{Transcript, TranscriptionRequest};

/// One request to one model with one key.
#[derive(Debug, Clone)]
pub struct Attempt {
    /// The configured provider.
    pub provider: ProviderName,
    /// The provider's name for the model.
    pub model: Arc<str>,
    /// What to authenticate with; `None` for servers that want nothing.
    pub key: Option<ApiKey>,
    /// Where the provider is; adapters append their paths.
    pub base_url: Url,
    /// Whether the operator vouches for `base_url`: it may then be a private address.
    pub trusted_address: bool,
    /// When the caller stops waiting.
    pub deadline: Instant,
    /// Longest wait for the first byte.
    pub first_byte: Duration,
    /// Longest silence within an answer.
    pub idle: Duration,
    /// The same for every repetition of one request, for providers that recognise it.
    pub idempotency_key: String,
}

/// Chats.
#[async_trait]
pub trait Chat: Send + Sync {
    /// Asks for an answer. Returns when the provider has accepted; dropping the stream frees it.
    ///
    /// # Errors
    /// [`Error::Provider`].
    async fn chat(&self, request: &ChatRequest, attempt: &Attempt) -> Result<ChatStream, Error>;
}

/// Speaks.
#[async_trait]
pub trait Speech: Send + Sync {
    /// Asks for speech.
    ///
    /// # Errors
    /// [`Error::Provider`].
    async fn speak(&self, request: &SpeechRequest, attempt: &Attempt) -> Result<SpeechStream, Error>;
}

/// Writes down recordings.
#[async_trait]
pub trait Transcription: Send + Sync {
    /// Asks for a transcript.
    ///
    /// # Errors
    /// [`Error::Provider`].
    async fn transcribe(
        &self,
        request: &TranscriptionRequest,
        attempt: &Attempt,
    ) -> Result<Transcript, Error>;
}

/// Makes pictures.
#[async_trait]
pub trait ImageMaking: Send + Sync {
    /// Asks for pictures.
    ///
    /// # Errors
    /// [`Error::Provider`].
    async fn make_images(&self, request: &ImageRequest, attempt: &Attempt) -> Result<Images, Error>;
}

/// Embeds texts.
#[async_trait]
pub trait Embedding: Send + Sync {
    /// Asks for vectors.
    ///
    /// # Errors
    /// [`Error::Provider`].
    async fn embed(&self, request: &EmbeddingRequest, attempt: &Attempt) -> Result<Embeddings, Error>;
}

/// Judges content.
#[async_trait]
pub trait Moderating: Send + Sync {
    /// Asks for verdicts.
    ///
    /// # Errors
    /// [`Error::Provider`].
    async fn moderate(&self, request: &ModerationRequest, attempt: &Attempt) -> Result<Moderation, Error>;
}

/// Lists models: also the real call behind "test key", because it needs a valid key and costs nothing.
#[async_trait]
pub trait Listing: Send + Sync {
    /// Asks which models (or voices) the key may use.
    ///
    /// # Errors
    /// [`Error::Provider`].
    async fn list(&self, attempt: &Attempt) -> Result<Vec<String>, Error>;
}

/// Adds a header that logs must not show. A key that no header can carry fails when the request is built.
fn with_secret(request: RequestBuilder, name: &'static str, secret: &str) -> RequestBuilder {
    match HeaderValue::from_str(secret) {
        Ok(mut value) => {
            value.set_sensitive(true);
            request.header(name, value)
        }
        Err(_) => request.header(name, secret),
    }
}

/// Who is asked, for failures that are found outside of adapters.
pub(crate) fn context(attempt: &Attempt) -> Context {
    Context::of(attempt)
}

/// A failure of a model that was not asked by an adapter.
pub(crate) fn unasked(model: &crate::ModelRef, fault: crate::Fault, message: &str) -> crate::Failure {
    crate::Failure {
        provider: model.provider.clone(),
        model: model.model.to_string(),
        fault,
        status: None,
        message: message.to_owned(),
        retry_after: None,
        request_id: None,
        delivered: false,
    }
}
