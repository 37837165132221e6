//! Twilio: webhooks (signature, TwiML, numbers) and Media Streams (frames).
//!
//! Source: Twilio's documentation of Media Streams, TwiML and request security.

pub mod frames;
pub mod number;
pub mod signature;
pub mod twiml;
