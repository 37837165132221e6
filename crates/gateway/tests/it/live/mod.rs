//! Adapters for speech as it happens, against strict emulators and with real speech.

mod harness;
mod listening;
mod misfortunes;
mod routed;
mod secrets;
mod sessions;
mod speaking;
