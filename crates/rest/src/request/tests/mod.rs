//! The query grammar by fixtures, the rest by tables.

mod fuzz;
mod grammar;
mod parts;

use bytes::Bytes;
use http::{HeaderMap, HeaderName, HeaderValue, Method};

use super::ApiRequest;
use crate::config::RestConfig;
use crate::error::Error;

/// Parses a request line with headers under a configuration.
fn request_under(
    config: &RestConfig,
    method: &str,
    path: &str,
    headers: &[(&'static str, &str)],
    body: &str,
) -> Result<ApiRequest, Error> {
    let mut map = HeaderMap::new();
    for (name, value) in headers {
        map.append(HeaderName::from_static(name), HeaderValue::from_str(value).unwrap());
    }
    let method = Method::from_bytes(method.as_bytes()).unwrap();
    ApiRequest::parse(&method, path, &map, Bytes::copy_from_slice(body.as_bytes()), config)
}

fn request(
    method: &str,
    path: &str,
    headers: &[(&'static str, &str)],
    body: &str,
) -> Result<ApiRequest, Error> {
    request_under(&RestConfig::default(), method, path, headers, body)
}

fn code(result: Result<ApiRequest, Error>) -> String {
    result.map_or_else(|error| error.code(), |_| "none".to_owned())
}
