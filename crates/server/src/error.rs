//! The one error shape of Longhouse's own endpoints, and the errors of starting to listen.

use std::net::SocketAddr;

use axum::Json;
use axum::response::{IntoResponse, Response};
use http::header::{HeaderValue, RETRY_AFTER};
use http::{HeaderName, StatusCode};
use serde::Serialize;

/// Why the front door could not open.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// Another process listens on the port.
    #[error(
        "port {port} on {host} is already in use: stop the other process (`longhouse stop` when it is a Longhouse) or choose another port with `--port N` or PORT",
        port = .0.port(), host = .0.ip()
    )]
    PortBusy(SocketAddr),
    /// Ports below 1024 need a privilege.
    #[error(
        "not allowed to listen on port {port}: use a port above 1023 and a proxy in front, or grant CAP_NET_BIND_SERVICE",
        port = .0.port()
    )]
    NotPermitted(SocketAddr),
    /// The address does not belong to this machine.
    #[error("{} is not an address of this machine: set server.host to 127.0.0.1, 0.0.0.0 or one of its own", .0.ip())]
    NoSuchAddress(SocketAddr),
    /// Anything else that the system says.
    #[error("cannot listen on {address}: {source}; check server.host and server.port")]
    Bind {
        /// Where it should have listened.
        address: SocketAddr,
        /// The system's reason.
        source: std::io::Error,
    },
}

impl Error {
    pub(crate) fn bind(address: SocketAddr, source: std::io::Error) -> Self {
        match source.kind() {
            std::io::ErrorKind::AddrInUse => Self::PortBusy(address),
            std::io::ErrorKind::PermissionDenied => Self::NotPermitted(address),
            std::io::ErrorKind::AddrNotAvailable => Self::NoSuchAddress(address),
            _ => Self::Bind { address, source },
        }
    }
}

/// An error response of our own endpoints: `{"code", "message", "hint"?}`.
///
/// `message` and `hint` are the keys that Supabase clients read, so their error objects stay useful here.
#[derive(Debug, Clone, Serialize)]
pub struct ApiError {
    #[serde(skip)]
    status: StatusCode,
    code: &'static str,
    message: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    hint: Option<String>,
    #[serde(skip)]
    headers: Vec<(HeaderName, HeaderValue)>,
}

impl ApiError {
    /// An error with a machine-readable code and a message for people.
    pub fn new(status: StatusCode, code: &'static str, message: impl Into<String>) -> Self {
        Self { status, code, message: message.into(), hint: None, headers: Vec::new() }
    }

    /// Says what to do about it.
    #[must_use]
    pub fn hint(mut self, hint: impl Into<String>) -> Self {
        self.hint = Some(hint.into());
        self
    }

    /// Adds `Retry-After` in seconds.
    #[must_use]
    pub fn retry_after(self, seconds: u64) -> Self {
        self.header(RETRY_AFTER, HeaderValue::from(seconds))
    }

    /// Adds a response header.
    #[must_use]
    pub fn header(mut self, name: HeaderName, value: HeaderValue) -> Self {
        self.headers.push((name, value));
        self
    }

    /// HTTP status that it is sent with.
    pub fn status(&self) -> StatusCode {
        self.status
    }

    pub(crate) fn not_found() -> Self {
        Self::new(StatusCode::NOT_FOUND, "not_found", "nothing is served at this path")
            .hint("check the path against /openapi.json")
    }

    pub(crate) fn method_not_allowed() -> Self {
        Self::new(
            StatusCode::METHOD_NOT_ALLOWED,
            "method_not_allowed",
            "this path does not take that HTTP method",
        )
        .hint("the Allow header lists the methods it takes")
    }

    pub(crate) fn body_too_large(limit: usize) -> Self {
        Self::new(
            StatusCode::PAYLOAD_TOO_LARGE,
            "body_too_large",
            format!("the request body is larger than {limit} bytes"),
        )
        .hint("send less at once, or raise server.body_limit")
    }

    pub(crate) fn rate_limited(retry_after: u64) -> Self {
        Self::new(StatusCode::TOO_MANY_REQUESTS, "rate_limited", "too many requests from this address")
            .hint(format!("try again in {retry_after} s"))
            .retry_after(retry_after)
    }

    pub(crate) fn slow_request() -> Self {
        Self::new(StatusCode::REQUEST_TIMEOUT, "request_timeout", "the request body did not arrive in time")
            .hint("send it again over a faster connection, or in smaller parts")
            .header(http::header::CONNECTION, HeaderValue::from_static("close"))
    }

    pub(crate) fn slow_response() -> Self {
        Self::new(StatusCode::GATEWAY_TIMEOUT, "timeout", "the server took too long to answer")
            .hint("try again; if it persists, look for this request id in the server's log")
    }

    pub(crate) fn internal() -> Self {
        Self::new(StatusCode::INTERNAL_SERVER_ERROR, "internal_error", "the server failed at this request")
            .hint("look for this response's x-request-id in the server's log")
    }
}

impl IntoResponse for ApiError {
    fn into_response(self) -> Response {
        let mut response = (self.status, Json(&self)).into_response();
        response.headers_mut().extend(self.headers);
        response
    }
}
