//! `/factors`: second factors of the signed-in person, from enrolment to `aal2`.

use axum::body::Bytes;
use axum::extract::{FromRequestParts, Path, State};
use axum::routing::{delete, post};
use axum::{Json, Router};
use chrono::{Duration, Utc};
use http::request::Parts;
use longhouse_database::tokio_postgres::error::SqlState;
use serde::Deserialize;
use serde_json::{Value, json};
use uuid::Uuid;

use crate::service::AuthService;
use crate::service::addresses::normalise_phone;
use crate::service::body::JsonBody;
use crate::service::caller::SignedIn;
use crate::service::codes::{is_expired, is_same_hash, token_hash};
use crate::service::error::AuthApiError;
use crate::service::limits::Limit;
use crate::service::mfa::webauthn::{Assertion, CeremonyError, RelyingParty, Residence, StoredCredential};
use crate::service::mfa::{Step, enabled, may_enrol, totp};
use crate::service::store::{
    self, Aal, Action, Challenge, FactorStatus, FactorType, NewFactor, Session, StoredFactor, Tx, User, audit,
};
use crate::service::tokens::{TokenResponse, gone};

/// How long somebody may take from the beginning of an enrolment to its first challenge.
const ABANDONED_AFTER: Duration = Duration::minutes(5);
const LONGEST_NAME: usize = 200;

pub(super) fn router() -> Router<AuthService> {
    Router::new()
        .route("/factors", post(enrol))
        .route("/factors/{factor_id}", delete(unenrol))
        .route("/factors/{factor_id}/challenge", post(challenge))
        .route("/factors/{factor_id}/verify", post(verify))
}

/// A signed-in person with an account that is more than a visitor's.
pub(super) struct Member(pub(super) SignedIn);

impl FromRequestParts<AuthService> for Member {
    type Rejection = AuthApiError;

    async fn from_request_parts(parts: &mut Parts, service: &AuthService) -> Result<Self, AuthApiError> {
        let signed_in = SignedIn::from_request_parts(parts, service).await?;
        if signed_in.user.is_anonymous {
            let message = "Anonymous user not allowed to perform these actions";
            return Err(AuthApiError::forbidden("no_authorization", message));
        }
        Ok(Self(signed_in))
    }
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct Enrol {
    factor_type: String,
    friendly_name: String,
    issuer: String,
    phone: String,
}

async fn enrol(
    State(service): State<AuthService>,
    Member(signed_in): Member,
    JsonBody(body): JsonBody<Enrol>,
) -> Result<Json<Value>, AuthApiError> {
    let kind = match body.factor_type.as_str() {
        "totp" => FactorType::Totp,
        "phone" => FactorType::Phone,
        "webauthn" => FactorType::Webauthn,
        _ => return Err(AuthApiError::invalid("factor_type needs to be totp, phone, or webauthn")),
    };
    enabled(&service.options.mfa, kind, Step::Enrol)?;
    if body.friendly_name.chars().count() > LONGEST_NAME {
        return Err(AuthApiError::invalid("friendly_name must be 200 characters or less"));
    }
    let session = signed_in.session()?;
    let phone = match kind {
        FactorType::Phone if body.phone.is_empty() => {
            return Err(AuthApiError::invalid("Phone number required to enroll Phone factor"));
        }
        FactorType::Phone => Some(normalise_phone(&body.phone)?),
        _ => None,
    };
    let tx = store::begin(&service.database).await?;
    // Locked, so that two enrolments at once cannot both be the last that is allowed.
    let user = User::lock(&tx, signed_in.user.id).await?.ok_or_else(gone)?;
    StoredFactor::delete_abandoned(&tx, user.id, Utc::now() - ABANDONED_AFTER).await?;
    if let Some(phone) = &phone {
        replace_phone(&tx, &user, phone).await?;
    }
    let factors: Vec<_> =
        StoredFactor::of_user(&tx, user.id).await?.into_iter().map(|stored| stored.factor).collect();
    may_enrol(&factors, &body.friendly_name, &service.options.mfa, session)?;
    let app = match kind {
        FactorType::Totp => {
            let issuer = if body.issuer.is_empty() { &service.options.mfa.issuer } else { &body.issuer };
            let id = user.id.to_string();
            let account = [&user.email, &user.phone, &id].into_iter().find(|name| !name.is_empty());
            Some(totp::enrol(issuer, account.unwrap_or(&id))?)
        }
        _ => None,
    };
    let new = NewFactor {
        user_id: user.id,
        factor_type: kind,
        friendly_name: &body.friendly_name,
        secret: app.as_ref().map(|app| app.secret.as_str()),
        phone: phone.as_deref(),
    };
    let factor = StoredFactor::insert(&tx, &new).await?.factor;
    let traits = json!({ "factor_id": factor.id, "factor_type": kind.name() });
    audit(&tx, &signed_in.caller, &user, Action::FactorInProgress, traits).await?;
    tx.commit().await?;
    let mut answer = json!({ "id": factor.id, "type": kind.name(), "friendly_name": body.friendly_name });
    if let Some(app) = app {
        // auth-js makes a data URI of the picture.
        answer["totp"] = json!({ "qr_code": app.picture, "secret": app.secret, "uri": app.uri });
    }
    if kind == FactorType::Phone {
        answer["phone"] = json!(body.phone);
    }
    Ok(Json(answer))
}

/// A number is enrolled once: an unfinished enrolment gives way, a finished one stays.
async fn replace_phone(tx: &Tx, user: &User, phone: &str) -> Result<(), AuthApiError> {
    for stored in StoredFactor::of_user(tx, user.id).await? {
        if stored.factor.phone.as_deref() != Some(phone) {
            continue;
        }
        if stored.factor.is_verified() {
            let message = "A verified phone factor already exists, unenroll the existing factor to continue";
            return Err(AuthApiError::unprocessable("mfa_verified_factor_exists", message));
        }
        StoredFactor::delete(tx, stored.factor.id).await?;
    }
    Ok(())
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct Ask {
    channel: Option<String>,
}

/// How a text message shall travel. Only this kind of challenge has anything to say, so an empty body is fine.
fn channel_of(body: &[u8]) -> Result<String, AuthApiError> {
    if body.is_empty() {
        return Ok(String::new());
    }
    let ask: Ask = serde_json::from_slice(body).map_err(|error| {
        AuthApiError::bad_request("bad_json", format!("Could not parse request body as JSON: {error}"))
    })?;
    Ok(ask.channel.unwrap_or_default())
}

async fn challenge(
    State(service): State<AuthService>,
    Member(signed_in): Member,
    Path(factor_id): Path<String>,
    body: Bytes,
) -> Result<Json<Value>, AuthApiError> {
    service.limits.take(Limit::Mfa, &signed_in.caller)?;
    let (user, ip) = (&signed_in.user, signed_in.caller.ip);
    let tx = store::begin(&service.database).await?;
    let stored = find(&tx, user.id, &factor_id).await?;
    let factor = &stored.factor;
    enabled(&service.options.mfa, factor.factor_type, Step::Verify)?;
    let mut text_message = None;
    let mut webauthn = None;
    let challenge = match factor.factor_type {
        FactorType::Totp => Challenge::insert(&tx, factor.id, ip, None, None).await?,
        FactorType::Phone => {
            let message = service.factor_message(factor, &channel_of(&body)?)?;
            let phone = factor.phone.as_deref().unwrap_or_default();
            let hash = token_hash(phone, &message.code);
            text_message = Some(message);
            Challenge::insert(&tx, factor.id, ip, Some(&hash), None).await?
        }
        FactorType::Webauthn => {
            let party = RelyingParty::new(&service.options)?;
            let (kind, (options, state)) = match factor.status {
                FactorStatus::Unverified => {
                    let known = credentials(&StoredFactor::of_user(&tx, user.id).await?)?;
                    let known = known.into_iter().map(|credential| credential.id).collect();
                    ("create", party.begin_registration(user, known, Residence::Any)?)
                }
                FactorStatus::Verified => {
                    let credentials = credentials(std::slice::from_ref(&stored))?;
                    ("request", party.begin_authentication(&credentials)?)
                }
            };
            webauthn = Some(json!({ "type": kind, "credential_options": { "publicKey": options } }));
            Challenge::insert(&tx, factor.id, ip, None, Some(&state)).await?
        }
    };
    let traits = json!({ "factor_id": factor.id, "factor_status": factor.status });
    audit(&tx, &signed_in.caller, user, Action::ChallengeCreated, traits).await?;
    tx.commit().await?;
    // Behind the commit: nobody shall get a code that is not stored.
    if let Some(message) = text_message {
        service.send_factor_message(factor, &message).await?;
    }
    let expires = challenge.created_at + service.options.mfa.challenge_expiry;
    let mut answer = json!({
        "id": challenge.id, "type": factor.factor_type.name(), "expires_at": expires.timestamp(),
    });
    if let Some(webauthn) = webauthn {
        answer["webauthn"] = webauthn;
    }
    Ok(Json(answer))
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct Verify {
    challenge_id: String,
    code: String,
    webauthn: Option<WebauthnAnswer>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct WebauthnAnswer {
    r#type: String,
    credential_response: Option<Value>,
}

async fn verify(
    State(service): State<AuthService>,
    Member(signed_in): Member,
    Path(factor_id): Path<String>,
    JsonBody(body): JsonBody<Verify>,
) -> Result<Json<TokenResponse>, AuthApiError> {
    service.limits.take(Limit::Mfa, &signed_in.caller)?;
    let session = signed_in.session()?;
    let tx = store::begin(&service.database).await?;
    let stored = find(&tx, signed_in.user.id, &factor_id).await?;
    let factor = &stored.factor;
    enabled(&service.options.mfa, factor.factor_type, Step::Verify)?;
    if body.code.is_empty() && factor.factor_type != FactorType::Webauthn {
        return Err(AuthApiError::invalid("Code needs to be non-empty"));
    }
    let answer = match factor.factor_type {
        FactorType::Webauthn => Some(webauthn_answer(body.webauthn)?),
        _ => None,
    };
    let challenge = asked(&service, &tx, &signed_in, &stored, &body.challenge_id).await?;
    // Whoever guesses from many addresses runs into this one.
    let attempts = format!("factor {}", factor.id);
    service.limits.attempt(&attempts)?;
    let mut credential = None;
    match factor.factor_type {
        FactorType::Totp => {
            let last = Challenge::last_step(&tx, factor.id).await?;
            let now = u64::try_from(Utc::now().timestamp()).unwrap_or_default();
            let secret = stored.secret.as_deref().unwrap_or_default();
            let step = totp::accepted_step(secret, &body.code, now, last)?
                .ok_or_else(|| failed("Invalid TOTP code entered"))?;
            Challenge::verified(&tx, challenge.id, Some(&step.to_string())).await?;
        }
        FactorType::Phone => {
            let phone = factor.phone.as_deref().unwrap_or_default();
            let sent = challenge.otp_code.as_deref().unwrap_or_default();
            if sent.is_empty() || !is_same_hash(sent, &token_hash(phone, &body.code)) {
                return Err(failed("Invalid MFA Phone code entered"));
            }
            Challenge::verified(&tx, challenge.id, Some(sent)).await?;
        }
        FactorType::Webauthn => {
            let answer = answer.expect("read above for this kind");
            credential = Some(proved(&service, &stored, &challenge, &answer)?);
            Challenge::delete(&tx, challenge.id).await?;
        }
    }
    let (stored_credential, aaguid) = match &credential {
        Some(credential) => {
            (Some(serde_json::to_value(credential).map_err(AuthApiError::internal)?), credential.aaguid())
        }
        None => (None, None),
    };
    StoredFactor::verified(&tx, factor.id, stored_credential.as_ref(), aaguid).await?;
    StoredFactor::delete_unverified(&tx, signed_in.user.id, factor.factor_type).await?;
    let traits = json!({
        "factor_id": factor.id, "challenge_id": challenge.id, "factor_type": factor.factor_type.name(),
    });
    audit(&tx, &signed_in.caller, &signed_in.user, Action::VerificationAttempted, traits).await?;
    let method = factor.factor_type.method();
    let tokens = service.step_up(&tx, &signed_in.user, session, Some(factor.id), method).await?;
    // Other devices must prove the factor too.
    Session::delete_below_aal2(&tx, signed_in.user.id).await?;
    tx.commit().await?;
    service.limits.succeeded(&attempts);
    Ok(Json(tokens))
}

/// The question that is answered, if it was put to this client not too long ago.
async fn asked(
    service: &AuthService,
    tx: &Tx,
    signed_in: &SignedIn,
    stored: &StoredFactor,
    id: &str,
) -> Result<Challenge, AuthApiError> {
    let missing = || {
        let message = "MFA factor with the provided challenge ID not found";
        AuthApiError::unprocessable("mfa_factor_not_found", message)
    };
    let id = Uuid::parse_str(id).map_err(|_| missing())?;
    let challenge = Challenge::lock(tx, stored.factor.id, id).await?.ok_or_else(missing)?;
    if challenge.verified_at.is_some() || challenge.ip != signed_in.caller.ip {
        return Err(AuthApiError::unprocessable(
            "mfa_ip_address_mismatch",
            "Challenge and verify IP addresses mismatch.",
        ));
    }
    if is_expired(challenge.created_at, service.options.mfa.challenge_expiry, Utc::now()) {
        return Err(AuthApiError::unprocessable(
            "mfa_challenge_expired",
            format!(
                "MFA challenge {id} has expired, verify against another challenge or create a new challenge."
            ),
        ));
    }
    Ok(challenge)
}

fn webauthn_answer(answer: Option<WebauthnAnswer>) -> Result<Value, AuthApiError> {
    let answer = answer.ok_or_else(|| AuthApiError::invalid("WebAuthn config required"))?;
    if !matches!(answer.r#type.as_str(), "create" | "request") {
        return Err(AuthApiError::invalid("WebAuthn type must be create or request"));
    }
    answer.credential_response.ok_or_else(|| AuthApiError::invalid("credential_response required"))
}

/// The security key that answered: a new one, or the factor's with its counter as it is now. Which of the two was
/// asked for is the factor's to say, not the client's.
fn proved(
    service: &AuthService,
    stored: &StoredFactor,
    challenge: &Challenge,
    answer: &Value,
) -> Result<StoredCredential, AuthApiError> {
    let refused = |error: CeremonyError| {
        tracing::debug!(%error, factor = %stored.factor.id, "a WebAuthn answer is refused");
        match error {
            CeremonyError::Unreadable => AuthApiError::invalid("Invalid credential_response"),
            CeremonyError::Refused(_) => failed("Invalid WebAuthn credential response"),
        }
    };
    let party = RelyingParty::new(&service.options)?;
    let state = challenge.ceremony.clone().unwrap_or_default();
    if !stored.factor.is_verified() {
        return party.finish_registration(answer, state).map_err(refused);
    }
    let mut credential = credentials(std::slice::from_ref(stored))?
        .pop()
        .ok_or_else(|| AuthApiError::internal("a verified WebAuthn factor has no credential"))?;
    let assertion = Assertion::read(answer).map_err(refused)?;
    let asserted = party.finish_authentication(&assertion, state, &credential).map_err(refused)?;
    credential.authenticator.sign_count = asserted.sign_count;
    credential.flags.backup_state = asserted.backup_state;
    Ok(credential)
}

async fn unenrol(
    State(service): State<AuthService>,
    Member(signed_in): Member,
    Path(factor_id): Path<String>,
) -> Result<Json<Value>, AuthApiError> {
    let session = signed_in.session()?;
    let tx = store::begin(&service.database).await?;
    let stored = find(&tx, signed_in.user.id, &factor_id).await?;
    if stored.factor.is_verified() && session.aal < Aal::Aal2 {
        let message = "AAL2 required to unenroll verified factor";
        return Err(AuthApiError::unprocessable("insufficient_aal", message));
    }
    let traits = json!({
        "factor_id": stored.factor.id, "factor_status": stored.factor.status, "session_id": session.id,
    });
    remove(&tx, &stored).await?;
    audit(&tx, &signed_in.caller, &signed_in.user, Action::FactorUnenrolled, traits).await?;
    tx.commit().await?;
    Ok(Json(json!({ "id": stored.factor.id })))
}

/// Deletes a factor; what rested on it falls: raised sessions, and recovery codes with the last factor.
pub(super) async fn remove(tx: &Tx, stored: &StoredFactor) -> Result<(), AuthApiError> {
    let user = stored.user_id;
    StoredFactor::delete(tx, stored.factor.id).await?;
    Session::downgrade(tx, user, stored.factor.id, stored.factor.factor_type.method()).await?;
    let left = StoredFactor::of_user(tx, user).await?;
    if !left.iter().any(|stored| stored.factor.is_verified()) {
        store::recovery_codes::delete(tx, user).await?;
    }
    Ok(())
}

/// A factor of an account by the id in the path, locked.
pub(super) async fn find(tx: &Tx, user: Uuid, id: &str) -> Result<StoredFactor, AuthApiError> {
    let id = Uuid::parse_str(id)
        .map_err(|_| AuthApiError::not_found("validation_failed", "factor_id must be an UUID"))?;
    let missing = || AuthApiError::not_found("mfa_factor_not_found", "Factor not found");
    StoredFactor::lock(tx, user, id).await?.ok_or_else(missing)
}

fn credentials(stored: &[StoredFactor]) -> Result<Vec<StoredCredential>, AuthApiError> {
    let read = |value: &Value| serde_json::from_value(value.clone()).map_err(AuthApiError::internal);
    stored.iter().filter_map(|stored| stored.credential.as_ref()).map(read).collect()
}

fn failed(message: &'static str) -> AuthApiError {
    AuthApiError::unprocessable("mfa_verification_failed", message)
}

/// Whether a statement failed because a row with that key exists.
pub(super) fn is_taken(error: &longhouse_database::Error) -> bool {
    error.sql_state() == Some(&SqlState::UNIQUE_VIOLATION)
}
