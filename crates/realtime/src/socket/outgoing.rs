//! What waits to be written to one socket: finished frames, shared with all other receivers, bounded in bytes.

use std::collections::VecDeque;
use std::future::poll_fn;
use std::io::{self, IoSlice};
use std::pin::Pin;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll, Waker, ready};
use std::time::Instant;

use bytes::{Buf, Bytes};
use tokio::io::AsyncWrite;

use crate::meters::METERS;
use crate::protocol::close_frame;

/// Most frames that one write takes together.
const MOST_SLICES: usize = 64;
/// Capacity that a queue keeps while it is empty: idle sockets are many.
const KEPT: usize = 8;

/// What the service says when it closes a socket by itself (RFC 6455 §7.4.1).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Close {
    /// The peer closes, or nothing is heard of it.
    Normal,
    /// What it sends is not the protocol.
    Malformed,
    /// What it sends is too large.
    TooBig,
    /// It does more than it may.
    Policy(&'static str),
    /// This server stops; another one is there.
    Restart,
}

impl Close {
    fn frame(self) -> Bytes {
        match self {
            Self::Normal => close_frame(1000, ""),
            Self::Malformed => {
                close_frame(1007, "not a message of Phoenix channels in the negotiated version")
            }
            Self::TooBig => close_frame(1009, "message too big"),
            Self::Policy(reason) => close_frame(1008, reason),
            Self::Restart => close_frame(1012, "service restart"),
        }
    }
}

#[derive(Debug, Default)]
struct State {
    frames: VecDeque<Bytes>,
    /// Of `frames` and of what the writer has taken.
    bytes: usize,
    writer: Option<Waker>,
    ending: Ending,
    /// Since when something waits, on sockets whose lag is measured.
    waiting_since: Option<Instant>,
}

#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
enum Ending {
    /// Open.
    #[default]
    No,
    /// Ends when all is written.
    Written,
    /// Ends at once: the peer reads too slowly.
    Cut,
}

/// The way to one socket. Anybody may push; the socket's own task writes.
#[derive(Debug)]
pub(crate) struct Outgoing {
    limit: usize,
    measured: bool,
    state: Mutex<State>,
}

/// How writing ended.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Ended {
    /// All was written.
    Written,
    /// The peer reads too slowly.
    Cut,
    /// The peer is gone.
    Gone,
}

impl Outgoing {
    /// At most `limit` bytes wait. `measured`: its lag goes into the metrics.
    pub(crate) fn new(limit: usize, measured: bool) -> Arc<Self> {
        Arc::new(Self { limit, measured, state: Mutex::default() })
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Queues a finished frame. Where too much waits already, everything is dropped and the socket is cut.
    pub(crate) fn push(&self, frame: Bytes) {
        let writer = {
            let mut state = self.state();
            if state.ending != Ending::No {
                return;
            }
            state.bytes += frame.len();
            if state.bytes > self.limit && !state.frames.is_empty() {
                state.ending = Ending::Cut;
                state.frames = VecDeque::new();
            } else {
                if self.measured && state.waiting_since.is_none() {
                    state.waiting_since = Some(Instant::now());
                }
                state.frames.push_back(frame);
            }
            state.writer.take()
        };
        if let Some(writer) = writer {
            writer.wake();
        }
    }

    /// Says goodbye and ends the socket once that is written.
    pub(crate) fn close(&self, why: Close) {
        self.push(why.frame());
        self.finish();
    }

    /// Ends the socket once all that waits is written.
    pub(crate) fn finish(&self) {
        let writer = {
            let mut state = self.state();
            if state.ending == Ending::No {
                state.ending = Ending::Written;
            }
            state.writer.take()
        };
        if let Some(writer) = writer {
            writer.wake();
        }
    }

    /// Takes what waits into `batch`, which is empty.
    fn poll_take(&self, context: &Context<'_>, batch: &mut VecDeque<Bytes>) -> Poll<Option<Ended>> {
        let mut state = self.state();
        match state.ending {
            Ending::Cut => return Poll::Ready(Some(Ended::Cut)),
            Ending::Written if state.frames.is_empty() => return Poll::Ready(Some(Ended::Written)),
            _ => {}
        }
        if state.frames.is_empty() {
            if state.frames.capacity() > KEPT {
                state.frames = VecDeque::new();
            }
            match &mut state.writer {
                Some(waker) if waker.will_wake(context.waker()) => {}
                waker => *waker = Some(context.waker().clone()),
            }
            return Poll::Pending;
        }
        std::mem::swap(&mut state.frames, batch);
        Poll::Ready(None)
    }

    /// Accounts for written bytes; returns how long the first of them waited, if all is written by now.
    fn written(&self, bytes: usize, all: bool) -> Option<Instant> {
        let mut state = self.state();
        state.bytes = state.bytes.saturating_sub(bytes);
        if state.ending == Ending::Cut {
            return None;
        }
        if all && state.frames.is_empty() { state.waiting_since.take() } else { None }
    }

    fn is_cut(&self) -> bool {
        self.state().ending == Ending::Cut
    }
}

/// Writes what is pushed until the socket ends.
pub(crate) async fn write<W: AsyncWrite + Unpin>(outgoing: &Outgoing, stream: &mut W) -> Ended {
    let mut batch = VecDeque::new();
    poll_fn(|context| poll_write(outgoing, &mut batch, Pin::new(&mut *stream), context)).await
}

fn poll_write<W: AsyncWrite>(
    outgoing: &Outgoing,
    batch: &mut VecDeque<Bytes>,
    mut stream: Pin<&mut W>,
    context: &mut Context<'_>,
) -> Poll<Ended> {
    loop {
        if batch.is_empty() {
            if batch.capacity() > KEPT {
                *batch = VecDeque::new();
            }
            if let Some(ended) = ready!(outgoing.poll_take(context, batch)) {
                return Poll::Ready(ended);
            }
        }
        match poll_slices(batch, stream.as_mut(), context) {
            Poll::Ready(Ok(0) | Err(_)) => return Poll::Ready(Ended::Gone),
            Poll::Ready(Ok(bytes)) => {
                let frames = advance(batch, bytes);
                METERS.messages_out.increment(frames);
                METERS.bytes_out.increment(bytes as u64);
                if let Some(since) = outgoing.written(bytes, batch.is_empty()) {
                    METERS.lag.record(since.elapsed());
                }
            }
            // A cut has to end a write that waits for a peer that does not read.
            Poll::Pending if outgoing.is_cut() => return Poll::Ready(Ended::Cut),
            Poll::Pending => {
                let mut state = outgoing.state();
                state.writer = Some(context.waker().clone());
                return if state.ending == Ending::Cut { Poll::Ready(Ended::Cut) } else { Poll::Pending };
            }
        }
    }
}

fn poll_slices<W: AsyncWrite>(
    batch: &VecDeque<Bytes>,
    stream: Pin<&mut W>,
    context: &mut Context<'_>,
) -> Poll<io::Result<usize>> {
    if batch.len() == 1 {
        return stream.poll_write(context, &batch[0]);
    }
    let mut slices = [IoSlice::new(&[]); MOST_SLICES];
    for (slice, frame) in slices.iter_mut().zip(batch) {
        *slice = IoSlice::new(frame);
    }
    stream.poll_write_vectored(context, &slices[..batch.len().min(MOST_SLICES)])
}

/// Drops what was written; returns how many frames are done.
fn advance(batch: &mut VecDeque<Bytes>, mut bytes: usize) -> u64 {
    let mut done = 0;
    while let Some(frame) = batch.front_mut() {
        if bytes < frame.len() {
            frame.advance(bytes);
            break;
        }
        bytes -= frame.len();
        batch.pop_front();
        done += 1;
    }
    done
}

#[cfg(test)]
mod tests {
    use tokio::io::AsyncReadExt as _;

    use super::*;

    #[tokio::test]
    async fn writes_in_order_and_then_ends() {
        let outgoing = Outgoing::new(1_000_000, true);
        let (near, mut far) = tokio::io::duplex(7);
        let mut expected = Vec::new();
        for number in 0..300_u32 {
            let frame = Bytes::from(format!("frame {number};"));
            expected.extend_from_slice(&frame);
            outgoing.push(frame);
        }
        outgoing.finish();
        outgoing.push(Bytes::from_static(b"too late"));
        let mut received = Vec::new();
        let (ended, _) = tokio::join!(
            async {
                let mut near = near;
                write(&outgoing, &mut near).await
            },
            far.read_to_end(&mut received)
        );
        assert_eq!((ended, received), (Ended::Written, expected));
    }

    #[tokio::test]
    async fn who_does_not_read_is_cut_and_keeps_no_memory() {
        let outgoing = Outgoing::new(1_000, false);
        let (mut near, _far) = tokio::io::duplex(7);
        let pusher = async {
            for _ in 0..100 {
                outgoing.push(Bytes::from(vec![b'x'; 90]));
                tokio::task::yield_now().await;
            }
        };
        let (ended, ()) = tokio::join!(write(&outgoing, &mut near), pusher);
        assert_eq!(ended, Ended::Cut);
        assert_eq!(outgoing.state().frames.capacity(), 0);
    }
}
