//! Operations about objects.

use std::time::SystemTime;

use chrono::SubsecRound;
use s3s::dto::*;
use s3s::{S3ErrorCode, S3Request, S3Response, S3Result};
use serde_json::Value;

use super::body::{Expected, incoming, outgoing};
use super::buckets::timestamp;
use super::error::{error, not_modified, refused};
use super::listing::etag;
use crate::blobs::Version;
use crate::names::{BucketId, ObjectName};
use crate::objects::{Copying, Metadata as Described, NewObject, Object as Row, Override, limited, sendable};
use crate::storage::Caller;
use crate::{Error, Storage};

/// Description of a user's own: as large as S3 takes it.
const METADATA_LIMIT: usize = 2048;

/// A bucket and a name, checked.
pub(super) fn place(bucket: &str, key: &str) -> S3Result<(BucketId, ObjectName)> {
    Ok((BucketId::parse(bucket).map_err(refused)?, ObjectName::parse(key).map_err(refused)?))
}

/// An object with its bytes, as the caller may read it.
pub(super) async fn readable(
    storage: &Storage,
    caller: &Caller,
    bucket: &str,
    key: &str,
) -> S3Result<(Row, Described, Version)> {
    let (bucket, name) = place(bucket, key)?;
    let object = match storage.find_object(caller, &bucket, &name).await {
        Err(Error::NoSuchKey) => {
            storage.rules(&bucket).await.map_err(refused)?;
            return Err(refused(Error::NoSuchKey));
        }
        found => found.map_err(refused)?,
    };
    let version = object.version.as_deref().and_then(Version::parse);
    match (object.described(), version) {
        (Some(metadata), Some(version)) => Ok((object, metadata, version)),
        _ => Err(refused(Error::NoSuchKey)),
    }
}

/// Conditions of reading (RFC 9110, 13.2.2).
struct Conditions<'a> {
    if_match: Option<&'a ETagCondition>,
    if_none_match: Option<&'a ETagCondition>,
    if_modified_since: Option<&'a Timestamp>,
    if_unmodified_since: Option<&'a Timestamp>,
}

impl Conditions<'_> {
    fn check(&self, metadata: &Described) -> Result<(), S3ErrorCode> {
        let tag = etag(metadata);
        let holds = |condition: &ETagCondition| {
            condition.is_any() || condition.as_etag().is_some_and(|wanted| wanted.value() == tag.value())
        };
        // Whole seconds are all that HTTP's dates have.
        let modified = timestamp(metadata.last_modified.trunc_subsecs(0));
        match (self.if_match, self.if_unmodified_since) {
            (Some(condition), _) if !holds(condition) => return Err(S3ErrorCode::PreconditionFailed),
            (None, Some(time)) if modified > *time => return Err(S3ErrorCode::PreconditionFailed),
            _ => {}
        }
        match (self.if_none_match, self.if_modified_since) {
            (Some(condition), _) if holds(condition) => Err(S3ErrorCode::NotModified),
            (None, Some(time)) if modified <= *time => Err(S3ErrorCode::NotModified),
            _ => Ok(()),
        }
    }

    fn of_reading(&self, metadata: &Described) -> S3Result<()> {
        self.check(metadata).map_err(|code| match code {
            S3ErrorCode::NotModified => not_modified(),
            code => error(code, "At least one of the pre-conditions you specified did not hold"),
        })
    }
}

/// Of a source that is copied, any condition that does not hold is a failed one.
pub(super) fn source_conditions(
    metadata: &Described,
    (if_match, if_none_match): (Option<&ETagCondition>, Option<&ETagCondition>),
    (if_modified_since, if_unmodified_since): (Option<&Timestamp>, Option<&Timestamp>),
) -> S3Result<()> {
    let conditions = Conditions { if_match, if_none_match, if_modified_since, if_unmodified_since };
    conditions.check(metadata).map_err(|_| {
        error(
            S3ErrorCode::PreconditionFailed,
            "At least one of the pre-conditions you specified did not hold",
        )
    })
}

fn shown(object: &Row) -> Option<Metadata> {
    let Some(Value::Object(own)) = &object.user_metadata else { return None };
    let text = |value: &Value| match value {
        Value::String(text) => text.clone(),
        other => other.to_string(),
    };
    // What cannot be a header is not shown here.
    let sendable = |name: &str, value: &str| {
        http::HeaderName::try_from(format!("x-amz-meta-{name}")).is_ok()
            && http::HeaderValue::from_str(value).is_ok()
    };
    let pairs = own.iter().map(|(name, value)| (name.to_ascii_lowercase(), text(value)));
    Some(pairs.filter(|(name, value)| sendable(name, value)).collect())
}

/// The user's own description, as the row has it.
pub(super) fn kept(metadata: Option<Metadata>) -> S3Result<Option<Value>> {
    let Some(metadata) = metadata.filter(|metadata| !metadata.is_empty()) else { return Ok(None) };
    let size: usize = metadata.iter().map(|(name, value)| name.len() + value.len()).sum();
    if size > METADATA_LIMIT {
        return Err(error(S3ErrorCode::MetadataTooLarge, "Your metadata headers exceed 2 KB: shorten them"));
    }
    Ok(Some(metadata.into_iter().map(|(name, value)| (name, Value::String(value))).collect()))
}

fn type_of(asked: Option<&str>) -> S3Result<String> {
    let asked = asked.filter(|text| !text.is_empty()).unwrap_or("application/octet-stream");
    sendable("content-type", asked).map_err(refused)
}

fn caching(asked: Option<&str>) -> S3Result<String> {
    sendable("cache-control", asked.unwrap_or("no-cache")).map_err(refused)
}

/// What is asked of an object that is to be read.
struct Asked {
    bucket: String,
    key: String,
    if_match: Option<ETagCondition>,
    if_none_match: Option<ETagCondition>,
    if_modified_since: Option<Timestamp>,
    if_unmodified_since: Option<Timestamp>,
    part_number: Option<i32>,
    range: Option<Range>,
}

/// What is read of an object: which bytes, and what is said about them.
struct Reading {
    version: Version,
    range: std::ops::Range<u64>,
    content_range: Option<String>,
    object: Row,
    metadata: Described,
}

impl Asked {
    /// The object if the caller may read it, the conditions hold and there is such a range.
    async fn read(&self, storage: &Storage, caller: &Caller) -> S3Result<Reading> {
        let (object, metadata, version) = readable(storage, caller, &self.bucket, &self.key).await?;
        Conditions {
            if_match: self.if_match.as_ref(),
            if_none_match: self.if_none_match.as_ref(),
            if_modified_since: self.if_modified_since.as_ref(),
            if_unmodified_since: self.if_unmodified_since.as_ref(),
        }
        .of_reading(&metadata)?;
        one_part(self.part_number)?;
        let (range, content_range) = wanted(self.range.as_ref(), metadata.size)?;
        Ok(Reading { version, range, content_range, object, metadata })
    }
}

impl Reading {
    /// The response, still without its bytes.
    fn described(self) -> GetObjectOutput {
        GetObjectOutput {
            accept_ranges: Some("bytes".into()),
            content_length: Some((self.range.end - self.range.start) as i64),
            content_range: self.content_range,
            e_tag: Some(etag(&self.metadata)),
            last_modified: Some(timestamp(self.metadata.last_modified)),
            metadata: shown(&self.object),
            content_type: Some(self.metadata.mimetype),
            cache_control: Some(self.metadata.cache_control),
            ..GetObjectOutput::default()
        }
    }
}

pub(super) async fn get_object(
    storage: &Storage,
    request: S3Request<GetObjectInput>,
) -> S3Result<S3Response<GetObjectOutput>> {
    let caller = storage.s3_caller(&request, "storage.s3.object.get")?;
    let GetObjectInput { bucket, key, if_match, if_none_match, .. } = request.input;
    let GetObjectInput { if_modified_since, if_unmodified_since, part_number, range, .. } = request.input;
    let asked = Asked {
        bucket,
        key,
        if_match,
        if_none_match,
        if_modified_since,
        if_unmodified_since,
        part_number,
        range,
    };
    let reading = asked.read(storage, &caller).await?;
    let content = storage.blobs().get(reading.version, reading.range.clone()).await;
    let body = Some(outgoing(content.map_err(|error| refused(error.into()))?));
    Ok(S3Response::new(GetObjectOutput { body, ..reading.described() }))
}

pub(super) async fn head_object(
    storage: &Storage,
    request: S3Request<HeadObjectInput>,
) -> S3Result<S3Response<HeadObjectOutput>> {
    let caller = storage.s3_caller(&request, "storage.s3.object.info")?;
    let HeadObjectInput { bucket, key, if_match, if_none_match, .. } = request.input;
    let HeadObjectInput { if_modified_since, if_unmodified_since, part_number, range, .. } = request.input;
    let asked = Asked {
        bucket,
        key,
        if_match,
        if_none_match,
        if_modified_since,
        if_unmodified_since,
        part_number,
        range,
    };
    let described = asked.read(storage, &caller).await?.described();
    Ok(S3Response::new(HeadObjectOutput {
        accept_ranges: described.accept_ranges,
        content_length: described.content_length,
        content_range: described.content_range,
        e_tag: described.e_tag,
        last_modified: described.last_modified,
        metadata: described.metadata,
        content_type: described.content_type,
        cache_control: described.cache_control,
        ..HeadObjectOutput::default()
    }))
}

/// Parts are joined when an upload completes: every object is its own only part.
fn one_part(number: Option<i32>) -> S3Result<()> {
    match number {
        None | Some(1) => Ok(()),
        Some(_) => {
            let code = S3ErrorCode::Custom("InvalidPartNumber".into());
            let mut refusal =
                error(code, "The requested partnumber is not satisfiable: the object is one part");
            refusal.set_status_code(http::StatusCode::RANGE_NOT_SATISFIABLE);
            Err(refusal)
        }
    }
}

fn wanted(range: Option<&Range>, size: u64) -> S3Result<(std::ops::Range<u64>, Option<String>)> {
    let Some(range) = range else { return Ok((0..size, None)) };
    let range = range.check(size)?;
    if range.is_empty() {
        return Err(refused(Error::InvalidRange));
    }
    let text = format!("bytes {}-{}/{size}", range.start, range.end - 1);
    Ok((range, Some(text)))
}

pub(super) async fn put_object(
    storage: &Storage,
    request: S3Request<PutObjectInput>,
) -> S3Result<S3Response<PutObjectOutput>> {
    let caller = storage.s3_caller(&request, "storage.s3.upload")?;
    let expected = Expected::new(&request.headers, &request.extensions);
    let input = request.input;
    let (bucket, name) = place(&input.bucket, &input.key)?;
    let rules = storage.rules(&bucket).await.map_err(refused)?;
    let limit = storage.size_limit_of(&rules, &name);
    let announced = input.content_length.and_then(|length| u64::try_from(length).ok());
    if announced.is_some_and(|length| length > limit) {
        return Err(refused(Error::TooLarge("object")));
    }
    if input.if_match.is_some() {
        let (_, metadata, _) = readable(storage, &caller, &input.bucket, &input.key).await?;
        source_conditions(&metadata, (input.if_match.as_ref(), None), (None, None))?;
    }
    let object = NewObject {
        bucket,
        name,
        upsert: input.if_none_match.is_none(),
        mimetype: type_of(input.content_type.as_deref())?,
        content_length: announced,
        user_metadata: kept(input.metadata)?,
    };
    storage.check_type(&rules, &object.name, &object.mimetype).map_err(refused)?;
    let cache_control = caching(input.cache_control.as_deref())?;
    storage.check_upload(&caller, &object).await.map_err(refused)?;
    let content = limited(incoming(input.body, expected), limit);
    let stored = storage.receive(content).await.map_err(refused)?;
    let metadata = Described::new(&stored.written, &object.mimetype, &cache_control, None);
    storage.commit_upload(&caller, &object, &metadata, stored).await.map_err(refused)?;
    Ok(S3Response::new(PutObjectOutput { e_tag: Some(etag(&metadata)), ..PutObjectOutput::default() }))
}

/// Bucket and key of what is to be copied.
pub(super) fn source(source: &CopySource) -> S3Result<(&str, &str)> {
    match source {
        CopySource::Bucket { bucket, key, version_id: None } => Ok((bucket, key)),
        CopySource::Bucket { .. } => {
            Err(error(S3ErrorCode::NotImplemented, "There are no versions here: leave versionId out"))
        }
        _ => Err(error(S3ErrorCode::NotImplemented, "Name the source as bucket/key")),
    }
}

pub(super) async fn copy_object(
    storage: &Storage,
    request: S3Request<CopyObjectInput>,
) -> S3Result<S3Response<CopyObjectOutput>> {
    let caller = storage.s3_caller(&request, "storage.s3.object.copy")?;
    let input = request.input;
    let (bucket, key) = source(&input.copy_source)?;
    let (_, metadata, _) = readable(storage, &caller, bucket, key).await?;
    source_conditions(
        &metadata,
        (input.copy_source_if_match.as_ref(), input.copy_source_if_none_match.as_ref()),
        (input.copy_source_if_modified_since.as_ref(), input.copy_source_if_unmodified_since.as_ref()),
    )?;
    let anew = match input.metadata_directive.as_ref().map(MetadataDirective::as_str) {
        Some(MetadataDirective::REPLACE) => {
            let change = Override {
                cache_control: Some(caching(input.cache_control.as_deref())?),
                mimetype: Some(type_of(input.content_type.as_deref())?),
            };
            Some((change, kept(input.metadata)?))
        }
        _ => None,
    };
    let (from, to) = (place(bucket, key)?, place(&input.bucket, &input.key)?);
    let copying = Copying { upsert: true, anew };
    let copied = storage.copy_object(&caller, &from, &to, copying).await.map_err(refused)?;
    let metadata = copied.get("metadata").and_then(Described::read);
    let result = CopyObjectResult {
        e_tag: metadata.as_ref().map(etag),
        last_modified: Some(
            metadata.map_or_else(|| SystemTime::now().into(), |metadata| timestamp(metadata.last_modified)),
        ),
        ..CopyObjectResult::default()
    };
    Ok(S3Response::new(CopyObjectOutput { copy_object_result: Some(result), ..CopyObjectOutput::default() }))
}

/// Deleting what is not there succeeds, as clients expect.
pub(super) async fn delete_object(
    storage: &Storage,
    request: S3Request<DeleteObjectInput>,
) -> S3Result<S3Response<DeleteObjectOutput>> {
    let caller = storage.s3_caller(&request, "storage.s3.object.delete")?;
    let (bucket, name) = place(&request.input.bucket, &request.input.key)?;
    storage.rules(&bucket).await.map_err(refused)?;
    match storage.delete_object(&caller, &bucket, &name).await {
        Ok(()) | Err(Error::NoSuchKey) => Ok(S3Response::new(DeleteObjectOutput::default())),
        Err(error) => Err(refused(error)),
    }
}

pub(super) async fn delete_objects(
    storage: &Storage,
    request: S3Request<DeleteObjectsInput>,
) -> S3Result<S3Response<DeleteObjectsOutput>> {
    let caller = storage.s3_caller(&request, "storage.s3.object.delete_many")?;
    let input = request.input;
    let bucket = BucketId::parse(&input.bucket).map_err(refused)?;
    storage.rules(&bucket).await.map_err(refused)?;
    let keys: Vec<String> = input.delete.objects.into_iter().map(|object| object.key).collect();
    if keys.is_empty() || keys.len() > 1000 {
        return Err(error(S3ErrorCode::MalformedXML, "Name 1 to 1000 objects in one request"));
    }
    let names: Vec<String> = keys.iter().filter(|key| !key.contains('\0')).cloned().collect();
    let deleted = storage.delete_objects(&caller, &bucket, &names).await.map_err(refused)?;
    let deleted: std::collections::HashSet<String> = deleted.into_iter().map(|object| object.name).collect();
    let (mut gone, mut errors) = (Vec::new(), Vec::new());
    for key in keys {
        let outcome = match ObjectName::parse(&key) {
            Ok(name) if !deleted.contains(&key) => storage.delete_object(&caller, &bucket, &name).await,
            _ => Ok(()),
        };
        match outcome {
            Ok(()) | Err(Error::NoSuchKey) => {
                gone.push(DeletedObject { key: Some(key), ..DeletedObject::default() });
            }
            Err(refusal) => {
                let refusal = refused(refusal);
                errors.push(s3s::dto::Error {
                    code: Some(refusal.code().as_str().to_owned()),
                    message: refusal.message().map(str::to_owned),
                    key: Some(key),
                    ..s3s::dto::Error::default()
                });
            }
        }
    }
    let gone = if input.delete.quiet.unwrap_or(false) { Vec::new() } else { gone };
    Ok(S3Response::new(DeleteObjectsOutput {
        deleted: Some(gone),
        errors: Some(errors),
        ..DeleteObjectsOutput::default()
    }))
}
