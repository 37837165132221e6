//! The one place where an error becomes an HTTP answer.

use bytes::Bytes;
use http::{HeaderMap, HeaderName, HeaderValue, StatusCode, header};
use serde::Serialize;
use serde_json::Value;

use super::postgres::RaiseError;
use super::{Error, SchemaCacheError};
use crate::config::RestConfig;

/// The body; fields in PostgREST's order.
#[derive(Debug, Serialize)]
struct Body<'a> {
    code: &'a str,
    details: Option<Value>,
    hint: Option<String>,
    message: String,
}

#[derive(Debug, Serialize)]
struct MinimalBody<'a> {
    code: &'a str,
    message: String,
}

impl Error {
    /// PostgREST's code, or the SQLSTATE.
    pub fn code(&self) -> String {
        let code = match self {
            Self::Connection(_) => "PGRST000",
            Self::Client(_) => "PGRST001",
            Self::NoSchemaCache => "PGRST002",
            Self::PoolTimeout => "PGRST003",
            Self::QueryParameter { .. } => "PGRST100",
            Self::InvalidRpcMethod(_) => "PGRST101",
            Self::InvalidBody(_) => "PGRST102",
            Self::InvalidRange(_) => "PGRST103",
            Self::InvalidFilters => "PGRST105",
            Self::UnacceptableSchema { .. } => "PGRST106",
            Self::MediaType(_) => "PGRST107",
            Self::NotEmbedded { .. } => "PGRST108",
            Self::GucHeaders => "PGRST111",
            Self::GucStatus => "PGRST112",
            Self::PutLimit => "PGRST114",
            Self::PutMatchingKey => "PGRST115",
            Self::Singularity(_) => "PGRST116",
            Self::UnsupportedMethod(_) => "PGRST117",
            Self::RelatedOrderNotToOne { .. } => "PGRST118",
            Self::UnacceptableFilter(_) => "PGRST120",
            Self::InvalidPreferences(_) => "PGRST122",
            Self::AggregatesNotAllowed => "PGRST123",
            Self::MaxAffected(_) => "PGRST124",
            Self::InvalidPath => "PGRST125",
            Self::OpenApiDisabled => "PGRST126",
            Self::NotImplemented(_) => "PGRST127",
            Self::MaxAffectedRpc => "PGRST128",
            Self::SchemaCache(error) => error.code(),
            Self::Jwt(error) => error.code(),
            Self::Postgres(error) => {
                return match error.raised() {
                    None => error.code.clone(),
                    Some(Ok((body, _))) => body.code,
                    Some(Err(_)) => "PGRST121".to_owned(),
                };
            }
            Self::Internal(_) => "PGRSTX00",
        };
        code.to_owned()
    }

    fn details(&self) -> Option<Value> {
        let text = match self {
            Self::Connection(details) | Self::Client(details) => details.clone(),
            Self::QueryParameter { details, .. } | Self::NotImplemented(details) => Some(details.clone()),
            Self::InvalidRange(error) => Some(error.details()),
            Self::Singularity(rows) => Some(format!("The result contains {rows} rows")),
            Self::RelatedOrderNotToOne { origin, target } => Some(format!(
                "'{origin}' and '{target}' do not form a many-to-one or one-to-one relationship"
            )),
            Self::UnacceptableFilter(_) => {
                Some("Only is null or not is null filters are allowed on embedded resources".to_owned())
            }
            Self::InvalidPreferences(preferences) => {
                Some(format!("Invalid preferences: {}", preferences.join(", ")))
            }
            Self::MaxAffected(rows) => Some(format!("The query affects {rows} rows")),
            Self::NotEmbedded { renamed: Some(_), .. } => {
                Some("Target names are not allowed in filters if they have an alias".to_owned())
            }
            Self::SchemaCache(error) => match &**error {
                SchemaCacheError::NoRelationship { details, .. }
                | SchemaCacheError::NoFunction { details, .. } => Some(details.clone()),
                SchemaCacheError::AmbiguousRelationship { candidates, .. } => {
                    return serde_json::to_value(candidates).ok();
                }
                SchemaCacheError::AmbiguousFunction(_)
                | SchemaCacheError::ColumnNotFound { .. }
                | SchemaCacheError::TableNotFound { .. } => None,
            },
            Self::Jwt(error) => error.details(),
            Self::Postgres(error) => match error.raised() {
                None => error.detail.clone(),
                Some(Ok((body, _))) => body.details,
                Some(Err(error)) => Some(RaiseError::details(&error)),
            },
            _ => None,
        };
        text.map(Value::String)
    }

    fn hint(&self) -> Option<String> {
        match self {
            Self::NotEmbedded { resource, renamed: None } => {
                Some(format!("Verify that '{resource}' is included in the 'select' query parameter."))
            }
            Self::NotEmbedded { renamed: Some((name, alias)), .. } => {
                Some(format!("Change '{name}' to '{alias}' in filters, orders or limits."))
            }
            Self::UnacceptableSchema { exposed, .. } => {
                Some(format!("Only the following schemas are exposed: {}", exposed.join(", ")))
            }
            Self::SchemaCache(error) => error.hint(),
            Self::Postgres(error) => match error.raised() {
                None => error.hint.clone(),
                Some(Ok((body, _))) => body.hint,
                Some(Err(error)) => Some(error.hint().to_owned()),
            },
            _ => None,
        }
    }

    fn status_and_reason(&self, authenticated: bool) -> (StatusCode, Option<String>) {
        let status = match self {
            Self::Connection(_) | Self::Client(_) | Self::NoSchemaCache => StatusCode::SERVICE_UNAVAILABLE,
            Self::PoolTimeout => StatusCode::GATEWAY_TIMEOUT,
            Self::InvalidRpcMethod(_) | Self::InvalidFilters | Self::UnsupportedMethod(_) => {
                StatusCode::METHOD_NOT_ALLOWED
            }
            Self::InvalidRange(_) => StatusCode::RANGE_NOT_SATISFIABLE,
            Self::UnacceptableSchema { .. } | Self::MediaType(_) | Self::Singularity(_) => {
                StatusCode::NOT_ACCEPTABLE
            }
            Self::InvalidPath | Self::OpenApiDisabled => StatusCode::NOT_FOUND,
            Self::GucHeaders | Self::GucStatus | Self::Internal(_) => StatusCode::INTERNAL_SERVER_ERROR,
            Self::SchemaCache(error) => {
                StatusCode::from_u16(error.status()).unwrap_or(StatusCode::BAD_REQUEST)
            }
            Self::Jwt(super::JwtError::SecretMissing) => StatusCode::INTERNAL_SERVER_ERROR,
            Self::Jwt(_) => StatusCode::UNAUTHORIZED,
            Self::Postgres(error) => {
                let (status, reason) = error.status(authenticated);
                // Informational statuses cannot end an exchange.
                let status = StatusCode::from_u16(status).ok().filter(|status| !status.is_informational());
                return (status.unwrap_or(StatusCode::INTERNAL_SERVER_ERROR), reason);
            }
            Self::QueryParameter { .. }
            | Self::InvalidBody(_)
            | Self::NotEmbedded { .. }
            | Self::PutLimit
            | Self::PutMatchingKey
            | Self::RelatedOrderNotToOne { .. }
            | Self::UnacceptableFilter(_)
            | Self::InvalidPreferences(_)
            | Self::AggregatesNotAllowed
            | Self::MaxAffected(_)
            | Self::NotImplemented(_)
            | Self::MaxAffectedRpc => StatusCode::BAD_REQUEST,
        };
        (status, None)
    }

    /// Status of the answer; `authenticated` says whether the role came from a token.
    pub fn status(&self, authenticated: bool) -> StatusCode {
        self.status_and_reason(authenticated).0
    }

    /// Words of the status line where a function raised its own (for `hyper::ext::ReasonPhrase`).
    pub fn reason(&self) -> Option<String> {
        self.status_and_reason(true).1
    }

    /// The JSON body, compact.
    pub fn body(&self, config: &RestConfig) -> Bytes {
        let code = self.code();
        let message = self.to_string();
        let json = if config.minimal_errors {
            serde_json::to_vec(&MinimalBody { code: &code, message })
        } else {
            serde_json::to_vec(&Body { code: &code, details: self.details(), hint: self.hint(), message })
        };
        json.expect("strings always have a JSON form").into()
    }

    /// The whole answer.
    pub fn response(&self, authenticated: bool, config: &RestConfig) -> (StatusCode, HeaderMap, Bytes) {
        let status = self.status(authenticated);
        let body = self.body(config);
        let mut headers = HeaderMap::new();
        headers.insert(header::CONTENT_TYPE, HeaderValue::from_static("application/json; charset=utf-8"));
        headers.insert(header::CONTENT_LENGTH, HeaderValue::from(body.len()));
        // A code raised by a function may hold anything; one that no header can hold is left out.
        if let Ok(value) = HeaderValue::try_from(format!("PostgREST; error={}", self.code())) {
            headers.insert(HeaderName::from_static("proxy-status"), value);
        }
        if let Some(challenge) = self.challenge(status)
            && let Ok(value) = HeaderValue::try_from(challenge)
        {
            headers.insert(header::WWW_AUTHENTICATE, value);
        }
        if let Self::Postgres(error) = self
            && let Some(Ok((_, head))) = error.raised()
        {
            for (name, value) in head.headers {
                if let (Ok(name), Ok(value)) = (HeaderName::try_from(name), HeaderValue::try_from(value)) {
                    headers.insert(name, value);
                }
            }
        }
        (status, headers, body)
    }

    fn challenge(&self, status: StatusCode) -> Option<String> {
        match self {
            Self::Jwt(error) => error.challenge(),
            // A function that raised its own answer chose its headers, too.
            Self::Postgres(error) if status == StatusCode::UNAUTHORIZED && error.code != "PGRST" => {
                Some("Bearer".to_owned())
            }
            _ => None,
        }
    }
}
