//! `POST /logout`: ends sessions of the signed-in account.

use axum::Router;
use axum::extract::State;
use axum::routing::post;
use http::StatusCode;
use serde::Deserialize;
use serde_json::Value;

use crate::service::AuthService;
use crate::service::body::QueryParams;
use crate::service::caller::SignedIn;
use crate::service::error::AuthApiError;
use crate::service::store::{self, Action, Session, audit};

pub(super) fn router() -> Router<AuthService> {
    Router::new().route("/logout", post(logout))
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct Params {
    /// `global` (all sessions), `local` (this one) or `others`.
    scope: String,
}

async fn logout(
    State(service): State<AuthService>,
    QueryParams(Params { scope }): QueryParams<Params>,
    signed_in: SignedIn,
) -> Result<StatusCode, AuthApiError> {
    let user = &signed_in.user;
    let tx = store::begin(&service.database).await?;
    audit(&tx, &signed_in.caller, user, Action::Logout, Value::Null).await?;
    match (scope.as_str(), &signed_in.session) {
        ("local", Some(session)) => {
            Session::delete(&tx, session.id).await?;
        }
        ("others", Some(session)) => {
            Session::delete_of_user(&tx, user.id, Some(session.id)).await?;
        }
        // A token without a session names none to end or to keep.
        ("" | "global" | "local" | "others", _) => {
            Session::delete_of_user(&tx, user.id, None).await?;
        }
        _ => return Err(AuthApiError::invalid(format!("Unsupported logout scope {scope:?}"))),
    }
    tx.commit().await?;
    Ok(StatusCode::NO_CONTENT)
}
