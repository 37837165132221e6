//! The media stream: a signed WebSocket upgrade, then a voice session.

use std::sync::Arc;

use axum::extract::{Extension, OriginalUri, State};
use axum::http::HeaderMap;
use axum::http::StatusCode;
use axum::response::{IntoResponse, Response};
use longhouse_server::websocket::Upgrade;
use longhouse_server::{ApiError, PublicOrigin};
use longhouse_voice::callers::twilio::signature::Signed;
use longhouse_voice::session::driver;
use url::Url;

use super::voice::{forbidden, verify};
use crate::Shared;

/// Media stream of a call (WebSocket).
#[utoipa::path(
    get, path = "/functions/v1/twilio-voice-realtime", tag = "receptionist",
    responses(
        (status = 101, description = "Twilio Media Streams"),
        (status = 403, description = "The upgrade is not signed by Twilio"),
        (status = 503, description = "No capacity"),
    ),
)]
pub(super) async fn seed_stream(
    state: State<Arc<Shared>>,
    origin: Extension<PublicOrigin>,
    uri: OriginalUri,
    headers: HeaderMap,
    upgrade: Upgrade,
) -> Response {
    open(state, origin, uri, headers, upgrade).await
}

/// Media stream of a call (WebSocket); short alias.
#[utoipa::path(
    get, path = "/twilio/stream", tag = "receptionist",
    responses(
        (status = 101, description = "Twilio Media Streams"),
        (status = 403, description = "The upgrade is not signed by Twilio"),
        (status = 503, description = "No capacity"),
    ),
)]
pub(super) async fn stream(
    state: State<Arc<Shared>>,
    origin: Extension<PublicOrigin>,
    uri: OriginalUri,
    headers: HeaderMap,
    upgrade: Upgrade,
) -> Response {
    open(state, origin, uri, headers, upgrade).await
}

pub(super) async fn open(
    State(shared): State<Arc<Shared>>,
    Extension(origin): Extension<PublicOrigin>,
    OriginalUri(uri): OriginalUri,
    headers: HeaderMap,
    upgrade: Upgrade,
) -> Response {
    let path = uri.path_and_query().map_or("/", |p| p.as_str());
    // Twilio signs the URL that the TwiML named: the configured one, or the one it found us under.
    // It always speaks TLS, so the signature is over `wss://` also where a proxy or a local test uses plain sockets.
    let named = shared.configured_stream_url.as_ref().filter(|url| url.path() == uri.path()).cloned();
    let Some(url) = named
        .or_else(|| Url::parse(&format!("{}{path}", origin.websocket().replacen("ws://", "wss://", 1))).ok())
    else {
        return ApiError::new(StatusCode::BAD_REQUEST, "bad_request", "the Host header is not valid")
            .into_response();
    };
    if let Err(why) = verify(&shared, &headers, &url, Signed::UrlOnly) {
        return forbidden(why);
    }
    let Some(seat) = shared.take_seat() else {
        return ApiError::new(StatusCode::SERVICE_UNAVAILABLE, "busy", "all lines are busy").into_response();
    };
    let engine = shared.engine.clone();
    upgrade.on_upgrade(move |socket| async move {
        let session = tokio::spawn(Box::pin(driver::run(socket, engine)));
        // A panic ends one call, never the process; the row stays open for the call to come back to.
        if let Err(error) = session.await
            && error.is_panic()
        {
            metrics::counter!("longhouse_voice_panics_total").increment(1);
            tracing::error!("a voice session panicked; its call is resumed by the webhook");
        }
        drop(seat);
    })
}
