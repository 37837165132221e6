//! Signs access tokens with the project's current key.

mod import;
mod keys;
mod lifecycle;
mod seal;

pub use keys::{KeyStatus, Rotated, SigningAlgorithm, SigningKey};
pub(crate) use keys::{PUBLISHED_SET_AGE, Stored};
pub use lifecycle::Refusal;

use jsonwebtoken::{Header, encode};
use serde_json::{Map, Value};

use super::error::AuthApiError;
use crate::{KeyRing, ProjectKeys};

/// The keys that tokens are signed with. Cheap to clone.
#[derive(Clone)]
pub struct Signer {
    ring: KeyRing,
}

impl Signer {
    /// Signs with the project's secret (HS256).
    pub fn new(keys: &ProjectKeys) -> Self {
        Self::of(&KeyRing::new(keys))
    }

    /// Signs with the ring's current key: the project's secret until another is put to use.
    pub fn of(ring: &KeyRing) -> Self {
        Self { ring: ring.clone() }
    }

    /// As [`KeyRing::authenticate`].
    pub(crate) fn authenticate(&self, message: &[u8]) -> [u8; 32] {
        self.ring.authenticate(message)
    }

    /// A signed token with these claims.
    pub(crate) fn sign(&self, claims: &Map<String, Value>) -> Result<String, AuthApiError> {
        let snapshot = self.ring.snapshot();
        let (kid, algorithm, key) = match &snapshot.signing {
            Some((kid, algorithm, key)) => (Some(kid.to_string()), *algorithm, key),
            None => (None, jsonwebtoken::Algorithm::HS256, self.ring.secret_key()),
        };
        let header = Header { kid, ..Header::new(algorithm) };
        encode(&header, claims, key).map_err(AuthApiError::internal)
    }

    /// Public keys, as RFC 7517 has them. A shared secret is not among them.
    pub(crate) fn jwks(&self) -> Value {
        serde_json::json!({ "keys": self.ring.snapshot().published })
    }
}
