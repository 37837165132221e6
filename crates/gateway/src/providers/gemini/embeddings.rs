//! `batchEmbedContents`.

use async_trait::async_trait;
use http::Method;
use serde::Deserialize;
use serde_json::{Value, json};

use super::{Gemini, explain};
use crate::Error;
use crate::embeddings::{EmbeddingRequest, Embeddings, Purpose};
use crate::providers::openai::checked_vectors;
use crate::providers::{Attempt, Embedding};
use crate::usage::Usage;

#[derive(Deserialize)]
struct Answer {
    embeddings: Vec<Values>,
}

#[derive(Deserialize)]
struct Values {
    values: Vec<f32>,
}

#[async_trait]
impl Embedding for Gemini {
    async fn embed(&self, request: &EmbeddingRequest, attempt: &Attempt) -> Result<Embeddings, Error> {
        let model = attempt.model.strip_prefix("models/").unwrap_or(&attempt.model);
        let task = match request.purpose {
            Purpose::Document => "RETRIEVAL_DOCUMENT",
            Purpose::Query => "RETRIEVAL_QUERY",
        };
        let one = |text: &String| {
            let mut one = json!({
                "model": format!("models/{model}"),
                "content": {"parts": [{"text": text}]},
                "taskType": task,
            });
            if let Some(dimensions) = request.dimensions {
                one["outputDimensionality"] = dimensions.into();
            }
            one
        };
        let requests: Value = request.texts.iter().map(one).collect();
        let path = Self::model_path(attempt, "batchEmbedContents");
        let post = self.request(Method::POST, attempt, &path).json(&json!({"requests": requests}));
        let answer: Answer = self.wire.send(post, attempt, explain).await?.json().await?;
        let vectors = answer.embeddings.into_iter().map(|values| values.values).collect();
        let input_tokens = request.texts.iter().map(|text| Usage::estimate_tokens(text)).sum();
        Ok(Embeddings {
            vectors: checked_vectors(vectors, request.texts.len(), attempt)?,
            // The protocol does not say.
            usage: Usage { input_tokens, estimated: true, ..Usage::default() },
        })
    }
}
