//! `OpenAI`, and servers that speak like it.
//!
//! The vendor itself is asked through `/responses`, which keeps the reasoning of reasoning models between tool calls;
//! everybody else through `/chat/completions`. Sources: the vendor's API reference and the types of `openai` 6.49 (npm).

mod completions;
mod completions_stream;
mod embeddings;
mod images;
mod moderation;
mod responses;
mod responses_stream;
mod speech;
mod transcription;

pub(super) use self::completions::number;
pub(super) use self::embeddings::checked as checked_vectors;
use async_trait::async_trait;
use http::{Method, StatusCode};
use reqwest::RequestBuilder;
use serde::Deserialize;
use serde_json::Value;

use super::{Attempt, Chat, Listing, Wire};
use crate::Error;
use crate::chat::{ChatRequest, ChatStream, Content, Message};
use crate::error::Fault;

/// The adapter.
#[derive(Debug, Clone)]
pub struct OpenAi {
    wire: Wire,
    /// Whether this is the vendor itself.
    vendor: bool,
}

impl OpenAi {
    /// The vendor.
    #[must_use]
    pub fn vendor(wire: Wire) -> Self {
        Self { wire, vendor: true }
    }

    /// Any server with `/chat/completions`.
    #[must_use]
    pub fn compatible(wire: Wire) -> Self {
        Self { wire, vendor: false }
    }

    fn request(&self, method: Method, attempt: &Attempt, path: &str) -> RequestBuilder {
        let request = self.wire.request(method, attempt, path);
        match &attempt.key {
            Some(key) => request.bearer_auth(key.expose()),
            None => request,
        }
    }

    /// A request that may cost money: repetitions carry the same key.
    fn post(&self, attempt: &Attempt, path: &str) -> RequestBuilder {
        self.request(Method::POST, attempt, path).header("idempotency-key", &attempt.idempotency_key)
    }

    /// Stop texts and audio exist only in the older of the vendor's two interfaces.
    fn by_responses(&self, request: &ChatRequest) -> bool {
        let audio = request.messages.iter().any(|message| {
            matches!(message, Message::User(content) if content.iter().any(|c| matches!(c, Content::Audio(_))))
        });
        self.vendor && request.stop.is_empty() && !audio
    }
}

#[async_trait]
impl Chat for OpenAi {
    async fn chat(&self, request: &ChatRequest, attempt: &Attempt) -> Result<ChatStream, Error> {
        if self.by_responses(request) {
            let body = responses::body(request, &attempt.model);
            let answer =
                self.wire.send(self.post(attempt, "responses").json(&body), attempt, explain).await?;
            return answer.chat(responses_stream::Reader::default()).await;
        }
        let body = completions::body(request, &attempt.model, self.vendor);
        let answer =
            self.wire.send(self.post(attempt, "chat/completions").json(&body), attempt, explain).await?;
        answer.chat(completions_stream::Reader::new(request)).await
    }
}

#[async_trait]
impl Listing for OpenAi {
    async fn list(&self, attempt: &Attempt) -> Result<Vec<String>, Error> {
        #[derive(Deserialize)]
        struct Models {
            data: Vec<Model>,
        }
        #[derive(Deserialize)]
        struct Model {
            id: String,
        }
        let request = self.request(Method::GET, attempt, "models");
        let models: Models = self.wire.send(request, attempt, explain).await?.json().await?;
        Ok(models.data.into_iter().map(|model| model.id).collect())
    }
}

/// `{"error": {"message", "type", "code", "param"}}`; some compatible servers send only a text.
pub(crate) fn explain(status: StatusCode, body: &Value) -> (Option<Fault>, String) {
    let error = &body["error"];
    let message = [&error["message"], error, &body["message"], &body["detail"]]
        .into_iter()
        .find_map(Value::as_str)
        .unwrap_or_default();
    let code = error["code"].as_str().or(error["type"].as_str()).unwrap_or_default();
    // Of the vendor's own trouble the status says more than the code.
    let fault = fault_of_code(code).filter(|fault| *fault != Fault::ServerError && !status.is_redirection());
    (fault, message.to_owned())
}

pub(crate) fn fault_of_code(code: &str) -> Option<Fault> {
    Some(match code {
        "context_length_exceeded" | "string_above_max_length" => Fault::ContextTooLong,
        "insufficient_quota" | "billing_hard_limit_reached" | "billing_not_active" => Fault::Billing,
        "invalid_api_key" | "account_deactivated" => Fault::Unauthorized,
        "content_policy_violation" | "moderation_blocked" | "content_filter" => Fault::ContentRefused,
        "model_not_found" => Fault::NotFound,
        "rate_limit_exceeded" => Fault::RateLimited,
        "server_error" => Fault::ServerError,
        _ => return None,
    })
}

#[cfg(test)]
mod tests {
    use rstest::rstest;
    use serde_json::json;

    use super::*;

    #[rstest]
    #[case(429, json!({"error": {"message": "m", "type": "insufficient_quota", "code": "insufficient_quota"}}), Some(Fault::Billing), "m")]
    #[case(400, json!({"error": {"message": "m", "type": "invalid_request_error", "code": "context_length_exceeded"}}), Some(Fault::ContextTooLong), "m")]
    #[case(400, json!({"error": {"message": "m", "type": "invalid_request_error", "code": null}}), None, "m")]
    #[case(404, json!({"error": "model 'x' not found"}), None, "model 'x' not found")]
    #[case(500, json!([]), None, "")]
    fn errors(#[case] status: u16, #[case] body: Value, #[case] fault: Option<Fault>, #[case] message: &str) {
        assert_eq!(explain(StatusCode::from_u16(status).unwrap(), &body), (fault, message.to_owned()));
    }
}
