//! Accounts that people make and prove themselves: registration, confirmation, metadata.

use chrono::Utc;
use serde_json::{Map, Value, json};
use uuid::Uuid;

use super::AuthService;
use super::addresses::{normalise_email, normalise_phone};
use super::error::AuthApiError;
use super::providers::with_providers;
use super::store::{Identity, NewIdentity, NewUser, OneTimeToken, Tx, User, UserChange};
use super::tokens::gone;

/// Largest metadata of an account, as JSON. It travels in every access token, and those must pass as headers.
const MOST_METADATA: usize = 8 * 1024;

/// By what an account is named.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Name {
    /// In lower case.
    Email(String),
    /// Digits.
    Phone(String),
}

impl Name {
    /// From two parameters of which one is empty. `None`: both are.
    ///
    /// # Errors
    /// `validation_failed`: with `both` when both are given, else what is wrong with the one.
    pub(crate) fn parse(email: &str, phone: &str, both: &'static str) -> Result<Option<Self>, AuthApiError> {
        match (email.is_empty(), phone.is_empty()) {
            (true, true) => Ok(None),
            (false, true) => normalise_email(email).map(Self::Email).map(Some),
            (true, false) => normalise_phone(phone).map(Self::Phone).map(Some),
            (false, false) => Err(AuthApiError::invalid(both)),
        }
    }

    /// `email` or `phone`.
    pub(crate) fn provider(&self) -> &'static str {
        match self {
            Self::Email(_) => "email",
            Self::Phone(_) => "phone",
        }
    }

    pub(crate) fn as_str(&self) -> &str {
        match self {
            Self::Email(text) | Self::Phone(text) => text,
        }
    }

    /// The account of that name.
    pub(crate) async fn find(&self, tx: &Tx) -> Result<Option<User>, AuthApiError> {
        Ok(match self {
            Self::Email(email) => User::by_email(tx, email).await?,
            Self::Phone(phone) => User::by_phone(tx, phone).await?,
        })
    }

    /// Whether the account has proved that this name is its own.
    pub(crate) fn is_confirmed(&self, user: &User) -> bool {
        match self {
            Self::Email(_) => user.email_confirmed_at.is_some(),
            Self::Phone(_) => user.phone_confirmed_at.is_some(),
        }
    }

    /// What the identity of that name says about its holder; `data` cannot replace it.
    pub(crate) fn identity_data(&self, user: Uuid, data: &Map<String, Value>) -> Map<String, Value> {
        let mut identity = data.clone();
        identity.insert("sub".into(), json!(user));
        identity.insert(self.provider().into(), json!(self.as_str()));
        identity.insert("email_verified".into(), json!(false));
        identity.insert("phone_verified".into(), json!(false));
        identity
    }
}

/// Checks the size of metadata that somebody sends.
///
/// # Errors
/// `validation_failed`.
pub(crate) fn check_metadata(data: &Map<String, Value>) -> Result<(), AuthApiError> {
    let size = serde_json::to_string(data).map_err(AuthApiError::internal)?.len();
    if size <= MOST_METADATA {
        return Ok(());
    }
    let message = format!("User metadata is too large ({size} bytes as JSON, at most {MOST_METADATA})");
    Err(AuthApiError::invalid(message))
}

/// Adds members to metadata; `null` removes one.
pub(crate) fn merge_metadata(metadata: &mut Map<String, Value>, changes: &Map<String, Value>) {
    for (key, value) in changes {
        if value.is_null() {
            metadata.remove(key);
        } else {
            metadata.insert(key.clone(), value.clone());
        }
    }
}

/// The account that somebody may not have a second time by signing up with that address: it may be the account's own,
/// or that of one of its identities.
pub(crate) async fn owner_of_email(
    tx: &Tx,
    email: &str,
    except: Option<Uuid>,
) -> Result<Option<User>, AuthApiError> {
    for identity in Identity::by_email(tx, email).await? {
        // Accounts of SSO are apart.
        if Some(identity.user_id) != except && !identity.provider.starts_with("sso:") {
            return Ok(User::find(tx, identity.user_id).await?);
        }
    }
    Ok(User::by_email(tx, email).await?.filter(|user| Some(user.id) != except))
}

/// Stores a new, unconfirmed account with its identity. `Ok(None)`: somebody took the name at the same moment, and the
/// transaction is lost.
pub(crate) async fn register(
    tx: &Tx,
    name: &Name,
    password_hash: Option<String>,
    data: &Map<String, Value>,
) -> Result<Option<User>, AuthApiError> {
    let id = Uuid::new_v4();
    let identity_data = name.identity_data(id, data);
    let (email, phone) = match name {
        Name::Email(email) => (email.clone(), String::new()),
        Name::Phone(phone) => (String::new(), phone.clone()),
    };
    let new = NewUser {
        id: Some(id),
        role: "authenticated".into(),
        email,
        phone,
        encrypted_password: password_hash,
        app_metadata: Map::from_iter([
            ("provider".to_owned(), json!(name.provider())),
            ("providers".to_owned(), json!([name.provider()])),
        ]),
        user_metadata: identity_data.clone(),
        is_anonymous: false,
    };
    match User::insert(tx, &new).await {
        Ok(_) => {}
        Err(error) if error.sql_state().is_some_and(|state| state.code() == "23505") => return Ok(None),
        Err(error) => return Err(not_stored(error)),
    }
    insert_identity(tx, id, name.provider(), identity_data).await?;
    Ok(Some(User::find(tx, id).await?.ok_or_else(gone)?))
}

/// A project's own trigger on `auth.users` may refuse an account: its message is in the log.
pub(crate) fn not_stored(error: longhouse_database::Error) -> AuthApiError {
    if error.is_transient() || error.sql_state().is_none() {
        return error.into();
    }
    tracing::error!(%error, "an account cannot be stored: look at the triggers on auth.users");
    let message = "Database error saving new user";
    AuthApiError::new(http::StatusCode::INTERNAL_SERVER_ERROR, "unexpected_failure", message)
}

/// Adds the identity of an account's own address or number.
pub(crate) async fn insert_identity(
    tx: &Tx,
    user: Uuid,
    provider: &str,
    data: Map<String, Value>,
) -> Result<Identity, AuthApiError> {
    let new = NewIdentity { user_id: user, provider: provider.into(), provider_id: user.to_string(), data };
    Ok(Identity::insert(tx, &new).await?)
}

/// Sets members of the identity of an account's own address or number, which is made if it is missing.
pub(crate) async fn put_identity(
    tx: &Tx,
    user: &User,
    provider: &str,
    data: Map<String, Value>,
) -> Result<(), AuthApiError> {
    match Identity::find(tx, provider, &user.id.to_string()).await? {
        Some(identity) => {
            let mut all = identity.identity_data;
            all.extend(data);
            Identity::update_data(tx, identity.identity_id, &all).await?;
        }
        None => {
            let mut all = data;
            all.insert("sub".into(), json!(user.id));
            for verified in ["email_verified", "phone_verified"] {
                all.entry(verified).or_insert(json!(false));
            }
            insert_identity(tx, user.id, provider, all).await?;
        }
    }
    Ok(())
}

/// Marks an account's e-mail address as its own. Everything that was sent before is void.
pub(crate) async fn confirm_email(tx: &Tx, user: &User) -> Result<User, AuthApiError> {
    OneTimeToken::clear_all(tx, user.id).await?;
    for identity in &user.identities {
        if !user.email.is_empty() && identity.email.as_deref() == Some(&user.email) {
            let mut data = identity.identity_data.clone();
            data.insert("email_verified".into(), json!(true));
            Identity::update_data(tx, identity.identity_id, &data).await?;
        }
    }
    let mut metadata = user.user_metadata.clone();
    metadata.insert("email_verified".into(), json!(true));
    let change = UserChange {
        email_confirmed_at: Some(Some(Utc::now())),
        user_metadata: Some(metadata),
        ..UserChange::default()
    };
    change_user(tx, user.id, &change).await
}

/// Marks an account's number as its own. Everything that was sent before is void.
pub(crate) async fn confirm_phone(tx: &Tx, user: &User) -> Result<User, AuthApiError> {
    OneTimeToken::clear_all(tx, user.id).await?;
    put_identity(
        tx,
        user,
        "phone",
        members(&[("phone", json!(user.phone)), ("phone_verified", json!(true))]),
    )
    .await?;
    let change = UserChange {
        phone_confirmed_at: Some(Some(Utc::now())),
        is_anonymous: Some(false),
        ..UserChange::default()
    };
    change_user(tx, user.id, &change).await
}

/// Gives an account the address that it has proved: the identity, too. An anonymous account becomes a named one.
///
/// # Errors
/// `email_exists` when somebody else has got it meanwhile.
pub(crate) async fn take_email(tx: &Tx, user: &User, email: &str) -> Result<User, AuthApiError> {
    OneTimeToken::clear_all(tx, user.id).await?;
    if owner_of_email(tx, email, Some(user.id)).await?.is_some() {
        return Err(email_exists());
    }
    put_identity(tx, user, "email", members(&[("email", json!(email)), ("email_verified", json!(true))]))
        .await?;
    let mut metadata = user.user_metadata.clone();
    metadata.insert("email".into(), json!(email));
    metadata.insert("email_verified".into(), json!(true));
    let change = UserChange {
        email: Some(email.to_owned()),
        email_confirmed_at: Some(Some(user.email_confirmed_at.unwrap_or_else(Utc::now))),
        email_change: Some(String::new()),
        email_change_confirm_status: Some(0),
        user_metadata: Some(metadata),
        is_anonymous: Some(false),
        ..UserChange::default()
    };
    let user = User::change(tx, user.id, &change).await.map_err(|error| unless_taken(error, email_exists))?;
    with_providers(tx, &user.ok_or_else(gone)?).await
}

/// As [`take_email`], for a number.
///
/// # Errors
/// `phone_exists`.
pub(crate) async fn take_phone(tx: &Tx, user: &User, phone: &str) -> Result<User, AuthApiError> {
    OneTimeToken::clear_all(tx, user.id).await?;
    put_identity(tx, user, "phone", members(&[("phone", json!(phone)), ("phone_verified", json!(true))]))
        .await?;
    let change = UserChange {
        phone: Some(phone.to_owned()),
        phone_confirmed_at: Some(Some(Utc::now())),
        phone_change: Some(String::new()),
        is_anonymous: Some(false),
        ..UserChange::default()
    };
    let user = User::change(tx, user.id, &change).await.map_err(|error| unless_taken(error, phone_exists))?;
    with_providers(tx, &user.ok_or_else(gone)?).await
}

/// Changes an account that must be there.
pub(crate) async fn change_user(tx: &Tx, id: Uuid, change: &UserChange) -> Result<User, AuthApiError> {
    User::change(tx, id, change).await?.ok_or_else(gone)
}

/// 422: another account has that address.
pub(crate) fn email_exists() -> AuthApiError {
    let message = "A user with this email address has already been registered";
    AuthApiError::unprocessable("email_exists", message)
}

/// 422: another account has that number.
pub(crate) fn phone_exists() -> AuthApiError {
    let message = "A user with this phone number has already been registered";
    AuthApiError::unprocessable("phone_exists", message)
}

fn unless_taken(error: longhouse_database::Error, taken: fn() -> AuthApiError) -> AuthApiError {
    if error.sql_state().is_some_and(|state| state.code() == "23505") { taken() } else { error.into() }
}

fn members(list: &[(&str, Value)]) -> Map<String, Value> {
    list.iter().map(|(name, value)| ((*name).to_owned(), value.clone())).collect()
}

impl AuthService {
    /// Whether people may sign in by such a name.
    ///
    /// # Errors
    /// What `refusal` makes of the code and a sentence with `what` in it.
    pub(crate) fn check_enabled(
        &self,
        name: &Name,
        what: &str,
        refusal: fn(&'static str, String) -> AuthApiError,
    ) -> Result<(), AuthApiError> {
        match name {
            Name::Email(_) if !self.options.email.enabled => {
                Err(refusal("email_provider_disabled", format!("Email {what} are disabled")))
            }
            Name::Phone(_) if !self.options.phone.enabled => {
                Err(refusal("phone_provider_disabled", format!("Phone {what} are disabled")))
            }
            _ => Ok(()),
        }
    }

    /// Whether such names count as confirmed without being proved.
    pub(crate) fn autoconfirms(&self, name: &Name) -> bool {
        match name {
            Name::Email(_) => self.options.email.autoconfirm,
            Name::Phone(_) => self.options.phone.autoconfirm,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn object(value: Value) -> Map<String, Value> {
        serde_json::from_value(value).unwrap()
    }

    #[test]
    fn null_takes_a_member_away() {
        let mut metadata = object(json!({ "kept": 1, "gone": 2, "changed": { "a": 1 } }));
        merge_metadata(&mut metadata, &object(json!({ "gone": null, "changed": { "b": null }, "new": [] })));
        assert_eq!(metadata, object(json!({ "kept": 1, "changed": { "b": null }, "new": [] })));
    }

    #[test]
    fn nobody_calls_themselves_verified() {
        let data = object(
            json!({ "sub": "x", "email": "other@example.com", "email_verified": true, "name": "Ann" }),
        );
        let id = Uuid::new_v4();
        let identity = Name::Email("ann@example.com".into()).identity_data(id, &data);
        let expected = json!({ "sub": id, "email": "ann@example.com", "email_verified": false,
            "phone_verified": false, "name": "Ann" });
        assert_eq!(identity, object(expected));
    }

    #[test]
    fn metadata_has_a_bound() {
        check_metadata(&object(json!({ "text": "x".repeat(MOST_METADATA - 20) }))).unwrap();
        let error = check_metadata(&object(json!({ "text": "x".repeat(MOST_METADATA) }))).unwrap_err();
        assert_eq!(error.code(), "validation_failed");
    }
}
