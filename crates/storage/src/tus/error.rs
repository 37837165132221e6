//! How clients of TUS are told: a status that the protocol knows, and the message as plain text.

use axum::response::{IntoResponse, Response};
use http::header::{CACHE_CONTROL, CONNECTION, CONTENT_TYPE, HeaderName, HeaderValue};
use http::{HeaderMap, StatusCode};

use super::VERSION;
use crate::Error;

pub(super) const TUS_RESUMABLE: HeaderName = HeaderName::from_static("tus-resumable");
pub(super) const TUS_VERSION: HeaderName = HeaderName::from_static("tus-version");

/// Why a request about a resumable upload was refused or failed.
#[derive(Debug, thiserror::Error)]
pub(super) enum Refusal {
    #[error("send `Tus-Resumable: 1.0.0`: this is the version of the protocol that is served")]
    Version,
    #[error("The file for this url was not found")]
    NoSuchUpload,
    #[error("The file for this url no longer exists: it was not completed in time, upload it again")]
    Expired,
    #[error("Upload-Offset conflict: the upload goes on at {0}")]
    Offset(u64),
    #[error("Checksum mismatch: what arrived is not what was sent, send it again")]
    Checksum,
    #[error("Content-Type must be application/offset+octet-stream")]
    ContentType,
    #[error("Maximum size exceeded\n")]
    TooLarge,
    #[error("Cannot terminate an already completed upload")]
    Completed,
    #[error("the upload is being completed, or another connection writes to it: ask again in a moment")]
    Locked,
    #[error("{0}")]
    Invalid(String),
    #[error(transparent)]
    Storage(Error),
}

impl Refusal {
    fn status(&self) -> u16 {
        match self {
            Self::Version => 412,
            Self::NoSuchUpload => 404,
            Self::Expired => 410,
            Self::Offset(_) => 409,
            Self::Checksum => 460,
            Self::ContentType => 415,
            Self::TooLarge => 413,
            Self::Locked => 423,
            Self::Completed | Self::Invalid(_) => 400,
            Self::Storage(error) => error.status(),
        }
    }
}

impl From<Error> for Refusal {
    fn from(error: Error) -> Self {
        match error {
            Error::TooLarge("object") => Self::TooLarge,
            Error::Locked => Self::Locked,
            other => Self::Storage(other),
        }
    }
}

impl IntoResponse for Refusal {
    fn into_response(self) -> Response {
        let status = StatusCode::from_u16(self.status()).expect("all of them are in range");
        if status.is_server_error() {
            let source = std::error::Error::source(&self).map(ToString::to_string);
            tracing::error!(error = %self, source, "storage: a resumable upload failed");
        }
        let mut headers = HeaderMap::new();
        headers.insert(CACHE_CONTROL, HeaderValue::from_static("no-store"));
        headers.insert(CONTENT_TYPE, HeaderValue::from_static("text/plain; charset=utf-8"));
        headers.insert(TUS_RESUMABLE, HeaderValue::from_static(VERSION));
        if matches!(self, Self::Version) {
            headers.insert(TUS_VERSION, HeaderValue::from_static(VERSION));
        }
        // The body may still be on its way, and nobody reads it.
        headers.insert(CONNECTION, HeaderValue::from_static("close"));
        (status, headers, self.to_string()).into_response()
    }
}
