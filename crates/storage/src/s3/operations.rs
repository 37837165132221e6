//! The operations that are served, each handed to its room.

use s3s::dto::*;
use s3s::{S3, S3Request, S3Response, S3Result};

use crate::Storage;

/// The protocol over one storage service.
#[derive(Clone)]
pub(super) struct Operations {
    pub(super) storage: Storage,
}

macro_rules! operations {
    ($($operation:ident: $input:ident -> $output:ident = $room:ident;)*) => {
        #[async_trait::async_trait]
        impl S3 for Operations {
            $(
                async fn $operation(&self, request: S3Request<$input>) -> S3Result<S3Response<$output>> {
                    super::$room::$operation(&self.storage, request).await
                }
            )*
        }
    };
}

operations! {
    list_buckets: ListBucketsInput -> ListBucketsOutput = buckets;
    create_bucket: CreateBucketInput -> CreateBucketOutput = buckets;
    head_bucket: HeadBucketInput -> HeadBucketOutput = buckets;
    delete_bucket: DeleteBucketInput -> DeleteBucketOutput = buckets;
    get_bucket_location: GetBucketLocationInput -> GetBucketLocationOutput = buckets;
    get_bucket_versioning: GetBucketVersioningInput -> GetBucketVersioningOutput = buckets;
    list_objects: ListObjectsInput -> ListObjectsOutput = listing;
    list_objects_v2: ListObjectsV2Input -> ListObjectsV2Output = listing;
    get_object: GetObjectInput -> GetObjectOutput = objects;
    head_object: HeadObjectInput -> HeadObjectOutput = objects;
    put_object: PutObjectInput -> PutObjectOutput = objects;
    copy_object: CopyObjectInput -> CopyObjectOutput = objects;
    delete_object: DeleteObjectInput -> DeleteObjectOutput = objects;
    delete_objects: DeleteObjectsInput -> DeleteObjectsOutput = objects;
    create_multipart_upload: CreateMultipartUploadInput -> CreateMultipartUploadOutput = multipart;
    upload_part: UploadPartInput -> UploadPartOutput = multipart;
    upload_part_copy: UploadPartCopyInput -> UploadPartCopyOutput = multipart;
    complete_multipart_upload: CompleteMultipartUploadInput -> CompleteMultipartUploadOutput = multipart;
    abort_multipart_upload: AbortMultipartUploadInput -> AbortMultipartUploadOutput = multipart;
    list_parts: ListPartsInput -> ListPartsOutput = multipart;
    list_multipart_uploads: ListMultipartUploadsInput -> ListMultipartUploadsOutput = multipart;
}
