//! The caller's latest audio, kept so that a new upstream can hear what the last one did not answer.

use std::collections::VecDeque;

use super::playback::BYTES_PER_MS;

/// Kept while nobody speaks: covers the onset before the voice detector fires.
const LEAD_IN: usize = 600 * BYTES_PER_MS as usize;
/// Kept at most, so that a call's memory is bounded; the oldest goes first.
const LIMIT: usize = 5_000 * BYTES_PER_MS as usize;

/// A bounded ring of mu-law.
#[derive(Debug, Default)]
pub(super) struct Replay {
    audio: VecDeque<u8>,
    decoded: Vec<u8>,
    /// Whether everything since `hold` is kept up to the limit, rather than the lead-in alone.
    held: bool,
}

impl Replay {
    /// Adds one frame of base64 mu-law. `false` when it is not base64.
    pub(super) fn push(&mut self, payload: &str) -> bool {
        self.decoded.clear();
        let decoded = base64_simd::STANDARD.decode_append(payload.as_bytes(), &mut self.decoded);
        if decoded.is_err() {
            return false;
        }
        self.audio.extend(&self.decoded);
        let limit = if self.held { LIMIT } else { LEAD_IN };
        if self.audio.len() > limit {
            self.audio.drain(..self.audio.len() - limit);
        }
        true
    }

    /// The caller's words from here on (and the lead-in) have not been answered.
    pub(super) fn hold(&mut self) {
        self.held = true;
    }

    /// What was kept has been answered.
    pub(super) fn release(&mut self) {
        if !std::mem::take(&mut self.held) {
            return;
        }
        let surplus = self.audio.len().saturating_sub(LEAD_IN);
        self.audio.drain(..surplus);
        self.audio.shrink_to(2 * LEAD_IN);
    }

    /// Base64 of what is kept, leaving it in place.
    pub(super) fn snapshot(&mut self) -> Option<String> {
        (!self.audio.is_empty()).then(|| base64_simd::STANDARD.encode_to_string(self.audio.make_contiguous()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn frame(value: u8) -> String {
        base64_simd::STANDARD.encode_to_string(vec![value; 160])
    }

    #[test]
    fn keeps_the_lead_in_or_what_is_held_up_to_the_limit() {
        let mut replay = Replay::default();
        for i in 0..100 {
            assert!(replay.push(&frame(i)));
        }
        assert_eq!(replay.audio.len(), LEAD_IN);
        replay.hold();
        for i in 0..1_000 {
            replay.push(&frame((i % 250) as u8));
        }
        assert_eq!(replay.audio.len(), LIMIT);
        let all = base64_simd::STANDARD.decode_to_vec(replay.snapshot().unwrap()).unwrap();
        assert_eq!(all[all.len() - 1], (999 % 250) as u8);
        replay.release();
        assert_eq!(replay.audio.len(), LEAD_IN);
        assert!(!replay.push("not base64"));
    }
}
