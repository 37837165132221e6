//! What the person has heard, as far as it can be known. Positions are samples that were sent and not dropped.

use super::clock::Samples;

/// The far end's playback.
#[derive(Debug, Clone, Default)]
pub(super) struct Playout {
    sent: u64,
    /// By the clock, playback was at `anchor` at `anchor_at`.
    anchor: u64,
    anchor_at: Samples,
    /// What the far end said that it has played, and when it said so.
    told: Option<(u64, Samples)>,
    /// Heard positions never go back, except when the far end corrects them.
    floor: u64,
}

impl Playout {
    /// Position up to which was sent.
    pub(super) fn sent(&self) -> u64 {
        self.sent
    }

    /// Samples go out.
    pub(super) fn push(&mut self, now: Samples, samples: u64) {
        if self.clock(now) >= self.sent {
            self.anchor = self.sent;
            self.anchor_at = now;
        }
        self.sent += samples;
    }

    /// Where playback is if the far end plays everything at once and at our pace: what sending is paced by.
    pub(super) fn clock(&self, now: Samples) -> u64 {
        (self.anchor + (now - self.anchor_at)).clamp(self.floor.min(self.sent), self.sent)
    }

    /// Where it surely is: what the far end said, or the clock where it says nothing.
    pub(super) fn heard(&self, now: Samples) -> u64 {
        match self.told {
            Some((position, _)) => position.max(self.floor).min(self.sent),
            None => self.clock(now),
        }
    }

    /// Where it is probably, between what the far end says.
    fn estimate(&self, now: Samples) -> u64 {
        match self.told {
            Some((position, at)) => (position + (now - at)).max(self.floor).min(self.sent),
            None => self.clock(now),
        }
    }

    /// The far end has played up to here.
    pub(super) fn played(&mut self, now: Samples, position: u64) {
        let position = position.min(self.sent);
        if self.told.is_none_or(|(known, _)| position >= known) {
            self.told = Some((position, now));
            self.floor = self.floor.max(position);
        }
    }

    /// The far end has dropped what it had not played by then; it says where that was, or we estimate it for `at`.
    /// Returns the position.
    pub(super) fn cleared(&mut self, now: Samples, at: Samples, exact: Option<u64>) -> u64 {
        let position = match exact {
            Some(position) => position.min(self.sent),
            None => self.estimate(at),
        };
        self.sent = position;
        self.floor = position;
        self.anchor = position;
        self.anchor_at = now;
        if self.told.is_some() {
            self.told = Some((position, now));
        }
        position
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_clock_counts_where_nobody_tells() {
        let mut playout = Playout::default();
        playout.push(Samples(100), 500);
        assert_eq!(playout.heard(Samples(300)), 200);
        assert_eq!(playout.heard(Samples(9_000)), 500);
        playout.push(Samples(9_000), 100);
        assert_eq!(playout.heard(Samples(9_050)), 550);
        assert_eq!(playout.cleared(Samples(9_070), Samples(9_060), None), 560);
        assert_eq!((playout.sent(), playout.heard(Samples(20_000))), (560, 560));
    }

    #[test]
    fn what_the_far_end_tells_is_believed() {
        let mut playout = Playout::default();
        playout.push(Samples(0), 1_000);
        playout.played(Samples(300), 200);
        assert_eq!(playout.heard(Samples(900)), 200);
        assert_eq!(playout.cleared(Samples(420), Samples(400), Some(333)), 333);
        assert_eq!(playout.sent(), 333);
        // Nobody has heard more than was sent.
        playout.played(Samples(500), 9_999);
        assert_eq!(playout.heard(Samples(500)), 333);
    }
}
