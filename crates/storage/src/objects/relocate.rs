//! Moving, which changes a row, and copying, which makes bytes of its own.

use axum::Json;
use axum::body::Body;
use axum::extract::State;
use chrono::Utc;
use http::HeaderMap;
use serde::Deserialize;
use serde_json::{Value, json};

use super::incoming::copied_metadata;
use super::upload::{NewObject, upsert_wanted};
use super::{Metadata, timestamp};
use crate::blobs::{Version, Written};
use crate::ledger::Stored;
use crate::names::{BucketId, ObjectName};
use crate::storage::Caller;
use crate::{Error, Storage, extract, failpoints};

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Ends {
    bucket_id: String,
    source_key: String,
    destination_bucket: Option<String>,
    destination_key: String,
    #[serde(default, deserialize_with = "extract::flag")]
    copy_metadata: Option<bool>,
    metadata: Option<Override>,
}

/// What a copy may say anew about the same bytes.
#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Override {
    /// `Cache-Control` of downloads.
    pub cache_control: Option<String>,
    /// Type.
    pub mimetype: Option<String>,
}

type Place = (BucketId, ObjectName);

impl Ends {
    fn places(&self) -> Result<(Place, Place), Error> {
        let bucket = BucketId::parse(&self.bucket_id)?;
        let destination = match self.destination_bucket.as_deref().filter(|bucket| !bucket.is_empty()) {
            Some(bucket) => BucketId::parse(bucket)?,
            None => bucket.clone(),
        };
        let from = (bucket, ObjectName::parse(&self.source_key)?);
        Ok((from, (destination, ObjectName::parse(&self.destination_key)?)))
    }
}

pub(super) async fn rename(
    State(storage): State<Storage>,
    headers: HeaderMap,
    body: Body,
) -> Result<Json<Value>, Error> {
    let caller = storage.caller(&headers, "storage.object.move")?;
    let ends: Ends = extract::json(&storage, body).await?;
    let (from, to) = ends.places()?;
    let id = storage.move_object(&caller, &from, &to).await?;
    Ok(Json(json!({ "message": "Successfully moved", "Id": id, "Key": to.1.as_str() })))
}

pub(super) async fn copy(
    State(storage): State<Storage>,
    headers: HeaderMap,
    body: Body,
) -> Result<Json<Value>, Error> {
    let caller = storage.caller(&headers, "storage.object.copy")?;
    let ends: Ends = extract::json(&storage, body).await?;
    let (from, to) = ends.places()?;
    let mut copying = Copying { upsert: upsert_wanted(&headers), ..Copying::default() };
    if ends.copy_metadata == Some(false) {
        copying.anew = Some((ends.metadata.unwrap_or_default(), copied_metadata(&headers)?));
    }
    storage.copy_object(&caller, &from, &to, copying).await.map(Json)
}

/// How a copy is made.
#[derive(Debug, Default)]
pub struct Copying {
    /// Whether it may replace an object.
    pub upsert: bool,
    /// What is said anew about the bytes, and the uploader's own description; unset: all as it was.
    pub anew: Option<(Override, Option<Value>)>,
}

impl Storage {
    /// Moves an object.
    ///
    /// # Errors
    /// [`Error::NoSuchKey`], [`Error::AlreadyExists`], [`Error::AccessDenied`], [`Error::NoSuchBucket`], or what the
    /// destination's bucket does not take.
    pub async fn move_object(&self, caller: &Caller, from: &Place, to: &Place) -> Result<uuid::Uuid, Error> {
        let object = self.find_object(caller, &from.0, &from.1).await?;
        if from == to {
            return Ok(object.id);
        }
        if from.0 != to.0 {
            let rules = self.rules(&to.0).await?;
            if let Some(metadata) = object.described() {
                self.check_type(&rules, &to.1, &metadata.mimetype)?;
                if metadata.size > self.size_limit_of(&rules, &to.1) {
                    return Err(Error::TooLarge("object"));
                }
            }
        }
        failpoints::reach("move.checked");
        self.rename_object(caller, (&from.0, &from.1), (&to.0, &to.1)).await
    }

    /// Copies an object that the caller may read to where it may upload, and describes the copy.
    ///
    /// # Errors
    /// As an upload's.
    pub async fn copy_object(
        &self,
        caller: &Caller,
        from: &Place,
        to: &Place,
        copying: Copying,
    ) -> Result<Value, Error> {
        let source = self.find_object(caller, &from.0, &from.1).await?;
        let mut metadata = source.described().ok_or(Error::NoSuchKey)?;
        let version = source.version.as_deref().and_then(Version::parse).ok_or(Error::NoSuchKey)?;
        let mut user_metadata = source.user_metadata;
        if let Some((change, own)) = copying.anew {
            change.apply(&mut metadata)?;
            user_metadata = own;
        }
        let rules = self.rules(&to.0).await?;
        self.check_type(&rules, &to.1, &metadata.mimetype)?;
        if metadata.size > self.size_limit_of(&rules, &to.1) {
            return Err(Error::TooLarge("object"));
        }
        let object = NewObject {
            bucket: to.0.clone(),
            name: to.1.clone(),
            upsert: copying.upsert,
            mimetype: metadata.mimetype.clone(),
            content_length: Some(metadata.size),
            user_metadata,
        };
        self.check_upload(caller, &object).await?;
        let pending = self.begin().await?;
        failpoints::reach("copy.pending");
        pending.alive(self.blobs().copy(version, pending.version())).await?;
        failpoints::reach("copy.durable");
        metadata.last_modified = Utc::now();
        let new_version = pending.version().to_string();
        let stored = Stored { written: same_bytes(&metadata)?, pending };
        let id = self.commit_upload(caller, &object, &metadata, stored).await?;
        failpoints::reach("copy.committed");
        Ok(json!({
            "Id": id,
            "Key": format!("{}/{}", to.0, to.1),
            "id": id,
            "name": to.1.as_str(),
            "bucket_id": to.0.as_str(),
            "owner": caller.owner(),
            "owner_id": caller.owner_id(),
            "version": new_version,
            "metadata": metadata.json(),
            "user_metadata": object.user_metadata,
            "created_at": timestamp(metadata.last_modified),
            "updated_at": timestamp(metadata.last_modified),
        }))
    }
}

impl Override {
    fn apply(self, metadata: &mut Metadata) -> Result<(), Error> {
        if let Some(cache_control) = self.cache_control {
            metadata.cache_control = super::incoming::sendable("cacheControl", &cache_control)?;
        }
        if let Some(mimetype) = self.mimetype {
            metadata.mimetype = super::incoming::sendable("contentType", &mimetype)?;
        }
        Ok(())
    }
}

/// The size and hash that the source had: the copy is of the same bytes.
fn same_bytes(metadata: &Metadata) -> Result<Written, Error> {
    let mut sha256 = [0; 32];
    hex::decode_to_slice(metadata.e_tag.trim_matches('"'), &mut sha256).map_err(|_| Error::NoSuchKey)?;
    Ok(Written { size: metadata.size, sha256 })
}
