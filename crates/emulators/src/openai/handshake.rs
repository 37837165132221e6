//! The upgrade: who is let in, and how others are refused.

use std::{
    sync::{Arc, Mutex, atomic::Ordering},
    time::Duration,
};

use http::{HeaderValue, StatusCode, header};
use serde_json::json;
use tokio::net::TcpStream;
use tokio_tungstenite::{
    WebSocketStream, accept_hdr_async_with_config,
    tungstenite::{
        handshake::server::{ErrorResponse, Request, Response},
        protocol::WebSocketConfig,
    },
};

use super::{
    MAX_RECORDS, MAX_SESSIONS, Shared, Vendor, faults::Fault, lock, record::SessionRecord, session::Session,
};

const HANDSHAKE_TIMEOUT: Duration = Duration::from_secs(10);
/// Above the vendor's 15 MiB, so that a message over that limit gets its error rather than a closed socket.
const MAX_MESSAGE: usize = 24 << 20;

/// What the request line and headers told.
#[derive(Default)]
struct Asked {
    model: String,
    beta: bool,
    /// A session that only listens.
    transcribes: bool,
}

/// Who was let in, and what goes wrong with them.
pub(crate) struct Admitted {
    asked: Asked,
    fault: Fault,
}

/// Decides on an upgrade.
pub(crate) fn admission(request: &Request, shared: &Shared) -> Result<Admitted, Box<ErrorResponse>> {
    let fault = {
        let mut faults = lock(&shared.faults);
        faults.1 += 1;
        faults.0.of(faults.1 - 1)
    };
    if let Some(status) = fault.refuse {
        let status = StatusCode::from_u16(status).unwrap_or(StatusCode::SERVICE_UNAVAILABLE);
        let message = "The server is overloaded or not ready yet.";
        return Err(Box::new(refusal(status, "server_error", message, "scripted_refusal")));
    }
    if shared.open.load(Ordering::Acquire) > MAX_SESSIONS {
        let message = "Too many sessions are open; close some and try again.";
        let refused = refusal(StatusCode::SERVICE_UNAVAILABLE, "server_error", message, "too_many_sessions");
        return Err(Box::new(refused));
    }
    let asked = admit(request, shared.options.vendor, shared.options.api_key.as_deref()).map_err(Box::new)?;
    Ok(Admitted { asked, fault })
}

/// Serves one connection to its end.
pub(super) async fn serve(stream: TcpStream, shared: &Arc<Shared>) {
    // Nagle's algorithm would hold back small deltas.
    let _ = stream.set_nodelay(true);
    let mut admitted = None;
    let config = WebSocketConfig::default()
        .max_message_size(Some(MAX_MESSAGE))
        .max_frame_size(Some(MAX_MESSAGE))
        .max_write_buffer_size(4 << 20);
    #[allow(clippy::result_large_err)] // the callback's type is the library's
    let callback = |request: &Request, mut response: Response| {
        admitted = Some(admission(request, shared).map_err(|refused| *refused)?);
        let protocols = request.headers().get(header::SEC_WEBSOCKET_PROTOCOL).and_then(|v| v.to_str().ok());
        if protocols.is_some_and(|list| list.split(',').any(|p| p.trim() == "realtime")) {
            response
                .headers_mut()
                .insert(header::SEC_WEBSOCKET_PROTOCOL, HeaderValue::from_static("realtime"));
        }
        Ok(response)
    };
    let upgrade = accept_hdr_async_with_config(stream, callback, Some(config));
    let upgraded = tokio::time::timeout(HANDSHAKE_TIMEOUT, Box::pin(upgrade)).await;
    if let (Ok(Ok(socket)), Some(admitted)) = (upgraded, admitted) {
        serve_socket(socket, Arc::clone(shared), admitted).await;
    } else {
        tracing::debug!("upgrade refused");
        shared.refused.fetch_add(1, Ordering::AcqRel);
    }
}

/// Serves an open socket to its end.
pub(crate) async fn serve_socket(
    socket: WebSocketStream<TcpStream>,
    shared: Arc<Shared>,
    admitted: Admitted,
) {
    let Admitted { asked, fault } = admitted;
    let index = shared.sessions.fetch_add(1, Ordering::AcqRel);
    let record = Arc::new(Mutex::new(SessionRecord::new(index, asked.model.clone())));
    {
        let mut records = lock(&shared.records);
        records.push_back(Arc::clone(&record));
        if records.len() > MAX_RECORDS {
            records.pop_front();
        }
    }
    let session = Session::new(socket, shared, record, fault, index, &asked.model, asked.transcribes);
    Box::pin(session.run(asked.beta)).await;
}

#[allow(clippy::result_large_err)] // as above
fn admit(request: &Request, vendor: Vendor, api_key: Option<&str>) -> Result<Asked, ErrorResponse> {
    const INVALID: &str = "invalid_request_error";
    if request.uri().path() != "/v1/realtime" {
        let message = format!("Unknown request URL: GET {}. Use /v1/realtime?model=…", request.uri().path());
        return Err(refusal(StatusCode::NOT_FOUND, INVALID, &message, "unknown_url"));
    }
    let bearer = request.headers().get(header::AUTHORIZATION).and_then(|v| v.to_str().ok());
    let token = bearer.and_then(|v| v.strip_prefix("Bearer ")).map(str::trim).filter(|t| !t.is_empty());
    match (token, api_key) {
        (None, _) => {
            let message = "Missing bearer authentication in header: send 'Authorization: Bearer YOUR_KEY'.";
            return Err(refusal(StatusCode::UNAUTHORIZED, INVALID, message, "missing_api_key"));
        }
        (Some(token), Some(key)) if token != key => {
            let message = "Incorrect API key provided: use the key that the emulator was started with.";
            return Err(refusal(StatusCode::UNAUTHORIZED, INVALID, message, "invalid_api_key"));
        }
        _ => {}
    }
    let query = request.uri().query().unwrap_or_default();
    let model = url::form_urlencoded::parse(query.as_bytes())
        .find(|(name, _)| name == "model")
        .map(|(_, v)| v.into_owned());
    let intent = url::form_urlencoded::parse(query.as_bytes()).find(|(name, _)| name == "intent");
    let transcribes = vendor == Vendor::OpenAi && intent.is_some_and(|(_, intent)| intent == "transcription");
    let family = match vendor {
        Vendor::OpenAi => ["gpt-realtime", "gpt-audio"],
        Vendor::Xai => ["grok-voice", "grok-voice"],
    };
    match model {
        None if transcribes => Ok(Asked { model: String::new(), beta: false, transcribes }),
        None => {
            let message = "Missing required parameter: add ?model=gpt-realtime-2.1 to the URL.";
            Err(refusal(StatusCode::BAD_REQUEST, INVALID, message, "missing_model"))
        }
        Some(model) if family.iter().any(|family| model.starts_with(family)) => {
            let beta = request.headers().contains_key("openai-beta");
            Ok(Asked { model, beta, transcribes })
        }
        Some(model) => {
            let message =
                format!("The model `{model}` does not exist or is no realtime model; try gpt-realtime-2.1.");
            Err(refusal(StatusCode::NOT_FOUND, INVALID, &message, "model_not_found"))
        }
    }
}

fn refusal(status: StatusCode, kind: &str, message: &str, code: &str) -> ErrorResponse {
    let body = json!({"error": {"message": message, "type": kind, "param": null, "code": code}});
    let mut response = ErrorResponse::new(Some(body.to_string()));
    *response.status_mut() = status;
    response.headers_mut().insert(header::CONTENT_TYPE, HeaderValue::from_static("application/json"));
    response
}
