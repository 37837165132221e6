//! Circuit breaker of one provider and key. Pure: the time is passed in.

use std::time::Duration;

use tokio::time::Instant;

/// Failures in a row that open it.
const FAILURES: u32 = 5;
/// Failures further apart than this are not in a row.
const WINDOW: Duration = Duration::from_secs(30);
/// How long it stays open at first; doubled with each probe that fails.
const OPEN: Duration = Duration::from_secs(5);
/// How long it stays open at most.
const MOST_OPEN: Duration = Duration::from_secs(120);
/// Longest pause that a provider's wish to wait can cause.
const MOST_PAUSE: Duration = Duration::from_secs(300);

/// Whether requests may be made.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Admission {
    /// They may.
    Granted,
    /// This one may, to see whether the provider is well again.
    Probe,
    /// Not before this long.
    Refused(Duration),
}

#[derive(Debug, Clone, Copy, PartialEq)]
enum State {
    Closed,
    Open {
        until: Instant,
    },
    /// One request is under way to find out.
    Probing,
}

/// The breaker.
#[derive(Debug, Clone)]
pub(crate) struct Breaker {
    state: State,
    failures: u32,
    last_failure: Option<Instant>,
    opening: Duration,
    paused_until: Option<Instant>,
}

impl Default for Breaker {
    fn default() -> Self {
        Self { state: State::Closed, failures: 0, last_failure: None, opening: OPEN, paused_until: None }
    }
}

impl Breaker {
    /// Asks to make a request. Whoever is granted one reports its end once.
    pub(crate) fn admit(&mut self, now: Instant) -> Admission {
        if let Some(until) = self.paused_until.filter(|until| *until > now) {
            return Admission::Refused(until - now);
        }
        match self.state {
            State::Closed => Admission::Granted,
            State::Open { until } if until > now => Admission::Refused(until - now),
            State::Open { .. } => {
                self.state = State::Probing;
                Admission::Probe
            }
            State::Probing => Admission::Refused(OPEN),
        }
    }

    /// The provider did its part, also by refusing a bad request.
    pub(crate) fn succeeded(&mut self) {
        self.state = State::Closed;
        self.failures = 0;
        self.last_failure = None;
        self.opening = OPEN;
    }

    /// The provider failed.
    pub(crate) fn failed(&mut self, now: Instant) {
        match self.state {
            State::Probing => {
                self.opening = (self.opening * 2).min(MOST_OPEN);
                self.state = State::Open { until: now + self.opening };
            }
            // Requests that began before it opened say nothing new.
            State::Open { .. } => {}
            State::Closed => {
                let in_row = self.last_failure.is_some_and(|last| now.duration_since(last) <= WINDOW);
                self.failures = if in_row { self.failures + 1 } else { 1 };
                self.last_failure = Some(now);
                if self.failures >= FAILURES {
                    self.state = State::Open { until: now + self.opening };
                }
            }
        }
    }

    /// Nobody waited for the end: a probe has shown nothing, so that the next request is one.
    pub(crate) fn abandoned(&mut self, now: Instant) {
        if self.state == State::Probing {
            self.state = State::Open { until: now };
        }
    }

    /// The provider asks to be left alone for a while.
    pub(crate) fn pause(&mut self, now: Instant, wait: Duration) {
        let until = now + wait.min(MOST_PAUSE);
        self.paused_until = Some(self.paused_until.map_or(until, |before| before.max(until)));
    }

    /// Whether it holds nothing worth keeping.
    pub(crate) fn is_idle(&self, now: Instant) -> bool {
        self.state == State::Closed && self.paused_until.is_none_or(|until| until <= now)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn open(now: Instant) -> Breaker {
        let mut breaker = Breaker::default();
        for _ in 0..FAILURES {
            assert_eq!(breaker.admit(now), Admission::Granted);
            breaker.failed(now);
        }
        breaker
    }

    #[test]
    fn failures_in_a_row_open_it_and_a_probe_closes_it() {
        let now = Instant::now();
        let mut breaker = open(now);
        assert_eq!(breaker.admit(now), Admission::Refused(OPEN));
        let later = now + OPEN;
        assert_eq!(breaker.admit(later), Admission::Probe);
        assert!(matches!(breaker.admit(later), Admission::Refused(_)), "one probe at a time");
        breaker.succeeded();
        assert_eq!(breaker.admit(later), Admission::Granted);
    }

    #[test]
    fn a_failed_probe_waits_twice_as_long_and_an_abandoned_one_not_at_all() {
        let now = Instant::now();
        let mut breaker = open(now);
        let later = now + OPEN;
        assert_eq!(breaker.admit(later), Admission::Probe);
        breaker.failed(later);
        assert_eq!(breaker.admit(later), Admission::Refused(OPEN * 2));
        let later = later + OPEN * 2;
        assert_eq!(breaker.admit(later), Admission::Probe);
        breaker.abandoned(later);
        assert_eq!(breaker.admit(later), Admission::Probe);
    }

    #[test]
    fn failures_far_apart_do_not_open_it() {
        let mut now = Instant::now();
        let mut breaker = Breaker::default();
        for _ in 0..20 {
            breaker.failed(now);
            now += WINDOW + Duration::from_secs(1);
            assert_eq!(breaker.admit(now), Admission::Granted);
        }
    }

    #[test]
    fn a_pause_ends() {
        let now = Instant::now();
        let mut breaker = Breaker::default();
        breaker.pause(now, Duration::from_secs(7));
        assert_eq!(breaker.admit(now), Admission::Refused(Duration::from_secs(7)));
        assert_eq!(breaker.admit(now + Duration::from_secs(7)), Admission::Granted);
    }

    #[derive(Debug, Clone)]
    enum Step {
        Admit,
        Succeed,
        Fail,
        Abandon,
        Wait(u64),
        Pause(u64),
    }

    proptest! {
        /// Whatever happens, requests are let through again some time after the last failure, and never two probes at
        /// once.
        #[test]
        fn it_never_stays_shut(steps in prop::collection::vec(prop_oneof![
            3 => Just(Step::Admit),
            1 => Just(Step::Succeed),
            3 => Just(Step::Fail),
            1 => Just(Step::Abandon),
            2 => (0_u64..40).prop_map(Step::Wait),
            1 => (0_u64..400).prop_map(Step::Pause),
        ], 0..200)) {
            let mut now = Instant::now();
            let mut breaker = Breaker::default();
            let mut probing = false;
            for step in steps {
                match step {
                    Step::Admit => match breaker.admit(now) {
                        Admission::Probe => {
                            prop_assert!(!probing);
                            probing = true;
                        }
                        Admission::Refused(wait) => prop_assert!(wait <= MOST_PAUSE),
                        Admission::Granted => prop_assert!(!probing),
                    },
                    Step::Succeed => { breaker.succeeded(); probing = false; }
                    Step::Fail => { breaker.failed(now); probing = false; }
                    Step::Abandon => { breaker.abandoned(now); probing = false; }
                    Step::Wait(seconds) => now += Duration::from_secs(seconds),
                    Step::Pause(seconds) => breaker.pause(now, Duration::from_secs(seconds)),
                }
            }
            breaker.abandoned(now);
            now += MOST_PAUSE.max(MOST_OPEN);
            prop_assert!(!matches!(breaker.admit(now), Admission::Refused(_)));
        }
    }
}
