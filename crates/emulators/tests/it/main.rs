//! Integration tests of the emulators, over real sockets, with real keys and real audio.

mod oidc;
mod openai;
mod smtp;
mod speech;
mod twilio;
