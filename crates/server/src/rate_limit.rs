//! Requests a client address may make; memory is bounded however many addresses come.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::num::NonZeroU32;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use governor::clock::{Clock, DefaultClock};
use governor::{DefaultKeyedRateLimiter, Quota, RateLimiter};

const SWEEP_EVERY: Duration = Duration::from_secs(1);
/// Above this many addresses at once, neighbours share an allowance.
const MAX_ADDRESSES: usize = 100_000;

pub(crate) struct RateLimit {
    limiter: DefaultKeyedRateLimiter<IpAddr>,
    clock: DefaultClock,
    started: Instant,
    swept_ms: AtomicU64,
    crowded: AtomicBool,
}

impl RateLimit {
    /// `None` when the limit is turned off.
    pub(crate) fn new(per_second: u32, burst: u32) -> Option<Self> {
        let rate = NonZeroU32::new(per_second)?;
        let burst = NonZeroU32::new(burst.max(1)).expect("at least one");
        Some(Self {
            limiter: RateLimiter::keyed(Quota::per_second(rate).allow_burst(burst)),
            clock: DefaultClock::default(),
            started: Instant::now(),
            swept_ms: AtomicU64::new(0),
            crowded: AtomicBool::new(false),
        })
    }

    /// Takes one request from the address's allowance, or says after how many seconds to come back.
    pub(crate) fn take(&self, address: IpAddr) -> Result<(), u64> {
        self.sweep();
        let key = network(address, self.crowded.load(Ordering::Relaxed));
        self.limiter.check_key(&key).map_err(|refusal| {
            let wait = refusal.wait_time_from(self.clock.now());
            wait.as_secs() + u64::from(wait.subsec_nanos() > 0)
        })
    }

    /// Forgets addresses whose allowance is whole again. The first request in each interval pays for it, so
    /// that no task is needed.
    fn sweep(&self) {
        let now = u64::try_from(self.started.elapsed().as_millis()).unwrap_or(u64::MAX);
        let last = self.swept_ms.load(Ordering::Relaxed);
        if now.saturating_sub(last) < u64::try_from(SWEEP_EVERY.as_millis()).unwrap_or(u64::MAX) {
            return;
        }
        if self.swept_ms.compare_exchange(last, now, Ordering::Relaxed, Ordering::Relaxed).is_ok() {
            self.limiter.retain_recent();
            self.limiter.shrink_to_fit();
            self.crowded.store(self.limiter.len() > MAX_ADDRESSES, Ordering::Relaxed);
        }
    }
}

/// One IPv6 customer owns a whole /64, so that is what counts as one address there.
fn network(address: IpAddr, crowded: bool) -> IpAddr {
    match address {
        IpAddr::V4(v4) if crowded => Ipv4Addr::from_bits(v4.to_bits() & 0xffff_0000).into(),
        IpAddr::V4(v4) => v4.into(),
        IpAddr::V6(v6) => {
            let kept = if crowded { 24 } else { 64 };
            Ipv6Addr::from_bits(v6.to_bits() & (u128::MAX << (128 - kept))).into()
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_have_their_own_allowance() {
        let limit = RateLimit::new(1, 2).unwrap();
        let (one, other) = (IpAddr::from([203, 0, 113, 7]), IpAddr::from([203, 0, 113, 8]));
        assert!(limit.take(one).is_ok() && limit.take(one).is_ok());
        assert_eq!(limit.take(one), Err(1));
        assert!(limit.take(other).is_ok());
    }

    #[test]
    fn an_ipv6_network_is_one_client() {
        let limit = RateLimit::new(1, 1).unwrap();
        assert!(limit.take("2001:db8:0:1::1".parse().unwrap()).is_ok());
        assert!(limit.take("2001:db8:0:1::2".parse().unwrap()).is_err());
        assert!(limit.take("2001:db8:0:2::1".parse().unwrap()).is_ok());
    }

    #[test]
    fn zero_turns_it_off() {
        assert!(RateLimit::new(0, 5).is_none());
    }

    #[test]
    fn forgets_addresses_that_have_recovered() {
        let limit = RateLimit::new(1000, 1).unwrap();
        for last in 0..=255 {
            let _ = limit.take(IpAddr::from([10, 0, 0, last]));
        }
        std::thread::sleep(SWEEP_EVERY + Duration::from_millis(50));
        let _ = limit.take(IpAddr::from([10, 9, 9, 9]));
        assert!(limit.limiter.len() < 5, "{} addresses kept", limit.limiter.len());
    }

    #[test]
    fn a_crowd_shares_by_neighbourhood() {
        assert_eq!(network([203, 0, 113, 7].into(), true), IpAddr::from([203, 0, 0, 0]));
    }
}
