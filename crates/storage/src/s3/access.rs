//! Whose request it is.

use constant_time_eq::constant_time_eq;
use http::{HeaderMap, HeaderValue};
use longhouse_database::ServiceReason;
use s3s::auth::{S3Auth, SecretKey};
use s3s::{S3ErrorCode, S3Request, S3Result, s3_error};
use secrecy::ExposeSecret;

use super::S3Keys;
use super::error::refused;
use crate::Storage;
use crate::storage::Caller;

const OPERATOR: ServiceReason =
    ServiceReason::because("an S3 access key was made by the operator to reach every object");

/// What the first service found in a request, for the second.
#[derive(Debug, Clone)]
pub(super) enum Acting {
    Operator,
    /// A session, by its token.
    Session(String),
}

/// Secrets for checking signatures.
pub(super) struct Secrets(pub(super) S3Keys);

impl S3Keys {
    pub(super) fn is_operator(&self, access_key: &str) -> bool {
        let id = self.operator.as_ref().map(|(id, _)| id.as_bytes());
        id.is_some_and(|id| constant_time_eq(id, access_key.as_bytes()))
    }
}

#[async_trait::async_trait]
impl S3Auth for Secrets {
    async fn get_secret_key(&self, access_key: &str) -> S3Result<SecretKey> {
        let secret = match &self.0.operator {
            Some((_, secret)) if self.0.is_operator(access_key) => secret,
            // The id names the project there; whose session it is, its token says.
            _ => self.0.session_secret.as_ref().ok_or_else(|| s3_error!(InvalidAccessKeyId))?,
        };
        Ok(secret.expose_secret().into())
    }
}

impl Storage {
    /// As whom a request acts.
    pub(super) fn s3_caller<T>(&self, request: &S3Request<T>, operation: &'static str) -> S3Result<Caller> {
        match request.extensions.get::<Acting>() {
            Some(Acting::Operator) => Ok(Caller::by_token(OPERATOR, None, operation)),
            Some(Acting::Session(token)) => {
                let bearer = HeaderValue::from_str(&format!("Bearer {token}"));
                let bearer = bearer.map_err(|_| S3ErrorCode::InvalidToken)?;
                let headers = HeaderMap::from_iter([(http::header::AUTHORIZATION, bearer)]);
                self.caller(&headers, operation).map_err(refused)
            }
            None => Err(s3_error!(AccessDenied, "Signature is required")),
        }
    }
}

/// Whether a request was signed with the operator's key.
pub(super) fn is_operator<T>(request: &S3Request<T>) -> bool {
    matches!(request.extensions.get::<Acting>(), Some(Acting::Operator))
}
