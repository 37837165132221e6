//! `POST /embeddings`.

use async_trait::async_trait;
use serde::Deserialize;
use serde_json::json;

use super::{OpenAi, explain};
use crate::Error;
use crate::embeddings::{EmbeddingRequest, Embeddings};
use crate::error::Fault;
use crate::providers::wire::Context;
use crate::providers::{Attempt, Embedding};
use crate::usage::Usage;

#[derive(Deserialize)]
struct Answer {
    data: Vec<Datum>,
    usage: Option<WrittenUsage>,
}

#[derive(Deserialize)]
struct Datum {
    index: usize,
    embedding: Vec<f32>,
}

#[derive(Deserialize)]
struct WrittenUsage {
    prompt_tokens: u64,
}

#[async_trait]
impl Embedding for OpenAi {
    async fn embed(&self, request: &EmbeddingRequest, attempt: &Attempt) -> Result<Embeddings, Error> {
        let mut body = json!({"model": &*attempt.model, "input": request.texts, "encoding_format": "float"});
        if let Some(dimensions) = request.dimensions {
            body["dimensions"] = dimensions.into();
        }
        let post = self.post(attempt, "embeddings").json(&body);
        let mut answer: Answer = self.wire.send(post, attempt, explain).await?.json().await?;
        answer.data.sort_by_key(|datum| datum.index);
        let vectors: Vec<Vec<f32>> = answer.data.into_iter().map(|datum| datum.embedding).collect();
        checked(vectors, request.texts.len(), attempt).map(|vectors| Embeddings {
            vectors,
            usage: answer.usage.map_or_else(
                || {
                    let input_tokens = request.texts.iter().map(|text| Usage::estimate_tokens(text)).sum();
                    Usage { input_tokens, estimated: true, ..Usage::default() }
                },
                |usage| Usage { input_tokens: usage.prompt_tokens, ..Usage::default() },
            ),
        })
    }
}

/// One vector for each text, all of one length: databases rely on it.
pub(in crate::providers) fn checked(
    vectors: Vec<Vec<f32>>,
    texts: usize,
    attempt: &Attempt,
) -> Result<Vec<Vec<f32>>, Error> {
    let length = vectors.first().map_or(0, Vec::len);
    if vectors.len() != texts || length == 0 || vectors.iter().any(|vector| vector.len() != length) {
        let message = format!("{} vectors came for {texts} texts, or of different lengths", vectors.len());
        return Err(Context::of(attempt).fail(Fault::Malformed, message).into());
    }
    Ok(vectors)
}
