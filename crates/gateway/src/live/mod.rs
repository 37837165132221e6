//! Speech as it happens: sockets that hear, speak, or do both.
//!
//! * [`listening`]: audio in, words and turns out ([`SpeechToText`]).
//! * [`speaking`]: pieces of text in, audio and the times of its words out ([`TextToSpeech`]).
//! * [`session`]: models that hear and speak by themselves ([`SpeechToSpeech`]).
//! * [`caps`]: how long sockets and sessions of each vendor live, as data.
//!
//! All three give a [`Live`]: commands go in without waiting, events come out as a stream, and one task may poll many
//! of them. Reading and writing each vendor's protocol is pure ([`Dialect`]): no socket, no clock. Whatever is queued
//! is bounded: audio that a vendor does not take in time is dropped oldest first and counted, anything else is an
//! error. Dropping a [`Live`] closes its socket at once.

mod audio;
pub mod caps;
pub mod cartesia;
mod channel;
pub mod deepgram;
pub mod elevenlabs;
pub mod gemini;
mod link;
pub mod listening;
pub mod offline;
pub mod openai;
pub mod session;
mod socket;
pub mod speaking;
pub mod xai;

pub use audio::{Encoding, NotBase64, Payload};
pub use channel::{Broken, Dialect, Frame, Frames, Phase};
pub use link::{Channel, Live};
pub use listening::{Heard, Listening, ListeningCommand, ListeningEvent, ListeningRequest, SpeechToText};
pub use session::{Session, SessionCommand, SessionEvent, SessionRequest, SpeechToSpeech};
pub use socket::Dialer;
pub use speaking::{Speaking, SpeakingCommand, SpeakingEvent, SpeakingRequest, TextToSpeech, Utterance};
