//! How often things may be asked for: per client address, per account, and for the whole project.
//!
//! Counted in this process; two servers on one database allow twice as much. What the project sends by mail is counted
//! in the outbox, for all of them.

use std::net::{IpAddr, Ipv6Addr};
use std::num::NonZeroU32;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{Duration, Instant};

use governor::clock::{Clock, DefaultClock};
use governor::{DefaultDirectRateLimiter, DefaultKeyedRateLimiter, Quota, RateLimiter};
use moka::sync::Cache;
use sha2::{Digest, Sha256};

use super::caller::Caller;
use super::error::AuthApiError;
use super::options::LimitOptions;
use super::store::Tx;

const FIVE_MINUTES: Duration = Duration::from_secs(300);
const HOUR: Duration = Duration::from_secs(3600);
/// Most addresses or accounts that are remembered; beyond, addresses share an allowance.
const MOST_KEYS: usize = 100_000;

/// What a client address asks for; each kind has an allowance of its own.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Limit {
    Signup,
    Otp,
    Recover,
    Resend,
    UserUpdate,
    Verify,
    Token,
    Anonymous,
    Mfa,
}

const LIMITS: usize = Limit::Mfa as usize + 1;

/// Counts.
pub(crate) struct Limits {
    clock: DefaultClock,
    by_address: [Option<ByAddress>; LIMITS],
    failures: Option<(u32, Cache<Key, Arc<Attempts>>)>,
    pretended: Cache<Key, Instant>,
    sms: Option<DefaultDirectRateLimiter>,
    emails_per_hour: u32,
}

/// A digest: what people type in is not kept.
type Key = [u8; 16];

struct ByAddress {
    limiter: DefaultKeyedRateLimiter<IpAddr>,
    quota: u32,
}

struct Attempts {
    count: AtomicU32,
    began: Instant,
}

impl Limits {
    pub(crate) fn new(options: &LimitOptions) -> Self {
        let by_address = |count: u32, period: Duration| {
            Some(ByAddress { limiter: RateLimiter::keyed(quota(count, period)?), quota: count })
        };
        let mut all = [const { None }; LIMITS];
        for kind in [Limit::Signup, Limit::Otp, Limit::Recover, Limit::Resend, Limit::UserUpdate] {
            all[kind as usize] = by_address(options.otp, FIVE_MINUTES);
        }
        all[Limit::Verify as usize] = by_address(options.verify, FIVE_MINUTES);
        all[Limit::Token as usize] = by_address(options.token, FIVE_MINUTES);
        all[Limit::Anonymous as usize] = by_address(options.anonymous, HOUR);
        all[Limit::Mfa as usize] = by_address(options.mfa, Duration::from_secs(60));
        let failures = (options.failures_per_account > 0).then(|| {
            let cache = Cache::builder().max_capacity(MOST_KEYS as u64).time_to_live(FIVE_MINUTES).build();
            (options.failures_per_account, cache)
        });
        Self {
            clock: DefaultClock::default(),
            by_address: all,
            failures,
            pretended: Cache::builder().max_capacity(MOST_KEYS as u64).time_to_live(HOUR).build(),
            sms: quota(options.sms_per_hour, HOUR).map(RateLimiter::direct),
            emails_per_hour: options.emails_per_hour,
        }
    }

    /// Takes one from the allowance of the caller's address.
    ///
    /// # Errors
    /// 429 `over_request_rate_limit`.
    pub(crate) fn take(&self, limit: Limit, caller: &Caller) -> Result<(), AuthApiError> {
        let Some(ByAddress { limiter, quota }) = &self.by_address[limit as usize] else { return Ok(()) };
        if limiter.len() > MOST_KEYS {
            limiter.retain_recent();
        }
        let key = network(caller.ip, limiter.len() > MOST_KEYS);
        limiter.check_key(&key).map_err(|refusal| {
            let wait = refusal.wait_time_from(self.clock.now());
            let message = "Request rate limit reached";
            AuthApiError::too_many("over_request_rate_limit", message, round_up(wait)).with_limit(*quota)
        })
    }

    /// Counts an attempt to prove to be an account (`identity`: its address or number, whether or not it exists),
    /// whoever makes it.
    ///
    /// # Errors
    /// 429 `over_request_rate_limit` after too many that did not succeed.
    pub(crate) fn attempt(&self, identity: &str) -> Result<(), AuthApiError> {
        let Some((most, failures)) = &self.failures else { return Ok(()) };
        let begin = || Arc::new(Attempts { count: AtomicU32::new(0), began: Instant::now() });
        let attempts = failures.get_with(key(&["attempt", identity]), begin);
        if attempts.count.fetch_add(1, Ordering::Relaxed) < *most {
            return Ok(());
        }
        let wait = FIVE_MINUTES.saturating_sub(attempts.began.elapsed());
        let message = "Too many failed attempts for this account";
        Err(AuthApiError::too_many("over_request_rate_limit", message, round_up(wait)).with_limit(*most))
    }

    /// The attempt succeeded: earlier failures are forgotten.
    pub(crate) fn succeeded(&self, identity: &str) {
        if let Some((_, failures)) = &self.failures {
            failures.invalidate(&key(&["attempt", identity]));
        }
    }

    /// Behaves as if something were sent to an address that gets nothing, so that whoever asks again soon is refused
    /// as for an account. Returns how long to wait.
    pub(crate) fn pretend_to_send(&self, kind: &str, address: &str, frequency: Duration) -> Option<Duration> {
        if frequency.is_zero() {
            return None;
        }
        let (key, now) = (key(&["sent", kind, address]), Instant::now());
        let sent = self.pretended.get(&key);
        match sent.map(|sent| (sent + frequency).saturating_duration_since(now)) {
            Some(wait) if !wait.is_zero() => Some(wait),
            _ => {
                self.pretended.insert(key, now);
                None
            }
        }
    }

    /// Takes one from the project's text messages.
    ///
    /// # Errors
    /// 429 `over_sms_send_rate_limit`.
    pub(crate) fn take_sms(&self) -> Result<(), AuthApiError> {
        let Some(limiter) = &self.sms else { return Ok(()) };
        limiter.check().map_err(|refusal| {
            let wait = refusal.wait_time_from(self.clock.now());
            AuthApiError::too_many("over_sms_send_rate_limit", "SMS rate limit exceeded", round_up(wait))
        })
    }

    /// Whether the project may send another mail this hour.
    ///
    /// # Errors
    /// 429 `over_email_send_rate_limit`.
    pub(crate) async fn check_mails(&self, tx: &Tx) -> Result<(), AuthApiError> {
        if self.emails_per_hour == 0 {
            return Ok(());
        }
        // The oldest of the last so many says when there is room again.
        let sql = "select extract(epoch from created_at + interval '1 hour' - now())::float8
            from longhouse.mail_outbox where created_at > now() - interval '1 hour'
            order by created_at desc offset $1 limit 1";
        let offset = i64::from(self.emails_per_hour) - 1;
        match tx.query_opt(sql, &[&offset]).await? {
            None => Ok(()),
            Some(row) => {
                let wait = Duration::from_secs_f64(row.get::<_, f64>(0).clamp(1.0, HOUR.as_secs_f64()));
                let message = "email rate limit exceeded";
                let error = AuthApiError::too_many("over_email_send_rate_limit", message, round_up(wait));
                Err(error.with_limit(self.emails_per_hour))
            }
        }
    }
}

fn quota(count: u32, period: Duration) -> Option<Quota> {
    let burst = NonZeroU32::new(count)?;
    Quota::with_period(period / count).map(|quota| quota.allow_burst(burst))
}

fn key(parts: &[&str]) -> Key {
    let mut digest = Sha256::new();
    for part in parts {
        digest.update((part.len() as u64).to_be_bytes());
        digest.update(part);
    }
    let mut key = [0; 16];
    key.copy_from_slice(&digest.finalize()[..16]);
    key
}

/// One customer has a whole /64 of IPv6. When too many come at once, neighbours share an allowance.
fn network(ip: IpAddr, crowded: bool) -> IpAddr {
    match ip {
        IpAddr::V4(v4) if crowded => std::net::Ipv4Addr::from_bits(v4.to_bits() & 0xffff_0000).into(),
        IpAddr::V4(v4) => v4.into(),
        IpAddr::V6(v6) => {
            let kept = if crowded { 24 } else { 64 };
            Ipv6Addr::from_bits(v6.to_bits() & (u128::MAX << (128 - kept))).into()
        }
    }
}

/// Whole seconds, as headers have them.
fn round_up(wait: Duration) -> Duration {
    Duration::from_secs(wait.as_secs() + u64::from(wait.subsec_nanos() > 0))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn caller(ip: &str) -> Caller {
        Caller { ip: ip.parse().unwrap(), user_agent: None }
    }

    fn options() -> LimitOptions {
        LimitOptions {
            emails_per_hour: 0,
            sms_per_hour: 2,
            otp: 2,
            verify: 0,
            token: 0,
            anonymous: 0,
            mfa: 0,
            failures_per_account: 3,
        }
    }

    #[test]
    fn addresses_and_kinds_have_allowances_of_their_own() {
        let limits = Limits::new(&options());
        let (here, there) = (caller("192.0.2.1"), caller("192.0.2.2"));
        for _ in 0..2 {
            limits.take(Limit::Otp, &here).unwrap();
        }
        assert_eq!(limits.take(Limit::Otp, &here).unwrap_err().code(), "over_request_rate_limit");
        limits.take(Limit::Recover, &here).unwrap();
        limits.take(Limit::Otp, &there).unwrap();
        for _ in 0..100 {
            limits.take(Limit::Verify, &here).unwrap(); // zero: no limit
        }
    }

    #[test]
    fn neighbours_in_a_64_count_as_one() {
        let limits = Limits::new(&options());
        for ip in ["2001:db8::1", "2001:db8::2"] {
            limits.take(Limit::Otp, &caller(ip)).unwrap();
        }
        limits.take(Limit::Otp, &caller("2001:db8::3")).unwrap_err();
        limits.take(Limit::Otp, &caller("2001:db8:0:1::1")).unwrap();
    }

    #[test]
    fn failures_add_up_until_one_attempt_succeeds() {
        let limits = Limits::new(&options());
        for _ in 0..3 {
            limits.attempt("ann@example.com").unwrap();
        }
        limits.attempt("ann@example.com").unwrap_err();
        limits.attempt("bob@example.com").unwrap();
        limits.succeeded("ann@example.com");
        limits.attempt("ann@example.com").unwrap();
    }

    #[test]
    fn nothing_is_sent_twice_in_a_row_not_even_in_pretence() {
        let limits = Limits::new(&options());
        let minute = Duration::from_secs(60);
        assert_eq!(limits.pretend_to_send("recovery", "ann@example.com", minute), None);
        let wait = limits.pretend_to_send("recovery", "ann@example.com", minute).unwrap();
        assert!(wait > Duration::from_secs(58) && wait <= minute);
        assert_eq!(limits.pretend_to_send("signup", "ann@example.com", minute), None);
        assert_eq!(limits.pretend_to_send("recovery", "bob@example.com", Duration::ZERO), None);
    }

    #[test]
    fn text_messages_are_counted_for_the_project() {
        let limits = Limits::new(&options());
        limits.take_sms().unwrap();
        limits.take_sms().unwrap();
        assert_eq!(limits.take_sms().unwrap_err().code(), "over_sms_send_rate_limit");
    }
}
