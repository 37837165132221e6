//! `POST /invite`: an account for somebody who is asked by mail to take it.

use axum::extract::State;
use axum::routing::post;
use axum::{Json, Router};
use serde::Deserialize;
use serde_json::{Map, Value, json};

use super::admin::account::NewAccount;
use super::admin::unless_refused;
use crate::service::AuthService;
use crate::service::accounts::{check_metadata, email_exists};
use crate::service::addresses::normalise_email;
use crate::service::body::JsonBody;
use crate::service::caller::Admin;
use crate::service::error::AuthApiError;
use crate::service::redirects::RedirectTo;
use crate::service::store::{self, Action, User, audit_service};

pub(super) fn router() -> Router<AuthService> {
    Router::new().route("/invite", post(invite))
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct Params {
    email: String,
    data: Map<String, Value>,
}

async fn invite(
    State(service): State<AuthService>,
    admin: Admin,
    RedirectTo(redirect_to): RedirectTo,
    JsonBody(params): JsonBody<Params>,
) -> Result<Json<User>, AuthApiError> {
    let email = normalise_email(&params.email)?;
    check_metadata(&params.data)?;
    let tx = store::begin(&service.database).await?;
    let user = match User::by_email(&tx, &email).await? {
        Some(user) if user.email_confirmed_at.is_some() => return Err(email_exists()),
        // Whoever has not answered yet is asked again.
        Some(user) => user,
        None => NewAccount { email, user_metadata: params.data, ..NewAccount::default() }.store(&tx).await?,
    };
    let traits = json!({ "user_id": user.id, "user_email": user.email });
    audit_service(&tx, &admin.caller, Action::UserInvited, traits).await?;
    let user = service.send_invite(&tx, &user, &redirect_to).await?;
    tx.commit().await.map_err(unless_refused)?;
    Ok(Json(user))
}
