//! What every request passes through, outermost first: id, client, log and metrics, security headers; CORS;
//! panic catcher; per-client rate; body limit and time limit; then the route.

use std::any::Any;
use std::collections::HashSet;
use std::convert::Infallible;
use std::sync::Arc;
use std::time::{Duration, Instant};

use axum::Router;
use axum::extract::{MatchedPath, Request, State};
use axum::middleware::{Next, from_fn_with_state};
use axum::response::{IntoResponse, Response};
use axum::routing::Route;
use http::header::{
    ACCEPT_RANGES, ACCESS_CONTROL_REQUEST_METHOD, CONTENT_DISPOSITION, CONTENT_ENCODING, CONTENT_LENGTH,
    CONTENT_LOCATION, CONTENT_RANGE, CONTENT_SECURITY_POLICY, CONTENT_TYPE, ETAG, LOCATION, REFERRER_POLICY,
    RETRY_AFTER, STRICT_TRANSPORT_SECURITY, X_CONTENT_TYPE_OPTIONS, X_FRAME_OPTIONS,
};
use http::{HeaderMap, HeaderName, HeaderValue, Method};
use tower::layer::util::Identity;
use tower::{Layer, Service, ServiceBuilder};
use tower_http::catch_panic::CatchPanicLayer;
use tower_http::cors::{AllowHeaders, AllowOrigin, CorsLayer};
use tracing::Instrument;

use crate::client::{ClientIp, Edge};
use crate::rate_limit::RateLimit;
use crate::request_id::{self, RequestId};
use crate::{ApiError, body};

/// The layers around every route.
pub struct Stack {
    settings: longhouse_config::Server,
    unlimited: HashSet<&'static str>,
    quiet: HashSet<&'static str>,
    streaming: Vec<&'static str>,
}

struct Shared {
    edge: Edge,
    rate: Option<RateLimit>,
    unlimited: HashSet<&'static str>,
    quiet: HashSet<&'static str>,
    streaming: Vec<&'static str>,
    body_limit: usize,
    request_timeout: Duration,
    https: bool,
}

impl Shared {
    fn streams(&self, path: &str) -> bool {
        self.streaming
            .iter()
            .any(|prefix| path.strip_prefix(prefix).is_some_and(|rest| rest.starts_with('/')))
    }
}

impl Stack {
    /// The layers as the configuration wants them.
    pub fn new(settings: &longhouse_config::Server) -> Self {
        Self {
            settings: settings.clone(),
            unlimited: HashSet::new(),
            quiet: HashSet::new(),
            streaming: Vec::new(),
        }
    }

    /// Marks a route (its template, e.g. `/twilio/voice`) as a webhook: no per-client rate limit, because a
    /// provider calls from few addresses and its signature says whether it is the provider.
    #[must_use]
    pub fn webhook(mut self, route: &'static str) -> Self {
        self.unlimited.insert(route);
        self
    }

    /// Marks a route as a probe: no rate limit, and logged at `debug` only.
    #[must_use]
    pub fn probe(mut self, route: &'static str) -> Self {
        self.unlimited.insert(route);
        self.quiet.insert(route);
        self
    }

    /// Marks everything below a path (e.g. `/storage/v1`) as streaming: its routes take and give files, and bound
    /// bodies and waiting themselves, in their own protocol's words.
    #[must_use]
    pub fn streaming(mut self, prefix: &'static str) -> Self {
        self.streaming.push(prefix);
        self
    }

    /// Wraps every route of the router, and answers unknown paths and methods in JSON. Call it last: routes
    /// added afterwards are not covered.
    pub fn apply<S: Clone + Send + Sync + 'static>(self, router: Router<S>) -> Router<S> {
        self.apply_with(router, Identity::new())
    }

    /// As [`Self::apply`], with a layer of the caller's own innermost.
    pub fn apply_with<S, L>(self, router: Router<S>, inner: L) -> Router<S>
    where
        S: Clone + Send + Sync + 'static,
        L: Layer<Route> + Clone + Send + Sync + 'static,
        L::Service: Service<Request, Error = Infallible> + Clone + Send + Sync + 'static,
        <L::Service as Service<Request>>::Response: IntoResponse + 'static,
        <L::Service as Service<Request>>::Future: Send + 'static,
    {
        let settings = &self.settings;
        let shared = Arc::new(Shared {
            edge: Edge::new(settings),
            rate: RateLimit::new(settings.rate_limit_per_second, settings.rate_limit_burst),
            unlimited: self.unlimited,
            quiet: self.quiet,
            streaming: self.streaming,
            body_limit: settings.body_limit,
            request_timeout: settings.request_timeout,
            https: settings.public_url.as_ref().is_some_and(|url| url.scheme() == "https"),
        });
        // One layer to axum, which boxes a route, and copies it for each request, once per layer.
        let layers = ServiceBuilder::new()
            .layer(from_fn_with_state(Arc::clone(&shared), observe))
            .layer(cors(&settings.cors_origins))
            .layer(CatchPanicLayer::custom(panicked))
            .layer(from_fn_with_state(shared, bounds))
            .layer(axum::extract::DefaultBodyLimit::disable())
            .layer(inner);
        router
            .fallback(|| async { ApiError::not_found() })
            .method_not_allowed_fallback(|| async { ApiError::method_not_allowed() })
            .layer(layers)
    }
}

/// The outermost layer: everything that also holds for refused and failed requests.
async fn observe(State(shared): State<Arc<Shared>>, mut request: Request, next: Next) -> Response {
    let started = Instant::now();
    let id = RequestId::of(request.headers());
    let (client, origin) =
        shared.edge.resolve(request.extensions(), request.headers(), request.uri().authority());
    let route = request.extensions().get::<MatchedPath>().cloned();
    let method = request.method().clone();
    // The path only: query strings may hold keys.
    let span = tracing::info_span!(
        "request", id = id.as_str(), method = %method, path = request.uri().path(), client = %client.0
    );
    if asks_what_is_served(&request) && shared.streams(request.uri().path()) {
        *request.method_mut() = plain_options();
    }
    let extensions = request.extensions_mut();
    extensions.insert(id.clone());
    extensions.insert(client);
    extensions.insert(origin);

    let mut response = next.run(request).instrument(span.clone()).await;

    security_headers(response.headers_mut(), shared.https);
    response.headers_mut().insert(request_id::HEADER, id.header_value());
    let elapsed = started.elapsed();
    let route = route.as_ref().map_or("unmatched", MatchedPath::as_str);
    measure(&method, route, &response, elapsed);
    let (status, milliseconds) = (response.status().as_u16(), elapsed.as_secs_f64() * 1000.0);
    span.in_scope(|| {
        if response.status().is_server_error() {
            tracing::error!(status, milliseconds, "answered");
        } else if shared.quiet.contains(route) {
            tracing::debug!(status, milliseconds, "answered");
        } else {
            tracing::info!(status, milliseconds, "answered");
        }
    });
    response
}

/// `OPTIONS` by which a client asks a protocol for its abilities, as TUS has it, and not a browser's preflight.
fn asks_what_is_served(request: &Request) -> bool {
    *request.method() == Method::OPTIONS && !request.headers().contains_key(ACCESS_CONTROL_REQUEST_METHOD)
}

/// Such a request while it passes the CORS layer, which answers every other `OPTIONS` itself.
fn plain_options() -> Method {
    Method::from_bytes(b"PLAIN-OPTIONS").expect("a token is a method")
}

/// The innermost layer: what a request may take from us.
async fn bounds(State(shared): State<Arc<Shared>>, mut request: Request, next: Next) -> Response {
    if *request.method() == plain_options() {
        *request.method_mut() = Method::OPTIONS;
    }
    if let Some(rate) = &shared.rate {
        let route = request.extensions().get::<MatchedPath>().map(MatchedPath::as_str);
        let client = request.extensions().get::<ClientIp>().copied();
        if let Some(ClientIp(address)) = client
            && !route.is_some_and(|route| shared.unlimited.contains(route))
            && let Err(seconds) = rate.take(address)
        {
            return ApiError::rate_limited(seconds).into_response();
        }
    }
    if shared.streams(request.uri().path()) {
        return next.run(request).await;
    }
    let (request, stalled) = match body::limit(request, shared.body_limit) {
        Ok(limited) => limited,
        Err(too_large) => return too_large.into_response(),
    };
    match tokio::time::timeout(shared.request_timeout, next.run(request)).await {
        Ok(response) => body::reshape(response, shared.body_limit),
        Err(_) if stalled.is_set() => ApiError::slow_request().into_response(),
        Err(_) => ApiError::slow_response().into_response(),
    }
}

fn panicked(panic: Box<dyn Any + Send>) -> Response {
    let message = panic
        .downcast_ref::<String>()
        .map(String::as_str)
        .or_else(|| panic.downcast_ref::<&str>().copied())
        .unwrap_or("no message");
    tracing::error!(panic = message, "a handler panicked");
    metrics::counter!("http_panics_total").increment(1);
    ApiError::internal().into_response()
}

fn measure(method: &Method, route: &str, response: &Response, elapsed: Duration) {
    // Methods are labels too, and a client may invent as many as it likes.
    let method = match *method {
        Method::GET => "GET",
        Method::HEAD => "HEAD",
        Method::POST => "POST",
        Method::PUT => "PUT",
        Method::PATCH => "PATCH",
        Method::DELETE => "DELETE",
        Method::OPTIONS => "OPTIONS",
        _ => "other",
    };
    let labels = [
        ("method", method.to_owned()),
        ("route", route.to_owned()),
        ("status", response.status().as_str().to_owned()),
    ];
    metrics::counter!("http_requests_total", &labels).increment(1);
    metrics::histogram!("http_request_duration_seconds", &labels[..2]).record(elapsed.as_secs_f64());
}

/// Headers that a route may set itself, e.g. a page its own content policy.
fn security_headers(headers: &mut HeaderMap, https: bool) {
    let mut default = |name: HeaderName, value: &'static str| {
        headers.entry(name).or_insert(HeaderValue::from_static(value));
    };
    default(X_CONTENT_TYPE_OPTIONS, "nosniff");
    default(X_FRAME_OPTIONS, "DENY");
    default(REFERRER_POLICY, "no-referrer");
    default(CONTENT_SECURITY_POLICY, "default-src 'none'; frame-ancestors 'none'");
    if https {
        default(STRICT_TRANSPORT_SECURITY, "max-age=31536000");
    }
}

fn cors(origins: &[String]) -> CorsLayer {
    let origin = if origins.iter().any(|origin| origin == "*") {
        AllowOrigin::any()
    } else {
        AllowOrigin::list(
            origins.iter().filter_map(|origin| HeaderValue::from_str(origin.trim_end_matches('/')).ok()),
        )
    };
    CorsLayer::new()
        .allow_origin(origin)
        // supabase-js adds headers from release to release (x-client-info, x-retry-count, …). Origins and
        // tokens decide who gets in, so whatever a page asks to send, it may.
        .allow_headers(AllowHeaders::mirror_request())
        .allow_methods([
            Method::GET,
            Method::HEAD,
            Method::POST,
            Method::PUT,
            Method::PATCH,
            Method::DELETE,
            Method::OPTIONS,
        ])
        .expose_headers([
            ACCEPT_RANGES,
            CONTENT_DISPOSITION,
            CONTENT_ENCODING,
            CONTENT_LENGTH,
            CONTENT_LOCATION,
            CONTENT_RANGE,
            CONTENT_TYPE,
            ETAG,
            LOCATION,
            RETRY_AFTER,
            request_id::HEADER,
            HeaderName::from_static("content-profile"),
            HeaderName::from_static("preference-applied"),
            HeaderName::from_static("range-unit"),
            HeaderName::from_static("sb-gateway-version"),
            HeaderName::from_static("x-total-count"),
            HeaderName::from_static("link"),
            // Without it auth-js reads no error codes.
            HeaderName::from_static("x-supabase-api-version"),
            HeaderName::from_static("x-sb-error-code"),
            HeaderName::from_static("x-ratelimit-limit"),
            HeaderName::from_static("x-ratelimit-remaining"),
            HeaderName::from_static("x-ratelimit-reset"),
            HeaderName::from_static("tus-checksum-algorithm"),
            HeaderName::from_static("tus-extension"),
            HeaderName::from_static("tus-max-size"),
            HeaderName::from_static("tus-resumable"),
            HeaderName::from_static("tus-version"),
            HeaderName::from_static("upload-defer-length"),
            HeaderName::from_static("upload-expires"),
            HeaderName::from_static("upload-length"),
            HeaderName::from_static("upload-metadata"),
            HeaderName::from_static("upload-offset"),
        ])
        .max_age(Duration::from_secs(3600))
}
