//! A WebSocket with a bounded queue of outgoing messages, driven by polling from one task.

use std::collections::VecDeque;
use std::pin::Pin;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use futures_util::{Sink, Stream};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::time::Instant;
use tokio_tungstenite::WebSocketStream;
use tokio_tungstenite::tungstenite::{self, Message};

/// What comes out of [`Wire::poll_read`].
#[derive(Debug)]
pub(super) enum Incoming {
    Text(tungstenite::Utf8Bytes),
    /// Neither side's protocol has binary messages.
    Binary,
    /// Closed, with the peer's code and reason where it gave them.
    Closed(String),
}

/// One side's socket.
#[derive(Debug)]
pub(super) struct Wire<S> {
    socket: WebSocketStream<S>,
    queue: VecDeque<String>,
    queued_bytes: usize,
    unflushed: bool,
    broken: bool,
    /// When anything was last received: a peer that is gone without a FIN says nothing any more.
    heard_at: Instant,
    ping_due: bool,
    pinged_at: Option<Instant>,
    round_trip: Option<Duration>,
}

impl<S: AsyncRead + AsyncWrite + Unpin> Wire<S> {
    pub(super) fn new(socket: WebSocketStream<S>) -> Self {
        Self {
            socket,
            queue: VecDeque::new(),
            queued_bytes: 0,
            unflushed: false,
            broken: false,
            heard_at: Instant::now(),
            ping_due: false,
            pinged_at: None,
            round_trip: None,
        }
    }

    pub(super) fn push(&mut self, text: String) {
        if !self.broken {
            self.queued_bytes += text.len();
            self.queue.push_back(text);
        }
    }

    /// Bytes waiting because the peer does not take them.
    pub(super) fn backlog(&self) -> usize {
        self.queued_bytes
    }

    /// While more than `limit` bytes wait, drops the oldest messages that may be dropped; returns how many.
    pub(super) fn shed(&mut self, limit: usize, droppable: fn(&str) -> bool) -> u64 {
        let mut dropped = 0;
        while self.queued_bytes > limit {
            // The newest is kept in any case: it may be a whole replay.
            let older = self.queue.len().saturating_sub(1);
            let Some(index) = self.queue.iter().take(older).position(|text| droppable(text)) else { break };
            if let Some(text) = self.queue.remove(index) {
                self.queued_bytes -= text.len();
                dropped += 1;
            }
        }
        dropped
    }

    /// Asks the peer for a sign of life, which also measures the way to it and back.
    pub(super) fn ping(&mut self) {
        self.ping_due = true;
    }

    /// When anything was last received.
    pub(super) fn heard_at(&self) -> Instant {
        self.heard_at
    }

    /// The answer to a ping took this long; told once.
    pub(super) fn take_round_trip(&mut self) -> Option<Duration> {
        self.round_trip.take()
    }

    /// Writes what is queued as far as the peer takes it. Errors show up at the next read.
    pub(super) fn poll_write(&mut self, context: &mut Context<'_>) -> Poll<()> {
        if self.broken {
            return Poll::Ready(());
        }
        let mut socket = Pin::new(&mut self.socket);
        while !self.queue.is_empty() {
            let sent = match ready!(socket.as_mut().poll_ready(context)) {
                Ok(()) => {
                    let text = self.queue.pop_front().unwrap_or_default();
                    self.queued_bytes -= text.len();
                    self.unflushed = true;
                    socket.as_mut().start_send(Message::Text(text.into()))
                }
                Err(error) => Err(error),
            };
            if sent.is_err() {
                self.give_up();
                return Poll::Ready(());
            }
        }
        if self.ping_due {
            let sent = match ready!(socket.as_mut().poll_ready(context)) {
                Ok(()) => socket.as_mut().start_send(Message::Ping(tungstenite::Bytes::new())),
                Err(error) => Err(error),
            };
            if sent.is_err() {
                self.give_up();
                return Poll::Ready(());
            }
            self.ping_due = false;
            self.pinged_at = Some(Instant::now());
            self.unflushed = true;
        }
        if self.unflushed {
            if ready!(socket.poll_flush(context)).is_err() {
                self.give_up();
            }
            self.unflushed = false;
        }
        Poll::Ready(())
    }

    fn give_up(&mut self) {
        self.broken = true;
        self.queue.clear();
        self.queued_bytes = 0;
    }

    pub(super) fn poll_read(&mut self, context: &mut Context<'_>) -> Poll<Incoming> {
        loop {
            let message = match Pin::new(&mut self.socket).poll_next(context) {
                // What the peer still says is read first; then nobody is left to talk to.
                Poll::Pending if self.broken => {
                    return Poll::Ready(Incoming::Closed("cannot be written to".into()));
                }
                Poll::Pending => return Poll::Pending,
                Poll::Ready(None) => return Poll::Ready(Incoming::Closed("closed".into())),
                Poll::Ready(Some(Err(error))) => return Poll::Ready(Incoming::Closed(error.to_string())),
                Poll::Ready(Some(Ok(message))) => message,
            };
            self.heard_at = Instant::now();
            return Poll::Ready(match message {
                Message::Text(text) => Incoming::Text(text),
                Message::Binary(_) => Incoming::Binary,
                Message::Close(frame) => Incoming::Closed(frame.map_or_else(
                    || "closed without a code".into(),
                    |f| format!("closed with {}: {}", u16::from(f.code), f.reason),
                )),
                Message::Pong(_) => {
                    self.round_trip = self.pinged_at.take().map(|at| at.elapsed());
                    continue;
                }
                // Pongs are written by the library with the next flush.
                Message::Ping(_) | Message::Frame(_) => {
                    self.unflushed = true;
                    continue;
                }
            });
        }
    }

    /// Sends what is queued and a close frame, within a bound.
    pub(super) async fn close(mut self, limit: Duration) {
        let goodbye = async {
            std::future::poll_fn(|context| self.poll_write(context)).await;
            let _ = self.socket.close(None).await;
            // The peer's close frame ends the TCP connection in order rather than with a reset.
            while let Incoming::Text(_) | Incoming::Binary =
                std::future::poll_fn(|context| self.poll_read(context)).await
            {}
        };
        let _ = tokio::time::timeout(limit, goodbye).await;
    }
}
