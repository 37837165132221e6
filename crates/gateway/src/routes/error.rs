//! The one place where failures of the gateway get an HTTP shape.

use axum::http::{HeaderMap, HeaderName, HeaderValue, StatusCode};
use chrono::{DateTime, Utc};
use longhouse_server::ApiError;

use crate::Error;
use crate::error::Fault;
use crate::quotas::Standing;

/// A request that is wrong.
pub(super) fn invalid(message: impl Into<String>) -> ApiError {
    ApiError::new(StatusCode::BAD_REQUEST, "invalid_request", message)
        .hint("see the description of this path in /openapi.json")
}

/// A failure as HTTP tells it.
pub(super) fn of(error: Error) -> ApiError {
    let message = error.to_string();
    let seconds = error.retry_after().map(|wait| wait.as_secs_f64().ceil().max(1.0) as u64);
    let (status, code) = match &error {
        Error::UnknownTask(_) => (StatusCode::NOT_FOUND, "unknown_task"),
        Error::WrongModality { .. } | Error::InvalidRequest(_) => {
            (StatusCode::BAD_REQUEST, "invalid_request")
        }
        Error::Unsafe { .. } => (StatusCode::UNPROCESSABLE_ENTITY, "unsafe_content"),
        Error::Deadline { .. } => (StatusCode::GATEWAY_TIMEOUT, "deadline"),
        Error::QuotaExceeded { .. } => (StatusCode::TOO_MANY_REQUESTS, "quota_exceeded"),
        Error::Records(_) => {
            // Which store, and why, is for the log.
            tracing::error!(%error, "a request failed at the gateway's records");
            let message = "the gateway's records cannot be reached";
            return ApiError::new(StatusCode::SERVICE_UNAVAILABLE, "records", message)
                .hint("try again shortly")
                .retry_after(2);
        }
        Error::Provider(failure) | Error::Exhausted { last: failure, .. } => of_fault(failure.fault),
    };
    let mut answer = ApiError::new(status, code, message);
    if let Error::QuotaExceeded { limit, allowed, remaining, retry_after } = &error {
        let resets_at = Utc::now() + *retry_after;
        for (name, value) in rate_headers(limit, *allowed, *remaining, resets_at) {
            answer = answer.header(name, value);
        }
    }
    match seconds {
        Some(seconds) => answer.retry_after(seconds),
        None => answer,
    }
}

fn of_fault(fault: Fault) -> (StatusCode, &'static str) {
    match fault {
        Fault::InvalidRequest | Fault::ContextTooLong | Fault::Unsupported => {
            (StatusCode::BAD_REQUEST, fault.as_str())
        }
        Fault::ContentRefused => (StatusCode::UNPROCESSABLE_ENTITY, fault.as_str()),
        Fault::TimedOut(_) => (StatusCode::GATEWAY_TIMEOUT, fault.as_str()),
        Fault::NoKey
        | Fault::RateLimited
        | Fault::Overloaded
        | Fault::BreakerOpen
        | Fault::Busy
        | Fault::Unreachable => (StatusCode::SERVICE_UNAVAILABLE, fault.as_str()),
        _ => (StatusCode::BAD_GATEWAY, fault.as_str()),
    }
}

/// How the caller stands with the limit of which the smallest part is left.
pub(super) fn standing_headers(standing: Option<&Standing>) -> HeaderMap {
    let Some(standing) = standing else { return HeaderMap::new() };
    rate_headers(&standing.limit, standing.allowed, standing.remaining, standing.resets_at)
        .into_iter()
        .collect()
}

fn rate_headers(
    limit: &str,
    allowed: u64,
    remaining: u64,
    resets_at: DateTime<Utc>,
) -> Vec<(HeaderName, HeaderValue)> {
    let mut headers = vec![
        (HeaderName::from_static("x-ratelimit-limit"), HeaderValue::from(allowed)),
        (HeaderName::from_static("x-ratelimit-remaining"), HeaderValue::from(remaining)),
        (HeaderName::from_static("x-ratelimit-reset"), HeaderValue::from(resets_at.timestamp())),
    ];
    if let Ok(name) = HeaderValue::from_str(limit) {
        headers.push((HeaderName::from_static("x-ratelimit-resource"), name));
    }
    headers
}
