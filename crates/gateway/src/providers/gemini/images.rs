//! Pictures: `generateContent` with the modality `IMAGE`.

use async_trait::async_trait;
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use http::Method;
use serde::Deserialize;
use serde_json::{Value, json};

use super::request::part;
use super::stream::WrittenUsage;
use super::{Gemini, explain};
use crate::Error;
use crate::chat::Content as Asked;
use crate::error::Fault;
use crate::images::{Image, ImageRequest, Images};
use crate::media::Media;
use crate::providers::wire::Context;
use crate::providers::{Attempt, ImageMaking};
use crate::usage::Usage;

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Answer {
    #[serde(default)]
    candidates: Vec<Candidate>,
    prompt_feedback: Option<Value>,
    usage_metadata: Option<WrittenUsage>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Candidate {
    content: Option<Content>,
    finish_reason: Option<String>,
}

#[derive(Deserialize)]
struct Content {
    #[serde(default)]
    parts: Vec<Part>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Part {
    inline_data: Option<InlineData>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct InlineData {
    mime_type: String,
    data: String,
}

#[async_trait]
impl ImageMaking for Gemini {
    async fn make_images(&self, request: &ImageRequest, attempt: &Attempt) -> Result<Images, Error> {
        let mut made: Option<Images> = None;
        // The models make one picture a request.
        for _ in 0..request.count.clamp(1, 10) {
            let next = Box::pin(self.one(request, attempt)).await?;
            made = Some(match made {
                None => next,
                Some(mut before) => {
                    before.images.extend(next.images);
                    before.usage += next.usage;
                    before
                }
            });
        }
        made.ok_or_else(|| Error::InvalidRequest("ask for at least one picture".into()))
    }
}

impl Gemini {
    async fn one(&self, request: &ImageRequest, attempt: &Attempt) -> Result<Images, Error> {
        let prompt = match &request.negative_prompt {
            Some(negative) => format!("{}\n\nDo not show: {negative}.", request.prompt),
            None => request.prompt.clone(),
        };
        let mut parts = vec![json!({"text": prompt})];
        parts.extend(request.references.iter().map(|picture| part(&Asked::Picture(picture.clone()))));
        let mut config = json!({"responseModalities": ["IMAGE"]});
        if let Some(size) = request.size {
            config["imageConfig"] = json!({"aspectRatio": aspect_ratio(size)});
        }
        let body = json!({"contents": [{"role": "user", "parts": parts}], "generationConfig": config});
        let path = Self::model_path(attempt, "generateContent");
        let post = self.request(Method::POST, attempt, &path).json(&body);
        let answer: Answer = self.wire.send(post, attempt, explain).await?.json().await?;
        let context = Context::of(attempt);
        let Some(candidate) = answer.candidates.into_iter().next() else {
            let why = answer.prompt_feedback.map_or_else(String::new, |feedback| feedback.to_string());
            return Err(context.fail(Fault::ContentRefused, why).into());
        };
        let mut images = Vec::new();
        for data in candidate.content.into_iter().flat_map(|c| c.parts).filter_map(|p| p.inline_data) {
            let bytes = STANDARD
                .decode(&data.data)
                .map_err(|_| context.fail(Fault::Malformed, "a picture that is no base64"))?;
            images.push(Image { media: Media::new(&data.mime_type, bytes), revised_prompt: None });
        }
        if images.is_empty() {
            let reason = candidate.finish_reason.unwrap_or_default();
            return Err(context.fail(Fault::ContentRefused, format!("no picture came: {reason}")).into());
        }
        let mut usage: Usage = answer.usage_metadata.as_ref().map(Usage::from).unwrap_or_default();
        usage.images = images.len() as u64;
        usage.output_media_tokens = usage.output_tokens - usage.reasoning_tokens.min(usage.output_tokens);
        Ok(Images { images, usage })
    }
}

/// The nearest of the shapes that the models make.
fn aspect_ratio((width, height): (u32, u32)) -> &'static str {
    const SHAPES: [(&str, f64); 7] = [
        ("1:1", 1.0),
        ("2:3", 2.0 / 3.0),
        ("3:2", 1.5),
        ("3:4", 0.75),
        ("4:3", 4.0 / 3.0),
        ("9:16", 9.0 / 16.0),
        ("16:9", 16.0 / 9.0),
    ];
    let wanted = (f64::from(width.max(1)) / f64::from(height.max(1))).ln();
    let distance = |ratio: f64| (ratio.ln() - wanted).abs();
    SHAPES.iter().min_by(|a, b| distance(a.1).total_cmp(&distance(b.1))).map_or("1:1", |(name, _)| name)
}
