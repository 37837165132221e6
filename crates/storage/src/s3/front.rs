//! From axum to `s3s` and back: signature first, then the request relative to where the protocol is mounted.

use std::sync::Arc;

use axum::Router;
use axum::body::{Body as AxumBody, HttpBody};
use axum::extract::{OriginalUri, Request};
use axum::response::{IntoResponse, Response};
use axum::routing::any;
use http::header::{AUTHORIZATION, CONTENT_ENCODING, CONTENT_TYPE, HeaderValue};
use http::{Extensions, HeaderMap, Method, StatusCode, Uri};
use s3s::config::{S3Config, StaticConfigProvider};
use s3s::route::S3Route;
use s3s::service::{S3Service, S3ServiceBuilder};
use s3s::validation::NameValidation;
use s3s::{Body, S3Request, S3Response, S3Result, s3_error};
use url::form_urlencoded;

use super::S3Keys;
use super::access::{Acting, Secrets};
use super::operations::Operations;
use crate::Storage;
use crate::objects::arriving;

/// Largest XML body: 10,000 parts with their checksums.
const XML_LIMIT: usize = 8 * 1024 * 1024;
/// What of a signed request is about its signature alone.
const SIGNATURE_HEADERS: [&str; 6] = [
    "authorization",
    "x-amz-content-sha256",
    "x-amz-date",
    "x-amz-decoded-content-length",
    "x-amz-security-token",
    "x-amz-trailer",
];

pub(crate) fn router(storage: &Storage) -> Router<Storage> {
    let keys = S3Keys::clone(&storage.s3);
    let config = {
        let mut config = S3Config::default();
        config.xml_max_body_size = XML_LIMIT;
        Arc::new(StaticConfigProvider::new(Arc::new(config)))
    };
    let inner = {
        let mut builder = S3ServiceBuilder::new(Operations { storage: storage.clone() });
        builder.set_config(config.clone());
        builder.set_validation(AnyName);
        builder.build()
    };
    let outer = {
        // Every request goes to the route; operations are never resolved here.
        let mut builder = S3ServiceBuilder::new(Operations { storage: storage.clone() });
        builder.set_config(config);
        builder.set_validation(AnyName);
        builder.set_auth(Secrets(keys.clone()));
        builder.set_route(Signed { inner, keys });
        builder.build()
    };
    let idle = storage.inner.idle_timeout;
    let handle = move |OriginalUri(uri): OriginalUri, request: Request| {
        let outer = outer.clone();
        async move {
            let (mut parts, body) = request.into_parts();
            if let Some(refusal) = unsupported(&parts.method, &parts.headers, &uri) {
                return refusal;
            }
            let below = parts.uri.path().strip_prefix("/s3").unwrap_or_default().len();
            let mount = uri.path().len().saturating_sub(below);
            parts.extensions.insert(Mount(mount));
            parts.uri = uri;
            // Where nothing comes, nothing is announced either: the signature's check wants to know beforehand.
            let body = match HttpBody::is_end_stream(&body) {
                true => Body::empty(),
                false => Body::http_body_unsync(AxumBody::from_stream(arriving(body, idle))),
            };
            let request = http::Request::from_parts(parts, body);
            match outer.call(request).await {
                Ok(response) => response.map(AxumBody::new),
                Err(error) => {
                    tracing::error!(?error, "storage: an S3 request could not be answered");
                    StatusCode::INTERNAL_SERVER_ERROR.into_response()
                }
            }
        }
    };
    Router::new()
        .route("/s3", any(handle.clone()))
        .route("/s3/", any(handle.clone()))
        .route("/s3/{*path}", any(handle))
}

/// Bytes of the original path before the protocol's own.
#[derive(Debug, Clone, Copy)]
struct Mount(usize);

/// Forms that browsers post, and the signature of before 2014: neither is served.
fn unsupported(method: &Method, headers: &HeaderMap, uri: &Uri) -> Option<Response> {
    let is_form = headers
        .get(CONTENT_TYPE)
        .is_some_and(|kind| kind.as_bytes().to_ascii_lowercase().starts_with(b"multipart/form-data"));
    let old = headers.get(AUTHORIZATION).is_some_and(|value| value.as_bytes().starts_with(b"AWS "))
        || form_urlencoded::parse(uri.query().unwrap_or_default().as_bytes())
            .any(|(name, _)| name == "Signature");
    let error = if old {
        s3_error!(InvalidRequest, "This server takes signature version 4 alone: sign with AWS4-HMAC-SHA256")
    } else if *method == Method::POST && is_form {
        s3_error!(NotImplemented, "Forms are not taken here: upload with PUT, or with a presigned URL")
    } else {
        return None;
    };
    Some(match error.to_http_response() {
        Ok(response) => response.map(AxumBody::new),
        Err(_) => StatusCode::BAD_REQUEST.into_response(),
    })
}

/// Names are checked where they are used.
struct AnyName;

impl NameValidation for AnyName {
    fn validate_bucket_name(&self, name: &str) -> bool {
        !name.is_empty()
    }
}

/// Takes what is signed, and hands it on without its signature and prefix.
struct Signed {
    inner: S3Service,
    keys: S3Keys,
}

#[async_trait::async_trait]
impl S3Route for Signed {
    fn is_match(&self, _: &Method, _: &Uri, _: &HeaderMap, _: &mut Extensions) -> bool {
        true
    }

    async fn check_access(&self, request: &mut S3Request<Body>) -> S3Result<()> {
        let Some(credentials) = &request.credentials else {
            return Err(s3_error!(AccessDenied, "Signature is required"));
        };
        let acting = if self.keys.is_operator(&credentials.access_key) {
            Acting::Operator
        } else {
            let header = request.headers.get("x-amz-security-token").and_then(|value| value.to_str().ok());
            let token = header.map(str::to_owned).or_else(|| queried(&request.uri, "X-Amz-Security-Token"));
            let missing = "Send a user's token as session token: the anon key alone opens nothing";
            Acting::Session(token.ok_or_else(|| s3_error!(AccessDenied, "{}", missing))?)
        };
        request.extensions.insert(acting);
        Ok(())
    }

    async fn call(&self, mut request: S3Request<Body>) -> S3Result<S3Response<Body>> {
        let mount = request.extensions.get::<Mount>().map_or(0, |mount| mount.0);
        let mut inner = http::Request::new(request.input);
        *inner.method_mut() = request.method;
        *inner.uri_mut() = relative(&request.uri, mount).ok_or_else(|| s3_error!(InvalidURI))?;
        for name in SIGNATURE_HEADERS {
            request.headers.remove(name);
        }
        without_chunking(&mut request.headers);
        *inner.headers_mut() = request.headers;
        if let Some(trailers) = request.trailing_headers {
            request.extensions.insert(trailers);
        }
        *inner.extensions_mut() = request.extensions;
        let response = self.inner.call(inner).await.map_err(|error| {
            tracing::error!(?error, "storage: an S3 request could not be answered");
            s3_error!(InternalError)
        })?;
        let (parts, body) = response.into_parts();
        let mut response = S3Response::with_headers(body, parts.headers);
        response.status = Some(parts.status);
        response.extensions = parts.extensions;
        Ok(response)
    }
}

fn queried(uri: &Uri, wanted: &str) -> Option<String> {
    form_urlencoded::parse(uri.query()?.as_bytes())
        .find(|(name, _)| name == wanted)
        .map(|(_, value)| value.into_owned())
}

/// The URL behind the prefix, without what presigning has added.
fn relative(uri: &Uri, mount: usize) -> Option<Uri> {
    let path = match uri.path().get(mount..)? {
        "" => "/",
        path => path,
    };
    let query: Vec<&str> = uri
        .query()
        .unwrap_or_default()
        .split('&')
        .filter(|pair| !pair.is_empty() && !pair.to_ascii_lowercase().starts_with("x-amz-"))
        .collect();
    let text = if query.is_empty() { path.to_owned() } else { format!("{path}?{}", query.join("&")) };
    text.parse().ok()
}

/// The body arrives here without the chunks that its signatures needed.
fn without_chunking(headers: &mut HeaderMap) {
    let Some(encoding) = headers.get(CONTENT_ENCODING).and_then(|value| value.to_str().ok()) else { return };
    let rest: Vec<&str> = encoding.split(',').map(str::trim).filter(|one| *one != "aws-chunked").collect();
    match HeaderValue::from_str(&rest.join(", ")) {
        Ok(value) if !rest.is_empty() => headers.insert(CONTENT_ENCODING, value),
        _ => headers.remove(CONTENT_ENCODING),
    };
}

#[cfg(test)]
mod tests {
    use rstest::rstest;

    use super::*;

    #[rstest]
    #[case("/storage/v1/s3", 14, "/")]
    #[case("/storage/v1/s3/", 14, "/")]
    #[case(
        "/storage/v1/s3/b/a%20b?list-type=2&X-Amz-Date=1&x-amz-checksum=2&prefix=a",
        14,
        "/b/a%20b?list-type=2&prefix=a"
    )]
    #[case("/s3/b?uploads", 3, "/b?uploads")]
    fn urls_lose_prefix_and_signature(#[case] uri: &str, #[case] mount: usize, #[case] expected: &str) {
        assert_eq!(relative(&uri.parse().unwrap(), mount).unwrap().to_string(), expected);
    }

    #[rstest]
    #[case("aws-chunked", None)]
    #[case("aws-chunked,gzip", Some("gzip"))]
    #[case("gzip", Some("gzip"))]
    fn chunking_is_no_encoding(#[case] text: &'static str, #[case] left: Option<&str>) {
        let mut headers = HeaderMap::from_iter([(CONTENT_ENCODING, HeaderValue::from_static(text))]);
        without_chunking(&mut headers);
        assert_eq!(headers.get(CONTENT_ENCODING).map(|value| value.to_str().unwrap()), left);
    }
}
