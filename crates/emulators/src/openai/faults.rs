//! Scripted misfortunes, by connection.

use std::time::Duration;

/// When a misfortune happens to a connection.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum After {
    /// This long after the upgrade.
    Elapsed(Duration),
    /// When this much audio has been received.
    AudioIn(Duration),
    /// When this much audio has been sent.
    AudioOut(Duration),
    /// In the place of the event of this number, counted from 0.
    Frames(usize),
}

/// A misfortune in the middle of a session.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Action {
    /// Close with a code and a reason, as a server that restarts or refuses to go on does.
    Close {
        /// The WebSocket close code.
        code: u16,
        /// The close reason, at most 123 bytes.
        reason: String,
    },
    /// Reset the TCP connection: no close frame, no FIN.
    Drop,
    /// Keep the socket open and read, but never send again.
    Silence,
    /// Reach the session cap: `session_expired`, then close 1001.
    Expire,
    /// Send an `error` event and go on.
    Error {
        /// The error's code, such as `rate_limit_exceeded`.
        code: String,
        /// The error's message.
        message: String,
    },
    /// Send something that is not JSON.
    Garble,
    /// Send a message of this many bytes.
    Oversize(usize),
}

/// What goes wrong on one connection; the default is nothing.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Fault {
    /// Refuse the upgrade with this HTTP status.
    pub refuse: Option<u16>,
    /// Wait before `session.created`.
    pub created_delay: Duration,
    /// Wait before each `session.updated`.
    pub updated_delay: Duration,
    /// Send this `error` (code, message) before `session.created`.
    pub error_before_ready: Option<(String, String)>,
    /// Misfortunes in the middle of the session.
    pub actions: Vec<(After, Action)>,
    /// Send an event of a type that no client knows after `session.created` and within every response.
    pub unknown_events: bool,
    /// Cancel each response that calls tools when the first call's arguments are half sent.
    pub cancel_mid_tool: bool,
}

impl Fault {
    /// Refuses the upgrade with an HTTP status.
    #[must_use]
    pub fn refuse(status: u16) -> Self {
        Self { refuse: Some(status), ..Self::default() }
    }

    /// Closes with a code.
    #[must_use]
    pub fn close(after: After, code: u16, reason: &str) -> Self {
        Self::action(after, Action::Close { code, reason: reason.to_owned() })
    }

    /// Does one thing in the middle of the session.
    #[must_use]
    pub fn action(after: After, action: Action) -> Self {
        Self { actions: vec![(after, action)], ..Self::default() }
    }
}

/// Which connections suffer what.
pub type Faults = crate::faults::Faults<Fault>;
