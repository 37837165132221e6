//! `GET` and `PUT /user`: the signed-in account, and changes to it.

use std::time::Duration;

use axum::extract::State;
use axum::routing::get;
use axum::{Json, Router};
use chrono::Utc;
use serde::Deserialize;
use serde_json::{Map, Value, json};

use crate::service::AuthService;
use crate::service::accounts::{
    change_user, check_metadata, email_exists, merge_metadata, owner_of_email, phone_exists, put_identity,
    take_email, take_phone,
};
use crate::service::addresses::{normalise_email, normalise_phone};
use crate::service::body::JsonBody;
use crate::service::caller::SignedIn;
use crate::service::codes::{CodeChallenge, is_expired, is_same_hash, token_hash};
use crate::service::error::AuthApiError;
use crate::service::limits::Limit;
use crate::service::options::PasswordOptions;
use crate::service::providers::with_providers;
use crate::service::redirects::RedirectTo;
use crate::service::sending::{SmsPurpose, begin_exchange};
use crate::service::sms::Channel;
use crate::service::store::{
    self, Aal, Action, Identity, OneTimeToken, Session, TokenKind, Tx, User, UserChange, audit,
};
use crate::service::tokens::gone;

/// How long after a sign-in a password may be changed without a code.
const RECENT: Duration = Duration::from_secs(24 * 60 * 60);

pub(super) fn router() -> Router<AuthService> {
    Router::new().route("/user", get(show).put(update))
}

async fn show(signed_in: SignedIn) -> Json<User> {
    Json(signed_in.user)
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct Params {
    email: String,
    phone: String,
    password: Option<String>,
    current_password: String,
    nonce: String,
    data: Option<Map<String, Value>>,
    app_metadata: Option<Map<String, Value>>,
    channel: String,
    code_challenge: String,
    code_challenge_method: String,
}

async fn update(
    State(service): State<AuthService>,
    RedirectTo(redirect_to): RedirectTo,
    signed_in: SignedIn,
    JsonBody(params): JsonBody<Params>,
) -> Result<Json<User>, AuthApiError> {
    let SignedIn { caller, user, session } = &signed_in;
    service.limits.take(Limit::UserUpdate, caller)?;
    if let Some(data) = &params.data {
        check_metadata(data)?;
    }
    let given = |text: &str| !text.is_empty();
    let email = given(&params.email).then(|| normalise_email(&params.email)).transpose()?;
    let phone = given(&params.phone).then(|| normalise_phone(&params.phone)).transpose()?;
    let email = email.filter(|email| *email != user.email);
    let phone = phone.filter(|phone| *phone != user.phone);
    let channel = Channel::parse(&params.channel)?;
    let challenge = CodeChallenge::parse(&params.code_challenge_method, &params.code_challenge)?;
    let password = params.password.as_deref().filter(|password| !password.is_empty());
    if let Some(password) = &params.password {
        service.passwords.check(password)?;
    }
    if params.app_metadata.is_some() {
        let message = "Updating app_metadata requires admin privileges";
        return Err(AuthApiError::forbidden("not_admin", message));
    }
    let sensitive = password.is_some() || email.is_some() || phone.is_some();
    let aal = session.as_ref().map_or(Aal::Aal1, |session| session.aal);
    if sensitive && user.has_mfa() && aal < Aal::Aal2 {
        let message = "AAL2 session is required to update email or password when MFA is enabled.";
        return Err(AuthApiError::unauthorized("insufficient_aal", message));
    }
    if user.is_anonymous && password.is_some() && email.is_none() && phone.is_none() {
        let message = "Updating password of an anonymous user without an email or phone is not allowed";
        return Err(AuthApiError::unprocessable("validation_failed", message));
    }
    if user.is_sso_user && (sensitive || given(&params.nonce)) {
        let message = "Updating email, phone, password of a SSO account only possible via SSO";
        return Err(AuthApiError::unprocessable("user_sso_managed", message));
    }
    let password_hash = match password {
        None => None,
        Some(password) => {
            check_current(&service, user, session.as_ref(), password, &params.current_password).await?;
            Some(service.passwords.hash(password).await?)
        }
    };

    let tx = store::begin(&service.database).await?;
    let mut user = User::lock(&tx, user.id).await?.ok_or_else(gone)?;
    if let Some(email) = &email
        && owner_of_email(&tx, email, Some(user.id)).await?.is_some()
    {
        return Err(email_exists());
    }
    if let Some(phone) = &phone
        && User::by_phone(&tx, phone).await?.is_some_and(|other| other.id != user.id)
    {
        return Err(phone_exists());
    }
    if let Some(hash) = password_hash {
        if needs_nonce(&service.options.password, session.as_ref(), Utc::now()) {
            check_nonce(&service, &tx, &user, &params.nonce).await?;
        }
        user = set_password(&tx, user, hash, session.as_ref()).await?;
        audit(&tx, caller, &user, Action::UpdatedPassword, Value::Null).await?;
    }
    if let Some(data) = &params.data {
        let mut metadata = user.user_metadata.clone();
        merge_metadata(&mut metadata, data);
        check_metadata(&metadata)?;
        let change = UserChange { user_metadata: Some(metadata), ..UserChange::default() };
        user = change_user(&tx, user.id, &change).await?;
    }
    if let Some(email) = &email {
        user = if user.is_anonymous && service.options.email.autoconfirm {
            // As good as signing up with it.
            take_email(&tx, &user, email).await?
        } else {
            let challenge = challenge.as_ref();
            begin_exchange(&tx, user.id, challenge, "email_change", "email_change").await?;
            service.send_email_change(&tx, &user, email, challenge, &redirect_to).await?
        };
    }
    let mut sms = None;
    if let Some(phone) = &phone {
        if service.options.phone.autoconfirm {
            user = take_phone(&tx, &user, phone).await?;
        } else {
            sms = Some(service.issue_sms(&tx, &user, phone, SmsPurpose::PhoneChange, channel).await?);
        }
    }
    audit(&tx, caller, &user, Action::UserModified, Value::Null).await?;
    let user = User::find(&tx, user.id).await?.ok_or_else(gone)?;
    tx.commit().await?;
    if let Some(sms) = sms {
        service.deliver(sms).await?;
    }
    Ok(Json(user))
}

/// Whether a change of password needs a code that was sent: the sign-in was too long ago.
fn needs_nonce(options: &PasswordOptions, session: Option<&Session>, now: chrono::DateTime<Utc>) -> bool {
    options.require_reauthentication && session.is_none_or(|session| now > session.created_at + RECENT)
}

/// Refuses the password that is set already, and a change without the current one where the options want it.
async fn check_current(
    service: &AuthService,
    user: &User,
    session: Option<&Session>,
    password: &str,
    current: &str,
) -> Result<(), AuthApiError> {
    if !user.has_password() {
        return Ok(());
    }
    let stored = user.encrypted_password.as_deref();
    // Whoever has just come in by a link may have forgotten it.
    let recovered = session.is_some_and(|session| {
        session.amr.iter().any(|amr| matches!(amr.method.as_str(), "otp" | "magiclink" | "recovery"))
    });
    if service.options.password.require_current_password && !recovered {
        let message = "Current password required when setting new password.";
        if current.is_empty() {
            return Err(AuthApiError::bad_request("current_password_required", message));
        }
        let identity = user.id.to_string();
        service.limits.attempt(&identity)?;
        if !service.passwords.verify(stored, current).await?.matches {
            return Err(AuthApiError::bad_request("current_password_mismatch", message));
        }
        service.limits.succeeded(&identity);
    }
    if service.passwords.verify(stored, password).await?.matches {
        let message = "New password should be different from the old password.";
        return Err(AuthApiError::unprocessable("same_password", message));
    }
    Ok(())
}

/// Uses up the code that was sent to prove who sits there.
async fn check_nonce(service: &AuthService, tx: &Tx, user: &User, nonce: &str) -> Result<(), AuthApiError> {
    if nonce.is_empty() {
        let message = "Password update requires reauthentication";
        return Err(AuthApiError::bad_request("reauthentication_needed", message));
    }
    let invalid = |message| AuthApiError::unprocessable("reauthentication_not_valid", message);
    let (address, life) = if user.email.is_empty() {
        (&user.phone, service.options.phone.otp_expiry)
    } else {
        (&user.email, service.options.email.otp_expiry)
    };
    if address.is_empty() {
        return Err(invalid("Reauthentication requires an email or a phone number"));
    }
    let identity = user.id.to_string();
    service.limits.attempt(&identity)?;
    let stored = OneTimeToken::of(tx, user.id, TokenKind::Reauthentication).await?;
    let valid = stored.filter(|stored| {
        is_same_hash(&stored.hash, &token_hash(address, nonce))
            && !is_expired(stored.created_at, life, Utc::now())
    });
    match valid {
        Some(stored) if stored.take(tx).await? => {
            service.limits.succeeded(&identity);
            Ok(())
        }
        _ => Err(invalid("Nonce has expired or is invalid")),
    }
}

/// Sets a password. Whatever was sent before is void, and the account's other sessions end: somebody else may have them.
async fn set_password(
    tx: &Tx,
    user: User,
    hash: String,
    session: Option<&Session>,
) -> Result<User, AuthApiError> {
    let first = !user.has_password();
    OneTimeToken::clear_all(tx, user.id).await?;
    Session::delete_of_user(tx, user.id, session.map(|session| session.id)).await?;
    let change = UserChange {
        encrypted_password: Some(hash),
        confirmation_sent_at: Some(None),
        recovery_sent_at: Some(None),
        email_change_sent_at: Some(None),
        phone_change_sent_at: Some(None),
        reauthentication_sent_at: Some(None),
        ..UserChange::default()
    };
    let user = change_user(tx, user.id, &change).await?;
    let missing = first && !user.email.is_empty();
    if missing && Identity::find(tx, "email", &user.id.to_string()).await?.is_none() {
        // From now on the account also signs in by its address.
        let data = Map::from_iter([
            ("email".to_owned(), json!(user.email)),
            ("email_verified".to_owned(), json!(user.email_confirmed_at.is_some())),
        ]);
        put_identity(tx, &user, "email", data).await?;
        return with_providers(tx, &user).await;
    }
    Ok(user)
}
