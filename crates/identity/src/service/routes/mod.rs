//! The endpoints, one file each.

mod authorize;
mod callback;
mod factors;
mod health;
mod id_token;
mod identities;
mod jwks;
mod passkeys;
mod recovery_codes;

use axum::Router;

use super::AuthService;

/// All of them.
pub(crate) fn router() -> Router<AuthService> {
    Router::new().merge(authorize::router()).merge(callback::router()).merge(health::router()).merge(factors::router()).merge(passkeys::router()).merge(recovery_codes::router()).merge(identities::router()).merge(jwks::router())
}
