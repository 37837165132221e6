//! Gemini, below `/v1beta`.

mod content;
mod embeddings;

use http::{Method, StatusCode};
use serde_json::{Value, json};

use super::reply::{Asked, Reply, Vendor, data};
use super::shape::{Problem, What};

/// The vendor.
pub(super) struct Gemini;

/// Largest body.
const MOST_BYTES: usize = 20 << 20;

impl Vendor for Gemini {
    fn answer(&self, asked: &Asked<'_>) -> Reply {
        if let Some(refusal) = authorise(asked) {
            return refusal;
        }
        if asked.body.len() > MOST_BYTES {
            return refuse(400, "Request payload size exceeds the limit: 20971520 bytes.");
        }
        let path = asked.path.trim_start_matches("/v1beta/");
        if asked.method == Method::GET && path == "models" {
            let model = |name: &str| json!({"name": format!("models/{name}"), "displayName": name});
            let models = ["gemini-3-flash-preview", "gemini-2.5-flash"].map(model);
            return Reply::ok(json!({"models": models}));
        }
        let Some((model, method)) = path.strip_prefix("models/").and_then(|rest| rest.split_once(':')) else {
            return refuse(404, "Requested entity was not found.");
        };
        if asked.method != Method::POST {
            return refuse(404, "Requested entity was not found.");
        }
        if !model.starts_with("gemini-") && !model.starts_with("gemma-") {
            let message = format!(
                "models/{model} is not found for API version v1beta, or is not supported for {method}."
            );
            return refuse(404, &message);
        }
        let body = match asked.json() {
            Ok(body) => body,
            Err(error) => return refuse(400, &format!("Invalid JSON payload received. {error}")),
        };
        let answered = match method {
            "generateContent" => content::answer(&body, model, false, asked),
            "streamGenerateContent" if asked.query("alt").as_deref() == Some("sse") => {
                content::answer(&body, model, true, asked)
            }
            "streamGenerateContent" => {
                Err("The emulator streams server-sent events only: add ?alt=sse".into())
            }
            "batchEmbedContents" => embeddings::answer(&body, model),
            _ => return refuse(404, "Requested entity was not found."),
        };
        answered.unwrap_or_else(|message| refuse(400, &message))
    }

    fn error(&self, status: StatusCode) -> Value {
        let (name, message) = match status.as_u16() {
            401 => ("UNAUTHENTICATED", "Request had invalid authentication credentials."),
            403 => ("PERMISSION_DENIED", "The caller does not have permission."),
            429 => ("RESOURCE_EXHAUSTED", "Resource has been exhausted (e.g. check quota)."),
            503 => ("UNAVAILABLE", "The model is overloaded. Please try again later."),
            500..=599 => ("INTERNAL", "An internal error has occurred."),
            _ => ("INVALID_ARGUMENT", "Request contains an invalid argument."),
        };
        json!({"error": {"code": status.as_u16(), "message": message, "status": name}})
    }

    fn stream_error(&self) -> String {
        data(&json!({"error": {"code": 503, "message": "The model is overloaded.", "status": "UNAVAILABLE"}}))
    }

    fn request_id_header(&self) -> &'static str {
        "x-goog-request-id"
    }
}

fn refuse(status: u16, message: &str) -> Reply {
    let name = match status {
        403 => "PERMISSION_DENIED",
        404 => "NOT_FOUND",
        _ => "INVALID_ARGUMENT",
    };
    let error = json!({"error": {"code": status, "message": message, "status": name}});
    Reply::Json(StatusCode::from_u16(status).unwrap_or(StatusCode::BAD_REQUEST), error)
}

fn authorise(asked: &Asked<'_>) -> Option<Reply> {
    let key = asked.header("x-goog-api-key").map(str::to_owned).or_else(|| asked.query("key"));
    match (key.filter(|key| !key.is_empty()), &asked.options.api_key) {
        (None, _) => {
            let message = "Method doesn't allow unregistered callers. Please use API Key or other form of API consumer identity.";
            Some(refuse(403, message))
        }
        (Some(key), Some(wanted)) if key != *wanted => {
            Some(refuse(400, "API key not valid. Please pass a valid API key."))
        }
        _ => None,
    }
}

/// In the vendor's words.
fn worded(problem: Problem) -> String {
    let path = problem.path;
    match problem.what {
        What::Unknown => {
            let (at, name) = path.rsplit_once('.').map_or(("", path.as_str()), |(at, name)| (at, name));
            let at = if at.is_empty() { String::new() } else { format!(" at '{at}'") };
            format!("Invalid JSON payload received. Unknown name \"{name}\"{at}: Cannot find field.")
        }
        What::Missing => format!("* {path}: {path} is not specified"),
        What::Kind(expected, _) => format!("Invalid value at '{path}': expected {expected}"),
        What::Bounds(bounds) => format!("Invalid value at '{path}': expected {bounds}"),
        What::Choice(_, found) => format!("Invalid value at '{path}': \"{found}\""),
        What::Other(message) => format!("* {path}: {message}"),
    }
}
