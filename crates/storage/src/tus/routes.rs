//! The protocol's requests.

use axum::Router;
use axum::body::Body;
use axum::extract::{FromRequestParts, OriginalUri, Path, Request, State};
use axum::response::{IntoResponse, Response};
use axum::routing::{MethodRouter, options, patch, post};
use chrono::{DateTime, Utc};
use http::header::{CACHE_CONTROL, CONTENT_TYPE, HeaderName, HeaderValue, LOCATION};
use http::request::Parts;
use http::{HeaderMap, Method, StatusCode};
use longhouse_database::ServiceReason;
use longhouse_server::PublicOrigin;

use super::checksum::{ALGORITHMS, Checksum};
use super::error::{Refusal, TUS_RESUMABLE, TUS_VERSION};
use super::id::UploadId;
use super::metadata::UploadMetadata;
use super::receive::Incoming;
use super::store::Upload;
use super::{EXTENSIONS, VERSION};
use crate::objects::arriving;
use crate::storage::Caller;
use crate::{Error, Storage, extract};

const BY_TOKEN: ServiceReason =
    ServiceReason::because("a signed upload URL was made by somebody who may upload this object");

const UPLOAD_OFFSET: HeaderName = HeaderName::from_static("upload-offset");
const UPLOAD_LENGTH: HeaderName = HeaderName::from_static("upload-length");
const UPLOAD_METADATA: HeaderName = HeaderName::from_static("upload-metadata");
const UPLOAD_EXPIRES: HeaderName = HeaderName::from_static("upload-expires");
const OFFSET_STREAM: &[u8] = b"application/offset+octet-stream";

/// How a client shows that it may upload.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Door {
    /// By its key or token: policies decide.
    Key,
    /// By `x-signature`: the token of a signed upload URL.
    Signature,
}

#[derive(Debug, Clone, Copy)]
enum Action {
    Create,
    Part,
    Get,
    Delete,
}

pub(crate) fn router() -> Router<Storage> {
    let root = |door: Door| -> MethodRouter<Storage> {
        post(move |State(storage): State<Storage>, request: Request| create(storage, request, door))
            .merge(options(discover))
    };
    let one = |door: Door| -> MethodRouter<Storage> {
        let act = move |State(storage): State<Storage>, request: Request| act(storage, request, door);
        patch(act).head(act).delete(act).post(act).merge(options(discover))
    };
    Router::new()
        .route("/upload/resumable", root(Door::Key))
        .route("/upload/resumable/", root(Door::Key))
        .route("/upload/resumable/{id}", one(Door::Key))
        .route("/upload/resumable/sign", root(Door::Signature))
        .route("/upload/resumable/sign/", root(Door::Signature))
        .route("/upload/resumable/sign/{id}", one(Door::Signature))
}

/// What this server can do.
async fn discover(State(storage): State<Storage>) -> Response {
    let mut headers = answering();
    headers.insert(TUS_VERSION, HeaderValue::from_static(VERSION));
    headers.insert("tus-extension", HeaderValue::from_static(EXTENSIONS));
    headers.insert("tus-checksum-algorithm", HeaderValue::from_static(ALGORITHMS));
    headers.insert("tus-max-size", HeaderValue::from(storage.inner.file_size_limit));
    (StatusCode::NO_CONTENT, headers).into_response()
}

async fn create(storage: Storage, request: Request, door: Door) -> Result<Response, Refusal> {
    let (parts, body) = request.into_parts();
    spoken(&parts.headers)?;
    let text = extract::header(&parts.headers, UPLOAD_METADATA.as_str())?.unwrap_or_default();
    let metadata = UploadMetadata::parse(text)?;
    let length = number(&parts.headers, &UPLOAD_LENGTH)?;
    let deferred = parts.headers.get("upload-defer-length").map(HeaderValue::as_bytes);
    match (length, deferred) {
        (Some(_), None) | (None, Some(b"1")) => {}
        _ => {
            let text = "send Upload-Length, or `Upload-Defer-Length: 1` while it is not known";
            return Err(Refusal::Invalid(text.into()));
        }
    }
    let id = UploadId::new(metadata.bucket, metadata.name);
    let (caller, by_token) = caller(&storage, &parts.headers, door, Action::Create, &id)?;
    let mut upload = Upload {
        id,
        upsert: by_token
            .unwrap_or_else(|| parts.headers.get("x-upsert").is_some_and(|value| value == "true")),
        mimetype: metadata.mimetype,
        cache_control: metadata.cache_control,
        user_metadata: metadata.user_metadata,
        upload_metadata: Some(text.to_owned()),
        length,
        received: 0,
        completed: false,
        expires_at: Utc::now(),
    };
    let object = upload.object();
    let rules = storage.rules(&object.bucket).await?;
    if length.is_some_and(|length| length > storage.size_limit_of(&rules, &object.name)) {
        return Err(Refusal::TooLarge);
    }
    storage.check_type(&rules, &object.name, &object.mimetype)?;
    storage.check_upload(&caller, &object).await?;
    let with_bytes = parts.headers.get(CONTENT_TYPE).is_some_and(|kind| kind.as_bytes() == OFFSET_STREAM);
    let incoming = with_bytes.then(|| incoming(&storage, &parts.headers, body, 0, None)).transpose()?;
    upload.expires_at = storage.insert_upload(&upload, caller.owner_id()).await?;

    let location = location(&parts, door, &upload.id);
    let mut headers = answering();
    headers.insert(LOCATION, HeaderValue::from_str(&location).map_err(|_| Refusal::NoSuchUpload)?);
    let mut offset = 0;
    if let Some(incoming) = incoming {
        offset = storage.receive_first(caller, upload.clone(), incoming).await?;
    } else if length == Some(0) {
        storage.join_detached(caller, upload.clone()).await?;
    }
    headers.insert(UPLOAD_OFFSET, HeaderValue::from(offset));
    if length != Some(offset) {
        headers.insert(UPLOAD_EXPIRES, expires(upload.expires_at));
    }
    Ok((StatusCode::CREATED, headers).into_response())
}

/// Requests about one upload. Where a proxy lets only POST through, the real method is in a header.
async fn act(storage: Storage, request: Request, door: Door) -> Result<Response, Refusal> {
    let (mut parts, body) = request.into_parts();
    spoken(&parts.headers)?;
    let Path(id): Path<String> =
        Path::from_request_parts(&mut parts, &storage).await.map_err(|_| Refusal::NoSuchUpload)?;
    let id = UploadId::decode(&id)?;
    let method = match parts.headers.get("x-http-method-override") {
        Some(method) if parts.method == Method::POST => Method::from_bytes(method.as_bytes()).ok(),
        _ => Some(parts.method.clone()),
    };
    match method {
        Some(Method::PATCH) => add(storage, &parts.headers, body, door, &id).await,
        Some(Method::HEAD) => tell(storage, &parts.headers, door, &id).await,
        Some(Method::DELETE) => terminate(storage, &parts.headers, door, &id).await,
        _ => Err(Refusal::Invalid("send PATCH, HEAD or DELETE to an upload".into())),
    }
}

async fn add(
    storage: Storage,
    headers: &HeaderMap,
    body: Body,
    door: Door,
    id: &UploadId,
) -> Result<Response, Refusal> {
    let (caller, _) = caller(&storage, headers, door, Action::Part, id)?;
    if headers.get(CONTENT_TYPE).is_none_or(|kind| kind.as_bytes() != OFFSET_STREAM) {
        return Err(Refusal::ContentType);
    }
    let offset = number(headers, &UPLOAD_OFFSET)?
        .ok_or_else(|| Refusal::Invalid("send Upload-Offset: where the bytes begin".into()))?;
    let length = number(headers, &UPLOAD_LENGTH)?;
    let incoming = incoming(&storage, headers, body, offset, length)?;
    may_go_on(&storage, &caller, id).await?;
    storage.writers.interrupt(id.id).await;
    let upload = storage.find_upload(id).await?;
    if upload.length.is_some() && length.is_some() && upload.length != length {
        return Err(Refusal::Invalid("Upload-Length: it was another when the upload began".into()));
    }
    let ended = upload.length.or(length);
    let expires_at = upload.expires_at;
    let offset = storage.receive_pieces(caller, upload, incoming).await?;
    let mut headers = answering();
    headers.insert(UPLOAD_OFFSET, HeaderValue::from(offset));
    if ended != Some(offset) {
        headers.insert(UPLOAD_EXPIRES, expires(expires_at));
    }
    Ok((StatusCode::NO_CONTENT, headers).into_response())
}

/// Whether the caller may upload what this upload is to become. Only such a one may end another's connection.
async fn may_go_on(storage: &Storage, caller: &Caller, id: &UploadId) -> Result<(), Refusal> {
    let upload = storage.find_upload(id).await?;
    if !upload.completed {
        storage.check_upload(caller, &upload.object()).await?;
    }
    Ok(())
}

async fn tell(storage: Storage, headers: &HeaderMap, door: Door, id: &UploadId) -> Result<Response, Refusal> {
    let (caller, _) = caller(&storage, headers, door, Action::Get, id)?;
    if may_go_on(&storage, &caller, id).await.is_ok() {
        storage.writers.interrupt(id.id).await;
    }
    let upload = storage.find_upload(id).await?;
    if !upload.completed && upload.length == Some(upload.received) {
        // Whoever received the last piece died before it had joined them. To the client, an offset at the end
        // means that the file is there: so it is made true before it is said.
        storage.join_detached(caller, upload.clone()).await?;
    }
    let mut headers = answering();
    headers.insert(UPLOAD_OFFSET, HeaderValue::from(upload.received));
    match upload.length {
        Some(length) => headers.insert(UPLOAD_LENGTH, HeaderValue::from(length)),
        None => headers.insert("upload-defer-length", HeaderValue::from_static("1")),
    };
    let metadata = upload.upload_metadata.as_deref().map(HeaderValue::from_str);
    if let Some(Ok(metadata)) = metadata {
        headers.insert(UPLOAD_METADATA, metadata);
    }
    if upload.length != Some(upload.received) {
        headers.insert(UPLOAD_EXPIRES, expires(upload.expires_at));
    }
    Ok((StatusCode::OK, headers).into_response())
}

async fn terminate(
    storage: Storage,
    headers: &HeaderMap,
    door: Door,
    id: &UploadId,
) -> Result<Response, Refusal> {
    let (caller, _) = caller(&storage, headers, door, Action::Delete, id)?;
    let upload = storage.find_upload(id).await?;
    match storage.check_upload(&caller, &upload.object()).await {
        // Somebody else was faster with this name; giving up is all the more in order.
        Ok(()) | Err(Error::AlreadyExists) => {}
        Err(error) => return Err(error.into()),
    }
    storage.writers.interrupt(id.id).await;
    storage.delete_upload(&upload).await?;
    Ok((StatusCode::NO_CONTENT, answering()).into_response())
}

fn answering() -> HeaderMap {
    let mut headers = HeaderMap::with_capacity(8);
    headers.insert(TUS_RESUMABLE, HeaderValue::from_static(VERSION));
    headers.insert(CACHE_CONTROL, HeaderValue::from_static("no-store"));
    headers
}

fn spoken(headers: &HeaderMap) -> Result<(), Refusal> {
    match headers.get(TUS_RESUMABLE) {
        Some(version) if version == VERSION => Ok(()),
        _ => Err(Refusal::Version),
    }
}

/// As whom a request acts, and what a signed token says about replacing.
fn caller(
    storage: &Storage,
    headers: &HeaderMap,
    door: Door,
    action: Action,
    id: &UploadId,
) -> Result<(Caller, Option<bool>), Refusal> {
    let operation = match (action, door) {
        (Action::Create, Door::Key) => "storage.tus.upload.create",
        (Action::Create, Door::Signature) => "storage.tus.upload.create_signed",
        (Action::Part, Door::Key) => "storage.tus.upload.part",
        (Action::Part, Door::Signature) => "storage.tus.upload.part_signed",
        (Action::Get, Door::Key) => "storage.tus.upload.get",
        (Action::Get, Door::Signature) => "storage.tus.upload.get_signed",
        (Action::Delete, Door::Key) => "storage.tus.upload.delete",
        (Action::Delete, Door::Signature) => "storage.tus.upload.delete_signed",
    };
    if door == Door::Key {
        return Ok((storage.caller(headers, operation)?, None));
    }
    let token = extract::header(headers, "x-signature")?
        .ok_or(Error::InvalidSignature("Missing x-signature header"))?;
    let token = storage.signing().verify_upload(token, &id.object())?;
    Ok((Caller::by_token(BY_TOKEN, token.owner, operation), Some(token.upsert)))
}

fn incoming(
    storage: &Storage,
    headers: &HeaderMap,
    body: Body,
    offset: u64,
    length: Option<u64>,
) -> Result<Incoming, Refusal> {
    let checksum = extract::header(headers, "upload-checksum")?.map(Checksum::parse).transpose()?;
    let announced = extract::content_length(headers)?;
    let content = arriving(body, storage.inner.idle_timeout);
    Ok(Incoming { offset, length, announced, checksum, content })
}

fn number(headers: &HeaderMap, name: &HeaderName) -> Result<Option<u64>, Refusal> {
    let Some(text) = extract::header(headers, name.as_str())? else { return Ok(None) };
    let digits = !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit());
    match digits.then(|| text.parse()) {
        // Larger than any file.
        Some(Err(_)) => Err(Refusal::TooLarge),
        Some(Ok(number)) => Ok(Some(number)),
        None => Err(Refusal::Invalid(format!("{name}: write a number of bytes"))),
    }
}

fn expires(time: DateTime<Utc>) -> HeaderValue {
    let text = httpdate::fmt_http_date(time.into());
    HeaderValue::from_str(&text).expect("dates are ASCII")
}

/// The upload's URL, under the origin and path by which this request came.
fn location(parts: &Parts, door: Door, id: &UploadId) -> String {
    let origin = parts.extensions.get::<PublicOrigin>().map_or("", PublicOrigin::as_str);
    let path = parts.extensions.get::<OriginalUri>().map_or(parts.uri.path(), |uri| uri.0.path());
    let path = path.trim_end_matches('/');
    debug_assert!(path.ends_with(if door == Door::Signature { "/sign" } else { "/resumable" }));
    format!("{origin}{path}/{}", id.encode())
}
