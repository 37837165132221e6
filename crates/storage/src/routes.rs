//! The routes together.

use axum::extract::{Request, State};
use axum::middleware::from_fn;
use axum::routing::get;
use axum::{Json, Router};
use http::{HeaderMap, StatusCode};
use serde_json::{Value, json};

use crate::{Error, Storage, buckets, leftover, objects, s3, transform, tus};

impl Storage {
    /// The service, to be nested at `/storage/v1`. Bodies and times are bounded by the routes themselves.
    pub fn router(&self) -> Router {
        Router::new()
            .merge(buckets::router())
            .merge(objects::router())
            .merge(transform::router())
            .merge(tus::router())
            .merge(s3::router(self))
            .route("/health", get(health))
            .route("/status", get(async || StatusCode::OK))
            .fallback(nowhere)
            .method_not_allowed_fallback(nowhere)
            .layer(from_fn(leftover::discard))
            .with_state(self.clone())
    }
}

async fn nowhere(request: Request) -> Error {
    let path: String = request.uri().path().chars().take(200).flat_map(char::escape_debug).collect();
    Error::NoSuchRoute(format!("{}:{path}", request.method()))
}

async fn health(State(storage): State<Storage>, headers: HeaderMap) -> Result<Json<Value>, Error> {
    storage.caller(&headers, "storage.health")?;
    Ok(Json(json!({ "healthy": storage.database().ping().await.is_ok() })))
}
