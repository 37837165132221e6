//! The person's latest audio, kept so that another recogniser can hear it.

use std::collections::VecDeque;

use crate::cascade::clock::Samples;

/// A bounded ring of samples that know when they came.
#[derive(Debug)]
pub(super) struct Ring {
    chunks: VecDeque<(Samples, Vec<i16>)>,
    held: usize,
    limit: usize,
}

impl Ring {
    /// Keeps this many samples.
    pub(super) fn new(limit: u64) -> Self {
        Self { chunks: VecDeque::new(), held: 0, limit: usize::try_from(limit).unwrap_or(usize::MAX) }
    }

    /// Audio that ended at `now`.
    pub(super) fn push(&mut self, now: Samples, samples: &[i16]) {
        self.held += samples.len();
        self.chunks.push_back((now, samples.to_vec()));
        while self.held > self.limit && self.chunks.len() > 1 {
            if let Some((_, oldest)) = self.chunks.pop_front() {
                self.held -= oldest.len();
            }
        }
    }

    /// Audio that came after a moment, oldest first.
    pub(super) fn since(&self, from: Samples) -> impl Iterator<Item = &[i16]> {
        self.chunks.iter().filter(move |(at, _)| *at > from).map(|(_, samples)| &samples[..])
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keeps_the_latest_and_tells_what_came_since() {
        let mut ring = Ring::new(400);
        for n in 1..=10u64 {
            ring.push(Samples(n * 100), &[n as i16; 100]);
        }
        let since: Vec<i16> = ring.since(Samples(0)).map(|chunk| chunk[0]).collect();
        assert_eq!(since, [7, 8, 9, 10]);
        assert_eq!(ring.since(Samples(900)).count(), 1);
    }
}
