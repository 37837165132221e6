//! One connection: a single task that reads, decides and writes.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use futures_util::StreamExt as _;
use futures_util::future::{Either, select};
use hyper::upgrade::Upgraded;
use hyper_util::rt::TokioIo;
use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio::time::{Instant, Sleep};
use tokio_tungstenite::WebSocketStream;
use tokio_tungstenite::tungstenite::error::CapacityError;
use tokio_tungstenite::tungstenite::protocol::{Role, WebSocketConfig};
use tokio_tungstenite::tungstenite::{Error as SocketError, Message};

use super::outgoing::{Close, Ended, write};
use super::{socket_limits, wire::Duplex};
use crate::channel::Channel;
use crate::hub::{Connection, Hub};
use crate::identity::{Identity, now};
use crate::limits::Window;
use crate::protocol::{Incoming, Version};

/// Longest time for what was queued last to be written, and for the client to close its side.
const LAST_WORDS: Duration = Duration::from_secs(2);
/// Longest time between two looks at a channel's token, as its expiry is in another clock.
const LOOK: Duration = Duration::from_secs(300);

/// One connection and its channels.
pub(crate) struct Session {
    pub(super) hub: Arc<Hub>,
    pub(super) connection: Connection,
    pub(super) version: Version,
    /// The key of the connection, which channels without a token of their own use.
    pub(super) key: Box<str>,
    pub(super) identity: Identity,
    pub(super) headers: Box<str>,
    pub(super) channels: HashMap<Arc<str>, Box<Channel>>,
    pub(super) events: Window,
}

impl Session {
    pub(super) fn new(
        connection: Connection,
        version: Version,
        key: &str,
        identity: Identity,
        headers: Box<str>,
    ) -> Self {
        Self {
            hub: Arc::clone(connection.hub()),
            connection,
            version,
            key: key.into(),
            identity,
            headers,
            channels: HashMap::new(),
            events: Window::default(),
        }
    }

    /// Serves the connection to its end.
    pub(super) async fn run(self, io: TokioIo<Upgraded>, largest: usize) {
        // The plain socket has two halves that do without a lock, and takes several frames in one write.
        match hyper_util::server::conn::auto::upgrade::downcast::<TokioIo<TcpStream>>(io.into_inner()) {
            Ok(parts) => {
                let (read, write) = parts.io.into_inner().into_split();
                self.serve(parts.read_buf, read, write, largest).await;
            }
            Err(upgraded) => {
                let (read, write) = tokio::io::split(TokioIo::new(upgraded));
                Box::pin(self.serve(Bytes::new(), read, write, largest)).await;
            }
        }
    }

    async fn serve<R, W>(mut self, early: Bytes, read_half: R, mut write_half: W, largest: usize)
    where
        R: AsyncRead + Unpin,
        W: AsyncWrite + Unpin,
    {
        let outgoing = Arc::clone(&self.connection.outgoing);
        let duplex = Duplex::new(&early, read_half, Arc::clone(&outgoing));
        drop(early);
        let limits = socket_limits(largest);
        let config = WebSocketConfig::default()
            .read_buffer_size(limits.read_buffer)
            .write_buffer_size(0)
            .max_write_buffer_size(limits.write_buffer)
            .max_message_size(Some(limits.message))
            .max_frame_size(Some(limits.frame));
        let mut socket = WebSocketStream::from_raw_socket(duplex, Role::Server, Some(config)).await;
        let ended = {
            let reading = std::pin::pin!(self.read(&mut socket));
            let writing = std::pin::pin!(write(&outgoing, &mut write_half));
            match select(reading, writing).await {
                Either::Left((why, writing)) => {
                    if let Some(why) = why {
                        outgoing.close(why);
                    }
                    outgoing.finish();
                    // A client that does not read its last messages has nothing to wait for.
                    tokio::time::timeout(LAST_WORDS, writing).await.unwrap_or(Ended::Gone)
                }
                Either::Right((ended, _)) => ended,
            }
        };
        // Others need not wait for the goodbye to see that it is gone.
        self.channels.clear();
        match ended {
            Ended::Cut => {
                metrics::counter!("realtime_cut_total").increment(1);
                tracing::debug!("cut a client that reads too slowly");
            }
            Ended::Gone => {}
            Ended::Written => Box::pin(part(socket.get_mut(), &mut write_half)).await,
        }
    }

    /// Reads until the client or we want to end; returns what is to be said then.
    async fn read<R: AsyncRead + Unpin>(&mut self, socket: &mut WebSocketStream<Duplex<R>>) -> Option<Close> {
        let idle = self.hub.limits.idle;
        let mut heard = Instant::now();
        let mut timer = std::pin::pin!(tokio::time::sleep(idle.min(LOOK)));
        loop {
            let message = tokio::select! {
                message = socket.next() => message,
                () = &mut timer => {
                    if heard.elapsed() >= idle {
                        return Some(Close::Normal);
                    }
                    self.end_expired();
                    self.rearm(timer.as_mut(), heard + idle);
                    continue;
                }
            };
            heard = Instant::now();
            let handled = match message {
                None | Some(Ok(Message::Close(_))) => return None,
                Some(Ok(Message::Text(text))) => self.text(&text).await,
                Some(Ok(Message::Binary(bytes))) => self.binary(bytes).await,
                Some(Ok(_)) => continue,
                Some(Err(SocketError::Capacity(CapacityError::MessageTooLong { .. }))) => {
                    return Some(Close::TooBig);
                }
                Some(Err(SocketError::Protocol(_) | SocketError::Utf8(_))) => return Some(Close::Malformed),
                Some(Err(_)) => return None,
            };
            match handled {
                Ok(expires) => {
                    if expires {
                        self.rearm(timer.as_mut(), heard + idle);
                    }
                }
                Err(why) => return Some(why),
            }
        }
    }

    /// Wakes at the first of what may be next: silence, or the end of a token.
    fn rearm(&self, timer: std::pin::Pin<&mut Sleep>, silence: Instant) {
        let now = now();
        let expiry = self.channels.values().filter_map(|channel| channel.identity.expires).min();
        let expiry =
            expiry.map(|expiry| Instant::now() + Duration::from_secs(expiry.saturating_sub(now)).min(LOOK));
        timer.reset(
            expiry
                .map_or(silence, |expiry| expiry.min(silence))
                .max(Instant::now() + Duration::from_millis(50)),
        );
    }

    /// Closes channels whose tokens are over.
    fn end_expired(&mut self) {
        let now = now();
        self.channels.retain(|_, channel| match channel.identity.expires {
            Some(expiry) if expiry <= now => {
                channel.shut_down(&format!("Token has expired {} seconds ago", now - expiry));
                false
            }
            _ => true,
        });
    }

    /// Whether the timer may have to be set anew.
    async fn text(&mut self, text: &str) -> Result<bool, Close> {
        match Incoming::text(self.version, text) {
            // Boxed: what a message needs while it is handled is larger than all that an idle connection keeps.
            Ok(message) => Box::pin(self.handle(message)).await,
            Err(error) => Err(malformed(&error)),
        }
    }

    async fn binary(&mut self, bytes: Bytes) -> Result<bool, Close> {
        match Incoming::binary(self.version, &bytes) {
            Ok(message) => Box::pin(self.handle(message)).await,
            Err(error) => Err(malformed(&error)),
        }
    }
}

/// Waits until the client has closed its side: closed before what it sent was read, the connection would be reset, and
/// what we said last be lost.
async fn part<R, W>(read_half: &mut R, write_half: &mut W)
where
    R: AsyncRead + Unpin,
    W: AsyncWrite + Unpin,
{
    let mut unread = vec![0; 4_096];
    let parting = async {
        if write_half.shutdown().await.is_err() {
            return;
        }
        while matches!(read_half.read(&mut unread).await, Ok(read) if read > 0) {}
    };
    let _ = tokio::time::timeout(LAST_WORDS, parting).await;
}

fn malformed(error: &crate::protocol::Malformed) -> Close {
    metrics::counter!("realtime_refused_total", "reason" => "malformed").increment(1);
    tracing::debug!(%error, "closing a connection that does not speak the protocol");
    Close::Malformed
}
