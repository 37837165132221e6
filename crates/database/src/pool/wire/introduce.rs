//! Says at the beginning of a connection that it is for replication, which tokio-postgres has no word for.

use std::io;
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio_postgres::tls::{ChannelBinding, TlsStream};

use super::connect::Purpose;

/// Ends the startup message's list of parameters.
const END: u8 = 0;

/// A stream whose first message, the startup message, gets one more parameter.
pub(super) struct Introduced<S> {
    inner: S,
    state: State,
}

enum State {
    /// The startup message is to come.
    Waiting,
    /// So much of the longer message has been written, which stands for so many bytes of the original.
    Writing { message: Vec<u8>, written: usize, stands_for: usize },
    /// Nothing is changed any more.
    Through,
}

impl<S> Introduced<S> {
    pub(super) fn new(inner: S, purpose: Purpose) -> Self {
        let state = match purpose {
            Purpose::Statements => State::Through,
            Purpose::Replication => State::Waiting,
        };
        Self { inner, state }
    }
}

/// The startup message with `replication=database`; none if this is not a whole one.
fn introduce(message: &[u8]) -> Option<Vec<u8>> {
    let (length, rest) = message.split_first_chunk()?;
    let (&END, parameters) = rest.split_last()? else { return None };
    if u32::from_be_bytes(*length) as usize != message.len() {
        return None;
    }
    let mut longer = vec![0; 4];
    longer.extend_from_slice(parameters);
    longer.extend_from_slice(b"replication\0database\0\0");
    let length = u32::try_from(longer.len()).ok()?;
    longer[..4].copy_from_slice(&length.to_be_bytes());
    Some(longer)
}

impl<S: AsyncWrite + Unpin> AsyncWrite for Introduced<S> {
    fn poll_write(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        let this = &mut *self;
        loop {
            match &mut this.state {
                State::Through => return Pin::new(&mut this.inner).poll_write(context, bytes),
                State::Waiting => {
                    let Some(message) = introduce(bytes) else {
                        let what = "the driver does not send its startup message in one piece";
                        return Poll::Ready(Err(io::Error::new(io::ErrorKind::InvalidInput, what)));
                    };
                    this.state = State::Writing { message, written: 0, stands_for: bytes.len() };
                }
                State::Writing { message, written, stands_for } => {
                    let count = ready!(Pin::new(&mut this.inner).poll_write(context, &message[*written..]))?;
                    if count == 0 {
                        return Poll::Ready(Err(io::ErrorKind::WriteZero.into()));
                    }
                    *written += count;
                    if *written == message.len() {
                        let count = *stands_for;
                        this.state = State::Through;
                        return Poll::Ready(Ok(count));
                    }
                }
            }
        }
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.inner).poll_flush(context)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.inner).poll_shutdown(context)
    }
}

impl<S: AsyncRead + Unpin> AsyncRead for Introduced<S> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        into: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        Pin::new(&mut self.inner).poll_read(context, into)
    }
}

impl<S: TlsStream + Unpin> TlsStream for Introduced<S> {
    fn channel_binding(&self) -> ChannelBinding {
        self.inner.channel_binding()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_parameter_is_added_to_a_whole_message_only() {
        let message = b"\0\0\0\x11\0\x03\0\0user\0ada\0\0";
        let mut message = message.to_vec();
        message[3] = u8::try_from(message.len()).unwrap();
        let longer = introduce(&message).unwrap();
        assert_eq!(longer[3] as usize, longer.len());
        assert!(longer.ends_with(b"user\0ada\0replication\0database\0\0"));
        assert_eq!(introduce(&message[..10]), None);
        assert_eq!(introduce(&[]), None);
    }
}
