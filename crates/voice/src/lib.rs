//! Voice sessions: callers, upstreams and the session core between them.

pub mod audio;
pub mod callers;
pub mod cascade;
pub mod session;
pub mod upstreams;
