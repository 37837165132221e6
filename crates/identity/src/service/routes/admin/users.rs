//! `/admin/users`.

use axum::body::Bytes;
use axum::extract::{Path, State};
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use axum::{Json, Router};
use chrono::Utc;
use serde::Deserialize;
use serde_json::{Map, Value, json};
use uuid::Uuid;

use super::account::{NewAccount, taken};
use super::pages::Page;
use super::{ban, find, unless_refused};
use crate::service::AuthService;
use crate::service::accounts::{
    change_user, check_metadata, confirm_email, confirm_phone, email_exists, merge_metadata, owner_of_email,
    put_identity,
};
use crate::service::addresses::{normalise_email, normalise_phone};
use crate::service::body::JsonBody;
use crate::service::caller::Admin;
use crate::service::error::AuthApiError;
use crate::service::providers::with_providers;
use crate::service::store::{
    self, Action, OneTimeToken, Passkey, Session, StoredFactor, Tx, User, UserChange, audit_service,
    recovery_codes,
};
use crate::service::tokens::gone;

const AUDIENCE: &str = "authenticated";
const LONGEST_ROLE: usize = 63;

pub(super) fn router() -> Router<AuthService> {
    Router::new()
        .route("/admin/users", get(list).post(create))
        .route("/admin/users/{user_id}", get(read).put(update).delete(remove))
}

/// What a server says about an account. Absent members change nothing.
#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct Params {
    id: String,
    role: String,
    email: String,
    phone: String,
    password: Option<String>,
    password_hash: String,
    email_confirm: bool,
    phone_confirm: bool,
    user_metadata: Option<Map<String, Value>>,
    app_metadata: Option<Map<String, Value>>,
    ban_duration: String,
}

impl Params {
    /// Addresses as they are stored; sizes checked.
    fn normalised(mut self) -> Result<Self, AuthApiError> {
        if !self.email.is_empty() {
            self.email = normalise_email(&self.email)?;
        }
        if !self.phone.is_empty() {
            self.phone = normalise_phone(&self.phone)?;
        }
        for metadata in [&self.user_metadata, &self.app_metadata].into_iter().flatten() {
            check_metadata(metadata)?;
        }
        self.role = self.role.trim().to_owned();
        if self.role.len() > LONGEST_ROLE {
            return Err(AuthApiError::invalid("role must be 63 characters or less"));
        }
        Ok(self)
    }

    /// The end of a ban that is asked for; `Some(None)` lifts it.
    fn banned_until(&self) -> Result<Option<Option<chrono::DateTime<Utc>>>, AuthApiError> {
        if self.ban_duration.is_empty() {
            return Ok(None);
        }
        let duration = ban::parse(&self.ban_duration)?;
        Ok(Some((!duration.is_zero()).then(|| Utc::now() + duration)))
    }
}

async fn list(State(service): State<AuthService>, _: Admin, page: Page) -> Result<Response, AuthApiError> {
    let oldest_first = oldest_first(page.parameter("sort"))?;
    let tx = store::begin(&service.database).await?;
    let (users, total) =
        User::search(&tx, page.parameter("filter"), oldest_first, page.limit(), page.offset()).await?;
    tx.commit().await?;
    Ok((page.headers(total), Json(json!({ "users": users, "aud": AUDIENCE }))).into_response())
}

/// `sort=created_at asc`; newest first without.
fn oldest_first(sort: &str) -> Result<bool, AuthApiError> {
    let (field, direction) = sort.split_once(' ').unwrap_or((sort, "desc"));
    if !matches!(field, "" | "created_at") {
        return Err(AuthApiError::invalid(format!(
            "Bad Sort Parameters: bad field for sort {field:?}, only created_at is allowed"
        )));
    }
    match direction.to_ascii_lowercase().as_str() {
        "asc" => Ok(true),
        "desc" => Ok(false),
        _ => Err(AuthApiError::invalid(format!(
            "Bad Sort Parameters: bad direction for sort {direction:?}, only 'asc' and 'desc' allowed"
        ))),
    }
}

async fn read(
    State(service): State<AuthService>,
    _: Admin,
    Path(user_id): Path<String>,
) -> Result<Json<User>, AuthApiError> {
    let tx = store::begin(&service.database).await?;
    let user = find(&tx, &user_id).await?;
    tx.commit().await?;
    Ok(Json(user))
}

async fn create(
    State(service): State<AuthService>,
    admin: Admin,
    JsonBody(params): JsonBody<Params>,
) -> Result<Json<User>, AuthApiError> {
    let params = params.normalised()?;
    if params.email.is_empty() && params.phone.is_empty() {
        return Err(AuthApiError::invalid("Cannot create a user without either an email or phone"));
    }
    let banned_until = params.banned_until()?;
    let account = NewAccount {
        id: chosen_id(&params.id)?,
        password_hash: password_hash(&service, &params).await?,
        role: params.role,
        email: params.email,
        phone: params.phone,
        user_metadata: params.user_metadata.unwrap_or_default(),
    };
    let tx = store::begin(&service.database).await?;
    let mut user = account.store(&tx).await?;
    let traits = json!({
        "user_id": user.id, "user_email": user.email, "user_phone": user.phone,
        "provider": user.app_metadata.get("provider"),
    });
    audit_service(&tx, &admin.caller, Action::UserSignedUp, traits).await?;
    if params.email_confirm {
        user = confirm_email(&tx, &user).await?;
    }
    if params.phone_confirm {
        user = confirm_phone(&tx, &user).await?;
    }
    let mut app_metadata = user.app_metadata.clone();
    merge_metadata(&mut app_metadata, &params.app_metadata.unwrap_or_default());
    let change = UserChange { app_metadata: Some(app_metadata), banned_until, ..UserChange::default() };
    let user = change_user(&tx, user.id, &change).await?;
    tx.commit().await.map_err(unless_refused)?;
    Ok(Json(user))
}

fn chosen_id(text: &str) -> Result<Option<Uuid>, AuthApiError> {
    if text.is_empty() {
        return Ok(None);
    }
    let id =
        Uuid::parse_str(text).map_err(|_| AuthApiError::invalid("ID must conform to the uuid v4 format"))?;
    if id.is_nil() {
        return Err(AuthApiError::invalid("ID cannot be a nil uuid"));
    }
    Ok(Some(id))
}

/// What will be stored. A server may choose a password that people may not: it knows what it does.
async fn password_hash(service: &AuthService, params: &Params) -> Result<Option<String>, AuthApiError> {
    match (params.password.as_deref(), params.password_hash.as_str()) {
        (Some(_), hash) if !hash.is_empty() => {
            Err(AuthApiError::invalid("Only a password or a password hash should be provided"))
        }
        (Some(password), _) if !password.is_empty() => {
            match service.passwords.check(password) {
                Err(error) if error.code() != "weak_password" => return Err(error),
                _ => {}
            }
            service.passwords.hash(password).await.map(Some)
        }
        (_, "") => Ok(None),
        (_, hash) if service.passwords.can_verify(hash) => Ok(Some(hash.to_owned())),
        _ => Err(AuthApiError::invalid(
            "password_hash must be a bcrypt, Argon2 (argon2i, argon2id) or Firebase scrypt ($fbscrypt$) hash",
        )),
    }
}

async fn update(
    State(service): State<AuthService>,
    admin: Admin,
    Path(user_id): Path<String>,
    JsonBody(params): JsonBody<Params>,
) -> Result<Json<User>, AuthApiError> {
    let params = params.normalised()?;
    let banned_until = params.banned_until()?;
    let password = match params.password.as_deref() {
        None => None,
        // Nobody signs in with an empty one: it takes the password away.
        Some("") => Some(String::new()),
        Some(password) => {
            service.passwords.check(password)?;
            Some(service.passwords.hash(password).await?)
        }
    };
    let tx = store::begin(&service.database).await?;
    let mut user = find(&tx, &user_id).await?;
    if !params.email.is_empty() || !params.phone.is_empty() {
        user = rename(&tx, &user, &params).await?;
    }
    if params.email_confirm {
        user = confirm_email(&tx, &user).await?;
    }
    if params.phone_confirm {
        user = confirm_phone(&tx, &user).await?;
    }
    if password.is_some() {
        Session::delete_of_user(&tx, user.id, None).await?;
    }
    let merged = |metadata: &Map<String, Value>, changes: Option<Map<String, Value>>| {
        changes.map(|changes| {
            let mut metadata = metadata.clone();
            merge_metadata(&mut metadata, &changes);
            metadata
        })
    };
    let change = UserChange {
        role: Some(params.role).filter(|role| !role.is_empty()),
        encrypted_password: password,
        app_metadata: merged(&user.app_metadata, params.app_metadata),
        user_metadata: merged(&user.user_metadata, params.user_metadata),
        banned_until,
        ..UserChange::default()
    };
    let user = change_user(&tx, user.id, &change).await?;
    let traits = json!({ "user_id": user.id, "user_email": user.email, "user_phone": user.phone });
    audit_service(&tx, &admin.caller, Action::UserModified, traits).await?;
    tx.commit().await.map_err(unless_refused)?;
    Ok(Json(user))
}

/// Gives an account other names, and its identities with them. Whether they are confirmed is said beside them.
async fn rename(tx: &Tx, user: &User, params: &Params) -> Result<User, AuthApiError> {
    let data = |members: [(&str, Value); 2]| {
        members.into_iter().map(|(name, value)| (name.to_owned(), value)).collect::<Map<_, _>>()
    };
    let mut change = UserChange::default();
    if !params.email.is_empty() {
        if owner_of_email(tx, &params.email, Some(user.id)).await?.is_some() {
            return Err(email_exists());
        }
        let identity =
            data([("email", json!(params.email)), ("email_verified", json!(params.email_confirm))]);
        put_identity(tx, user, "email", identity).await?;
        change.email = Some(params.email.clone());
    }
    if !params.phone.is_empty() {
        let identity =
            data([("phone", json!(params.phone)), ("phone_verified", json!(params.phone_confirm))]);
        put_identity(tx, user, "phone", identity).await?;
        change.phone = Some(params.phone.clone());
    }
    if params.email_confirm || params.phone_confirm {
        change.is_anonymous = Some(false);
    }
    let user = User::change(tx, user.id, &change).await.map_err(taken)?.ok_or_else(gone)?;
    with_providers(tx, &user).await
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct Remove {
    should_soft_delete: bool,
}

async fn remove(
    State(service): State<AuthService>,
    admin: Admin,
    Path(user_id): Path<String>,
    body: Bytes,
) -> Result<Json<Value>, AuthApiError> {
    let Remove { should_soft_delete } = match body.is_empty() {
        true => Remove::default(),
        false => serde_json::from_slice(&body).map_err(|error| {
            AuthApiError::bad_request("bad_json", format!("Could not parse request body as JSON: {error}"))
        })?,
    };
    let tx = store::begin(&service.database).await?;
    let user = find(&tx, &user_id).await?;
    let traits = json!({ "user_id": user.id, "user_email": user.email, "user_phone": user.phone });
    audit_service(&tx, &admin.caller, Action::UserDeleted, traits).await?;
    match should_soft_delete {
        // Only what still names a person goes; once.
        true if user.deleted_at.is_some() => {}
        true => {
            User::soft_delete(&tx, &user).await.map_err(unless_refused)?;
            OneTimeToken::clear_all(&tx, user.id).await?;
            StoredFactor::delete_of_user(&tx, user.id).await?;
            Passkey::delete_of_user(&tx, user.id).await?;
            recovery_codes::delete(&tx, user.id).await?;
            Session::delete_of_user(&tx, user.id, None).await?;
        }
        false => _ = User::delete(&tx, user.id).await.map_err(unless_refused)?,
    }
    // Deferred constraints speak up here.
    tx.commit().await.map_err(unless_refused)?;
    Ok(Json(json!({})))
}

#[cfg(test)]
mod tests {
    use rstest::rstest;

    use super::*;

    #[rstest]
    #[case("", Some(false))]
    #[case("created_at", Some(false))]
    #[case("created_at asc", Some(true))]
    #[case("created_at DESC", Some(false))]
    #[case("email asc", None)]
    #[case("created_at sideways", None)]
    fn sorting(#[case] sort: &str, #[case] expected: Option<bool>) {
        assert_eq!(oldest_first(sort).ok(), expected);
    }
}
