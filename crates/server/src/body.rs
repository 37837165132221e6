//! Request bodies: how much is read, and whether the server is waiting for more of it.

use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::task::{Context, Poll};

use axum::body::Body;
use axum::response::{IntoResponse, Response};
use bytes::Bytes;
use http::StatusCode;
use http::header::{CONTENT_LENGTH, CONTENT_TYPE};
use http_body_util::Limited;
use hyper::body::{Body as HttpBody, Frame, SizeHint};

use crate::ApiError;

/// Whether the handler is, at this moment, waiting for bytes from the client.
#[derive(Clone, Default)]
pub(crate) struct Stalled(Arc<AtomicBool>);

impl Stalled {
    pub(crate) fn is_set(&self) -> bool {
        self.0.load(Ordering::Relaxed)
    }
}

struct Watched {
    body: Body,
    stalled: Stalled,
}

impl HttpBody for Watched {
    type Data = Bytes;
    type Error = axum::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, axum::Error>>> {
        let polled = Pin::new(&mut self.body).poll_frame(context);
        self.stalled.0.store(polled.is_pending(), Ordering::Relaxed);
        polled
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}

/// Refuses a body whose announced length is too large, and stops reading one that turns out to be.
pub(crate) fn limit(
    request: http::Request<Body>,
    limit: usize,
) -> Result<(http::Request<Body>, Stalled), ApiError> {
    let announced = request.headers().get(CONTENT_LENGTH).and_then(|value| value.to_str().ok()?.parse().ok());
    if announced.is_some_and(|length: u64| length > limit as u64) {
        return Err(ApiError::body_too_large(limit));
    }
    let stalled = Stalled::default();
    if request.body().is_end_stream() {
        return Ok((request, stalled));
    }
    let watch = stalled.clone();
    let request = request.map(|body| Body::new(Limited::new(Watched { body, stalled: watch }, limit)));
    Ok((request, stalled))
}

/// Extractors answer an over-long body in plain text: give it the shape of every other error.
pub(crate) fn reshape(response: Response, limit: usize) -> Response {
    let plain = response.status() == StatusCode::PAYLOAD_TOO_LARGE
        && response.headers().get(CONTENT_TYPE).is_none_or(|kind| kind.as_bytes().starts_with(b"text/plain"));
    if plain { ApiError::body_too_large(limit).into_response() } else { response }
}
