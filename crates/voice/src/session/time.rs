//! Time as sessions see it: milliseconds since the session began, passed in by whoever runs it.

use std::ops::{Add, Sub};
use std::time::Duration;

/// Milliseconds since the session began.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Default)]
pub struct Millis(pub u64);

impl Millis {
    /// The earlier of a moment and an optional one.
    pub fn or_earlier(self, other: Option<Self>) -> Self {
        other.map_or(self, |o| self.min(o))
    }
}

impl Add<Duration> for Millis {
    type Output = Self;

    fn add(self, rhs: Duration) -> Self {
        Self(self.0.saturating_add(u64::try_from(rhs.as_millis()).unwrap_or(u64::MAX)))
    }
}

impl Sub for Millis {
    type Output = Duration;

    /// Time between two moments; zero when `rhs` is later.
    fn sub(self, rhs: Self) -> Duration {
        Duration::from_millis(self.0.saturating_sub(rhs.0))
    }
}
