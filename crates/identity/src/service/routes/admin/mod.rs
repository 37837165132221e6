//! `/admin`: accounts, as the project's own servers see and change them.

pub(super) mod account;
mod ban;
mod factors;
pub(super) mod pages;
mod passkeys;
mod users;

use axum::Router;
use axum::http::StatusCode;
use longhouse_database::Error as DatabaseError;
use longhouse_database::tokio_postgres::error::SqlState;
use uuid::Uuid;

use crate::service::AuthService;
use crate::service::error::AuthApiError;
use crate::service::store::{Tx, User};

pub(super) fn router() -> Router<AuthService> {
    Router::new().merge(users::router()).merge(factors::router()).merge(passkeys::router())
}

/// The account that a path names, locked.
async fn find(tx: &Tx, id: &str) -> Result<User, AuthApiError> {
    let id = Uuid::parse_str(id)
        .map_err(|_| AuthApiError::not_found("validation_failed", "user_id must be an UUID"))?;
    let missing = || AuthApiError::not_found("user_not_found", "User not found");
    User::lock(tx, id).await?.ok_or_else(missing)
}

/// What the project's own triggers and foreign keys refuse is told in their words; everything else stays inside.
pub(super) fn unless_refused(error: DatabaseError) -> AuthApiError {
    unless_refused_or(error, AuthApiError::from)
}

/// As [`unless_refused`], with other words for everything else.
fn unless_refused_or(error: DatabaseError, other: fn(DatabaseError) -> AuthApiError) -> AuthApiError {
    let DatabaseError::Query(query) = &error else { return other(error) };
    let Some(refusal) = query.as_db_error() else { return other(error) };
    let (status, code) = match refusal.code() {
        &SqlState::RAISE_EXCEPTION => (StatusCode::UNPROCESSABLE_ENTITY, "validation_failed"),
        &SqlState::FOREIGN_KEY_VIOLATION | &SqlState::RESTRICT_VIOLATION => {
            (StatusCode::CONFLICT, "conflict")
        }
        _ => return other(error),
    };
    AuthApiError::new(status, code, format!("The database refuses this: {}", refusal.message()))
}
