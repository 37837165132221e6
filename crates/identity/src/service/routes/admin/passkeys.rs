//! `/admin/users/{user_id}/passkeys`.

use axum::extract::{Path, State};
use axum::routing::{delete, get};
use axum::{Json, Router};
use http::StatusCode;
use serde_json::json;

use super::super::passkeys::{missing, passkey_id_of};
use super::find;
use crate::service::AuthService;
use crate::service::caller::Admin;
use crate::service::error::AuthApiError;
use crate::service::store::{self, Action, Passkey, audit_service};

pub(super) fn router() -> Router<AuthService> {
    Router::new()
        .route("/admin/users/{user_id}/passkeys", get(list))
        .route("/admin/users/{user_id}/passkeys/{passkey_id}", delete(remove))
}

async fn list(
    State(service): State<AuthService>,
    _: Admin,
    Path(user_id): Path<String>,
) -> Result<Json<Vec<Passkey>>, AuthApiError> {
    let tx = store::begin(&service.database).await?;
    let user = find(&tx, &user_id).await?;
    let passkeys = Passkey::of_user(&tx, user.id).await?;
    tx.commit().await?;
    Ok(Json(passkeys))
}

async fn remove(
    State(service): State<AuthService>,
    admin: Admin,
    Path((user_id, passkey_id)): Path<(String, String)>,
) -> Result<StatusCode, AuthApiError> {
    let tx = store::begin(&service.database).await?;
    let user = find(&tx, &user_id).await?;
    let id = passkey_id_of(&passkey_id)?;
    if !Passkey::delete(&tx, user.id, id).await? {
        return Err(missing());
    }
    let traits = json!({ "user_id": user.id, "passkey_id": id });
    audit_service(&tx, &admin.caller, Action::PasskeyDeleted, traits).await?;
    tx.commit().await?;
    Ok(StatusCode::NO_CONTENT)
}
