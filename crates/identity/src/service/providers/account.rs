//! The account of a person who comes from a provider: found, linked, or made.

use chrono::Utc;
use serde_json::{Map, Value, json};
use uuid::Uuid;

use super::Profile;
use super::linking::{Decision, Known, decide, trusted};
use crate::service::AuthService;
use crate::service::accounts::{self, change_user, confirm_email};
use crate::service::caller::Caller;
use crate::service::error::AuthApiError;
use crate::service::store::{
    Action, Identity, NewIdentity, NewUser, OneTimeToken, Session, TokenKind, Tx, User, UserChange, audit,
};
use crate::service::tokens::gone;

/// What became of somebody who comes from a provider.
pub(crate) enum Arrival {
    /// May be signed in.
    Account(Box<User>),
    /// The account is stored, but may not be signed in yet: commit, then refuse with this.
    Refused(AuthApiError),
}

/// Finds, links or makes the account of a person from `provider`.
///
/// # Errors
/// `signup_disabled`, `user_banned`, and 500 where the address belongs to several accounts.
pub(crate) async fn arrive(
    service: &AuthService,
    tx: &Tx,
    caller: &Caller,
    provider: &str,
    profile: &Profile,
    email_optional: bool,
) -> Result<Arrival, AuthApiError> {
    one_at_a_time(tx, provider, profile).await?;
    let autoconfirm = service.options.email.autoconfirm;
    let trusted = trusted(&profile.emails, autoconfirm);
    let known = known(tx, provider, profile, &trusted).await?;
    let decision = decide(&known, !trusted.is_empty());
    let (user, identity) = match decision {
        Decision::Exists(user) => {
            let identity = Identity::find(tx, provider, &profile.subject).await?.ok_or_else(gone)?;
            Identity::update_data(tx, identity.identity_id, &profile.data).await?;
            Identity::signed_in(tx, identity.identity_id).await?;
            (User::lock(tx, user).await?.ok_or_else(gone)?, identity.identity_id)
        }
        Decision::Link(user) => {
            let user = User::lock(tx, user).await?.ok_or_else(gone)?;
            let identity = insert_identity(tx, &user, provider, profile).await?;
            audit(tx, caller, &user, Action::IdentityLinked, linked(&identity)).await?;
            (user, identity.identity_id)
        }
        Decision::Create { with_email } => {
            if service.options.disable_signup {
                let message = "Signups not allowed for this instance";
                return Err(AuthApiError::unprocessable("signup_disabled", message));
            }
            let email = profile.data.get("email").and_then(Value::as_str).filter(|_| with_email);
            let new = NewUser {
                role: "authenticated".into(),
                email: email.unwrap_or_default().to_owned(),
                app_metadata: Map::from_iter([
                    ("provider".to_owned(), json!(provider)),
                    ("providers".to_owned(), json!([provider])),
                ]),
                user_metadata: profile.data.clone(),
                ..NewUser::default()
            };
            let user = User::insert(tx, &new).await?;
            let identity = insert_identity(tx, &user, provider, profile).await?;
            (user, identity.identity_id)
        }
        Decision::Ambiguous => {
            let message =
                "Multiple accounts with the same email address in the same linking domain detected: default";
            return Err(AuthApiError::new(
                http::StatusCode::INTERNAL_SERVER_ERROR,
                "unexpected_failure",
                message,
            ));
        }
    };
    if user.is_banned(Utc::now()) {
        return Err(AuthApiError::forbidden("user_banned", "User is banned"));
    }
    let user = merge_metadata(tx, &user, &profile.data).await?;
    let address = if decision == (Decision::Create { with_email: false }) { "" } else { user.email.as_str() };
    if user.email_confirmed_at.is_some() || (email_optional && address.is_empty()) {
        audit(tx, caller, &user, Action::Login, json!({ "provider": provider })).await?;
        return Ok(Arrival::Account(Box::new(with_providers(tx, &user).await?)));
    }
    // Whoever has confirmed a number and comes by an identity of their own keeps it all.
    let own = matches!(decision, Decision::Exists(_)) && user.phone_confirmed_at.is_some();
    let user = if own { user } else { drop_unconfirmed(tx, &user, identity, &profile.data).await? };
    let user = give_address(tx, user, profile).await?;
    // The provider vouches for its address, which need not be the account's.
    let proven = trusted.contains(&user.email.as_str());
    if proven || (user.email.is_empty() && profile.email_verified()) {
        let user = if proven { confirm_email(tx, &user).await? } else { with_providers(tx, &user).await? };
        audit(tx, caller, &user, Action::UserSignedUp, json!({ "provider": provider })).await?;
        return Ok(Arrival::Account(Box::new(user)));
    }
    let message = if user.email.is_empty() {
        format!("Unverified email with {provider}. Verify the email with {provider} in order to sign in")
    } else {
        service.send_confirmation(tx, &user, None, service.options.site_url.as_str()).await?;
        format!(
            "Unverified email with {provider}. A confirmation email has been sent to your {provider} email"
        )
    };
    Ok(Arrival::Refused(AuthApiError::unprocessable("provider_email_needs_verification", message)))
}

/// Gives an identity to an account whose holder asked for it.
///
/// # Errors
/// `identity_already_exists`, `email_exists`, and what [`arrive`] gives.
pub(crate) async fn link(
    service: &AuthService,
    tx: &Tx,
    caller: &Caller,
    target: Uuid,
    provider: &str,
    profile: &Profile,
) -> Result<Arrival, AuthApiError> {
    let user = User::lock(tx, target)
        .await?
        .ok_or_else(|| AuthApiError::unprocessable("user_not_found", "Linking target user not found"))?;
    if let Some(identity) = Identity::find(tx, provider, &profile.subject).await? {
        let message = if identity.user_id == user.id {
            "Identity is already linked"
        } else {
            "Identity is already linked to another user"
        };
        return Err(AuthApiError::unprocessable("identity_already_exists", message));
    }
    let identity = insert_identity(tx, &user, provider, profile).await?;
    audit(tx, caller, &user, Action::IdentityLinked, linked(&identity)).await?;
    let mut user = with_providers(tx, &user).await?;
    let email = profile.data.get("email").and_then(Value::as_str).unwrap_or_default();
    if user.email.is_empty() && !email.is_empty() {
        if User::by_email(tx, email).await?.is_some() {
            let message = "A user with this email address has already been registered";
            return Err(AuthApiError::bad_request("email_exists", message));
        }
        let change = UserChange { email: Some(email.to_owned()), ..UserChange::default() };
        user = User::change(tx, user.id, &change).await?.ok_or_else(gone)?;
        if !profile.email_verified() && !service.options.email.autoconfirm {
            service.send_confirmation(tx, &user, None, service.options.site_url.as_str()).await?;
            let message = format!(
                "Unverified email with {provider}. A confirmation email has been sent to your {provider} email"
            );
            return Ok(Arrival::Refused(AuthApiError::unprocessable("email_not_confirmed", message)));
        }
        user = confirm_email(tx, &user).await?;
        if user.is_anonymous {
            let change = UserChange { is_anonymous: Some(false), ..UserChange::default() };
            user = User::change(tx, user.id, &change).await?.ok_or_else(gone)?;
        }
    }
    Ok(Arrival::Account(Box::new(user)))
}

/// Gives an identity to the account that was invited by a mail with that token, which is used up.
///
/// # Errors
/// `invite_not_found`, `validation_failed` when the provider knows the person by other addresses.
pub(crate) async fn accept_invite(
    tx: &Tx,
    caller: &Caller,
    token: &str,
    provider: &str,
    profile: &Profile,
) -> Result<Arrival, AuthApiError> {
    let missing = || AuthApiError::not_found("invite_not_found", "Invite not found");
    let invite = OneTimeToken::find(tx, token, &[TokenKind::Confirmation]).await?.ok_or_else(missing)?;
    let user = User::lock(tx, invite.user_id).await?.ok_or_else(missing)?;
    if user.invited_at.is_none() || !OneTimeToken::clear(tx, user.id, TokenKind::Confirmation).await? {
        return Err(missing());
    }
    if !profile.emails.iter().any(|email| email.address == user.email) {
        return Err(AuthApiError::invalid("Invited email does not match emails from external provider"));
    }
    let identity = insert_identity(tx, &user, provider, profile).await?;
    audit(tx, caller, &user, Action::InviteAccepted, json!({ "provider": provider })).await?;
    let user = drop_unconfirmed(tx, &user, identity.identity_id, &profile.data).await?;
    Ok(Arrival::Account(Box::new(confirm_email(tx, &user).await?)))
}

/// Waits for other requests that are about the same person, so that two first sign-ins at once make one account.
async fn one_at_a_time(tx: &Tx, provider: &str, profile: &Profile) -> Result<(), AuthApiError> {
    let mut names: Vec<_> =
        profile.emails.iter().map(|email| format!("auth email {}", email.address)).collect();
    names.push(format!("auth identity {provider} {}", profile.subject));
    // In one order everywhere: nobody waits in a circle.
    names.sort_unstable();
    let sql = "select pg_advisory_xact_lock(hashtextextended($1, 0))";
    for name in names {
        tx.query(sql, &[&name]).await?;
    }
    Ok(())
}

/// What is stored that has to do with the person.
async fn known(tx: &Tx, provider: &str, profile: &Profile, trusted: &[&str]) -> Result<Known, AuthApiError> {
    if let Some(identity) = Identity::find(tx, provider, &profile.subject).await? {
        return Ok(Known { identity: Some(identity.user_id), ..Known::default() });
    }
    let mut known = Known::default();
    for address in trusted {
        for identity in Identity::by_email(tx, address).await? {
            known.similar_identities.push((identity.provider, identity.user_id));
        }
        if let Some(user) = User::by_email(tx, address).await?
            && !known.similar_users.contains(&user.id)
        {
            known.similar_users.push(user.id);
        }
    }
    let standing = profile.data.get("email").and_then(Value::as_str).unwrap_or_default();
    if !standing.is_empty() {
        known.address_taken = User::by_email(tx, standing).await?.is_some()
            || Identity::by_email(tx, standing)
                .await?
                .iter()
                .any(|identity| !identity.provider.starts_with("sso:"));
    }
    Ok(known)
}

async fn insert_identity(
    tx: &Tx,
    user: &User,
    provider: &str,
    profile: &Profile,
) -> Result<Identity, AuthApiError> {
    let new = NewIdentity {
        user_id: user.id,
        provider: provider.to_owned(),
        provider_id: profile.subject.clone(),
        data: profile.data.clone(),
    };
    Ok(Identity::insert(tx, &new).await?)
}

fn linked(identity: &Identity) -> Value {
    json!({ "identity_id": identity.identity_id, "provider": identity.provider, "provider_id": identity.id })
}

async fn merge_metadata(tx: &Tx, user: &User, data: &Map<String, Value>) -> Result<User, AuthApiError> {
    let mut metadata = user.user_metadata.clone();
    accounts::merge_metadata(&mut metadata, data);
    let change = UserChange { user_metadata: Some(metadata), ..UserChange::default() };
    change_user(tx, user.id, &change).await
}

/// Writes which providers an account has, the oldest identity's first.
pub(crate) async fn with_providers(tx: &Tx, user: &User) -> Result<User, AuthApiError> {
    let user = User::find(tx, user.id).await?.ok_or_else(gone)?;
    let mut providers: Vec<&str> = Vec::new();
    for identity in &user.identities {
        if !providers.contains(&identity.provider.as_str()) {
            providers.push(&identity.provider);
        }
    }
    let mut metadata = user.app_metadata.clone();
    if let Some(first) = providers.first() {
        metadata.insert("provider".into(), json!(first));
    }
    metadata.insert("providers".into(), json!(providers));
    let change = UserChange { app_metadata: Some(metadata), ..UserChange::default() };
    change_user(tx, user.id, &change).await
}

/// Gives an account without an address the verified one of the provider, if nobody else has it.
async fn give_address(tx: &Tx, user: User, profile: &Profile) -> Result<User, AuthApiError> {
    let email = profile.data.get("email").and_then(Value::as_str).unwrap_or_default();
    if !user.email.is_empty() || !profile.email_verified() || User::by_email(tx, email).await?.is_some() {
        return Ok(user);
    }
    let change = UserChange { email: Some(email.to_owned()), ..UserChange::default() };
    change_user(tx, user.id, &change).await
}

/// Takes from an unconfirmed account whatever somebody else may have prepared to get into it: its password, its
/// number, its metadata, its other identities and its sessions.
async fn drop_unconfirmed(
    tx: &Tx,
    user: &User,
    keep: Uuid,
    data: &Map<String, Value>,
) -> Result<User, AuthApiError> {
    let change = UserChange {
        encrypted_password: Some(String::new()),
        phone: Some(String::new()),
        phone_confirmed_at: Some(None),
        user_metadata: Some(data.clone()),
        ..UserChange::default()
    };
    let user = User::change(tx, user.id, &change).await?.ok_or_else(gone)?;
    Session::delete_of_user(tx, user.id, None).await?;
    for identity in user.identities.iter().filter(|identity| identity.identity_id != keep) {
        Identity::delete(tx, identity.identity_id).await?;
    }
    with_providers(tx, &user).await
}
