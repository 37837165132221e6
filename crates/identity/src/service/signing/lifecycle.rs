//! What may happen to signing keys when, so that nobody is logged out: pure decisions.
//!
//! standby (published, signs nothing) → current (signs) → previous (verifies what it signed) → revoked.

use chrono::{DateTime, Duration, Utc};
use uuid::Uuid;

use super::keys::{KeyStatus, SigningKey};

/// Why a signing key cannot change like that now.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Refusal {
    /// There is a standby key already.
    #[error("key {0} is on standby already: put it to use with `longhouse keys rotate`, or revoke it")]
    StandbyExists(Uuid),
    /// The standby key is not known everywhere yet.
    #[error(
        "the standby key was published a moment ago and others may not know it for {seconds} s more: wait, or add --now to sign with it at once"
    )]
    NotPublishedLongEnough {
        /// Until everybody knows it.
        seconds: i64,
    },
    /// The key signs.
    #[error("key {0} is the one that signs: put another to use with `longhouse keys rotate` first")]
    Current(Uuid),
    /// Tokens that the key signed are still in use.
    #[error(
        "tokens that this key signed are good for up to {seconds} s more: wait, or add --now to end them (their holders refresh or sign in again)"
    )]
    TokensInUse {
        /// Until the last of them has expired.
        seconds: i64,
    },
    /// It was revoked before.
    #[error("key {0} was revoked before")]
    RevokedBefore(Uuid),
}

/// Keys to change in a rotation.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Rotation {
    pub(super) promote: Uuid,
    pub(super) demote: Option<Uuid>,
}

/// Whether there is room for another standby key.
pub(super) fn may_add(keys: &[SigningKey]) -> Result<(), Refusal> {
    match keys.iter().find(|key| key.status == KeyStatus::Standby) {
        Some(key) => Err(Refusal::StandbyExists(key.id)),
        None => Ok(()),
    }
}

/// Which key takes over; `None` without one on standby. `known_after`: how long others may keep an older set.
pub(super) fn rotation(
    keys: &[SigningKey],
    now: DateTime<Utc>,
    known_after: Duration,
) -> Result<Option<Rotation>, Refusal> {
    let Some(standby) = keys.iter().find(|key| key.status == KeyStatus::Standby) else {
        return Ok(None);
    };
    let wait = standby.changed_at + known_after - now;
    if wait > Duration::zero() {
        return Err(Refusal::NotPublishedLongEnough { seconds: wait.num_seconds() + 1 });
    }
    let current = keys.iter().find(|key| key.status == KeyStatus::Current);
    Ok(Some(Rotation { promote: standby.id, demote: current.map(|key| key.id) }))
}

/// Whether a key may end. `longest_token`: the life of what it may have signed.
pub(super) fn may_revoke(
    key: &SigningKey,
    now: DateTime<Utc>,
    longest_token: Duration,
) -> Result<(), Refusal> {
    match key.status {
        KeyStatus::Standby => Ok(()),
        KeyStatus::Current => Err(Refusal::Current(key.id)),
        KeyStatus::Revoked => Err(Refusal::RevokedBefore(key.id)),
        KeyStatus::Previous => {
            let wait = key.changed_at + longest_token - now;
            if wait > Duration::zero() {
                return Err(Refusal::TokensInUse { seconds: wait.num_seconds() + 1 });
            }
            Ok(())
        }
    }
}

#[cfg(test)]
mod tests {
    use rstest::rstest;

    use super::super::keys::SigningAlgorithm;
    use super::*;

    fn key(id: u128, status: KeyStatus, changed: i64) -> SigningKey {
        let at = DateTime::from_timestamp(changed, 0).unwrap();
        SigningKey {
            id: Uuid::from_u128(id),
            algorithm: SigningAlgorithm::Es256,
            status,
            created_at: at,
            changed_at: at,
        }
    }

    fn at(seconds: i64) -> DateTime<Utc> {
        DateTime::from_timestamp(seconds, 0).unwrap()
    }

    #[rstest]
    #[case::nothing_waits(&[(1, KeyStatus::Current)], 5000, Ok(None))]
    #[case::takes_over(&[(1, KeyStatus::Current), (2, KeyStatus::Standby)], 1600, Ok(Some((2, Some(1)))))]
    #[case::first(&[(2, KeyStatus::Standby), (1, KeyStatus::Previous)], 1600, Ok(Some((2, None))))]
    #[case::too_early(&[(2, KeyStatus::Standby)], 1599, Err(2))]
    fn a_standby_key_takes_over_once_it_is_known(
        #[case] keys: &[(u128, KeyStatus)],
        #[case] now: i64,
        #[case] expected: Result<Option<(u128, Option<u128>)>, i64>,
    ) {
        let keys: Vec<_> = keys.iter().map(|&(id, status)| key(id, status, 1000)).collect();
        let expected = match expected {
            Ok(rotation) => Ok(rotation.map(|(promote, demote)| Rotation {
                promote: Uuid::from_u128(promote),
                demote: demote.map(Uuid::from_u128),
            })),
            Err(seconds) => Err(Refusal::NotPublishedLongEnough { seconds }),
        };
        assert_eq!(rotation(&keys, at(now), Duration::seconds(600)), expected);
    }

    #[rstest]
    #[case::unused(KeyStatus::Standby, 1000, Ok(()))]
    #[case::signs(KeyStatus::Current, 9000, Err(Refusal::Current(Uuid::from_u128(1))))]
    #[case::tokens_live(KeyStatus::Previous, 1500, Err(Refusal::TokensInUse { seconds: 3101 }))]
    #[case::tokens_expired(KeyStatus::Previous, 4600, Ok(()))]
    #[case::again(KeyStatus::Revoked, 9000, Err(Refusal::RevokedBefore(Uuid::from_u128(1))))]
    fn a_key_ends_when_nothing_depends_on_it(
        #[case] status: KeyStatus,
        #[case] now: i64,
        #[case] expected: Result<(), Refusal>,
    ) {
        assert_eq!(may_revoke(&key(1, status, 1000), at(now), Duration::seconds(3600)), expected);
    }

    #[test]
    fn one_key_waits_at_a_time() {
        assert!(may_add(&[key(1, KeyStatus::Current, 0)]).is_ok());
        let keys = [key(1, KeyStatus::Current, 0), key(2, KeyStatus::Standby, 0)];
        assert_eq!(may_add(&keys), Err(Refusal::StandbyExists(Uuid::from_u128(2))));
    }
}
