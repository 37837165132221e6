//! Public keys as RFC 7517 writes them, and what a token may be verified with.

use std::sync::Arc;

use jsonwebtoken::jwk::{AlgorithmParameters, EllipticCurve, Jwk, KeyAlgorithm};
use jsonwebtoken::{Algorithm, DecodingKey};
use serde_json::Value;

/// More keys than any project has; the rest of a longer set is not read.
const MOST_KEYS: usize = 32;

/// A key with the one algorithm that it may be used with: a token never chooses.
#[derive(Clone)]
pub(crate) struct VerifyingKey {
    pub(crate) kid: String,
    pub(crate) algorithm: Algorithm,
    pub(crate) key: Arc<DecodingKey>,
}

impl VerifyingKey {
    /// A shared secret; `None` if it is empty.
    pub(crate) fn secret(kid: &str, secret: &[u8]) -> Option<Self> {
        let key = Arc::new(DecodingKey::from_secret(secret));
        (!secret.is_empty()).then(|| Self { kid: kid.to_owned(), algorithm: Algorithm::HS256, key })
    }

    /// A public key. `None` for kinds that nobody here signs with, keys without a name, and secrets: a set of
    /// public keys that holds a shared secret has published it.
    pub(crate) fn public(jwk: &Jwk) -> Option<Self> {
        let algorithm = match &jwk.algorithm {
            AlgorithmParameters::EllipticCurve(curve) if curve.curve == EllipticCurve::P256 => {
                Algorithm::ES256
            }
            AlgorithmParameters::RSA(_) => Algorithm::RS256,
            _ => return None,
        };
        let stated = match jwk.common.key_algorithm {
            None => true,
            Some(KeyAlgorithm::ES256) => algorithm == Algorithm::ES256,
            Some(KeyAlgorithm::RS256) => algorithm == Algorithm::RS256,
            Some(_) => false,
        };
        let kid = jwk.common.key_id.clone().filter(|kid| !kid.is_empty())?;
        let key = Arc::new(DecodingKey::from_jwk(jwk).ok()?);
        stated.then_some(Self { kid, algorithm, key })
    }
}

/// The keys of a set that can verify tokens; those of other kinds are passed over.
///
/// # Errors
/// The document is not a set of keys.
pub(crate) fn read_set(document: &Value) -> Result<Vec<VerifyingKey>, &'static str> {
    let keys = document.get("keys").and_then(Value::as_array).ok_or("it is not a JSON Web Key Set")?;
    let read = |key: &Value| serde_json::from_value(key.clone()).ok();
    Ok(keys.iter().take(MOST_KEYS).filter_map(read).filter_map(|jwk| VerifyingKey::public(&jwk)).collect())
}

#[cfg(test)]
mod tests {
    use rstest::rstest;
    use serde_json::json;

    use super::*;

    const X: &str = "f83OJ3D2xF1Bg8vub9tLe1gHMzV76e8Tus9uPHvRVEU";
    const Y: &str = "x_FEzRu9m36HLN_tue659LNpXW6pCyStikYjKIWI5a0";

    #[rstest]
    #[case::usual(json!({ "kty": "EC", "crv": "P-256", "x": X, "y": Y, "kid": "a", "alg": "ES256" }), Some(Algorithm::ES256))]
    #[case::without_algorithm(json!({ "kty": "EC", "crv": "P-256", "x": X, "y": Y, "kid": "a" }), Some(Algorithm::ES256))]
    #[case::rsa(json!({ "kty": "RSA", "n": "sXch", "e": "AQAB", "kid": "r", "alg": "RS256" }), Some(Algorithm::RS256))]
    #[case::nameless(json!({ "kty": "EC", "crv": "P-256", "x": X, "y": Y }), None)]
    #[case::other_curve(json!({ "kty": "EC", "crv": "P-384", "x": X, "y": Y, "kid": "a" }), None)]
    #[case::published_secret(json!({ "kty": "oct", "k": "c2VjcmV0", "kid": "a", "alg": "HS256" }), None)]
    #[case::confused(json!({ "kty": "EC", "crv": "P-256", "x": X, "y": Y, "kid": "a", "alg": "HS256" }), None)]
    #[case::weak_padding(json!({ "kty": "RSA", "n": "sXch", "e": "AQAB", "kid": "r", "alg": "RSA1_5" }), None)]
    #[case::nonsense(json!({ "kty": "??" }), None)]
    fn only_keys_that_verify_here_are_read(#[case] jwk: Value, #[case] expected: Option<Algorithm>) {
        let keys = read_set(&json!({ "keys": [jwk] })).unwrap();
        assert_eq!(keys.first().map(|key| key.algorithm), expected);
    }

    #[test]
    fn what_is_no_set_is_refused_and_a_long_one_cut() {
        assert!(read_set(&json!({ "error": "nope" })).is_err());
        let key = json!({ "kty": "RSA", "n": "sXch", "e": "AQAB", "kid": "r" });
        assert_eq!(read_set(&json!({ "keys": vec![key; 100] })).unwrap().len(), MOST_KEYS);
    }

    #[test]
    fn an_empty_secret_is_no_key() {
        assert!(VerifyingKey::secret("", b"").is_none());
        assert!(VerifyingKey::secret("", b"x").is_some());
    }
}
