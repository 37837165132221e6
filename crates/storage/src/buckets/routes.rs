//! Routes of buckets.

use axum::Json;
use axum::Router;
use axum::body::Body;
use axum::extract::{Request, State};
use axum::routing::{get, post};
use http::HeaderMap;
use serde::{Deserialize, Deserializer};
use serde_json::{Value, json};

use super::Bucket;
use super::store::{Changes, Listing, NewBucket};
use crate::extract::{self, BucketPath};
use crate::names::BucketId;
use crate::{Error, Storage, limits};

/// Objects that one statement deletes, and how many statements one request may run.
const EMPTY_BATCH: i64 = 1000;
const EMPTY_BATCHES: usize = 200;
const LIST_MOST: i64 = 10_000;

pub(crate) fn router() -> Router<Storage> {
    Router::new()
        .route("/bucket", post(create).get(list))
        .route("/bucket/", post(create).get(list))
        .route("/bucket/{bucket}", get(find).put(update).delete(delete))
        .route("/bucket/{bucket}/empty", post(empty))
}

/// A size as clients write it: bytes, `"5MB"`, or null for none.
#[derive(Deserialize)]
#[serde(untagged)]
enum Size {
    Bytes(i64),
    Text(String),
}

#[derive(Deserialize)]
struct Create {
    name: String,
    id: Option<String>,
    #[serde(default, deserialize_with = "extract::flag")]
    public: Option<bool>,
    #[serde(rename = "type")]
    kind: Option<String>,
    file_size_limit: Option<Size>,
    allowed_mime_types: Option<Vec<String>>,
}

#[derive(Deserialize)]
struct Update {
    #[serde(default, deserialize_with = "extract::flag")]
    public: Option<bool>,
    #[serde(default, deserialize_with = "given")]
    file_size_limit: Option<Option<Size>>,
    #[serde(default, deserialize_with = "given")]
    allowed_mime_types: Option<Option<Vec<String>>>,
}

/// Tells null from nothing.
fn given<'de, D: Deserializer<'de>, T: Deserialize<'de>>(
    deserializer: D,
) -> Result<Option<Option<T>>, D::Error> {
    Option::<T>::deserialize(deserializer).map(Some)
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct ListQuery {
    limit: Option<i64>,
    offset: Option<i64>,
    sort_column: Option<String>,
    sort_order: Option<String>,
    search: Option<String>,
}

fn message(text: &str) -> Json<Value> {
    Json(json!({ "message": text }))
}

impl Storage {
    fn size_limit(&self, size: Option<Size>) -> Result<Option<i64>, Error> {
        let bytes = match size {
            None => return Ok(None),
            Some(Size::Bytes(bytes)) => bytes,
            Some(Size::Text(text)) => limits::parse_size(&text)?,
        };
        match u64::try_from(bytes) {
            Err(_) => Err(Error::InvalidSizeLimit),
            Ok(size) if size > self.inner.file_size_limit => Err(Error::TooLarge("object")),
            Ok(_) => Ok(Some(bytes)),
        }
    }
}

fn allowed_types(types: Option<Vec<String>>) -> Result<Option<Vec<String>>, Error> {
    let types: Option<Vec<String>> =
        types.map(|types| types.into_iter().filter(|entry| !entry.is_empty()).collect());
    if let Some(types) = &types {
        if types.len() > 1000 {
            return Err(Error::InvalidRequest("allowed_mime_types: more than 1000 types".into()));
        }
        limits::check_allowed_types(types)?;
    }
    Ok(types)
}

async fn create(
    State(storage): State<Storage>,
    headers: HeaderMap,
    body: Body,
) -> Result<Json<Value>, Error> {
    let caller = storage.caller(&headers, "storage.bucket.create")?;
    let body: Create = extract::json(&storage, body).await?;
    if body.kind.as_deref().is_some_and(|kind| kind != "STANDARD") {
        return Err(Error::InvalidRequest(
            "body/type: only STANDARD buckets are kept here; leave it out".into(),
        ));
    }
    let name = BucketId::parse_new(&body.name)?;
    let id = match body.id.as_deref().filter(|id| !id.is_empty()) {
        Some(id) => BucketId::parse_new(id)?,
        None => name.clone(),
    };
    let bucket = NewBucket {
        id,
        name,
        public: body.public.unwrap_or(false),
        file_size_limit: storage.size_limit(body.file_size_limit)?,
        allowed_mime_types: allowed_types(body.allowed_mime_types)?,
    };
    storage.insert_bucket(&caller, &bucket).await?;
    Ok(Json(json!({ "name": bucket.name.as_str() })))
}

async fn list(State(storage): State<Storage>, request: Request) -> Result<Json<Vec<Bucket>>, Error> {
    let (parts, _) = request.into_parts();
    let caller = storage.caller(&parts.headers, "storage.bucket.list")?;
    let query: ListQuery = extract::query(&parts)?;
    let column = match query.sort_column.as_deref() {
        None | Some("id") => "id",
        Some("name") => "name",
        Some("created_at") => "created_at",
        Some("updated_at") => "updated_at",
        Some(_) => {
            return Err(Error::InvalidRequest(
                "querystring/sortColumn must be id, name, created_at or updated_at".into(),
            ));
        }
    };
    let listing = Listing {
        search: query.search.filter(|search| !search.is_empty()),
        column,
        descending: extract::descending(query.sort_order.as_deref())?,
        limit: extract::bounded("querystring/limit", query.limit, 1, LIST_MOST)?.unwrap_or(LIST_MOST),
        offset: extract::bounded("querystring/offset", query.offset, 0, i64::from(i32::MAX))?.unwrap_or(0),
    };
    let kind = (!cannot_bear_type(&parts.headers)).then_some("STANDARD");
    Ok(Json(storage.list_buckets(&caller, &listing, kind).await?))
}

/// Python clients before supabase-py 2.18 and storage3 0.12.1 fail at a bucket that has a type.
fn cannot_bear_type(headers: &HeaderMap) -> bool {
    let before = |header: &str, prefix: &str, wanted: (u32, u32, u32)| {
        let text = headers.get(header).and_then(|value| value.to_str().ok()).unwrap_or_default();
        let Some((_, version)) =
            text.to_ascii_lowercase().split_once(prefix).map(|(a, b)| (a.len(), b.to_owned()))
        else {
            return false;
        };
        let mut numbers =
            version.split(|c: char| !c.is_ascii_digit()).map(|number| number.parse().unwrap_or(0_u32));
        let mut next = || numbers.next().unwrap_or(0);
        (next(), next(), next()) < wanted
    };
    before("x-client-info", "supabase-py/", (2, 18, 0)) || before("user-agent", "storage3 v", (0, 12, 1))
}

async fn find(
    State(storage): State<Storage>,
    BucketPath(bucket): BucketPath,
    headers: HeaderMap,
) -> Result<Json<Bucket>, Error> {
    let caller = storage.caller(&headers, "storage.bucket.get")?;
    Ok(Json(storage.find_bucket(&caller, &bucket).await?))
}

async fn update(
    State(storage): State<Storage>,
    BucketPath(bucket): BucketPath,
    headers: HeaderMap,
    body: Body,
) -> Result<Json<Value>, Error> {
    let caller = storage.caller(&headers, "storage.bucket.update")?;
    let body: Update = extract::json(&storage, body).await?;
    if body.public.is_none() && body.file_size_limit.is_none() && body.allowed_mime_types.is_none() {
        return Err(Error::InvalidRequest(
            "body must have public, file_size_limit or allowed_mime_types".into(),
        ));
    }
    let changes = Changes {
        public: body.public,
        file_size_limit: body.file_size_limit.map(|size| storage.size_limit(size)).transpose()?,
        allowed_mime_types: body.allowed_mime_types.map(allowed_types).transpose()?,
    };
    storage.update_bucket(&caller, &bucket, &changes).await?;
    Ok(message("Successfully updated"))
}

async fn delete(
    State(storage): State<Storage>,
    BucketPath(bucket): BucketPath,
    headers: HeaderMap,
) -> Result<Json<Value>, Error> {
    let caller = storage.caller(&headers, "storage.bucket.delete")?;
    storage.delete_bucket(&caller, &bucket).await?;
    Ok(message("Successfully deleted"))
}

/// Deletes what the caller may delete. The answer speaks of a queue because clients compare it; it is done by then.
async fn empty(
    State(storage): State<Storage>,
    BucketPath(bucket): BucketPath,
    headers: HeaderMap,
) -> Result<Json<Value>, Error> {
    let caller = storage.caller(&headers, "storage.bucket.empty")?;
    storage.find_bucket(&caller, &bucket).await?;
    for _ in 0..EMPTY_BATCHES {
        if storage.empty_some(&caller, &bucket, EMPTY_BATCH).await? < EMPTY_BATCH as u64 {
            return Ok(message("Empty bucket has been queued. Completion may take up to an hour."));
        }
    }
    Err(Error::InvalidRequest(
        "the bucket holds more objects than one request empties: repeat it until it succeeds".into(),
    ))
}

#[cfg(test)]
mod tests {
    use http::HeaderValue;
    use rstest::rstest;

    use super::*;

    #[rstest]
    #[case("x-client-info", "supabase-py/2.17.9", true)]
    #[case("x-client-info", "supabase-py/2.18.0", false)]
    #[case("x-client-info", "supabase-js/2.1.0", false)]
    #[case("user-agent", "supabase-py/storage3 v0.12.0", true)]
    #[case("user-agent", "supabase-py/storage3 v0.12.1", false)]
    #[case("user-agent", "storage3 v1", false)]
    fn old_python_clients_get_no_type(#[case] name: &'static str, #[case] value: &str, #[case] old: bool) {
        let headers = [(name.parse().unwrap(), HeaderValue::from_str(value).unwrap())].into_iter().collect();
        assert_eq!(cannot_bear_type(&headers), old);
    }
}
