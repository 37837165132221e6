//! Uploads in parts, which may come in any order and at once.

use std::time::Duration;

use futures_util::FutureExt;
use s3s::dto::*;
use s3s::{S3ErrorCode, S3Request, S3Response, S3Result};
use uuid::Uuid;

use super::access::is_operator;
use super::body::{Expected, incoming};
use super::buckets::timestamp;
use super::error::{error, refused};
use super::listing::{Encoding, etag, page_size, plain};
use super::objects::{kept, place, readable, source, source_conditions};
use super::store::{Part as Stored, Upload, Uploads};
use crate::names::BucketId;
use crate::objects::{Metadata as Described, NewObject, limited, sendable};
use crate::storage::Caller;
use crate::{Error, Storage, failpoints};

/// Parts of an upload, as S3 has it.
const MOST_PARTS: i32 = 10_000;
/// Largest part, as S3 has it.
const LARGEST_PART: u64 = 5 * 1024 * 1024 * 1024;
/// How long joining may take before the client is kept waiting by blanks instead of silence.
const PATIENCE: Duration = Duration::from_secs(5);

impl Upload {
    fn object(&self, size: Option<u64>, replaces: bool) -> NewObject {
        NewObject {
            bucket: self.bucket.clone(),
            name: self.name.clone(),
            upsert: replaces,
            mimetype: self.mimetype.clone(),
            content_length: size,
            user_metadata: self.user_metadata.clone(),
        }
    }
}

/// An upload that exists, and that the caller may go on with.
async fn found(storage: &Storage, caller: &Caller, id: &str, bucket: &str, key: &str) -> S3Result<Upload> {
    let (bucket, name) = place(bucket, key)?;
    let upload = storage.find_multipart(id, bucket, name).await.map_err(refused)?;
    let missing = "The specified upload does not exist. It may have been aborted or completed.";
    let upload = upload.ok_or_else(|| error(S3ErrorCode::NoSuchUpload, missing))?;
    storage.check_upload(caller, &upload.object(None, true)).await.map_err(refused)?;
    Ok(upload)
}

fn part_number(number: i32) -> S3Result<i32> {
    match (1..=MOST_PARTS).contains(&number) {
        true => Ok(number),
        false => {
            Err(error(S3ErrorCode::InvalidArgument, "Part number must be an integer between 1 and 10000"))
        }
    }
}

pub(super) async fn create_multipart_upload(
    storage: &Storage,
    request: S3Request<CreateMultipartUploadInput>,
) -> S3Result<S3Response<CreateMultipartUploadOutput>> {
    let caller = storage.s3_caller(&request, "storage.s3.upload.create_multipart")?;
    let input = request.input;
    let (bucket, name) = place(&input.bucket, &input.key)?;
    let rules = storage.rules(&bucket).await.map_err(refused)?;
    let mimetype = input.content_type.as_deref().filter(|text| !text.is_empty());
    let upload = Upload {
        id: Uuid::new_v4().to_string(),
        bucket,
        name,
        mimetype: sendable("content-type", mimetype.unwrap_or("application/octet-stream"))
            .map_err(refused)?,
        cache_control: sendable("cache-control", input.cache_control.as_deref().unwrap_or("no-cache"))
            .map_err(refused)?,
        user_metadata: kept(input.metadata)?,
    };
    storage.check_type(&rules, &upload.name, &upload.mimetype).map_err(refused)?;
    storage.check_upload(&caller, &upload.object(None, true)).await.map_err(refused)?;
    storage.insert_multipart(&upload, caller.owner_id()).await.map_err(refused)?;
    Ok(S3Response::new(CreateMultipartUploadOutput {
        bucket: Some(input.bucket),
        key: Some(input.key),
        upload_id: Some(upload.id),
        ..CreateMultipartUploadOutput::default()
    }))
}

async fn store_part(
    storage: &Storage,
    upload: &Upload,
    number: i32,
    (content, announced): (crate::blobs::Content, Option<u64>),
) -> S3Result<ETag> {
    let rules = storage.rules(&upload.bucket).await.map_err(refused)?;
    let limit = storage.size_limit_of(&rules, &upload.name);
    if announced.is_some_and(|length| length > limit.min(LARGEST_PART)) {
        return Err(refused(Error::TooLarge("object")));
    }
    let stored = storage.receive(limited(content, limit.min(LARGEST_PART))).await.map_err(refused)?;
    let tag = ETag::Strong(hex::encode(stored.written.sha256));
    if !storage.put_part(upload, number, stored, limit).await.map_err(refused)? {
        let (bucket, name) = (upload.bucket.clone(), upload.name.clone());
        return Err(match storage.find_multipart(&upload.id, bucket, name).await.map_err(refused)? {
            Some(_) => refused(Error::TooLarge("object")),
            None => error(S3ErrorCode::NoSuchUpload, "The upload was aborted or completed meanwhile"),
        });
    }
    failpoints::reach("multipart.received");
    Ok(tag)
}

pub(super) async fn upload_part(
    storage: &Storage,
    request: S3Request<UploadPartInput>,
) -> S3Result<S3Response<UploadPartOutput>> {
    let caller = storage.s3_caller(&request, "storage.s3.upload.part")?;
    let expected = Expected::new(&request.headers, &request.extensions);
    let input = request.input;
    let number = part_number(input.part_number)?;
    let upload = found(storage, &caller, &input.upload_id, &input.bucket, &input.key).await?;
    let announced = input.content_length.and_then(|length| u64::try_from(length).ok());
    let content = incoming(input.body, expected);
    let e_tag = Some(store_part(storage, &upload, number, (content, announced)).await?);
    Ok(S3Response::new(UploadPartOutput { e_tag, ..UploadPartOutput::default() }))
}

pub(super) async fn upload_part_copy(
    storage: &Storage,
    request: S3Request<UploadPartCopyInput>,
) -> S3Result<S3Response<UploadPartCopyOutput>> {
    let caller = storage.s3_caller(&request, "storage.s3.upload.part_copy")?;
    let input = request.input;
    let number = part_number(input.part_number)?;
    let upload = found(storage, &caller, &input.upload_id, &input.bucket, &input.key).await?;
    let (bucket, key) = source(&input.copy_source)?;
    let (_, metadata, version) = readable(storage, &caller, bucket, key).await?;
    source_conditions(
        &metadata,
        (input.copy_source_if_match.as_ref(), input.copy_source_if_none_match.as_ref()),
        (input.copy_source_if_modified_since.as_ref(), input.copy_source_if_unmodified_since.as_ref()),
    )?;
    let range = match input.copy_source_range.as_deref() {
        None => 0..metadata.size,
        Some(text) => {
            let invalid =
                || error(S3ErrorCode::InvalidArgument, "x-amz-copy-source-range must be bytes=first-last");
            let range = Range::parse(text).map_err(|_| invalid())?;
            let Range::Int { last: Some(last), .. } = range else { return Err(invalid()) };
            if last >= metadata.size {
                return Err(refused(Error::InvalidRange));
            }
            range.check(metadata.size)?
        }
    };
    let length = range.end - range.start;
    let content = storage.blobs().get(version, range).await.map_err(|error| refused(error.into()))?;
    let e_tag = store_part(storage, &upload, number, (content, Some(length))).await?;
    let last_modified = Some(std::time::SystemTime::now().into());
    let result = CopyPartResult { e_tag: Some(e_tag), last_modified, ..CopyPartResult::default() };
    Ok(S3Response::new(UploadPartCopyOutput {
        copy_part_result: Some(result),
        ..UploadPartCopyOutput::default()
    }))
}

/// The parts that the client names, in its order, which must be theirs.
fn chosen(wanted: Option<CompletedMultipartUpload>, stored: Vec<Stored>) -> S3Result<Vec<Stored>> {
    let wanted = wanted.and_then(|wanted| wanted.parts).unwrap_or_default();
    if wanted.is_empty() {
        return Err(error(S3ErrorCode::MalformedXML, "Name at least one part"));
    }
    let mut stored = stored.into_iter().peekable();
    let (mut chosen, mut last) = (Vec::with_capacity(wanted.len()), 0);
    for part in wanted {
        let number = part.part_number.unwrap_or_default();
        if number <= last {
            return Err(error(S3ErrorCode::InvalidPartOrder, "The list of parts was not in ascending order"));
        }
        last = number;
        let missing = "One or more of the specified parts could not be found, or have another entity tag";
        let missing = || error(S3ErrorCode::InvalidPart, missing);
        // Parts that are not named are left out.
        let found = stored.by_ref().find(|one| one.number >= number).filter(|one| one.number == number);
        let found = found.ok_or_else(missing)?;
        if part.e_tag.as_ref().is_some_and(|tag| tag.value() != found.etag) {
            return Err(missing());
        }
        chosen.push(found);
    }
    Ok(chosen)
}

pub(super) async fn complete_multipart_upload(
    storage: &Storage,
    request: S3Request<CompleteMultipartUploadInput>,
) -> S3Result<S3Response<CompleteMultipartUploadOutput>> {
    let caller = storage.s3_caller(&request, "storage.s3.upload.complete_multipart")?;
    let input = request.input;
    let upload = found(storage, &caller, &input.upload_id, &input.bucket, &input.key).await?;
    let stored = storage.parts_of_multipart(&upload, 0, i64::from(MOST_PARTS)).await.map_err(refused)?;
    let parts = chosen(input.multipart_upload, stored)?;
    let size: u64 = parts.iter().map(|part| part.size).sum();
    if input.mpu_object_size.is_some_and(|wanted| u64::try_from(wanted).ok() != Some(size)) {
        return Err(error(
            S3ErrorCode::InvalidRequest,
            "The parts together are not as large as x-amz-mp-object-size says",
        ));
    }
    let object = upload.object(Some(size), input.if_none_match.is_none());
    storage.check_upload(&caller, &object).await.map_err(refused)?;
    let rules = storage.rules(&upload.bucket).await.map_err(refused)?;
    if size > storage.size_limit_of(&rules, &upload.name) {
        return Err(refused(Error::TooLarge("object")));
    }
    let storage = storage.clone();
    // It goes on when the client is gone: to ask again would mean to join again.
    let mut joining = tokio::spawn(async move { join(&storage, &caller, upload, &object, parts).await });
    let ended = |joined: Result<S3Result<CompleteMultipartUploadOutput>, tokio::task::JoinError>| {
        joined
            .unwrap_or_else(|_| Err(error(S3ErrorCode::InternalError, "joining the parts failed: try again")))
    };
    match tokio::time::timeout(PATIENCE, &mut joining).await {
        Ok(joined) => Ok(S3Response::new(ended(joined)?)),
        Err(_) => {
            let future = Some(joining.map(ended).boxed());
            Ok(S3Response::new(CompleteMultipartUploadOutput {
                future,
                ..CompleteMultipartUploadOutput::default()
            }))
        }
    }
}

async fn join(
    storage: &Storage,
    caller: &Caller,
    upload: Upload,
    object: &NewObject,
    parts: Vec<Stored>,
) -> S3Result<CompleteMultipartUploadOutput> {
    let pieces = parts.into_iter().map(|part| (part.version, part.size)).collect();
    let stored = storage.receive(storage.joined(pieces)).await.map_err(refused)?;
    let metadata = Described::new(&stored.written, &object.mimetype, &upload.cache_control, None);
    storage.commit_upload(caller, object, &metadata, stored).await.map_err(refused)?;
    // The object is there; what is left of the upload does no harm, and can be aborted.
    if let Err(error) = storage.delete_multipart(&upload).await {
        tracing::warn!(%error, upload = upload.id, "parts of a completed upload stay");
    }
    failpoints::reach("multipart.completed");
    Ok(CompleteMultipartUploadOutput {
        location: Some(format!("/{}/{}", object.bucket, object.name)),
        bucket: Some(object.bucket.as_str().to_owned()),
        key: Some(object.name.as_str().to_owned()),
        e_tag: Some(etag(&metadata)),
        ..CompleteMultipartUploadOutput::default()
    })
}

pub(super) async fn abort_multipart_upload(
    storage: &Storage,
    request: S3Request<AbortMultipartUploadInput>,
) -> S3Result<S3Response<AbortMultipartUploadOutput>> {
    let caller = storage.s3_caller(&request, "storage.s3.upload.abort_multipart")?;
    let input = request.input;
    let upload = found(storage, &caller, &input.upload_id, &input.bucket, &input.key).await?;
    storage.delete_multipart(&upload).await.map_err(refused)?;
    Ok(S3Response::new(AbortMultipartUploadOutput::default()))
}

pub(super) async fn list_parts(
    storage: &Storage,
    request: S3Request<ListPartsInput>,
) -> S3Result<S3Response<ListPartsOutput>> {
    let caller = storage.s3_caller(&request, "storage.s3.upload.list_parts")?;
    let input = request.input;
    let upload = found(storage, &caller, &input.upload_id, &input.bucket, &input.key).await?;
    let limit = page_size(input.max_parts)?;
    let after = input.part_number_marker.unwrap_or(0);
    let mut parts =
        storage.parts_of_multipart(&upload, after, i64::from(limit) + 1).await.map_err(refused)?;
    let more = parts.len() > limit as usize;
    parts.truncate(limit as usize);
    let next_part_number_marker = parts.last().filter(|_| more).map(|part| part.number);
    let parts = parts.into_iter().map(|part| Part {
        part_number: Some(part.number),
        size: Some(part.size as i64),
        e_tag: Some(ETag::Strong(part.etag)),
        last_modified: Some(timestamp(part.created_at)),
        ..Part::default()
    });
    Ok(S3Response::new(ListPartsOutput {
        bucket: Some(input.bucket),
        key: Some(input.key),
        upload_id: Some(input.upload_id),
        max_parts: Some(limit),
        is_truncated: Some(more),
        part_number_marker: input.part_number_marker,
        next_part_number_marker,
        parts: Some(parts.collect()),
        ..ListPartsOutput::default()
    }))
}

/// The operator sees all of them, a user its own.
pub(super) async fn list_multipart_uploads(
    storage: &Storage,
    request: S3Request<ListMultipartUploadsInput>,
) -> S3Result<S3Response<ListMultipartUploadsOutput>> {
    let caller = storage.s3_caller(&request, "storage.s3.upload.list_multipart")?;
    let operator = is_operator(&request);
    let input = request.input;
    let bucket = BucketId::parse(&input.bucket).map_err(refused)?;
    storage.rules(&bucket).await.map_err(refused)?;
    let encoding = Encoding::new(input.encoding_type.as_ref())?;
    let limit = page_size(input.max_uploads)?;
    let (prefix, delimiter) = (plain(input.prefix.as_deref())?, plain(input.delimiter.as_deref())?);
    let after = (plain(input.key_marker.as_deref())?, plain(input.upload_id_marker.as_deref())?);
    let owner = (!operator).then(|| caller.owner_id());
    let uploads = Uploads { prefix, delimiter, owner, after, limit: i64::from(limit) + 1 };
    let mut listed = storage.list_multiparts(&bucket, &uploads).await.map_err(refused)?;
    let more = listed.len() > limit as usize;
    listed.truncate(limit as usize);
    let next = listed.last().filter(|_| more).map(|last| (encoding.apply(&last.key), last.id.clone()));
    let (mut uploads, mut prefixes) = (Vec::new(), Vec::new());
    for one in listed {
        let key = encoding.apply(&one.key);
        match one.id {
            None => prefixes.push(CommonPrefix { prefix: Some(key) }),
            Some(id) => uploads.push(MultipartUpload {
                key: Some(key),
                upload_id: Some(id),
                initiated: one.created_at.map(timestamp),
                ..MultipartUpload::default()
            }),
        }
    }
    let (next_key_marker, next_upload_id_marker) = next.map_or((None, None), |(key, id)| (Some(key), id));
    Ok(S3Response::new(ListMultipartUploadsOutput {
        is_truncated: Some(more),
        uploads: Some(uploads),
        common_prefixes: Some(prefixes),
        next_key_marker,
        next_upload_id_marker,
        prefix: Some(encoding.apply(prefix)),
        delimiter: (!delimiter.is_empty()).then(|| encoding.apply(delimiter)),
        key_marker: input.key_marker.clone(),
        upload_id_marker: input.upload_id_marker.clone(),
        max_uploads: Some(limit),
        bucket: Some(input.bucket.clone()),
        encoding_type: input.encoding_type.clone(),
        ..ListMultipartUploadsOutput::default()
    }))
}
