//! Which routes the server has, and what stands around them.

use std::net::{IpAddr, SocketAddr};

use axum::Router;
use axum::extract::connect_info::ConnectInfo;
use axum::extract::{Request, State};
use axum::http::header::{CONTENT_TYPE, FORWARDED, HeaderMap, VIA};
use axum::middleware::{Next, from_fn_with_state};
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use longhouse_config::Config;
use longhouse_identity::service::AuthService;
use longhouse_identity::{Verifier, refresh_keys, verify_headers};
use longhouse_operations::health::{Health, PROBES};
use longhouse_operations::metrics::Metrics;
use longhouse_realtime::Realtime;
use longhouse_server::{ApiError, Stack};
use longhouse_storage::Storage;
use longhouse_studio::Studio;
use utoipa::openapi::{InfoBuilder, LicenseBuilder, OpenApi, OpenApiBuilder};
use utoipa_axum::router::OpenApiRouter;

use crate::applications::Applications;
use crate::rest_v1::{self, RestV1};
use crate::{auth_v1, build, realtime_v1, storage_v1};

/// What the routes lead to. A service that is switched off is absent.
pub(crate) struct Services<'a> {
    pub(crate) applications: &'a Applications,
    pub(crate) rest: &'a RestV1,
    pub(crate) auth: Option<&'a AuthService>,
    pub(crate) storage: Option<&'a Storage>,
    pub(crate) realtime: Option<&'a Realtime>,
    pub(crate) ai: Option<&'a longhouse_gateway::routes::Options>,
    pub(crate) studio: Option<&'a Studio>,
}

/// Every route behind every layer.
pub(crate) fn router(
    config: &Config,
    services: &Services<'_>,
    health: &Health,
    metrics: &Metrics,
    verifier: &Verifier,
) -> Router {
    let Services { applications, rest, auth, storage, realtime, ai, studio } = *services;
    let metrics = metrics
        .router()
        .layer(from_fn_with_state((verifier.clone(), behind_proxy(config)), local_or_service));
    let ai = ai.map_or_else(OpenApiRouter::new, |options| longhouse_gateway::routes::router(options.clone()));
    let studio = studio.map_or_else(OpenApiRouter::new, Studio::router);
    let own = described(health).merge(applications.router()).merge(ai).merge(metrics).merge(studio);
    let (router, document) = own.split_for_parts();
    let document = document.to_json().expect("an OpenAPI document is JSON");
    let serve_document = get(move || async move { ([(CONTENT_TYPE, "application/json")], document.clone()) });
    let mut router = router
        .route("/openapi.json", serve_document)
        .nest_service(rest_v1::PATH, rest.router(verifier.clone()));
    if let Some(auth) = auth {
        router = router.nest(auth_v1::PATH, auth.router());
        if auth_v1::has_mailbox(config) {
            router = router.merge(auth.mailbox_router());
        }
    }
    if let Some(storage) = storage {
        router = router.nest(storage_v1::PATH, storage.router());
    }
    if let Some(realtime) = realtime {
        router = router.nest(realtime_v1::PATH, realtime.router());
    }
    let mut stack = Stack::new(&config.server)
        .streaming(storage_v1::PATH)
        .streaming(longhouse_gateway::routes::PATH)
        .streaming(longhouse_studio::STREAMING);
    for probe in PROBES {
        stack = stack.probe(probe);
    }
    for webhook in Applications::webhooks() {
        stack = stack.webhook(webhook);
    }
    stack.apply_with(router, from_fn_with_state(verifier.clone(), refresh_keys))
}

/// The routes that are described without a running server: what `longhouse openapi` prints.
pub(crate) fn described(health: &Health) -> OpenApiRouter {
    OpenApiRouter::with_openapi(document()).merge(health.router())
}

fn document() -> OpenApi {
    let info = InfoBuilder::new()
        .title("Longhouse")
        .version(build::VERSION)
        .description(Some("The server's own endpoints. Compatible APIs are described by their own projects."))
        .license(Some(LicenseBuilder::new().name("Apache-2.0").identifier(Some("Apache-2.0")).build()));
    OpenApiBuilder::new().info(info.build()).build()
}

/// Whether a proxy speaks for others here: then the loopback address tells nothing about who asks.
fn behind_proxy(config: &Config) -> bool {
    config.server.public_url.is_some() || !config.server.trusted_proxies.is_empty()
}

/// Whether somebody on this machine asks for themselves. A proxy on this machine is local too, but who it speaks
/// for is not.
fn is_local(peer: Option<IpAddr>, headers: &HeaderMap) -> bool {
    let forwarded = headers.keys().any(|name| {
        *name == FORWARDED
            || *name == VIA
            || *name == "x-real-ip"
            || name.as_str().starts_with("x-forwarded-")
    });
    peer.is_some_and(|peer| peer.to_canonical().is_loopback()) && !forwarded
}

/// Metrics tell about load and routes: for this machine, and for holders of the service key.
async fn local_or_service(
    State((verifier, behind_proxy)): State<(Verifier, bool)>,
    request: Request,
    next: Next,
) -> Response {
    let headers = request.headers();
    let peer = request.extensions().get::<ConnectInfo<SocketAddr>>().map(|peer| peer.0.ip());
    if !behind_proxy && is_local(peer, headers) {
        return next.run(request).await;
    }
    match verify_headers(&verifier, headers) {
        Ok(claims) if claims.role() == "service_role" => next.run(request).await,
        Ok(_) => {
            ApiError::new(axum::http::StatusCode::FORBIDDEN, "forbidden", "metrics are for the service role")
                .hint("send the service role key as `Authorization: Bearer …`")
                .into_response()
        }
        Err(error) => error.into_response(),
    }
}

#[cfg(test)]
mod tests {
    use axum::http::{HeaderName, HeaderValue};
    use rstest::rstest;

    use super::*;

    #[rstest]
    #[case::here("127.0.0.1", None, true)]
    #[case::here_mapped("::ffff:127.0.0.1", Some("user-agent"), true)]
    #[case::elsewhere("10.0.0.1", None, false)]
    #[case::via("127.0.0.1", Some("via"), false)]
    #[case::nginx("::1", Some("x-real-ip"), false)]
    #[case::host("127.0.0.1", Some("x-forwarded-host"), false)]
    #[case::client("127.0.0.1", Some("x-forwarded-for"), false)]
    #[case::standard("127.0.0.1", Some("forwarded"), false)]
    fn who_a_proxy_speaks_for_is_not_local(
        #[case] peer: &str,
        #[case] header: Option<&'static str>,
        #[case] local: bool,
    ) {
        let headers = header.map(|name| (HeaderName::from_static(name), HeaderValue::from_static("x")));
        assert_eq!(is_local(Some(peer.parse().unwrap()), &headers.into_iter().collect()), local);
        assert!(!is_local(None, &HeaderMap::new()));
    }

    #[test]
    fn a_configured_proxy_makes_nobody_local() {
        assert!(!behind_proxy(&Config::default()));
        let mut config = Config::default();
        config.server.trusted_proxies = vec![[127, 0, 0, 1].into()];
        assert!(behind_proxy(&config));
        let mut config = Config::default();
        config.server.public_url = "https://calls.example.com".parse().ok();
        assert!(behind_proxy(&config));
    }
}
