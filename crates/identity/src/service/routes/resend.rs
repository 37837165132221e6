//! `POST /resend`: sends again what confirms a sign-up or a change of address or number.

use axum::extract::State;
use axum::routing::post;
use axum::{Json, Router};
use http::StatusCode;
use serde::Deserialize;
use serde_json::{Value, json};

use crate::service::AuthService;
use crate::service::accounts::Name;
use crate::service::body::JsonBody;
use crate::service::caller::Caller;
use crate::service::codes::CodeChallenge;
use crate::service::error::AuthApiError;
use crate::service::limits::Limit;
use crate::service::redirects::RedirectTo;
use crate::service::sending::{SmsPurpose, begin_exchange};
use crate::service::sms::Channel;
use crate::service::store::{self, Action, User, audit};

pub(super) fn router() -> Router<AuthService> {
    Router::new().route("/resend", post(resend))
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct Params {
    #[serde(rename = "type")]
    kind: String,
    email: String,
    phone: String,
    code_challenge: String,
    code_challenge_method: String,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Kind {
    Signup,
    EmailChange,
    Sms,
    PhoneChange,
}

impl Kind {
    fn parse(name: &str) -> Option<Self> {
        match name {
            "signup" => Some(Self::Signup),
            "email_change" => Some(Self::EmailChange),
            "sms" => Some(Self::Sms),
            "phone_change" => Some(Self::PhoneChange),
            _ => None,
        }
    }

    /// Whether the account waits for it.
    fn is_wanted(self, user: &User) -> bool {
        match self {
            Self::Signup => user.email_confirmed_at.is_none() && !user.email.is_empty(),
            Self::EmailChange => !user.email_change.is_empty(),
            Self::Sms => user.phone_confirmed_at.is_none() && !user.phone.is_empty(),
            Self::PhoneChange => !user.phone_change.is_empty(),
        }
    }
}

async fn resend(
    State(service): State<AuthService>,
    caller: Caller,
    RedirectTo(redirect_to): RedirectTo,
    JsonBody(params): JsonBody<Params>,
) -> Result<Json<Value>, AuthApiError> {
    service.limits.take(Limit::Resend, &caller)?;
    let kind = Kind::parse(&params.kind).ok_or_else(|| {
        AuthApiError::invalid("Missing one of these types: signup, email_change, sms, phone_change")
    })?;
    let challenge = match kind {
        Kind::Signup | Kind::EmailChange => {
            CodeChallenge::parse(&params.code_challenge_method, &params.code_challenge)?
        }
        Kind::Sms | Kind::PhoneChange => None,
    };
    if kind == Kind::Signup && params.email.is_empty() {
        return Err(AuthApiError::invalid("Type provided requires an email address"));
    }
    if kind == Kind::Sms && params.phone.is_empty() {
        return Err(AuthApiError::invalid("Type provided requires a phone number"));
    }
    let both = "Only an email address or phone number should be provided.";
    let name = Name::parse(&params.email, &params.phone, both)?
        .ok_or_else(|| AuthApiError::invalid("Missing email address or phone number"))?;
    service.check_enabled(&name, "logins", AuthApiError::bad_request)?;

    let tx = store::begin(&service.database).await?;
    let user = match name.find(&tx).await? {
        Some(user) => User::lock(&tx, user.id).await?,
        None => None,
    };
    let challenge = challenge.as_ref();
    let mut sms = None;
    match user.filter(|user| kind.is_wanted(user)) {
        None => match &name {
            Name::Email(email) => service.pretend_to_mail(&tx, &params.kind, email).await?,
            // Whatever the number, the answer is the same: see below.
            Name::Phone(_) if kind == Kind::PhoneChange => (),
            Name::Phone(phone) => service.pretend_to_text(&params.kind, phone)?,
        },
        Some(user) => match kind {
            Kind::Signup => {
                audit(&tx, &caller, &user, Action::ConfirmationRequested, Value::Null).await?;
                begin_exchange(&tx, user.id, challenge, "email/signup", "email/signup").await?;
                service.send_confirmation(&tx, &user, challenge, &redirect_to).await?;
            }
            Kind::EmailChange => {
                begin_exchange(&tx, user.id, challenge, "email_change", "email_change").await?;
                let email = user.email_change.clone();
                service.send_email_change(&tx, &user, &email, challenge, &redirect_to).await?;
            }
            Kind::Sms => {
                audit(&tx, &caller, &user, Action::RecoveryRequested, Value::Null).await?;
                let purpose = SmsPurpose::Confirmation;
                sms = Some(service.issue_sms(&tx, &user, &user.phone, purpose, Channel::Sms).await?);
            }
            Kind::PhoneChange => {
                let purpose = SmsPurpose::PhoneChange;
                sms = match service.issue_sms(&tx, &user, &user.phone_change, purpose, Channel::Sms).await {
                    Ok(sms) => Some(sms),
                    // The last message is a moment old; saying so would tell who changes their number.
                    Err(error) if error.status() == StatusCode::TOO_MANY_REQUESTS => None,
                    Err(error) => return Err(error),
                };
            }
        },
    }
    tx.commit().await?;
    let message = match sms {
        Some(sms) => Some(service.deliver(sms).await?),
        None => None,
    };
    Ok(Json(match message {
        Some(id) if kind == Kind::Sms => json!({ "message_id": id }),
        _ => json!({}),
    }))
}
