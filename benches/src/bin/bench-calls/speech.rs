//! The audio of the benchmark: 20 ms frames that say when they were sent and whether they came through unchanged.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;

/// Bytes of mu-law in a frame.
pub(crate) const FRAME_BYTES: usize = 160;
/// Duration of a frame in nanoseconds.
pub(crate) const FRAME_NS: u64 = 20_000_000;
/// Bytes of a frame that the stamp takes: the smallest number over 8 that base64 writes without padding.
const STAMP_BYTES: usize = 9;
const STAMP_CHARS: usize = 12;

/// Writes and recognises the frames of one direction.
#[derive(Debug, Clone)]
pub(crate) struct Speech {
    /// Base64 of what follows the stamp.
    rest: String,
}

impl Speech {
    /// A voice of its own for each number.
    pub(crate) fn new(voice: u8) -> Self {
        let sound: Vec<u8> = (STAMP_BYTES..FRAME_BYTES).map(|i| (i as u8).wrapping_mul(5) ^ voice).collect();
        Self { rest: STANDARD.encode(sound) }
    }

    /// Appends the base64 of a frame that is sent at `stamp`.
    pub(crate) fn write(&self, stamp: u64, out: &mut Vec<u8>) {
        let mut bytes = [0; STAMP_BYTES];
        bytes[..8].copy_from_slice(&stamp.to_be_bytes());
        let start = out.len();
        out.resize(start + STAMP_CHARS, 0);
        // Cannot fail: the space is exactly what nine bytes need.
        let _ = STANDARD.encode_slice(bytes, &mut out[start..]);
        out.extend_from_slice(self.rest.as_bytes());
    }

    /// When a frame was sent; `None` unless it is this voice's, to the last bit.
    pub(crate) fn read(&self, base64: &[u8]) -> Option<u64> {
        let (stamp, rest) = base64.split_at_checked(STAMP_CHARS)?;
        let mut bytes = [0; STAMP_BYTES + 1];
        let length = STANDARD.decode_slice_unchecked(stamp, &mut bytes).ok()?;
        let stamp = u64::from_be_bytes(bytes[..8].try_into().ok()?);
        (length == STAMP_BYTES && bytes[8] == 0 && rest == self.rest.as_bytes()).then_some(stamp)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn frames_are_recognised_unless_anything_was_changed() {
        let voice = Speech::new(1);
        let mut text = Vec::new();
        voice.write(u64::MAX - 12_345, &mut text);
        assert_eq!(STANDARD.decode(&text).unwrap().len(), FRAME_BYTES);
        assert_eq!(voice.read(&text), Some(u64::MAX - 12_345));
        assert_eq!(Speech::new(2).read(&text), None, "another voice");
        assert_eq!(voice.read(&text[..text.len() - 4]), None, "cut short");
        for index in STAMP_CHARS..text.len() {
            let mut changed = text.clone();
            changed[index] ^= 1;
            assert_eq!(voice.read(&changed), None, "changed at {index}");
        }
    }
}
