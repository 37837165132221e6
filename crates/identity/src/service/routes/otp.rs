//! `POST /otp` and `POST /magiclink`: sign-in by a code or link that is sent.

use axum::extract::State;
use axum::routing::post;
use axum::{Json, Router};
use serde::Deserialize;
use serde_json::{Map, Value, json};

use super::signup::{Registered, Registration, enter};
use crate::service::AuthService;
use crate::service::accounts::{Name, check_metadata};
use crate::service::body::JsonBody;
use crate::service::caller::Caller;
use crate::service::codes::CodeChallenge;
use crate::service::error::AuthApiError;
use crate::service::limits::Limit;
use crate::service::redirects::RedirectTo;
use crate::service::sending::{SmsPurpose, begin_exchange};
use crate::service::sms::Channel;
use crate::service::store::{self, Action, Tx, User, audit};

pub(super) fn router() -> Router<AuthService> {
    Router::new().route("/otp", post(otp)).route("/magiclink", post(otp))
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct Params {
    email: String,
    phone: String,
    create_user: Option<bool>,
    data: Map<String, Value>,
    channel: String,
    code_challenge: String,
    code_challenge_method: String,
}

async fn otp(
    State(service): State<AuthService>,
    caller: Caller,
    RedirectTo(redirect_to): RedirectTo,
    JsonBody(params): JsonBody<Params>,
) -> Result<Json<Value>, AuthApiError> {
    service.limits.take(Limit::Otp, &caller)?;
    check_metadata(&params.data)?;
    let both = "Only an email address or phone number should be provided";
    let name = Name::parse(&params.email, &params.phone, both)?
        .ok_or_else(|| AuthApiError::invalid("One of email or phone must be set"))?;
    if matches!(name, Name::Email(_)) && !params.channel.is_empty() {
        return Err(AuthApiError::invalid("Channel should only be specified with Phone OTP"));
    }
    let channel = Channel::parse(&params.channel)?;
    let challenge = CodeChallenge::parse(&params.code_challenge_method, &params.code_challenge)?;
    match &name {
        Name::Email(_) => service.check_enabled(&name, "logins", AuthApiError::unprocessable)?,
        Name::Phone(_) => service.check_enabled(&name, "logins", AuthApiError::bad_request)?,
    }

    let tx = store::begin(&service.database).await?;
    let found = name.find(&tx).await?;
    let confirmed = found.as_ref().is_some_and(|user| name.is_confirmed(user));
    if found.is_none() && params.create_user == Some(false) {
        return Err(AuthApiError::unprocessable("otp_disabled", "Signups not allowed for otp"));
    }
    let request = Request { service: &service, caller: &caller, name: &name, channel };
    let (challenge, redirect_to) = (challenge.as_ref(), redirect_to.as_str());
    match found.filter(|_| confirmed) {
        Some(user) => request.send(tx, user, challenge, redirect_to).await,
        None => {
            drop(tx);
            if service.options.disable_signup {
                let message = "Signups not allowed for this instance";
                return Err(AuthApiError::unprocessable("signup_disabled", message));
            }
            let registration = Registration {
                name: &name,
                password_hash: None,
                data: &params.data,
                challenge,
                channel,
                redirect_to,
            };
            // What confirms a new account also signs in.
            match enter(&service, &caller, &registration).await? {
                (tx, Registered::Account(user, None)) if name.is_confirmed(&user) => {
                    request.send(tx, *user, challenge, redirect_to).await
                }
                (tx, Registered::Account(_, sms)) => {
                    tx.commit().await?;
                    if let Some(sms) = sms {
                        service.deliver(sms).await?;
                    }
                    Ok(Json(json!({})))
                }
                // Confirmed in between, or the address is that of another account's identity.
                (tx, Registered::Taken(user)) if name.find(&tx).await?.is_some() => {
                    request.send(tx, *user, challenge, redirect_to).await
                }
                (tx, Registered::Taken(_)) => {
                    let pretended = service.pretend_to_mail(&tx, "signup", name.as_str()).await;
                    tx.commit().await?;
                    pretended?;
                    Ok(Json(json!({})))
                }
            }
        }
    }
}

struct Request<'a> {
    service: &'a AuthService,
    caller: &'a Caller,
    name: &'a Name,
    channel: Channel,
}

impl Request<'_> {
    /// Sends a confirmed account its code.
    async fn send(
        &self,
        tx: Tx,
        user: User,
        challenge: Option<&CodeChallenge>,
        redirect_to: &str,
    ) -> Result<Json<Value>, AuthApiError> {
        let Self { service, caller, name, channel } = *self;
        let user = User::lock(&tx, user.id).await?.unwrap_or(user);
        match name {
            Name::Email(_) => {
                begin_exchange(&tx, user.id, challenge, "magiclink", "magiclink").await?;
                audit(&tx, caller, &user, Action::RecoveryRequested, Value::Null).await?;
                service.send_magic_link(&tx, &user, challenge, redirect_to).await?;
                tx.commit().await?;
                Ok(Json(json!({})))
            }
            Name::Phone(phone) => {
                audit(&tx, caller, &user, Action::RecoveryRequested, json!({ "channel": "sms" })).await?;
                let sms = service.issue_sms(&tx, &user, phone, SmsPurpose::Confirmation, channel).await?;
                tx.commit().await?;
                Ok(Json(json!({ "message_id": service.deliver(sms).await? })))
            }
        }
    }
}
