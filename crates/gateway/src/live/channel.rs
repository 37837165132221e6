//! The seam between a vendor's protocol and the socket that carries it.

use std::collections::VecDeque;
use std::time::Duration;

use bytes::Bytes;
use tokio_tungstenite::tungstenite::Utf8Bytes;

use crate::error::Fault;

/// A WebSocket message.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Frame {
    /// JSON, for every vendor.
    Text(Utf8Bytes),
    /// Audio.
    Binary(Bytes),
}

impl Frame {
    /// Its size in bytes.
    #[must_use]
    pub fn len(&self) -> usize {
        match self {
            Self::Text(text) => text.len(),
            Self::Binary(bytes) => bytes.len(),
        }
    }

    /// Whether there is nothing in it.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }
}

impl From<serde_json::Value> for Frame {
    fn from(value: serde_json::Value) -> Self {
        Self::Text(value.to_string().into())
    }
}

impl From<String> for Frame {
    fn from(text: String) -> Self {
        Self::Text(text.into())
    }
}

/// What a dialect wants sent, in order.
#[derive(Debug, Default)]
pub struct Frames {
    pub(super) queue: VecDeque<Outgoing>,
    pub(super) close: bool,
}

#[derive(Debug)]
pub(super) struct Outgoing {
    pub(super) frame: Frame,
    /// May be dropped when the vendor does not keep up.
    pub(super) is_audio: bool,
}

impl Frames {
    /// Sends a message.
    pub fn send(&mut self, frame: impl Into<Frame>) {
        self.queue.push_back(Outgoing { frame: frame.into(), is_audio: false });
    }

    /// Sends audio, which is dropped rather than delayed for long.
    pub fn audio(&mut self, frame: Frame) {
        self.queue.push_back(Outgoing { frame, is_audio: true });
    }

    /// Closes the socket after everything has been sent.
    pub fn close(&mut self) {
        self.close = true;
    }

    /// Takes what is to be sent, for tests of dialects.
    pub fn drain(&mut self) -> impl Iterator<Item = Frame> + '_ {
        self.queue.drain(..).map(|outgoing| outgoing.frame)
    }
}

/// Commands that wait until a vendor may be told anything.
#[derive(Debug)]
pub(super) struct Held<C>(VecDeque<C>);

impl<C> Default for Held<C> {
    fn default() -> Self {
        Self(VecDeque::new())
    }
}

impl<C> Held<C> {
    /// Commands that may wait: ten seconds of audio in pieces of 20 ms, and more.
    const MOST: usize = 1_024;

    pub(super) fn push(&mut self, command: C) -> Result<(), Broken> {
        if self.0.len() >= Self::MOST {
            let message = format!("{} commands wait for it to be ready", Self::MOST);
            return Err(Broken::Failed { fault: Fault::Busy, message });
        }
        self.0.push_back(command);
        Ok(())
    }

    pub(super) fn take(&mut self) -> VecDeque<C> {
        std::mem::take(&mut self.0)
    }
}

/// What came instead of the protocol.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Broken {
    /// Not the protocol.
    Malformed(String),
    /// The vendor reports a failure that ends the socket's use.
    Failed {
        /// What kind.
        fault: Fault,
        /// The vendor's words.
        message: String,
    },
    /// A command that this vendor or model has no way to express.
    Unsupported(&'static str),
    /// The end came before it was due.
    Interrupted(String),
}

impl From<serde_json::Error> for Broken {
    fn from(error: serde_json::Error) -> Self {
        Self::Malformed(error.to_string())
    }
}

/// Whether silence is in order.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Phase {
    /// The vendor has not yet said that it is ready.
    Opening,
    /// Nothing is owed.
    Quiet,
    /// The vendor owes an answer.
    Owing,
}

/// One vendor's protocol on one socket. Pure: frames and commands in, frames and events out.
pub trait Dialect: Send + 'static {
    /// What the application says.
    type Command: Send + 'static;
    /// What the application hears.
    type Event: Send + 'static;

    /// The socket is open: what has to be said first.
    fn open(&mut self, events: &mut VecDeque<Self::Event>, out: &mut Frames);

    /// Writes a command.
    ///
    /// # Errors
    /// [`Broken::Unsupported`] and [`Broken::Malformed`]; nothing is sent then, and the socket stays usable.
    fn command(
        &mut self,
        command: Self::Command,
        events: &mut VecDeque<Self::Event>,
        out: &mut Frames,
    ) -> Result<(), Broken>;

    /// Reads a message.
    ///
    /// # Errors
    /// When the socket is of no use any more. Errors after which a vendor goes on are events.
    fn frame(
        &mut self,
        frame: Frame,
        events: &mut VecDeque<Self::Event>,
        out: &mut Frames,
    ) -> Result<(), Broken>;

    /// The vendor closed, with this code and reason. `Ok` when everything owed has come.
    ///
    /// # Errors
    /// When it closed too early, with the meaning of its code.
    fn closed(
        &mut self,
        code: Option<u16>,
        reason: &str,
        events: &mut VecDeque<Self::Event>,
    ) -> Result<(), Broken>;

    /// Whether silence is in order.
    fn phase(&self) -> Phase;

    /// How long the vendor bears our silence, if not for ever; [`Dialect::keep_alive`] is called before.
    fn patience(&self) -> Option<Duration> {
        None
    }

    /// Says something so that the vendor does not close.
    fn keep_alive(&mut self, _out: &mut Frames) {}
}
