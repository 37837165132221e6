//! `/studio/v1/service/…`: the services' own endpoints for administration, reached by operators with the service key,
//! which stays here. The unmodified `supabase-js` is their client: its project's address is this prefix.

use axum::Router;
use axum::extract::{ConnectInfo, Request, State};
use axum::middleware::from_fn_with_state;
use axum::response::{IntoResponse, Response};
use axum::routing::any;
use http::header::AUTHORIZATION;
use http::{Extensions, HeaderName, HeaderValue, Method, Uri};
use longhouse_server::{ClientIp, PublicOrigin, RequestId};
use secrecy::ExposeSecret;
use std::net::SocketAddr;
use tower::ServiceExt;

use crate::{Error, Studio, audit, operators};

/// Below here are the services.
const PREFIX: &str = "/studio/v1/service";
/// Below here, bodies may be files: to be exempt from the bounds of plain requests.
pub const STREAMING: &str = "/studio/v1/service/storage/v1";

const APIKEY: HeaderName = HeaderName::from_static("apikey");

/// What operators reach: administration, never what acts as somebody else.
const REACHED: &[&str] =
    &["/auth/v1/admin/", "/auth/v1/invite", "/storage/v1/bucket", "/storage/v1/object", "/mailbox/messages"];

/// The services at their own paths.
pub(crate) fn services(auth: Router, storage: Option<Router>, mailbox: Option<Router>) -> Router {
    let mut router = Router::new().nest("/auth/v1", auth);
    if let Some(storage) = storage {
        router = router.nest("/storage/v1", storage);
    }
    if let Some(mailbox) = mailbox {
        router = router.merge(mailbox);
    }
    router.fallback(async || Error::NotReached)
}

pub(crate) fn router(studio: &Studio) -> Router {
    Router::new()
        .route("/studio/v1/service/{*path}", any(relay))
        .route_layer(from_fn_with_state(studio.clone(), audit::record))
        .route_layer(from_fn_with_state(studio.clone(), operators::guard))
        .with_state(studio.clone())
}

async fn relay(State(studio): State<Studio>, request: Request) -> Response {
    match forward(&studio, request) {
        Ok(request) => studio.inner.services.clone().oneshot(request).await.into_response(),
        Err(error) => error.into_response(),
    }
}

/// The same request at the service's own address, with the service key in place of the operator's token.
fn forward(studio: &Studio, request: Request) -> Result<Request, Error> {
    let (parts, body) = request.into_parts();
    let path = parts.uri.path().strip_prefix(PREFIX).ok_or(Error::NotReached)?;
    if !reached(&parts.method, path) {
        return Err(Error::NotReached);
    }
    let target = match parts.uri.query() {
        Some(query) => format!("{path}?{query}"),
        None => path.to_owned(),
    };
    // A new request: what the outer router has learnt of the path is nothing to the inner one.
    let mut request = Request::new(body);
    *request.method_mut() = parts.method;
    *request.uri_mut() = target.parse::<Uri>().map_err(|_| Error::NotReached)?;
    *request.version_mut() = parts.version;
    *request.headers_mut() = parts.headers;
    keep::<ClientIp>(&parts.extensions, &mut request);
    keep::<PublicOrigin>(&parts.extensions, &mut request);
    keep::<RequestId>(&parts.extensions, &mut request);
    keep::<ConnectInfo<SocketAddr>>(&parts.extensions, &mut request);
    let key = studio.inner.service_key.expose_secret();
    let mut bearer = HeaderValue::try_from(format!("Bearer {key}")).map_err(|_| Error::NotReached)?;
    let mut key = HeaderValue::try_from(key).map_err(|_| Error::NotReached)?;
    bearer.set_sensitive(true);
    key.set_sensitive(true);
    request.headers_mut().insert(AUTHORIZATION, bearer);
    request.headers_mut().insert(APIKEY, key);
    Ok(request)
}

fn keep<T: Clone + Send + Sync + 'static>(known: &Extensions, request: &mut Request) {
    if let Some(value) = known.get::<T>() {
        request.extensions_mut().insert(value.clone());
    }
}

fn reached(method: &Method, path: &str) -> bool {
    let plain = [Method::GET, Method::POST, Method::PUT, Method::PATCH, Method::DELETE];
    // What a service could read as another path is not compared, but refused.
    let odd = path.split('/').any(|part| part == "." || part == "..") || path.contains("//");
    let below = |prefix: &&str| {
        path.strip_prefix(*prefix)
            .is_some_and(|rest| prefix.ends_with('/') || rest.is_empty() || rest.starts_with('/'))
    };
    plain.contains(method) && !odd && REACHED.iter().any(below)
}

#[cfg(test)]
mod tests {
    use rstest::rstest;

    use super::*;

    #[rstest]
    #[case("GET", "/auth/v1/admin/users", true)]
    #[case("POST", "/auth/v1/invite", true)]
    #[case("DELETE", "/storage/v1/bucket/photos", true)]
    #[case("POST", "/storage/v1/object/list/photos", true)]
    #[case("GET", "/mailbox/messages", true)]
    #[case::somebody_else("POST", "/auth/v1/token", false)]
    #[case::longer("POST", "/auth/v1/invites", false)]
    #[case::hidden("GET", "/auth/v1/admin/../token", false)]
    #[case::doubled("GET", "/auth/v1/admin//users", false)]
    #[case::s3("GET", "/storage/v1/s3/photos", false)]
    #[case::rows("GET", "/rest/v1/notes", false)]
    #[case::options("OPTIONS", "/auth/v1/admin/users", false)]
    fn what_operators_reach(#[case] method: Method, #[case] path: &str, #[case] expected: bool) {
        assert_eq!(reached(&method, path), expected);
    }
}
