//! `GET /.well-known/jwks.json`: the public keys that verify access tokens, and `openid-configuration` beside it.

use axum::extract::State;
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use axum::{Json, Router};
use http::header::CACHE_CONTROL;
use serde_json::json;

use crate::service::AuthService;
use crate::service::signing::PUBLISHED_SET_AGE;

pub(super) fn router() -> Router<AuthService> {
    Router::new()
        .route("/.well-known/jwks.json", get(jwks))
        .route("/.well-known/openid-configuration", get(openid_configuration))
}

async fn jwks(State(service): State<AuthService>) -> Response {
    cached(service.signer.jwks())
}

/// What libraries read to verify access tokens (OpenID Connect Discovery 1.0 §3). We are no provider for others:
/// the endpoints of a flow are named as Supabase Auth names them, because the document requires them.
async fn openid_configuration(State(service): State<AuthService>) -> Response {
    let issuer = service.options.external_url.as_str().trim_end_matches('/');
    cached(json!({
        "issuer": issuer,
        "authorization_endpoint": format!("{issuer}/oauth/authorize"),
        "token_endpoint": format!("{issuer}/oauth/token"),
        "jwks_uri": format!("{issuer}/.well-known/jwks.json"),
        "userinfo_endpoint": format!("{issuer}/oauth/userinfo"),
        "scopes_supported": ["openid", "profile", "email", "phone"],
        "response_types_supported": ["code"],
        "response_modes_supported": ["query"],
        "grant_types_supported": ["authorization_code", "refresh_token"],
        "subject_types_supported": ["public"],
        "id_token_signing_alg_values_supported": ["RS256", "HS256", "ES256"],
        "token_endpoint_auth_methods_supported": ["client_secret_basic", "client_secret_post", "none"],
        "code_challenge_methods_supported": ["S256", "plain"],
        "claims_supported": ["sub", "aud", "iss", "exp", "iat", "email", "phone", "role", "session_id", "aal", "amr"],
    }))
}

fn cached(document: serde_json::Value) -> Response {
    let cache = format!("public, max-age={}", PUBLISHED_SET_AGE.as_secs());
    ([(CACHE_CONTROL, cache)], Json(document)).into_response()
}
