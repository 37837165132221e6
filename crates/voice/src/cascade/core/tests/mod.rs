//! Conversations in virtual time.

mod scenarios;
mod sim;
