//! Signs access tokens with the project's current key.

use std::sync::Arc;

use jsonwebtoken::{Algorithm, EncodingKey, Header, encode};
use secrecy::ExposeSecret;
use serde_json::{Map, Value, json};

use super::error::AuthApiError;
use crate::ProjectKeys;

/// The keys that tokens are signed with. Cheap to clone.
#[derive(Clone)]
pub struct Signer {
    key: Arc<EncodingKey>,
}

impl Signer {
    /// Signs with the project's secret (HS256).
    pub fn new(keys: &ProjectKeys) -> Self {
        Self { key: Arc::new(EncodingKey::from_secret(keys.jwt_secret.expose_secret().as_bytes())) }
    }

    /// A signed token with these claims.
    pub(crate) fn sign(&self, claims: &Map<String, Value>) -> Result<String, AuthApiError> {
        encode(&Header::new(Algorithm::HS256), claims, &self.key).map_err(AuthApiError::internal)
    }

    /// Public keys, as RFC 7517 has them. A shared secret is not among them.
    pub(crate) fn jwks(&self) -> Value {
        json!({ "keys": [] })
    }
}
