//! Upstreams: the speech services that sessions talk to.

/// `OpenAI` Realtime, as the gateway writes and reads it.
pub mod realtime {
    pub use longhouse_gateway::live::openai::{
        ApiError, Command, ConnectError, Connector, HistoryItem, ResponseStatus, ServerEvent, SessionShape,
        ToolSpec, UpstreamSocket, event_id, parse,
    };
}
