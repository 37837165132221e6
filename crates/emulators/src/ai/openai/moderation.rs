//! `POST /moderations`.

use serde_json::{Map, Value, json};

use super::super::reply::{Reply, id};
use super::super::shape::{Field, Kind, object};
use super::Refusal;

const FIELDS: &[Field] = &[("input", Kind::Any, true), ("model", Kind::Text, false)];

/// Categories, with words that the emulated model finds in them.
const CATEGORIES: &[(&str, &[&str])] = &[
    ("harassment", &["idiot", "stupid"]),
    ("harassment/threatening", &["i will hurt you"]),
    ("hate", &["hate them all"]),
    ("hate/threatening", &[]),
    ("illicit", &["build a bomb"]),
    ("illicit/violent", &["build a bomb"]),
    ("self-harm", &["kill myself"]),
    ("self-harm/instructions", &[]),
    ("self-harm/intent", &["kill myself"]),
    ("sexual", &["naked"]),
    ("sexual/minors", &[]),
    ("violence", &["kill", "stab", "murder"]),
    ("violence/graphic", &["guts"]),
];

pub(super) fn answer(body: &Value) -> Result<Reply, Refusal> {
    object(body, "", FIELDS)?;
    let model = body["model"].as_str().unwrap_or("omni-moderation-latest");
    if !model.starts_with("omni-moderation") && !model.starts_with("text-moderation") {
        return Err(Refusal::no_model(model));
    }
    let texts: Vec<String> = match &body["input"] {
        Value::String(text) => vec![text.clone()],
        Value::Array(items) if items.iter().all(Value::is_string) && !items.is_empty() => {
            items.iter().filter_map(Value::as_str).map(str::to_owned).collect()
        }
        Value::Array(parts) if !parts.is_empty() => {
            let mut whole = String::new();
            for (index, part) in parts.iter().enumerate() {
                let path = format!("input[{index}]");
                let kind = ("type", Kind::OneOf(&["text", "image_url"]), true);
                let other = match part["type"].as_str() {
                    Some("text") => ("text", Kind::Text, true),
                    _ => ("image_url", Kind::Object, true),
                };
                object(part, &path, &[kind, other])?;
                whole.push_str(part["text"].as_str().unwrap_or_default());
            }
            vec![whole]
        }
        _ => return Err(Refusal::invalid("input", "Invalid 'input'.")),
    };
    let results: Vec<Value> = texts.iter().map(|text| verdict(text)).collect();
    Ok(Reply::ok(json!({"id": id("modr-"), "model": model, "results": results})))
}

fn verdict(text: &str) -> Value {
    let text = text.to_lowercase();
    let (mut categories, mut scores, mut inputs) = (Map::new(), Map::new(), Map::new());
    let mut flagged = false;
    for (name, words) in CATEGORIES {
        let found = words.iter().any(|word| text.contains(word));
        flagged |= found;
        categories.insert((*name).into(), found.into());
        scores.insert((*name).into(), if found { 0.93 } else { 0.000_12 }.into());
        inputs.insert((*name).into(), if found { json!(["text"]) } else { json!([]) });
    }
    json!({"flagged": flagged, "categories": categories, "category_scores": scores,
        "category_applied_input_types": inputs})
}
