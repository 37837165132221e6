//! Where callers come from. Each protocol turns its frames into session events and back.

pub mod browser;
pub mod twilio;
