//! Keys that verify tokens: a shared secret, a JWK or a set of them.

use std::fmt;

use jsonwebtoken::jwk::{AlgorithmParameters, EllipticCurve, Jwk, PublicKeyUse};
use jsonwebtoken::{Algorithm, DecodingKey};
use serde_json::Value;

use super::{SHORTEST_SECRET, SecretError};

/// One key.
pub(super) struct Key {
    id: Option<String>,
    algorithms: Vec<Algorithm>,
    key: DecodingKey,
}

impl fmt::Debug for Key {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "Key({:?}, {:?})", self.id, self.algorithms)
    }
}

impl Key {
    /// Whether a token with this header may be signed with the key. The key decides about the algorithm: a public
    /// key is never taken for a shared secret.
    pub(super) fn fits(&self, algorithm: Algorithm, id: Option<&str>) -> bool {
        self.algorithms.contains(&algorithm)
            && match (id, &self.id) {
                (Some(wanted), Some(own)) => wanted == own,
                _ => true,
            }
    }

    pub(super) fn has_signed(&self, message: &str, signature: &str, algorithm: Algorithm) -> bool {
        jsonwebtoken::crypto::verify(signature, message.as_bytes(), &self.key, algorithm).unwrap_or(false)
    }
}

/// Reads `jwt-secret` once it is decoded.
pub(super) fn parse(secret: &[u8]) -> Result<Vec<Key>, SecretError> {
    if let Ok(Value::Object(mut json)) = serde_json::from_slice(secret) {
        let set = match json.remove("keys") {
            Some(Value::Array(keys)) => Some(keys),
            Some(other) => {
                json.insert("keys".to_owned(), other);
                None
            }
            None => None,
        };
        if let Some(set) = set {
            // Sets of identity providers also hold keys for encryption and of kinds nobody knows yet.
            let keys: Vec<Key> = set.into_iter().filter_map(|key| from_jwk(key).ok()).collect();
            if keys.is_empty() {
                return Err(SecretError::NoKey("none of the set can be used".to_owned()));
            }
            return Ok(keys);
        }
        if json.contains_key("kty") {
            return from_jwk(Value::Object(json)).map(|key| vec![key]).map_err(SecretError::NoKey);
        }
    }
    if secret.len() < SHORTEST_SECRET {
        return Err(SecretError::Short);
    }
    Ok(vec![Key { id: None, algorithms: vec![Algorithm::HS256], key: DecodingKey::from_secret(secret) }])
}

fn from_jwk(json: Value) -> Result<Key, String> {
    let jwk: Jwk = serde_json::from_value(json).map_err(|error| error.to_string())?;
    if jwk.common.public_key_use == Some(PublicKeyUse::Encryption) {
        return Err("the key is for encryption".to_owned());
    }
    let possible: &[Algorithm] = match &jwk.algorithm {
        AlgorithmParameters::OctetKey(_) => &[Algorithm::HS256, Algorithm::HS384, Algorithm::HS512],
        AlgorithmParameters::RSA(_) => &[
            Algorithm::RS256,
            Algorithm::RS384,
            Algorithm::RS512,
            Algorithm::PS256,
            Algorithm::PS384,
            Algorithm::PS512,
        ],
        AlgorithmParameters::EllipticCurve(parameters) => match parameters.curve {
            EllipticCurve::P256 => &[Algorithm::ES256],
            EllipticCurve::P384 => &[Algorithm::ES384],
            _ => &[],
        },
        AlgorithmParameters::OctetKeyPair(_) => &[Algorithm::EdDSA],
        _ => &[],
    };
    let mut algorithms = possible.to_vec();
    if let Some(named) = jwk.common.key_algorithm {
        algorithms.retain(|algorithm| jsonwebtoken::jwk::KeyAlgorithm::from(*algorithm) == named);
    }
    if algorithms.is_empty() {
        return Err("its kind or algorithm is not supported".to_owned());
    }
    let key = DecodingKey::from_jwk(&jwk).map_err(|error| error.to_string())?;
    Ok(Key { id: jwk.common.key_id, algorithms, key })
}
