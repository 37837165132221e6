//! Decisions without IO: what a call may do next, what the agent is told, what a question means.

pub(crate) mod disposition;
pub(crate) mod prompt;
pub(crate) mod question;
pub(crate) mod token;
