//! `OpenAI` over HTTP, below `/v1`.

mod audio;
mod chat;
mod embeddings;
mod images;
mod moderation;
mod responses;

use http::{Method, StatusCode};
use serde_json::{Value, json};

use super::multipart::Form;
use super::reply::{Asked, Reply, Vendor, data};
use super::shape::{Problem, What};

/// The vendor.
pub(super) struct OpenAi;

/// Largest JSON body.
const MOST_JSON: usize = 50 << 20;

impl Vendor for OpenAi {
    fn answer(&self, asked: &Asked<'_>) -> Reply {
        if let Some(refusal) = authorise(asked) {
            return refusal;
        }
        if asked.body.len() > MOST_JSON {
            return Refusal::new(413, "Request too large.", None, None).into();
        }
        let answered = match (asked.method, asked.path.trim_start_matches("/v1/")) {
            (&Method::GET, "models") => Ok(models()),
            (&Method::POST, "chat/completions") => {
                json_body(asked).and_then(|body| chat::answer(&body, asked))
            }
            (&Method::POST, "responses") => json_body(asked).and_then(|body| responses::answer(&body, asked)),
            (&Method::POST, "embeddings") => json_body(asked).and_then(|body| embeddings::answer(&body)),
            (&Method::POST, "moderations") => json_body(asked).and_then(|body| moderation::answer(&body)),
            (&Method::POST, "audio/speech") => json_body(asked).and_then(|body| audio::speech(&body)),
            (&Method::POST, "audio/transcriptions") => audio::transcription(asked),
            (&Method::POST, "images/generations") => {
                json_body(asked).and_then(|body| images::generation(&body))
            }
            (&Method::POST, "images/edits") => images::edit(asked),
            (method, path) => {
                let message = format!("Invalid URL ({method} /v1/{path})");
                Err(Refusal::new(404, message, None, None))
            }
        };
        answered.unwrap_or_else(Reply::from)
    }

    fn error(&self, status: StatusCode) -> Value {
        let (kind, code, message) = match status.as_u16() {
            429 => ("requests", json!("rate_limit_exceeded"), "Rate limit reached for requests."),
            401 => ("invalid_request_error", json!("invalid_api_key"), "Incorrect API key provided."),
            500..=599 => {
                ("server_error", Value::Null, "The server had an error while processing your request.")
            }
            _ => ("invalid_request_error", Value::Null, "The request was refused."),
        };
        json!({"error": {"message": message, "type": kind, "param": null, "code": code}})
    }

    fn stream_error(&self) -> String {
        data(&json!({"type": "error", "code": "server_error", "message": "The server is overloaded.",
            "param": null, "sequence_number": 99,
            "error": {"type": "server_error", "code": "server_error", "message": "The server is overloaded.",
            "param": null}}))
    }

    fn request_id_header(&self) -> &'static str {
        "x-request-id"
    }
}

/// A refusal in the vendor's shape.
#[derive(Debug)]
struct Refusal {
    status: u16,
    message: String,
    param: Option<String>,
    code: Option<&'static str>,
}

impl Refusal {
    fn new(status: u16, message: impl Into<String>, param: Option<&str>, code: Option<&'static str>) -> Self {
        Self { status, message: message.into(), param: param.map(str::to_owned), code }
    }

    fn invalid(param: &str, message: impl Into<String>) -> Self {
        Self::new(400, message, Some(param), Some("invalid_value"))
    }

    fn no_model(model: &str) -> Self {
        let message = format!("The model `{model}` does not exist or you do not have access to it.");
        Self::new(404, message, None, Some("model_not_found"))
    }
}

impl From<Refusal> for Reply {
    fn from(refusal: Refusal) -> Self {
        let status = StatusCode::from_u16(refusal.status).unwrap_or(StatusCode::BAD_REQUEST);
        let kind = if refusal.status >= 500 { "server_error" } else { "invalid_request_error" };
        let error =
            json!({"message": refusal.message, "type": kind, "param": refusal.param, "code": refusal.code});
        Self::Json(status, json!({"error": error}))
    }
}

impl From<Problem> for Refusal {
    fn from(problem: Problem) -> Self {
        let path = problem.path;
        let (code, message) = match problem.what {
            What::Unknown => ("unknown_parameter", format!("Unknown parameter: '{path}'.")),
            What::Missing => ("missing_required_parameter", format!("Missing required parameter: '{path}'.")),
            What::Kind(expected, found) => (
                "invalid_type",
                format!("Invalid type for '{path}': expected {expected}, but got {found} instead."),
            ),
            What::Bounds(bounds) => {
                ("invalid_value", format!("Invalid '{path}': expected a value {bounds} instead."))
            }
            What::Choice(choices, found) => {
                let choices: Vec<_> = choices.iter().map(|choice| format!("'{choice}'")).collect();
                let choices = choices.join(", ");
                ("invalid_value", format!("Invalid value: '{found}'. Supported values are: {choices}."))
            }
            What::Other(message) => ("invalid_value", message),
        };
        Self::new(400, message, Some(&path), Some(code))
    }
}

fn authorise(asked: &Asked<'_>) -> Option<Reply> {
    let token = asked.header("authorization").and_then(|value| value.strip_prefix("Bearer ")).map(str::trim);
    match (token.filter(|token| !token.is_empty()), &asked.options.api_key) {
        (None, _) => {
            let message =
                "You didn't provide an API key. Send it in an Authorization header using Bearer auth.";
            Some(Refusal::new(401, message, None, None).into())
        }
        (Some(token), Some(key)) if token != key => {
            let shown: String = token.chars().take(4).collect();
            let message = format!("Incorrect API key provided: {shown}***.");
            Some(Refusal::new(401, message, None, Some("invalid_api_key")).into())
        }
        _ => None,
    }
}

fn json_body(asked: &Asked<'_>) -> Result<Value, Refusal> {
    asked.json().map_err(|error| {
        let message = format!("We could not parse the JSON body of your request: {error}");
        Refusal::new(400, message, None, None)
    })
}

/// A form with no fields but these.
fn form<'a>(asked: &'a Asked<'_>, known: &[&str]) -> Result<Form<'a>, Refusal> {
    let form = Form::read(asked).map_err(|message| Refusal::new(400, message, None, None))?;
    match form.unknown(known) {
        None => Ok(form),
        Some(name) => {
            let message = format!("Unknown parameter: '{name}'.");
            Err(Refusal::new(400, message, Some(name), Some("unknown_parameter")))
        }
    }
}

fn models() -> Reply {
    let model =
        |id: &str| json!({"id": id, "object": "model", "created": 1_750_000_000, "owned_by": "openai"});
    let all = ["gpt-5", "gpt-5-mini", "gpt-4.1", "gpt-transcribe", "gpt-image-1", "text-embedding-3-small"];
    Reply::ok(json!({"object": "list", "data": all.map(model)}))
}

/// Models that reason have parameters of their own.
fn reasons(model: &str) -> bool {
    let digit_after_o =
        model.strip_prefix('o').and_then(|rest| rest.chars().next()).is_some_and(|c| c.is_ascii_digit());
    digit_after_o || (model.starts_with("gpt-5") && !model.contains("chat"))
}

fn is_chat_model(model: &str) -> bool {
    let other = ["transcribe", "image", "tts", "realtime", "audio"];
    let chat = reasons(model) || model.starts_with("gpt-") || model.starts_with("chatgpt-");
    chat && !other.iter().any(|kind| model.contains(kind))
}

/// Text of a message's content: a string, or parts of these types.
fn text_of(content: &Value, types: &[&str]) -> String {
    match content {
        Value::String(text) => text.clone(),
        Value::Array(parts) => {
            let texts = parts.iter().filter(|part| types.iter().any(|t| part["type"] == *t));
            texts.filter_map(|part| part["text"].as_str()).collect::<Vec<_>>().join("\n")
        }
        _ => String::new(),
    }
}
