//! OpenAI Realtime, GA protocol: one WebSocket that hears, thinks and speaks.
//!
//! Source: OpenAI API reference, "Realtime" (client and server events). The beta shape was removed in May 2026.

mod commands;
mod connect;
mod events;

pub(crate) use commands::event_id;
pub use commands::{Command, HistoryItem, SessionShape, ToolSpec};
pub use connect::{ConnectError, Connector, UpstreamSocket};
pub use events::{ApiError, ResponseStatus, ServerEvent, parse};
