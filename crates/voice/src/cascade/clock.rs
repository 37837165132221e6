//! Time as the cascade sees it: samples of the session's audio, counted from its start.

use std::ops::{Add, Sub};
use std::time::Duration;

use crate::session::Millis;

/// Samples a second of a session's audio.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Rate(pub u32);

impl Rate {
    /// How many samples last this long.
    pub fn samples(self, duration: Duration) -> u64 {
        u64::try_from(duration.as_micros() * u128::from(self.0) / 1_000_000).unwrap_or(u64::MAX)
    }

    /// How long this many samples last.
    pub fn duration(self, samples: u64) -> Duration {
        Duration::from_micros(samples.saturating_mul(1_000_000) / u64::from(self.0.max(1)))
    }

    /// A moment in milliseconds, as transcripts store it.
    pub fn millis(self, at: Samples) -> Millis {
        Millis(u64::try_from(self.duration(at.0).as_millis()).unwrap_or(u64::MAX))
    }
}

/// A moment: this many samples after the session began.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Default)]
pub struct Samples(pub u64);

impl Add<u64> for Samples {
    type Output = Self;

    fn add(self, samples: u64) -> Self {
        Self(self.0.saturating_add(samples))
    }
}

impl Sub for Samples {
    type Output = u64;

    /// Samples between two moments; zero when `earlier` is later.
    fn sub(self, earlier: Self) -> u64 {
        self.0.saturating_sub(earlier.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn samples_and_times_agree() {
        let rate = Rate(16_000);
        assert_eq!(rate.samples(Duration::from_millis(20)), 320);
        assert_eq!(rate.duration(320), Duration::from_millis(20));
        assert_eq!(rate.millis(Samples(16_000 * 90)), Millis(90_000));
        assert_eq!(Samples(5) - Samples(9), 0);
    }
}
