//! Making signed URLs, for those who could do themselves what the URL lets others do.

use std::collections::HashSet;

use axum::Json;
use axum::body::Body;
use axum::extract::State;
use http::HeaderMap;
use percent_encoding::{AsciiSet, CONTROLS, utf8_percent_encode};
use serde::Deserialize;
use serde_json::{Value, json};

use super::incoming::copied_metadata;
use super::upload::{NewObject, upsert_wanted};
use crate::extract::{self, BucketPath, ObjectPath};
use crate::transform::Transform;
use crate::{Error, Storage, signing};

/// Life of a signed upload URL: two hours.
const UPLOAD_LIFE: u64 = 2 * 60 * 60;
/// Objects of one request.
const MOST: usize = 1000;

/// JavaScript clients run `encodeURI` over the whole URL, which leaves `?` alone and escapes `%` again. Of the
/// characters that names may have only `?` ends a path: it is escaped, and `encodeURI`'s second escape is undone where
/// the URL comes back.
const PATH: &AsciiSet = &CONTROLS.add(b'?');

#[derive(Deserialize)]
struct One {
    #[serde(rename = "expiresIn", default, deserialize_with = "extract::whole")]
    expires_in: Option<i64>,
    /// The URL shows the image in this form alone.
    transform: Option<Value>,
}

#[derive(Deserialize)]
struct Many {
    #[serde(rename = "expiresIn", default, deserialize_with = "extract::whole")]
    expires_in: Option<i64>,
    paths: Vec<String>,
}

fn life(seconds: Option<i64>) -> Result<u64, Error> {
    let most = signing::LONGEST;
    seconds
        .and_then(|seconds| u64::try_from(seconds).ok())
        .filter(|seconds| (1..=most).contains(seconds))
        .ok_or_else(|| Error::InvalidRequest(format!("body/expiresIn must be 1 to {most} seconds")))
}

fn download_url(storage: &Storage, url: &str, seconds: u64) -> String {
    let token = storage.signing().download(url, seconds, None);
    format!("/object/sign/{}?token={token}", utf8_percent_encode(url, PATH))
}

pub(super) async fn one(
    State(storage): State<Storage>,
    ObjectPath(bucket, name): ObjectPath,
    headers: HeaderMap,
    body: Body,
) -> Result<Json<Value>, Error> {
    let caller = storage.caller(&headers, "storage.object.sign")?;
    let body: One = extract::json(&storage, body).await?;
    let seconds = life(body.expires_in)?;
    storage.find_object(&caller, &bucket, &name).await?;
    let url = format!("{bucket}/{name}");
    let transform = body.transform.as_ref().map(Transform::from_json).transpose()?;
    let url = match transform.as_ref().and_then(Transform::claim) {
        Some(claim) => {
            let token = storage.signing().download(&url, seconds, Some(claim));
            format!("/render/image/sign/{}?token={token}", utf8_percent_encode(&url, PATH))
        }
        None => download_url(&storage, &url, seconds),
    };
    Ok(Json(json!({ "signedURL": url })))
}

pub(super) async fn many(
    State(storage): State<Storage>,
    BucketPath(bucket): BucketPath,
    headers: HeaderMap,
    body: Body,
) -> Result<Json<Vec<Value>>, Error> {
    let caller = storage.caller(&headers, "storage.object.sign_many")?;
    let body: Many = extract::json(&storage, body).await?;
    let seconds = life(body.expires_in)?;
    if body.paths.is_empty() || body.paths.len() > MOST {
        return Err(Error::InvalidRequest(format!("body/paths must hold 1 to {MOST} paths")));
    }
    let asked: Vec<String> = body.paths.iter().filter(|path| !path.contains('\0')).cloned().collect();
    let existing: HashSet<String> = storage.existing(&caller, &bucket, &asked).await?.into_iter().collect();
    let entries = body.paths.iter().map(|path| {
        if existing.contains(path) {
            let url = download_url(&storage, &format!("{bucket}/{path}"), seconds);
            json!({ "error": null, "path": path, "signedURL": url })
        } else {
            let error = "Either the object does not exist or you do not have access to it";
            json!({ "error": error, "path": path, "signedURL": null })
        }
    });
    Ok(Json(entries.collect()))
}

pub(super) async fn upload(
    State(storage): State<Storage>,
    ObjectPath(bucket, name): ObjectPath,
    headers: HeaderMap,
) -> Result<Json<Value>, Error> {
    let caller = storage.caller(&headers, "storage.object.sign_upload_url")?;
    let upsert = upsert_wanted(&headers);
    let url = format!("{bucket}/{name}");
    storage.rules(&bucket).await?;
    let object = NewObject {
        bucket,
        name,
        upsert,
        mimetype: extract::header(&headers, "content-type")?.unwrap_or("application/octet-stream").to_owned(),
        content_length: None,
        user_metadata: copied_metadata(&headers)?,
    };
    storage.check_upload(&caller, &object).await?;
    let token = storage.signing().upload(&url, UPLOAD_LIFE, caller.owner_id(), upsert);
    let path = utf8_percent_encode(&url, PATH);
    Ok(Json(json!({ "url": format!("/object/upload/sign/{path}?token={token}"), "token": token })))
}
