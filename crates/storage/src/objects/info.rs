//! What is known of an object, as JSON.

use axum::Json;
use axum::extract::{Request, State};
use serde_json::{Value, json};

use super::download::Door;
use super::timestamp;
use crate::extract::ObjectPath;
use crate::{Error, Storage};

async fn describe(
    storage: &Storage,
    path: ObjectPath,
    request: Request,
    door: Door,
) -> Result<Json<Value>, Error> {
    let (parts, _) = request.into_parts();
    let ObjectPath(bucket, name) = path;
    let operation = match door {
        Door::Public => "storage.object.info_public",
        _ => "storage.object.get_authenticated_info",
    };
    let object = storage.readable(&parts, door, operation, &bucket, &name).await?;
    let field = |name: &str| object.metadata.as_ref().and_then(|metadata| metadata.get(name)).cloned();
    Ok(Json(json!({
        "id": object.id,
        "name": object.name,
        "version": object.version,
        "bucket_id": object.bucket_id,
        "size": field("size"),
        "content_type": field("mimetype"),
        "cache_control": field("cacheControl"),
        "etag": field("eTag"),
        "metadata": object.user_metadata,
        "last_modified": object.updated_at.map(timestamp),
        "created_at": object.created_at.map(timestamp),
    })))
}

pub(super) async fn any(
    State(storage): State<Storage>,
    path: ObjectPath,
    request: Request,
) -> Result<Json<Value>, Error> {
    describe(&storage, path, request, Door::Any).await
}

pub(super) async fn authenticated(
    State(storage): State<Storage>,
    path: ObjectPath,
    request: Request,
) -> Result<Json<Value>, Error> {
    describe(&storage, path, request, Door::Authenticated).await
}

pub(super) async fn public(
    State(storage): State<Storage>,
    path: ObjectPath,
    request: Request,
) -> Result<Json<Value>, Error> {
    describe(&storage, path, request, Door::Public).await
}
