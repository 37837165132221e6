//! `POST /admin/generate_link`: the link that a mail would hold, for servers that write their own mail.

use axum::extract::State;
use axum::routing::post;
use axum::{Json, Router};
use chrono::Utc;
use serde::Deserialize;
use serde_json::{Map, Value, json};

use super::admin::account::NewAccount;
use super::admin::unless_refused;
use crate::service::AuthService;
use crate::service::accounts::{change_user, check_metadata, email_exists, merge_metadata, owner_of_email};
use crate::service::addresses::normalise_email;
use crate::service::body::JsonBody;
use crate::service::caller::{Admin, Caller};
use crate::service::codes::{new_code, token_hash};
use crate::service::error::AuthApiError;
use crate::service::mail::MailKind;
use crate::service::redirects::RedirectTo;
use crate::service::store::{
    self, Action, OneTimeToken, TokenKind, Tx, User, UserChange, audit, audit_service,
};

pub(super) fn router() -> Router<AuthService> {
    Router::new().route("/admin/generate_link", post(generate))
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct Params {
    r#type: String,
    email: String,
    new_email: String,
    password: String,
    data: Map<String, Value>,
    redirect_to: String,
}

/// What a link does.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum LinkKind {
    Signup,
    Invite,
    MagicLink,
    Recovery,
    EmailChangeCurrent,
    EmailChangeNew,
}

impl LinkKind {
    fn parse(name: &str) -> Result<Self, AuthApiError> {
        Ok(match name {
            "signup" => Self::Signup,
            "invite" => Self::Invite,
            "magiclink" => Self::MagicLink,
            "recovery" => Self::Recovery,
            "email_change_current" => Self::EmailChangeCurrent,
            "email_change_new" => Self::EmailChangeNew,
            _ => {
                return Err(AuthApiError::invalid(format!(
                    "Invalid email action link type requested: {name}"
                )));
            }
        })
    }

    fn name(self) -> &'static str {
        match self {
            Self::Signup => "signup",
            Self::Invite => "invite",
            Self::MagicLink => "magiclink",
            Self::Recovery => "recovery",
            Self::EmailChangeCurrent => "email_change_current",
            Self::EmailChangeNew => "email_change_new",
        }
    }

    fn mail(self) -> MailKind {
        match self {
            Self::Signup => MailKind::Confirmation,
            Self::Invite => MailKind::Invite,
            Self::MagicLink => MailKind::MagicLink,
            Self::Recovery => MailKind::Recovery,
            Self::EmailChangeCurrent | Self::EmailChangeNew => MailKind::EmailChange,
        }
    }

    fn token(self) -> TokenKind {
        match self {
            Self::Signup | Self::Invite => TokenKind::Confirmation,
            Self::MagicLink | Self::Recovery => TokenKind::Recovery,
            Self::EmailChangeCurrent => TokenKind::EmailChangeCurrent,
            Self::EmailChangeNew => TokenKind::EmailChangeNew,
        }
    }
}

async fn generate(
    State(service): State<AuthService>,
    admin: Admin,
    RedirectTo(mut redirect_to): RedirectTo,
    JsonBody(mut params): JsonBody<Params>,
) -> Result<Json<Value>, AuthApiError> {
    let mut kind = LinkKind::parse(&params.r#type)?;
    params.email = normalise_email(&params.email)?;
    check_metadata(&params.data)?;
    if service.redirects.allows(&params.redirect_to) {
        redirect_to.clone_from(&params.redirect_to);
    }
    // Before the transaction: hashing takes time.
    let password_hash = match kind {
        LinkKind::Signup if !params.password.is_empty() => {
            service.passwords.check(&params.password)?;
            Some(service.passwords.hash(&params.password).await?)
        }
        _ => None,
    };
    let tx = store::begin(&service.database).await?;
    let known = User::by_email(&tx, &params.email).await?;
    // Who has no account yet gets one by a magic link, too.
    if known.is_none() && kind == LinkKind::MagicLink {
        kind = LinkKind::Signup;
    } else if known.is_none() && kind == LinkKind::Signup && password_hash.is_none() {
        return Err(AuthApiError::invalid("Signup requires a valid password"));
    }
    let user = match kind {
        LinkKind::Signup | LinkKind::Invite => {
            newcomer(&tx, &admin.caller, known, kind, &params, password_hash).await?
        }
        _ => known
            .ok_or_else(|| AuthApiError::not_found("user_not_found", "User with this email not found"))?,
    };
    let user = prepare(&service, &tx, &admin.caller, user, kind, &params).await?;
    let to = if kind == LinkKind::EmailChangeNew { &user.email_change } else { &user.email };
    let code = new_code(service.options.email.otp_length);
    let hash = token_hash(to, &code);
    OneTimeToken::put(&tx, user.id, kind.token(), &hash, to).await?;
    tx.commit().await.map_err(unless_refused)?;
    let link = service.mailer.link(kind.mail(), &hash, &redirect_to);
    let mut answer = serde_json::to_value(&user).map_err(AuthApiError::internal)?;
    answer["action_link"] = json!(link);
    answer["email_otp"] = json!(code);
    answer["hashed_token"] = json!(hash);
    answer["verification_type"] = json!(kind.name());
    answer["redirect_to"] = json!(redirect_to);
    Ok(Json(answer))
}

/// The account that a sign-up or an invitation is about, made if need be.
async fn newcomer(
    tx: &Tx,
    caller: &Caller,
    known: Option<User>,
    kind: LinkKind,
    params: &Params,
    password_hash: Option<String>,
) -> Result<User, AuthApiError> {
    let user = match known {
        Some(user) if user.email_confirmed_at.is_some() => return Err(email_exists()),
        Some(user) if kind == LinkKind::Signup => {
            let mut user_metadata = user.user_metadata.clone();
            merge_metadata(&mut user_metadata, &params.data);
            let change = UserChange { user_metadata: Some(user_metadata), ..UserChange::default() };
            change_user(tx, user.id, &change).await?
        }
        Some(user) => user,
        None => {
            let account = NewAccount {
                email: params.email.clone(),
                password_hash,
                user_metadata: params.data.clone(),
                ..NewAccount::default()
            };
            account.store(tx).await?
        }
    };
    if kind == LinkKind::Invite {
        let traits = json!({ "user_id": user.id, "user_email": user.email });
        audit_service(tx, caller, Action::UserInvited, traits).await?;
    }
    Ok(user)
}

/// Notes what is under way, as if the mail had been sent.
async fn prepare(
    service: &AuthService,
    tx: &Tx,
    caller: &Caller,
    user: User,
    kind: LinkKind,
    params: &Params,
) -> Result<User, AuthApiError> {
    let now = Some(Some(Utc::now()));
    let change = match kind {
        LinkKind::Signup => UserChange { confirmation_sent_at: now, ..UserChange::default() },
        LinkKind::Invite => {
            UserChange { confirmation_sent_at: now, invited_at: now, ..UserChange::default() }
        }
        LinkKind::MagicLink | LinkKind::Recovery => {
            audit(tx, caller, &user, Action::RecoveryRequested, Value::Null).await?;
            UserChange { recovery_sent_at: now, ..UserChange::default() }
        }
        LinkKind::EmailChangeCurrent if !service.options.email.secure_change => {
            return Err(AuthApiError::invalid(
                "Enable secure email change to generate link for current email",
            ));
        }
        LinkKind::EmailChangeCurrent | LinkKind::EmailChangeNew => {
            let email = normalise_email(&params.new_email)?;
            if owner_of_email(tx, &email, Some(user.id)).await?.is_some() {
                return Err(email_exists());
            }
            UserChange {
                email_change: Some(email),
                email_change_sent_at: now,
                email_change_confirm_status: Some(0),
                ..UserChange::default()
            }
        }
    };
    change_user(tx, user.id, &change).await
}
