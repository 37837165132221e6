//! The API as a service: from an HTTP request to its response.

use std::convert::Infallible;
use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use axum::Router;
use axum::body::Body;
use axum::extract::State;
use axum::response::Response;
use bytes::Bytes;
use http::request::Parts;
use http::{HeaderName, HeaderValue, Method, Request, StatusCode, header};
use http_body_util::{BodyExt as _, LengthLimitError, Limited};
use longhouse_database::Database;
use tokio::sync::watch;

use crate::config::RestConfig;
use crate::describe::describe;
use crate::error::{Error, JwtError};
pub use crate::execute::Identity;
use crate::execute::{self, Answer, Content, Context};
use crate::openapi::Place;
use crate::plan::{self, Plan};
use crate::reload::Current;
use crate::request::ApiRequest;
use crate::response::cors::Cors;
use crate::response::headers::{ServerTiming, VARY};
use crate::response::large::LargeBody;
use crate::schema::SchemaCache;

const WARNING: HeaderName = HeaderName::from_static("warning");
const SERVER_TIMING: HeaderName = HeaderName::from_static("server-timing");

/// Largest body that is taken, in bytes, unless [`RestApi::with_body_limit`] says otherwise.
const BODY_LIMIT: usize = 64 * 1024 * 1024;

/// Says who sends a request, from its headers or from what a middleware left in its extensions.
pub type Authenticate = Arc<dyn Fn(&Parts, &Current) -> Result<Identity, Error> + Send + Sync>;

/// Believes the tokens that the configured secret verifies; for an API that stands alone.
pub fn by_token() -> Authenticate {
    Arc::new(|parts, current| {
        let verifier = current.verifier.as_ref().ok_or(JwtError::SecretMissing)?;
        let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        let who = verifier.verify(bearer(parts), i64::try_from(now.as_secs()).unwrap_or(i64::MAX))?;
        Ok(Identity {
            role: who.role.clone(),
            claims: who.claims_json.clone(),
            authenticated: Some(&who.role) != current.config.anon_role.as_ref(),
        })
    })
}

/// What follows `Bearer` in `Authorization`.
fn bearer(parts: &Parts) -> Option<&str> {
    let value = parts.headers.get(header::AUTHORIZATION)?.to_str().ok()?;
    let (scheme, token) = value.split_once(' ').unwrap_or((value, ""));
    scheme.eq_ignore_ascii_case("bearer").then(|| token.trim())
}

/// One API over one database. Cheap to clone.
#[derive(Clone)]
pub struct RestApi {
    database: Database,
    cache: watch::Receiver<Arc<SchemaCache>>,
    current: watch::Receiver<Current>,
    authenticate: Authenticate,
    body_limit: usize,
    place: Place,
}

impl std::fmt::Debug for RestApi {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter.debug_struct("RestApi").field("place", &self.place).finish_non_exhaustive()
    }
}

/// How long the stages took, where that is told.
struct Clock {
    timing: ServerTiming,
    last: Instant,
}

impl Clock {
    fn start() -> Self {
        Self { timing: ServerTiming::default(), last: Instant::now() }
    }

    fn lap(&mut self) -> Option<Duration> {
        let now = Instant::now();
        Some(now.duration_since(std::mem::replace(&mut self.last, now)))
    }
}

impl RestApi {
    /// An API that answers from the schema cache and with the options of the moment: see [`crate::reload::Reloader`].
    pub fn new(
        database: Database,
        cache: watch::Receiver<Arc<SchemaCache>>,
        current: watch::Receiver<Current>,
        authenticate: Authenticate,
    ) -> Self {
        let place = Place { scheme: "http".into(), host: "0.0.0.0".into(), port: 3000, path: "/".into() };
        Self { database, cache, current, authenticate, body_limit: BODY_LIMIT, place }
    }

    /// Takes bodies of up to this many bytes.
    #[must_use]
    pub fn with_body_limit(self, bytes: usize) -> Self {
        Self { body_limit: bytes, ..self }
    }

    /// Tells its readers that it is here.
    #[must_use]
    pub fn with_place(self, place: Place) -> Self {
        Self { place, ..self }
    }

    /// The API as a router, to be served alone or nested: it sees paths relative to where it is nested.
    pub fn router(self) -> Router {
        Router::new().fallback(serve).with_state(Arc::new(self))
    }

    /// Answers one request, whose path is relative to the API's root.
    pub async fn handle(&self, request: Request<Body>) -> Response {
        let (parts, body) = request.into_parts();
        let current = self.current.borrow().clone();
        let cors = Cors::decide(&parts.method, &parts.headers, &current.config);
        let mut response = match cors {
            Cors::Preflight(headers) => {
                let mut response = Response::new(Body::empty());
                *response.headers_mut() = headers;
                response
            }
            Cors::Headers(headers) => {
                let mut response = self.respond(&parts, body, &current).await;
                // `OPTIONS` answers for itself; what the policy says prevails.
                response.headers_mut().extend(headers);
                response
            }
            Cors::None => self.respond(&parts, body, &current).await,
        };
        if let Some(name) = &current.config.trace_header
            && let Ok(name) = HeaderName::try_from(name)
        {
            let value = parts.headers.get(&name).cloned().unwrap_or(HeaderValue::from_static(""));
            response.headers_mut().insert(name, value);
        }
        response
    }

    async fn respond(&self, parts: &Parts, body: Body, current: &Current) -> Response {
        let config = &*current.config;
        let mut clock = Clock::start();
        let identity = match (self.authenticate)(parts, current) {
            Ok(identity) => identity,
            Err(error) => return refuse(&error, true, config),
        };
        clock.timing.jwt = clock.lap();
        let body = match Limited::new(body, self.body_limit).collect().await {
            Ok(body) => body.to_bytes(),
            Err(error) if error.is::<LengthLimitError>() => return self.too_large(),
            // The client went away in the middle of its body; nobody reads this.
            Err(error) => return refuse(&Error::InvalidBody(error.to_string()), true, config),
        };
        clock.lap();
        match self.answer(parts, body, &identity, config, &mut clock).await {
            Ok(answer) => {
                let mut response = Response::new(match answer.body {
                    Content::Whole(bytes) => Body::from(bytes),
                    Content::Large(value) => Body::new(LargeBody::new(value)),
                });
                *response.status_mut() = answer.status;
                *response.headers_mut() = answer.headers;
                response
            }
            Err(error) => refuse(&error, identity.authenticated, config),
        }
    }

    async fn answer(
        &self,
        parts: &Parts,
        body: Bytes,
        identity: &Identity,
        config: &RestConfig,
        clock: &mut Clock,
    ) -> Result<Answer, Error> {
        let cache = Arc::clone(&self.cache.borrow());
        let path = parts.uri.path_and_query().map_or("/", |path| path.as_str());
        let request = ApiRequest::parse(&parts.method, path, &parts.headers, body, config)?;
        clock.timing.parse = clock.lap();
        let plan = plan::plan(&request, &cache, config)?;
        clock.timing.plan = clock.lap();
        let context = Context { database: &self.database, cache: &cache, config, identity };
        let mut answer = if let Plan::Describe { head } = plan {
            let answer = describe(context, &plan, &request, head, &self.place).await?;
            clock.timing.transaction = clock.lap();
            answer
        } else {
            let outcome = execute::execute(context, &plan, &request).await?;
            clock.timing.transaction = clock.lap();
            execute::answer(&plan, outcome, &request, config)?
        };
        if config.legacy_target_names {
            warn_of_legacy_names(&plan, &mut answer);
        }
        clock.timing.response = clock.lap();
        if config.server_timing {
            answer.set(SERVER_TIMING, clock.timing.render());
        }
        if !answer.headers.contains_key(header::VARY) {
            answer.set(header::VARY, VARY);
        }
        Ok(answer)
    }

    fn too_large(&self) -> Response {
        let mut response = Response::new(Body::from(format!(
            r#"{{"code":"LH413","details":null,"hint":"Send fewer rows at once.","message":"The body is larger than {} bytes"}}"#,
            self.body_limit
        )));
        *response.status_mut() = StatusCode::PAYLOAD_TOO_LARGE;
        let json = HeaderValue::from_static("application/json; charset=utf-8");
        response.headers_mut().insert(header::CONTENT_TYPE, json);
        response
    }
}

fn refuse(error: &Error, authenticated: bool, config: &RestConfig) -> Response {
    match error {
        Error::Internal(why) => tracing::error!(%why, "a request could not be answered"),
        error => tracing::debug!(%error, "refused"),
    }
    let (status, headers, body) = error.response(authenticated, config);
    let mut response = Response::new(Body::from(body));
    *response.status_mut() = status;
    *response.headers_mut() = headers;
    if let Some(reason) = error.reason()
        && let Ok(reason) = hyper::ext::ReasonPhrase::try_from(reason.into_bytes())
    {
        response.extensions_mut().insert(reason);
    }
    response
}

async fn serve(State(api): State<Arc<RestApi>>, request: Request<Body>) -> Response {
    let is_head = request.method() == Method::HEAD;
    let mut response = api.handle(request).await;
    if is_head {
        // Of unknown length, so that nobody claims that a GET would be answered by no bytes.
        response.headers_mut().remove(header::CONTENT_LENGTH);
        *response.body_mut() = Body::from_stream(futures_util::stream::empty::<Result<Bytes, Infallible>>());
    }
    response
}

/// Warns of embeds that filters name by their relation although they have an alias.
fn warn_of_legacy_names(plan: &Plan, answer: &mut Answer) {
    let mut names = Vec::new();
    match plan {
        Plan::Read(plan) => plan.tree.legacy_names(&mut names),
        Plan::Mutate(plan) => plan.tree.legacy_names(&mut names),
        Plan::Call(plan) => plan.tree.legacy_names(&mut names),
        Plan::Describe { .. } | Plan::Options(_) => {}
    }
    if names.is_empty() {
        return;
    }
    let changes: Vec<String> =
        names.iter().map(|(relation, alias)| format!("`{relation}` to `{alias}`")).collect();
    answer.set(
        WARNING,
        format!(
            "299 Longhouse \"Embedded resource was referenced by relation name even though it has an alias. This is \
             deprecated and will stop working in a future release. Update {} in query string filters, orders or \
             limits.\"",
            changes.join(", ")
        ),
    );
}
