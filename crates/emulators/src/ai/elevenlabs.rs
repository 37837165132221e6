//! ElevenLabs: speech and recordings over HTTP.

use http::{Method, StatusCode};
use serde_json::{Value, json};

use super::multipart::Form;
use super::reply::{Asked, Reply, Vendor};
use super::shape::{Field, Kind, Problem, What, object};
use super::sound;

/// The vendor.
pub(super) struct ElevenLabs;

/// Most characters of one request.
const MOST_CHARACTERS: usize = 10_000;

const SPEECH: &[Field] = &[
    ("text", Kind::Text, true),
    ("model_id", Kind::Text, false),
    ("language_code", Kind::Text, false),
    ("voice_settings", Kind::Object, false),
    ("pronunciation_dictionary_locators", Kind::List, false),
    ("seed", Kind::Whole(0, u32::MAX as i64), false),
    ("previous_text", Kind::Text, false),
    ("next_text", Kind::Text, false),
    ("previous_request_ids", Kind::List, false),
    ("next_request_ids", Kind::List, false),
    ("use_pvc_as_ivc", Kind::Flag, false),
    ("apply_text_normalization", Kind::OneOf(&["auto", "on", "off"]), false),
    ("apply_language_text_normalization", Kind::Flag, false),
];

const SETTINGS: &[Field] = &[
    ("stability", Kind::Number(0.0, 1.0), false),
    ("similarity_boost", Kind::Number(0.0, 1.0), false),
    ("style", Kind::Number(0.0, 1.0), false),
    ("use_speaker_boost", Kind::Flag, false),
    ("speed", Kind::Number(0.7, 1.2), false),
];

const HEARING: &[&str] = &[
    "model_id",
    "file",
    "language_code",
    "tag_audio_events",
    "num_speakers",
    "timestamps_granularity",
    "diarize",
    "diarization_threshold",
    "additional_formats",
    "file_format",
    "cloud_storage_url",
    "webhook",
    "webhook_id",
    "temperature",
    "seed",
    "use_multi_channel",
    "webhook_metadata",
    "entity_detection",
    "keyterms",
    "no_verbatim",
];

impl Vendor for ElevenLabs {
    fn answer(&self, asked: &Asked<'_>) -> Reply {
        match (asked.header("xi-api-key"), &asked.options.api_key) {
            (None, _) => {
                return refuse(
                    401,
                    "needs_authorization",
                    "Neither authorization header nor xi-api-key received.",
                );
            }
            (Some(given), Some(key)) if given != key => {
                return refuse(401, "invalid_api_key", "Invalid API key");
            }
            _ => {}
        }
        if asked.method == Method::GET && asked.path == "/v1/models" {
            return Reply::ok(json!([{"model_id": "eleven_flash_v2_5", "name": "Flash v2.5"}]));
        }
        let voice =
            asked.path.strip_prefix("/v1/text-to-speech/").and_then(|rest| rest.strip_suffix("/stream"));
        let answered = match (asked.method, voice) {
            (&Method::POST, Some(voice)) => speak(asked, voice),
            (&Method::POST, None) if asked.path == "/v1/speech-to-text" => hear(asked),
            _ => return Reply::Json(StatusCode::NOT_FOUND, json!({"detail": "Not Found"})),
        };
        answered.unwrap_or_else(|reply| reply)
    }

    fn error(&self, status: StatusCode) -> Value {
        let (name, message) = match status.as_u16() {
            401 => ("invalid_api_key", "Invalid API key"),
            429 => ("too_many_concurrent_requests", "Too many concurrent requests."),
            503 => ("system_busy", "The system is experiencing heavy traffic, please try again later."),
            _ => ("internal_error", "Something went wrong."),
        };
        json!({"detail": {"status": name, "message": message}})
    }

    fn stream_error(&self) -> String {
        String::new()
    }

    fn request_id_header(&self) -> &'static str {
        "request-id"
    }
}

fn refuse(status: u16, name: &str, message: &str) -> Reply {
    let status = StatusCode::from_u16(status).unwrap_or(StatusCode::BAD_REQUEST);
    Reply::Json(status, json!({"detail": {"status": name, "message": message}}))
}

/// The shape of the vendor's framework for requests that do not fit.
fn misfit(problem: &Problem) -> Reply {
    let message = match &problem.what {
        What::Missing => "Field required",
        What::Unknown => "Extra inputs are not permitted",
        _ => "Input is invalid",
    };
    let detail = json!([{"loc": ["body", problem.path], "msg": message, "type": "value_error"}]);
    Reply::Json(StatusCode::UNPROCESSABLE_ENTITY, json!({"detail": detail}))
}

fn speak(asked: &Asked<'_>, voice: &str) -> Result<Reply, Reply> {
    let body = asked.json().map_err(|error| refuse(400, "invalid_json", &error))?;
    object(&body, "", SPEECH).map_err(|problem| misfit(&problem))?;
    if !body["voice_settings"].is_null() {
        object(&body["voice_settings"], "voice_settings", SETTINGS).map_err(|problem| misfit(&problem))?;
    }
    if voice.len() != 20 {
        return Err(refuse(404, "voice_not_found", "A voice with the given id was not found."));
    }
    let model = body["model_id"].as_str().unwrap_or("eleven_multilingual_v2");
    if !model.starts_with("eleven_") {
        return Err(refuse(400, "model_not_found", "A model with the given id was not found."));
    }
    let text = body["text"].as_str().unwrap_or_default();
    if text.is_empty() || text.chars().count() > MOST_CHARACTERS {
        return Err(refuse(400, "max_character_limit_exceeded", "The text is empty or too long."));
    }
    let output = asked.query("output_format").unwrap_or_else(|| "mp3_44100_128".into());
    let format = match output.as_str() {
        "ulaw_8000" => output,
        pcm if pcm.starts_with("pcm_") => output,
        mp3 if mp3.starts_with("mp3_") => "mp3".into(),
        opus if opus.starts_with("opus_48000_") => "opus".into(),
        _ => return Err(refuse(400, "invalid_output_format", "The output format is not supported.")),
    };
    Ok(Reply::Speech { text: text.to_owned(), format })
}

fn hear(asked: &Asked<'_>) -> Result<Reply, Reply> {
    let form = Form::read(asked).map_err(|error| refuse(400, "invalid_form", &error))?;
    if let Some(name) = form.unknown(HEARING) {
        return Err(misfit(&Problem::new(name, What::Unknown)));
    }
    let model = form.text("model_id").ok_or_else(|| misfit(&Problem::new("model_id", What::Missing)))?;
    if !model.starts_with("scribe_") {
        return Err(refuse(400, "invalid_model_id", "The model is not supported for speech to text."));
    }
    let file = form.file("file").ok_or_else(|| misfit(&Problem::new("file", What::Missing)))?;
    let (samples, rate) =
        sound::decode(file).ok_or_else(|| refuse(400, "invalid_audio", "The audio is corrupted."))?;
    let heard = sound::heard(&samples, rate);
    let mut words = Vec::new();
    for (index, word) in heard.iter().enumerate() {
        let seconds = |ms: u32| f64::from(ms) / 1_000.0;
        if index > 0 {
            let (start, end) = (seconds(heard[index - 1].end_ms), seconds(word.start_ms));
            words.push(json!({"text": " ", "start": start, "end": end, "type": "spacing", "logprob": 0.0}));
        }
        words.push(json!({"text": word.text, "start": seconds(word.start_ms), "end": seconds(word.end_ms),
            "type": "word", "logprob": -0.01, "speaker_id": "speaker_0"}));
    }
    let text = heard.iter().map(|word| word.text.as_str()).collect::<Vec<_>>().join(" ");
    Ok(Reply::ok(json!({
        "language_code": "eng", "language_probability": 0.98, "text": text, "words": words,
        "audio_duration_secs": samples.len() as f64 / f64::from(rate),
    })))
}
