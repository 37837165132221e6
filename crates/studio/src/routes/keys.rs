//! `GET /studio/v1/keys`: what programs connect with. Secrets are not in it: they are shown once, or by the command line.

use axum::Json;
use axum::extract::State;
use chrono::{DateTime, Utc};
use longhouse_identity::ApiKey;
use longhouse_identity::service::SigningKey;
use serde::Serialize;
use utoipa::ToSchema;
use uuid::Uuid;

use crate::{Error, Studio};

/// The project's keys.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct Keys {
    /// Where the outside reaches the project; null: as this page was reached.
    public_url: Option<String>,
    publishable_key: String,
    /// The publishable key as a JWT, for older clients.
    anon_key: String,
    /// Keys that were made besides.
    api_keys: Vec<MadeKey>,
    /// Keys that tokens are signed with.
    signing_keys: Vec<Signing>,
}

/// An API key without its secret.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct MadeKey {
    id: Uuid,
    name: String,
    /// `publishable` or `secret`.
    kind: &'static str,
    /// How it begins.
    prefix: String,
    created_at: DateTime<Utc>,
    last_used_at: Option<DateTime<Utc>>,
    revoked_at: Option<DateTime<Utc>>,
}

/// A signing key without its secret.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct Signing {
    id: Uuid,
    algorithm: &'static str,
    /// `standby`, `current`, `previous` or `revoked`.
    status: &'static str,
    created_at: DateTime<Utc>,
}

#[utoipa::path(
    get, path = "/studio/v1/keys", tag = "studio",
    responses((status = 200, body = Keys), (status = 401), (status = 403, description = "Not an operator"))
)]
pub(crate) async fn keys(State(studio): State<Studio>) -> Result<Json<Keys>, Error> {
    let inner = &studio.inner;
    let made = |key: ApiKey| MadeKey {
        id: key.id,
        name: key.name,
        kind: key.kind.name(),
        prefix: key.prefix,
        created_at: key.created_at,
        last_used_at: key.last_used_at,
        revoked_at: key.revoked_at,
    };
    let signing = |key: SigningKey| Signing {
        id: key.id,
        algorithm: key.algorithm.name(),
        status: key.status.name(),
        created_at: key.created_at,
    };
    let origin = |url: &url::Url| url.as_str().trim_end_matches('/').to_owned();
    Ok(Json(Keys {
        public_url: inner.public_url.as_ref().map(origin),
        publishable_key: inner.publishable_key.clone(),
        anon_key: inner.anon_key.clone(),
        api_keys: ApiKey::list(&inner.database).await?.into_iter().map(made).collect(),
        signing_keys: SigningKey::list(&inner.database).await?.into_iter().map(signing).collect(),
    }))
}
