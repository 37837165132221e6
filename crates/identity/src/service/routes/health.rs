//! `GET /health`.

use axum::routing::get;
use axum::{Json, Router};
use serde_json::{Value, json};

use crate::service::AuthService;

pub(super) fn router() -> Router<AuthService> {
    Router::new().route("/health", get(health))
}

async fn health() -> Json<Value> {
    Json(json!({
        "version": env!("CARGO_PKG_VERSION"),
        "name": "GoTrue",
        "description": "Longhouse Auth, compatible with Supabase Auth (GoTrue)",
    }))
}
