//! `/bucket`: buckets, as rows under their own policies.

mod routes;
pub(crate) mod store;

pub(crate) use routes::router;

use chrono::{DateTime, Utc};
use serde::{Serialize, Serializer};
use uuid::Uuid;

/// A bucket, as clients see it.
#[derive(Debug, Clone, Serialize)]
pub struct Bucket {
    /// What requests call it.
    pub id: String,
    /// The same.
    pub name: String,
    /// Who made it, where that is a user; written as text in any case, since supabase-py takes no null.
    #[serde(serialize_with = "as_text")]
    pub owner: Option<Uuid>,
    /// Whether anybody may read its objects.
    pub public: bool,
    /// `STANDARD`; left out for clients that cannot bear it.
    #[serde(rename = "type", skip_serializing_if = "Option::is_none")]
    pub kind: Option<&'static str>,
    /// Largest object in bytes; unset: the server's limit alone.
    pub file_size_limit: Option<i64>,
    /// Types it takes; unset: all.
    pub allowed_mime_types: Option<Vec<String>>,
    /// When it was made.
    pub created_at: Option<DateTime<Utc>>,
    /// When it was changed.
    pub updated_at: Option<DateTime<Utc>>,
}

fn as_text<S: Serializer>(owner: &Option<Uuid>, serializer: S) -> Result<S::Ok, S::Error> {
    match owner {
        Some(owner) => serializer.collect_str(owner),
        None => serializer.serialize_str(""),
    }
}

/// What an upload must know of its bucket.
#[derive(Debug, Clone, Default)]
pub struct Rules {
    /// Whether anybody may read its objects.
    pub public: bool,
    /// Largest object in bytes.
    pub file_size_limit: Option<i64>,
    /// Types it takes; empty: all.
    pub allowed_mime_types: Vec<String>,
}
