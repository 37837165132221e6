//! The vendors' sockets: streaming recognition (Deepgram Flux and Nova), streaming speech (Deepgram Aura, Cartesia,
//! ElevenLabs) and sessions (Gemini Live; `OpenAI` Realtime and xAI by [`crate::openai`]).
//!
//! Each runs its own voice activity detection on the bytes that it receives and reads the words out of them, so that
//! wrong audio gives no words; speaks faster than real time in the vendor's pieces; closes as the vendor does.

mod aura;
mod cartesia;
mod ears;
mod elevenlabs;
mod flux;
mod gemini;
mod line;
mod nova;
mod studio;

use std::collections::VecDeque;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use axum::body::Body;
use http::{HeaderValue, Request, Response, StatusCode, header};
use hyper::body::Incoming;
use hyper_util::rt::TokioIo;
use serde_json::{Value, json};
use tokio::net::TcpStream;
use tokio::sync::watch;
use tokio_tungstenite::WebSocketStream;
use tokio_tungstenite::tungstenite::handshake::derive_accept_key;
use tokio_tungstenite::tungstenite::protocol::{Role, WebSocketConfig};

use self::line::Line;
use super::{MAX_RECORDS, Shared, lock};
use crate::openai;

/// Largest message that is read.
const MAX_MESSAGE: usize = 24 << 20;

/// How the sockets behave.
#[derive(Debug, Clone)]
pub struct LiveOptions {
    /// What goes wrong.
    pub faults: LiveFaults,
    /// The vendors' times (idle limits, caps) are this many times shorter.
    pub clock: f64,
    /// The pause between two pieces of speech: less than they play is faster than real time.
    pub gap: Duration,
    /// How long a model takes before it speaks.
    pub latency: Duration,
    /// Contexts that Cartesia's plan allows at a time.
    pub cartesia_contexts: usize,
}

impl Default for LiveOptions {
    fn default() -> Self {
        Self {
            faults: LiveFaults::default(),
            clock: 1.0,
            gap: Duration::from_millis(5),
            latency: Duration::from_millis(20),
            cartesia_contexts: 15,
        }
    }
}

/// What goes wrong on one socket; the default is nothing.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct LiveFault {
    /// Refuse the upgrade with this HTTP status, in the vendor's words.
    pub refuse: Option<u16>,
    /// Along with the status, ask to wait this long.
    pub retry_after: Option<Duration>,
    /// Do this in the place of the frame of this number.
    pub at: Option<(usize, LiveAction)>,
}

impl LiveFault {
    /// Refuses the upgrade.
    #[must_use]
    pub fn refuse(status: u16) -> Self {
        Self { refuse: Some(status), ..Self::default() }
    }

    /// Does something in the place of a frame.
    #[must_use]
    pub fn at(frame: usize, action: LiveAction) -> Self {
        Self { at: Some((frame, action)), ..Self::default() }
    }
}

/// A misfortune in the middle of a socket's life.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum LiveAction {
    /// Reset the TCP connection: no close frame, no FIN.
    Reset,
    /// Close with a code and a reason.
    Close(u16, String),
    /// Keep the socket open, and say nothing more; not even pongs.
    Silence,
    /// Send something that is not JSON.
    Garble,
    /// Send a message of this many bytes.
    Oversize(usize),
    /// Report the vendor's internal error, as it does.
    Error,
}

/// Which sockets suffer what.
pub type LiveFaults = crate::faults::Faults<LiveFault>;

/// One socket and what became of it.
#[derive(Debug, Clone, Default)]
pub struct LiveRecord {
    /// The vendor's path, without query: `/deepgram/v2/listen`.
    pub path: String,
    /// The query, as it came.
    pub query: String,
    /// Text messages from the client, at most 4,096.
    pub messages: Vec<Value>,
    /// Audio from the client, in bytes.
    pub audio_in: usize,
    /// The words that were heard in it.
    pub heard: Vec<String>,
    /// Messages to the client.
    pub sent: usize,
    /// The words that were spoken to the client.
    pub spoken: Vec<String>,
    /// The longest time that the client said nothing, in milliseconds.
    pub longest_silence_ms: u64,
    /// Complaints about the client.
    pub complaints: Vec<String>,
    /// The close code, and whether the client closed; `None` while it is open.
    pub closed: Option<(u16, bool)>,
}

/// What the sockets share.
#[derive(Debug)]
pub(super) struct LiveShared {
    faults: Mutex<(LiveFaults, usize)>,
    records: Mutex<VecDeque<Arc<Mutex<LiveRecord>>>>,
    pub(super) open: watch::Sender<usize>,
}

impl LiveShared {
    pub(super) fn new(options: &LiveOptions) -> Self {
        Self {
            faults: Mutex::new((options.faults.clone(), 0)),
            records: Mutex::default(),
            open: watch::Sender::new(0),
        }
    }

    pub(super) fn set_faults(&self, faults: LiveFaults) {
        *lock(&self.faults) = (faults, 0);
    }

    pub(super) fn records(&self) -> Vec<LiveRecord> {
        lock(&self.records).iter().map(|record| lock(record).clone()).collect()
    }
}

/// Whether a request wants to become a socket.
pub(super) fn wanted(request: &Request<Incoming>) -> bool {
    let upgrade = request.headers().get(header::UPGRADE).and_then(|value| value.to_str().ok());
    upgrade.is_some_and(|value| value.eq_ignore_ascii_case("websocket"))
}

/// What the upgrade told.
pub(super) struct Asked {
    pub(super) path: String,
    pub(super) query: String,
    headers: http::HeaderMap,
    api_key: Option<String>,
}

impl Asked {
    pub(super) fn header(&self, name: &str) -> Option<&str> {
        self.headers.get(name)?.to_str().ok()
    }

    pub(super) fn query(&self, name: &str) -> Option<String> {
        self.pairs().into_iter().find(|(found, _)| found == name).map(|(_, value)| value)
    }

    pub(super) fn pairs(&self) -> Vec<(String, String)> {
        url::form_urlencoded::parse(self.query.as_bytes()).into_owned().collect()
    }

    /// Whether a key is one that may enter.
    pub(super) fn admits(&self, key: Option<&str>) -> bool {
        match (key, &self.api_key) {
            (None | Some(""), _) => false,
            (Some(_), None) => true,
            (Some(given), Some(wanted)) => given == wanted,
        }
    }

    fn no_more_than(&self, names: &[&str]) -> Result<(), String> {
        match self.pairs().iter().find(|(name, _)| !names.contains(&name.as_str())) {
            None => Ok(()),
            Some((name, _)) => Err(format!("Unexpected query parameter: {name}.")),
        }
    }
}

/// A refusal: status and body.
pub(super) type Refusal = (u16, Value);

enum Vendor {
    Nova(nova::Query),
    Flux(flux::Query),
    Aura(aura::Query),
    Cartesia,
    ElevenLabs(elevenlabs::Query),
    Gemini,
    OpenAi,
    Xai,
}

/// Answers an upgrade, and serves what follows.
pub(super) fn upgrade(request: Request<Incoming>, shared: &Arc<Shared>) -> Response<Body> {
    let (path, query) =
        (request.uri().path().to_owned(), request.uri().query().unwrap_or_default().to_owned());
    let asked =
        Asked { path, query, headers: request.headers().clone(), api_key: shared.options.api_key.clone() };
    let vendor = match vendor(&asked) {
        Ok(vendor) => vendor,
        Err((status, body)) => return refusal(status, &body, None),
    };
    if matches!(vendor, Vendor::OpenAi | Vendor::Xai) {
        let server = if matches!(vendor, Vendor::Xai) { &shared.xai } else { &shared.realtime };
        return session(request, &asked, Arc::clone(server), shared);
    }
    let fault = {
        let mut faults = lock(&shared.live.faults);
        faults.1 += 1;
        faults.0.of(faults.1 - 1)
    };
    if let Some(status) = fault.refuse {
        return refusal(status, &trouble(&vendor, status), fault.retry_after);
    }
    let record = Arc::new(Mutex::new(LiveRecord {
        path: asked.path.clone(),
        query: asked.query.clone(),
        ..LiveRecord::default()
    }));
    {
        let mut records = lock(&shared.live.records);
        records.push_back(Arc::clone(&record));
        if records.len() > MAX_RECORDS {
            records.pop_front();
        }
    }
    let owner = Arc::clone(shared);
    accept(request, shared, move |socket| async move {
        let mut line = Line::new(socket, Arc::clone(&owner), record, fault);
        match vendor {
            Vendor::Nova(query) => nova::serve(&mut line, query).await,
            Vendor::Flux(query) => flux::serve(&mut line, query).await,
            Vendor::Aura(query) => aura::serve(&mut line, query).await,
            Vendor::Cartesia => cartesia::serve(&mut line).await,
            Vendor::ElevenLabs(query) => elevenlabs::serve(&mut line, query).await,
            Vendor::Gemini => gemini::serve(&mut line, &asked).await,
            Vendor::OpenAi | Vendor::Xai => {}
        }
    })
}

fn vendor(asked: &Asked) -> Result<Vendor, Refusal> {
    Ok(match asked.path.as_str() {
        "/deepgram/v1/listen" => Vendor::Nova(nova::admit(asked)?),
        "/deepgram/v2/listen" => Vendor::Flux(flux::admit(asked)?),
        "/deepgram/v1/speak" => Vendor::Aura(aura::admit(asked)?),
        "/cartesia/tts/websocket" => {
            cartesia::admit(asked)?;
            Vendor::Cartesia
        }
        path if path.starts_with("/elevenlabs/v1/text-to-speech/") => {
            Vendor::ElevenLabs(elevenlabs::admit(asked)?)
        }
        path if gemini::is_path(path) => Vendor::Gemini,
        "/openai/v1/realtime" => Vendor::OpenAi,
        "/xai/v1/realtime" => Vendor::Xai,
        _ => return Err((404, json!({"error": {"message": "no socket is served at this path"}}))),
    })
}

/// The vendor's words for a scripted status.
fn trouble(vendor: &Vendor, status: u16) -> Value {
    let message = match status {
        401 => "Invalid credentials.",
        402 => "Out of credits.",
        429 => "Too many requests.",
        _ => "Something went wrong.",
    };
    match vendor {
        Vendor::Nova(_) | Vendor::Flux(_) | Vendor::Aura(_) => deepgram_refusal(status, message).1,
        Vendor::Cartesia => json!({"title": message, "message": message, "status_code": status}),
        Vendor::ElevenLabs(_) => json!({"detail": {"status": "scripted", "message": message}}),
        _ => json!({"error": {"code": status, "message": message, "status": "UNKNOWN"}}),
    }
}

fn deepgram_refusal(status: u16, message: &str) -> Refusal {
    let code = match status {
        400 => "INVALID_QUERY_PARAMETER",
        401 => "INVALID_AUTH",
        402 => "ASR_PAYMENT_REQUIRED",
        429 => "TOO_MANY_REQUESTS",
        _ => "INTERNAL_SERVER_ERROR",
    };
    (status, json!({"err_code": code, "err_msg": message, "request_id": super::reply::id("")}))
}

/// Deepgram's keys: `Token KEY`, `Bearer TOKEN`, or by the subprotocol.
fn deepgram_key(asked: &Asked) -> Result<(), Refusal> {
    let header = asked.header("authorization").unwrap_or_default();
    let key = ["Token ", "token ", "Bearer "].iter().find_map(|scheme| header.strip_prefix(scheme));
    if asked.admits(key) { Ok(()) } else { Err(deepgram_refusal(401, "Invalid credentials.")) }
}

fn refusal(status: u16, body: &Value, retry_after: Option<Duration>) -> Response<Body> {
    let mut response = Response::new(Body::from(body.to_string()));
    *response.status_mut() = StatusCode::from_u16(status).unwrap_or(StatusCode::SERVICE_UNAVAILABLE);
    response.headers_mut().insert(header::CONTENT_TYPE, HeaderValue::from_static("application/json"));
    if let Some(wait) = retry_after {
        response.headers_mut().insert(header::RETRY_AFTER, wait.as_secs().max(1).into());
    }
    response
}

/// A session of `OpenAI`'s protocol, which its own emulator serves.
fn session(
    request: Request<Incoming>,
    asked: &Asked,
    server: Arc<openai::Shared>,
    shared: &Arc<Shared>,
) -> Response<Body> {
    let mut head = Request::builder()
        .uri(request.uri().path().replace("/openai", "").replace("/xai", "") + "?" + &asked.query);
    if let Some(headers) = head.headers_mut() {
        headers.clone_from(&asked.headers);
    }
    let Ok(head) = head.body(()) else { return refusal(400, &json!({}), None) };
    match openai::admission(&head, &server) {
        Ok(admitted) => accept(request, shared, move |socket| openai::serve_socket(socket, server, admitted)),
        Err(refused) => {
            let (parts, body) = (*refused).into_parts();
            Response::from_parts(parts, Body::from(body.unwrap_or_default()))
        }
    }
}

fn accept<F>(
    mut request: Request<Incoming>,
    shared: &Arc<Shared>,
    serve: impl FnOnce(WebSocketStream<TcpStream>) -> F + Send + 'static,
) -> Response<Body>
where
    F: Future<Output = ()> + Send,
{
    let Some(key) = request.headers().get(header::SEC_WEBSOCKET_KEY).cloned() else {
        return refusal(400, &json!({"error": {"message": "Sec-WebSocket-Key is missing"}}), None);
    };
    let protocols = request.headers().get(header::SEC_WEBSOCKET_PROTOCOL).and_then(|v| v.to_str().ok());
    let realtime = protocols.is_some_and(|list| list.split(',').any(|p| p.trim() == "realtime"));
    let upgrade = hyper::upgrade::on(&mut request);
    let owner = Arc::clone(shared);
    shared.tasks.spawn(async move {
        let Ok(upgraded) = upgrade.await else { return };
        let Ok(parts) = upgraded.downcast::<TokioIo<TcpStream>>() else { return };
        let config = WebSocketConfig::default()
            .max_message_size(Some(MAX_MESSAGE))
            .max_frame_size(Some(MAX_MESSAGE))
            .max_write_buffer_size(32 << 20);
        let stream = parts.io.into_inner();
        let buffered = parts.read_buf.to_vec();
        let socket = WebSocketStream::from_partially_read(stream, buffered, Role::Server, Some(config)).await;
        owner.live.open.send_modify(|open| *open += 1);
        let stop = owner.stop.clone();
        tokio::select! {
            () = Box::pin(serve(socket)) => {}
            () = stop.cancelled() => {}
        }
        owner.live.open.send_modify(|open| *open -= 1);
    });
    let mut response = Response::new(Body::empty());
    *response.status_mut() = StatusCode::SWITCHING_PROTOCOLS;
    let headers = response.headers_mut();
    headers.insert(header::UPGRADE, HeaderValue::from_static("websocket"));
    headers.insert(header::CONNECTION, HeaderValue::from_static("Upgrade"));
    if let Ok(accept) = HeaderValue::from_str(&derive_accept_key(key.as_bytes())) {
        headers.insert(header::SEC_WEBSOCKET_ACCEPT, accept);
    }
    if realtime {
        headers.insert(header::SEC_WEBSOCKET_PROTOCOL, HeaderValue::from_static("realtime"));
    }
    response
}
