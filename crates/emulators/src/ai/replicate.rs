//! Replicate: predictions of pictures.
//!
//! A prompt with the word `slow` is ready at the second look, with `stuck` never; with `nsfw` it fails.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use http::{Method, StatusCode};
use serde_json::{Value, json};

use super::reply::{Asked, PIXEL, Reply, Vendor};
use super::shape::{Field, Kind, Problem, object};

/// The vendor.
pub(super) struct Replicate;

impl Vendor for Replicate {
    fn answer(&self, asked: &Asked<'_>) -> Reply {
        // Pictures lie elsewhere, and their addresses are the key.
        if asked.path == "/delivery/out.png" && asked.method == Method::GET {
            if asked.header("authorization").is_some() {
                return refuse(400, "A key was sent to an address that is not the vendor's interface.");
            }
            return Reply::File { mime: "image/png", bytes: STANDARD.decode(PIXEL).unwrap_or_default() };
        }
        let given = asked.header("authorization").and_then(|value| value.strip_prefix("Bearer "));
        match (given, &asked.options.api_key) {
            (None, _) => return refuse(401, "You did not pass an authentication token"),
            (Some(given), Some(key)) if given != key => {
                return refuse(401, "You did not pass a valid authentication token");
            }
            _ => {}
        }
        let path: Vec<&str> = asked.path.trim_start_matches("/v1/").split('/').collect();
        match (asked.method, path.as_slice()) {
            (&Method::GET, ["account"]) => Reply::ok(
                json!({"type": "user", "username": "emulated", "name": "Emulated", "github_url": ""}),
            ),
            (&Method::POST, ["predictions"]) => created(create(asked, true)),
            (&Method::POST, ["models", owner, _, "predictions"]) if *owner != "nobody" => {
                created(create(asked, false))
            }
            (&Method::GET, ["predictions", id]) => {
                let status = if id.starts_with("stuck") { "processing" } else { "succeeded" };
                Reply::ok(prediction(asked, id, status))
            }
            (&Method::POST, ["predictions", id, "cancel"]) => Reply::ok(prediction(asked, id, "canceled")),
            _ => refuse(404, "The requested resource could not be found."),
        }
    }

    fn error(&self, status: StatusCode) -> Value {
        let detail = match status.as_u16() {
            402 => "You have insufficient credit to run this model.",
            429 => "Request was throttled. Expected available in 1 second.",
            _ => "An internal error occurred.",
        };
        json!({"title": status.canonical_reason().unwrap_or_default(), "detail": detail, "status": status.as_u16()})
    }

    fn stream_error(&self) -> String {
        String::new()
    }

    fn request_id_header(&self) -> &'static str {
        "x-request-id"
    }
}

fn refuse(status: u16, detail: &str) -> Reply {
    let status = StatusCode::from_u16(status).unwrap_or(StatusCode::BAD_REQUEST);
    Reply::Json(
        status,
        json!({"title": status.canonical_reason(), "detail": detail, "status": status.as_u16()}),
    )
}

fn created(answered: Result<Value, String>) -> Reply {
    match answered {
        Ok(prediction) => Reply::Json(StatusCode::CREATED, prediction),
        Err(detail) => refuse(422, &detail),
    }
}

fn create(asked: &Asked<'_>, versioned: bool) -> Result<Value, String> {
    let body = asked.json()?;
    let worded = |problem: Problem| format!("- {}: {:?}", problem.path, problem.what);
    let fields: &[Field] = &[
        ("input", Kind::Object, true),
        ("version", Kind::Text, versioned),
        ("stream", Kind::Flag, false),
        ("webhook", Kind::Text, false),
        ("webhook_events_filter", Kind::List, false),
    ];
    object(&body, "", fields).map_err(worded)?;
    let input = &body["input"];
    for name in ["width", "height"] {
        if input[name].as_u64().is_some_and(|side| side % 8 != 0 || side > 2_048) {
            return Err(format!("- input.{name}: must be a multiple of 8, at most 2048"));
        }
    }
    let prompt = input["prompt"].as_str().ok_or("- input: prompt is required")?;
    let waits = asked.header("prefer").is_some_and(|prefer| prefer.starts_with("wait"));
    let (id, status) = if prompt.contains("stuck") {
        ("stuck0emulated", "starting")
    } else if prompt.contains("slow") || !waits {
        ("slow0emulated", "starting")
    } else if prompt.contains("nsfw") {
        ("failed0emulated", "failed")
    } else {
        ("fast0emulated", "succeeded")
    };
    Ok(prediction(asked, id, status))
}

fn prediction(asked: &Asked<'_>, id: &str, status: &str) -> Value {
    let host = asked.header("host").unwrap_or_default();
    let mut prediction = json!({
        "id": id, "model": "emulated/model", "version": "hidden", "input": {}, "logs": "", "output": null,
        "data_removed": false, "error": null, "status": status, "created_at": "2026-11-21T12:00:00Z",
        "urls": {"get": format!("http://{host}/replicate/v1/predictions/{id}"),
            "cancel": format!("http://{host}/replicate/v1/predictions/{id}/cancel")},
    });
    match status {
        "succeeded" => prediction["output"] = json!([format!("http://{host}/replicate/delivery/out.png")]),
        "failed" => prediction["error"] = "NSFW content detected. Try running it again.".into(),
        _ => {}
    }
    prediction
}
