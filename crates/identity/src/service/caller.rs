//! Who asks `/auth/v1`: the client's address, and the signed-in person behind a token.

use std::net::{IpAddr, Ipv4Addr};

use axum::extract::FromRequestParts;
use http::header::USER_AGENT;
use http::request::Parts;
use longhouse_database::Claims;
use longhouse_server::ClientIp;
use uuid::Uuid;

use super::AuthService;
use super::error::AuthApiError;
use super::store::{self, Session, User};
use crate::{AuthError, credential};

/// Longest user agent that is kept.
const MOST_USER_AGENT: usize = 512;

/// The client of a request.
#[derive(Debug, Clone)]
pub(crate) struct Caller {
    pub(crate) ip: IpAddr,
    pub(crate) user_agent: Option<String>,
}

impl Caller {
    pub(crate) fn of(parts: &Parts) -> Self {
        let user_agent = parts.headers.get(USER_AGENT).and_then(|value| value.to_str().ok());
        Self {
            ip: parts.extensions.get::<ClientIp>().map_or(Ipv4Addr::UNSPECIFIED.into(), |client| client.0),
            user_agent: user_agent.map(|text| text.chars().take(MOST_USER_AGENT).collect()),
        }
    }
}

impl<S: Send + Sync> FromRequestParts<S> for Caller {
    type Rejection = std::convert::Infallible;

    async fn from_request_parts(parts: &mut Parts, _: &S) -> Result<Self, Self::Rejection> {
        Ok(Self::of(parts))
    }
}

/// A request with an access token whose account and session still exist.
#[derive(Debug, Clone)]
pub(crate) struct SignedIn {
    pub(crate) caller: Caller,
    pub(crate) user: User,
    /// Tokens that a server signed for a person have no session.
    pub(crate) session: Option<Session>,
}

impl SignedIn {
    /// The session, for what makes no sense without one.
    pub(crate) fn session(&self) -> Result<&Session, AuthApiError> {
        let missing =
            || AuthApiError::forbidden("session_not_found", "This token has no session: sign in again");
        self.session.as_ref().ok_or_else(missing)
    }
}

impl FromRequestParts<AuthService> for SignedIn {
    type Rejection = AuthApiError;

    async fn from_request_parts(parts: &mut Parts, service: &AuthService) -> Result<Self, AuthApiError> {
        let caller = Caller::of(parts);
        let claims = claims(parts, |token| service.verifier.verify(token))?;
        let id = |name: &str| {
            claims.get(name).and_then(serde_json::Value::as_str).and_then(|id| Uuid::parse_str(id).ok())
        };
        let subject = id("sub").ok_or_else(|| bad_jwt("invalid claim: missing sub claim"))?;
        let tx = store::begin(&service.database).await?;
        let user = User::find(&tx, subject).await?.ok_or_else(|| {
            AuthApiError::forbidden("user_not_found", "User from sub claim in JWT does not exist")
        })?;
        let session = match id("session_id") {
            None => None,
            Some(session) => Some(
                Session::find(&tx, session).await?.filter(|session| session.user_id == user.id).ok_or_else(
                    || {
                        let message = "Session from session_id claim in JWT does not exist";
                        AuthApiError::forbidden("session_not_found", message)
                    },
                )?,
            ),
        };
        tx.commit().await?;
        Ok(Self { caller, user, session })
    }
}

/// A request of the project's own servers: the service key, or a token of a role that may administer accounts.
#[derive(Debug, Clone)]
pub(crate) struct Admin {
    pub(crate) caller: Caller,
}

impl FromRequestParts<AuthService> for Admin {
    type Rejection = AuthApiError;

    async fn from_request_parts(parts: &mut Parts, service: &AuthService) -> Result<Self, AuthApiError> {
        let caller = Caller::of(parts);
        let claims = claims(parts, |token| service.verifier.verify_server(token))?;
        match claims.get("role").and_then(serde_json::Value::as_str) {
            Some("service_role" | "supabase_admin") => Ok(Self { caller }),
            _ => Err(AuthApiError::forbidden("not_admin", "User not allowed")),
        }
    }
}

/// The claims of the bearer token; an API key alone is nobody here.
fn claims(
    parts: &Parts,
    verify: impl FnOnce(&str) -> Result<Claims, AuthError>,
) -> Result<serde_json::Map<String, serde_json::Value>, AuthApiError> {
    let missing = || {
        let message = "This endpoint requires a valid Bearer token";
        AuthApiError::unauthorized("no_authorization", message)
    };
    let token = credential(&parts.headers).map_err(|_| missing())?.ok_or_else(missing)?;
    let claims = verify(token).map_err(|error| {
        let reason = match error {
            AuthError::Expired => "token has invalid claims: token is expired".to_owned(),
            error => error.to_string(),
        };
        // Clients look for these words.
        bad_jwt(format!("invalid JWT: unable to parse or verify signature, {reason}"))
    })?;
    serde_json::from_str(claims.json()).map_err(AuthApiError::internal)
}

fn bad_jwt(message: impl Into<std::borrow::Cow<'static, str>>) -> AuthApiError {
    AuthApiError::forbidden("bad_jwt", message)
}
