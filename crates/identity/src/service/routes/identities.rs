//! `GET /user/identities/authorize` and `DELETE /user/identities/{id}`: identities that people link and unlink.

use axum::extract::{Path, Query, State};
use axum::response::Response;
use axum::routing::{delete, get};
use axum::{Json, Router};
use chrono::{DateTime, Utc};
use serde_json::{Value, json};

use super::authorize::{Parameters, begin};
use crate::service::AuthService;
use crate::service::caller::SignedIn;
use crate::service::error::AuthApiError;
use crate::service::providers::with_providers;
use crate::service::redirects::RedirectTo;
use crate::service::store::{self, Action, Identity, OneTimeToken, Tx, User, UserChange, audit};
use crate::service::tokens::gone;

pub(super) fn router() -> Router<AuthService> {
    Router::new()
        .route("/user/identities/authorize", get(authorize))
        .route("/user/identities/{id}", delete(unlink))
}

fn permitted(service: &AuthService) -> Result<(), AuthApiError> {
    if service.options.manual_linking {
        return Ok(());
    }
    Err(AuthApiError::not_found("manual_linking_disabled", "Manual linking is disabled"))
}

async fn authorize(
    State(service): State<AuthService>,
    signed_in: SignedIn,
    RedirectTo(redirect_to): RedirectTo,
    Query(parameters): Parameters,
) -> Result<Response, AuthApiError> {
    permitted(&service)?;
    begin(&service, &parameters, redirect_to, Some(signed_in.user.id)).await
}

async fn unlink(
    State(service): State<AuthService>,
    signed_in: SignedIn,
    Path(id): Path<String>,
) -> Result<Json<Value>, AuthApiError> {
    permitted(&service)?;
    let id = id
        .parse()
        .map_err(|_| AuthApiError::not_found("validation_failed", "identity_id must be an UUID"))?;
    let tx = store::begin(&service.database).await?;
    // Locked, so that two requests at once cannot delete the last two identities.
    let user = User::lock(&tx, signed_in.user.id).await?.ok_or_else(gone)?;
    if user.identities.len() <= 1 {
        let message = "User must have at least 1 identity after unlinking";
        return Err(AuthApiError::unprocessable("single_identity_not_deletable", message));
    }
    let identity = user.identities.iter().find(|identity| identity.identity_id == id);
    let identity = identity
        .ok_or_else(|| AuthApiError::unprocessable("identity_not_found", "Identity doesn't exist"))?;
    let traits = json!({ "identity_id": id, "provider": identity.provider, "provider_id": identity.id });
    audit(&tx, &signed_in.caller, &user, Action::IdentityUnlinked, traits).await?;
    Identity::delete(&tx, id).await?;
    if identity.provider == "phone" {
        let change = UserChange {
            phone: Some(String::new()),
            phone_confirmed_at: Some(None),
            ..UserChange::default()
        };
        User::change(&tx, user.id, &change).await?;
    } else {
        let left: Vec<_> = user.identities.iter().filter(|other| other.identity_id != id).cloned().collect();
        move_address(&service, &tx, &user, &left).await?;
    }
    with_providers(&tx, &user).await?;
    tx.commit().await?;
    Ok(Json(json!({})))
}

/// Gives the account the address of another identity where none that is left has its own.
async fn move_address(
    service: &AuthService,
    tx: &Tx,
    user: &User,
    left: &[Identity],
) -> Result<(), AuthApiError> {
    if left.iter().any(|identity| identity.email.as_deref().unwrap_or_default() == user.email) {
        return Ok(());
    }
    for identity in by_preference(left) {
        let email = identity.email.as_deref().unwrap_or_default();
        if !email.is_empty() && User::by_email(tx, email).await?.is_some() {
            continue;
        }
        let verified = is_verified(identity);
        // What was sent to the address before belongs to it, not to the account.
        OneTimeToken::clear_all(tx, user.id).await?;
        let mut metadata = user.user_metadata.clone();
        let confirmed: Option<DateTime<Utc>> =
            if email.is_empty() || !(verified || service.options.email.autoconfirm) {
                metadata.insert("email_verified".into(), json!(false));
                None
            } else {
                user.email_confirmed_at
            };
        let change = UserChange {
            email: Some(email.to_owned()),
            email_confirmed_at: Some(confirmed),
            email_change: Some(String::new()),
            phone_change: Some(String::new()),
            user_metadata: Some(metadata),
            ..UserChange::default()
        };
        User::change(tx, user.id, &change).await?;
        return Ok(());
    }
    let message = "Unable to unlink identity due to email conflict";
    Err(AuthApiError::unprocessable("email_conflict_identity_not_deletable", message))
}

fn is_verified(identity: &Identity) -> bool {
    identity.identity_data.get("email_verified").and_then(Value::as_bool).unwrap_or_default()
}

/// Identities with a verified address first, then those with any; older ones before newer.
fn by_preference(identities: &[Identity]) -> Vec<&Identity> {
    let rank = |identity: &Identity| match identity.email.as_deref().unwrap_or_default() {
        "" => 2,
        _ if is_verified(identity) => 0,
        _ => 1,
    };
    let mut sorted: Vec<_> = identities.iter().collect();
    sorted.sort_by_key(|identity| (rank(identity), identity.created_at, identity.identity_id));
    sorted
}

#[cfg(test)]
mod tests {
    use serde_json::Map;
    use uuid::Uuid;

    use super::*;

    #[test]
    fn verified_and_older_identities_come_first() {
        let identity = |provider: &str, email: Option<&str>, verified: bool, second: i64| Identity {
            identity_id: Uuid::new_v4(),
            id: "1".into(),
            user_id: Uuid::nil(),
            identity_data: Map::from_iter([("email_verified".to_owned(), json!(verified))]),
            provider: provider.into(),
            last_sign_in_at: None,
            created_at: DateTime::from_timestamp(second, 0),
            updated_at: None,
            email: email.map(str::to_owned),
        };
        let all = [
            identity("phone", None, false, 1),
            identity("github", Some("a@b.c"), false, 2),
            identity("google", Some("d@e.f"), true, 4),
            identity("apple", Some("g@h.i"), true, 3),
        ];
        let order: Vec<_> = by_preference(&all).iter().map(|identity| identity.provider.as_str()).collect();
        assert_eq!(order, ["apple", "google", "github", "phone"]);
    }
}
