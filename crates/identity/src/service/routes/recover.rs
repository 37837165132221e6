//! `POST /recover`: mails a way in to somebody who has forgotten the password.

use axum::extract::State;
use axum::routing::post;
use axum::{Json, Router};
use serde::Deserialize;
use serde_json::{Value, json};

use crate::service::AuthService;
use crate::service::addresses::normalise_email;
use crate::service::body::JsonBody;
use crate::service::caller::Caller;
use crate::service::codes::CodeChallenge;
use crate::service::error::AuthApiError;
use crate::service::limits::Limit;
use crate::service::redirects::RedirectTo;
use crate::service::sending::begin_exchange;
use crate::service::store::{self, Action, User, audit};

pub(super) fn router() -> Router<AuthService> {
    Router::new().route("/recover", post(recover))
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct Params {
    email: String,
    code_challenge: String,
    code_challenge_method: String,
}

async fn recover(
    State(service): State<AuthService>,
    caller: Caller,
    RedirectTo(redirect_to): RedirectTo,
    JsonBody(params): JsonBody<Params>,
) -> Result<Json<Value>, AuthApiError> {
    service.limits.take(Limit::Recover, &caller)?;
    if !service.options.email.enabled {
        return Err(AuthApiError::bad_request("email_provider_disabled", "Email logins are disabled"));
    }
    if params.email.is_empty() {
        return Err(AuthApiError::invalid("Password recovery requires an email"));
    }
    let email = normalise_email(&params.email)?;
    let challenge = CodeChallenge::parse(&params.code_challenge_method, &params.code_challenge)?;
    let tx = store::begin(&service.database).await?;
    match User::by_email(&tx, &email).await? {
        // Locked, so that of two requests at once the second is too soon.
        Some(user) => {
            let user = User::lock(&tx, user.id).await?.unwrap_or(user);
            begin_exchange(&tx, user.id, challenge.as_ref(), "recovery", "recovery").await?;
            audit(&tx, &caller, &user, Action::RecoveryRequested, Value::Null).await?;
            service.send_recovery(&tx, &user, challenge.as_ref(), &redirect_to).await?;
        }
        None => service.pretend_to_mail(&tx, "recovery", &email).await?,
    }
    tx.commit().await?;
    Ok(Json(json!({})))
}
