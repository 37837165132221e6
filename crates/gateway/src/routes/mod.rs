//! The HTTP surface at `/ai/v1`: tasks and models, keys that people bring, usage, quotas, chat, and jobs.
//!
//! Every route acts as its caller: a person (`authenticated`), or a server of the project (`service_role`), which may
//! say on whose behalf it asks. The anon key alone opens nothing here, because every call costs somebody money.

mod chat;
mod error;
mod jobs;
mod keys;
mod tasks;
mod usage;

use std::sync::Arc;
use std::time::Duration;

use axum::extract::{FromRequest, FromRequestParts, Request};
use axum::http::StatusCode;
use axum::http::request::Parts;
use axum::response::{IntoResponse as _, Response};
use longhouse_database::{Claims, Database};
use longhouse_identity::{Verifier, verify_headers};
use longhouse_server::ApiError;
use serde::Deserialize;
use serde::de::DeserializeOwned;
use serde_json::Value;
use tokio::sync::Semaphore;
use utoipa::ToSchema;
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;
use uuid::Uuid;

use crate::Gateway;
use crate::jobs::Jobs;
use crate::keys::{Owner, PostgresKeys};
use crate::quotas::PostgresQuotas;

/// Where it is served. Its routes bound their bodies and times themselves.
pub const PATH: &str = "/ai/v1";

/// Calls by people themselves count as this application's.
const APP: &str = "api";
/// Longest wait for a request's body.
const BODY_TIME: Duration = Duration::from_secs(30);
/// Tests of keys at once.
const TESTS: usize = 8;

/// What the routes lead to.
#[derive(Clone)]
pub struct Options {
    /// The front door of model calls.
    pub gateway: Gateway,
    /// Keys that people bring.
    pub keys: PostgresKeys,
    /// Limits.
    pub quotas: PostgresQuotas,
    /// Long work.
    pub jobs: Jobs,
    /// Requests' database.
    pub database: Database,
    /// Tells callers.
    pub verifier: Verifier,
    /// Largest body, in bytes.
    pub body_limit: usize,
}

struct Api {
    options: Options,
    tests: Semaphore,
}

/// The routes, with their description.
pub fn router(options: Options) -> OpenApiRouter {
    described().with_state(Arc::new(Api { options, tests: Semaphore::new(TESTS) }))
}

/// The routes' description alone.
#[must_use]
pub fn openapi() -> utoipa::openapi::OpenApi {
    described().into_openapi()
}

fn described() -> OpenApiRouter<Arc<Api>> {
    OpenApiRouter::new()
        .routes(routes!(tasks::tasks))
        .routes(routes!(tasks::models))
        .routes(routes!(tasks::provider_models))
        .routes(routes!(keys::list, keys::put))
        .routes(routes!(keys::test_new))
        .routes(routes!(keys::delete))
        .routes(routes!(keys::test_stored))
        .routes(routes!(usage::usage))
        .routes(routes!(usage::quotas))
        .routes(routes!(chat::chat))
        .routes(routes!(jobs::chat))
        .routes(routes!(jobs::list))
        .routes(routes!(jobs::find, jobs::cancel))
        .routes(routes!(jobs::retry))
        .routes(routes!(jobs::follow))
}

/// Who asks.
struct Caller {
    claims: Claims,
    /// The person; `None` for a server of the project.
    user: Option<Uuid>,
}

impl Caller {
    /// On whose behalf: people act for themselves, servers for whom they say.
    fn owner(&self, said: Option<OnBehalf>) -> Result<Owner, ApiError> {
        match (self.user, said) {
            (Some(user), None) => Ok(Owner { app: APP.into(), user: Some(user), ..Owner::default() }),
            (None, said) => {
                let said = said.unwrap_or_default();
                let app = said.app.unwrap_or_else(|| APP.to_owned());
                if app.chars().count() > 64 {
                    return Err(error::invalid("the name of the application has more than 64 characters"));
                }
                Ok(Owner { app, user: said.user, tenant: said.tenant, project: said.project })
            }
            (Some(_), Some(_)) => {
                let status = StatusCode::FORBIDDEN;
                Err(ApiError::new(status, "forbidden", "only servers of the project act on behalf of others")
                    .hint("leave `on_behalf_of` out, or send the service role key"))
            }
        }
    }
}

impl FromRequestParts<Arc<Api>> for Caller {
    type Rejection = Response;

    async fn from_request_parts(parts: &mut Parts, api: &Arc<Api>) -> Result<Self, Response> {
        let claims = verify_headers(&api.options.verifier, &parts.headers)
            .map_err(axum::response::IntoResponse::into_response)?;
        let user = match claims.role() {
            "service_role" => None,
            "anon" => {
                let error =
                    ApiError::new(StatusCode::UNAUTHORIZED, "sign_in", "this needs a person who signed in");
                return Err(error
                    .hint("send the access token of a session as `Authorization: Bearer …`")
                    .into_response());
            }
            _ => {
                let parsed: Value = serde_json::from_str(claims.json()).unwrap_or_default();
                let subject = parsed["sub"].as_str().and_then(|subject| Uuid::parse_str(subject).ok());
                Some(subject.ok_or_else(|| {
                    let status = StatusCode::FORBIDDEN;
                    ApiError::new(status, "no_subject", "the token names no person in `sub`").into_response()
                })?)
            }
        };
        Ok(Self { claims, user })
    }
}

/// For whom a server of the project asks.
#[derive(Debug, Default, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
struct OnBehalf {
    /// The application.
    app: Option<String>,
    /// The person.
    user: Option<Uuid>,
    /// The tenant.
    tenant: Option<Uuid>,
    /// The project.
    project: Option<Uuid>,
}

/// A JSON body, bounded in size and time.
struct Body<T>(T);

impl<T: DeserializeOwned> FromRequest<Arc<Api>> for Body<T> {
    type Rejection = ApiError;

    async fn from_request(request: Request, api: &Arc<Api>) -> Result<Self, ApiError> {
        let limit = api.options.body_limit;
        let read = axum::body::to_bytes(request.into_body(), limit);
        let bytes = match tokio::time::timeout(BODY_TIME, read).await {
            Ok(Ok(bytes)) => bytes,
            Ok(Err(_)) => {
                let message = format!("the request body is larger than {limit} bytes, or broke off");
                return Err(ApiError::new(StatusCode::PAYLOAD_TOO_LARGE, "body_too_large", message)
                    .hint("send less at once, or raise server.body_limit"));
            }
            Err(_) => {
                let message = "the request body did not arrive in time";
                return Err(ApiError::new(StatusCode::REQUEST_TIMEOUT, "request_timeout", message));
            }
        };
        serde_json::from_slice(&bytes)
            .map(Self)
            .map_err(|error| error::invalid(format!("the body is not as described: {error}")))
    }
}
