//! Cross-origin requests: which headers a browser wants to see.

use http::{HeaderMap, HeaderValue, Method, header};

use crate::config::RestConfig;

const METHODS: &str = "GET, POST, PATCH, PUT, DELETE, OPTIONS, HEAD";
const EXPOSED: &str = "Content-Encoding, Content-Location, Content-Range, Content-Type, Date, Location, Server, \
                       Transfer-Encoding, Range-Unit";
/// Headers that every preflight allows beside those that it asks for.
const ALWAYS_ALLOWED: [&str; 3] = ["Accept", "Accept-Language", "Content-Language"];
const MAX_AGE: &str = "86400";

/// What is to be done about the origin of a request.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Cors {
    /// No origin, or one that is not allowed: answer as if there were none.
    None,
    /// Add these headers to the answer.
    Headers(HeaderMap),
    /// Answer 200 with these headers and no body, and look no further.
    Preflight(HeaderMap),
}

impl Cors {
    /// Decides by the request's headers and `server-cors-allowed-origins`.
    pub fn decide(method: &Method, request: &HeaderMap, config: &RestConfig) -> Self {
        let Some(origin) = request.get(header::ORIGIN) else { return Self::None };
        let mut headers = HeaderMap::new();
        match &config.cors_origins {
            Some(allowed) if !allowed.is_empty() => {
                if !allowed.iter().any(|allowed| allowed.as_bytes() == origin.as_bytes()) {
                    return Self::None;
                }
                headers.insert(header::ACCESS_CONTROL_ALLOW_ORIGIN, origin.clone());
                headers.insert(header::ACCESS_CONTROL_ALLOW_CREDENTIALS, HeaderValue::from_static("true"));
            }
            _ => {
                headers.insert(header::ACCESS_CONTROL_ALLOW_ORIGIN, HeaderValue::from_static("*"));
            }
        }
        if method != Method::OPTIONS {
            headers.insert(header::ACCESS_CONTROL_EXPOSE_HEADERS, HeaderValue::from_static(EXPOSED));
            return Self::Headers(headers);
        }
        let wanted =
            request.get(header::ACCESS_CONTROL_REQUEST_METHOD).and_then(|method| method.to_str().ok());
        if !wanted.is_some_and(|wanted| METHODS.split(", ").any(|method| method == wanted)) {
            return Self::None;
        }
        let Ok(allowed) = HeaderValue::try_from(allowed_headers(request)) else { return Self::None };
        headers.insert(header::ACCESS_CONTROL_ALLOW_HEADERS, allowed);
        headers.insert(header::ACCESS_CONTROL_ALLOW_METHODS, HeaderValue::from_static(METHODS));
        headers.insert(header::ACCESS_CONTROL_MAX_AGE, HeaderValue::from_static(MAX_AGE));
        Self::Preflight(headers)
    }
}

/// `Authorization`, what the preflight asks for, and what is always allowed.
fn allowed_headers(request: &HeaderMap) -> String {
    let asked = request
        .get(header::ACCESS_CONTROL_REQUEST_HEADERS)
        .and_then(|value| value.to_str().ok())
        .unwrap_or_default();
    let asked = asked.split(',').map(str::trim).filter(|name| !name.is_empty());
    let mut names: Vec<&str> = Vec::new();
    for name in std::iter::once("Authorization").chain(asked).chain(ALWAYS_ALLOWED) {
        if !names.iter().any(|known| known.eq_ignore_ascii_case(name)) {
            names.push(name);
        }
    }
    names.join(", ")
}
