//! Operations about buckets.

use chrono::{DateTime, Utc};
use s3s::dto::*;
use s3s::{S3Request, S3Response, S3Result};

use super::error::{error, refused};
use crate::buckets::store::{Listing, NewBucket};
use crate::names::BucketId;
use crate::{Error, Storage};

/// Buckets of one page.
const MOST: i64 = 10_000;

/// A time of the database.
pub(super) fn timestamp(time: DateTime<Utc>) -> Timestamp {
    std::time::SystemTime::from(time).into()
}

pub(super) async fn list_buckets(
    storage: &Storage,
    request: S3Request<ListBucketsInput>,
) -> S3Result<S3Response<ListBucketsOutput>> {
    let caller = storage.s3_caller(&request, "storage.s3.bucket.list")?;
    let listing = Listing { search: None, column: "id", descending: false, limit: MOST, offset: 0 };
    let buckets = storage.list_buckets(&caller, &listing, None).await.map_err(refused)?;
    let prefix = request.input.prefix.as_deref().unwrap_or_default();
    let buckets = buckets.into_iter().filter(|bucket| bucket.id.starts_with(prefix)).map(|bucket| Bucket {
        name: Some(bucket.id),
        creation_date: bucket.created_at.map(timestamp),
        ..Bucket::default()
    });
    Ok(S3Response::new(ListBucketsOutput {
        buckets: Some(buckets.collect()),
        prefix: request.input.prefix,
        owner: Some(Owner::default()),
        ..ListBucketsOutput::default()
    }))
}

pub(super) async fn create_bucket(
    storage: &Storage,
    request: S3Request<CreateBucketInput>,
) -> S3Result<S3Response<CreateBucketOutput>> {
    let caller = storage.s3_caller(&request, "storage.s3.bucket.create")?;
    let id = BucketId::parse_new(&request.input.bucket).map_err(refused)?;
    let acl = request.input.acl.as_ref().map(BucketCannedACL::as_str);
    let bucket = NewBucket {
        name: id.clone(),
        public: matches!(acl, Some("public-read" | "public-read-write")),
        file_size_limit: None,
        allowed_mime_types: None,
        id,
    };
    storage.insert_bucket(&caller, &bucket).await.map_err(|refusal| match refusal {
        Error::AlreadyExists => error(
            s3s::S3ErrorCode::BucketAlreadyExists,
            "The requested bucket name is not available: choose another",
        ),
        other => refused(other),
    })?;
    let location = Some(format!("/{}", bucket.id));
    Ok(S3Response::new(CreateBucketOutput { location }))
}

pub(super) async fn head_bucket(
    storage: &Storage,
    request: S3Request<HeadBucketInput>,
) -> S3Result<S3Response<HeadBucketOutput>> {
    let caller = storage.s3_caller(&request, "storage.s3.bucket.head")?;
    let id = BucketId::parse(&request.input.bucket).map_err(refused)?;
    storage.find_bucket(&caller, &id).await.map_err(refused)?;
    let bucket_region = Some(storage.s3.region.clone());
    Ok(S3Response::new(HeadBucketOutput { bucket_region, ..HeadBucketOutput::default() }))
}

pub(super) async fn delete_bucket(
    storage: &Storage,
    request: S3Request<DeleteBucketInput>,
) -> S3Result<S3Response<DeleteBucketOutput>> {
    let caller = storage.s3_caller(&request, "storage.s3.bucket.delete")?;
    let id = BucketId::parse(&request.input.bucket).map_err(refused)?;
    storage.delete_bucket(&caller, &id).await.map_err(refused)?;
    Ok(S3Response::new(DeleteBucketOutput::default()))
}

pub(super) async fn get_bucket_location(
    storage: &Storage,
    request: S3Request<GetBucketLocationInput>,
) -> S3Result<S3Response<GetBucketLocationOutput>> {
    let caller = storage.s3_caller(&request, "storage.s3.bucket.get_location")?;
    let id = BucketId::parse(&request.input.bucket).map_err(refused)?;
    storage.find_bucket(&caller, &id).await.map_err(refused)?;
    let location_constraint = Some(BucketLocationConstraint::from(storage.s3.region.clone()));
    Ok(S3Response::new(GetBucketLocationOutput { location_constraint }))
}

/// Replaced objects are gone: there are no versions.
pub(super) async fn get_bucket_versioning(
    storage: &Storage,
    request: S3Request<GetBucketVersioningInput>,
) -> S3Result<S3Response<GetBucketVersioningOutput>> {
    let caller = storage.s3_caller(&request, "storage.s3.bucket.get_versioning")?;
    let id = BucketId::parse(&request.input.bucket).map_err(refused)?;
    storage.find_bucket(&caller, &id).await.map_err(refused)?;
    Ok(S3Response::new(GetBucketVersioningOutput::default()))
}
