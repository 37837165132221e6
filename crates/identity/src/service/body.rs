//! Parameters of requests: JSON of bounded size and queries, in the shapes that Supabase's clients send.

use axum::body::{Body, to_bytes};
use axum::extract::{FromRequest, FromRequestParts, Query, Request};
use http::StatusCode;
use http::request::Parts;
use serde::de::DeserializeOwned;
use serde_json::{Map, Value};

use super::error::AuthApiError;

/// Largest body.
const MOST_BYTES: usize = 1 << 20;

/// Extractor: a JSON object. Members that are `null` count as absent, so that `#[serde(default)]` applies to them;
/// the content type does not matter.
#[derive(Debug, Clone)]
pub(crate) struct JsonBody<T>(pub(crate) T);

impl<S: Send + Sync, T: DeserializeOwned> FromRequest<S> for JsonBody<T> {
    type Rejection = AuthApiError;

    async fn from_request(request: Request<Body>, _: &S) -> Result<Self, AuthApiError> {
        let bytes = to_bytes(request.into_body(), MOST_BYTES).await.map_err(|error| {
            // The server's own limit may be lower: both end here.
            let message = format!("Request body too large or broken (max {MOST_BYTES} bytes): {error}");
            AuthApiError::new(StatusCode::PAYLOAD_TOO_LARGE, "request_entity_too_large", message)
        })?;
        parse(&bytes).map(Self)
    }
}

fn parse<T: DeserializeOwned>(bytes: &[u8]) -> Result<T, AuthApiError> {
    let bad = |error: serde_json::Error| {
        let message = format!("Could not parse request body as JSON: {error}");
        AuthApiError::bad_request("bad_json", message)
    };
    let mut object: Map<String, Value> = serde_json::from_slice(bytes).map_err(bad)?;
    object.retain(|_, value| !value.is_null());
    if object.iter().any(|(name, value)| name.contains('\0') || has_nul(value)) {
        return Err(nul());
    }
    serde_json::from_value(Value::Object(object)).map_err(bad)
}

/// Postgres stores no NUL in texts: nothing that has one is anybody's.
fn nul() -> AuthApiError {
    AuthApiError::invalid("Parameters must not contain NUL characters")
}

fn has_nul(value: &Value) -> bool {
    match value {
        Value::String(text) => text.contains('\0'),
        Value::Array(list) => list.iter().any(has_nul),
        Value::Object(map) => map.iter().any(|(name, value)| name.contains('\0') || has_nul(value)),
        _ => false,
    }
}

/// Extractor: parameters in the query.
#[derive(Debug, Clone)]
pub(crate) struct QueryParams<T>(pub(crate) T);

impl<S: Send + Sync, T: DeserializeOwned> FromRequestParts<S> for QueryParams<T> {
    type Rejection = AuthApiError;

    async fn from_request_parts(parts: &mut Parts, _: &S) -> Result<Self, AuthApiError> {
        if parts.uri.query().is_some_and(|query| query.contains("%00")) {
            return Err(nul());
        }
        let query = Query::try_from_uri(&parts.uri);
        query.map(|Query(params)| Self(params)).map_err(|error| AuthApiError::invalid(error.to_string()))
    }
}

#[cfg(test)]
mod tests {
    use rstest::rstest;
    use serde::Deserialize;

    use super::*;

    #[derive(Debug, Default, Deserialize)]
    #[serde(default)]
    struct Params {
        email: String,
        data: Map<String, Value>,
    }

    #[test]
    fn null_members_are_absent_but_inner_ones_stay() {
        let params: Params = parse(br#"{"email": null, "data": {"gone": null}, "other": 1}"#).unwrap();
        assert_eq!(params.email, "");
        assert_eq!(params.data["gone"], Value::Null);
    }

    #[rstest]
    #[case(r#"{"email": "a\u0000"}"#)]
    #[case(r#"{"data": {"list": [{"deep\u0000": 1}]}}"#)]
    fn nul_is_refused(#[case] body: &str) {
        assert_eq!(parse::<Params>(body.as_bytes()).unwrap_err().code(), "validation_failed");
    }

    #[rstest]
    #[case("")]
    #[case("[]")]
    #[case("{")]
    #[case(r#"{"email": 7}"#)]
    fn other_bodies_are_bad_json(#[case] body: &str) {
        assert_eq!(parse::<Params>(body.as_bytes()).unwrap_err().code(), "bad_json");
    }
}
