//! `/passkeys`: keys that sign in without a password, registered by the signed-in and used by anybody.

use axum::extract::{FromRequestParts, Path, State};
use axum::response::{IntoResponse, Response};
use axum::routing::{get, patch, post};
use axum::{Json, Router};
use chrono::Utc;
use http::StatusCode;
use http::request::Parts;
use serde::Deserialize;
use serde_json::{Value, json};
use uuid::Uuid;

use super::factors::{Member, is_taken};
use crate::service::AuthService;
use crate::service::body::JsonBody;
use crate::service::caller::{Caller, SignedIn};
use crate::service::error::AuthApiError;
use crate::service::limits::Limit;
use crate::service::mfa::may_manage;
use crate::service::mfa::webauthn::{
    Assertion, CeremonyError, RelyingParty, Residence, StoredCredential, friendly_name,
};
use crate::service::store::{self, Action, Ceremony, CeremonyKind, NewPasskey, Passkey, Tx, User, audit};
use crate::service::tokens::{TokenResponse, gone};

/// Most of one account.
const MOST_PASSKEYS: usize = 10;
const LONGEST_NAME: usize = 120;
const AAL2: &str = "AAL2 session is required to manage passkeys when MFA is enabled";

pub(super) fn router() -> Router<AuthService> {
    Router::new()
        .route("/passkeys", get(list))
        .route("/passkeys/registration/options", post(registration_options))
        .route("/passkeys/registration/verify", post(registration_verify))
        .route("/passkeys/authentication/options", post(authentication_options))
        .route("/passkeys/authentication/verify", post(authentication_verify))
        .route("/passkeys/{passkey_id}", patch(rename).delete(remove))
}

/// Passkeys are switched on; comes before everything else.
struct Enabled;

impl FromRequestParts<AuthService> for Enabled {
    type Rejection = AuthApiError;

    async fn from_request_parts(_: &mut Parts, service: &AuthService) -> Result<Self, AuthApiError> {
        match service.options.mfa.passkeys {
            true => Ok(Self),
            false => Err(AuthApiError::not_found("passkey_disabled", "Passkeys are disabled")),
        }
    }
}

/// A ceremony's second half.
#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct Finish {
    challenge_id: String,
    credential: Option<Value>,
}

impl Finish {
    fn parts(self) -> Result<(Uuid, Value), AuthApiError> {
        if self.challenge_id.is_empty() {
            return Err(AuthApiError::invalid("challenge_id is required"));
        }
        let credential = self.credential.ok_or_else(|| AuthApiError::invalid("credential is required"))?;
        let id = Uuid::parse_str(&self.challenge_id)
            .map_err(|_| AuthApiError::invalid("challenge_id must be a valid UUID"))?;
        Ok((id, credential))
    }
}

async fn registration_options(
    State(service): State<AuthService>,
    _: Enabled,
    Member(signed_in): Member,
) -> Result<Json<Value>, AuthApiError> {
    service.limits.take(Limit::Mfa, &signed_in.caller)?;
    let tx = store::begin(&service.database).await?;
    let known = may_register(&tx, &signed_in).await?;
    let known = known.into_iter().map(|passkey| passkey.credential_id).collect();
    let party = RelyingParty::new(&service.options)?;
    let (options, state) = party.begin_registration(&signed_in.user, known, Residence::Required)?;
    let answer =
        begin(&service, &tx, CeremonyKind::Registration, Some(signed_in.user.id), options, state).await?;
    tx.commit().await?;
    Ok(answer)
}

/// The account's passkeys, if it may have another.
async fn may_register(tx: &Tx, signed_in: &SignedIn) -> Result<Vec<Passkey>, AuthApiError> {
    let user = &signed_in.user;
    if user.is_sso_user {
        let message = "SSO users cannot register passkeys";
        return Err(AuthApiError::unprocessable("validation_failed", message));
    }
    may_manage(&user.factors, signed_in.session.as_ref(), AAL2)?;
    // Locked, so that two registrations at once cannot both be the last that is allowed.
    User::lock(tx, user.id).await?.ok_or_else(gone)?;
    let known = Passkey::of_user(tx, user.id).await?;
    if known.len() >= MOST_PASSKEYS {
        let message = "Maximum number of passkeys reached";
        return Err(AuthApiError::unprocessable("too_many_passkeys", message));
    }
    Ok(known)
}

async fn registration_verify(
    State(service): State<AuthService>,
    _: Enabled,
    Member(signed_in): Member,
    JsonBody(body): JsonBody<Finish>,
) -> Result<Json<Value>, AuthApiError> {
    let user = &signed_in.user;
    let (id, answer) = body.parts()?;
    let state = take(&service, id, CeremonyKind::Registration, Some(user.id)).await?;
    let party = RelyingParty::new(&service.options)?;
    let credential = party.finish_registration(&answer, state).map_err(refused)?;
    let tx = store::begin(&service.database).await?;
    may_register(&tx, &signed_in).await?;
    let new = NewPasskey {
        user_id: user.id,
        credential_id: &credential.id,
        public_key: &credential.public_key,
        aaguid: credential.aaguid(),
        sign_count: credential.authenticator.sign_count.into(),
        transports: &credential.transport,
        backup_eligible: credential.flags.backup_eligible,
        backed_up: credential.flags.backup_state,
        friendly_name: friendly_name(credential.aaguid()),
    };
    let passkey = Passkey::insert(&tx, &new).await.map_err(|error| match is_taken(&error) {
        true => {
            let message = "This credential is already registered";
            AuthApiError::unprocessable("webauthn_credential_exists", message)
        }
        false => error.into(),
    })?;
    let traits = json!({ "passkey_id": passkey.id });
    audit(&tx, &signed_in.caller, user, Action::PasskeyCreated, traits).await?;
    tx.commit().await?;
    Ok(Json(serde_json::to_value(passkey).map_err(AuthApiError::internal)?))
}

async fn authentication_options(
    State(service): State<AuthService>,
    _: Enabled,
    caller: Caller,
) -> Result<Json<Value>, AuthApiError> {
    service.limits.take(Limit::Otp, &caller)?;
    let tx = store::begin(&service.database).await?;
    let (options, state) = RelyingParty::new(&service.options)?.begin_authentication(&[])?;
    let answer = begin(&service, &tx, CeremonyKind::Authentication, None, options, state).await?;
    tx.commit().await?;
    Ok(answer)
}

async fn authentication_verify(
    State(service): State<AuthService>,
    _: Enabled,
    caller: Caller,
    JsonBody(body): JsonBody<Finish>,
) -> Result<Json<TokenResponse>, AuthApiError> {
    service.limits.take(Limit::Token, &caller)?;
    let (id, answer) = body.parts()?;
    let state = take(&service, id, CeremonyKind::Authentication, None).await?;
    let assertion = Assertion::read(&answer).map_err(refused)?;
    let unknown =
        || AuthApiError::bad_request("webauthn_verification_failed", "Credential verification failed");
    let tx = store::begin(&service.database).await?;
    let passkey = Passkey::lock_by_credential(&tx, assertion.credential_id()).await?.ok_or_else(unknown)?;
    // Who the authenticator says it is must be who the key is of.
    if assertion.user().map_err(refused)?.is_some_and(|user| user != passkey.user_id) {
        return Err(unknown());
    }
    let party = RelyingParty::new(&service.options)?;
    let stored = StoredCredential::from(&passkey);
    let asserted = party.finish_authentication(&assertion, state, &stored).map_err(refused)?;
    let user = User::find(&tx, passkey.user_id).await?.ok_or_else(unknown)?;
    if !user.email.is_empty() && user.email_confirmed_at.is_none() {
        return Err(AuthApiError::forbidden("email_not_confirmed", "Email not confirmed"));
    }
    if !user.phone.is_empty() && user.phone_confirmed_at.is_none() {
        return Err(AuthApiError::forbidden("phone_not_confirmed", "Phone not confirmed"));
    }
    if user.is_banned(Utc::now()) {
        return Err(AuthApiError::forbidden("user_banned", "User is banned"));
    }
    Passkey::used(&tx, passkey.id, asserted.sign_count.into(), asserted.backup_state).await?;
    audit(&tx, &caller, &user, Action::Login, json!({ "passkey_id": passkey.id })).await?;
    let tokens = service.sign_in(&tx, &caller, &user, "passkey").await?;
    tx.commit().await?;
    Ok(Json(tokens))
}

async fn list(
    State(service): State<AuthService>,
    _: Enabled,
    signed_in: SignedIn,
) -> Result<Json<Vec<Passkey>>, AuthApiError> {
    let tx = store::begin(&service.database).await?;
    let passkeys = Passkey::of_user(&tx, signed_in.user.id).await?;
    tx.commit().await?;
    Ok(Json(passkeys))
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct Rename {
    friendly_name: String,
}

async fn rename(
    State(service): State<AuthService>,
    _: Enabled,
    signed_in: SignedIn,
    Path(passkey_id): Path<String>,
    JsonBody(body): JsonBody<Rename>,
) -> Result<Json<Passkey>, AuthApiError> {
    let id = passkey_id_of(&passkey_id)?;
    if body.friendly_name.is_empty() {
        return Err(AuthApiError::invalid("friendly_name is required"));
    }
    if body.friendly_name.len() > LONGEST_NAME {
        return Err(AuthApiError::invalid("friendly_name must be 120 characters or less"));
    }
    let tx = store::begin(&service.database).await?;
    let passkey =
        Passkey::rename(&tx, signed_in.user.id, id, &body.friendly_name).await?.ok_or_else(missing)?;
    let traits = json!({ "passkey_id": id });
    audit(&tx, &signed_in.caller, &signed_in.user, Action::PasskeyUpdated, traits).await?;
    tx.commit().await?;
    Ok(Json(passkey))
}

async fn remove(
    State(service): State<AuthService>,
    _: Enabled,
    signed_in: SignedIn,
    Path(passkey_id): Path<String>,
) -> Result<Response, AuthApiError> {
    may_manage(&signed_in.user.factors, signed_in.session.as_ref(), AAL2)?;
    let id = passkey_id_of(&passkey_id)?;
    let tx = store::begin(&service.database).await?;
    if !Passkey::delete(&tx, signed_in.user.id, id).await? {
        return Err(missing());
    }
    let traits = json!({ "passkey_id": id });
    audit(&tx, &signed_in.caller, &signed_in.user, Action::PasskeyDeleted, traits).await?;
    tx.commit().await?;
    Ok(StatusCode::NO_CONTENT.into_response())
}

/// The id of a passkey in a path.
pub(super) fn passkey_id_of(text: &str) -> Result<Uuid, AuthApiError> {
    Uuid::parse_str(text).map_err(|_| missing())
}

pub(super) fn missing() -> AuthApiError {
    AuthApiError::not_found("validation_failed", "Passkey not found")
}

/// Stores a ceremony's state, and the answer with its question.
async fn begin(
    service: &AuthService,
    tx: &Tx,
    kind: CeremonyKind,
    user: Option<Uuid>,
    options: Value,
    state: Value,
) -> Result<Json<Value>, AuthApiError> {
    let expires_at = Utc::now() + service.options.mfa.challenge_expiry;
    let id = Ceremony { state, expires_at }.insert(tx, kind, user).await?;
    Ok(Json(json!({ "challenge_id": id, "options": options, "expires_at": expires_at.timestamp() })))
}

/// Takes a ceremony's state away, for good: also an answer that does not verify was its only one.
async fn take(
    service: &AuthService,
    id: Uuid,
    kind: CeremonyKind,
    user: Option<Uuid>,
) -> Result<Value, AuthApiError> {
    let tx = store::begin(&service.database).await?;
    let ceremony = Ceremony::take(&tx, id, kind, user).await?;
    tx.commit().await?;
    let ceremony = ceremony.ok_or_else(|| {
        let message = "Challenge not found or already used";
        AuthApiError::bad_request("webauthn_challenge_not_found", message)
    })?;
    if ceremony.expires_at < Utc::now() {
        return Err(AuthApiError::bad_request("webauthn_challenge_expired", "Challenge has expired"));
    }
    Ok(ceremony.state)
}

fn refused(error: CeremonyError) -> AuthApiError {
    tracing::debug!(%error, "a passkey's answer is refused");
    let message = match error {
        CeremonyError::Unreadable => "Invalid credential response",
        CeremonyError::Refused(_) => "Credential verification failed",
    };
    AuthApiError::bad_request("webauthn_verification_failed", message)
}
