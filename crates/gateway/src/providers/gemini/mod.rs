//! Gemini: `streamGenerateContent`, `generateContent` for pictures, and embeddings. Sources: the vendor's API reference
//! and the types of `@google/genai` 2.32 (npm).

mod embeddings;
mod images;
mod request;
mod stream;

use async_trait::async_trait;
use http::{Method, StatusCode};
use reqwest::RequestBuilder;
use serde::Deserialize;
use serde_json::Value;
use url::Url;

use super::wire::{below, with_query};
use super::{Attempt, Chat, Listing, Wire};
use crate::Error;
use crate::chat::{ChatRequest, ChatStream};
use crate::error::Fault;

/// What [`crate::chat::Opaque`] says of state that only this protocol understands: signatures of thoughts.
const PROTOCOL: &str = "gemini";

/// The adapter.
#[derive(Debug, Clone)]
pub struct Gemini {
    wire: Wire,
}

impl Gemini {
    /// Asks over `wire`.
    #[must_use]
    pub fn new(wire: Wire) -> Self {
        Self { wire }
    }

    fn request(&self, method: Method, attempt: &Attempt, path: &str) -> RequestBuilder {
        self.request_to(method, attempt, below(&attempt.base_url, path))
    }

    fn request_to(&self, method: Method, attempt: &Attempt, url: Url) -> RequestBuilder {
        let request = self.wire.request_to(method, attempt, url);
        match &attempt.key {
            // In a header: addresses end up in logs.
            Some(key) => super::with_secret(request, "x-goog-api-key", key.expose()),
            None => request,
        }
    }

    fn model_path(attempt: &Attempt, method: &str) -> String {
        let model = attempt.model.strip_prefix("models/").unwrap_or(&attempt.model);
        format!("models/{model}:{method}")
    }
}

#[async_trait]
impl Chat for Gemini {
    async fn chat(&self, request: &ChatRequest, attempt: &Attempt) -> Result<ChatStream, Error> {
        let body = request::body(request, &attempt.model);
        let path = Self::model_path(attempt, "streamGenerateContent");
        let url = with_query(below(&attempt.base_url, &path), [("alt", "sse")]);
        let post = self.request_to(Method::POST, attempt, url).json(&body);
        self.wire.send(post, attempt, explain).await?.chat(stream::Reader::default()).await
    }
}

#[async_trait]
impl Listing for Gemini {
    async fn list(&self, attempt: &Attempt) -> Result<Vec<String>, Error> {
        #[derive(Deserialize)]
        struct Models {
            #[serde(default)]
            models: Vec<Model>,
        }
        #[derive(Deserialize)]
        struct Model {
            name: String,
        }
        let url = with_query(below(&attempt.base_url, "models"), [("pageSize", "1000")]);
        let request = self.request_to(Method::GET, attempt, url);
        let found: Models = self.wire.send(request, attempt, explain).await?.json().await?;
        let name = |model: Model| model.name.trim_start_matches("models/").to_owned();
        Ok(found.models.into_iter().map(name).collect())
    }
}

/// `{"error": {"code", "message", "status", "details"}}`.
pub(crate) fn explain(status: StatusCode, body: &Value) -> (Option<Fault>, String) {
    let error = &body["error"];
    let message = error["message"].as_str().unwrap_or_default().to_owned();
    let fault = match error["status"].as_str().unwrap_or_default() {
        // A wrong key is a bad request here.
        "INVALID_ARGUMENT" if message.contains("API key not valid") => Some(Fault::Unauthorized),
        "INVALID_ARGUMENT" if message.contains("token count") => Some(Fault::ContextTooLong),
        "FAILED_PRECONDITION" => Some(Fault::Billing),
        "UNAUTHENTICATED" => Some(Fault::Unauthorized),
        "PERMISSION_DENIED" => Some(Fault::Forbidden),
        "RESOURCE_EXHAUSTED" => Some(Fault::RateLimited),
        "UNAVAILABLE" => Some(Fault::Overloaded),
        "INTERNAL" | "DEADLINE_EXCEEDED" if status.is_server_error() => Some(Fault::ServerError),
        _ => None,
    };
    (fault, message)
}
