//! `OpenAI` over WebSocket: speech-to-speech sessions (Realtime, GA protocol) and streaming transcription.
//!
//! Source: OpenAI API reference, "Realtime" (client and server events). The beta shape was removed in May 2026.
//! [`Command`] and [`parse`] write and read events; [`Realtime`] makes them a [`super::Dialect`].

pub(super) mod commands;
mod connect;
mod events;
mod realtime;
mod transcription;

pub use commands::{Command, SessionShape, ToolSpec, event_id};
pub use connect::{ConnectError, Connector, UpstreamSocket};
pub use events::{ApiError, Malformed, ResponseStatus, ServerEvent, parse};
pub(super) use realtime::{Flavour, bearer, ended, permitted, realtime_url};
pub use realtime::{OpenAiLive, Realtime};
pub use transcription::Transcriber;

pub use super::session::HistoryItem;
