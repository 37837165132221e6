//! Registered applications and how they prove themselves.

use std::time::{SystemTime, UNIX_EPOCH};

use axum::http::HeaderMap;
use axum::http::header::AUTHORIZATION;
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use percent_encoding::percent_decode_str;

use super::keys::verify_es256;
use super::token::Refusal;
use super::{Shared, site::Site};

/// Apple's own name, which client secrets must be meant for.
const APPLE: &str = "https://appleid.apple.com";
/// Apple accepts client secrets for six months at most, in seconds.
const LONGEST: i64 = 15_777_000;

/// An application.
#[derive(Debug, Clone)]
pub struct Client {
    /// Its id.
    pub id: String,
    /// What it proves itself with; none: a public client.
    pub secret: Option<Secret>,
    /// Where it may be called back, compared byte by byte.
    pub redirect_uris: Vec<String>,
}

/// What an application proves itself with.
#[derive(Debug, Clone)]
pub enum Secret {
    /// A shared secret.
    Shared(String),
    /// Apple's way: a token that the application signs.
    Apple {
        /// Of the developer account.
        team_id: String,
        /// Of the key.
        key_id: String,
        /// The public key: an uncompressed point on P-256, 65 bytes.
        public_key: Vec<u8>,
    },
}

impl Client {
    /// With a shared secret.
    #[must_use]
    pub fn new(id: &str, secret: &str, redirect_uri: &str) -> Self {
        let secret = Some(Secret::Shared(secret.into()));
        Self { id: id.into(), secret, redirect_uris: vec![redirect_uri.into()] }
    }
}

/// The application that sent a token request, if it proved itself in exactly one way (RFC 6749 §2.3).
pub(super) fn authenticate<'a>(
    shared: &'a Shared,
    site: &Site,
    headers: &HeaderMap,
    form: &dyn Fn(&str) -> Option<String>,
) -> Result<&'a Client, Refusal> {
    let invalid = |message| Refusal::new(401, "invalid_client", message);
    let basic = match headers.get(AUTHORIZATION) {
        None => None,
        Some(value) => {
            let text = value.to_str().ok().and_then(|text| text.strip_prefix("Basic "));
            Some(text.and_then(credentials).ok_or_else(|| invalid("the Authorization header is malformed"))?)
        }
    };
    let (id, secret) = match (basic, form("client_secret")) {
        (Some(_), Some(_)) => {
            return Err(Refusal::new(400, "invalid_request", "the client proves itself twice"));
        }
        (Some((id, secret)), None) => {
            if form("client_id").is_some_and(|other| other != id) {
                return Err(Refusal::new(400, "invalid_request", "two different client ids"));
            }
            if !site.takes_basic() {
                return Err(invalid("this site takes client_secret in the body only"));
            }
            (id, Some(secret))
        }
        (None, secret) => (form("client_id").ok_or_else(|| invalid("client_id is missing"))?, secret),
    };
    let client = shared.client(&id).ok_or_else(|| invalid("no such client"))?;
    match (&client.secret, secret) {
        (None, None) => Ok(client),
        (None, Some(_)) => Err(invalid("a public client has no secret")),
        (Some(_), None) => Err(invalid("client_secret is missing")),
        (Some(Secret::Shared(known)), Some(given)) if *known == given => Ok(client),
        (Some(Secret::Apple { team_id, key_id, public_key }), Some(given)) => {
            apple(&id, team_id, key_id, public_key, &given).map(|()| client).map_err(invalid)
        }
        _ => Err(invalid("client_secret is wrong")),
    }
}

/// `id:secret`, each form-encoded, in base64.
fn credentials(encoded: &str) -> Option<(String, String)> {
    let decoded = String::from_utf8(STANDARD.decode(encoded).ok()?).ok()?;
    let (id, secret) = decoded.split_once(':')?;
    let decode = |part: &str| {
        percent_decode_str(&part.replace('+', " ")).decode_utf8().ok().map(std::borrow::Cow::into_owned)
    };
    Some((decode(id)?, decode(secret)?))
}

fn apple(id: &str, team_id: &str, key_id: &str, public_key: &[u8], token: &str) -> Result<(), &'static str> {
    let (header, claims) =
        verify_es256(token, public_key).ok_or("client_secret is not signed with the key")?;
    let now = SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |time| time.as_secs().cast_signed());
    let time = |name: &str| claims[name].as_i64().unwrap_or_default();
    let (issued, expires) = (time("iat"), time("exp"));
    if header["kid"] != key_id || claims["iss"] != team_id || claims["sub"] != id || claims["aud"] != APPLE {
        return Err("client_secret is not for this team, key, client and Apple");
    }
    if issued > now + 5 || expires <= now || expires - issued > LONGEST {
        return Err("client_secret is not valid now, or for too long");
    }
    Ok(())
}
