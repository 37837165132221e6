//! Claims of a request: from `Authorization` and `apikey`, as Supabase clients send them.

use axum::extract::{FromRef, FromRequestParts, OptionalFromRequestParts};
use http::header::AUTHORIZATION;
use http::request::Parts;
use http::{HeaderMap, HeaderName};
use longhouse_database::Claims;

use crate::{AuthError, Verifier};

const APIKEY: HeaderName = HeaderName::from_static("apikey");

/// Extractor: the verified claims of a request, for routers whose state holds a [`Verifier`].
/// `Option<Authenticated>` lets requests without any key through; a wrong key is refused by both.
///
/// ```
/// use axum::{Router, routing::get};
/// use longhouse_identity::{Authenticated, ProjectKeys, Verifier};
///
/// let verifier = Verifier::new(&ProjectKeys::generate());
/// let router: Router = Router::new()
///     .route("/who", get(|Authenticated(claims): Authenticated| async move { claims.role().to_owned() }))
///     .with_state(verifier);
/// # let _ = router;
/// ```
#[derive(Debug, Clone)]
pub struct Authenticated(pub Claims);

impl<S> FromRequestParts<S> for Authenticated
where
    S: Send + Sync,
    Verifier: FromRef<S>,
{
    type Rejection = AuthError;

    async fn from_request_parts(parts: &mut Parts, state: &S) -> Result<Self, AuthError> {
        verify_headers(&Verifier::from_ref(state), &parts.headers).map(Self)
    }
}

impl<S> OptionalFromRequestParts<S> for Authenticated
where
    S: Send + Sync,
    Verifier: FromRef<S>,
{
    type Rejection = AuthError;

    async fn from_request_parts(parts: &mut Parts, state: &S) -> Result<Option<Self>, AuthError> {
        match verify_headers(&Verifier::from_ref(state), &parts.headers) {
            Ok(claims) => Ok(Some(Self(claims))),
            Err(AuthError::Missing) => Ok(None),
            Err(error) => Err(error),
        }
    }
}

/// The claims that a request's headers stand for: the bearer token's, else the API key's. An API key beside a
/// token must be valid too.
///
/// # Errors
/// [`AuthError::Missing`] without either, else what is wrong.
pub fn verify_headers(verifier: &Verifier, headers: &HeaderMap) -> Result<Claims, AuthError> {
    let apikey = match headers.get(APIKEY) {
        Some(value) => Some(value.to_str().map_err(|_| AuthError::Malformed)?.trim()),
        None => None,
    };
    match credential(headers)? {
        Some(token) => {
            if let Some(key) = apikey.filter(|key| *key != token) {
                verifier.verify(key)?;
            }
            verifier.verify(token)
        }
        None => verifier.verify(apikey.ok_or(AuthError::Missing)?),
    }
}

/// The token of `Authorization: Bearer …`, if the header is there.
///
/// # Errors
/// The header is there with another scheme, or twice.
pub fn credential(headers: &HeaderMap) -> Result<Option<&str>, AuthError> {
    let mut values = headers.get_all(AUTHORIZATION).iter();
    let Some(value) = values.next() else { return Ok(None) };
    if values.next().is_some() {
        return Err(AuthError::Scheme);
    }
    let (scheme, token) =
        value.to_str().ok().and_then(|value| value.trim().split_once(' ')).ok_or(AuthError::Scheme)?;
    if !scheme.eq_ignore_ascii_case("bearer") {
        return Err(AuthError::Scheme);
    }
    Ok(Some(token.trim()))
}
