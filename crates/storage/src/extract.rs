//! What routes take from a request, refused in storage's own words.

use std::time::Duration;

use axum::body::Body;
use axum::extract::{FromRequestParts, Path};
use bytes::BytesMut;
use futures_util::StreamExt;
use http::HeaderMap;
use http::header::CONTENT_LENGTH;
use http::request::Parts;
use percent_encoding::percent_decode_str;
use serde::de::{DeserializeOwned, Error as _};
use serde::{Deserialize, Deserializer};
use serde_json::Value;

use crate::names::{BucketId, ObjectName};
use crate::{Error, Storage};

/// Largest JSON body.
const JSON_LIMIT: usize = 1024 * 1024;

/// `…/{bucket}` of a route.
pub(crate) struct BucketPath(pub(crate) BucketId);

/// `…/{bucket}/{*name}` of a route.
pub(crate) struct ObjectPath(pub(crate) BucketId, pub(crate) ObjectName);

impl<S: Send + Sync> FromRequestParts<S> for BucketPath {
    type Rejection = Error;

    async fn from_request_parts(parts: &mut Parts, state: &S) -> Result<Self, Error> {
        let Path(bucket): Path<String> =
            Path::from_request_parts(parts, state).await.map_err(|_| Error::InvalidBucketName)?;
        Ok(Self(BucketId::parse(&bucket)?))
    }
}

impl<S: Send + Sync> FromRequestParts<S> for ObjectPath {
    type Rejection = Error;

    async fn from_request_parts(parts: &mut Parts, state: &S) -> Result<Self, Error> {
        let Path((bucket, name)): Path<(String, String)> =
            Path::from_request_parts(parts, state).await.map_err(|_| Error::invalid_key(parts.uri.path()))?;
        Ok(Self(BucketId::parse(&bucket)?, ObjectName::parse(&name)?))
    }
}

/// The same in a signed URL. JavaScript clients escape what the server escaped once more, so that a `?` in a name
/// arrives as `%3F`; names hold no `%` themselves.
pub(crate) struct SignedPath(pub(crate) BucketId, pub(crate) ObjectName);

impl<S: Send + Sync> FromRequestParts<S> for SignedPath {
    type Rejection = Error;

    async fn from_request_parts(parts: &mut Parts, state: &S) -> Result<Self, Error> {
        let Path((bucket, name)): Path<(String, String)> =
            Path::from_request_parts(parts, state).await.map_err(|_| Error::invalid_key(parts.uri.path()))?;
        let plain = |text: &str| percent_decode_str(text).decode_utf8_lossy().into_owned();
        Ok(Self(BucketId::parse(&plain(&bucket))?, ObjectName::parse(&plain(&name))?))
    }
}

/// The query string as a struct.
pub(crate) fn query<T: DeserializeOwned>(parts: &Parts) -> Result<T, Error> {
    axum::extract::Query::<T>::try_from_uri(&parts.uri)
        .map(|query| query.0)
        .map_err(|error| Error::InvalidRequest(format!("querystring: {}", error.body_text())))
}

/// A JSON body; none counts as `{}`.
pub(crate) async fn json<T: DeserializeOwned>(storage: &Storage, body: Body) -> Result<T, Error> {
    let mut stream = body.into_data_stream();
    let mut bytes = BytesMut::new();
    let idle = storage.inner.idle_timeout;
    loop {
        match tokio::time::timeout(idle, stream.next()).await {
            Err(_) => return Err(stalled(idle)),
            Ok(None) => break,
            Ok(Some(Err(_))) => return Err(Error::Interrupted),
            Ok(Some(Ok(chunk))) => {
                if bytes.len() + chunk.len() > JSON_LIMIT {
                    return Err(Error::TooLarge("request body"));
                }
                bytes.extend_from_slice(&chunk);
            }
        }
    }
    let text: &[u8] = if bytes.is_empty() { b"{}" } else { &bytes };
    serde_json::from_slice(text).map_err(|error| Error::InvalidRequest(format!("body: {error}")))
}

pub(crate) fn stalled(idle: Duration) -> Error {
    Error::Stalled(idle.as_secs())
}

/// A header's text; what is not text counts as malformed.
pub(crate) fn header<'h>(headers: &'h HeaderMap, name: &str) -> Result<Option<&'h str>, Error> {
    match headers.get(name) {
        None => Ok(None),
        Some(value) => value
            .to_str()
            .map(Some)
            .map_err(|_| Error::InvalidRequest(format!("the header {name} holds more than ASCII text"))),
    }
}

/// The announced length of the body.
pub(crate) fn content_length(headers: &HeaderMap) -> Result<Option<u64>, Error> {
    match header(headers, CONTENT_LENGTH.as_str())? {
        None => Ok(None),
        Some(text) => text
            .parse()
            .map(Some)
            .map_err(|_| Error::InvalidRequest("the header content-length is no number".into())),
    }
}

/// `asc` (the default) or `desc`.
pub(crate) fn descending(order: Option<&str>) -> Result<bool, Error> {
    match order {
        None | Some("asc") => Ok(false),
        Some("desc") => Ok(true),
        Some(_) => Err(Error::InvalidRequest("the sort order must be asc or desc".into())),
    }
}

/// A number within bounds; above the upper one, the upper one.
pub(crate) fn bounded(name: &str, value: Option<i64>, least: i64, most: i64) -> Result<Option<i64>, Error> {
    match value {
        Some(value) if value < least => Err(Error::InvalidRequest(format!("{name} must be >= {least}"))),
        value => Ok(value.map(|value| value.min(most))),
    }
}

/// A whole number, also as text: supabase-py writes `"60"`.
pub(crate) fn whole<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<i64>, D::Error> {
    #[derive(Deserialize)]
    #[serde(untagged)]
    enum Written {
        Number(i64),
        Text(String),
        Nothing(()),
    }
    match Written::deserialize(deserializer).map_err(|_| D::Error::custom("expected a whole number"))? {
        Written::Number(number) => Ok(Some(number)),
        Written::Text(text) => match text.trim().parse() {
            Ok(number) => Ok(Some(number)),
            Err(_) => Err(D::Error::custom("expected a whole number")),
        },
        Written::Nothing(()) => Ok(None),
    }
}

/// True or false, also as text.
pub(crate) fn flag<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<bool>, D::Error> {
    match Value::deserialize(deserializer)? {
        Value::Null => Ok(None),
        Value::Bool(flag) => Ok(Some(flag)),
        Value::String(text) if text == "true" => Ok(Some(true)),
        Value::String(text) if text == "false" => Ok(Some(false)),
        _ => Err(D::Error::custom("expected true or false")),
    }
}
