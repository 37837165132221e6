//! The HTTP surface: Twilio's webhook and media stream, under the seed's names and short aliases, and calendars.

mod calendar;
mod stream;
mod voice;

use std::sync::Arc;

use axum::routing::get;
use url::Url;

use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

use crate::Shared;

/// Routes that Twilio calls; exempt from per-client rate limits, because their signature is checked.
pub const WEBHOOKS: &[&str] = &[
    "/functions/v1/twilio-router",
    "/twilio/voice",
    "/functions/v1/twilio-voice-realtime",
    "/twilio/stream",
];

pub(crate) fn router(shared: Arc<Shared>) -> OpenApiRouter {
    let mut router = described();
    // TWILIO_STREAM_URL may name another path of this server, as the seed's stand-alone service did with its root.
    if let Some(path) = shared.configured_stream_url.as_ref().map(Url::path)
        && !WEBHOOKS.contains(&path)
    {
        router = router.route(path, get(stream::open));
    }
    router.with_state(shared)
}

/// The routes that every deployment has, with their description.
pub(crate) fn described() -> OpenApiRouter<Arc<Shared>> {
    OpenApiRouter::new()
        .routes(routes!(voice::seed_post, voice::seed_get))
        .routes(routes!(voice::voice_post, voice::voice_get))
        .routes(routes!(stream::seed_stream))
        .routes(routes!(stream::stream))
        .routes(routes!(calendar::feed))
}
