//! Bearer tokens: who asks, with which claims.

mod cache;
mod jspath;
mod keys;

use std::sync::Arc;

use base64::Engine as _;
use base64::alphabet::{STANDARD, URL_SAFE};
use base64::engine::{DecodePaddingMode, GeneralPurpose, GeneralPurposeConfig};
use secrecy::{ExposeSecret as _, SecretString};
use serde_json::{Map, Value};

pub use jspath::{PathError, RolePath};

use crate::error::JwtError;
use cache::Cache;
use keys::Key;

/// Clocks may differ by this many seconds.
const SKEW: i64 = 30;
/// Fewest bytes of a symmetric secret.
const SHORTEST_SECRET: usize = 32;
/// Longer tokens are verified each time, so that the cache's memory has a bound.
const LONGEST_CACHED: usize = 4096;

const LENIENT: GeneralPurposeConfig = GeneralPurposeConfig::new()
    .with_decode_padding_mode(DecodePaddingMode::Indifferent)
    .with_decode_allow_trailing_bits(true);
const BASE64: GeneralPurpose = GeneralPurpose::new(&STANDARD, LENIENT);
const BASE64_URL: GeneralPurpose = GeneralPurpose::new(&URL_SAFE, LENIENT);

/// How tokens are verified; PostgREST's name of each option stands in its line.
#[derive(Debug, Clone, Default)]
pub struct JwtConfig {
    /// `jwt-secret`: a text of at least 32 bytes, a JWK or a JWK set. Unset: tokens are refused.
    pub secret: Option<SecretString>,
    /// `jwt-secret-is-base64`
    pub secret_is_base64: bool,
    /// `jwt-aud`
    pub audience: Option<String>,
    /// `jwt-role-claim-key`
    pub role_path: RolePath,
    /// `jwt-cache-max-entries`; 0 switches the cache off.
    pub cache_entries: usize,
    /// `db-anon-role`, for requests whose token names no role.
    pub anon_role: Option<String>,
}

/// A secret that cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum SecretError {
    /// Too short to withstand guessing.
    #[error("The JWT secret must be at least 32 characters long.")]
    Short,
    /// Not what `jwt-secret-is-base64` promises.
    #[error("jwt-secret is not valid base64; correct it or set jwt-secret-is-base64 = false")]
    Base64,
    /// A key set without one usable key.
    #[error("jwt-secret holds no key that can verify tokens: {0}")]
    NoKey(String),
}

/// Who asks.
#[derive(Debug, Clone, PartialEq)]
pub struct Authenticated {
    /// Role to act as.
    pub role: String,
    /// Claims as they came; empty without a token.
    pub claims: Map<String, Value>,
    /// The claims as JSON text with `role` set to [`Self::role`], for `request.jwt.claims`.
    pub claims_json: String,
}

/// What of a verified token is looked at again at each use.
#[derive(Debug)]
struct Verified {
    expires: Option<i64>,
    not_before: Option<i64>,
    issued: Option<i64>,
    outcome: Result<Arc<Authenticated>, JwtError>,
}

impl Verified {
    fn at(&self, now: i64) -> Result<Arc<Authenticated>, JwtError> {
        if self.expires.is_some_and(|expires| now - SKEW > expires) {
            return Err(JwtError::Expired);
        }
        if self.not_before.is_some_and(|start| now + SKEW < start) {
            return Err(JwtError::NotYetValid);
        }
        if self.issued.is_some_and(|issued| now + SKEW < issued) {
            return Err(JwtError::IssuedInFuture);
        }
        self.outcome.clone()
    }
}

impl JwtConfig {
    /// Prepares keys and cache.
    ///
    /// # Errors
    /// When the secret cannot be used.
    pub fn verifier(&self) -> Result<JwtVerifier, SecretError> {
        let keys = match &self.secret {
            None => None,
            Some(secret) => {
                let secret = secret.expose_secret();
                let bytes = if self.secret_is_base64 {
                    // Both alphabets, with padding of either kind.
                    let text = secret.trim().replace('_', "/").replace('-', "+").replace('.', "=");
                    BASE64.decode(text).map_err(|_| SecretError::Base64)?
                } else {
                    secret.as_bytes().to_vec()
                };
                Some(keys::parse(&bytes)?)
            }
        };
        let anonymous = self.anon_role.as_ref().map(|role| Arc::new(authenticated(role.clone(), Map::new())));
        Ok(JwtVerifier {
            keys,
            audience: self.audience.clone(),
            role_path: self.role_path.clone(),
            anonymous,
            cache: Cache::new(self.cache_entries),
        })
    }
}

/// Verifies bearer tokens.
#[derive(Debug)]
pub struct JwtVerifier {
    keys: Option<Vec<Key>>,
    audience: Option<String>,
    role_path: RolePath,
    anonymous: Option<Arc<Authenticated>>,
    cache: Cache<Verified>,
}

impl JwtVerifier {
    /// Who a request acts as. `bearer` is what follows `Bearer ` in `Authorization` (perhaps nothing), `now` are
    /// seconds since 1970.
    ///
    /// # Errors
    /// PGRST300 to PGRST303.
    pub fn verify(&self, bearer: Option<&str>, now: i64) -> Result<Arc<Authenticated>, JwtError> {
        let Some(token) = bearer else {
            return self.anonymous.clone().ok_or(JwtError::TokenRequired);
        };
        let keys = self.keys.as_deref().ok_or(JwtError::SecretMissing)?;
        if let Some(known) = self.cache.get(token) {
            return known.at(now);
        }
        let claims = signed_claims(keys, token)?;
        let verified = self.checked(claims, now)?;
        let outcome = verified.at(now);
        if token.len() <= LONGEST_CACHED {
            self.cache.insert(token, Arc::new(verified));
        }
        outcome
    }

    /// Checks what does not depend on the time; the first thing wrong counts, in the order `exp`, `nbf`, `iat`, `aud`.
    fn checked(&self, claims: Map<String, Value>, now: i64) -> Result<Verified, JwtError> {
        let mut times = Verified {
            expires: time(&claims, "exp")?,
            not_before: None,
            issued: None,
            outcome: Err(JwtError::Claims),
        };
        let passed = |times: &Verified| match times.at(now) {
            Err(JwtError::Claims) | Ok(_) => Ok(()),
            Err(error) => Err(error),
        };
        passed(&times)?;
        times.not_before = time(&claims, "nbf")?;
        passed(&times)?;
        times.issued = time(&claims, "iat")?;
        passed(&times)?;
        times.outcome = self.audience_fits(claims.get("aud")).and_then(|()| self.acting(claims));
        Ok(times)
    }

    fn acting(&self, claims: Map<String, Value>) -> Result<Arc<Authenticated>, JwtError> {
        let claims = Value::Object(claims);
        let role = match (self.role_path.find(&claims), &self.anonymous) {
            (Some(Value::String(role)), _) => role.clone(),
            (Some(other), _) => other.to_string(),
            (None, Some(anonymous)) => anonymous.role.clone(),
            (None, None) => return Err(JwtError::TokenRequired),
        };
        let claims = match claims {
            Value::Object(claims) => claims,
            _ => Map::new(),
        };
        Ok(Arc::new(authenticated(role, claims)))
    }

    fn audience_fits(&self, claim: Option<&Value>) -> Result<(), JwtError> {
        let matches = |audience: &str| self.audience.as_ref().is_none_or(|wanted| wanted == audience);
        let fits = match claim {
            None | Some(Value::Null) => true,
            Some(Value::String(audience)) => matches(audience),
            Some(Value::Array(audiences)) => {
                let audiences: Option<Vec<&str>> = audiences.iter().map(Value::as_str).collect();
                let audiences = audiences.ok_or(JwtError::AudienceType)?;
                audiences.is_empty() || audiences.into_iter().any(matches)
            }
            Some(_) => return Err(JwtError::AudienceType),
        };
        if fits { Ok(()) } else { Err(JwtError::NotInAudience) }
    }
}

fn authenticated(role: String, claims: Map<String, Value>) -> Authenticated {
    let mut shown = claims.clone();
    shown.insert("role".to_owned(), Value::String(role.clone()));
    Authenticated { role, claims, claims_json: Value::Object(shown).to_string() }
}

/// A time claim in whole seconds; anything that is not counts as 1970, so as expired.
fn time(claims: &Map<String, Value>, name: &'static str) -> Result<Option<i64>, JwtError> {
    #[expect(clippy::cast_possible_truncation, reason = "within ±2^53")]
    let whole = |number: f64| (number.fract() == 0.0 && number.abs() < 9e15).then_some(number as i64);
    match claims.get(name) {
        None | Some(Value::Null) => Ok(None),
        Some(Value::Number(number)) => {
            Ok(Some(number.as_i64().or_else(|| number.as_f64().and_then(whole)).unwrap_or_default()))
        }
        Some(_) => Err(JwtError::ClaimNotNumber(name)),
    }
}

/// The claims of a token that one of the keys has signed.
fn signed_claims(keys: &[Key], token: &str) -> Result<Map<String, Value>, JwtError> {
    if token.is_empty() {
        return Err(JwtError::Empty);
    }
    let parts: Vec<&str> = token.split('.').collect();
    let [header, payload, signature] = parts[..] else {
        return Err(JwtError::UnexpectedParts(parts.len()));
    };
    let signed = &token[..header.len() + 1 + payload.len()];
    let header = BASE64_URL.decode(header).map_err(|_| JwtError::Crypto)?;
    let header: Map<String, Value> = serde_json::from_slice(&header).map_err(|_| JwtError::Undecodable)?;
    let algorithm = header.get("alg").and_then(Value::as_str).ok_or(JwtError::Undecodable)?;
    if algorithm == "none" {
        return Err(JwtError::Algorithm("JWT is unsecured but expected 'alg' was not 'none'".to_owned()));
    }
    let algorithm = algorithm.parse().map_err(|_| JwtError::Undecodable)?;
    let id = header.get("kid").and_then(Value::as_str);
    let mut candidates = keys.iter().filter(|key| key.fits(algorithm, id)).peekable();
    if candidates.peek().is_none() {
        return Err(JwtError::Key("No suitable key was found to decode the JWT".to_owned()));
    }
    if !candidates.any(|key| key.has_signed(signed, signature, algorithm)) {
        return Err(JwtError::Key("None of the keys was able to decode the JWT".to_owned()));
    }
    let payload = BASE64_URL.decode(payload).map_err(|_| JwtError::Crypto)?;
    serde_json::from_slice(&payload).map_err(|_| JwtError::Claims)
}

#[cfg(test)]
mod tests;
