//! Decisions without IO: what a call may do next, what the agent is told, what a question means, what is said of a time.

pub(crate) mod disposition;
pub(crate) mod naming;
pub(crate) mod prompt;
pub(crate) mod question;
pub(crate) mod spoken;
pub(crate) mod token;
