//! One-time codes, and the proof keys (PKCE, RFC 7636) that tie a code exchange to the page that began it.

use std::time::Duration;

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use chrono::{DateTime, Utc};
use constant_time_eq::constant_time_eq;
use rand::RngExt;
use sha2::{Digest, Sha224, Sha256};

use super::error::AuthApiError;

/// Marks hashes of links that end in a code exchange instead of tokens.
pub(crate) const PKCE_PREFIX: &str = "pkce_";

/// What is stored of a code: hex SHA-224 of address (or number) and code.
pub(crate) fn token_hash(address: &str, code: &str) -> String {
    hex::encode(Sha224::new().chain_update(address).chain_update(code).finalize())
}

/// A random code of that many digits.
pub(crate) fn new_code(digits: usize) -> String {
    let mut random = rand::rng();
    (0..digits).map(|_| char::from(b'0' + random.random_range(0..10u8))).collect()
}

/// Whether a hash is the stored one, which may have the PKCE prefix. Takes the same time whatever differs.
pub(crate) fn is_same_hash(stored: &str, given: &str) -> bool {
    let plain = |hash: &str| hash.strip_prefix(PKCE_PREFIX).unwrap_or(hash).to_owned();
    // A given prefix must have been stored too.
    let prefixed = given.starts_with(PKCE_PREFIX) && !stored.starts_with(PKCE_PREFIX);
    constant_time_eq(plain(stored).as_bytes(), plain(given).as_bytes()) && !prefixed
}

/// Whether what was sent then is no longer valid.
pub(crate) fn is_expired(sent: DateTime<Utc>, life: Duration, now: DateTime<Utc>) -> bool {
    now > sent + life
}

/// How long to wait until the next may be sent; `None`: it may be sent now.
pub(crate) fn wait_before_next(
    sent: Option<DateTime<Utc>>,
    frequency: Duration,
    now: DateTime<Utc>,
) -> Option<Duration> {
    (sent? + frequency - now).to_std().ok().filter(|wait| !wait.is_zero())
}

/// How a code challenge was made of its verifier.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum ChallengeMethod {
    S256,
    Plain,
}

impl ChallengeMethod {
    /// As it is stored.
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::S256 => "s256",
            Self::Plain => "plain",
        }
    }

    fn parse(name: &str) -> Option<Self> {
        match name.to_ascii_lowercase().as_str() {
            "s256" => Some(Self::S256),
            "plain" => Some(Self::Plain),
            _ => None,
        }
    }
}

/// What a page sends when it begins a sign-in that ends in a code exchange.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct CodeChallenge {
    pub(crate) method: ChallengeMethod,
    pub(crate) challenge: String,
}

impl CodeChallenge {
    /// From the two parameters; both empty: none.
    ///
    /// # Errors
    /// `validation_failed` when one is missing or either is not what RFC 7636 allows.
    pub(crate) fn parse(method: &str, challenge: &str) -> Result<Option<Self>, AuthApiError> {
        if method.is_empty() && challenge.is_empty() {
            return Ok(None);
        }
        if method.is_empty() || challenge.is_empty() {
            let message = "PKCE flow requires code_challenge_method and code_challenge";
            return Err(AuthApiError::invalid(message));
        }
        if !(43..=128).contains(&challenge.len()) {
            return Err(AuthApiError::invalid("code challenge has to be between 43 and 128 characters"));
        }
        if !challenge.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"-._~".contains(&byte)) {
            let message = "code challenge can only contain alphanumeric characters, hyphens, periods, underscores and tildes";
            return Err(AuthApiError::invalid(message));
        }
        let method = ChallengeMethod::parse(method)
            .ok_or_else(|| AuthApiError::invalid("unsupported code_challenge method: use s256 or plain"))?;
        Ok(Some(Self { method, challenge: challenge.to_owned() }))
    }
}

/// Whether the verifier belongs to a stored challenge.
///
/// # Errors
/// `bad_code_verifier`.
pub(crate) fn verify_challenge(method: &str, challenge: &str, verifier: &str) -> Result<(), AuthApiError> {
    let bad = |message| AuthApiError::bad_request("bad_code_verifier", message);
    let made = match ChallengeMethod::parse(method) {
        Some(ChallengeMethod::S256) => URL_SAFE_NO_PAD.encode(Sha256::digest(verifier)),
        Some(ChallengeMethod::Plain) => verifier.to_owned(),
        None => return Err(bad("code challenge method not supported")),
    };
    if constant_time_eq(made.as_bytes(), challenge.as_bytes()) {
        Ok(())
    } else {
        Err(bad("code challenge does not match previously saved code verifier"))
    }
}

#[cfg(test)]
mod tests {
    use rstest::rstest;

    use super::*;

    #[test]
    fn hashes_are_those_of_gotrue() {
        // printf 'ann@example.com123456' | sha224sum
        let hash = "14430f867bf6cd519848fe112e9b20dfa81c634f830777807737dc24";
        assert_eq!(token_hash("ann@example.com", "123456"), hash);
    }

    #[rstest]
    #[case("abc", "abc", true)]
    #[case("pkce_abc", "abc", true)]
    #[case("pkce_abc", "pkce_abc", true)]
    #[case("abc", "pkce_abc", false)]
    #[case("abc", "abd", false)]
    #[case("abc", "", false)]
    fn hashes_match_with_or_without_the_prefix(
        #[case] stored: &str,
        #[case] given: &str,
        #[case] same: bool,
    ) {
        assert_eq!(is_same_hash(stored, given), same);
    }

    #[test]
    fn codes_have_all_their_digits() {
        let codes: Vec<_> = (0..200).map(|_| new_code(6)).collect();
        assert!(codes.iter().all(|code| code.len() == 6 && code.bytes().all(|byte| byte.is_ascii_digit())));
        assert!(codes.iter().any(|code| code.starts_with('0')), "leading zeros are digits too");
        assert_eq!(new_code(10).len(), 10);
    }

    #[test]
    fn validity_and_frequency_have_their_edges() {
        let sent = DateTime::from_timestamp(1_000, 0).unwrap();
        let at = |seconds| DateTime::from_timestamp(seconds, 0).unwrap();
        let minute = Duration::from_secs(60);
        assert!(!is_expired(sent, minute, at(1_060)));
        assert!(is_expired(sent, minute, at(1_061)));
        assert_eq!(wait_before_next(None, minute, at(1_000)), None);
        assert_eq!(wait_before_next(Some(sent), minute, at(1_010)), Some(Duration::from_secs(50)));
        assert_eq!(wait_before_next(Some(sent), minute, at(1_060)), None);
    }

    const CHALLENGE: &str = "E9Melhoa2OwvFrEMTJguCHaoeK1t8URWbuGJSstw-cM";

    #[test]
    fn the_example_of_rfc_7636_verifies() {
        verify_challenge("s256", CHALLENGE, "dBjftJeZ4CVP-mB92K27uhbUJU1p1r_wW1gFWFOEjXk").unwrap();
        verify_challenge("plain", CHALLENGE, CHALLENGE).unwrap();
        for (method, verifier) in [("s256", CHALLENGE), ("plain", "other"), ("none", CHALLENGE)] {
            assert_eq!(
                verify_challenge(method, CHALLENGE, verifier).unwrap_err().code(),
                "bad_code_verifier"
            );
        }
    }

    #[rstest]
    #[case("", "", Ok(false))]
    #[case("S256", CHALLENGE, Ok(true))]
    #[case("plain", CHALLENGE, Ok(true))]
    #[case("s256", "", Err("PKCE flow requires code_challenge_method and code_challenge"))]
    #[case("", CHALLENGE, Err("PKCE flow requires code_challenge_method and code_challenge"))]
    #[case("s256", "short", Err("code challenge has to be between 43 and 128 characters"))]
    #[case(
        "s256",
        "E9Melhoa2OwvFrEMTJguCHaoeK1t8URWbuGJSstw+cM",
        Err(
            "code challenge can only contain alphanumeric characters, hyphens, periods, underscores and tildes"
        )
    )]
    #[case("s512", CHALLENGE, Err("unsupported code_challenge method: use s256 or plain"))]
    fn challenges(#[case] method: &str, #[case] challenge: &str, #[case] expected: Result<bool, &str>) {
        let parsed = CodeChallenge::parse(method, challenge);
        let parsed = parsed.as_ref().map(Option::is_some).map_err(AuthApiError::message);
        assert_eq!(parsed, expected);
    }
}
