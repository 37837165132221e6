//! Scripted misfortunes, by request.

use std::time::Duration;

/// What goes wrong with one request; the default is nothing.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Fault {
    /// Answer with this HTTP status, in the vendor's words.
    pub status: Option<u16>,
    /// Along with the status, ask to wait this long.
    pub retry_after: Option<Duration>,
    /// Wait before the first byte.
    pub delay: Duration,
    /// Break the connection after this many bytes of the body.
    pub cut_after: Option<usize>,
    /// Send nothing more after this many bytes of the body, and keep the connection.
    pub stall_after: Option<usize>,
    /// Put something that is no JSON in the place of this event of a stream, or of the whole body.
    pub garble_event: Option<usize>,
    /// Go on for this many bytes after the end of the first event: one huge event, or a huge body.
    pub oversize: Option<usize>,
    /// Report the vendor's overload within the stream, after this many events.
    pub fail_after_events: Option<usize>,
}

impl Fault {
    /// A status.
    #[must_use]
    pub fn status(status: u16) -> Self {
        Self { status: Some(status), ..Self::default() }
    }

    /// A status with a wait.
    #[must_use]
    pub fn wait(status: u16, retry_after: Duration) -> Self {
        Self { status: Some(status), retry_after: Some(retry_after), ..Self::default() }
    }

    /// A broken connection.
    #[must_use]
    pub fn cut(bytes: usize) -> Self {
        Self { cut_after: Some(bytes), ..Self::default() }
    }
}

/// Which requests suffer what.
pub type Faults = crate::faults::Faults<Fault>;
