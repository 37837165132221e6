//! Integration tests of the emulators, over real sockets and real audio.

mod openai;
mod speech;
mod twilio;
