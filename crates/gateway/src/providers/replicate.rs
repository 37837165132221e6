//! Replicate: pictures by predictions. Sources: the vendor's HTTP reference and the package `replicate` 1.4 (npm).
//!
//! A prediction is created with `Prefer: wait`, asked for until it is done, and cancelled when the caller goes away.

use std::time::Duration;

use async_trait::async_trait;
use http::{Method, StatusCode};
use longhouse_outbound::{Reach, permit};
use reqwest::RequestBuilder;
use serde::Deserialize;
use serde_json::{Map, Value};
use url::Url;

use super::wire::{Context, below};
use super::{Attempt, ImageMaking, Listing, Wire};
use crate::Error;
use crate::error::Fault;
use crate::images::{Image, ImageRequest, Images};
use crate::media::{Media, Picture};
use crate::usage::Usage;

/// How long the first request may wait for the result: below its own limit of a minute.
const WAIT_SECONDS: u64 = 30;
/// Between two looks at a prediction.
const LOOK_EVERY: Duration = Duration::from_secs(1);
/// Largest picture.
const MOST_BYTES: usize = 32 << 20;

/// The adapter.
#[derive(Debug, Clone)]
pub struct Replicate {
    wire: Wire,
}

impl Replicate {
    /// Asks over `wire`.
    #[must_use]
    pub fn new(wire: Wire) -> Self {
        Self { wire }
    }

    fn request(&self, method: Method, attempt: &Attempt, url: Url) -> RequestBuilder {
        let request = self.wire.request_to(method, attempt, url);
        match &attempt.key {
            Some(key) => request.bearer_auth(key.expose()),
            None => request,
        }
    }

    async fn prediction(&self, request: RequestBuilder, attempt: &Attempt) -> Result<Prediction, Error> {
        self.wire.send(request, attempt, explain).await?.json().await
    }
}

#[derive(Deserialize)]
struct Prediction {
    id: String,
    status: String,
    output: Option<Value>,
    error: Option<Value>,
}

/// Cancels a prediction that nobody waits for any more.
struct Cancelling {
    /// `None` when it is over.
    request: Option<RequestBuilder>,
}

impl Drop for Cancelling {
    fn drop(&mut self) {
        if let Some(request) = self.request.take() {
            // A lost cancellation costs the owner seconds of a machine; nobody is there to be told.
            tokio::spawn(async move {
                let _ = request.timeout(Duration::from_secs(10)).send().await;
            });
        }
    }
}

#[async_trait]
impl ImageMaking for Replicate {
    async fn make_images(&self, request: &ImageRequest, attempt: &Attempt) -> Result<Images, Error> {
        let (path, mut body) = target(&attempt.model);
        body.insert("input".into(), input(request, &attempt.model).into());
        let url = below(&attempt.base_url, &path);
        let create = self
            .request(Method::POST, attempt, url)
            .header("prefer", format!("wait={WAIT_SECONDS}"))
            .json(&body);
        let mut prediction = self.prediction(create, attempt).await?;
        let context = Context::of(attempt);
        if prediction.id.is_empty() || !prediction.id.bytes().all(|byte| byte.is_ascii_alphanumeric()) {
            return Err(context.fail(Fault::Malformed, "a prediction without a usable id").into());
        }
        let address = below(&attempt.base_url, &format!("predictions/{}", prediction.id));
        let cancel = self.request(Method::POST, attempt, below(&address, "cancel"));
        let mut cancelling = Cancelling { request: Some(cancel) };
        loop {
            match prediction.status.as_str() {
                "succeeded" => break,
                "starting" | "processing" => {}
                "failed" => {
                    cancelling.request = None;
                    let error = prediction.error.unwrap_or_default();
                    let message = error.as_str().map_or_else(|| error.to_string(), str::to_owned);
                    let refused = message.contains("NSFW") || message.contains("sensitive");
                    let fault = if refused { Fault::ContentRefused } else { Fault::ServerError };
                    return Err(context.fail(fault, message).into());
                }
                status => {
                    cancelling.request = None;
                    return Err(context
                        .fail(Fault::Interrupted, format!("the prediction is {status}"))
                        .into());
                }
            }
            if tokio::time::timeout_at(attempt.deadline, tokio::time::sleep(LOOK_EVERY)).await.is_err() {
                let waiting = crate::error::Waiting::Deadline;
                return Err(context.fail(Fault::TimedOut(waiting), String::new()).into());
            }
            let look = self.request(Method::GET, attempt, address.clone());
            prediction = self.prediction(look, attempt).await?;
        }
        cancelling.request = None;
        let mut images = Vec::new();
        for url in outputs(prediction.output.as_ref()) {
            images.push(self.download(&url, request, attempt).await?);
        }
        if images.is_empty() {
            return Err(context.fail(Fault::Malformed, "no picture came").into());
        }
        let usage = Usage { images: images.len() as u64, ..Usage::default() };
        Ok(Images { images, usage })
    }
}

impl Replicate {
    /// Pictures lie at addresses of the vendor's choosing: they get no key, and are judged like any other.
    async fn download(&self, url: &str, request: &ImageRequest, attempt: &Attempt) -> Result<Image, Error> {
        let context = Context::of(attempt);
        let url =
            Url::parse(url).map_err(|_| context.fail(Fault::Malformed, "an output that is no address"))?;
        let reach = if attempt.trusted_address { Reach::Anywhere } else { Reach::Public };
        permit(&url, reach).map_err(|error| context.fail(Fault::ForbiddenAddress, error.url))?;
        let get = self.wire.request_to(Method::GET, attempt, url);
        let mut answer = self.wire.send(get, attempt, explain).await?;
        let mime = match answer.mime() {
            mime if mime.starts_with("image/") => mime.to_owned(),
            _ => format!("image/{}", request.format.as_str()),
        };
        let bytes = answer.bytes(MOST_BYTES).await?;
        Ok(Image { media: Media::new(&mime, bytes), revised_prompt: None })
    }
}

/// Models of the vendor's choice have an address of their own; versions and deployments of others are named.
fn target(model: &str) -> (String, Map<String, Value>) {
    let mut body = Map::new();
    if let Some((_, version)) = model.split_once(':') {
        body.insert("version".into(), version.into());
        return ("predictions".into(), body);
    }
    (format!("models/{model}/predictions"), body)
}

/// Flux takes a shape, diffusion models of before take sizes.
fn input(request: &ImageRequest, model: &str) -> Map<String, Value> {
    let mut input = Map::new();
    input.insert("prompt".into(), request.prompt.as_str().into());
    let flux = model.contains("flux");
    if flux {
        let ratio = match request.size {
            Some((width, height)) if width * 10 > height * 12 => "4:3",
            Some((width, height)) if height * 10 > width * 12 => "3:4",
            _ => "1:1",
        };
        let format = match request.format.as_str() {
            "jpeg" => "jpg",
            other => other,
        };
        input.insert("aspect_ratio".into(), ratio.into());
        input.insert("output_format".into(), format.into());
    } else {
        if let Some((width, height)) = request.size {
            // Multiples of 8, as the models demand.
            input.insert("width".into(), (width / 8 * 8).into());
            input.insert("height".into(), (height / 8 * 8).into());
        }
        if let Some(negative) = &request.negative_prompt {
            input.insert("negative_prompt".into(), negative.as_str().into());
        }
    }
    if request.count > 1 {
        input.insert("num_outputs".into(), request.count.min(4).into());
    }
    if let Some(seed) = request.seed {
        input.insert("seed".into(), seed.into());
    }
    if let Some(reference) = request.references.first() {
        let url = match reference {
            Picture::Media(media) => media.data_url(),
            Picture::Url(url) => url.to_string(),
        };
        input.insert(if flux { "image_prompt" } else { "image" }.into(), url.into());
    }
    input
}

/// One address or a list of them.
fn outputs(output: Option<&Value>) -> Vec<String> {
    match output {
        Some(Value::String(url)) => vec![url.clone()],
        Some(Value::Array(urls)) => {
            urls.iter().filter_map(Value::as_str).take(10).map(str::to_owned).collect()
        }
        _ => Vec::new(),
    }
}

#[async_trait]
impl Listing for Replicate {
    async fn list(&self, attempt: &Attempt) -> Result<Vec<String>, Error> {
        #[derive(Deserialize)]
        struct Account {
            username: String,
        }
        // There are too many models to list; the account proves the key.
        let request = self.request(Method::GET, attempt, below(&attempt.base_url, "account"));
        let account: Account = self.wire.send(request, attempt, explain).await?.json().await?;
        tracing::debug!(username = account.username, "the key is valid");
        Ok(Vec::new())
    }
}

/// `{"title", "detail", "status"}`.
fn explain(_: StatusCode, body: &Value) -> (Option<Fault>, String) {
    let message = [&body["detail"], &body["title"], &body["error"]].into_iter().find_map(Value::as_str);
    (None, message.unwrap_or_default().to_owned())
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn versions_and_models() {
        let (path, body) = target("stability-ai/stable-diffusion:ac732d");
        assert_eq!((path.as_str(), &body["version"]), ("predictions", &json!("ac732d")));
        let (path, body) = target("black-forest-labs/flux-schnell");
        assert_eq!(path, "models/black-forest-labs/flux-schnell/predictions");
        assert!(body.is_empty());
    }

    #[test]
    fn flux_takes_shapes_and_others_sizes() {
        let mut request = ImageRequest::new("a fox");
        request.size = Some((512, 770));
        request.negative_prompt = Some("text".into());
        assert_eq!(input(&request, "black-forest-labs/flux-dev")["aspect_ratio"], "3:4");
        let input = input(&request, "stability-ai/stable-diffusion:x");
        assert_eq!((&input["width"], &input["height"]), (&json!(512), &json!(768)));
    }
}
