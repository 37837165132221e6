//! How S3 clients are told: `s3s` writes the XML.

use http::StatusCode;
use s3s::{S3Error, S3ErrorCode};

use super::body::MISMATCH;
use crate::Error;

/// A refusal in S3's words.
pub(super) fn refused(error: Error) -> S3Error {
    let code = match &error {
        Error::NoSuchBucket => S3ErrorCode::NoSuchBucket,
        Error::NoSuchKey => S3ErrorCode::NoSuchKey,
        Error::AlreadyExists => S3ErrorCode::PreconditionFailed,
        Error::AccessDenied(_) | Error::NoKey => S3ErrorCode::AccessDenied,
        Error::BucketNotEmpty => S3ErrorCode::BucketNotEmpty,
        Error::InvalidBucketName => S3ErrorCode::InvalidBucketName,
        Error::InvalidKey(_) | Error::InvalidMimeType(_) | Error::InvalidSizeLimit => {
            S3ErrorCode::InvalidArgument
        }
        Error::TooLarge(_) => S3ErrorCode::EntityTooLarge,
        Error::InvalidRange => S3ErrorCode::InvalidRange,
        Error::InvalidRequest(text) if text == MISMATCH => S3ErrorCode::BadDigest,
        Error::InvalidRequest(_)
        | Error::InvalidSignature(_)
        | Error::InvalidJwt(_)
        | Error::ExpiredSignature
        | Error::NoSuchRoute(_) => S3ErrorCode::InvalidRequest,
        Error::Interrupted | Error::Stalled(_) => S3ErrorCode::RequestTimeout,
        Error::Referenced | Error::Locked => S3ErrorCode::OperationAborted,
        Error::Busy | Error::Rendering => S3ErrorCode::SlowDown,
        Error::ReadOnly | Error::Timeout => S3ErrorCode::ServiceUnavailable,
        Error::Database(_) | Error::Blobs(_) | Error::BytesMissing => S3ErrorCode::InternalError,
    };
    if code == S3ErrorCode::InternalError {
        tracing::error!(error = %error, source = ?std::error::Error::source(&error), "storage: an S3 request failed");
    }
    S3Error::with_message(code, error.to_string())
}

/// An error with a code and a message of its own.
pub(super) fn error(code: S3ErrorCode, message: &'static str) -> S3Error {
    S3Error::with_message(code, message)
}

/// The client's copy is current.
pub(super) fn not_modified() -> S3Error {
    let mut error = S3Error::new(S3ErrorCode::NotModified);
    error.set_status_code(StatusCode::NOT_MODIFIED);
    error
}
