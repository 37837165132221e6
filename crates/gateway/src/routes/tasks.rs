//! What can be asked, and how the models behind it are.

use std::sync::Arc;

use axum::Json;
use axum::extract::{Path, State};
use axum::http::StatusCode;
use longhouse_server::ApiError;
use serde::Serialize;
use utoipa::ToSchema;

use super::{Api, Caller, error};
use crate::keys::KeySource as _;
use crate::model::ProviderName;
use crate::routing::ProviderHealth;

/// A task and the models that may serve it, best first.
#[derive(Serialize, ToSchema)]
pub(super) struct TaskListing {
    /// Its name.
    task: String,
    /// `chat`, `speech`, `transcription`, `images`, `embeddings` or `moderation`.
    modality: String,
    /// Whether people may ask for it here.
    api: bool,
    /// How long an answer may be given again, in seconds; 0: never.
    cache_seconds: u64,
    /// Best first.
    models: Vec<ModelListing>,
}

/// A model of a task, for this caller.
#[derive(Serialize, ToSchema)]
pub(super) struct ModelListing {
    /// `provider/model`.
    model: String,
    /// Whether it would be asked now.
    available: bool,
    /// Why not: `no_key`, `breaker_open`.
    #[serde(skip_serializing_if = "Option::is_none")]
    reason: Option<&'static str>,
}

/// Lists tasks, with the models that may serve each and whether they can for this caller.
#[utoipa::path(
    get, path = "/ai/v1/tasks", tag = "ai",
    responses((status = 200, body = Vec<TaskListing>), (status = 401, description = "No valid key or token")),
)]
pub(super) async fn tasks(
    State(api): State<Arc<Api>>,
    caller: Caller,
) -> Result<Json<Vec<TaskListing>>, ApiError> {
    let gateway = &api.options.gateway;
    let owner = caller.owner(None)?;
    let health = gateway.health();
    // Every provider's key is looked for once, not once for each model.
    let mut without_key = Vec::new();
    for provider in
        gateway.configuration().providers.iter().filter(|(_, settings)| settings.protocol.needs_key())
    {
        if api.options.keys.key(&owner, provider.0).await.map_err(error::of)?.is_none() {
            without_key.push(provider.0.clone());
        }
    }
    let tasks = gateway.configuration().tasks.iter().map(|(task, settings)| TaskListing {
        task: task.to_string(),
        modality: settings.modality.to_string(),
        api: settings.api,
        cache_seconds: settings.cache.as_secs(),
        models: settings
            .models
            .iter()
            .map(|model| {
                let ill = health.iter().any(|of| of.provider == model.provider.as_str() && !of.well);
                let reason = match without_key.contains(&model.provider) {
                    true => Some("no_key"),
                    false => ill.then_some("breaker_open"),
                };
                ModelListing { model: model.to_string(), available: reason.is_none(), reason }
            })
            .collect(),
    });
    Ok(Json(tasks.collect()))
}

/// Lists providers, with what they serve and how they do as this server sees it.
#[utoipa::path(
    get, path = "/ai/v1/models", tag = "ai",
    responses((status = 200, body = Vec<ProviderHealth>), (status = 401, description = "No valid key or token")),
)]
pub(super) async fn models(State(api): State<Arc<Api>>, _: Caller) -> Json<Vec<ProviderHealth>> {
    Json(api.options.gateway.health())
}

/// Lists the models (or voices) of a provider that the caller's key may use, by a real request.
#[utoipa::path(
    get, path = "/ai/v1/models/{provider}", tag = "ai",
    params(("provider" = String, Path, description = "A configured provider")),
    responses(
        (status = 200, body = Vec<String>),
        (status = 401, description = "No valid key or token"),
        (status = 503, description = "No key, or the provider cannot be reached"),
    ),
)]
pub(super) async fn provider_models(
    State(api): State<Arc<Api>>,
    caller: Caller,
    Path(provider): Path<String>,
) -> Result<Json<Vec<String>>, ApiError> {
    let provider = ProviderName::new(&provider);
    if !api.options.gateway.configuration().providers.contains_key(&provider) {
        return Err(ApiError::new(
            StatusCode::NOT_FOUND,
            "unknown_provider",
            "no such provider is configured",
        )
        .hint("GET /ai/v1/models lists them"));
    }
    let owner = caller.owner(None)?;
    let _place = super::keys::place(&api)?;
    let key = api.options.keys.key(&owner, &provider).await.map_err(error::of)?;
    api.options.gateway.models(&provider, key).await.map(Json).map_err(error::of)
}
