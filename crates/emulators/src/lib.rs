//! Strict local stand-ins for the external protocols that Longhouse speaks.
//!
//! They let the whole product run, and be tested, with no keys and no network. Each is as strict as its vendor, runs
//! its own voice activity detection and playback clock on the bytes that it receives, and shares no code with the
//! adapters that it tests, so that a mistake in an adapter cannot cancel itself out here.
//!
//! * [`ai`]: model providers over HTTP: `OpenAI`, Anthropic, Gemini.
//! * [`openai`]: an `OpenAI` Realtime (GA) server over WebSocket.
//! * [`oidc`]: an OpenID Connect provider with real keys, which can also be Azure, Apple, GitHub or Discord.
//! * [`smtp`]: a mail server that keeps what it gets.
//! * [`twilio`]: a caller: signed webhook, media stream, marks, and the far end's recording.
//! * [`speech`]: speech at 8 kHz that carries its own words, their decoder, and voice activity detection.
//! * [`g711`]: mu-law and a-law.

pub mod ai;
mod faults;
pub mod g711;
pub mod oidc;
pub mod openai;
pub mod smtp;
pub mod speech;
pub mod twilio;
