//! Keys that people bring: stored sealed, shown masked, tested by a real call.

use std::sync::Arc;
use std::time::{Duration, Instant};

use axum::Json;
use axum::extract::{Path, State};
use axum::http::StatusCode;
use longhouse_server::ApiError;
use secrecy::SecretString;
use serde::{Deserialize, Serialize};
use tokio::sync::SemaphorePermit;
use url::Url;
use utoipa::ToSchema;
use uuid::Uuid;

use super::{Api, Body, Caller, OnBehalf, error};
use crate::Error;
use crate::keys::{ApiKey, Holder, NewKey, StoredKey};
use crate::model::ProviderName;

/// A key to store or to test.
#[derive(Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct KeyRequest {
    /// A configured provider.
    provider: String,
    /// The secret.
    #[schema(value_type = String)]
    key: SecretString,
    /// What its owner calls it.
    #[serde(default)]
    name: String,
    /// Only for this application; empty: for all.
    #[serde(default)]
    app: String,
    /// A server of the owner's own: a public https address, unless the operator allows others.
    #[schema(value_type = Option<String>)]
    base_url: Option<Url>,
    /// For servers of the project: whose key it is; one of `user`, `tenant`, `project`.
    on_behalf_of: Option<OnBehalf>,
}

/// What a test found.
#[derive(Serialize, ToSchema)]
pub(super) struct Tested {
    /// Whether the provider took the key.
    ok: bool,
    /// Why not: `unauthorized`, `unreachable`, ….
    #[serde(skip_serializing_if = "Option::is_none")]
    reason: Option<String>,
    /// The same in words, with what to do.
    #[serde(skip_serializing_if = "Option::is_none")]
    message: Option<String>,
    /// How many models (or voices) it may use.
    models: usize,
    /// How long the provider took, in milliseconds.
    latency_ms: u64,
}

fn unknown() -> ApiError {
    ApiError::new(StatusCode::NOT_FOUND, "unknown_key", "there is no such key")
        .hint("GET /ai/v1/keys lists yours")
}

fn checked_provider(api: &Api, name: &str) -> Result<ProviderName, ApiError> {
    let provider = ProviderName::new(name);
    let providers = &api.options.gateway.configuration().providers;
    if providers.contains_key(&provider) {
        return Ok(provider);
    }
    let names: Vec<&str> = providers.keys().map(ProviderName::as_str).collect();
    Err(error::invalid(format!("`{name}` is no provider here: use one of {}", names.join(", "))))
}

/// Real calls cost time of somebody else's server: few at once.
pub(super) fn place(api: &Api) -> Result<SemaphorePermit<'_>, ApiError> {
    api.tests.try_acquire().map_err(|_| {
        ApiError::new(StatusCode::SERVICE_UNAVAILABLE, "busy", "many keys are being tested at this moment")
            .hint("try again in a few seconds")
            .retry_after(3)
    })
}

async fn test(api: &Api, provider: &ProviderName, key: ApiKey) -> Result<Tested, ApiError> {
    let _place = place(api)?;
    let begun = Instant::now();
    let outcome = api.options.gateway.models(provider, Some(key)).await;
    let latency_ms = u64::try_from(begun.elapsed().as_millis()).unwrap_or(u64::MAX);
    match outcome {
        Ok(models) => Ok(Tested { ok: true, reason: None, message: None, models: models.len(), latency_ms }),
        Err(error @ Error::Provider(_)) => {
            let reason = error.failure().map(|failure| failure.fault.as_str().to_owned());
            Ok(Tested { ok: false, reason, message: Some(error.to_string()), models: 0, latency_ms })
        }
        Err(error) => Err(error::of(error)),
    }
}

/// Lists the caller's keys, masked.
#[utoipa::path(
    get, path = "/ai/v1/keys", tag = "ai",
    responses((status = 200, body = Vec<StoredKey>), (status = 401, description = "No valid key or token")),
)]
pub(super) async fn list(
    State(api): State<Arc<Api>>,
    caller: Caller,
) -> Result<Json<Vec<StoredKey>>, ApiError> {
    api.options.keys.list(&caller.claims).await.map(Json).map_err(error::of)
}

/// Stores a key in place of the one that there was for the same provider and application.
#[utoipa::path(
    post, path = "/ai/v1/keys", tag = "ai", request_body = KeyRequest,
    responses(
        (status = 201, body = StoredKey),
        (status = 400, description = "This is no key, or no provider"),
        (status = 401, description = "No valid key or token"),
    ),
)]
pub(super) async fn put(
    State(api): State<Arc<Api>>,
    caller: Caller,
    Body(request): Body<KeyRequest>,
) -> Result<(StatusCode, Json<StoredKey>), ApiError> {
    let provider = checked_provider(&api, &request.provider)?;
    if request
        .base_url
        .as_ref()
        .is_some_and(|url| !matches!(url.scheme(), "http" | "https") || url.host().is_none())
    {
        return Err(error::invalid("`base_url` is no http or https address"));
    }
    let owner = caller.owner(request.on_behalf_of)?;
    let holder = match (owner.user, owner.tenant, owner.project) {
        (Some(user), None, None) => Holder::User(user),
        (None, Some(tenant), None) => Holder::Tenant(tenant),
        (None, None, Some(project)) => Holder::Project(project),
        _ => {
            return Err(error::invalid(
                "say whose key it is: `on_behalf_of` with one of `user`, `tenant`, `project`",
            ));
        }
    };
    let new = NewKey {
        holder,
        provider,
        app: request.app,
        name: request.name,
        secret: request.key,
        base_url: request.base_url,
    };
    let stored = api.options.keys.put(new).await.map_err(error::of)?;
    Ok((StatusCode::CREATED, Json(stored)))
}

/// Deletes a key.
#[utoipa::path(
    delete, path = "/ai/v1/keys/{id}", tag = "ai",
    params(("id" = Uuid, Path, description = "The key's id")),
    responses(
        (status = 204, description = "It is gone; other servers may use it for five more seconds"),
        (status = 401, description = "No valid key or token"),
        (status = 404, description = "The caller has no such key"),
    ),
)]
pub(super) async fn delete(
    State(api): State<Arc<Api>>,
    caller: Caller,
    Path(id): Path<Uuid>,
) -> Result<StatusCode, ApiError> {
    match api.options.keys.delete(&caller.claims, id).await.map_err(error::of)? {
        true => Ok(StatusCode::NO_CONTENT),
        false => Err(unknown()),
    }
}

/// Tests a key before it is stored, by a real request to its provider.
#[utoipa::path(
    post, path = "/ai/v1/keys/test", tag = "ai", request_body = KeyRequest,
    responses((status = 200, body = Tested), (status = 401, description = "No valid key or token")),
)]
pub(super) async fn test_new(
    State(api): State<Arc<Api>>,
    caller: Caller,
    Body(request): Body<KeyRequest>,
) -> Result<Json<Tested>, ApiError> {
    caller.owner(request.on_behalf_of)?;
    let provider = checked_provider(&api, &request.provider)?;
    let mut key = ApiKey::new(request.key).owned();
    if let Some(base_url) = request.base_url {
        key = key.with_base_url(base_url);
    }
    test(&api, &provider, key).await.map(Json)
}

/// Tests a stored key by a real request to its provider, and notes the outcome.
#[utoipa::path(
    post, path = "/ai/v1/keys/{id}/test", tag = "ai",
    params(("id" = Uuid, Path, description = "The key's id")),
    responses(
        (status = 200, body = Tested),
        (status = 401, description = "No valid key or token"),
        (status = 404, description = "The caller has no such key"),
    ),
)]
pub(super) async fn test_stored(
    State(api): State<Arc<Api>>,
    caller: Caller,
    Path(id): Path<Uuid>,
) -> Result<Json<Tested>, ApiError> {
    let keys = &api.options.keys;
    // As the caller: row-level security says whether it is theirs.
    let stored = keys.visible(&caller.claims, id).await.map_err(error::of)?.ok_or_else(unknown)?;
    let recently = |at: chrono::DateTime<chrono::Utc>| {
        (chrono::Utc::now() - at).to_std().is_ok_and(|since| since < Duration::from_secs(1))
    };
    if stored.tested_at.is_some_and(recently) {
        let status = StatusCode::TOO_MANY_REQUESTS;
        return Err(ApiError::new(status, "rate_limited", "this key was tested a second ago").retry_after(1));
    }
    let key = keys.open(id).await.map_err(error::of)?.ok_or_else(unknown)?;
    let tested = test(&api, &ProviderName::new(&stored.provider), key).await?;
    let result = tested.reason.as_deref().unwrap_or(if tested.ok { "ok" } else { "failed" });
    keys.tested(id, result).await.map_err(error::of)?;
    Ok(Json(tested))
}
