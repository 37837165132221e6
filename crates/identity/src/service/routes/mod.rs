//! The endpoints, one file each.

mod health;
mod jwks;

use axum::Router;

use super::AuthService;

/// All of them.
pub(crate) fn router() -> Router<AuthService> {
    Router::new().merge(health::router()).merge(jwks::router())
}
