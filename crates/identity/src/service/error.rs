//! Errors of `/auth/v1`, in the two shapes that Supabase's clients know.

use std::borrow::Cow;
use std::time::Duration;

use axum::Json;
use axum::extract::Request;
use axum::middleware::Next;
use axum::response::{IntoResponse, Response};
use http::header::{HeaderName, RETRY_AFTER};
use http::{HeaderValue, StatusCode};
use serde_json::{Value, json};

use longhouse_database::Error as DatabaseError;

/// Clients that send this header with [`API_VERSION`] get errors as `{code, message}`.
pub(crate) const API_VERSION_HEADER: HeaderName = HeaderName::from_static("x-supabase-api-version");
/// The newest version of the API.
pub(crate) const API_VERSION: &str = "2024-01-01";
const ERROR_CODE_HEADER: HeaderName = HeaderName::from_static("x-sb-error-code");
const RATE_LIMIT: HeaderName = HeaderName::from_static("x-ratelimit-limit");
const RATE_LIMIT_REMAINING: HeaderName = HeaderName::from_static("x-ratelimit-remaining");
const RATE_LIMIT_RESET: HeaderName = HeaderName::from_static("x-ratelimit-reset");

/// A refusal of `/auth/v1`: a status, one of Supabase Auth's error codes and a sentence for people.
#[derive(Debug, Clone)]
pub struct AuthApiError {
    status: StatusCode,
    shape: Shape,
    message: Cow<'static, str>,
    retry_after: Option<Duration>,
    /// How much is allowed, where that is what refused.
    limit: Option<u32>,
}

#[derive(Debug, Clone)]
enum Shape {
    /// `{code, error_code, msg}`, or `{code, message}` for newer clients.
    Http(&'static str),
    /// The same with the reasons why a password is weak.
    WeakPassword(Vec<&'static str>),
    /// RFC 6749: `{error, error_description}`.
    OAuth(&'static str),
}

impl AuthApiError {
    /// A refusal with its code, e.g. `"invalid_credentials"`.
    pub fn new(status: StatusCode, code: &'static str, message: impl Into<Cow<'static, str>>) -> Self {
        Self { status, shape: Shape::Http(code), message: message.into(), retry_after: None, limit: None }
    }

    /// 400.
    pub fn bad_request(code: &'static str, message: impl Into<Cow<'static, str>>) -> Self {
        Self::new(StatusCode::BAD_REQUEST, code, message)
    }

    /// 400 `validation_failed`: a parameter is missing or wrong.
    pub fn invalid(message: impl Into<Cow<'static, str>>) -> Self {
        Self::bad_request("validation_failed", message)
    }

    /// 401.
    pub fn unauthorized(code: &'static str, message: impl Into<Cow<'static, str>>) -> Self {
        Self::new(StatusCode::UNAUTHORIZED, code, message)
    }

    /// 403.
    pub fn forbidden(code: &'static str, message: impl Into<Cow<'static, str>>) -> Self {
        Self::new(StatusCode::FORBIDDEN, code, message)
    }

    /// 404.
    pub fn not_found(code: &'static str, message: impl Into<Cow<'static, str>>) -> Self {
        Self::new(StatusCode::NOT_FOUND, code, message)
    }

    /// 422.
    pub fn unprocessable(code: &'static str, message: impl Into<Cow<'static, str>>) -> Self {
        Self::new(StatusCode::UNPROCESSABLE_ENTITY, code, message)
    }

    /// 429, to be tried again after that time.
    pub fn too_many(
        code: &'static str,
        message: impl Into<Cow<'static, str>>,
        retry_after: Duration,
    ) -> Self {
        let error = Self::new(StatusCode::TOO_MANY_REQUESTS, code, message);
        Self { retry_after: Some(retry_after), ..error }
    }

    /// Names the allowance that is used up, for the `X-RateLimit-*` headers.
    #[must_use]
    pub fn with_limit(self, limit: u32) -> Self {
        Self { limit: Some(limit), ..self }
    }

    /// 422 `weak_password`; reasons are `length`, `characters` and `pwned`.
    pub fn weak_password(message: impl Into<Cow<'static, str>>, reasons: Vec<&'static str>) -> Self {
        let error = Self::unprocessable("weak_password", message);
        Self { shape: Shape::WeakPassword(reasons), ..error }
    }

    /// 400 in the shape of OAuth 2, e.g. `"unsupported_grant_type"`.
    pub fn oauth(error: &'static str, description: impl Into<Cow<'static, str>>) -> Self {
        let message = description.into();
        Self {
            status: StatusCode::BAD_REQUEST,
            shape: Shape::OAuth(error),
            message,
            retry_after: None,
            limit: None,
        }
    }

    /// 500; what happened goes to the log, not to the client.
    pub fn internal(what: impl std::fmt::Display) -> Self {
        tracing::error!(error = %what, "a request to /auth/v1 failed");
        Self::new(
            StatusCode::INTERNAL_SERVER_ERROR,
            "unexpected_failure",
            "Unexpected failure, please check server logs for more information",
        )
    }

    /// Status of the response.
    pub fn status(&self) -> StatusCode {
        self.status
    }

    /// Supabase Auth's code; for OAuth errors RFC 6749's.
    pub fn code(&self) -> &'static str {
        match &self.shape {
            Shape::Http(code) | Shape::OAuth(code) => code,
            Shape::WeakPassword(_) => "weak_password",
        }
    }

    /// Why a password is weak, if that is what is refused.
    pub(crate) fn weak_reasons(&self) -> Option<&[&'static str]> {
        match &self.shape {
            Shape::WeakPassword(reasons) => Some(reasons),
            Shape::Http(_) | Shape::OAuth(_) => None,
        }
    }

    /// The sentence for people.
    pub fn message(&self) -> &str {
        &self.message
    }

    fn body(&self, newer: bool) -> Value {
        let mut body = match (&self.shape, newer) {
            (Shape::OAuth(error), _) => {
                return json!({ "error": error, "error_description": self.message });
            }
            (_, true) => json!({ "code": self.code(), "message": self.message }),
            (_, false) => {
                json!({ "code": self.status.as_u16(), "error_code": self.code(), "msg": self.message })
            }
        };
        if let Shape::WeakPassword(reasons) = &self.shape {
            body["weak_password"] = json!({ "reasons": reasons });
        }
        body
    }
}

impl From<DatabaseError> for AuthApiError {
    fn from(error: DatabaseError) -> Self {
        match &error {
            DatabaseError::Busy(_) | DatabaseError::Unavailable(_) => {
                tracing::warn!(%error, "a request to /auth/v1 found no database");
                let message = "The database is not available right now: try again in a moment";
                let refusal = Self::new(StatusCode::SERVICE_UNAVAILABLE, "unexpected_failure", message);
                Self { retry_after: Some(Duration::from_secs(1)), ..refusal }
            }
            _ => Self::internal(error),
        }
    }
}

impl IntoResponse for AuthApiError {
    fn into_response(self) -> Response {
        let mut response = (self.status, Json(self.body(false))).into_response();
        let headers = response.headers_mut();
        if !matches!(self.shape, Shape::OAuth(_)) {
            headers.insert(ERROR_CODE_HEADER, HeaderValue::from_static(self.code()));
        }
        if let Some(wait) = self.retry_after {
            headers.insert(RETRY_AFTER, HeaderValue::from(wait.as_secs().max(1)));
            if let Some(limit) = self.limit {
                headers.insert(RATE_LIMIT, HeaderValue::from(limit));
                headers.insert(RATE_LIMIT_REMAINING, HeaderValue::from(0));
                headers.insert(RATE_LIMIT_RESET, HeaderValue::from(wait.as_secs().max(1)));
            }
        }
        response.extensions_mut().insert(self);
        response
    }
}

/// Renders errors in the shape that the request's API version asks for.
pub(crate) async fn by_api_version(request: Request, next: Next) -> Response {
    // Versions are dates: later ones sort behind.
    let newer = request
        .headers()
        .get(API_VERSION_HEADER)
        .and_then(|value| value.to_str().ok())
        .is_some_and(|version| version.len() == API_VERSION.len() && version >= API_VERSION);
    let mut response = next.run(request).await;
    if !newer {
        return response;
    }
    if let Some(error) = response.extensions_mut().remove::<AuthApiError>() {
        let (mut parts, _) = response.into_parts();
        parts.headers.remove(http::header::CONTENT_LENGTH);
        let mut rendered = Json(error.body(true)).into_response();
        *rendered.status_mut() = parts.status;
        for (name, value) in &parts.headers {
            rendered.headers_mut().insert(name, value.clone());
        }
        response = rendered;
    }
    response.headers_mut().insert(API_VERSION_HEADER, HeaderValue::from_static(API_VERSION));
    response
}
