//! Raw audio on sockets: its encodings, and pieces of it that pass through without being copied.

use std::borrow::Cow;
use std::time::Duration;

use base64_simd::STANDARD;
use bytes::Bytes;
use serde::{Deserialize, Serialize};

/// How raw mono audio is encoded.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Encoding {
    /// Signed 16-bit little-endian samples at this rate in Hz.
    Pcm16(u32),
    /// G.711 mu-law at 8 kHz, as telephones of America and Japan speak.
    Mulaw,
    /// G.711 A-law at 8 kHz, as the other telephones speak.
    Alaw,
}

impl Encoding {
    /// Samples a second.
    #[must_use]
    pub const fn rate(self) -> u32 {
        match self {
            Self::Pcm16(rate) => rate,
            Self::Mulaw | Self::Alaw => 8_000,
        }
    }

    /// Bytes of one sample.
    #[must_use]
    pub const fn sample_bytes(self) -> u32 {
        match self {
            Self::Pcm16(_) => 2,
            Self::Mulaw | Self::Alaw => 1,
        }
    }

    /// How long so many bytes play.
    #[must_use]
    pub fn duration(self, bytes: usize) -> Duration {
        let per_second = u64::from(self.rate()) * u64::from(self.sample_bytes());
        Duration::from_nanos((bytes as u64).saturating_mul(1_000_000_000) / per_second.max(1))
    }
}

/// A piece of audio as it travels: where both sides take base64, it is never decoded.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Payload {
    /// Standard base64 with padding, as ASCII.
    Base64(Bytes),
    /// The bytes themselves.
    Raw(Bytes),
}

/// Not base64, where a vendor or a caller claims it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("the audio is not base64")]
pub struct NotBase64;

impl Payload {
    /// The bytes.
    ///
    /// # Errors
    /// [`NotBase64`].
    pub fn decoded(&self) -> Result<Bytes, NotBase64> {
        match self {
            Self::Raw(bytes) => Ok(bytes.clone()),
            Self::Base64(text) => STANDARD.decode_to_vec(text).map(Bytes::from).map_err(|_| NotBase64),
        }
    }

    /// As base64 text.
    ///
    /// # Errors
    /// [`NotBase64`] for a [`Payload::Base64`] with other characters, which would break out of a JSON string.
    pub fn base64(&self) -> Result<Cow<'_, str>, NotBase64> {
        match self {
            Self::Raw(bytes) => Ok(Cow::Owned(STANDARD.encode_to_string(bytes))),
            Self::Base64(text) => {
                let plain = text.iter().all(|b| b.is_ascii_alphanumeric() || matches!(b, b'+' | b'/' | b'='));
                match std::str::from_utf8(text) {
                    Ok(text) if plain => Ok(Cow::Borrowed(text)),
                    _ => Err(NotBase64),
                }
            }
        }
    }

    /// Bytes of audio in it.
    #[must_use]
    pub fn audio_len(&self) -> usize {
        match self {
            Self::Raw(bytes) => bytes.len(),
            Self::Base64(text) => {
                let padding = text.iter().rev().take_while(|b| **b == b'=').count();
                (text.len() / 4 * 3).saturating_sub(padding)
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use rstest::rstest;

    use super::*;

    #[rstest]
    #[case(b"", "")]
    #[case(b"a", "YQ==")]
    #[case(b"ab", "YWI=")]
    #[case(b"abc", "YWJj")]
    fn base64_there_and_back(#[case] bytes: &'static [u8], #[case] text: &'static str) {
        let (raw, coded) = (Payload::Raw(bytes.into()), Payload::Base64(text.into()));
        assert_eq!(raw.base64().unwrap(), text);
        assert_eq!(coded.decoded().unwrap(), bytes);
        assert_eq!((raw.audio_len(), coded.audio_len()), (bytes.len(), bytes.len()));
    }

    #[test]
    fn what_would_break_out_of_json_is_refused() {
        for text in ["\"", "a\\n", "é"] {
            assert!(Payload::Base64(Bytes::copy_from_slice(text.as_bytes())).base64().is_err(), "{text}");
        }
    }

    #[test]
    fn durations() {
        assert_eq!(Encoding::Mulaw.duration(160), Duration::from_millis(20));
        assert_eq!(Encoding::Pcm16(24_000).duration(960), Duration::from_millis(20));
    }
}
