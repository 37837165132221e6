//! xAI's dialect, translated into the one that the rest of this emulator speaks.

use serde_json::{Map, Value, json};

use super::validate::ApiError;

const VOICES: &[&str] = &["ara", "rex", "sal", "eve", "leo"];

fn unknown(path: &str) -> ApiError {
    ApiError::new("unknown_parameter", format!("Unknown parameter: '{path}'."), Some(path))
}

fn only(value: &Value, path: &str, names: &[&str]) -> Result<(), ApiError> {
    let found = value.as_object().into_iter().flatten().find(|(name, _)| !names.contains(&name.as_str()));
    found.map_or(Ok(()), |(name, _)| Err(unknown(&format!("{path}.{name}"))))
}

/// Judges what is xAI's own, and puts it where `OpenAI` has it.
pub(super) fn translate(event: &mut Value) -> Result<(), ApiError> {
    match event["type"].as_str().unwrap_or_default() {
        "conversation.item.truncate" | "conversation.item.retrieve" => {
            return Err(ApiError::new("unknown_event", "This event is not supported.", Some("type")));
        }
        "session.update" => {}
        _ => return Ok(()),
    }
    let Some(session) = event.get_mut("session").and_then(Value::as_object_mut) else { return Ok(()) };
    let given = Value::Object(session.clone());
    only(&given, "session", &["voice", "instructions", "turn_detection", "tools", "audio", "resumption"])?;
    only(&given["audio"], "session.audio", &["input", "output"])?;
    for side in ["input", "output"] {
        only(&given["audio"][side], &format!("session.audio.{side}"), &["format", "transport"])?;
    }
    let detection = &given["turn_detection"];
    only(
        detection,
        "session.turn_detection",
        &["type", "threshold", "prefix_padding_ms", "silence_duration_ms"],
    )?;
    if let Some(voice) = given["voice"].as_str()
        && !VOICES.contains(&voice.to_lowercase().as_str())
    {
        return Err(ApiError::value("session.voice", format!("Invalid voice '{voice}'.")));
    }
    let mut input = Map::new();
    input.insert("transcription".into(), json!({"model": "gpt-transcribe"}));
    if given.get("turn_detection").is_some() {
        input.insert("turn_detection".into(), detection.clone());
    }
    let mut audio = json!({"input": input, "output": {}});
    for side in ["input", "output"] {
        let format = &given["audio"][side]["format"];
        if !format.is_null() {
            audio[side]["format"] = format.clone();
        }
    }
    session.retain(|name, _| matches!(name.as_str(), "instructions" | "tools"));
    session.insert("type".into(), json!("realtime"));
    session.insert("audio".into(), audio);
    Ok(())
}
