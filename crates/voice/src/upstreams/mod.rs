//! Where the agent's side of a conversation is produced.

pub mod realtime;
