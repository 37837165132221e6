//! Whose token it is. The binary passes in who verifies: services of one layer do not know each other.

use std::sync::Arc;

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use longhouse_database::Claims;
use serde::Deserialize;

/// Verifies a key or token.
pub type Verify = Arc<dyn Fn(&str) -> Result<Claims, TokenError> + Send + Sync>;

/// Why a token is refused; each message is Supabase Realtime's.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum TokenError {
    /// Not a token at all.
    #[error("The token provided is not a valid JWT")]
    Malformed,
    /// Signed by somebody else.
    #[error("Failed to validate JWT signature")]
    Signature,
    /// Over.
    #[error("Token has expired {0} seconds ago")]
    Expired(u64),
    /// It says too little.
    #[error("Fields `role` and `exp` are required in JWT")]
    MissingClaims,
    /// Anything else.
    #[error("{0}")]
    Refused(String),
}

impl TokenError {
    /// The name under which Supabase Realtime reports it.
    pub(crate) fn code(&self) -> &'static str {
        match self {
            Self::Malformed => "MalformedJWT",
            Self::Signature => "JwtSignatureError",
            Self::Expired(_) | Self::MissingClaims => "InvalidJWTToken",
            Self::Refused(_) => "Unauthorized",
        }
    }

    /// An expired token, with how long ago that was.
    pub fn expired(token: &str) -> Self {
        Self::Expired(expiry_of_token(token).map_or(0, |expiry| now().saturating_sub(expiry)))
    }
}

/// Who somebody is, and until when.
#[derive(Debug, Clone)]
pub(crate) struct Identity {
    pub(crate) claims: Arc<Claims>,
    /// Seconds since 1970; keys of the project have none.
    pub(crate) expires: Option<u64>,
}

impl Identity {
    /// Verifies a token as it arrives: some clients break it into lines.
    pub(crate) fn verify(verify: &Verify, token: &str) -> Result<Self, TokenError> {
        let token: String = token.chars().filter(|character| !character.is_whitespace()).collect();
        let claims = verify(&token)?;
        let expires = expiry(claims.json());
        match expires {
            Some(expiry) if expiry <= now() => Err(TokenError::Expired(now() - expiry)),
            expires => Ok(Self { claims: Arc::new(claims), expires }),
        }
    }
}

pub(crate) fn now() -> u64 {
    chrono::Utc::now().timestamp().try_into().unwrap_or(0)
}

#[derive(Deserialize)]
struct Expiry {
    exp: Option<f64>,
}

fn expiry(claims: &str) -> Option<u64> {
    serde_json::from_str::<Expiry>(claims).ok()?.exp.map(|exp| exp as u64)
}

fn expiry_of_token(token: &str) -> Option<u64> {
    let claims = URL_SAFE_NO_PAD.decode(token.split('.').nth(1)?).ok()?;
    expiry(std::str::from_utf8(&claims).ok()?)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn how_long_ago_a_token_expired() {
        let token = format!("e30.{}.x", URL_SAFE_NO_PAD.encode(format!(r#"{{"exp":{}.5}}"#, now() - 100)));
        let TokenError::Expired(seconds) = TokenError::expired(&token) else { panic!() };
        assert!((100..105).contains(&seconds));
        assert_eq!(TokenError::expired("nonsense"), TokenError::Expired(0));
    }

    #[test]
    fn keys_without_expiry_stay_good_and_others_do_not() {
        let verify: Verify = Arc::new(|token| {
            assert_eq!(token, "ab");
            Ok(Claims::anon())
        });
        assert_eq!(Identity::verify(&verify, " a\nb ").unwrap().expires, None);
        let over: Verify =
            Arc::new(|_| Ok(Claims::new("anon", serde_json::from_str(r#"{"exp":1}"#).unwrap())));
        assert!(matches!(Identity::verify(&over, "t"), Err(TokenError::Expired(_))));
    }
}
