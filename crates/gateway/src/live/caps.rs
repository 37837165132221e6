//! How long sockets and sessions live: data for those who replace them in time.

use std::time::Duration;

use crate::capability::Protocol;
use crate::model::Modality;

/// The limits of one socket.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Caps {
    /// The vendor ends it after this time.
    pub longest: Option<Duration>,
    /// It is wise to replace it after this time.
    pub recycle: Option<Duration>,
    /// The vendor ends it after this silence of ours.
    pub idle: Option<Duration>,
    /// Tokens that the model keeps in mind.
    pub context_tokens: Option<u32>,
}

/// What we ask ElevenLabs to bear (20 s by default, 180 at most).
pub(super) const ELEVENLABS_INACTIVITY: Duration = Duration::from_secs(180);

const fn minutes(n: u64) -> Option<Duration> {
    Some(Duration::from_secs(n * 60))
}

/// The limits of a model's sockets; unset fields are such that no vendor has published.
///
/// `Modality` is [`Modality::Realtime`] for sessions, [`Modality::Transcription`] and [`Modality::Speech`] for
/// listeners and speakers.
#[must_use]
pub fn caps(protocol: Protocol, modality: Modality, model: &str) -> Caps {
    let none = Caps::default();
    match (protocol, modality) {
        (Protocol::Openai, Modality::Realtime) => {
            // 32 k for the first generation, whose end is announced.
            let first = matches!(model, "gpt-realtime" | "gpt-realtime-mini");
            let context_tokens = Some(if first { 32_000 } else { 128_000 });
            Caps { longest: minutes(60), recycle: minutes(48), context_tokens, ..none }
        }
        (Protocol::Openai, Modality::Transcription) => {
            Caps { longest: minutes(60), recycle: minutes(10), ..none }
        }
        // A connection's; the session behind its handle goes on.
        (Protocol::Gemini, Modality::Realtime) => {
            Caps { longest: minutes(10), recycle: minutes(8), context_tokens: Some(128_000), ..none }
        }
        (Protocol::Xai, Modality::Realtime) => Caps { longest: minutes(60), recycle: minutes(48), ..none },
        (Protocol::Deepgram, Modality::Transcription) if !model.starts_with("flux") => {
            Caps { idle: Some(Duration::from_secs(10)), ..none }
        }
        (Protocol::Deepgram, Modality::Speech) => Caps { longest: minutes(60), recycle: minutes(55), ..none },
        (Protocol::Cartesia, Modality::Speech) => Caps { recycle: minutes(5), idle: minutes(5), ..none },
        (Protocol::Elevenlabs, Modality::Speech) => Caps { idle: Some(ELEVENLABS_INACTIVITY), ..none },
        _ => none,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sockets_are_replaced_before_they_end() {
        for protocol in Protocol::ALL {
            for modality in [Modality::Realtime, Modality::Speech, Modality::Transcription] {
                let caps = caps(protocol, modality, "any");
                if let (Some(longest), Some(recycle)) = (caps.longest, caps.recycle) {
                    assert!(recycle < longest, "{protocol:?} {modality}");
                }
            }
        }
    }
}
