//! Keys and tokens in, claims out.

use std::collections::HashSet;
use std::sync::Arc;
use std::time::{SystemTime, UNIX_EPOCH};

use axum::extract::{Request, State};
use axum::middleware::Next;
use axum::response::Response;
use constant_time_eq::constant_time_eq;
use http::HeaderMap;
use jsonwebtoken::errors::ErrorKind;
use jsonwebtoken::{Algorithm, Validation, decode, decode_header};
use longhouse_database::Claims;
use moka::sync::Cache;
use secrecy::{ExposeSecret, SecretString};
use serde_json::{Map, Value};

use crate::api_keys::KnownApiKey;
use crate::key_ring::Snapshot;
use crate::{AuthError, KeyRing, ProjectKeys};

/// Longer tokens are refused unread.
const MAX_TOKEN: usize = 16 * 1024;
/// Clocks that may differ, in seconds; PostgREST allows the same.
const LEEWAY: u64 = 30;
/// Bytes of claims that are remembered.
const MOST_REMEMBERED: u64 = 32 * 1024 * 1024;
/// What a remembered token takes besides its claims.
const OVERHEAD: usize = 160;

/// Roles of the project's own servers.
const SERVER_ROLES: [&str; 2] = ["service_role", "supabase_admin"];

/// What a token has to say about its end.
#[derive(Debug, Clone, Copy)]
enum Expiry {
    Required,
    IfPresent,
}

/// Decides which claims a key or token stands for. Cheap to clone.
///
/// A verified token is remembered (by its SHA-256) until it expires or the keys change, so that its signature is
/// checked once.
#[derive(Clone)]
pub struct Verifier {
    ring: KeyRing,
    rules: Arc<Rules>,
    verified: Cache<[u8; 32], Arc<Verified>>,
}

#[derive(Clone)]
struct Rules {
    roles: HashSet<String>,
    /// Keys that are compared, not decoded: opaque ones, and configured ones that another secret signed.
    fixed: Vec<(SecretString, Claims)>,
}

struct Verified {
    claims: Claims,
    expires: u64,
    /// Of the ring's snapshot that it was verified with.
    epoch: u64,
}

impl Verifier {
    /// A verifier of this project's keys and of tokens that its secret signed.
    pub fn new(keys: &ProjectKeys) -> Self {
        Self::of(keys, &KeyRing::new(keys))
    }

    /// A verifier that also knows the ring's signing keys and API keys.
    pub fn of(keys: &ProjectKeys, ring: &KeyRing) -> Self {
        let fixed = [
            (&keys.publishable_key, "anon"),
            (&keys.anon_key, "anon"),
            (&keys.secret_key, "service_role"),
            (&keys.service_role_key, "service_role"),
        ];
        let rules = Rules {
            roles: ["anon", "authenticated", "service_role"].map(str::to_owned).into(),
            // An empty key would be everybody's.
            fixed: fixed
                .into_iter()
                .filter(|(key, _)| !key.expose_secret().is_empty())
                .map(|(key, role)| (key.clone(), Claims::new(role, fixed_claims(key.expose_secret()))))
                .collect(),
        };
        Self { ring: ring.clone(), rules: Arc::new(rules), verified: remembering() }
    }

    /// Also accepts tokens of these roles, which must exist in the database and be granted to `authenticator`.
    #[must_use]
    pub fn with_roles(self, roles: impl IntoIterator<Item = String>) -> Self {
        let mut rules = Arc::unwrap_or_clone(self.rules);
        rules.roles.extend(roles);
        Self { ring: self.ring, rules: Arc::new(rules), verified: remembering() }
    }

    /// The claims that a key or token stands for.
    ///
    /// # Errors
    /// What is wrong with it, for the client to act on.
    pub fn verify(&self, token: &str) -> Result<Claims, AuthError> {
        if token.len() > MAX_TOKEN {
            return Err(AuthError::Malformed);
        }
        if let Some(claims) = self.fixed(token) {
            return Ok(claims.clone());
        }
        let snapshot = self.ring.snapshot();
        if token.starts_with("sb_") {
            let kind = KnownApiKey::find(&snapshot.api_keys, token).ok_or(AuthError::UnknownKey)?;
            return Ok(Claims::new(kind.role(), Map::new()));
        }
        let hash = hash(token);
        if let Some(verified) = self.verified.get(&hash) {
            if verified.epoch == snapshot.epoch && now() <= verified.expires.saturating_add(LEEWAY) {
                return Ok(verified.claims.clone());
            }
            self.verified.invalidate(&hash);
        }
        let (claims, expires) = self.decode(token, &snapshot)?;
        let verified = Verified { claims: claims.clone(), expires, epoch: snapshot.epoch };
        self.verified.insert(hash, Arc::new(verified));
        Ok(claims)
    }

    /// As [`Self::verify`], for what only the project's own servers may ask: also accepts `supabase_admin`, and tokens
    /// of the two server roles without `exp`, as Supabase Auth does. Whoever signed those holds the project's key and
    /// could sign another any time; what ends them is to revoke the key. Nothing of them is remembered.
    pub(crate) fn verify_server(&self, token: &str) -> Result<Claims, AuthError> {
        let refusal = match self.verify(token) {
            Err(refusal @ (AuthError::NoExpiry | AuthError::Role)) => refusal,
            verdict => return verdict,
        };
        let claims = self.authentic(token, &self.ring.snapshot(), Expiry::IfPresent)?;
        let named = claims.get("role").and_then(Value::as_str);
        match SERVER_ROLES.into_iter().find(|role| named == Some(role)) {
            Some(role) => Ok(Claims::new(role, claims)),
            None => Err(refusal),
        }
    }

    fn decode(&self, token: &str, snapshot: &Snapshot) -> Result<(Claims, u64), AuthError> {
        let claims = self.authentic(token, snapshot, Expiry::Required)?;
        let role = claims.get("role").and_then(Value::as_str).filter(|role| self.rules.roles.contains(*role));
        let role = role.ok_or(AuthError::Role)?.to_owned();
        let expires = claims.get("exp").and_then(Value::as_f64).ok_or(AuthError::NoExpiry)?;
        // Whole seconds; negative and endless ones end at the bounds of the type.
        Ok((Claims::new(&role, claims), expires as u64))
    }

    /// The claims of a token that a key of this project signed, for this project, for now.
    fn authentic(
        &self,
        token: &str,
        snapshot: &Snapshot,
        expiry: Expiry,
    ) -> Result<Map<String, Value>, AuthError> {
        let header = decode_header(token).map_err(|error| match error.kind() {
            // An `alg` that the library does not know, such as `none`, fails as JSON.
            ErrorKind::Json(_) if has_header(token) => AuthError::Algorithm,
            _ => AuthError::Malformed,
        })?;
        let named = header.kid.as_deref().and_then(|kid| snapshot.key(kid));
        let key = match (named, header.alg, &header.kid) {
            (Some(key), _, _) => key,
            // The secret has no name; another Supabase calls its own by one all the same.
            (None, Algorithm::HS256, _) => self.ring.secret_verifying().ok_or(AuthError::Signature)?,
            (None, Algorithm::ES256 | Algorithm::RS256, Some(_)) => return Err(AuthError::Signature),
            (None, _, _) => return Err(AuthError::Algorithm),
        };
        // The algorithm is the key's, never the token's choice.
        if header.alg != key.algorithm {
            return Err(AuthError::Algorithm);
        }
        let claims = decode::<Map<String, Value>>(token, &key.key, &validation(key.algorithm, expiry))
            .map_err(|error| refusal(error.kind()))?
            .claims;
        check_audience(&claims)?;
        Ok(claims)
    }

    /// Reads the tables of keys (and fetches a hosted project's) if these headers name a key that is not known yet,
    /// waiting up to a second. Without this, a key that was made elsewhere is known within three seconds.
    pub async fn refresh_for(&self, headers: &HeaderMap) {
        let lacks = || self.ring.lacks(headers, |token| self.knows(token));
        if lacks() {
            self.ring.look_again(lacks).await;
        }
    }

    /// Whether [`Self::verify`] can answer without a key that is not here: this runs before every request, so nothing
    /// is decoded.
    fn knows(&self, token: &str) -> bool {
        let snapshot = self.ring.snapshot();
        if token.starts_with("sb_") {
            return self.fixed(token).is_some() || KnownApiKey::find(&snapshot.api_keys, token).is_some();
        }
        self.fixed(token).is_some()
            || token.len() <= MAX_TOKEN
                && self.verified.get(&hash(token)).is_some_and(|verified| verified.epoch == snapshot.epoch)
    }

    /// Compares with every fixed key, in constant time each, so that timing tells nothing about any of them.
    fn fixed(&self, token: &str) -> Option<&Claims> {
        let mut found = None;
        for (key, claims) in &self.rules.fixed {
            if constant_time_eq(key.expose_secret().as_bytes(), token.as_bytes()) {
                found = Some(claims);
            }
        }
        found
    }
}

/// Middleware for whatever verifies: [`Verifier::refresh_for`], then the request goes on.
///
/// ```
/// use axum::{Router, middleware::from_fn_with_state};
/// use longhouse_identity::{ProjectKeys, Verifier, refresh_keys};
///
/// let verifier = Verifier::new(&ProjectKeys::generate());
/// let router: Router = Router::new().layer(from_fn_with_state(verifier, refresh_keys));
/// # let _ = router;
/// ```
pub async fn refresh_keys(State(verifier): State<Verifier>, request: Request, next: Next) -> Response {
    verifier.refresh_for(request.headers()).await;
    next.run(request).await
}

fn remembering() -> Cache<[u8; 32], Arc<Verified>> {
    let weigh = |_: &[u8; 32], verified: &Arc<Verified>| (verified.claims.json().len() + OVERHEAD) as u32;
    Cache::builder().max_capacity(MOST_REMEMBERED).weigher(weigh).build()
}

fn hash(token: &str) -> [u8; 32] {
    let digest = aws_lc_rs::digest::digest(&aws_lc_rs::digest::SHA256, token.as_bytes());
    digest.as_ref().try_into().expect("SHA-256 has 32 bytes")
}

fn now() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |elapsed| elapsed.as_secs())
}

fn validation(algorithm: Algorithm, expiry: Expiry) -> Validation {
    let mut validation = Validation::new(algorithm);
    validation.leeway = LEEWAY;
    validation.validate_nbf = true;
    validation.set_required_spec_claims::<&str>(match expiry {
        Expiry::Required => &["exp"],
        Expiry::IfPresent => &[],
    });
    // Checked apart: an absent audience is fine, as on the project's own keys.
    validation.validate_aud = false;
    validation
}

/// Policies may look at `iss` of the anon key, so a fixed key that is a JWT keeps its claims. The key is
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
