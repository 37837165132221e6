//! `/factors/recovery_codes`: what stands in for a lost second factor (see [`crate::service::mfa::recovery`]).

use axum::extract::State;
use axum::routing::{get, post};
use axum::{Json, Router};
use serde::Deserialize;
use serde_json::{Value, json};

use super::factors::Member;
use crate::service::AuthService;
use crate::service::body::JsonBody;
use crate::service::error::AuthApiError;
use crate::service::limits::Limit;
use crate::service::mfa::{may_manage, recovery};
use crate::service::store::{self, Action, Factor, Session, User, audit, recovery_codes};
use crate::service::tokens::{TokenResponse, gone};

/// What `amr` names after a code was used.
const METHOD: &str = "mfa/recovery_code";

pub(super) fn router() -> Router<AuthService> {
    Router::new()
        .route("/factors/recovery_codes", get(left).post(create))
        .route("/factors/recovery_codes/verify", post(verify))
}

async fn left(
    State(service): State<AuthService>,
    Member(signed_in): Member,
) -> Result<Json<Value>, AuthApiError> {
    let tx = store::begin(&service.database).await?;
    let remaining = recovery_codes::left(&tx, signed_in.user.id).await?;
    tx.commit().await?;
    Ok(Json(json!({ "remaining": remaining })))
}

/// Makes codes, shown this once; earlier ones end.
async fn create(
    State(service): State<AuthService>,
    Member(signed_in): Member,
) -> Result<Json<Value>, AuthApiError> {
    service.limits.take(Limit::Mfa, &signed_in.caller)?;
    let tx = store::begin(&service.database).await?;
    let user = User::lock(&tx, signed_in.user.id).await?.ok_or_else(gone)?;
    if !user.factors.iter().any(Factor::is_verified) {
        let message = "Recovery codes stand in for a second factor: enroll and verify one first";
        return Err(AuthApiError::unprocessable("mfa_factor_not_found", message));
    }
    may_manage(&user.factors, signed_in.session.as_ref(), "AAL2 required to make recovery codes")?;
    let codes: Vec<_> = (0..recovery::CODES).map(|_| recovery::new_code()).collect();
    let hashes: Vec<_> = codes.iter().filter_map(|code| recovery::hash(user.id, code)).collect();
    recovery_codes::replace(&tx, user.id, &hashes).await?;
    audit(&tx, &signed_in.caller, &user, Action::RecoveryCodesGenerated, Value::Null).await?;
    tx.commit().await?;
    Ok(Json(json!({ "recovery_codes": codes })))
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct Verify {
    code: String,
}

async fn verify(
    State(service): State<AuthService>,
    Member(signed_in): Member,
    JsonBody(body): JsonBody<Verify>,
) -> Result<Json<TokenResponse>, AuthApiError> {
    service.limits.take(Limit::Mfa, &signed_in.caller)?;
    let session = signed_in.session()?;
    let user = &signed_in.user;
    let attempts = format!("recovery codes {}", user.id);
    service.limits.attempt(&attempts)?;
    let refused = || AuthApiError::unprocessable("mfa_verification_failed", "Invalid recovery code entered");
    let hash = recovery::hash(user.id, &body.code).ok_or_else(refused)?;
    let tx = store::begin(&service.database).await?;
    // The update is the check: of two requests with one code, one changes the row.
    if !recovery_codes::take(&tx, user.id, &hash).await? {
        return Err(refused());
    }
    let traits = json!({ "factor_type": "recovery_code" });
    audit(&tx, &signed_in.caller, user, Action::VerificationAttempted, traits).await?;
    let tokens = service.step_up(&tx, user, session, None, METHOD).await?;
    Session::delete_below_aal2(&tx, user.id).await?;
    tx.commit().await?;
    service.limits.succeeded(&attempts);
    Ok(Json(tokens))
}
