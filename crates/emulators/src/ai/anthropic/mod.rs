//! Anthropic Messages, below `/v1`.

mod messages;
mod write;

use http::{Method, StatusCode};
use serde_json::{Value, json};

use super::reply::{Asked, Reply, Vendor, named};
use super::shape::{Problem, What};

/// The vendor.
pub(super) struct Anthropic;

/// Largest body.
const MOST_BYTES: usize = 32 << 20;

impl Vendor for Anthropic {
    fn answer(&self, asked: &Asked<'_>) -> Reply {
        if let Some(refusal) = authorise(asked) {
            return refusal;
        }
        if asked.body.len() > MOST_BYTES {
            return refuse("request_too_large", "Request exceeds the maximum size");
        }
        match (asked.method, asked.path) {
            (&Method::GET, "/v1/models") => models(),
            (&Method::POST, "/v1/messages") => {
                let body = match asked.json() {
                    Ok(body) => body,
                    Err(error) => {
                        return refuse(
                            "invalid_request_error",
                            &format!("The request body is not valid JSON: {error}"),
                        );
                    }
                };
                messages::answer(&body, asked)
                    .unwrap_or_else(|message| refuse("invalid_request_error", &message))
            }
            _ => refuse("not_found_error", "Not found"),
        }
    }

    fn error(&self, status: StatusCode) -> Value {
        let (kind, message) = match status.as_u16() {
            401 => ("authentication_error", "invalid x-api-key"),
            403 => ("permission_error", "Your API key does not have permission to use the resource."),
            404 => ("not_found_error", "Not found"),
            429 => ("rate_limit_error", "This request would exceed your account's rate limit."),
            529 => ("overloaded_error", "Overloaded"),
            500..=599 => ("api_error", "Internal server error"),
            _ => ("invalid_request_error", "The request was refused."),
        };
        json!({"type": "error", "error": {"type": kind, "message": message}, "request_id": null})
    }

    fn stream_error(&self) -> String {
        named(&json!({"type": "error", "error": {"type": "overloaded_error", "message": "Overloaded"},
            "request_id": null}))
    }

    fn request_id_header(&self) -> &'static str {
        "request-id"
    }
}

fn refuse(kind: &str, message: &str) -> Reply {
    let status = match kind {
        "authentication_error" => StatusCode::UNAUTHORIZED,
        "not_found_error" => StatusCode::NOT_FOUND,
        "request_too_large" => StatusCode::PAYLOAD_TOO_LARGE,
        _ => StatusCode::BAD_REQUEST,
    };
    Reply::Json(
        status,
        json!({"type": "error", "error": {"type": kind, "message": message}, "request_id": null}),
    )
}

fn authorise(asked: &Asked<'_>) -> Option<Reply> {
    let bearer = asked.header("authorization").and_then(|value| value.strip_prefix("Bearer "));
    let key = asked.header("x-api-key").or(bearer).filter(|key| !key.is_empty());
    match (key, &asked.options.api_key) {
        (None, _) => return Some(refuse("authentication_error", "x-api-key header is required")),
        (Some(key), Some(wanted)) if key != wanted => {
            return Some(refuse("authentication_error", "invalid x-api-key"));
        }
        _ => {}
    }
    match asked.header("anthropic-version") {
        Some("2026-10-21" | "2023-06-01" | "2023-01-01") => None,
        Some(other) => {
            let message = format!("anthropic-version: \"{other}\" is not a valid version");
            Some(refuse("invalid_request_error", &message))
        }
        None => Some(refuse("invalid_request_error", "anthropic-version: header is required")),
    }
}

fn models() -> Reply {
    let model = |id: &str| json!({"type": "model", "id": id, "display_name": id, "created_at": "2026-08-01T00:00:00Z"});
    let ids = ["claude-opus-5-5", "claude-sonnet-5-5", "claude-haiku-5-5"];
    Reply::ok(json!({"data": ids.map(model), "has_more": false, "first_id": ids[0], "last_id": ids[2]}))
}

/// In the vendor's words.
fn worded(problem: Problem) -> String {
    let path = problem.path.replace('[', ".").replace(']', "");
    match problem.what {
        What::Unknown => format!("{path}: Extra inputs are not permitted"),
        What::Missing => format!("{path}: Field required"),
        What::Kind(expected, _) => format!("{path}: Input should be {expected}"),
        What::Bounds(bounds) => format!("{path}: Input should be {bounds}"),
        What::Choice(choices, _) => {
            let choices: Vec<_> = choices.iter().map(|choice| format!("'{choice}'")).collect();
            format!("{path}: Input should be {}", choices.join(" or "))
        }
        What::Other(message) => format!("{path}: {message}"),
    }
}
