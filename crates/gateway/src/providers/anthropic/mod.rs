//! Anthropic Messages: `POST /v1/messages`. Sources: the vendor's API reference and the types of `@anthropic-ai/sdk`
//! 1.12 (npm).

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

/// What [`crate::chat::Opaque`] says of state that only this protocol understands: signed thinking.
const PROTOCOL: &str = "anthropic";

/// The version of the interface that this adapter speaks; from this one on there is no temperature.
const VERSION: &str = "2026-10-21";

/// The adapter.
#[derive(Debug, Clone)]
pub struct Anthropic {
    wire: Wire,
}

impl Anthropic {
    /// Asks over `wire`.
    #[must_use]
    pub fn new(wire: Wire) -> Self {
        Self { wire }
    }

    fn request(&self, method: Method, attempt: &Attempt, url: Url) -> RequestBuilder {
        let request = self.wire.request_to(method, attempt, url).header("anthropic-version", VERSION);
        match &attempt.key {
            Some(key) => super::with_secret(request, "x-api-key", key.expose()),
            None => request,
        }
    }
}

#[async_trait]
impl Chat for Anthropic {
    async fn chat(&self, request: &ChatRequest, attempt: &Attempt) -> Result<ChatStream, Error> {
        let body = request::body(request, &attempt.model);
        let post = self
            .request(Method::POST, attempt, below(&attempt.base_url, "v1/messages"))
            .header("idempotency-key", &attempt.idempotency_key)
            .json(&body);
        self.wire.send(post, attempt, explain).await?.chat(stream::Reader::default()).await
    }
}

#[async_trait]
impl Listing for Anthropic {
    async fn list(&self, attempt: &Attempt) -> Result<Vec<String>, Error> {
        #[derive(Deserialize)]
        struct Models {
            data: Vec<Model>,
        }
        #[derive(Deserialize)]
        struct Model {
            id: String,
        }
        let url = with_query(below(&attempt.base_url, "v1/models"), [("limit", "1000")]);
        let request = self.request(Method::GET, attempt, url);
        let models: Models = self.wire.send(request, attempt, explain).await?.json().await?;
        Ok(models.data.into_iter().map(|model| model.id).collect())
    }
}

/// `{"type": "error", "error": {"type", "message"}}`.
fn explain(_: StatusCode, body: &Value) -> (Option<Fault>, String) {
    let error = &body["error"];
    let message = error["message"].as_str().unwrap_or_default().to_owned();
    // Of the vendor's own trouble the status says more than the type.
    let fault = fault_of_type(error["type"].as_str().unwrap_or_default(), &message);
    (fault.filter(|fault| *fault != Fault::ServerError), message)
}

fn fault_of_type(kind: &str, message: &str) -> Option<Fault> {
    Some(match kind {
        "invalid_request_error" if message.contains("prompt is too long") => Fault::ContextTooLong,
        "invalid_request_error" if message.contains("credit balance") => Fault::Billing,
        "invalid_request_error" => Fault::InvalidRequest,
        "authentication_error" => Fault::Unauthorized,
        "billing_error" => Fault::Billing,
        "permission_error" => Fault::Forbidden,
        "not_found_error" => Fault::NotFound,
        "request_too_large" => Fault::ContextTooLong,
        "rate_limit_error" => Fault::RateLimited,
        "timeout_error" | "api_error" => Fault::ServerError,
        "overloaded_error" => Fault::Overloaded,
        _ => return None,
    })
}
