//! `POST /images/generations`, and `/images/edits` where there are pictures to keep to.

use async_trait::async_trait;
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use reqwest::multipart::{Form, Part};
use serde::Deserialize;
use serde_json::{Map, Value};

use super::{OpenAi, explain};
use crate::Error;
use crate::error::Fault;
use crate::images::{Image, ImageRequest, Images, Quality};
use crate::media::{Media, Picture};
use crate::providers::wire::Context;
use crate::providers::{Attempt, ImageMaking};
use crate::usage::Usage;

#[derive(Deserialize)]
struct Answer {
    data: Vec<Datum>,
    output_format: Option<String>,
    usage: Option<WrittenUsage>,
}

#[derive(Deserialize)]
struct Datum {
    b64_json: Option<String>,
    revised_prompt: Option<String>,
}

#[derive(Deserialize)]
struct WrittenUsage {
    input_tokens: u64,
    output_tokens: u64,
}

#[async_trait]
impl ImageMaking for OpenAi {
    async fn make_images(&self, request: &ImageRequest, attempt: &Attempt) -> Result<Images, Error> {
        let fields = fields(request, &attempt.model);
        let post = if request.references.is_empty() {
            self.post(attempt, "images/generations").json(&fields)
        } else {
            self.post(attempt, "images/edits").multipart(form(request, &fields, attempt)?)
        };
        let answer: Answer = self.wire.send(post, attempt, explain).await?.json().await?;
        let context = Context::of(attempt);
        let mime = format!("image/{}", answer.output_format.as_deref().unwrap_or(format(request, attempt)));
        let images: Result<Vec<Image>, Error> = answer
            .data
            .into_iter()
            .map(|datum| {
                let bytes = datum.b64_json.and_then(|text| STANDARD.decode(text).ok());
                let bytes =
                    bytes.ok_or_else(|| context.fail(Fault::Malformed, "a picture without base64"))?;
                Ok(Image { media: Media::new(&mime, bytes), revised_prompt: datum.revised_prompt })
            })
            .collect();
        let images = images?;
        if images.is_empty() {
            return Err(context.fail(Fault::Malformed, "no picture came").into());
        }
        let usage = Usage {
            images: images.len() as u64,
            input_tokens: answer.usage.as_ref().map_or(0, |usage| usage.input_tokens),
            output_tokens: answer.usage.as_ref().map_or(0, |usage| usage.output_tokens),
            output_media_tokens: answer.usage.as_ref().map_or(0, |usage| usage.output_tokens),
            ..Usage::default()
        };
        Ok(Images { images, usage })
    }
}

/// DALL·E makes PNG only, and names qualities and sizes of its own.
fn is_dalle(model: &str) -> bool {
    model.starts_with("dall-e")
}

fn format(request: &ImageRequest, attempt: &Attempt) -> &'static str {
    if is_dalle(&attempt.model) { "png" } else { request.format.as_str() }
}

fn fields(request: &ImageRequest, model: &str) -> Map<String, Value> {
    let mut fields = Map::new();
    fields.insert("model".into(), model.into());
    fields.insert("prompt".into(), prompt(request).into());
    fields.insert("n".into(), request.count.clamp(1, 10).into());
    fields.insert("size".into(), size(request.size, model).into());
    if is_dalle(model) {
        fields.insert("response_format".into(), "b64_json".into());
        if model == "dall-e-3" && request.quality == Some(Quality::High) {
            fields.insert("quality".into(), "hd".into());
        }
    } else {
        fields.insert("output_format".into(), request.format.as_str().into());
        if let Some(quality) = request.quality {
            let quality = match quality {
                Quality::Low => "low",
                Quality::Medium => "medium",
                Quality::High => "high",
            };
            fields.insert("quality".into(), quality.into());
        }
    }
    if let Some(user) = &request.user {
        fields.insert("user".into(), user.as_str().into());
    }
    fields
}

/// The interface has no field for what must not be seen.
fn prompt(request: &ImageRequest) -> String {
    match &request.negative_prompt {
        Some(negative) => format!("{}\n\nDo not show: {negative}.", request.prompt),
        None => request.prompt.clone(),
    }
}

/// The size that the model makes whose shape is nearest.
fn size(wanted: Option<(u32, u32)>, model: &str) -> &'static str {
    let dalle3 = model == "dall-e-3";
    match wanted {
        None if is_dalle(model) => "1024x1024",
        None => "auto",
        Some(_) if model == "dall-e-2" => "1024x1024",
        Some((width, height)) => {
            let ratio = f64::from(width.max(1)) / f64::from(height.max(1));
            if ratio > 1.2 {
                if dalle3 { "1792x1024" } else { "1536x1024" }
            } else if ratio < 1.0 / 1.2 {
                if dalle3 { "1024x1792" } else { "1024x1536" }
            } else {
                "1024x1024"
            }
        }
    }
}

fn form(request: &ImageRequest, fields: &Map<String, Value>, attempt: &Attempt) -> Result<Form, Error> {
    let mut form = Form::new();
    for (name, value) in fields {
        form = form.text(name.clone(), value.as_str().map_or_else(|| value.to_string(), str::to_owned));
    }
    for (index, picture) in request.references.iter().enumerate() {
        let Picture::Media(media) = picture else {
            let message = "pictures to keep to must be sent as bytes, not as addresses";
            return Err(Context::of(attempt).fail(Fault::Unsupported, message).into());
        };
        let part = Part::stream(media.data.clone())
            .file_name(format!("{index}-{}", media.file_name()))
            .mime_str(&media.mime)
            .map_err(|_| Error::InvalidRequest(format!("`{}` is no media type", media.mime)))?;
        form = form.part("image[]", part);
    }
    Ok(form)
}

#[cfg(test)]
mod tests {
    use rstest::rstest;

    use super::*;

    #[rstest]
    #[case(None, "gpt-image-1", "auto")]
    #[case(Some((512, 768)), "gpt-image-1", "1024x1536")]
    #[case(Some((768, 512)), "dall-e-3", "1792x1024")]
    #[case(Some((500, 512)), "gpt-image-2", "1024x1024")]
    fn sizes(#[case] wanted: Option<(u32, u32)>, #[case] model: &str, #[case] made: &str) {
        assert_eq!(size(wanted, model), made);
    }
}
