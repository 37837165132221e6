//! `POST /sso`: SAML is not offered, which clients tell from a path that nobody serves.

use axum::Router;
use axum::routing::post;

use crate::service::AuthService;
use crate::service::error::AuthApiError;

pub(super) fn router() -> Router<AuthService> {
    Router::new().route("/sso", post(disabled))
}

async fn disabled() -> AuthApiError {
    AuthApiError::not_found("saml_provider_disabled", "SAML 2.0 is disabled")
}
