//! Recovery codes: printed or kept in a password manager, each good once instead of a second factor.
//!
//! Supabase Auth has no such thing. `POST /factors/recovery_codes` makes [`CODES`] and ends earlier ones, `GET` says
//! how many are left, `POST /factors/recovery_codes/verify {"code"}` raises the session to `aal2`.

use rand::RngExt;
use sha2::{Digest, Sha256};
use uuid::Uuid;

/// How many are made at once.
pub(crate) const CODES: usize = 10;
/// Crockford's base 32: no I, L, O or U.
const ALPHABET: &[u8; 32] = b"0123456789ABCDEFGHJKMNPQRSTVWXYZ";
const GROUPS: usize = 4;
const GROUP: usize = 4;

/// A random code, such as `7Q2K-M0XN-9D4B-HT6W` (80 bits).
pub(crate) fn new_code() -> String {
    let mut random = rand::rng();
    let groups = (0..GROUPS).map(|_| {
        (0..GROUP).map(|_| char::from(ALPHABET[random.random_range(0..ALPHABET.len())])).collect::<String>()
    });
    groups.collect::<Vec<_>>().join("-")
}

/// What is stored of an account's code, however it was typed; `None` if it is no such code.
pub(crate) fn hash(user: Uuid, typed: &str) -> Option<Vec<u8>> {
    let code: String = typed
        .chars()
        .filter(|c| !matches!(c, '-' | ' '))
        .take(2 * GROUPS * GROUP)
        .map(|c| match c.to_ascii_uppercase() {
            'O' => '0',
            'I' | 'L' => '1',
            c => c,
        })
        .collect();
    let valid = code.len() == GROUPS * GROUP && code.bytes().all(|byte| ALPHABET.contains(&byte));
    valid.then(|| Sha256::new().chain_update(user.as_bytes()).chain_update(code).finalize().to_vec())
}

#[cfg(test)]
mod tests {
    use rstest::rstest;

    use super::*;

    #[test]
    fn codes_differ_and_hash() {
        let code = new_code();
        assert_eq!(code.len(), 19);
        assert_ne!(code, new_code());
        assert!(hash(Uuid::nil(), &code).is_some());
        assert_ne!(hash(Uuid::nil(), &code), hash(Uuid::max(), &code), "one account's code is no other's");
    }

    #[rstest]
    #[case("7Q2K-M0XN-9D4B-HT6W", true)]
    #[case("7q2k m0xn 9d4b ht6w", true)]
    #[case("7q2kmOxn9d4bht6w", true)]
    #[case("7Q2K-M0XN-9D4B", false)]
    #[case("7Q2K-M0XN-9D4B-HT6WW", false)]
    #[case("7Q2K-M0XN-9D4B-HT6U", false)]
    #[case("", false)]
    fn typing_is_forgiven(#[case] typed: &str, #[case] same: bool) {
        let stored = hash(Uuid::nil(), "7Q2K-M0XN-9D4B-HT6W").unwrap();
        assert_eq!(hash(Uuid::nil(), typed).as_ref() == Some(&stored), same);
    }
}
