//! Connections: requests in, replies out, faults in between.

use std::convert::Infallible;
use std::io;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use axum::body::Body;
use bytes::Bytes;
use futures_util::stream;
use http::{HeaderValue, Request, Response, StatusCode, header};
use hyper::body::Incoming;
use hyper::service::service_fn;
use hyper_util::rt::TokioIo;
use tokio::net::{TcpListener, TcpStream};
use tokio_util::task::TaskTracker;

use super::reply::{Asked, Reply, Vendor, id};
use super::{End, Fault, MAX_RECORDS, Record, Shared, lock};
use super::{anthropic::Anthropic, cartesia::Cartesia, deepgram::Deepgram, elevenlabs::ElevenLabs};
use super::{gemini::Gemini, openai::OpenAi, replicate::Replicate};
use super::{live, sound};

/// Largest request: above every vendor's limit, so that each can say so itself.
const MOST_BYTES: usize = 64 << 20;
/// Size of the pieces in which a file is sent.
const PIECE: usize = 4_096;

pub(super) async fn accept(listener: TcpListener, shared: Arc<Shared>, tasks: TaskTracker) {
    loop {
        let accepted = tokio::select! {
            accepted = listener.accept() => accepted,
            () = shared.stop.cancelled() => return,
        };
        match accepted {
            Ok((stream, _)) => {
                let shared = Arc::clone(&shared);
                tasks.spawn(async move { serve(stream, shared).await });
            }
            // Out of descriptors: wait for some to be freed rather than spin.
            Err(error) => {
                tracing::warn!(%error, "the emulator could not accept a connection; retrying");
                tokio::time::sleep(Duration::from_millis(50)).await;
            }
        }
    }
}

async fn serve(stream: TcpStream, shared: Arc<Shared>) {
    let _ = stream.set_nodelay(true);
    let stop = shared.stop.clone();
    let service = service_fn(move |request| {
        let shared = Arc::clone(&shared);
        async move { Ok::<_, Infallible>(answer(request, &shared).await) }
    });
    let connection = hyper::server::conn::http1::Builder::new()
        .serve_connection(TokioIo::new(stream), service)
        .with_upgrades();
    tokio::select! {
        // Errors are the faults that we made, or clients that went away.
        _ = connection => {}
        () = stop.cancelled() => {}
    }
}

async fn answer(request: Request<Incoming>, shared: &Arc<Shared>) -> Response<Body> {
    if live::wanted(&request) {
        return live::upgrade(request, shared);
    }
    let fault = {
        let mut faults = lock(&shared.faults);
        faults.1 += 1;
        faults.0.of(faults.1 - 1)
    };
    let (parts, body) = request.into_parts();
    let body = axum::body::to_bytes(Body::new(body), MOST_BYTES).await.unwrap_or_default();
    let (vendor, path): (&dyn Vendor, &str) = match parts.uri.path() {
        path if path.starts_with("/openai/") => (&OpenAi, path.trim_start_matches("/openai")),
        path if path.starts_with("/anthropic/") => (&Anthropic, path.trim_start_matches("/anthropic")),
        path if path.starts_with("/gemini/") => (&Gemini, path.trim_start_matches("/gemini")),
        path if path.starts_with("/deepgram/") => (&Deepgram, path.trim_start_matches("/deepgram")),
        path if path.starts_with("/elevenlabs/") => (&ElevenLabs, path.trim_start_matches("/elevenlabs")),
        path if path.starts_with("/cartesia/") => (&Cartesia, path.trim_start_matches("/cartesia")),
        path if path.starts_with("/replicate/") => (&Replicate, path.trim_start_matches("/replicate")),
        _ => {
            let text = "Nothing here: use /openai/v1, /anthropic, /gemini/v1beta, /deepgram and so on as base URL.\n";
            return plain(StatusCode::NOT_FOUND, text);
        }
    };
    let asked = Asked {
        method: &parts.method,
        path,
        query: parts.uri.query().unwrap_or_default(),
        headers: &parts.headers,
        body: &body,
        options: &shared.options,
    };
    let record = Arc::new(Mutex::new(Record {
        route: format!("{} {path}", parts.method),
        body: serde_json::from_slice(&body).unwrap_or_default(),
        idempotency_key: asked.header("idempotency-key").map(str::to_owned),
        ..Record::default()
    }));
    {
        let mut records = lock(&shared.records);
        records.push_back(Arc::clone(&record));
        if records.len() > MAX_RECORDS {
            records.pop_front();
        }
    }
    // Counts from here on, so that a client that gives up during the delay is seen to be gone.
    let open = Open::new(Arc::clone(shared), Arc::clone(&record));
    if !fault.delay.is_zero() {
        tokio::time::sleep(fault.delay).await;
    }
    let reply = match fault.status.and_then(|status| StatusCode::from_u16(status).ok()) {
        Some(status) => Reply::Json(status, vendor.error(status)),
        None => vendor.answer(&asked),
    };
    let (status, mime, pieces) = match reply {
        Reply::Json(status, value) => (status, "application/json", vec![value.to_string().into()]),
        Reply::Events(events) => {
            let mime = "text/event-stream; charset=utf-8";
            (StatusCode::OK, mime, events.into_iter().map(Bytes::from).collect())
        }
        Reply::File { mime, bytes } => (StatusCode::OK, mime, vec![bytes.into()]),
        Reply::Speech { text, format } => {
            let utterance = shared.options.speaker.say(&text).await;
            let (mime, bytes) = sound::encode(&utterance.samples, &format);
            let bytes = Bytes::from(bytes);
            let piece = |at: usize| bytes.slice(at..bytes.len().min(at + PIECE));
            (StatusCode::OK, mime, (0..bytes.len()).step_by(PIECE).map(piece).collect())
        }
    };
    let body = Ready { status, mime, pieces };
    respond(body, vendor, fault, open, shared.options.event_gap)
}

/// A reply as bytes.
struct Ready {
    status: StatusCode,
    mime: &'static str,
    pieces: Vec<Bytes>,
}

fn plain(status: StatusCode, text: &'static str) -> Response<Body> {
    let mut response = Response::new(Body::from(text));
    *response.status_mut() = status;
    response
}

/// Marks an answer as under way for as long as it lives.
struct Open {
    shared: Arc<Shared>,
    record: Arc<Mutex<Record>>,
}

impl Open {
    fn new(shared: Arc<Shared>, record: Arc<Mutex<Record>>) -> Self {
        shared.open.send_modify(|open| *open += 1);
        Self { shared, record }
    }

    fn sent(&self, bytes: usize) {
        lock(&self.record).sent += bytes;
    }

    fn end(&self, end: End) {
        lock(&self.record).end.get_or_insert(end);
    }
}

impl Drop for Open {
    fn drop(&mut self) {
        self.end(End::Cancelled);
        self.shared.open.send_modify(|open| *open -= 1);
    }
}

fn respond(ready: Ready, vendor: &dyn Vendor, fault: Fault, open: Open, gap: Duration) -> Response<Body> {
    let Ready { status, mime, mut pieces } = ready;
    let events = mime.starts_with("text/event-stream");
    if let Some(after) = fault.fail_after_events.filter(|after| events && *after < pieces.len()) {
        pieces.truncate(after);
        pieces.push(vendor.stream_error().into());
    }
    if let Some(index) = fault.garble_event
        && let Some(piece) = pieces.get_mut(index)
    {
        *piece = if events { "data: {\"id\": \"x\", <html>\n\n".into() } else { "<html>504</html>".into() };
    }
    if let Some(size) = fault.oversize {
        let filler = Bytes::from(vec![b' '; 1 << 16]);
        pieces.truncate(1);
        if events {
            pieces.push("data: \"".into());
        }
        pieces.extend(std::iter::repeat_n(filler, size.div_ceil(1 << 16)));
    }
    let length = (!events && fault.cut_after.is_none() && fault.stall_after.is_none())
        .then(|| pieces.iter().map(Bytes::len).sum::<usize>());
    lock(&open.record).status = status.as_u16();
    let sending = Sending { pieces: pieces.into_iter(), fault: fault.clone(), open, sent: 0, gap };
    let body = Body::from_stream(stream::unfold(Some(sending), |sending| async move {
        let mut sending = sending?;
        let piece = sending.next().await?;
        let ended = piece.is_err();
        Some((piece, (!ended).then_some(sending)))
    }));
    let mut response = Response::new(body);
    *response.status_mut() = status;
    let headers = response.headers_mut();
    headers.insert(header::CONTENT_TYPE, HeaderValue::from_static(mime));
    if let Some(length) = length {
        headers.insert(header::CONTENT_LENGTH, length.into());
    }
    if let Ok(value) = HeaderValue::from_str(&id("req_")) {
        headers.insert(vendor.request_id_header(), value);
    }
    if let Some(wait) = fault.retry_after {
        headers.insert(header::RETRY_AFTER, (wait.as_millis().div_ceil(1_000) as u64).into());
        if let Ok(ms) = HeaderValue::from_str(&wait.as_millis().to_string()) {
            headers.insert("retry-after-ms", ms);
        }
    }
    response
}

struct Sending {
    pieces: std::vec::IntoIter<Bytes>,
    fault: Fault,
    open: Open,
    sent: usize,
    gap: Duration,
}

impl Sending {
    async fn next(&mut self) -> Option<Result<Bytes, io::Error>> {
        if self.fault.stall_after.is_some_and(|limit| self.sent >= limit) {
            // Until the client gives up, which drops us.
            std::future::pending::<()>().await;
        }
        if self.fault.cut_after.is_some_and(|limit| self.sent >= limit) {
            // What was written before must be on its way: an error drops what is still buffered.
            tokio::time::sleep(Duration::from_millis(1)).await;
            self.open.end(End::Cut);
            return Some(Err(io::Error::from(io::ErrorKind::ConnectionAborted)));
        }
        let Some(mut piece) = self.pieces.next() else {
            self.open.end(End::Done);
            return None;
        };
        if !self.gap.is_zero() && self.sent > 0 {
            tokio::time::sleep(self.gap).await;
        }
        let limit = [self.fault.cut_after, self.fault.stall_after].into_iter().flatten().min();
        if let Some(limit) = limit {
            piece.truncate(limit.saturating_sub(self.sent));
        }
        self.sent += piece.len();
        self.open.sent(piece.len());
        Some(Ok(piece))
    }
}
