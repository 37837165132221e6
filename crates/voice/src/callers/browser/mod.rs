//! Browsers and games over `/ws/voice`: one protocol of JSON messages, in two framings of audio.
//!
//! * [`messages`]: what either side says, read and written without a socket.
//! * [`connection`]: a WebSocket as a [`crate::cascade::Caller`].
//! * [`lobby`]: where a person who lost their network finds their conversation again.
//!
//! The JSON framing is the one that game clients know: audio is base64 in `audio` and `audio_chunk`. The binary one is
//! asked for with the subprotocol [`BINARY`]: audio and its acknowledgements are small binary frames, everything else
//! stays JSON. `docs/voice.md` describes both for users.

pub mod connection;
pub mod lobby;
pub mod messages;

/// Subprotocol that asks for binary audio.
pub const BINARY: &str = "longhouse.voice.v1";

/// How audio is framed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Framing {
    /// Base64 in JSON.
    Json,
    /// Binary messages with a header.
    Binary,
}
