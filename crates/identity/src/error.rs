//! Why a key or token is refused, and why keys cannot be kept.

use std::path::PathBuf;

use axum::Json;
use axum::response::{IntoResponse, Response};
use http::header::WWW_AUTHENTICATE;
use http::{HeaderValue, StatusCode};
use serde_json::json;

/// Why a request's key or token is not accepted. No message repeats the token.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum AuthError {
    /// Neither `apikey` nor `Authorization` was sent.
    #[error("no API key found in the request: send it in the `apikey` or `Authorization: Bearer` header")]
    Missing,
    /// `Authorization` uses another scheme.
    #[error("the Authorization header must be `Bearer <token>`")]
    Scheme,
    /// An opaque key that is not this project's.
    #[error(
        "invalid API key: copy it again from `longhouse status`, or make one with `longhouse keys create-api-key`"
    )]
    UnknownKey,
    /// Not three base64 parts with a JSON header.
    #[error("the token is not a JWT: send a project key or the access token of a session")]
    Malformed,
    /// Signed by an algorithm that this project does not use (or `none`).
    #[error(
        "the token's algorithm is not accepted: this project signs with HS256, or with ES256 and RS256 keys named by `kid`"
    )]
    Algorithm,
    /// Signed with a key that is not this project's (or was revoked), or altered.
    #[error(
        "the token's signature is wrong: it was signed with a key that is not this project's, or was revoked"
    )]
    Signature,
    /// Past its `exp`.
    #[error("the token has expired: refresh the session")]
    Expired,
    /// `exp` is absent.
    #[error("the token has no expiry: sign tokens with an `exp` claim")]
    NoExpiry,
    /// Before its `nbf`.
    #[error("the token is not valid yet: check the clocks of the machine that signed it")]
    NotYetValid,
    /// Meant for another audience.
    #[error(
        "the token's audience is not this project: sign it with `aud` \"authenticated\" or without `aud`"
    )]
    Audience,
    /// `role` is absent, or not a role that requests may act as.
    #[error(
        "the token's `role` is not one that requests may act as: use anon, authenticated or service_role"
    )]
    Role,
}

impl AuthError {
    /// A stable machine-readable code.
    pub fn code(&self) -> &'static str {
        match self {
            Self::Missing => "missing_api_key",
            Self::UnknownKey => "invalid_api_key",
            Self::Scheme | Self::Malformed => "malformed_token",
            Self::Algorithm => "token_algorithm",
            Self::Signature => "token_signature",
            Self::Expired => "token_expired",
            Self::NoExpiry => "token_without_expiry",
            Self::NotYetValid => "token_not_yet_valid",
            Self::Audience => "token_audience",
            Self::Role => "token_role",
        }
    }
}

impl IntoResponse for AuthError {
    /// 401 in the shape of our own endpoints; compatible APIs render the error themselves.
    fn into_response(self) -> Response {
        let text = self.to_string();
        let (message, hint) = text.split_once(": ").unwrap_or((&text, "see `longhouse status` for the keys"));
        let body = Json(json!({ "code": self.code(), "message": message, "hint": hint }));
        let mut response = (StatusCode::UNAUTHORIZED, body).into_response();
        response.headers_mut().insert(WWW_AUTHENTICATE, HeaderValue::from_static("Bearer"));
        response
    }
}

/// Why the project's keys cannot be read, made or kept.
#[derive(Debug, thiserror::Error)]
pub enum KeysError {
    /// The file cannot be read or written.
    #[error("cannot keep the project's keys in {path}: {source}; check the folder's owner and free space")]
    Io {
        /// The file.
        path: PathBuf,
        /// The system's reason.
        source: std::io::Error,
    },
    /// The file is not ours, or damaged.
    #[error(
        "{path} does not hold the project's keys ({reason}); restore it from a backup, or remove it to make new keys (every session and key in use then ends)"
    )]
    Damaged {
        /// The file.
        path: PathBuf,
        /// What is wrong in it.
        reason: String,
    },
    /// The configured secret is too weak for HS256.
    #[error(
        "the JWT secret has {0} characters: set SUPABASE_JWT_SECRET to at least 32 random ones, or leave it out"
    )]
    WeakSecret(usize),
    /// The tables of keys cannot be read or changed.
    #[error("the project's keys cannot be read from the database: {0}")]
    Database(#[from] longhouse_database::Error),
    /// The private part of a signing key was encrypted under another JWT secret, or damaged.
    #[error(
        "signing key {0} cannot be decrypted: it was made under another JWT secret; restore that secret, or make a new key with `longhouse keys rotate`"
    )]
    Sealed(uuid::Uuid),
    /// The system gave no randomness, or refuses the algorithm.
    #[error("a key cannot be made: {0} is not available on this system")]
    Generate(&'static str),
    /// There is no such key.
    #[error("there is no key {0}: `longhouse keys list` shows them all")]
    NoSuchKey(String),
    /// A key cannot change like that.
    #[error("{0}")]
    Refused(crate::service::Refusal),
    /// A key of a file cannot be taken over. The reason never repeats the key.
    #[error("key {key} of the file cannot be imported: {reason}")]
    Import {
        /// Its place in the file, from 1.
        key: usize,
        /// What to change.
        reason: &'static str,
    },
    /// There are as many keys as one process keeps in memory.
    #[error("there are {0} API keys already: revoke some with `longhouse keys revoke`")]
    TooMany(usize),
    /// The name of an API key is empty or too long.
    #[error("an API key needs a name of 1 to 100 characters that says who uses it")]
    Name,
    /// The hosted project's keys cannot be fetched.
    #[error("the signing keys at {url} cannot be fetched: {reason}; check supabase.url and the network")]
    Fetch {
        /// Where.
        url: url::Url,
        /// Why not.
        reason: String,
    },
}
