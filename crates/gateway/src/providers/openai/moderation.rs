//! `POST /moderations`.

use std::collections::BTreeMap;

use async_trait::async_trait;
use serde::Deserialize;
use serde_json::{Value, json};

use super::completions::picture_url;
use super::{OpenAi, explain};
use crate::Error;
use crate::error::Fault;
use crate::moderation::{Category, Moderation, ModerationRequest, Verdict};
use crate::providers::wire::Context;
use crate::providers::{Attempt, Moderating};
use crate::usage::Usage;

#[derive(Deserialize)]
struct Answer {
    results: Vec<WrittenVerdict>,
}

#[derive(Deserialize)]
struct WrittenVerdict {
    flagged: bool,
    /// Categories of older models may be null for newer ones' names.
    categories: BTreeMap<String, Option<bool>>,
    category_scores: BTreeMap<String, Option<f32>>,
}

#[async_trait]
impl Moderating for OpenAi {
    async fn moderate(&self, request: &ModerationRequest, attempt: &Attempt) -> Result<Moderation, Error> {
        let (input, expected): (Value, usize) = match &request.picture {
            None => (json!(request.texts), request.texts.len()),
            Some(picture) => {
                let mut parts: Vec<Value> =
                    request.texts.iter().map(|text| json!({"type": "text", "text": text})).collect();
                parts.push(json!({"type": "image_url", "image_url": {"url": picture_url(picture)}}));
                (parts.into(), 1)
            }
        };
        let post = self.post(attempt, "moderations").json(&json!({"model": &*attempt.model, "input": input}));
        let answer: Answer = self.wire.send(post, attempt, explain).await?.json().await?;
        if answer.results.len() != expected {
            let message = format!("{} verdicts came for {expected} inputs", answer.results.len());
            return Err(Context::of(attempt).fail(Fault::Malformed, message).into());
        }
        let verdicts = answer.results.into_iter().map(Verdict::from).collect();
        Ok(Moderation { verdicts, usage: Usage::default() })
    }
}

impl From<WrittenVerdict> for Verdict {
    fn from(written: WrittenVerdict) -> Self {
        let categories = written.categories.into_iter().map(|(name, flagged)| {
            let score = written.category_scores.get(&name).copied().flatten().unwrap_or_default();
            Category { flagged: flagged.unwrap_or_default(), score, name }
        });
        Self { flagged: written.flagged, categories: categories.collect() }
    }
}
