//! `GET /reauthenticate`: sends the code that a change of password may need.

use axum::extract::State;
use axum::routing::get;
use axum::{Json, Router};
use serde_json::{Value, json};

use crate::service::AuthService;
use crate::service::caller::SignedIn;
use crate::service::error::AuthApiError;
use crate::service::sending::SmsPurpose;
use crate::service::sms::Channel;
use crate::service::store::{self, Action, User, audit};
use crate::service::tokens::gone;

pub(super) fn router() -> Router<AuthService> {
    // Not for HEAD, which `get` alone would answer too: this sends something.
    let head = async || http::StatusCode::METHOD_NOT_ALLOWED;
    Router::new().route("/reauthenticate", get(reauthenticate).head(head))
}

async fn reauthenticate(
    State(service): State<AuthService>,
    signed_in: SignedIn,
) -> Result<Json<Value>, AuthApiError> {
    let tx = store::begin(&service.database).await?;
    let user = User::lock(&tx, signed_in.user.id).await?.ok_or_else(gone)?;
    if user.email.is_empty() && user.phone.is_empty() {
        let message = "Reauthentication requires the user to have an email or a phone number";
        return Err(AuthApiError::invalid(message));
    }
    if !user.email.is_empty() && user.email_confirmed_at.is_none() {
        return Err(AuthApiError::unprocessable("email_not_confirmed", "Please verify your email first."));
    }
    if user.email.is_empty() && user.phone_confirmed_at.is_none() {
        return Err(AuthApiError::unprocessable("phone_not_confirmed", "Please verify your phone first."));
    }
    audit(&tx, &signed_in.caller, &user, Action::ReauthenticateRequested, Value::Null).await?;
    let sms = if user.email.is_empty() {
        let purpose = SmsPurpose::Reauthentication;
        Some(service.issue_sms(&tx, &user, &user.phone, purpose, Channel::Sms).await?)
    } else {
        service.send_reauthentication(&tx, &user).await?;
        None
    };
    tx.commit().await?;
    Ok(Json(match sms {
        Some(sms) => json!({ "message_id": service.deliver(sms).await? }),
        None => json!({}),
    }))
}
