//! `POST /embeddings`.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde_json::{Value, json};

use super::super::reply::{Reply, tokens};
use super::super::shape::{Field, Kind, object};
use super::Refusal;

const FIELDS: &[Field] = &[
    ("input", Kind::Any, true),
    ("model", Kind::Text, true),
    ("dimensions", Kind::Whole(1, 3_072), false),
    ("encoding_format", Kind::OneOf(&["float", "base64"]), false),
    ("user", Kind::Text, false),
];

pub(super) fn answer(body: &Value) -> Result<Reply, Refusal> {
    object(body, "", FIELDS)?;
    let model = body["model"].as_str().unwrap_or_default();
    let full = match model {
        "text-embedding-3-small" | "text-embedding-ada-002" => 1_536,
        "text-embedding-3-large" => 3_072,
        _ => return Err(Refusal::no_model(model)),
    };
    let texts: Vec<&str> = match &body["input"] {
        Value::String(text) => vec![text],
        Value::Array(texts) => texts.iter().filter_map(Value::as_str).collect(),
        _ => Vec::new(),
    };
    let given = body["input"].as_array().map_or(1, Vec::len);
    if texts.is_empty() || texts.len() != given || texts.len() > 2_048 || texts.iter().any(|t| t.is_empty()) {
        return Err(Refusal::new(400, "'$.input' is invalid.", Some("input"), None));
    }
    let dimensions = match body["dimensions"].as_u64() {
        Some(_) if model.ends_with("ada-002") => {
            let message = "This model does not support specifying dimensions.";
            return Err(Refusal::new(400, message, None, None));
        }
        Some(wanted) if wanted as usize <= full => wanted as usize,
        Some(_) => return Err(Refusal::invalid("dimensions", "Invalid value for 'dimensions'.")),
        None => full,
    };
    let data: Vec<Value> = texts
        .iter()
        .enumerate()
        .map(|(index, text)| {
            let vector = vector(text, dimensions);
            let embedding = if body["encoding_format"] == "base64" {
                STANDARD.encode(vector.iter().flat_map(|x| x.to_le_bytes()).collect::<Vec<u8>>()).into()
            } else {
                json!(vector)
            };
            json!({"object": "embedding", "index": index, "embedding": embedding})
        })
        .collect();
    let tokens: usize = texts.iter().map(|text| tokens(text)).sum();
    let usage = json!({"prompt_tokens": tokens, "total_tokens": tokens});
    Ok(Reply::ok(json!({"object": "list", "data": data, "model": model, "usage": usage})))
}

/// Words in common make vectors alike.
fn vector(text: &str, dimensions: usize) -> Vec<f32> {
    let mut vector = vec![0.0_f32; dimensions];
    for word in text.to_lowercase().split_whitespace() {
        // FNV-1a: the same everywhere.
        let hash = word.bytes().fold(0xcbf2_9ce4_8422_2325_u64, |hash, byte| {
            (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3)
        });
        vector[(hash % dimensions as u64) as usize] += if hash >> 63 == 0 { 1.0 } else { -1.0 };
    }
    let length = vector.iter().map(|x| x * x).sum::<f32>().sqrt();
    if length > 0.0 {
        vector.iter_mut().for_each(|x| *x /= length);
    } else {
        vector[0] = 1.0;
    }
    vector
}
