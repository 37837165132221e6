//! What applications hold: commands in, events out.

use std::fmt;
use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Duration;

use async_trait::async_trait;
use futures_util::{Stream, StreamExt};

use crate::Error;

/// Something live behind a [`Live`]: a vendor's socket, or a program on this machine.
#[async_trait]
pub trait Channel<C, E>: Send {
    /// Queues a command.
    ///
    /// # Errors
    /// [`Error::Provider`] when it cannot be expressed or the queue is full.
    fn send(&mut self, command: C) -> Result<(), Error>;

    /// Writes what is queued and reads what has come; `None` after the end, and after an error.
    fn poll_event(&mut self, context: &mut Context<'_>) -> Poll<Option<Result<E, Error>>>;

    /// Bytes that are queued because the other side does not take them.
    fn backlog(&self) -> usize;

    /// Audio that was dropped because the other side did not take it, in messages.
    fn shed(&self) -> u64;

    /// Sends what is queued and says goodbye, within `limit`. Nothing is sent or read afterwards.
    async fn close(&mut self, limit: Duration);
}

/// A live channel of commands `C` and events `E`.
///
/// It works while it is polled, so whoever sends also reads: with `tokio::select!` over [`Live::next`], or by polling
/// it along with other things from one task. Dropping it frees the vendor's side at once.
pub struct Live<C, E> {
    channel: Box<dyn Channel<C, E>>,
}

impl<C, E> Live<C, E> {
    /// Wraps a channel; stand-ins of tests do the same.
    pub fn new(channel: impl Channel<C, E> + 'static) -> Self {
        Self { channel: Box::new(channel) }
    }

    /// Queues a command; it is sent as this is polled.
    ///
    /// # Errors
    /// [`Error::Provider`]: [`crate::Fault::Unsupported`] when the vendor has no such command,
    /// [`crate::Fault::Busy`] when it does not read. What was queued before is not affected.
    pub fn send(&mut self, command: C) -> Result<(), Error> {
        self.channel.send(command)
    }

    /// The next event; `None` after the end, and after an error.
    pub async fn next(&mut self) -> Option<Result<E, Error>> {
        StreamExt::next(self).await
    }

    /// As [`Live::next`], for tasks that poll by hand.
    pub fn poll_event(&mut self, context: &mut Context<'_>) -> Poll<Option<Result<E, Error>>> {
        self.channel.poll_event(context)
    }

    /// Bytes that are queued because the other side does not take them.
    #[must_use]
    pub fn backlog(&self) -> usize {
        self.channel.backlog()
    }

    /// Messages of audio that were dropped because the other side did not take them.
    #[must_use]
    pub fn shed(&self) -> u64 {
        self.channel.shed()
    }

    /// Sends what is queued and says goodbye, within `limit`. Events that still come are lost.
    pub async fn close(mut self, limit: Duration) {
        self.channel.close(limit).await;
    }

    /// As [`Live::close`], for those who hold it.
    pub(crate) async fn goodbye(&mut self, limit: Duration) {
        self.channel.close(limit).await;
    }
}

impl<C, E> Stream for Live<C, E> {
    type Item = Result<E, Error>;

    fn poll_next(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        self.channel.poll_event(context)
    }
}

impl<C, E> fmt::Debug for Live<C, E> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Live").field("backlog", &self.backlog()).finish_non_exhaustive()
    }
}
