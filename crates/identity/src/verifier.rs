//! Keys and tokens in, claims out.

use std::collections::HashSet;
use std::sync::Arc;

use constant_time_eq::constant_time_eq;
use jsonwebtoken::errors::ErrorKind;
use jsonwebtoken::{Algorithm, DecodingKey, Validation, decode, decode_header};
use longhouse_database::Claims;
use secrecy::{ExposeSecret, SecretString};
use serde_json::{Map, Value};

use crate::{AuthError, ProjectKeys};

/// Longer tokens are refused unread.
const MAX_TOKEN: usize = 8 * 1024;
/// Clocks that may differ, in seconds; PostgREST allows the same.
const LEEWAY: u64 = 30;

/// Decides which claims a key or token stands for. Cheap to clone.
#[derive(Clone)]
pub struct Verifier {
    rules: Arc<Rules>,
}

struct Rules {
    key: DecodingKey,
    validation: Validation,
    roles: HashSet<String>,
    /// Keys that are compared, not decoded: opaque ones, and configured ones that another secret signed.
    fixed: Vec<(SecretString, &'static str)>,
}

impl Verifier {
    /// A verifier of this project's keys and of tokens that its secret signed.
    pub fn new(keys: &ProjectKeys) -> Self {
        // The algorithm is ours to choose, never the token's.
        let mut validation = Validation::new(Algorithm::HS256);
        validation.leeway = LEEWAY;
        validation.validate_nbf = true;
        validation.set_required_spec_claims(&["exp"]);
        // Checked below: an absent audience is fine, as on the project's own keys.
        validation.validate_aud = false;
        Self {
            rules: Arc::new(Rules {
                key: DecodingKey::from_secret(keys.jwt_secret.expose_secret().as_bytes()),
                validation,
                roles: ["anon", "authenticated", "service_role"].map(str::to_owned).into(),
                fixed: vec![
                    (keys.publishable_key.clone(), "anon"),
                    (keys.anon_key.clone(), "anon"),
                    (keys.secret_key.clone(), "service_role"),
                    (keys.service_role_key.clone(), "service_role"),
                ],
            }),
        }
    }

    /// Also accepts tokens of these roles, which must exist in the database and be granted to `authenticator`.
    #[must_use]
    pub fn with_roles(self, roles: impl IntoIterator<Item = String>) -> Self {
        let mut rules = Arc::unwrap_or_clone(self.rules);
        rules.roles.extend(roles);
        Self { rules: Arc::new(rules) }
    }

    /// The claims that a key or token stands for.
    ///
    /// # Errors
    /// What is wrong with it, for the client to act on.
    pub fn verify(&self, token: &str) -> Result<Claims, AuthError> {
        if token.len() > MAX_TOKEN {
            return Err(AuthError::Malformed);
        }
        if let Some(role) = self.fixed_role(token) {
            return Ok(Claims::new(role, fixed_claims(token)));
        }
        if token.starts_with("sb_") {
            return Err(AuthError::UnknownKey);
        }
        let header = decode_header(token).map_err(|error| match error.kind() {
            // An `alg` that the library does not know, such as `none`, fails as JSON.
            ErrorKind::Json(_) if has_header(token) => AuthError::Algorithm,
            _ => AuthError::Malformed,
        })?;
        if header.alg != Algorithm::HS256 {
            return Err(AuthError::Algorithm);
        }
        let claims = decode::<Map<String, Value>>(token, &self.rules.key, &self.rules.validation)
            .map_err(|error| refusal(error.kind()))?
            .claims;
        check_audience(&claims)?;
        let role = claims.get("role").and_then(Value::as_str).filter(|role| self.rules.roles.contains(*role));
        let role = role.ok_or(AuthError::Role)?.to_owned();
        Ok(Claims::new(&role, claims))
    }

    /// Compares with every fixed key, in constant time each, so that timing tells nothing about any of them.
    fn fixed_role(&self, token: &str) -> Option<&'static str> {
        let mut found = None;
        for (key, role) in &self.rules.fixed {
            if constant_time_eq(key.expose_secret().as_bytes(), token.as_bytes()) {
                found = Some(*role);
            }
        }
        found
    }
}

impl Clone for Rules {
    fn clone(&self) -> Self {
        Self {
            key: self.key.clone(),
            validation: self.validation.clone(),
            roles: self.roles.clone(),
            fixed: self.fixed.clone(),
        }
    }
}

/// Policies may look at `iss` of the anon key, so a fixed key that is a JWT keeps its claims. The key was
/// compared as a whole: nothing in it can be forged.
fn fixed_claims(token: &str) -> Map<String, Value> {
    jsonwebtoken::dangerous::insecure_decode::<Map<String, Value>>(token)
        .map(|token| token.claims)
        .unwrap_or_default()
}

fn has_header(token: &str) -> bool {
    use base64::Engine;
    let head = token.split('.').next().unwrap_or_default();
    base64::engine::general_purpose::URL_SAFE_NO_PAD
        .decode(head)
        .ok()
        .and_then(|json| serde_json::from_slice::<Map<String, Value>>(&json).ok())
        .is_some_and(|header| header.contains_key("alg"))
}

fn refusal(kind: &ErrorKind) -> AuthError {
    match kind {
        ErrorKind::InvalidSignature => AuthError::Signature,
        ErrorKind::InvalidAlgorithm | ErrorKind::InvalidAlgorithmName => AuthError::Algorithm,
        ErrorKind::ExpiredSignature => AuthError::Expired,
        ErrorKind::ImmatureSignature => AuthError::NotYetValid,
        ErrorKind::MissingRequiredClaim(_) => AuthError::NoExpiry,
        _ => AuthError::Malformed,
    }
}

fn check_audience(claims: &Map<String, Value>) -> Result<(), AuthError> {
    let ours = |audience: &Value| audience.as_str() == Some("authenticated");
    let accepted = match claims.get("aud") {
        None | Some(Value::Null) => true,
        Some(Value::Array(audiences)) => audiences.iter().any(ours),
        // Sessions of accounts that were made without an audience carry an empty one.
        Some(Value::String(audience)) if audience.is_empty() => true,
        Some(audience) => ours(audience),
    };
    if accepted { Ok(()) } else { Err(AuthError::Audience) }
}
