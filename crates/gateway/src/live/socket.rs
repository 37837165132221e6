//! Sockets to vendors: dialled within bounds of reach and time, driven by polling from one task.

use std::collections::VecDeque;
use std::future::Future as _;
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::{Arc, OnceLock};
use std::task::{Context, Poll};
use std::time::{Duration, SystemTime};

use async_trait::async_trait;
use futures_util::{Sink as _, Stream as _};
use http::header::HeaderValue;
use http::{HeaderMap, HeaderName, StatusCode};
use longhouse_outbound::{Reach, is_public, permit};
use tokio::net::TcpStream;
use tokio::time::{Instant, Sleep, timeout_at};
use tokio_tungstenite::tungstenite::client::IntoClientRequest;
use tokio_tungstenite::tungstenite::protocol::WebSocketConfig;
use tokio_tungstenite::tungstenite::{self, Message};
use tokio_tungstenite::{Connector, MaybeTlsStream, WebSocketStream, client_async_tls_with_config};
use url::{Host, Url};

use super::channel::{Broken, Dialect, Frame, Frames, Phase};
use super::link::{Channel, Live};
use crate::error::{Error, Failure, Fault, Waiting};
use crate::providers::Attempt;
use crate::providers::wire::{Context as Who, Explain, fault_of, masked, retry_after};

/// The WebSocket library logs whole upgrade requests, keys included, and close frames at low levels of `log`: these must
/// be compiled out (see `log` in the workspace's manifest).
const _: () = assert!(
    !matches!(log::STATIC_MAX_LEVEL, log::LevelFilter::Trace | log::LevelFilter::Debug),
    "the log of the WebSocket library would show keys"
);
/// Longest time to connect, TLS and upgrade included.
const CONNECT: Duration = Duration::from_secs(10);
/// Largest message that is read: vendors send audio in pieces far below it.
const MOST_MESSAGE: usize = 4 << 20;
/// Above this many waiting bytes, the oldest audio is dropped: 5 s of mu-law in base64.
const MOST_AUDIO: usize = 64 << 10;
/// Above this many waiting bytes, commands are refused.
const MOST_QUEUED: usize = 2 << 20;
/// Longest time without any sign of life, answers to pings included.
const SILENCE: Duration = Duration::from_secs(20);
/// Signs of life are asked for this often.
const PULSE: Duration = Duration::from_secs(5);
/// Messages read before the task gets its turn.
const BURST: usize = 32;

/// Opens sockets; shared by all adapters.
#[derive(Clone, Default)]
pub struct Dialer {
    tls: Arc<OnceLock<Arc<rustls::ClientConfig>>>,
}

impl std::fmt::Debug for Dialer {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Dialer")
    }
}

/// What an upgrade asks for besides its URL.
#[derive(Default)]
pub(super) struct Upgrade {
    pub(super) headers: HeaderMap,
}

impl Upgrade {
    /// With a header that logs must not show.
    pub(super) fn secret(mut self, name: &'static str, value: &str) -> Result<Self, String> {
        let mut value = HeaderValue::from_str(value)
            .map_err(|_| "the key has characters that no header can carry".to_owned())?;
        value.set_sensitive(true);
        self.headers.insert(HeaderName::from_static(name), value);
        Ok(self)
    }
}

type Socket = WebSocketStream<MaybeTlsStream<TcpStream>>;

impl Dialer {
    /// A dialer that trusts the system's certificate authorities, which are read at the first need.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    fn tls(&self) -> Result<Arc<rustls::ClientConfig>, String> {
        if let Some(known) = self.tls.get() {
            return Ok(Arc::clone(known));
        }
        let mut roots = rustls::RootCertStore::empty();
        roots.add_parsable_certificates(rustls_native_certs::load_native_certs().certs);
        let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
        let config = rustls::ClientConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .map_err(|error| error.to_string())?
            .with_root_certificates(roots)
            .with_no_client_auth();
        Ok(Arc::clone(self.tls.get_or_init(|| Arc::new(config))))
    }

    /// Opens a socket and speaks `dialect` on it.
    pub(super) async fn open<D: Dialect>(
        &self,
        url: Url,
        upgrade: Upgrade,
        attempt: &Attempt,
        explain: Explain,
        dialect: D,
    ) -> Result<Live<D::Command, D::Event>, Error> {
        let who = Who::of(attempt);
        let by = attempt.deadline.min(Instant::now() + CONNECT.min(attempt.first_byte));
        let socket = match timeout_at(by, Box::pin(self.dial(url, upgrade, attempt, &who, explain))).await {
            Ok(dialled) => dialled?,
            Err(_) => {
                let waiting = if by == attempt.deadline { Waiting::Deadline } else { Waiting::Answer };
                return Err(who.fail(Fault::TimedOut(waiting), "").into());
            }
        };
        Ok(Live::new(SocketChannel::new(socket, dialect, who, attempt)))
    }

    async fn dial(
        &self,
        mut url: Url,
        upgrade: Upgrade,
        attempt: &Attempt,
        who: &Who,
        explain: Explain,
    ) -> Result<Socket, Error> {
        let scheme = match url.scheme() {
            "http" | "ws" => "ws",
            _ => "wss",
        };
        if url.set_scheme(scheme).is_err() {
            return Err(who.fail(Fault::InvalidRequest, "the base URL is no http address").into());
        }
        let reach = if attempt.trusted_address { Reach::Anywhere } else { Reach::Public };
        permit(&url, reach).map_err(|error| who.fail(Fault::ForbiddenAddress, error.url))?;
        let stream = connect(&url, reach, who).await?;
        // Nagle's algorithm would hold back small pieces of audio.
        let _ = stream.set_nodelay(true);
        let mut request = url
            .as_str()
            .into_client_request()
            .map_err(|error| who.fail(Fault::InvalidRequest, error.to_string()))?;
        request.headers_mut().extend(upgrade.headers);
        let agent = HeaderValue::from_static(concat!("longhouse/", env!("CARGO_PKG_VERSION")));
        request.headers_mut().insert(http::header::USER_AGENT, agent);
        let config = WebSocketConfig::default()
            .read_buffer_size(8 << 10)
            .write_buffer_size(0)
            .max_write_buffer_size(4 << 20)
            .max_message_size(Some(MOST_MESSAGE))
            .max_frame_size(Some(MOST_MESSAGE));
        let connector = match scheme {
            "ws" => Connector::Plain,
            _ => Connector::Rustls(self.tls().map_err(|error| who.fail(Fault::Unreachable, error))?),
        };
        match client_async_tls_with_config(request, stream, Some(config), Some(connector)).await {
            Ok((socket, _)) => Ok(socket),
            Err(tungstenite::Error::Http(response)) => {
                let secret = attempt.key.as_ref().map(crate::keys::ApiKey::expose);
                Err(refusal(who, response.status(), response.headers(), response.body(), secret, explain)
                    .into())
            }
            Err(tungstenite::Error::Protocol(error)) => {
                Err(who.fail(Fault::Malformed, format!("it opens no WebSocket: {error}")).into())
            }
            Err(error) => Err(who.fail(Fault::Unreachable, error.to_string()).into()),
        }
    }
}

/// Connects to the very address that was judged.
async fn connect(url: &Url, reach: Reach, who: &Who) -> Result<TcpStream, Failure> {
    let port = url.port_or_known_default().unwrap_or(443);
    let addresses: Vec<SocketAddr> = match url.host() {
        Some(Host::Ipv4(v4)) => vec![(v4, port).into()],
        Some(Host::Ipv6(v6)) => vec![(v6, port).into()],
        Some(Host::Domain(name)) => tokio::net::lookup_host((name, port))
            .await
            .map_err(|error| who.fail(Fault::Unreachable, error.to_string()))?
            .filter(|address| reach == Reach::Anywhere || is_public(address.ip()))
            .collect(),
        None => Vec::new(),
    };
    if addresses.is_empty() {
        return Err(who.fail(Fault::ForbiddenAddress, "it leads to no public address"));
    }
    TcpStream::connect(addresses.as_slice())
        .await
        .map_err(|error| who.fail(Fault::Unreachable, error.to_string()))
}

fn refusal(
    who: &Who,
    status: StatusCode,
    headers: &HeaderMap,
    body: &Option<Vec<u8>>,
    secret: Option<&str>,
    explain: Explain,
) -> Failure {
    let body = body.as_deref().unwrap_or_default();
    let (fault, message) = match serde_json::from_slice(body) {
        Ok(value) => explain(status, &value),
        Err(_) => (None, String::from_utf8_lossy(body).trim().to_owned()),
    };
    let mut failure = who.fail(fault.unwrap_or_else(|| fault_of(status)), masked(message, secret));
    failure.status = Some(status.as_u16());
    failure.retry_after = retry_after(headers, SystemTime::now());
    failure
}

/// A dialect on a socket.
struct SocketChannel<D: Dialect> {
    socket: Socket,
    dialect: D,
    who: Who,
    secret: Option<String>,
    queue: VecDeque<super::channel::Outgoing>,
    queued: usize,
    shed: u64,
    fresh: Frames,
    events: VecDeque<D::Event>,
    unflushed: bool,
    /// What ends the channel when the events before it have been handed on.
    end: Option<End>,
    /// A close frame is to be sent after everything else.
    closing: bool,
    first_byte: Instant,
    idle: Duration,
    phase: Phase,
    /// Since when the vendor owes something.
    owing_since: Instant,
    heard_at: Instant,
    said_at: Instant,
    pinged_at: Instant,
    ping_due: bool,
    delivered: bool,
    timer: Pin<Box<Sleep>>,
}

enum End {
    Done,
    Failed(Box<Failure>),
    Told,
}

impl<D: Dialect> SocketChannel<D> {
    fn new(socket: Socket, mut dialect: D, who: Who, attempt: &Attempt) -> Self {
        let now = Instant::now();
        let (mut fresh, mut events) = (Frames::default(), VecDeque::new());
        dialect.open(&mut events, &mut fresh);
        let mut channel = Self {
            socket,
            phase: dialect.phase(),
            dialect,
            who,
            secret: attempt.key.as_ref().map(|key| key.expose().to_owned()),
            queue: VecDeque::new(),
            queued: 0,
            shed: 0,
            fresh,
            events,
            unflushed: false,
            end: None,
            closing: false,
            first_byte: now + attempt.first_byte,
            idle: attempt.idle,
            owing_since: now,
            heard_at: now,
            said_at: now,
            pinged_at: now,
            ping_due: false,
            delivered: false,
            timer: Box::pin(tokio::time::sleep_until(now + PULSE.min(attempt.first_byte))),
        };
        channel.collect();
        channel
    }

    /// Moves what the dialect wrote into the queue, and keeps it within bounds.
    fn collect(&mut self) {
        for outgoing in self.fresh.queue.drain(..) {
            self.queued += outgoing.frame.len();
            self.queue.push_back(outgoing);
        }
        self.closing |= self.fresh.close;
        while self.queued > MOST_AUDIO {
            // The newest is kept in any case: it may be a whole replay.
            let older = self.queue.len().saturating_sub(1);
            let Some(index) = self.queue.iter().take(older).position(|outgoing| outgoing.is_audio) else {
                break;
            };
            if let Some(dropped) = self.queue.remove(index) {
                self.queued -= dropped.frame.len();
                self.shed += 1;
                metrics::counter!("gateway_live_shed_messages_total", "provider" => self.who.provider.to_string())
                    .increment(1);
            }
        }
        let phase = self.dialect.phase();
        if phase == Phase::Owing && self.phase != Phase::Owing {
            self.owing_since = Instant::now();
        }
        self.phase = phase;
    }

    fn fail(&mut self, broken: Broken) {
        let failure = self.failure(broken);
        self.end.get_or_insert(End::Failed(Box::new(failure)));
        self.queue.clear();
        self.queued = 0;
    }

    fn failure(&self, broken: Broken) -> Failure {
        let (fault, message) = match broken {
            Broken::Malformed(message) => (Fault::Malformed, message),
            Broken::Failed { fault, message } => (fault, message),
            Broken::Unsupported(what) => (Fault::Unsupported, format!("it has no way to {what}")),
            Broken::Interrupted(message) => (Fault::Interrupted, message),
        };
        let mut failure = self.who.fail(fault, masked(message, self.secret.as_deref()));
        failure.delivered = self.delivered;
        failure
    }

    fn timed_out(&mut self, waiting: Waiting) {
        self.fail(Broken::Failed { fault: Fault::TimedOut(waiting), message: String::new() });
    }

    fn poll_write(&mut self, context: &mut Context<'_>) {
        let mut socket = Pin::new(&mut self.socket);
        let mut broken = false;
        while !broken && (self.ping_due || !self.queue.is_empty()) {
            match socket.as_mut().poll_ready(context) {
                Poll::Pending => return,
                Poll::Ready(Err(_)) => broken = true,
                Poll::Ready(Ok(())) => {
                    let message = match self.queue.pop_front() {
                        Some(outgoing) => {
                            self.queued -= outgoing.frame.len();
                            self.said_at = Instant::now();
                            match outgoing.frame {
                                Frame::Text(text) => Message::Text(text),
                                Frame::Binary(bytes) => Message::Binary(bytes),
                            }
                        }
                        None => {
                            self.ping_due = false;
                            Message::Ping(tungstenite::Bytes::new())
                        }
                    };
                    self.unflushed = true;
                    broken = socket.as_mut().start_send(message).is_err();
                }
            }
        }
        if !broken && self.closing && self.queue.is_empty() {
            self.closing = false;
            if let Poll::Ready(Ok(())) = socket.as_mut().poll_ready(context) {
                self.unflushed = true;
                let _ = socket.as_mut().start_send(Message::Close(None));
            }
        }
        if !broken && self.unflushed {
            match socket.poll_flush(context) {
                Poll::Pending => return,
                Poll::Ready(flushed) => {
                    self.unflushed = false;
                    broken = flushed.is_err();
                }
            }
        }
        if broken {
            // What the vendor still says is read first; its close explains more than our failed write.
            self.queue.clear();
            self.queued = 0;
            self.ping_due = false;
        }
    }

    /// Reads one message; `false` when none is there.
    fn poll_read(&mut self, context: &mut Context<'_>) -> bool {
        let message = match Pin::new(&mut self.socket).poll_next(context) {
            Poll::Pending => return false,
            Poll::Ready(message) => message,
        };
        self.heard_at = Instant::now();
        self.owing_since = self.heard_at;
        let outcome = match message {
            Some(Ok(Message::Text(text))) => {
                self.dialect.frame(Frame::Text(text), &mut self.events, &mut self.fresh)
            }
            Some(Ok(Message::Binary(bytes))) => {
                self.dialect.frame(Frame::Binary(bytes), &mut self.events, &mut self.fresh)
            }
            Some(Ok(Message::Close(frame))) => {
                let code = frame.as_ref().map(|frame| u16::from(frame.code));
                let reason = frame.as_ref().map_or("", |frame| frame.reason.as_str());
                // The answer to the close frame is written by the library.
                let _ = Pin::new(&mut self.socket).poll_flush(context);
                self.closed(code, reason)
            }
            Some(Ok(Message::Ping(_) | Message::Pong(_) | Message::Frame(_))) => {
                self.unflushed = true;
                Ok(())
            }
            Some(Err(tungstenite::Error::Capacity(error))) => {
                Err(Broken::Failed { fault: Fault::TooLarge, message: error.to_string() })
            }
            Some(Err(tungstenite::Error::Protocol(
                tungstenite::error::ProtocolError::ResetWithoutClosingHandshake,
            )))
            | None => self.closed(None, ""),
            Some(Err(tungstenite::Error::Utf8(error))) => Err(Broken::Malformed(error)),
            Some(Err(tungstenite::Error::Protocol(error))) => Err(Broken::Malformed(error.to_string())),
            Some(Err(error)) => Err(Broken::Interrupted(error.to_string())),
        };
        if let Err(broken) = outcome {
            self.fail(broken);
        }
        self.collect();
        true
    }

    fn closed(&mut self, code: Option<u16>, reason: &str) -> Result<(), Broken> {
        self.dialect.closed(code, reason, &mut self.events)?;
        self.end.get_or_insert(End::Done);
        Ok(())
    }

    fn check_clock(&mut self, context: &mut Context<'_>) {
        while self.end.is_none() && self.timer.as_mut().poll(context).is_ready() {
            let now = Instant::now();
            match self.phase {
                Phase::Opening if now >= self.first_byte => return self.timed_out(Waiting::Answer),
                Phase::Owing if now >= self.owing_since + self.idle => {
                    return self.timed_out(Waiting::NextByte);
                }
                _ if now >= self.heard_at + SILENCE => return self.timed_out(Waiting::NextByte),
                _ => {}
            }
            if now >= self.pinged_at + PULSE {
                self.pinged_at = now;
                self.ping_due = true;
            }
            if let Some(patience) = self.dialect.patience()
                && now >= self.said_at + patience / 2
            {
                self.said_at = now;
                self.dialect.keep_alive(&mut self.fresh);
                self.collect();
            }
            let mut next = (self.pinged_at + PULSE).min(self.heard_at + SILENCE);
            match self.phase {
                Phase::Opening => next = next.min(self.first_byte),
                Phase::Owing => next = next.min(self.owing_since + self.idle),
                Phase::Quiet => next = next.min(now + self.idle),
            }
            if let Some(patience) = self.dialect.patience() {
                next = next.min(self.said_at + patience / 2);
            }
            // Never in the past: a deadline that stays due must not spin.
            self.timer.as_mut().reset(next.max(now + Duration::from_millis(1)));
        }
    }

    /// Hands on what is ready: events first, then the end.
    fn ready(&mut self) -> Option<Option<Result<D::Event, Error>>> {
        if let Some(event) = self.events.pop_front() {
            self.delivered = true;
            return Some(Some(Ok(event)));
        }
        let end = std::mem::replace(self.end.as_mut()?, End::Told);
        Some(match end {
            End::Failed(mut failure) => {
                failure.delivered = self.delivered;
                Some(Err(Error::Provider(failure)))
            }
            End::Done | End::Told => None,
        })
    }
}

#[async_trait]
impl<D: Dialect> Channel<D::Command, D::Event> for SocketChannel<D> {
    fn send(&mut self, command: D::Command) -> Result<(), Error> {
        if self.end.is_some() {
            return Err(self.failure(Broken::Interrupted("the socket is closed".into())).into());
        }
        if self.queued > MOST_QUEUED {
            let message = format!("it does not read: {} bytes wait", self.queued);
            return Err(self.failure(Broken::Failed { fault: Fault::Busy, message }).into());
        }
        let written = self.fresh.queue.len();
        if let Err(broken) = self.dialect.command(command, &mut self.events, &mut self.fresh) {
            self.fresh.queue.truncate(written);
            return Err(self.failure(broken).into());
        }
        self.collect();
        Ok(())
    }

    fn poll_event(&mut self, context: &mut Context<'_>) -> Poll<Option<Result<D::Event, Error>>> {
        if let Some(ready) = self.ready() {
            if self.end.is_none() {
                self.poll_write(context);
            }
            return Poll::Ready(ready);
        }
        self.check_clock(context);
        for _ in 0..BURST {
            if self.end.is_some() || !self.events.is_empty() || !self.poll_read(context) {
                break;
            }
        }
        if self.end.is_none() {
            self.poll_write(context);
        }
        match self.ready() {
            Some(ready) => Poll::Ready(ready),
            None => Poll::Pending,
        }
    }

    fn backlog(&self) -> usize {
        self.queued
    }

    fn shed(&self) -> u64 {
        self.shed
    }

    async fn close(&mut self, limit: Duration) {
        let goodbye = async {
            if self.end.is_some() {
                return;
            }
            self.closing = true;
            // Until everything is written, the close frame included, and the vendor has closed.
            std::future::poll_fn(|context| {
                self.poll_write(context);
                while self.end.is_none() && self.poll_read(context) {
                    self.events.clear();
                }
                if self.end.is_some() { Poll::Ready(()) } else { Poll::Pending }
            })
            .await;
        };
        let _ = tokio::time::timeout(limit, goodbye).await;
    }
}
