//! Broadcasts by HTTP: `POST /realtime/v1/api/broadcast`, a batch, and `…/broadcast/{topic}/events/{event}`, one
//! message, as `realtime-js` and servers send them.

use std::collections::HashMap;
use std::sync::Arc;

use axum::body::Bytes;
use axum::extract::{Path, Query, State};
use axum::response::{IntoResponse, Response};
use axum::{Json, Router, routing::post};
use http::header::{AUTHORIZATION, CONTENT_TYPE};
use http::{HeaderMap, StatusCode};
use serde::Deserialize;
use serde_json::value::RawValue;
use serde_json::{Value, json};

use crate::broadcast::{Broadcast, is_object};
use crate::changes::BroadcastPayload;
use crate::channel::authorization::{Extension, Question, may_send};
use crate::hub::Hub;
use crate::identity::Identity;

pub(crate) fn router() -> Router<Arc<Hub>> {
    Router::new()
        .route("/api/broadcast", post(batch))
        .route("/api/broadcast/{topic}/events/{event}", post(single))
}

/// Why a broadcast is refused, in the words of Supabase Realtime.
#[derive(Debug, thiserror::Error)]
enum Error {
    #[error("Unauthorized")]
    Unauthorized,
    #[error("Too many messages to broadcast, please reduce the batch size")]
    TooMany,
    #[error("send JSON, or bytes as application/octet-stream")]
    ContentType,
    #[error("some messages are not as they should be")]
    Invalid(Value),
}

impl IntoResponse for Error {
    fn into_response(self) -> Response {
        let (status, reason) = match self {
            Self::Unauthorized => (StatusCode::UNAUTHORIZED, "token"),
            Self::TooMany => (StatusCode::TOO_MANY_REQUESTS, "messages"),
            Self::ContentType => (StatusCode::UNSUPPORTED_MEDIA_TYPE, "malformed"),
            Self::Invalid(_) => (StatusCode::UNPROCESSABLE_ENTITY, "malformed"),
        };
        metrics::counter!("realtime_refused_total", "reason" => reason).increment(1);
        let body = match self {
            Self::Invalid(errors) => json!({ "errors": errors }),
            other => json!({ "message": other.to_string() }),
        };
        (status, Json(body)).into_response()
    }
}

#[derive(Deserialize)]
struct Batch<'a> {
    #[serde(borrow, default)]
    messages: Vec<Item<'a>>,
}

#[derive(Deserialize)]
struct Item<'a> {
    id: Option<String>,
    topic: Option<String>,
    event: Option<String>,
    #[serde(borrow)]
    payload: Option<&'a RawValue>,
    private: Option<bool>,
}

fn identity(hub: &Hub, headers: &HeaderMap) -> Result<Identity, Error> {
    let bearer = headers.get(AUTHORIZATION).and_then(|value| value.to_str().ok()).and_then(|value| {
        let (scheme, token) = value.split_once(' ')?;
        scheme.eq_ignore_ascii_case("bearer").then_some(token)
    });
    let key = || headers.get("apikey").and_then(|value| value.to_str().ok());
    let token = bearer.or_else(key).ok_or(Error::Unauthorized)?;
    Identity::verify(&hub.verify, token).map_err(|_| Error::Unauthorized)
}

async fn batch(State(hub): State<Arc<Hub>>, headers: HeaderMap, body: Bytes) -> Result<StatusCode, Error> {
    let identity = identity(&hub, &headers)?;
    let batch: Batch<'_> = serde_json::from_slice(&body)
        .map_err(|error| Error::Invalid(json!({ "messages": [error.to_string()] })))?;
    if batch.messages.is_empty() {
        return Err(Error::Invalid(json!({ "messages": ["can't be blank"] })));
    }
    if batch.messages.len() > hub.limits.messages_per_second as usize {
        return Err(Error::TooMany);
    }
    let errors: Vec<Value> = batch.messages.iter().map(|item| errors_of(item, hub.limits.payload)).collect();
    if errors.iter().any(|errors| errors.as_object().is_some_and(|errors| !errors.is_empty())) {
        return Err(Error::Invalid(json!({ "messages": errors })));
    }
    // Each private channel is asked about once; who may not send is not told so.
    let mut allowed: HashMap<&str, bool> = HashMap::new();
    for item in &batch.messages {
        let (Some(topic), Some(event), Some(payload)) = (&item.topic, &item.event, item.payload) else {
            continue;
        };
        let private = item.private == Some(true);
        if private {
            let known = match allowed.get(topic.as_str()) {
                Some(known) => *known,
                None => may(&hub, &identity, topic).await,
            };
            allowed.insert(topic, known);
            if !known {
                continue;
            }
        }
        let payload = BroadcastPayload::Json(payload.get().to_owned().into());
        let id = item.id.as_deref().map(Into::into);
        hub.broadcast(&Broadcast::from_outside(private, topic, id, event, &payload), None);
    }
    Ok(StatusCode::ACCEPTED)
}

fn errors_of(item: &Item<'_>, largest: usize) -> Value {
    let mut errors = serde_json::Map::new();
    for (name, text) in [("topic", &item.topic), ("event", &item.event)] {
        if text.as_deref().is_none_or(str::is_empty) {
            errors.insert(name.to_owned(), json!(["can't be blank"]));
        }
    }
    let wrong = match item.payload {
        None => Some("can't be blank"),
        Some(payload) if !is_object(payload) => Some("is invalid"),
        Some(payload) if payload.get().len() > largest => Some("Payload size exceeds tenant limit"),
        Some(_) => None,
    };
    if let Some(wrong) = wrong {
        errors.insert("payload".to_owned(), json!([wrong]));
    }
    Value::Object(errors)
}

async fn may(hub: &Hub, identity: &Identity, topic: &str) -> bool {
    let question = Question { claims: &identity.claims, topic, headers: "{}" };
    match may_send(&hub.database, question, Extension::Broadcast).await {
        Ok(allowed) => allowed,
        Err(refusal) => {
            tracing::warn!(topic, code = refusal.code(), %refusal, "cannot decide who may send");
            false
        }
    }
}

#[derive(Deserialize)]
struct Private {
    private: Option<String>,
}

async fn single(
    State(hub): State<Arc<Hub>>,
    Path((topic, event)): Path<(String, String)>,
    Query(Private { private }): Query<Private>,
    headers: HeaderMap,
    body: Bytes,
) -> Result<StatusCode, Error> {
    let identity = identity(&hub, &headers)?;
    let private = private.as_deref() == Some("true");
    let content_type = headers.get(CONTENT_TYPE).and_then(|value| value.to_str().ok()).unwrap_or_default();
    if body.len() > hub.limits.payload {
        return Err(Error::Invalid(json!({ "payload": ["Payload size exceeds tenant limit"] })));
    }
    let payload = match content_type.split(';').next().unwrap_or_default().trim() {
        "application/json" => {
            serde_json::from_slice::<&RawValue>(&body)
                .map_err(|error| Error::Invalid(json!({ "payload": [error.to_string()] })))?;
            BroadcastPayload::Json(body)
        }
        "application/octet-stream" => BroadcastPayload::Binary(body),
        _ => return Err(Error::ContentType),
    };
    if private && !may(&hub, &identity, &topic).await {
        // As with a batch: who may not send is not told what exists.
        return Ok(StatusCode::ACCEPTED);
    }
    hub.broadcast(&Broadcast::from_outside(private, &topic, None, &event, &payload), None);
    Ok(StatusCode::ACCEPTED)
}
