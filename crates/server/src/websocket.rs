//! WebSocket upgrades (RFC 6455) on hyper, with the one WebSocket library that the rest of Longhouse uses.

use std::future::Future;
use std::time::Duration;

use axum::body::Body;
use axum::extract::FromRequestParts;
use axum::response::{IntoResponse, Response};
use http::header::{
    CONNECTION, SEC_WEBSOCKET_ACCEPT, SEC_WEBSOCKET_KEY, SEC_WEBSOCKET_PROTOCOL, SEC_WEBSOCKET_VERSION,
    UPGRADE,
};
use http::request::Parts;
use http::{HeaderMap, HeaderName, HeaderValue, Method, StatusCode, Version};
use hyper::upgrade::{OnUpgrade, Upgraded};
use hyper_util::rt::TokioIo;
use tokio_tungstenite::WebSocketStream;
use tokio_tungstenite::tungstenite::handshake::derive_accept_key;
use tokio_tungstenite::tungstenite::protocol::{Role, WebSocketConfig};
use tracing::Instrument;

use crate::listener::ConnectionPermit;
use crate::{ApiError, Drain};

/// An accepted WebSocket.
pub type Socket = WebSocketStream<TokioIo<Upgraded>>;

const UPGRADE_TIMEOUT: Duration = Duration::from_secs(10);

/// Bounds of one socket. They decide what an idle call costs: keep them small.
#[derive(Debug, Clone, Copy)]
pub struct Limits {
    /// Largest message in bytes; a larger one ends the session with a capacity error. Default 64 KiB.
    pub message: usize,
    /// Largest frame in bytes. Default 64 KiB.
    pub frame: usize,
    /// Read buffer, allocated at once. Default 4 KiB.
    pub read_buffer: usize,
    /// Unsent bytes after which writing fails, because the peer does not read. Default 256 KiB.
    pub write_buffer: usize,
}

impl Default for Limits {
    fn default() -> Self {
        Self { message: 64 * 1024, frame: 64 * 1024, read_buffer: 4 * 1024, write_buffer: 256 * 1024 }
    }
}

impl Limits {
    fn config(self) -> WebSocketConfig {
        WebSocketConfig::default()
            .read_buffer_size(self.read_buffer)
            // Audio frames go out one by one and at once: nothing is gained by waiting to fill a buffer.
            .write_buffer_size(0)
            .max_write_buffer_size(self.write_buffer)
            .max_message_size(Some(self.message))
            .max_frame_size(Some(self.frame))
    }
}

/// Extractor of a request that asks to become a WebSocket; anything else is refused with what is missing.
///
/// ```
/// use axum::{Router, routing::any};
/// use futures_util::{SinkExt, StreamExt};
/// use longhouse_server::websocket::Upgrade;
///
/// let router: Router = Router::new().route(
///     "/echo",
///     any(|upgrade: Upgrade| async move {
///         upgrade.on_upgrade(|mut socket| async move {
///             while let Some(Ok(message)) = socket.next().await {
///                 if message.is_text() && socket.send(message).await.is_err() {
///                     break;
///                 }
///             }
///         })
///     }),
/// );
/// # let _ = router;
/// ```
#[derive(Debug)]
pub struct Upgrade {
    accept: HeaderValue,
    on_upgrade: OnUpgrade,
    offered: Vec<String>,
    protocol: Option<HeaderValue>,
    limits: Limits,
    drain: Option<Drain>,
    permit: Option<ConnectionPermit>,
}

impl Upgrade {
    /// Changes the bounds of the socket.
    #[must_use]
    pub fn limits(mut self, limits: Limits) -> Self {
        self.limits = limits;
        self
    }

    /// Subprotocols that the client offers, in its order.
    pub fn offered_protocols(&self) -> &[String] {
        &self.offered
    }

    /// Chooses the first of `supported` that the client offers; without a match none is chosen.
    #[must_use]
    pub fn protocols(mut self, supported: &[&'static str]) -> Self {
        self.protocol = supported
            .iter()
            .find(|wanted| self.offered.iter().any(|offer| offer == *wanted))
            .map(|chosen| HeaderValue::from_static(chosen));
        self
    }

    /// Answers 101 and runs `session` with the socket. The session counts for [`Drain::wait`] from now on, and
    /// for the listener's connection cap.
    pub fn on_upgrade<F, S>(self, session: F) -> Response
    where
        F: FnOnce(Socket) -> S + Send + 'static,
        S: Future<Output = ()> + Send + 'static,
    {
        let Self { accept, on_upgrade, protocol, limits, drain, permit, .. } = self;
        let guard = drain.as_ref().map(Drain::register);
        tokio::spawn(
            async move {
                let _held = (guard, permit);
                match tokio::time::timeout(UPGRADE_TIMEOUT, on_upgrade).await {
                    Ok(Ok(upgraded)) => {
                        let io = TokioIo::new(upgraded);
                        let socket =
                            WebSocketStream::from_raw_socket(io, Role::Server, Some(limits.config())).await;
                        session(socket).await;
                    }
                    Ok(Err(error)) => {
                        tracing::debug!(%error, "the client left during the WebSocket handshake");
                    }
                    Err(_) => tracing::debug!("the WebSocket handshake was not finished in time"),
                }
            }
            .in_current_span(),
        );
        let mut response = Response::new(Body::empty());
        *response.status_mut() = StatusCode::SWITCHING_PROTOCOLS;
        let headers = response.headers_mut();
        headers.insert(CONNECTION, HeaderValue::from_static("upgrade"));
        headers.insert(UPGRADE, HeaderValue::from_static("websocket"));
        headers.insert(SEC_WEBSOCKET_ACCEPT, accept);
        if let Some(protocol) = protocol {
            headers.insert(SEC_WEBSOCKET_PROTOCOL, protocol);
        }
        response
    }
}

impl<S: Send + Sync> FromRequestParts<S> for Upgrade {
    type Rejection = Response;

    async fn from_request_parts(parts: &mut Parts, _: &S) -> Result<Self, Response> {
        let accept =
            handshake(&parts.method, parts.version, &parts.headers).map_err(IntoResponse::into_response)?;
        let drain = parts.extensions.get::<Drain>().cloned();
        if drain.as_ref().is_some_and(|drain| drain.phase() == crate::Phase::Stopping) {
            return Err(ApiError::new(
                StatusCode::SERVICE_UNAVAILABLE,
                "stopping",
                "this server is stopping",
            )
            .hint("connect again; another one takes over")
            .retry_after(1)
            .into_response());
        }
        let on_upgrade = parts
            .extensions
            .remove::<OnUpgrade>()
            .ok_or_else(|| not_a_websocket("this connection cannot be upgraded").into_response())?;
        Ok(Self {
            accept,
            on_upgrade,
            offered: offered(&parts.headers),
            protocol: None,
            limits: Limits::default(),
            drain,
            permit: parts.extensions.get::<ConnectionPermit>().cloned(),
        })
    }
}

fn offered(headers: &HeaderMap) -> Vec<String> {
    headers
        .get_all(SEC_WEBSOCKET_PROTOCOL)
        .iter()
        .filter_map(|value| value.to_str().ok())
        .flat_map(|value| value.split(','))
        .map(|protocol| protocol.trim().to_owned())
        .filter(|protocol| !protocol.is_empty())
        .take(16)
        .collect()
}

/// Checks the client's side of the handshake (RFC 6455 §4.2.1) and computes `Sec-WebSocket-Accept`.
fn handshake(method: &Method, version: Version, headers: &HeaderMap) -> Result<HeaderValue, ApiError> {
    if method != Method::GET || version != Version::HTTP_11 {
        return Err(not_a_websocket("a WebSocket is opened by GET over HTTP/1.1"));
    }
    if !lists(headers, UPGRADE, "websocket") || !lists(headers, CONNECTION, "upgrade") {
        return Err(not_a_websocket("this address speaks WebSocket only"));
    }
    if headers.get(SEC_WEBSOCKET_VERSION).map(HeaderValue::as_bytes) != Some(b"13") {
        return Err(not_a_websocket("only WebSocket version 13 is spoken here"));
    }
    let key = headers.get(SEC_WEBSOCKET_KEY).map(HeaderValue::as_bytes).filter(|key| is_key(key));
    let Some(key) = key else {
        return Err(ApiError::new(
            StatusCode::BAD_REQUEST,
            "bad_handshake",
            "Sec-WebSocket-Key must be 16 random bytes in base64",
        ));
    };
    Ok(HeaderValue::from_str(&derive_accept_key(key)).expect("base64 is a header value"))
}

fn not_a_websocket(message: &str) -> ApiError {
    ApiError::new(StatusCode::UPGRADE_REQUIRED, "websocket_required", message)
        .hint("connect with a WebSocket client, to the same path with ws:// or wss://")
        .header(UPGRADE, HeaderValue::from_static("websocket"))
        .header(SEC_WEBSOCKET_VERSION, HeaderValue::from_static("13"))
}

fn lists(headers: &HeaderMap, name: HeaderName, token: &str) -> bool {
    headers
        .get_all(name)
        .iter()
        .filter_map(|value| value.to_str().ok())
        .flat_map(|value| value.split(','))
        .any(|item| item.trim().eq_ignore_ascii_case(token))
}

fn is_key(key: &[u8]) -> bool {
    key.len() == 24
        && key.ends_with(b"==")
        && key[..22].iter().all(|byte| byte.is_ascii_alphanumeric() || matches!(byte, b'+' | b'/'))
}
