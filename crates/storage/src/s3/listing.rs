//! `ListObjects` in its two versions.

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, utf8_percent_encode};
use s3s::dto::*;
use s3s::{S3ErrorCode, S3Request, S3Response, S3Result};

use super::buckets::timestamp;
use super::error::{error, refused};
use crate::Storage;
use crate::names::{BucketId, LONGEST_KEY};
use crate::objects::{Level, ListedObject, Listing, Metadata};
use crate::storage::Caller;

/// Entries of a page, at most.
const MOST: i32 = 1000;

/// What `encoding-type=url` leaves as it is.
const KEY: &AsciiSet =
    &NON_ALPHANUMERIC.remove(b'-').remove(b'_').remove(b'.').remove(b'~').remove(b'/').remove(b'*');

/// Names as the client wants them.
#[derive(Debug, Clone, Copy)]
pub(super) struct Encoding(bool);

impl Encoding {
    pub(super) fn new(wanted: Option<&EncodingType>) -> S3Result<Self> {
        match wanted.map(EncodingType::as_str) {
            None => Ok(Self(false)),
            Some("url") => Ok(Self(true)),
            Some(_) => Err(error(S3ErrorCode::InvalidArgument, "encoding-type must be url")),
        }
    }

    pub(super) fn apply(self, name: &str) -> String {
        if self.0 { utf8_percent_encode(name, KEY).to_string() } else { name.to_owned() }
    }
}

/// A number of entries that a client asks for.
pub(super) fn page_size(wanted: Option<i32>) -> S3Result<i32> {
    match wanted.unwrap_or(MOST) {
        negative if negative < 0 => {
            Err(error(S3ErrorCode::InvalidArgument, "the number of entries must not be negative"))
        }
        wanted => Ok(wanted.min(MOST)),
    }
}

/// Text for a prefix, a delimiter or a marker.
pub(super) fn plain(text: Option<&str>) -> S3Result<&str> {
    let text = text.unwrap_or_default();
    match text.len() > LONGEST_KEY || text.contains('\0') {
        true => Err(error(S3ErrorCode::InvalidArgument, "prefixes and markers are as long as keys, at most")),
        false => Ok(text),
    }
}

struct Page {
    contents: Vec<Object>,
    prefixes: Vec<CommonPrefix>,
    /// The last entry, where there are more.
    next: Option<String>,
}

async fn page(
    storage: &Storage,
    caller: &Caller,
    bucket: &str,
    listing: &Listing<'_>,
    encoding: Encoding,
) -> S3Result<Page> {
    let bucket = BucketId::parse(bucket).map_err(refused)?;
    storage.rules(&bucket).await.map_err(refused)?;
    let level = match listing.limit {
        0 => Level { entries: Vec::new(), has_next: false },
        _ => storage.list_by_name(caller, &bucket, listing).await.map_err(refused)?,
    };
    let next = level.entries.last().filter(|_| level.has_next).map(|last| last.name.clone());
    let (mut contents, mut prefixes) = (Vec::new(), Vec::new());
    for entry in level.entries {
        match entry.id {
            None => prefixes.push(CommonPrefix { prefix: Some(encoding.apply(&entry.name)) }),
            Some(_) => contents.push(object(&entry, encoding)),
        }
    }
    Ok(Page { contents, prefixes, next })
}

fn object(entry: &ListedObject, encoding: Encoding) -> Object {
    let metadata = entry.metadata.as_ref().and_then(Metadata::read);
    Object {
        key: Some(encoding.apply(&entry.name)),
        e_tag: metadata.as_ref().map(etag),
        size: Some(metadata.as_ref().map_or(0, |metadata| metadata.size as i64)),
        last_modified: metadata.map(|metadata| metadata.last_modified).or(entry.updated_at).map(timestamp),
        storage_class: Some(ObjectStorageClass::from_static(ObjectStorageClass::STANDARD)),
        ..Object::default()
    }
}

/// An object's tag, as this protocol's type.
pub(super) fn etag(metadata: &Metadata) -> ETag {
    ETag::Strong(metadata.e_tag.trim_matches('"').to_owned())
}

fn some(text: &str) -> Option<String> {
    (!text.is_empty()).then(|| text.to_owned())
}

pub(super) async fn list_objects(
    storage: &Storage,
    request: S3Request<ListObjectsInput>,
) -> S3Result<S3Response<ListObjectsOutput>> {
    let caller = storage.s3_caller(&request, "storage.s3.object.list")?;
    let input = request.input;
    let encoding = Encoding::new(input.encoding_type.as_ref())?;
    let limit = page_size(input.max_keys)?;
    let (prefix, delimiter) = (plain(input.prefix.as_deref())?, plain(input.delimiter.as_deref())?);
    let after = plain(input.marker.as_deref())?;
    let listing = Listing { prefix, delimiter, after, limit: limit.into(), descending: false };
    let page = page(storage, &caller, &input.bucket, &listing, encoding).await?;
    Ok(S3Response::new(ListObjectsOutput {
        is_truncated: Some(page.next.is_some()),
        // Without a delimiter, clients go on from the last key.
        next_marker: page.next.filter(|_| !delimiter.is_empty()).map(|next| encoding.apply(&next)),
        contents: Some(page.contents),
        common_prefixes: Some(page.prefixes),
        prefix: Some(encoding.apply(prefix)),
        marker: Some(encoding.apply(after)),
        delimiter: some(delimiter).map(|text| encoding.apply(&text)),
        max_keys: Some(limit),
        name: Some(input.bucket.clone()),
        encoding_type: input.encoding_type.clone(),
        ..ListObjectsOutput::default()
    }))
}

pub(super) async fn list_objects_v2(
    storage: &Storage,
    request: S3Request<ListObjectsV2Input>,
) -> S3Result<S3Response<ListObjectsV2Output>> {
    let caller = storage.s3_caller(&request, "storage.s3.object.list")?;
    let input = request.input;
    let encoding = Encoding::new(input.encoding_type.as_ref())?;
    let limit = page_size(input.max_keys)?;
    let (prefix, delimiter) = (plain(input.prefix.as_deref())?, plain(input.delimiter.as_deref())?);
    let continued = input.continuation_token.as_deref().map(read_token).transpose()?;
    let start_after = plain(input.start_after.as_deref())?;
    let after = plain(continued.as_deref().or(Some(start_after)))?;
    let listing = Listing { prefix, delimiter, after, limit: limit.into(), descending: false };
    let page = page(storage, &caller, &input.bucket, &listing, encoding).await?;
    Ok(S3Response::new(ListObjectsV2Output {
        is_truncated: Some(page.next.is_some()),
        next_continuation_token: page.next.map(|next| URL_SAFE_NO_PAD.encode(next)),
        continuation_token: input.continuation_token.clone(),
        key_count: Some((page.contents.len() + page.prefixes.len()) as i32),
        contents: Some(page.contents),
        common_prefixes: Some(page.prefixes),
        prefix: Some(encoding.apply(prefix)),
        delimiter: some(delimiter).map(|text| encoding.apply(&text)),
        start_after: some(start_after).map(|text| encoding.apply(&text)),
        max_keys: Some(limit),
        name: Some(input.bucket.clone()),
        encoding_type: input.encoding_type.clone(),
        ..ListObjectsV2Output::default()
    }))
}

fn read_token(token: &str) -> S3Result<String> {
    let read = URL_SAFE_NO_PAD.decode(token).ok().and_then(|bytes| String::from_utf8(bytes).ok());
    read.ok_or_else(|| error(S3ErrorCode::InvalidArgument, "The continuation token provided is incorrect"))
}
