//! A provider that needs no network, no key and no model, and says so.
//!
//! * Text: rules that use their context: they call the tools that fit the words, fill schemas,
//!   answer from the knowledge in the prompt, tell stories about the hero they are given, and summarise.
//! * Speech: espeak-ng.
//! * Pictures: landscapes drawn from the prompt's words, marked as made offline.
//! * Vectors: hashed words and trigrams, so that texts with words in common are near each other.
//! * Moderation: the rule layer of [`crate::safety`].

mod answer;
mod pictures;
mod resample;
mod speech;
mod story;
mod vectors;
mod words;

pub(crate) use self::speech::Voice;

use std::collections::VecDeque;

use async_trait::async_trait;
use futures_util::stream;

use crate::Error;
use crate::chat::{ChatEvent, ChatRequest, ChatStream, FinishReason, ToolCall};
use crate::embeddings::{EmbeddingRequest, Embeddings};
use crate::error::Fault;
use crate::images::{Image, ImageRequest, Images};
use crate::media::Media;
use crate::moderation::{Category, Moderation, ModerationRequest, Verdict};
use crate::providers::{Attempt, Chat, Embedding, ImageMaking, Listing, Moderating, Speech, context};
use crate::safety;
use crate::speech::{SpeechRequest, SpeechStream};
use crate::usage::Usage;

/// The provider.
#[derive(Debug, Clone)]
pub struct Offline {
    voice: speech::Voice,
}

impl Offline {
    /// Looks for espeak-ng on the search path.
    #[must_use]
    pub fn detect() -> Self {
        Self { voice: speech::Voice::detect() }
    }
}

#[async_trait]
impl Chat for Offline {
    async fn chat(&self, request: &ChatRequest, attempt: &Attempt) -> Result<ChatStream, Error> {
        let answer = answer::answer(request);
        let mut events = VecDeque::from([ChatEvent::Started { id: None, model: attempt.model.to_string() }]);
        let limit = request.max_output_tokens.map_or(usize::MAX, |limit| limit as usize * 4);
        let (text, cut) = words::truncated(&answer.text, limit);
        events.extend(words::with_spaces(text).map(|word| ChatEvent::Text(word.to_owned())));
        let calls = answer.calls.len();
        for (index, (name, arguments)) in answer.calls.into_iter().enumerate() {
            let id = format!("offline_{}", uuid::Uuid::new_v4().simple());
            let arguments = arguments.to_string();
            events.push_back(ChatEvent::ToolCallStarted { index, id: id.clone(), name: name.clone() });
            events.push_back(ChatEvent::ToolCallArguments { index, delta: arguments.clone() });
            let call = ToolCall { id, name, arguments, signature: None };
            events.push_back(ChatEvent::ToolCall { index, call });
        }
        let reason = match (cut, calls) {
            (true, _) => FinishReason::Length,
            (_, 0) => FinishReason::Stop,
            _ => FinishReason::ToolCalls,
        };
        let usage = Usage {
            input_tokens: (request.text_len() as u64).div_ceil(4),
            output_tokens: Usage::estimate_tokens(text),
            estimated: true,
            ..Usage::default()
        };
        events.push_back(ChatEvent::Finished { reason, usage });
        Ok(ChatStream::new(stream::iter(events.into_iter().map(Ok))))
    }
}

#[async_trait]
impl Speech for Offline {
    async fn speak(&self, request: &SpeechRequest, attempt: &Attempt) -> Result<SpeechStream, Error> {
        self.voice.speak(request, attempt).await
    }
}

#[async_trait]
impl ImageMaking for Offline {
    async fn make_images(&self, request: &ImageRequest, attempt: &Attempt) -> Result<Images, Error> {
        let (request, context) = (request.clone(), context(attempt));
        // Drawing takes a moment of a processor: not one of those that serve requests.
        let drawn = tokio::task::spawn_blocking(move || {
            let count = u64::from(request.count.clamp(1, 10));
            (0..count).map(|index| pictures::draw(&request, index)).collect::<Result<Vec<_>, String>>()
        });
        let drawn = drawn.await.unwrap_or_else(|error| Err(error.to_string()));
        let pictures = drawn.map_err(|error| context.fail(Fault::ServerError, error))?;
        let image = |(mime, bytes): (&'static str, Vec<u8>)| Image {
            media: Media::new(mime, bytes),
            revised_prompt: None,
        };
        let images: Vec<Image> = pictures.into_iter().map(image).collect();
        let usage = Usage { images: images.len() as u64, ..Usage::default() };
        Ok(Images { images, usage })
    }
}

#[async_trait]
impl Embedding for Offline {
    async fn embed(&self, request: &EmbeddingRequest, _: &Attempt) -> Result<Embeddings, Error> {
        let dimensions = request.dimensions.map_or(vectors::DIMENSIONS, |d| d.clamp(8, 4_096) as usize);
        let vectors = request.texts.iter().map(|text| vectors::embed(text, dimensions)).collect();
        let input_tokens = request.texts.iter().map(|text| Usage::estimate_tokens(text)).sum();
        Ok(Embeddings { vectors, usage: Usage { input_tokens, estimated: true, ..Usage::default() } })
    }
}

#[async_trait]
impl Moderating for Offline {
    async fn moderate(&self, request: &ModerationRequest, attempt: &Attempt) -> Result<Moderation, Error> {
        if request.picture.is_some() {
            let message = "it judges texts only";
            return Err(context(attempt).fail(Fault::Unsupported, message).into());
        }
        let verdict = |text: &String| {
            let categories: Vec<Category> = safety::find(text)
                .into_iter()
                .map(|finding| Category {
                    name: finding.category.as_str().replace("self_harm", "self-harm"),
                    flagged: finding.severity >= 0.8,
                    score: finding.severity,
                })
                .collect();
            Verdict { flagged: categories.iter().any(|category| category.flagged), categories }
        };
        let verdicts = request.texts.iter().map(verdict).collect();
        Ok(Moderation { verdicts, usage: Usage::default() })
    }
}

#[async_trait]
impl Listing for Offline {
    async fn list(&self, _: &Attempt) -> Result<Vec<String>, Error> {
        let mut models = vec!["rules".to_owned(), "pictures".into(), "hashes".into(), "lists".into()];
        if self.voice.is_available() {
            models.push("espeak".into());
        }
        Ok(models)
    }
}
