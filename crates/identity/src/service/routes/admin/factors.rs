//! `/admin/users/{user_id}/factors`.

use axum::extract::{Path, State};
use axum::routing::{get, put};
use axum::{Json, Router};
use serde::Deserialize;
use serde_json::json;

use super::super::factors::{find as find_factor, is_taken, remove as remove_factor};
use super::find;
use crate::service::AuthService;
use crate::service::addresses::normalise_phone;
use crate::service::body::JsonBody;
use crate::service::caller::Admin;
use crate::service::error::AuthApiError;
use crate::service::store::{self, Action, Factor, FactorType, StoredFactor, audit_service};

const LONGEST_NAME: usize = 200;

pub(super) fn router() -> Router<AuthService> {
    Router::new()
        .route("/admin/users/{user_id}/factors", get(list))
        .route("/admin/users/{user_id}/factors/{factor_id}", put(update).delete(remove))
}

async fn list(
    State(service): State<AuthService>,
    _: Admin,
    Path(user_id): Path<String>,
) -> Result<Json<Vec<Factor>>, AuthApiError> {
    let tx = store::begin(&service.database).await?;
    let user = find(&tx, &user_id).await?;
    tx.commit().await?;
    Ok(Json(user.factors))
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct Update {
    friendly_name: String,
    phone: String,
}

async fn update(
    State(service): State<AuthService>,
    admin: Admin,
    Path((user_id, factor_id)): Path<(String, String)>,
    JsonBody(body): JsonBody<Update>,
) -> Result<Json<Factor>, AuthApiError> {
    if body.friendly_name.chars().count() > LONGEST_NAME {
        return Err(AuthApiError::invalid("friendly_name must be 200 characters or less"));
    }
    let tx = store::begin(&service.database).await?;
    let user = find(&tx, &user_id).await?;
    let stored = find_factor(&tx, user.id, &factor_id).await?;
    let phone = match stored.factor.factor_type {
        FactorType::Phone if !body.phone.is_empty() => Some(normalise_phone(&body.phone)?),
        _ => None,
    };
    let name = Some(body.friendly_name.as_str()).filter(|name| !name.is_empty());
    StoredFactor::change(&tx, stored.factor.id, name, phone.as_deref()).await.map_err(
        |error| match is_taken(&error) {
            true => AuthApiError::unprocessable(
                "mfa_factor_name_conflict",
                "This user has another factor with that name or number",
            ),
            false => error.into(),
        },
    )?;
    let traits = json!({
        "user_id": user.id, "factor_id": stored.factor.id,
        "factor_type": stored.factor.factor_type.name(),
    });
    audit_service(&tx, &admin.caller, Action::FactorUpdated, traits).await?;
    let factor = find_factor(&tx, user.id, &factor_id).await?.factor;
    tx.commit().await?;
    Ok(Json(factor))
}

async fn remove(
    State(service): State<AuthService>,
    admin: Admin,
    Path((user_id, factor_id)): Path<(String, String)>,
) -> Result<Json<Factor>, AuthApiError> {
    let tx = store::begin(&service.database).await?;
    let user = find(&tx, &user_id).await?;
    let stored = find_factor(&tx, user.id, &factor_id).await?;
    remove_factor(&tx, &stored).await?;
    let traits = json!({ "user_id": user.id, "factor_id": stored.factor.id });
    audit_service(&tx, &admin.caller, Action::FactorDeleted, traits).await?;
    tx.commit().await?;
    Ok(Json(stored.factor))
}
