//! Deleting: the row goes at once, the bytes when nobody reads them any more.

use axum::Json;
use axum::body::Body;
use axum::extract::State;
use http::HeaderMap;
use serde::Deserialize;
use serde_json::{Value, json};

use super::Object;
use crate::extract::{self, BucketPath, ObjectPath};
use crate::{Error, Storage};

/// Objects of one request.
const MOST: usize = 1000;

pub(super) async fn one(
    State(storage): State<Storage>,
    ObjectPath(bucket, name): ObjectPath,
    headers: HeaderMap,
) -> Result<Json<Value>, Error> {
    let caller = storage.caller(&headers, "storage.object.delete")?;
    storage.delete_object(&caller, &bucket, &name).await?;
    Ok(Json(json!({ "message": "Successfully deleted" })))
}

#[derive(Deserialize)]
struct Names {
    prefixes: Vec<String>,
}

/// Names that cannot exist are passed over, like those that do not.
pub(super) async fn many(
    State(storage): State<Storage>,
    BucketPath(bucket): BucketPath,
    headers: HeaderMap,
    body: Body,
) -> Result<Json<Vec<Value>>, Error> {
    let caller = storage.caller(&headers, "storage.object.delete_many")?;
    let Names { prefixes } = extract::json(&storage, body).await?;
    if prefixes.is_empty() || prefixes.len() > MOST {
        return Err(Error::InvalidRequest(format!("body/prefixes must hold 1 to {MOST} names")));
    }
    let names: Vec<String> = prefixes.into_iter().filter(|name| !name.contains('\0')).collect();
    let deleted = storage.delete_objects(&caller, &bucket, &names).await?;
    Ok(Json(deleted.iter().map(described).collect()))
}

fn described(object: &Object) -> Value {
    json!({
        "id": object.id,
        "name": object.name,
        "bucket_id": object.bucket_id,
        // Python clients take no null here.
        "owner": object.owner.map(|owner| owner.to_string()).unwrap_or_default(),
        "owner_id": object.owner_id.as_deref().unwrap_or_default(),
        "version": object.version,
        "metadata": object.metadata,
        "user_metadata": object.user_metadata,
        "created_at": object.created_at,
        "updated_at": object.updated_at,
        "last_accessed_at": object.last_accessed_at,
    })
}
