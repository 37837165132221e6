//! `/realtime/v1/websocket`: from the handshake to the end of a connection.

mod handlers;
mod joining;
pub(crate) mod outgoing;
mod session;
mod wire;

use std::sync::Arc;

use axum::Json;
use axum::extract::{Query, State};
use axum::response::{IntoResponse, Response};
use http::{HeaderMap, HeaderName, StatusCode};
use longhouse_server::websocket::{Limits as SocketLimits, Upgrade};
use serde::Deserialize;
use serde_json::{Map, Value, json};

use crate::hub::Hub;
use crate::identity::{Identity, TokenError};
use crate::protocol::Version;
use session::Session;

const API_KEY: HeaderName = HeaderName::from_static("x-api-key");
/// Room for a message around its payload.
const ENVELOPE: usize = 64 * 1024;
/// Longest headers that policies are shown; idle connections keep them.
const MOST_HEADERS: usize = 2 * 1024;

#[derive(Deserialize)]
pub(crate) struct Parameters {
    apikey: Option<String>,
    vsn: Option<String>,
}

/// Answers the handshake.
pub(crate) async fn connect(
    State(hub): State<Arc<Hub>>,
    Query(parameters): Query<Parameters>,
    headers: HeaderMap,
    upgrade: Result<Upgrade, Response>,
) -> Response {
    let key = headers.get(API_KEY).and_then(|key| key.to_str().ok()).map(str::to_owned).or(parameters.apikey);
    let Some(key) = key.filter(|key| !key.is_empty()) else {
        return refuse(StatusCode::UNAUTHORIZED, "API key is missing");
    };
    let identity = match Identity::verify(&hub.verify, &key) {
        Ok(identity) => identity,
        Err(TokenError::Expired(_)) => return refuse(StatusCode::UNAUTHORIZED, "Token has expired"),
        Err(error) => return refuse(StatusCode::UNAUTHORIZED, &error.to_string()),
    };
    let Some(version) = Version::negotiate(parameters.vsn.as_deref()) else {
        return refuse(StatusCode::FORBIDDEN, "This vsn is not spoken here; use 1.0.0 or 2.0.0");
    };
    let upgrade = match upgrade {
        Ok(upgrade) => upgrade,
        Err(refusal) => return refusal,
    };
    let Some(connection) = hub.connect() else {
        metrics::counter!("realtime_refused_total", "reason" => "connections").increment(1);
        return refuse(StatusCode::TOO_MANY_REQUESTS, "Too many connected users");
    };
    let largest = hub.limits.payload + ENVELOPE;
    let session = Session::new(connection, version, &key, identity, shown_headers(&headers));
    upgrade.on_upgrade(move |socket| session.run(socket.into_inner(), largest))
}

fn refuse(status: StatusCode, message: &str) -> Response {
    (status, Json(json!({ "error": message }))).into_response()
}

/// The headers that policies see as `request.headers`: of those that begin with `x-`, as Supabase Realtime has it, and
/// no keys.
fn shown_headers(headers: &HeaderMap) -> Box<str> {
    let mut shown = Map::new();
    let mut size = 0;
    for (name, value) in headers {
        let Ok(value) = value.to_str() else { continue };
        size += name.as_str().len() + value.len() + 6;
        if name.as_str().starts_with("x-") && *name != API_KEY && size <= MOST_HEADERS {
            shown.insert(name.as_str().to_owned(), Value::from(value));
        }
    }
    Value::Object(shown).to_string().into()
}

/// Bounds of the WebSocket library's reading half. Its write buffer is not used.
fn socket_limits(largest: usize) -> SocketLimits {
    SocketLimits { message: largest, frame: largest, read_buffer: 1024, write_buffer: usize::MAX }
}
