//! Apple's client secret: a token that one signs oneself.

use jsonwebtoken::{Algorithm, EncodingKey, Header, encode};
use secrecy::{ExposeSecret, SecretString};
use serde::Deserialize;
use serde_json::json;

/// Whom the token is for.
const AUDIENCE: &str = "https://appleid.apple.com";
/// Life of a token that is made for one request, in seconds. Apple allows up to six months.
const LIFE: i64 = 300;

/// The key of an Apple developer account, as the setting `secret` holds it: JSON with these fields.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Key {
    team_id: String,
    key_id: String,
    /// PEM, as Apple hands out (`AuthKey_….p8`).
    private_key: String,
}

/// The client secret for a request at `now` (seconds since 1970): as configured where that is a finished token, else
/// signed with the configured key.
pub(super) fn client_secret(
    client_id: &str,
    secret: &SecretString,
    now: i64,
) -> Result<SecretString, String> {
    let configured = secret.expose_secret().trim();
    if !configured.starts_with('{') {
        return Ok(secret.clone());
    }
    let key: Key = serde_json::from_str(configured).map_err(|_| {
        "the secret of provider apple needs the fields team_id, key_id and private_key".to_owned()
    })?;
    let signing = EncodingKey::from_ec_pem(key.private_key.as_bytes()).map_err(|_| {
        "private_key in the secret of provider apple is no P-256 key in PEM: paste the .p8 file".to_owned()
    })?;
    let header = Header { kid: Some(key.key_id), ..Header::new(Algorithm::ES256) };
    let claims = json!({
        "iss": key.team_id, "sub": client_id, "aud": AUDIENCE, "iat": now, "exp": now + LIFE,
    });
    encode(&header, &claims, &signing).map(SecretString::from).map_err(|error| error.to_string())
}
