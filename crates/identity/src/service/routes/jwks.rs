//! `GET /.well-known/jwks.json`: the public keys that verify access tokens.

use axum::extract::State;
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use axum::{Json, Router};
use http::header::CACHE_CONTROL;

use crate::service::AuthService;

pub(super) fn router() -> Router<AuthService> {
    Router::new().route("/.well-known/jwks.json", get(jwks))
}

async fn jwks(State(service): State<AuthService>) -> Response {
    ([(CACHE_CONTROL, "public, max-age=600")], Json(service.signer.jwks())).into_response()
}
