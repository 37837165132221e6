//! Uploading: permission, then bytes, then the row.

use axum::Json;
use axum::body::Body;
use axum::extract::{Request, State};
use futures_util::future::{Either, join, select};
use futures_util::{StreamExt, stream};
use http::HeaderMap;
use http::header::EXPECT;
use longhouse_database::ServiceReason;
use serde::Deserialize;
use serde_json::{Value, json};
use uuid::Uuid;

use super::Metadata;
use super::incoming::{Incoming, limited};
use crate::blobs::{Content, gather};
use crate::buckets::Rules;
use crate::extract::{self, ObjectPath, SignedPath};
use crate::names::{BucketId, ObjectName};
use crate::storage::Caller;
use crate::{Error, Storage, limits};

/// Bytes that are taken while rules and policies are asked.
const FIRST: usize = 512 * 1024;

const BY_TOKEN: ServiceReason =
    ServiceReason::because("a signed upload URL was made by somebody who may upload this object");

/// An object that is to be uploaded, before its bytes come.
#[derive(Debug, Clone)]
pub struct NewObject {
    /// Its bucket.
    pub bucket: BucketId,
    /// Its name.
    pub name: ObjectName,
    /// Whether it may replace another.
    pub upsert: bool,
    /// Its type; policies may look at it.
    pub mimetype: String,
    /// Its bytes, where they are announced; policies may look at them.
    pub content_length: Option<u64>,
    /// The uploader's own description.
    pub user_metadata: Option<Value>,
}

impl NewObject {
    /// What is known of the bytes before they come, for policies.
    pub(crate) fn announced(&self) -> Value {
        let mut metadata = json!({ "mimetype": self.mimetype });
        if let Some(length) = self.content_length {
            metadata["contentLength"] = length.into();
        }
        metadata
    }
}

impl Storage {
    /// Most bytes of an object in a bucket of these rules.
    pub fn size_limit_of(&self, rules: &Rules, name: &ObjectName) -> u64 {
        if name.is_folder_placeholder() {
            return 0;
        }
        let own = rules.file_size_limit.and_then(|limit| u64::try_from(limit).ok());
        own.unwrap_or(u64::MAX).min(self.inner.file_size_limit)
    }

    /// Whether a bucket of these rules takes a type.
    ///
    /// # Errors
    /// [`Error::InvalidMimeType`].
    pub fn check_type(&self, rules: &Rules, name: &ObjectName, mimetype: &str) -> Result<(), Error> {
        if name.is_folder_placeholder() {
            Ok(())
        } else {
            limits::check_type(mimetype, &rules.allowed_mime_types)
        }
    }

    async fn upload(
        &self,
        caller: &Caller,
        bucket: BucketId,
        name: ObjectName,
        upsert: bool,
        (headers, body): (&HeaderMap, Body),
    ) -> Result<Uuid, Error> {
        let most = self.inner.file_size_limit;
        let incoming = Incoming::read(headers, body, most, self.inner.idle_timeout).await?;
        let object = NewObject {
            bucket,
            name,
            upsert,
            mimetype: incoming.mimetype.clone(),
            content_length: incoming.announced,
            // Clients expect an object, also where nothing was said.
            user_metadata: Some(incoming.user_metadata.clone().unwrap_or_else(|| json!({}))),
        };
        let (cache_control, robots) = (incoming.cache_control.clone(), incoming.robots.clone());
        let content = incoming.content(most);
        let content = if headers.contains_key(EXPECT) {
            // The client sends nothing before it is told to, so that a refusal saves it the sending.
            limited(content, self.admit(caller, &object).await?)
        } else {
            self.admit_beside(caller, &object, content).await?
        };
        let stored = self.receive(content).await?;
        let metadata = Metadata::new(&stored.written, &object.mimetype, &cache_control, robots);
        self.commit_upload(caller, &object, &metadata, stored).await
    }

    /// How large this object may be, if it may be uploaded. The bucket's rules and the policies are asked at once.
    async fn admit(&self, caller: &Caller, object: &NewObject) -> Result<u64, Error> {
        let (rules, checked) = join(self.rules(&object.bucket), self.check_upload(caller, object)).await;
        let rules = rules?;
        let limit = self.size_limit_of(&rules, &object.name);
        if object.content_length.is_some_and(|length| length > limit) {
            return Err(Error::TooLarge("object"));
        }
        self.check_type(&rules, &object.name, &object.mimetype)?;
        checked?;
        Ok(limit)
    }

    /// Takes the first bytes into memory meanwhile. A refusal does not wait for them.
    async fn admit_beside(
        &self,
        caller: &Caller,
        object: &NewObject,
        mut content: Content,
    ) -> Result<Content, Error> {
        let (limit, (first, ended)) = {
            let admitting = std::pin::pin!(self.admit(caller, object));
            let taking = std::pin::pin!(gather(&mut content, FIRST));
            match select(admitting, taking).await {
                Either::Left((limit, taking)) => (limit?, taking.await?),
                Either::Right((first, admitting)) => (admitting.await?, first?),
            }
        };
        let first = stream::iter(first.into_iter().map(Ok));
        let whole = if ended { first.boxed() } else { first.chain(content).boxed() };
        Ok(limited(whole, limit))
    }
}

pub(super) fn upsert_wanted(headers: &HeaderMap) -> bool {
    headers.get("x-upsert").is_some_and(|value| value.as_bytes() == b"true")
}

pub(super) async fn create(
    State(storage): State<Storage>,
    ObjectPath(bucket, name): ObjectPath,
    headers: HeaderMap,
    body: Body,
) -> Result<Json<Value>, Error> {
    let caller = storage.caller(&headers, "storage.object.upload")?;
    let key = format!("{bucket}/{name}");
    let upsert = upsert_wanted(&headers);
    let id = storage.upload(&caller, bucket, name, upsert, (&headers, body)).await?;
    Ok(Json(json!({ "Id": id, "Key": key })))
}

pub(super) async fn update(
    State(storage): State<Storage>,
    ObjectPath(bucket, name): ObjectPath,
    headers: HeaderMap,
    body: Body,
) -> Result<Json<Value>, Error> {
    let caller = storage.caller(&headers, "storage.object.upload_update")?;
    let key = format!("{bucket}/{name}");
    let id = storage.upload(&caller, bucket, name, true, (&headers, body)).await?;
    Ok(Json(json!({ "Id": id, "Key": key })))
}

#[derive(Deserialize)]
struct Token {
    token: String,
}

pub(super) async fn signed(
    State(storage): State<Storage>,
    SignedPath(bucket, name): SignedPath,
    request: Request,
) -> Result<Json<Value>, Error> {
    let (parts, body) = request.into_parts();
    let Token { token } = extract::query(&parts)?;
    let key = format!("{bucket}/{name}");
    let token = storage.signing().verify_upload(&token, &key)?;
    let caller = Caller::by_token(BY_TOKEN, token.owner, "storage.object.upload_signed");
    storage.upload(&caller, bucket, name, token.upsert, (&parts.headers, body)).await?;
    Ok(Json(json!({ "Key": key })))
}
