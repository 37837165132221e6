//! What can go wrong, and the one place that knows how storage clients are told.

use axum::Json;
use axum::response::{IntoResponse, Response};
use http::StatusCode;
use http::header::{CACHE_CONTROL, CONNECTION, HeaderValue};
use serde::Serialize;
use tokio_postgres::error::SqlState;

use crate::blobs::BlobError;

/// Why a request was refused or failed.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// No such bucket, or the caller may not know of it.
    #[error("Bucket not found")]
    NoSuchBucket,
    /// No such object, or the caller may not know of it.
    #[error("Object not found")]
    NoSuchKey,
    /// An object or bucket of that name is there already.
    #[error("The resource already exists")]
    AlreadyExists,
    /// Row-level security, a missing right, or no valid key.
    #[error("{0}")]
    AccessDenied(String),
    /// No key at all, where one is needed.
    #[error("Invalid Compact JWS")]
    NoKey,
    /// A bucket that still has objects cannot be deleted.
    #[error("The bucket you tried to delete is not empty")]
    BucketNotEmpty,
    /// A name that no bucket may have.
    #[error("Bucket name invalid")]
    InvalidBucketName,
    /// A name that no object may have.
    #[error("Invalid key: {0}")]
    InvalidKey(String),
    /// A type that the bucket does not take, or that is no type.
    #[error("mime type {0} is not supported")]
    InvalidMimeType(String),
    /// The object, or what describes it, is too large.
    #[error("The {0} exceeded the maximum allowed size")]
    TooLarge(&'static str),
    /// A size limit that cannot be read.
    #[error("Invalid file size format, hint: use 20GB / 20MB / 30KB / 3B")]
    InvalidSizeLimit,
    /// The range lies outside of the object.
    #[error("invalid range provided")]
    InvalidRange,
    /// A body, parameter or header that makes no sense; the text says which and what is wanted.
    #[error("{0}")]
    InvalidRequest(String),
    /// The token of a signed URL does not open this object.
    #[error("{0}")]
    InvalidSignature(&'static str),
    /// The token of a signed URL cannot be read.
    #[error("{0}")]
    InvalidJwt(&'static str),
    /// The time of a signed URL has passed.
    #[error("\"exp\" claim timestamp check failed")]
    ExpiredSignature,
    /// The client stopped sending before the end.
    #[error("the upload ended before all of it arrived: send it again")]
    Interrupted,
    /// The client sent nothing for too long.
    #[error("nothing arrived for {0} s: send the upload again, or in parts")]
    Stalled(u64),
    /// Somebody refers to what should go.
    #[error("The resource could not be updated or removed due to a foreign key constraint")]
    Referenced,
    /// Another request holds it.
    #[error("The resource is locked")]
    Locked,
    /// The database is overloaded.
    #[error("Too many connections issued to the database")]
    Busy,
    /// More images are asked for than can be made.
    #[error("too many images are being rendered: try again in a moment")]
    Rendering,
    /// The database takes no writes at the moment.
    #[error("The database is currently in read-only mode. Please try again later.")]
    ReadOnly,
    /// A statement took too long.
    #[error("The connection to the database timed out")]
    Timeout,
    /// Nothing is served at this path, or not by this method.
    #[error("Route {0} not found")]
    NoSuchRoute(String),
    /// The database refused or failed in another way.
    #[error("database error, code: {}", .0.sql_state().map_or("none", SqlState::code))]
    Database(#[source] longhouse_database::Error),
    /// The store of bytes failed.
    #[error("the store of files failed; look for this request in the server's log")]
    Blobs(#[source] BlobError),
    /// A row whose bytes are not where they should be.
    #[error("the file's bytes are missing; run `longhouse storage check`")]
    BytesMissing,
}

/// `{"statusCode", "code", "error", "message"}`: `statusCode` is text, and most refusals travel under HTTP status 400,
/// as clients of this protocol expect.
#[derive(Debug, Serialize)]
struct Body<'a> {
    #[serde(rename = "statusCode")]
    status_code: String,
    code: &'static str,
    error: &'a str,
    message: String,
    /// What to do, where the message must be the one that clients compare.
    #[serde(skip_serializing_if = "Option::is_none")]
    hint: Option<&'static str>,
}

impl Error {
    /// The status that the body names.
    pub fn status(&self) -> u16 {
        match self {
            Self::NoSuchBucket | Self::NoSuchKey | Self::NoSuchRoute(_) => 404,
            Self::AccessDenied(_) | Self::NoKey => 403,
            Self::AlreadyExists | Self::BucketNotEmpty | Self::Referenced => 409,
            Self::InvalidMimeType(_) => 415,
            Self::TooLarge(_) => 413,
            Self::InvalidRange => 416,
            Self::Stalled(_) => 408,
            Self::Locked => 423,
            Self::Busy | Self::Rendering => 429,
            Self::ReadOnly => 503,
            Self::Timeout => 544,
            Self::InvalidBucketName
            | Self::InvalidKey(_)
            | Self::InvalidSizeLimit
            | Self::InvalidRequest(_)
            | Self::InvalidSignature(_)
            | Self::InvalidJwt(_)
            | Self::ExpiredSignature
            | Self::Interrupted => 400,
            Self::Database(_) | Self::Blobs(_) | Self::BytesMissing => 500,
        }
    }

    /// The status that the response travels with.
    pub fn http_status(&self) -> StatusCode {
        let status = match self {
            Self::InvalidRange | Self::Busy | Self::Rendering | Self::Timeout | Self::NoSuchRoute(_) => {
                self.status()
            }
            _ if self.status() == 500 => 500,
            _ => 400,
        };
        StatusCode::from_u16(status).expect("all of them are in range")
    }

    /// The code that S3 and newer clients know.
    pub fn code(&self) -> &'static str {
        match self {
            Self::NoSuchBucket => "NoSuchBucket",
            Self::NoSuchKey => "NoSuchKey",
            Self::AlreadyExists => "ResourceAlreadyExists",
            Self::AccessDenied(_) | Self::NoKey => "AccessDenied",
            Self::BucketNotEmpty => "ResourceNotEmpty",
            Self::InvalidBucketName => "InvalidBucketName",
            Self::InvalidKey(_) => "InvalidKey",
            Self::InvalidMimeType(_) => "InvalidMimeType",
            Self::TooLarge(_) => "EntityTooLarge",
            Self::InvalidRange => "InvalidRange",
            Self::InvalidSizeLimit | Self::InvalidRequest(_) | Self::NoSuchRoute(_) => "InvalidRequest",
            Self::InvalidSignature(_) => "InvalidSignature",
            Self::InvalidJwt(_) | Self::ExpiredSignature => "InvalidJWT",
            Self::Interrupted | Self::Stalled(_) => "Aborted",
            Self::Referenced => "ResourceReferenced",
            Self::Locked => "ResourceLocked",
            Self::Busy | Self::Rendering => "SlowDown",
            Self::ReadOnly => "DatabaseReadOnly",
            Self::Timeout => "DatabaseTimeout",
            Self::Database(_) => "DatabaseError",
            Self::Blobs(_) | Self::BytesMissing => "InternalError",
        }
    }

    /// The older name of the kind of error, which clients match on.
    fn error(&self) -> &'static str {
        match self {
            Self::NoSuchBucket => "Bucket not found",
            Self::NoSuchKey => "not_found",
            Self::AlreadyExists => "Duplicate",
            Self::AccessDenied(_) | Self::NoKey => "Unauthorized",
            Self::InvalidBucketName => "Invalid Input",
            Self::InvalidMimeType(_) => "invalid_mime_type",
            Self::TooLarge(_) => "Payload too large",
            Self::InvalidRange => "invalid_range",
            Self::Busy => "too_many_connections",
            Self::NoSuchRoute(_) => "Not Found",
            other => other.code(),
        }
    }

    fn hint(&self) -> Option<&'static str> {
        matches!(self, Self::NoKey)
            .then_some("send an API key as `apikey`, or a token as `Authorization: Bearer …`")
    }

    /// Whether more of the request's body is on its way, which nobody will read.
    fn leaves_body_unread(&self) -> bool {
        matches!(self, Self::TooLarge(_) | Self::Interrupted | Self::Stalled(_))
    }

    /// The refusal of an object name, shown without what would disturb a terminal or a log.
    pub(crate) fn invalid_key(key: &str) -> Self {
        let shown: String = key.chars().take(200).flat_map(char::escape_debug).collect();
        Self::InvalidKey(shown)
    }
}

impl From<longhouse_database::Error> for Error {
    fn from(error: longhouse_database::Error) -> Self {
        let Some(code) = error.sql_state() else {
            return if matches!(error, longhouse_database::Error::Busy(_)) {
                Self::Busy
            } else {
                Self::Database(error)
            };
        };
        match code.code() {
            "42501" => {
                let longhouse_database::Error::Query(inner) = &error else { return Self::Database(error) };
                let message = inner.as_db_error().map_or("Access denied", |db| db.message());
                let message = if message.contains("row-level security") {
                    "new row violates row-level security policy"
                } else {
                    message
                };
                Self::AccessDenied(message.to_owned())
            }
            "23505" => Self::AlreadyExists,
            // An object for a bucket that is gone by now.
            "23503" if mentions(&error, "objects_bucketId_fkey", "is not present") => Self::NoSuchBucket,
            "23503" => Self::Referenced,
            "LH410" => Self::Interrupted,
            "55P03" => Self::Locked,
            "57014" => Self::Timeout,
            "25006" => Self::ReadOnly,
            "53300" | "53400" => Self::Busy,
            "22P02" | "22021" | "22P05" => {
                Self::InvalidRequest("the request holds a value that the database cannot read".into())
            }
            _ => Self::Database(error),
        }
    }
}

fn mentions(error: &longhouse_database::Error, constraint: &str, detail: &str) -> bool {
    let longhouse_database::Error::Query(error) = error else { return false };
    error.as_db_error().is_some_and(|db| {
        db.constraint() == Some(constraint) && db.detail().is_some_and(|text| text.contains(detail))
    })
}

impl From<BlobError> for Error {
    fn from(error: BlobError) -> Self {
        match error {
            BlobError::NotFound => Self::BytesMissing,
            BlobError::TooLarge => Self::TooLarge("object"),
            BlobError::Interrupted => Self::Interrupted,
            BlobError::Stalled(seconds) => Self::Stalled(seconds),
            BlobError::Malformed(message) => Self::InvalidRequest(message),
            other => Self::Blobs(other),
        }
    }
}

impl IntoResponse for Error {
    fn into_response(self) -> Response {
        match &self {
            Self::Database(source) => tracing::error!(error = %source, "storage: the database failed"),
            Self::Blobs(source) => tracing::error!(error = %source, "storage: the store of files failed"),
            Self::BytesMissing => tracing::error!("storage: an object has no bytes"),
            _ => {}
        }
        let body = Body {
            status_code: self.status().to_string(),
            code: self.code(),
            error: self.error(),
            message: self.to_string(),
            hint: self.hint(),
        };
        let mut response = (self.http_status(), Json(&body)).into_response();
        response.headers_mut().insert(CACHE_CONTROL, HeaderValue::from_static("no-store"));
        if self.leaves_body_unread() {
            response.headers_mut().insert(CONNECTION, HeaderValue::from_static("close"));
        }
        response
    }
}
