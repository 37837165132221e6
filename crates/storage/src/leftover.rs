//! What a refused upload still sends. A client that is writing its body when the connection closes learns of a reset,
//! not of the refusal; so the rest is read and thrown away first, within bounds.

use std::pin::Pin;
use std::sync::{Arc, Mutex, PoisonError};
use std::task::{Context, Poll};
use std::time::Duration;

use axum::body::Body;
use axum::extract::Request;
use axum::middleware::Next;
use axum::response::Response;
use bytes::Bytes;
use futures_util::StreamExt;
use http::header::EXPECT;
use hyper::body::{Body as HttpBody, Frame, SizeHint};

/// Most bytes that are thrown away for one request; whoever sends more is cut off.
const MOST: usize = 512 * 1024 * 1024;
/// Longest time for it, and longest silence meanwhile.
const LONGEST: Duration = Duration::from_secs(30);
const IDLE: Duration = Duration::from_secs(2);

type Slot = Arc<Mutex<Option<Body>>>;

/// A body that leaves what nobody read of it in a slot.
struct Kept {
    body: Option<Body>,
    slot: Slot,
    /// Whether the client was asked to send, and has not reached the end.
    arriving: bool,
}

impl HttpBody for Kept {
    type Data = Bytes;
    type Error = axum::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, axum::Error>>> {
        let Some(body) = self.body.as_mut() else { return Poll::Ready(None) };
        let polled = Pin::new(body).poll_frame(context);
        self.arriving = !matches!(polled, Poll::Ready(None | Some(Err(_))));
        polled
    }

    fn is_end_stream(&self) -> bool {
        self.body.as_ref().is_none_or(HttpBody::is_end_stream)
    }

    fn size_hint(&self) -> SizeHint {
        self.body.as_ref().map_or_else(|| SizeHint::with_exact(0), HttpBody::size_hint)
    }
}

impl Drop for Kept {
    fn drop(&mut self) {
        if self.arriving && !self.is_end_stream() {
            *self.slot.lock().unwrap_or_else(PoisonError::into_inner) = self.body.take();
        }
    }
}

/// The layer: answers as the routes do, refusals only when the client has come to an end.
pub(crate) async fn discard(request: Request, next: Next) -> Response {
    // Who waits for a word before sending is told at once; others have begun already.
    let arriving = !request.headers().contains_key(EXPECT);
    let slot = Slot::default();
    let left = Arc::clone(&slot);
    let response = next.run(request.map(|body| Body::new(Kept { body: Some(body), slot, arriving }))).await;
    let rest = left.lock().unwrap_or_else(PoisonError::into_inner).take();
    if let Some(rest) = rest
        && (response.status().is_client_error() || response.status().is_server_error())
    {
        let mut rest = rest.into_data_stream();
        let mut thrown = 0;
        let all = async {
            while thrown < MOST
                && let Ok(Some(Ok(chunk))) = tokio::time::timeout(IDLE, rest.next()).await
            {
                thrown += chunk.len();
            }
        };
        if tokio::time::timeout(LONGEST, all).await.is_err() || thrown >= MOST {
            tracing::debug!(thrown, "a refused upload is cut off");
        }
    }
    response
}
