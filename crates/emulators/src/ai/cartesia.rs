//! Cartesia: speech over HTTP.

use http::{Method, StatusCode};
use serde_json::{Value, json};

use super::reply::{Asked, Reply, Vendor, id};
use super::shape::{Field, Kind, Problem, object};

/// The vendor.
pub(super) struct Cartesia;

/// Versions of the interface that it still speaks.
const VERSIONS: &[&str] = &["2024-06-10", "2024-11-13", "2025-04-16", "2026-03-01", "2026-08-14"];

const SPEECH: &[Field] = &[
    ("model_id", Kind::Text, true),
    ("transcript", Kind::Text, true),
    ("voice", Kind::Object, true),
    ("output_format", Kind::Object, true),
    ("language", Kind::Text, false),
    ("generation_config", Kind::Object, false),
    ("save", Kind::Flag, false),
    ("pronunciation_dict_id", Kind::Text, false),
    ("speed", Kind::OneOf(&["slow", "normal", "fast"]), false),
];

impl Vendor for Cartesia {
    fn answer(&self, asked: &Asked<'_>) -> Reply {
        let bearer = asked.header("authorization").and_then(|value| value.strip_prefix("Bearer "));
        match (asked.header("x-api-key").or(bearer), &asked.options.api_key) {
            (Some(given), Some(key)) if given != key => {
                return refuse(401, "unauthorized", "Invalid API key");
            }
            (None, _) => return refuse(401, "unauthorized", "API key is missing"),
            _ => {}
        }
        if !asked.header("cartesia-version").is_some_and(|version| VERSIONS.contains(&version)) {
            return refuse(400, "invalid_version", "The header Cartesia-Version is missing or unknown");
        }
        match (asked.method, asked.path) {
            (&Method::GET, "/voices") => {
                let voice =
                    json!({"id": "694f9389-aac1-45b6-b726-9d9369183238", "name": "Sarah", "language": "en"});
                Reply::ok(json!({"data": [voice], "has_more": false, "next_page": null}))
            }
            (&Method::POST, "/tts/bytes") => {
                speak(asked).unwrap_or_else(|message| refuse(400, "invalid_request", &message))
            }
            _ => refuse(404, "not_found", "Not found"),
        }
    }

    fn error(&self, status: StatusCode) -> Value {
        let (code, message) = match status.as_u16() {
            402 => ("quota_exceeded", "You are out of credits"),
            429 => ("concurrency_limited", "Too many concurrent requests"),
            _ => ("internal_error", "Internal error"),
        };
        json!({"error_code": code, "title": message, "message": message, "request_id": id("")})
    }

    fn stream_error(&self) -> String {
        String::new()
    }

    fn request_id_header(&self) -> &'static str {
        "x-request-id"
    }
}

fn refuse(status: u16, code: &str, message: &str) -> Reply {
    let status = StatusCode::from_u16(status).unwrap_or(StatusCode::BAD_REQUEST);
    Reply::Json(
        status,
        json!({"error_code": code, "title": message, "message": message, "request_id": id("")}),
    )
}

fn speak(asked: &Asked<'_>) -> Result<Reply, String> {
    let body = asked.json()?;
    let worded = |problem: Problem| format!("invalid value for {}: {:?}", problem.path, problem.what);
    object(&body, "", SPEECH).map_err(worded)?;
    if !body["model_id"].as_str().is_some_and(|model| model.starts_with("sonic")) {
        return Err("model not found".into());
    }
    let fields: &[Field] = &[("mode", Kind::OneOf(&["id"]), true), ("id", Kind::Text, true)];
    object(&body["voice"], "voice", fields).map_err(worded)?;
    if uuid::Uuid::parse_str(body["voice"]["id"].as_str().unwrap_or_default()).is_err() {
        return Err("voice id must be a UUID".into());
    }
    if !body["generation_config"].is_null() {
        let fields: &[Field] = &[
            ("speed", Kind::Number(0.6, 1.5), false),
            ("volume", Kind::Number(0.5, 2.0), false),
            ("emotion", Kind::Text, false),
        ];
        object(&body["generation_config"], "generation_config", fields).map_err(worded)?;
    }
    let output = &body["output_format"];
    let rate = ("sample_rate", Kind::Whole(8_000, 48_000), true);
    let container = ("container", Kind::OneOf(&["raw", "wav", "mp3"]), true);
    let hertz = output["sample_rate"].as_i64().unwrap_or_default();
    let format = if output["container"] == "mp3" {
        let bits = ("bit_rate", Kind::Whole(32_000, 192_000), true);
        object(output, "output_format", &[container, rate, bits]).map_err(worded)?;
        "mp3".to_owned()
    } else {
        let encoding = Kind::OneOf(&["pcm_s16le", "pcm_f32le", "pcm_mulaw", "pcm_alaw"]);
        object(output, "output_format", &[container, rate, ("encoding", encoding, true)]).map_err(worded)?;
        match (output["container"].as_str(), output["encoding"].as_str()) {
            (Some("raw"), Some("pcm_s16le")) => format!("pcm_{hertz}"),
            (Some("raw"), Some("pcm_mulaw")) if hertz == 8_000 => "ulaw_8000".into(),
            (Some("wav"), Some("pcm_s16le")) => format!("wav_{hertz}"),
            _ => return Err("the emulator does not make this output_format".into()),
        }
    };
    let text = body["transcript"].as_str().unwrap_or_default();
    if text.trim().is_empty() {
        return Err("transcript must not be empty".into());
    }
    Ok(Reply::Speech { text: text.to_owned(), format })
}
