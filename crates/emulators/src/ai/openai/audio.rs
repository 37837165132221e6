//! `POST /audio/speech` and `/audio/transcriptions`.

use serde_json::{Value, json};

use super::super::reply::{Asked, Reply};
use super::super::shape::{Field, Kind, object};
use super::super::sound;
use super::Refusal;

const SPEECH: &[Field] = &[
    ("input", Kind::Text, true),
    ("model", Kind::Text, true),
    ("voice", Kind::Any, true),
    ("instructions", Kind::Text, false),
    ("response_format", Kind::OneOf(&["mp3", "opus", "aac", "flac", "wav", "pcm"]), false),
    ("speed", Kind::Number(0.25, 4.0), false),
    ("stream_format", Kind::OneOf(&["sse", "audio"]), false),
];

const VOICES: &[&str] = &[
    "alloy", "ash", "ballad", "coral", "echo", "fable", "nova", "onyx", "sage", "shimmer", "verse", "marin",
    "cedar",
];

/// Most characters of one request.
const MOST_CHARACTERS: usize = 4_096;
/// Largest upload.
const MOST_BYTES: usize = 25 << 20;

pub(super) fn speech(body: &Value) -> Result<Reply, Refusal> {
    object(body, "", SPEECH)?;
    let model = body["model"].as_str().unwrap_or_default();
    if !model.contains("tts") {
        return Err(Refusal::no_model(model));
    }
    let text = body["input"].as_str().unwrap_or_default();
    if text.is_empty() || text.chars().count() > MOST_CHARACTERS {
        let message = format!("Invalid 'input': expected 1 to {MOST_CHARACTERS} characters.");
        return Err(Refusal::new(400, message, Some("input"), Some("string_above_max_length")));
    }
    if let Some(voice) = body["voice"].as_str()
        && !VOICES.contains(&voice)
    {
        return Err(Refusal::invalid("voice", format!("Invalid value: '{voice}'.")));
    }
    let format = body["response_format"].as_str().unwrap_or("mp3").to_owned();
    Ok(Reply::Speech { text: text.to_owned(), format })
}

const TRANSCRIPTION: &[&str] = &[
    "file",
    "model",
    "chunking_strategy",
    "include[]",
    "language",
    "prompt",
    "response_format",
    "stream",
    "temperature",
    "timestamp_granularities[]",
];

pub(super) fn transcription(asked: &Asked<'_>) -> Result<Reply, Refusal> {
    let form = super::form(asked, TRANSCRIPTION)?;
    let model = form.text("model").ok_or_else(|| missing("model"))?;
    if !model.contains("transcribe") && model != "whisper-1" {
        return Err(Refusal::no_model(&model));
    }
    let file = form.file("file").ok_or_else(|| missing("file"))?;
    if file.len() > MOST_BYTES {
        return Err(Refusal::new(413, "Maximum content size limit (26214400) exceeded.", Some("file"), None));
    }
    let verbose = match form.text("response_format").as_deref() {
        None | Some("json") => false,
        Some("verbose_json") if model == "whisper-1" => true,
        Some(other) => {
            let message = format!("response_format '{other}' is not compatible with model '{model}'.");
            return Err(Refusal::invalid("response_format", message));
        }
    };
    let words = form.text("timestamp_granularities[]").as_deref() == Some("word");
    if words && !verbose {
        let message = "timestamp_granularities needs the response_format 'verbose_json'.";
        return Err(Refusal::invalid("timestamp_granularities", message));
    }
    let (samples, rate) = sound::decode(file).ok_or_else(|| {
        let message = "Audio file might be corrupted or unsupported (the emulator hears 16-bit mono WAV).";
        Refusal::new(400, message, Some("file"), Some("invalid_value"))
    })?;
    let seconds = samples.len() as f64 / f64::from(rate.max(1));
    if seconds < 0.1 {
        let message = "Audio file is too short. Minimum audio length is 0.1 seconds.";
        return Err(Refusal::new(400, message, Some("file"), Some("audio_too_short")));
    }
    let heard = sound::heard(&samples, rate);
    let text = heard.iter().map(|word| word.text.as_str()).collect::<Vec<_>>().join(" ");
    if !verbose {
        let (input, output) = ((seconds * 10.0) as usize, text.len().div_ceil(4));
        let usage = json!({"type": "tokens", "input_tokens": input, "output_tokens": output,
            "total_tokens": input + output,
            "input_token_details": {"audio_tokens": input, "text_tokens": 0}});
        return Ok(Reply::ok(json!({"text": text, "usage": usage})));
    }
    let words: Vec<Value> = heard
        .iter()
        .map(|word| {
            let seconds = |ms: u32| f64::from(ms) / 1_000.0;
            json!({"word": word.text, "start": seconds(word.start_ms), "end": seconds(word.end_ms)})
        })
        .collect();
    let usage = json!({"type": "duration", "seconds": seconds.ceil()});
    let mut answer = json!({"task": "transcribe", "language": "english", "duration": seconds, "text": text,
        "segments": [], "usage": usage});
    if !words.is_empty() {
        answer["words"] = words.into();
    }
    Ok(Reply::ok(answer))
}

fn missing(name: &str) -> Refusal {
    let message = format!("Missing required parameter: '{name}'.");
    Refusal::new(400, message, Some(name), Some("missing_required_parameter"))
}
