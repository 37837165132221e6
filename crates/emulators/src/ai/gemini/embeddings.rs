//! `batchEmbedContents`.

use serde_json::{Value, json};

use super::super::reply::Reply;
use super::super::shape::{Field, Kind, object};
use super::worded;

const TASKS: &[&str] = &[
    "RETRIEVAL_QUERY",
    "RETRIEVAL_DOCUMENT",
    "SEMANTIC_SIMILARITY",
    "CLASSIFICATION",
    "CLUSTERING",
    "QUESTION_ANSWERING",
    "FACT_VERIFICATION",
    "CODE_RETRIEVAL_QUERY",
];

pub(super) fn answer(body: &Value, model: &str) -> Result<Reply, String> {
    object(body, "", &[("requests", Kind::List, true)]).map_err(worded)?;
    let requests = body["requests"].as_array().map(Vec::as_slice).unwrap_or_default();
    if requests.is_empty() || requests.len() > 100 {
        return Err("* BatchEmbedContentsRequest.requests: at most 100 requests can be in one batch".into());
    }
    let mut embeddings = Vec::new();
    for (index, request) in requests.iter().enumerate() {
        let fields: &[Field] = &[
            ("model", Kind::Text, true),
            ("content", Kind::Object, true),
            ("taskType", Kind::OneOf(TASKS), false),
            ("title", Kind::Text, false),
            ("outputDimensionality", Kind::Whole(1, 3_072), false),
        ];
        object(request, &format!("requests[{index}]"), fields).map_err(worded)?;
        if request["model"] != format!("models/{model}") {
            return Err("* BatchEmbedContentsRequest.model: all models must be the same".into());
        }
        let text = request["content"]["parts"][0]["text"].as_str().unwrap_or_default();
        if text.is_empty() {
            return Err("* content: must not be empty".into());
        }
        let length = request["outputDimensionality"].as_u64().unwrap_or(3_072);
        let values: Vec<f32> = (0..length)
            .map(|at| {
                text.bytes().fold(at as u32, |sum, byte| sum.wrapping_mul(31).wrapping_add(byte.into()))
            })
            .map(|hash| (hash % 2_001) as f32 / 1_000.0 - 1.0)
            .collect();
        embeddings.push(json!({"values": values}));
    }
    Ok(Reply::ok(json!({"embeddings": embeddings})))
}
