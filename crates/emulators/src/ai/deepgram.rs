//! Deepgram: recordings and Aura speech over HTTP.

use http::{Method, StatusCode};
use serde_json::{Value, json};

use super::reply::{Asked, Reply, Vendor, id};
use super::shape::{Kind, object};
use super::sound;

/// The vendor.
pub(super) struct Deepgram;

/// Most characters of one request to Aura.
const MOST_CHARACTERS: usize = 2_000;

const LISTEN: &[&str] = &[
    "model",
    "language",
    "detect_language",
    "smart_format",
    "punctuate",
    "numerals",
    "diarize",
    "keyterm",
    "keywords",
    "utterances",
    "paragraphs",
    "encoding",
    "channels",
    "multichannel",
    "profanity_filter",
    "redact",
    "replace",
    "search",
    "tag",
    "version",
    "callback",
    "extra",
    "filler_words",
    "dictation",
    "measurements",
    "mip_opt_out",
    "topics",
    "intents",
    "sentiment",
    "summarize",
    "utt_split",
    "sample_rate",
];

const SPEAK: &[&str] = &[
    "model",
    "encoding",
    "container",
    "sample_rate",
    "bit_rate",
    "speed",
    "callback",
    "callback_method",
    "tag",
    "mip_opt_out",
];

impl Vendor for Deepgram {
    fn answer(&self, asked: &Asked<'_>) -> Reply {
        let given = asked.header("authorization").and_then(|value| value.strip_prefix("Token "));
        match (given, &asked.options.api_key) {
            (None, _) => return refuse(401, "INVALID_AUTH", "Invalid credentials."),
            (Some(given), Some(key)) if given != key => {
                return refuse(401, "INVALID_AUTH", "Invalid credentials.");
            }
            _ => {}
        }
        match (asked.method, asked.path) {
            (&Method::GET, "/v1/projects") => {
                Reply::ok(json!({"projects": [{"project_id": id(""), "name": "emulated"}]}))
            }
            (&Method::GET, "/v1/models") => Reply::ok(json!({
                "stt": [{"name": "nova-3", "canonical_name": "nova-3", "architecture": "nova-3"}],
                "tts": [{"name": "thalia", "canonical_name": "aura-2-thalia-en", "architecture": "aura-2"}],
            })),
            (&Method::POST, "/v1/listen") => {
                listen(asked).unwrap_or_else(|message| refuse(400, "Bad Request", &message))
            }
            (&Method::POST, "/v1/speak") => {
                speak(asked).unwrap_or_else(|message| refuse(400, "Bad Request", &message))
            }
            _ => refuse(404, "NOT_FOUND", "The requested resource was not found."),
        }
    }

    fn error(&self, status: StatusCode) -> Value {
        let (code, message) = match status.as_u16() {
            401 => ("INVALID_AUTH", "Invalid credentials."),
            402 => ("ASR_PAYMENT_REQUIRED", "Project does not have enough credits."),
            429 => ("TOO_MANY_REQUESTS", "Too many requests. Please try again later."),
            _ => ("INTERNAL_SERVER_ERROR", "Something went wrong."),
        };
        json!({"err_code": code, "err_msg": message, "request_id": id("")})
    }

    fn stream_error(&self) -> String {
        String::new()
    }

    fn request_id_header(&self) -> &'static str {
        "dg-request-id"
    }
}

fn refuse(status: u16, code: &str, message: &str) -> Reply {
    let status = StatusCode::from_u16(status).unwrap_or(StatusCode::BAD_REQUEST);
    Reply::Json(status, json!({"err_code": code, "err_msg": message, "request_id": id("")}))
}

fn known(asked: &Asked<'_>, names: &[&str]) -> Result<(), String> {
    let mut given = url::form_urlencoded::parse(asked.query.as_bytes());
    match given.find(|(name, _)| !names.contains(&name.as_ref())) {
        None => Ok(()),
        Some((name, _)) => Err(format!("Unexpected query parameter: {name}.")),
    }
}

fn listen(asked: &Asked<'_>) -> Result<Reply, String> {
    known(asked, LISTEN)?;
    let model = asked.query("model").unwrap_or_else(|| "base".into());
    if !["nova", "base", "enhanced", "whisper"].iter().any(|family| model.starts_with(family)) {
        return Err(format!("No such model/language/tier combination found: {model}."));
    }
    if asked.query("keyterm").is_some() && !model.starts_with("nova-3") {
        return Err("Keyterm is only supported by Nova-3.".into());
    }
    if asked.query("keywords").is_some() && model.starts_with("nova-3") {
        return Err("Keywords are not supported by Nova-3. Use keyterm instead.".into());
    }
    if asked.query("language").is_some() && asked.query("detect_language").as_deref() == Some("true") {
        return Err("language and detect_language cannot be used together.".into());
    }
    let broken = "Bad Request: failed to process audio: corrupt or unsupported data";
    let (samples, rate) = sound::decode(asked.body).ok_or(broken)?;
    let heard = sound::heard(&samples, rate);
    let words: Vec<Value> = heard
        .iter()
        .map(|word| {
            let plain: String = word.text.to_lowercase().chars().filter(|c| c.is_alphanumeric()).collect();
            let seconds = |ms: u32| f64::from(ms) / 1_000.0;
            json!({"word": plain, "punctuated_word": word.text, "start": seconds(word.start_ms),
                "end": seconds(word.end_ms), "confidence": 0.99})
        })
        .collect();
    let transcript = heard.iter().map(|word| word.text.as_str()).collect::<Vec<_>>().join(" ");
    let mut channel =
        json!({"alternatives": [{"transcript": transcript, "confidence": 0.99, "words": words}]});
    if asked.query("detect_language").as_deref() == Some("true") {
        channel["detected_language"] = "en".into();
    }
    let duration = samples.len() as f64 / f64::from(rate);
    Ok(Reply::ok(json!({
        "metadata": {"transaction_key": "deprecated", "request_id": id(""), "sha256": "", "duration": duration,
            "created": "2026-11-21T12:00:00.000Z", "channels": 1, "models": [], "model_info": {}},
        "results": {"channels": [channel]},
    })))
}

fn speak(asked: &Asked<'_>) -> Result<Reply, String> {
    known(asked, SPEAK)?;
    let body = asked.json()?;
    object(&body, "", &[("text", Kind::Text, true)])
        .map_err(|problem| format!("{}: invalid", problem.path))?;
    let text = body["text"].as_str().unwrap_or_default();
    if text.trim().is_empty() || text.chars().count() > MOST_CHARACTERS {
        return Err(format!("Input text exceeds maximum character limit of {MOST_CHARACTERS}, or is empty."));
    }
    let model = asked.query("model").unwrap_or_else(|| "aura-asteria-en".into());
    if !model.starts_with("aura-") {
        return Err(format!("No such model: {model}."));
    }
    let (encoding, container) = (asked.query("encoding"), asked.query("container"));
    let rate = asked.query("sample_rate");
    let format = match (encoding.as_deref().unwrap_or("mp3"), container.as_deref()) {
        ("linear16", Some("none")) => format!("pcm_{}", rate.unwrap_or_else(|| "24000".into())),
        ("linear16", None | Some("wav")) => format!("wav_{}", rate.unwrap_or_else(|| "24000".into())),
        ("mulaw", Some("none")) => "ulaw_8000".into(),
        ("opus", None | Some("ogg")) if rate.is_none() => "opus".into(),
        (other @ ("mp3" | "flac" | "aac"), None) if rate.is_none() || other == "flac" => other.into(),
        (encoding, container) => {
            return Err(format!("Unsupported audio format: encoding {encoding}, container {container:?}."));
        }
    };
    Ok(Reply::Speech { text: text.to_owned(), format })
}
