//! `POST /signup`: an account by e-mail address, number, or without a name.

use axum::extract::State;
use axum::response::{IntoResponse, Response};
use axum::routing::post;
use axum::{Json, Router};
use chrono::Utc;
use serde::Deserialize;
use serde_json::{Map, Value, json};
use uuid::Uuid;

use crate::service::AuthService;
use crate::service::accounts::{
    Name, check_metadata, confirm_email, confirm_phone, insert_identity, not_stored, owner_of_email, register,
};
use crate::service::body::JsonBody;
use crate::service::caller::Caller;
use crate::service::codes::CodeChallenge;
use crate::service::error::AuthApiError;
use crate::service::limits::Limit;
use crate::service::redirects::RedirectTo;
use crate::service::sending::{SmsPurpose, SmsToSend, begin_exchange};
use crate::service::sms::Channel;
use crate::service::store::{self, Action, Identity, NewUser, Tx, User, UserChange, audit};
use crate::service::tokens::gone;

pub(super) fn router() -> Router<AuthService> {
    Router::new().route("/signup", post(signup))
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct Params {
    email: String,
    phone: String,
    password: String,
    data: Map<String, Value>,
    channel: String,
    code_challenge: String,
    code_challenge_method: String,
}

/// What is known about somebody who wants an account.
#[derive(Debug)]
pub(super) struct Registration<'a> {
    pub(super) name: &'a Name,
    /// Unset: one that signs in by codes only.
    pub(super) password_hash: Option<String>,
    pub(super) data: &'a Map<String, Value>,
    pub(super) challenge: Option<&'a CodeChallenge>,
    pub(super) channel: Channel,
    pub(super) redirect_to: &'a str,
}

/// What became of it.
pub(super) enum Registered {
    /// Stored; if unconfirmed, what confirms it is on its way, or has to be delivered.
    Account(Box<User>, Option<SmsToSend>),
    /// The name is a confirmed account's: nothing was changed.
    Taken(Box<User>),
}

async fn signup(
    State(service): State<AuthService>,
    caller: Caller,
    RedirectTo(redirect_to): RedirectTo,
    JsonBody(params): JsonBody<Params>,
) -> Result<Response, AuthApiError> {
    check_metadata(&params.data)?;
    if params.email.is_empty() && params.phone.is_empty() {
        return anonymous(&service, &caller, params.data).await;
    }
    service.limits.take(Limit::Signup, &caller)?;
    if service.options.disable_signup {
        return Err(disabled());
    }
    if params.password.is_empty() {
        return Err(AuthApiError::invalid("Signup requires a valid password"));
    }
    service.passwords.check(&params.password)?;
    let both = "Only an email address or phone number should be provided on signup.";
    let name = Name::parse(&params.email, &params.phone, both)?.ok_or_else(|| AuthApiError::invalid(both))?;
    let channel = Channel::parse(&params.channel)?;
    let challenge = CodeChallenge::parse(&params.code_challenge_method, &params.code_challenge)?;
    if matches!(name, Name::Phone(_)) && challenge.is_some() {
        return Err(AuthApiError::invalid("PKCE not supported for phone signups"));
    }
    service.check_enabled(&name, "signups", AuthApiError::bad_request)?;
    // Whether or not it will be used: the answer takes as long for every name.
    let password_hash = Some(service.passwords.hash(&params.password).await?);
    let registration = Registration {
        name: &name,
        password_hash,
        data: &params.data,
        challenge: challenge.as_ref(),
        channel,
        redirect_to: &redirect_to,
    };
    let (tx, registered) = enter(&service, &caller, &registration).await?;
    match registered {
        Registered::Taken(user) => {
            audit(&tx, &caller, &user, Action::RepeatedSignUp, json!({ "provider": name.provider() }))
                .await?;
            // Also refused if too soon, like the repeated sign-up of an unconfirmed account.
            let pretended = match &name {
                Name::Email(email) => service.pretend_to_mail(&tx, "signup", email).await,
                Name::Phone(phone) => service.pretend_to_text("signup", phone),
            };
            tx.commit().await?;
            if service.autoconfirms(&name) {
                let message = "User already registered";
                return Err(AuthApiError::unprocessable("user_already_exists", message));
            }
            pretended?;
            Ok(Json(service.as_new(&name, service.stand_in(&name), &params.data)).into_response())
        }
        Registered::Account(user, _) if name.is_confirmed(&user) => {
            audit(&tx, &caller, &user, Action::Login, json!({ "provider": name.provider() })).await?;
            let session = service.sign_in(&tx, &caller, &user, "password").await?;
            tx.commit().await?;
            Ok(Json(session).into_response())
        }
        Registered::Account(user, sms) => {
            tx.commit().await?;
            if let Some(sms) = sms {
                service.deliver(sms).await?;
            }
            // Of an account that was there before, no more is shown than of a new one.
            Ok(Json(service.as_new(&name, user.id, &params.data)).into_response())
        }
    }
}

fn disabled() -> AuthApiError {
    AuthApiError::unprocessable("signup_disabled", "Signups not allowed for this instance")
}

async fn anonymous(
    service: &AuthService,
    caller: &Caller,
    data: Map<String, Value>,
) -> Result<Response, AuthApiError> {
    if !service.options.anonymous {
        let message = "Anonymous sign-ins are disabled";
        return Err(AuthApiError::unprocessable("anonymous_provider_disabled", message));
    }
    service.limits.take(Limit::Anonymous, caller)?;
    if service.options.disable_signup {
        return Err(disabled());
    }
    let tx = store::begin(&service.database).await?;
    let new = NewUser {
        role: "authenticated".into(),
        user_metadata: data,
        is_anonymous: true,
        ..NewUser::default()
    };
    let user = User::insert(&tx, &new).await.map_err(not_stored)?;
    let session = service.sign_in(&tx, caller, &user, "anonymous").await?;
    tx.commit().await?;
    Ok(Json(session).into_response())
}

/// Finds or stores the account and has the code sent that confirms it, in a transaction that is handed back open.
pub(super) async fn enter(
    service: &AuthService,
    caller: &Caller,
    registration: &Registration<'_>,
) -> Result<(Tx, Registered), AuthApiError> {
    // Two sign-ups at once: one inserts, the other finds the account on its second try.
    for _ in 0..2 {
        let tx = store::begin(&service.database).await?;
        if let Some(registered) = try_enter(service, caller, registration, &tx).await? {
            return Ok((tx, registered));
        }
    }
    Err(AuthApiError::new(
        http::StatusCode::CONFLICT,
        "conflict",
        "Somebody signs up by that name right now: try again",
    ))
}

async fn try_enter(
    service: &AuthService,
    caller: &Caller,
    registration: &Registration<'_>,
    tx: &Tx,
) -> Result<Option<Registered>, AuthApiError> {
    let name = registration.name;
    let autoconfirm = service.autoconfirms(name);
    let existing = match name {
        Name::Email(email) => owner_of_email(tx, email, None).await?,
        Name::Phone(_) => name.find(tx).await?,
    };
    let user = match existing {
        Some(user) if name.is_confirmed(&user) => return Ok(Some(Registered::Taken(Box::new(user)))),
        Some(user) => {
            let user = User::lock(tx, user.id).await?.ok_or_else(gone)?;
            adopt(tx, registration, user, autoconfirm).await?
        }
        None => {
            let hash = registration.password_hash.clone();
            let Some(user) = register(tx, name, hash, registration.data).await? else { return Ok(None) };
            user
        }
    };
    let traits = json!({ "provider": name.provider() });
    if autoconfirm {
        audit(tx, caller, &user, Action::UserSignedUp, traits).await?;
        let user = match name {
            Name::Email(_) => confirm_email(tx, &user).await?,
            Name::Phone(_) => confirm_phone(tx, &user).await?,
        };
        return Ok(Some(Registered::Account(Box::new(user), None)));
    }
    audit(tx, caller, &user, Action::ConfirmationRequested, traits).await?;
    let (user, sms) = match name {
        Name::Email(_) => {
            begin_exchange(tx, user.id, registration.challenge, "email", "email/signup").await?;
            let challenge = registration.challenge;
            (service.send_confirmation(tx, &user, challenge, registration.redirect_to).await?, None)
        }
        Name::Phone(phone) => {
            let sms =
                service.issue_sms(tx, &user, phone, SmsPurpose::Confirmation, registration.channel).await?;
            (user, Some(sms))
        }
    };
    Ok(Some(Registered::Account(Box::new(user), sms)))
}

/// An unconfirmed account whose name is given again. Nobody has proved anything, so its password and metadata stay,
/// except where names count without proof.
async fn adopt(
    tx: &Tx,
    registration: &Registration<'_>,
    user: User,
    autoconfirm: bool,
) -> Result<User, AuthApiError> {
    let name = registration.name;
    let mut change = UserChange::default();
    if Identity::find(tx, name.provider(), &user.id.to_string()).await?.is_none() {
        let data = name.identity_data(user.id, registration.data);
        // Whatever else was prepared to get in, nobody has proved either.
        for identity in &user.identities {
            Identity::delete(tx, identity.identity_id).await?;
        }
        insert_identity(tx, user.id, name.provider(), data.clone()).await?;
        let mut metadata = user.app_metadata.clone();
        metadata.insert("provider".into(), json!(name.provider()));
        metadata.insert("providers".into(), json!([name.provider()]));
        change.app_metadata = Some(metadata);
        change.user_metadata = Some(data);
    }
    if autoconfirm && registration.password_hash.is_some() {
        change.encrypted_password = registration.password_hash.clone();
    }
    User::change(tx, user.id, &change).await?.ok_or_else(gone)
}

impl AuthService {
    /// An account as it looks right after sign-up, before it is confirmed.
    fn as_new(&self, name: &Name, id: Uuid, data: &Map<String, Value>) -> Value {
        let now = Utc::now();
        let identity = name.identity_data(id, data);
        let (email, phone) = match name {
            Name::Email(email) => (email.as_str(), ""),
            Name::Phone(phone) => ("", phone.as_str()),
        };
        let mut listed = json!({
            "identity_id": self.derived(&["identity", &id.to_string(), name.provider()]),
            "id": id,
            "user_id": id,
            "identity_data": identity,
            "provider": name.provider(),
            "last_sign_in_at": now,
            "created_at": now,
            "updated_at": now,
        });
        if !email.is_empty() {
            listed["email"] = json!(email);
        }
        json!({
            "id": id,
            "aud": "authenticated",
            "role": "authenticated",
            "email": email,
            "phone": phone,
            "confirmation_sent_at": now,
            "app_metadata": { "provider": name.provider(), "providers": [name.provider()] },
            "user_metadata": identity,
            "identities": [listed],
            "created_at": now,
            "updated_at": now,
            "is_anonymous": false,
        })
    }

    /// The id that stands for a name that is taken: the same each time and on every server, as an unconfirmed
    /// account's would be.
    fn stand_in(&self, name: &Name) -> Uuid {
        self.derived(&["account", name.provider(), name.as_str()])
    }

    /// A random-looking id that nobody else can compute.
    fn derived(&self, parts: &[&str]) -> Uuid {
        let mut message = b"longhouse stand-in id".to_vec();
        for part in parts {
            message.extend((part.len() as u64).to_be_bytes());
            message.extend(part.as_bytes());
        }
        let code = self.signer.authenticate(&message);
        let bytes = *code.first_chunk().expect("a code has 32 bytes");
        uuid::Builder::from_random_bytes(bytes).into_uuid()
    }
}
