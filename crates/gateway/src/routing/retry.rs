//! What to do after a failure. Pure: the remaining time and the random number are passed in.

use std::time::Duration;

use crate::error::Fault;

/// First wait between two tries; doubled with each.
const BASE: Duration = Duration::from_millis(250);
/// Longest wait between two tries.
const MOST: Duration = Duration::from_secs(8);
/// With another model at hand, nobody waits longer than this for a provider.
const PATIENCE: Duration = Duration::from_secs(1);

/// What to do next.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Next {
    /// The same model again after this long.
    Retry(Duration),
    /// The next model at once.
    FallBack,
    /// Tell the caller.
    GiveUp,
}

/// A failure, and what is left to try.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Situation {
    pub(crate) fault: Fault,
    pub(crate) retry_after: Option<Duration>,
    /// Requests made to this model so far.
    pub(crate) requests: u32,
    /// Most requests to one model.
    pub(crate) attempts: u32,
    /// Whether there is another model.
    pub(crate) more: bool,
    /// Time until the caller stops waiting.
    pub(crate) remaining: Duration,
    /// Whether the caller has already got a part of an answer that must not be replaced.
    pub(crate) bound: bool,
}

/// Decides. `jitter` is between 0 and 1.
pub(crate) fn next(now: Situation, jitter: f64) -> Next {
    if now.bound || now.remaining.is_zero() {
        return Next::GiveUp;
    }
    let wait = now.retry_after.unwrap_or_else(|| backoff(now.requests, jitter));
    let patient = !now.more || wait <= PATIENCE;
    // Waiting is in vain when no time is left afterwards.
    let worthwhile = wait <= MOST && wait < now.remaining;
    if now.fault.is_retryable() && now.requests < now.attempts && patient && worthwhile {
        return Next::Retry(wait);
    }
    if now.more && now.fault.may_fall_back() { Next::FallBack } else { Next::GiveUp }
}

/// Between half and all of an exponentially growing wait, so that callers that failed together do not return together.
fn backoff(requests: u32, jitter: f64) -> Duration {
    let whole = BASE.saturating_mul(1 << requests.saturating_sub(1).min(8)).min(MOST);
    whole.mul_f64(0.5 + jitter.clamp(0.0, 1.0) / 2.0)
}

#[cfg(test)]
mod tests {
    use rstest::rstest;

    use super::*;
    use crate::error::Waiting;

    fn situation(fault: Fault) -> Situation {
        Situation {
            fault,
            retry_after: None,
            requests: 1,
            attempts: 2,
            more: true,
            remaining: Duration::from_secs(30),
            bound: false,
        }
    }

    #[rstest]
    #[case(Fault::ServerError, Next::Retry(BASE))]
    #[case(Fault::Overloaded, Next::Retry(BASE))]
    #[case(Fault::RateLimited, Next::Retry(BASE))]
    #[case(Fault::Interrupted, Next::Retry(BASE))]
    #[case(Fault::TimedOut(Waiting::Answer), Next::Retry(BASE))]
    #[case(Fault::TimedOut(Waiting::Deadline), Next::GiveUp)]
    #[case(Fault::Unauthorized, Next::FallBack)]
    #[case(Fault::Billing, Next::FallBack)]
    #[case(Fault::NotFound, Next::FallBack)]
    #[case(Fault::ContextTooLong, Next::FallBack)]
    #[case(Fault::ContentRefused, Next::FallBack)]
    #[case(Fault::TooLarge, Next::FallBack)]
    #[case(Fault::InvalidRequest, Next::GiveUp)]
    fn by_fault(#[case] fault: Fault, #[case] expected: Next) {
        assert_eq!(next(situation(fault), 1.0), expected);
    }

    #[test]
    fn a_long_wait_is_spent_only_where_nothing_else_is_left() {
        let wait = Some(Duration::from_secs(5));
        let base = Situation { retry_after: wait, ..situation(Fault::RateLimited) };
        assert_eq!(next(base, 0.0), Next::FallBack);
        assert_eq!(next(Situation { more: false, ..base }, 0.0), Next::Retry(Duration::from_secs(5)));
        let hurried = Situation { more: false, remaining: Duration::from_secs(4), ..base };
        assert_eq!(next(hurried, 0.0), Next::GiveUp);
        let endless = Situation { retry_after: Some(Duration::from_secs(60)), more: false, ..base };
        assert_eq!(next(endless, 0.0), Next::GiveUp);
    }

    #[test]
    fn tries_are_counted_and_a_begun_answer_is_not_replaced() {
        let last = Situation { requests: 2, ..situation(Fault::ServerError) };
        assert_eq!(next(last, 0.0), Next::FallBack);
        assert_eq!(next(Situation { more: false, ..last }, 0.0), Next::GiveUp);
        assert_eq!(next(Situation { bound: true, ..situation(Fault::ServerError) }, 0.0), Next::GiveUp);
    }

    #[rstest]
    #[case(1, 0.0, 125)]
    #[case(1, 1.0, 250)]
    #[case(2, 1.0, 500)]
    #[case(40, 1.0, 8_000)]
    fn waits_grow(#[case] requests: u32, #[case] jitter: f64, #[case] ms: u64) {
        assert_eq!(backoff(requests, jitter), Duration::from_millis(ms));
    }
}
