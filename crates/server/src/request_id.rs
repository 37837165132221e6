//! `x-request-id`: taken from the client when it is harmless, else made here.

use std::convert::Infallible;
use std::sync::Arc;

use axum::extract::FromRequestParts;
use http::request::Parts;
use http::{Extensions, HeaderMap, HeaderName, HeaderValue};
use uuid::Uuid;

pub(crate) const HEADER: HeaderName = HeaderName::from_static("x-request-id");
const MAX_LENGTH: usize = 64;

/// The id under which a request appears in the logs and in its response's `x-request-id`.
#[derive(Debug, Clone)]
pub struct RequestId(Arc<str>);

impl RequestId {
    pub(crate) fn of(headers: &HeaderMap) -> Self {
        // The charset is bounded because the id is copied into log lines and headers.
        let sent = headers.get(HEADER).and_then(|value| value.to_str().ok()).filter(|id| acceptable(id));
        match sent {
            Some(id) => Self(id.into()),
            None => Self(Uuid::now_v7().to_string().into()),
        }
    }

    /// The id as text.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    pub(crate) fn header_value(&self) -> HeaderValue {
        HeaderValue::from_str(&self.0).expect("request ids hold header-safe ASCII only")
    }

    pub(crate) fn from_extensions(extensions: &Extensions) -> Self {
        extensions.get::<Self>().cloned().unwrap_or_else(|| Self(Uuid::now_v7().to_string().into()))
    }
}

fn acceptable(id: &str) -> bool {
    (1..=MAX_LENGTH).contains(&id.len())
        && id.bytes().all(|byte| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_' | b'.'))
}

impl<S: Send + Sync> FromRequestParts<S> for RequestId {
    type Rejection = Infallible;

    async fn from_request_parts(parts: &mut Parts, _: &S) -> Result<Self, Infallible> {
        Ok(Self::from_extensions(&parts.extensions))
    }
}

#[cfg(test)]
mod tests {
    use rstest::rstest;

    use super::*;

    #[rstest]
    #[case("abc-1_2.Z", true)]
    #[case("", false)]
    #[case("with space", false)]
    #[case("line\u{7f}", false)]
    #[case(&"x".repeat(65), false)]
    fn ids_from_clients_are_bounded(#[case] id: &str, #[case] taken: bool) {
        assert_eq!(acceptable(id), taken);
    }
}
