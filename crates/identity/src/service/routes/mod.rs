//! The endpoints, one file each.

mod authorize;
mod callback;
mod health;
mod id_token;
mod identities;
mod jwks;

use axum::Router;

use super::AuthService;

/// All of them.
pub(crate) fn router() -> Router<AuthService> {
    Router::new().merge(authorize::router()).merge(callback::router()).merge(health::router()).merge(identities::router()).merge(jwks::router())
}
