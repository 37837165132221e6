//! What comes with an upload: a raw body, or the file of a form.

use std::time::Duration;

use axum::body::Body;
use base64::Engine;
use base64::engine::general_purpose::{STANDARD, STANDARD_NO_PAD};
use bytes::Bytes;
use futures_util::StreamExt;
use futures_util::stream::{self, BoxStream};
use http::header::{CACHE_CONTROL, CONTENT_TYPE, HeaderMap, HeaderValue};
use multer::{Field, Multipart};
use serde_json::Value;

use crate::blobs::{BlobError, Content};
use crate::{Error, extract};

/// Largest description of the uploader's own.
const METADATA_LIMIT: usize = 1024 * 1024;
/// Most fields of a form, the file included.
const FIELDS: usize = 10;
/// What a form may hold besides its file.
const FORM_EXTRA: u64 = 2 * 1024 * 1024;

/// An upload whose description is read, and whose bytes are about to come.
pub(crate) struct Incoming {
    pub(crate) mimetype: String,
    pub(crate) cache_control: String,
    pub(crate) user_metadata: Option<Value>,
    pub(crate) robots: Option<String>,
    /// Bytes, where the client says beforehand.
    pub(crate) announced: Option<u64>,
    body: Source,
}

enum Source {
    Raw(BoxStream<'static, Result<Bytes, BlobError>>),
    Form(Box<Field<'static>>, Box<Multipart<'static>>),
}

impl Incoming {
    /// Reads headers, and of a form everything before its file.
    pub(crate) async fn read(
        headers: &HeaderMap,
        body: Body,
        limit: u64,
        idle: Duration,
    ) -> Result<Self, Error> {
        let robots = extract::header(headers, "x-robots-tag")?.map(checked_robots).transpose()?;
        let content_type = extract::header(headers, CONTENT_TYPE.as_str())?.unwrap_or_default();
        let announced = extract::content_length(headers)?;
        let stream = arriving(body, idle);
        let essence = content_type.split(';').next().unwrap_or_default().trim();
        if essence.eq_ignore_ascii_case("multipart/form-data") {
            let boundary = multer::parse_boundary(content_type)
                .map_err(|_| Error::InvalidRequest("content-type: the form has no boundary".into()))?;
            if announced.is_some_and(|length| length > limit.saturating_add(FORM_EXTRA)) {
                return Err(Error::TooLarge("object"));
            }
            let form = Multipart::new(limited(stream, limit.saturating_add(FORM_EXTRA)), boundary);
            return Self::form(form, robots).await;
        }
        if announced.is_some_and(|length| length > limit) {
            return Err(Error::TooLarge("object"));
        }
        let mimetype = if content_type.is_empty() { "application/octet-stream" } else { content_type };
        let metadata = copied_metadata(headers)?;
        Ok(Self {
            mimetype: sendable("content-type", mimetype)?,
            cache_control: sendable(
                "cache-control",
                extract::header(headers, CACHE_CONTROL.as_str())?.unwrap_or("no-cache"),
            )?,
            user_metadata: metadata,
            robots,
            announced,
            body: Source::Raw(stream),
        })
    }

    async fn form(mut form: Multipart<'static>, robots: Option<String>) -> Result<Self, Error> {
        let (mut cache, mut kind, mut metadata) = (None, None, None);
        for _ in 0..FIELDS {
            let Some(field) = form.next_field().await.map_err(malformed)? else {
                return Err(Error::InvalidRequest("the form has no file".into()));
            };
            if is_file(&field) {
                let own = field.content_type().map(ToString::to_string);
                let mimetype = kind.or(own).unwrap_or_else(|| "application/octet-stream".into());
                let cache = cache.map_or_else(|| "no-cache".into(), |time: String| format!("max-age={time}"));
                return Ok(Self {
                    mimetype: sendable("contentType", &mimetype)?,
                    cache_control: sendable("cacheControl", &cache)?,
                    user_metadata: metadata,
                    robots,
                    announced: None,
                    body: Source::Form(Box::new(field), Box::new(form)),
                });
            }
            match field.name().unwrap_or_default() {
                "cacheControl" => cache = Some(text(field, "cacheControl").await?),
                "contentType" => kind = Some(text(field, "contentType").await?),
                "metadata" | "userMetadata" => {
                    metadata = Some(parsed_metadata(&text(field, "user_metadata").await?)?);
                }
                _ => drop(text(field, "form field").await?),
            }
        }
        Err(Error::InvalidRequest(format!("the form has more than {FIELDS} fields before its file")))
    }

    /// The file's bytes, at most `limit` of them.
    pub(crate) fn content(self, limit: u64) -> Content {
        match self.body {
            Source::Raw(stream) => limited(stream, limit),
            Source::Form(field, form) => limited(file(field, form), limit),
        }
    }
}

/// Fails a stream at the first byte beyond a limit.
pub fn limited(stream: Content, limit: u64) -> Content {
    stream
        .scan(limit, |left, chunk| {
            let chunk = chunk.and_then(|chunk| match left.checked_sub(chunk.len() as u64) {
                Some(rest) => {
                    *left = rest;
                    Ok(chunk)
                }
                None => Err(BlobError::TooLarge),
            });
            std::future::ready(Some(chunk))
        })
        .boxed()
}

/// A body's bytes; fails when the client goes away or says nothing for too long.
pub(crate) fn arriving(body: Body, idle: Duration) -> Content {
    stream::try_unfold(body.into_data_stream(), move |mut body| async move {
        match tokio::time::timeout(idle, body.next()).await {
            Err(_) => Err(BlobError::Stalled(idle.as_secs())),
            Ok(None) => Ok(None),
            Ok(Some(Ok(chunk))) => Ok(Some((chunk, body))),
            // The connection ended, or the body is not as long as announced.
            Ok(Some(Err(_))) => Err(BlobError::Interrupted),
        }
    })
    .boxed()
}

/// The file of a form, to its end and that of the form: a form that breaks off behind its file is broken off too.
fn file(field: Box<Field<'static>>, form: Box<Multipart<'static>>) -> Content {
    stream::try_unfold((Some(field), form), |(field, mut form)| async move {
        let Some(mut field) = field else { return Ok(None) };
        match field.chunk().await.map_err(broken)? {
            Some(chunk) => Ok(Some((chunk, (Some(field), form)))),
            None => {
                drop(field);
                for _ in 0..FIELDS {
                    match form.next_field().await.map_err(broken)? {
                        None => return Ok(None),
                        Some(field) if is_file(&field) => {
                            return Err(BlobError::Malformed("the form has more than one file".into()));
                        }
                        Some(_) => {}
                    }
                }
                Err(BlobError::Malformed(format!("the form has more than {FIELDS} fields behind its file")))
            }
        }
    })
    .boxed()
}

fn is_file(field: &Field<'_>) -> bool {
    field.file_name().is_some()
        || field.content_type().is_some_and(|kind| kind.as_ref() == "application/octet-stream")
}

async fn text(mut field: Field<'static>, what: &'static str) -> Result<String, Error> {
    let mut bytes = Vec::new();
    while let Some(chunk) = field.chunk().await.map_err(malformed)? {
        if bytes.len() + chunk.len() > METADATA_LIMIT {
            return Err(Error::TooLarge(what));
        }
        bytes.extend_from_slice(&chunk);
    }
    String::from_utf8(bytes).map_err(|_| Error::InvalidRequest(format!("{what}: not UTF-8")))
}

fn malformed(error: multer::Error) -> Error {
    broken(error).into()
}

/// The stream's own failure where that is what broke the form.
fn broken(error: multer::Error) -> BlobError {
    match error {
        multer::Error::StreamReadFailed(inner) => match inner.downcast::<BlobError>() {
            Ok(own) => *own,
            Err(_) => BlobError::Interrupted,
        },
        multer::Error::IncompleteStream | multer::Error::IncompleteFieldData { .. } => BlobError::Interrupted,
        other => BlobError::Malformed(format!("the form cannot be read: {other}")),
    }
}

/// The uploader's own description in a request without a body of its own.
pub(super) fn copied_metadata(headers: &HeaderMap) -> Result<Option<Value>, Error> {
    extract::header(headers, "x-metadata")?.map(encoded_metadata).transpose()
}

fn encoded_metadata(text: &str) -> Result<Value, Error> {
    if text.len() > METADATA_LIMIT / 3 * 4 {
        return Err(Error::TooLarge("user_metadata"));
    }
    let bytes = STANDARD
        .decode(text)
        .or_else(|_| STANDARD_NO_PAD.decode(text))
        .map_err(|_| Error::InvalidRequest("x-metadata: write a JSON object in base64".into()))?;
    let text = String::from_utf8(bytes)
        .map_err(|_| Error::InvalidRequest("x-metadata: the JSON is not UTF-8".into()))?;
    parsed_metadata(&text)
}

fn parsed_metadata(text: &str) -> Result<Value, Error> {
    match serde_json::from_str(text) {
        Ok(value @ Value::Object(_)) => Ok(value),
        _ => Err(Error::InvalidRequest("metadata: write a JSON object".into())),
    }
}

/// A value that goes into a response's header one day.
pub(crate) fn sendable(what: &str, text: &str) -> Result<String, Error> {
    let fits = text.len() <= 1000 && HeaderValue::from_str(text).is_ok() && text.is_ascii();
    if fits {
        return Ok(text.to_owned());
    }
    match what {
        "content-type" | "contentType" => Err(Error::InvalidMimeType("with such characters".into())),
        _ => Err(Error::InvalidRequest(format!("{what}: it holds characters that no header may have"))),
    }
}

/// Directives of `X-Robots-Tag`, each alone or behind the name of a robot.
fn checked_robots(text: &str) -> Result<String, Error> {
    const WORDS: [&str; 12] = [
        "all",
        "none",
        "index",
        "noindex",
        "follow",
        "nofollow",
        "noarchive",
        "nosnippet",
        "notranslate",
        "noimageindex",
        "nositelinkssearchbox",
        "indexifembedded",
    ];
    const KEYS: [&str; 4] = ["max-snippet", "max-image-preview", "max-video-preview", "unavailable_after"];
    let directive = |text: &str| {
        let text = text.trim();
        WORDS.iter().any(|word| word.eq_ignore_ascii_case(text))
            || text.split_once(':').is_some_and(|(key, value)| {
                KEYS.iter().any(|known| known.eq_ignore_ascii_case(key.trim())) && !value.trim().is_empty()
            })
    };
    let behind_robot = |text: &str| {
        text.split_once(':').is_some_and(|(robot, rest)| {
            let robot = robot.trim();
            !robot.is_empty()
                && robot.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"-_".contains(&byte))
                && directive(rest)
        })
    };
    let fits = text.len() <= 500
        && !text.trim().is_empty()
        && text.split(',').all(|part| directive(part) || behind_robot(part));
    if fits {
        Ok(text.to_owned())
    } else {
        Err(Error::InvalidRequest("Invalid X-Robots-Tag header: write directives such as `noindex`".into()))
    }
}

#[cfg(test)]
mod tests {
    use futures_util::TryStreamExt;
    use rstest::rstest;

    use super::*;

    #[rstest]
    #[case("noindex", true)]
    #[case("noindex, nofollow", true)]
    #[case("googlebot: noindex, max-snippet: 20", true)]
    #[case("googlebot: max-snippet: 20", true)]
    #[case("please do", false)]
    #[case("noindex,", false)]
    #[case("", false)]
    fn robots(#[case] text: &str, #[case] accepted: bool) {
        assert_eq!(checked_robots(text).is_ok(), accepted, "{text}");
    }

    #[tokio::test]
    async fn streams_end_at_their_limit() {
        let chunks = |sizes: &[usize]| -> Content {
            let chunks: Vec<_> = sizes.iter().map(|&size| Ok(Bytes::from(vec![0; size]))).collect();
            stream::iter(chunks).boxed()
        };
        let fits: Result<Vec<Bytes>, _> = limited(chunks(&[3, 4]), 7).try_collect().await;
        assert_eq!(fits.unwrap().len(), 2);
        let over: Result<Vec<Bytes>, _> = limited(chunks(&[3, 5]), 7).try_collect().await;
        assert!(matches!(over, Err(BlobError::TooLarge)));
    }
}
