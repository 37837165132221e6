//! `/render/image/{public,authenticated,sign}/…`.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use aws_lc_rs::digest;
use axum::Router;
use axum::body::Body;
use axum::extract::{Request, State};
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use http::StatusCode;
use http::header::{
    ACCEPT, CACHE_CONTROL, CONTENT_DISPOSITION, CONTENT_LENGTH, CONTENT_SECURITY_POLICY, CONTENT_TYPE, ETAG,
    EXPIRES, HeaderMap, HeaderName, HeaderValue, IF_NONE_MATCH, LAST_MODIFIED, VARY, X_CONTENT_TYPE_OPTIONS,
};
use http::request::Parts;
use serde::Deserialize;

use super::options::{Format, Transform, preferred};
use super::{Rendered, Renderer};
use crate::blobs::Version;
use crate::extract::{self, ObjectPath, SignedPath};
use crate::objects::{Door, Object, disposition};
use crate::{Error, Storage};

/// A picture may be shown anywhere; it runs and loads nothing.
const HARMLESS: &str = "default-src 'none'; style-src 'unsafe-inline'; frame-ancestors *";

pub(crate) fn router() -> Router<Storage> {
    let renderer = Renderer::new();
    let by = |door: Door, operation: &'static str| {
        let renderer = renderer.clone();
        get(move |State(storage): State<Storage>, path: ObjectPath, request: Request| {
            keyed(storage, renderer.clone(), path, request, door, operation)
        })
    };
    let signed = {
        let renderer = renderer.clone();
        get(move |State(storage): State<Storage>, path: SignedPath, request: Request| {
            by_token(storage, renderer.clone(), path, request)
        })
    };
    Router::new()
        .route("/render/image/public/{bucket}/{*name}", by(Door::Public, "storage.render.image_public"))
        .route(
            "/render/image/authenticated/{bucket}/{*name}",
            by(Door::Authenticated, "storage.render.image_authenticated"),
        )
        .route("/render/image/sign/{bucket}/{*name}", signed)
}

#[derive(Deserialize)]
struct Wanted {
    download: Option<String>,
}

async fn keyed(
    storage: Storage,
    renderer: Renderer,
    ObjectPath(bucket, name): ObjectPath,
    request: Request,
    door: Door,
    operation: &'static str,
) -> Result<Response, Error> {
    let (parts, _) = request.into_parts();
    let Wanted { download } = extract::query(&parts)?;
    let transform = Transform::from_query(parts.uri.query().unwrap_or_default())?;
    let object = storage.readable(&parts, door, operation, &bucket, &name).await?;
    respond(&storage, &renderer, &object, &parts, (transform, download, None)).await
}

#[derive(Deserialize)]
struct Signed {
    token: String,
    download: Option<String>,
}

/// What is to be made is in the token: its holder cannot ask for anything else.
async fn by_token(
    storage: Storage,
    renderer: Renderer,
    SignedPath(bucket, name): SignedPath,
    request: Request,
) -> Result<Response, Error> {
    let (parts, _) = request.into_parts();
    let Signed { token, download } = extract::query(&parts)?;
    let token = storage.signing().verify_download(&token, &format!("{bucket}/{name}"))?;
    let transform = Transform::from_claim(token.transformations.as_deref().unwrap_or_default())?;
    let object = storage.find_for_anybody(&bucket, &name).await?.object.ok_or(Error::NoSuchKey)?;
    let expires = UNIX_EPOCH.checked_add(Duration::from_secs(token.exp));
    respond(&storage, &renderer, &object, &parts, (transform, download, expires)).await
}

async fn respond(
    storage: &Storage,
    renderer: &Renderer,
    object: &Object,
    parts: &Parts,
    (transform, download, expires): (Transform, Option<String>, Option<SystemTime>),
) -> Result<Response, Error> {
    let metadata = object.described().ok_or(Error::NoSuchKey)?;
    let version = object.version.as_deref().and_then(Version::parse).ok_or(Error::NoSuchKey)?;
    // What is asked for by name goes before what the client would like.
    let preferred = transform.format.is_none().then(|| preferred(&parts.headers)).flatten();
    let etag = tag(version, &transform, preferred);
    let value = |text: &str| HeaderValue::from_str(text).map_err(|_| Error::NoSuchKey);
    let mut headers = HeaderMap::with_capacity(12);
    headers.insert(ETAG, value(&etag)?);
    headers.insert(VARY, HeaderValue::from(ACCEPT));
    let last_modified = SystemTime::from(metadata.last_modified).max(UNIX_EPOCH);
    headers.insert(LAST_MODIFIED, value(&httpdate::fmt_http_date(last_modified))?);
    match expires {
        // Four digits of a year are all that the format has.
        Some(expires) => {
            let last = UNIX_EPOCH + Duration::from_secs(253_402_300_799);
            headers.insert(EXPIRES, value(&httpdate::fmt_http_date(expires.min(last)))?)
        }
        None => headers.insert(CACHE_CONTROL, value(&metadata.cache_control)?),
    };
    if is_current(&parts.headers, &etag) {
        return Ok((StatusCode::NOT_MODIFIED, headers).into_response());
    }
    let rendered = renderer.render(storage, version, &metadata, (transform, preferred)).await?;
    let Rendered { bytes, mimetype } = rendered;
    headers.insert(CONTENT_TYPE, HeaderValue::from_static(mimetype));
    headers.insert(CONTENT_LENGTH, HeaderValue::from(bytes.len()));
    headers.insert(X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff"));
    headers.insert(CONTENT_SECURITY_POLICY, HeaderValue::from_static(HARMLESS));
    let robots = metadata.x_robots_tag.as_deref().unwrap_or("none");
    headers.insert(HeaderName::from_static("x-robots-tag"), value(robots)?);
    if let Some(applied) = transform.applied() {
        headers.insert(HeaderName::from_static("x-transformations"), value(&applied)?);
    }
    if let Some(name) = download {
        headers.insert(CONTENT_DISPOSITION, value(&disposition(&name))?);
    }
    Ok((headers, Body::from(bytes)).into_response())
}

/// A tag of what will be made, known before it is.
fn tag(version: Version, transform: &Transform, preferred: Option<Format>) -> String {
    let text = format!("{version} {} {preferred:?}", transform.claim().unwrap_or_default());
    let hash = digest::digest(&digest::SHA256, text.as_bytes());
    format!("\"{}\"", hex::encode(&hash.as_ref()[..16]))
}

fn is_current(headers: &HeaderMap, etag: &str) -> bool {
    let tags = headers.get_all(IF_NONE_MATCH).iter().filter_map(|value| value.to_str().ok());
    tags.flat_map(|text| text.split(',')).any(|tag| {
        let tag = tag.trim();
        tag == "*" || tag.strip_prefix("W/").unwrap_or(tag) == etag
    })
}
