//! `POST /images/generations` and `/images/edits`.

use serde_json::{Value, json};

use super::super::reply::{Asked, PIXEL, Reply, now, tokens};
use super::super::shape::{Field, Kind, object};
use super::Refusal;

const GENERATION: &[Field] = &[
    ("prompt", Kind::Text, true),
    ("background", Kind::OneOf(&["transparent", "opaque", "auto"]), false),
    ("model", Kind::Text, false),
    ("moderation", Kind::OneOf(&["low", "auto"]), false),
    ("n", Kind::Whole(1, 10), false),
    ("output_compression", Kind::Whole(0, 100), false),
    ("output_format", Kind::OneOf(&["png", "jpeg", "webp"]), false),
    ("partial_images", Kind::Whole(0, 3), false),
    ("quality", Kind::OneOf(&["standard", "hd", "low", "medium", "high", "auto"]), false),
    ("response_format", Kind::OneOf(&["url", "b64_json"]), false),
    ("size", Kind::Text, false),
    ("stream", Kind::Flag, false),
    ("style", Kind::OneOf(&["vivid", "natural"]), false),
    ("user", Kind::Text, false),
];

const EDIT: &[&str] = &[
    "image",
    "image[]",
    "prompt",
    "background",
    "input_fidelity",
    "mask",
    "model",
    "n",
    "output_compression",
    "output_format",
    "partial_images",
    "quality",
    "response_format",
    "size",
    "stream",
    "user",
];

const SIZES: &[&str] = &["auto", "1024x1024", "1536x1024", "1024x1536"];

pub(super) fn generation(body: &Value) -> Result<Reply, Refusal> {
    object(body, "", GENERATION)?;
    let model = body["model"].as_str().unwrap_or("dall-e-2");
    if !model.contains("image") && !model.starts_with("dall-e") {
        return Err(Refusal::no_model(model));
    }
    let dalle = model.starts_with("dall-e");
    if !dalle && !body["response_format"].is_null() {
        let message = "Unknown parameter: 'response_format'.";
        return Err(Refusal::new(400, message, Some("response_format"), Some("unknown_parameter")));
    }
    if dalle && !body["output_format"].is_null() {
        let message = "Unknown parameter: 'output_format'.";
        return Err(Refusal::new(400, message, Some("output_format"), Some("unknown_parameter")));
    }
    if model == "dall-e-3" && body["n"].as_u64().unwrap_or(1) > 1 {
        return Err(Refusal::invalid("n", "You must provide n=1 for this model."));
    }
    let size = body["size"].as_str().unwrap_or("auto");
    if !dalle && !SIZES.contains(&size) {
        return Err(Refusal::invalid("size", format!("Invalid value: '{size}'.")));
    }
    let prompt = body["prompt"].as_str().unwrap_or_default();
    made(
        prompt,
        if dalle { 4_000 } else { 32_000 },
        body["n"].as_u64().unwrap_or(1),
        body["output_format"].as_str(),
    )
}

pub(super) fn edit(asked: &Asked<'_>) -> Result<Reply, Refusal> {
    let form = super::form(asked, EDIT)?;
    if form.file("image").or(form.file("image[]")).is_none() {
        let message = "Missing required parameter: 'image'.";
        return Err(Refusal::new(400, message, Some("image"), Some("missing_required_parameter")));
    }
    let prompt = form.text("prompt").unwrap_or_default();
    let count = form.text("n").and_then(|n| n.parse().ok()).unwrap_or(1);
    made(&prompt, 32_000, count, form.text("output_format").as_deref())
}

fn made(prompt: &str, most: usize, count: u64, format: Option<&str>) -> Result<Reply, Refusal> {
    if prompt.is_empty() || prompt.chars().count() > most {
        let message = format!("Invalid 'prompt': expected 1 to {most} characters.");
        return Err(Refusal::new(400, message, Some("prompt"), Some("string_above_max_length")));
    }
    if prompt.to_lowercase().contains("gore") {
        let message = "Your request was rejected by the safety system.";
        return Err(Refusal::new(400, message, None, Some("moderation_blocked")));
    }
    let image = json!({"b64_json": PIXEL});
    let data: Vec<Value> = (0..count).map(|_| image.clone()).collect();
    let (input, output) = (tokens(prompt), 272 * count);
    Ok(Reply::ok(json!({
        "created": now(), "background": "opaque", "output_format": format.unwrap_or("png"), "quality": "low",
        "size": "1024x1024", "data": data,
        "usage": {"input_tokens": input, "output_tokens": output, "total_tokens": input as u64 + output,
            "input_tokens_details": {"text_tokens": input, "image_tokens": 0}},
    })))
}
