//! `/object`: files as rows under the project's policies, and the bytes behind them.

mod delete;
mod download;
mod incoming;
mod info;
mod list;
mod pace;
mod relocate;
mod serve;
mod sign;
pub(crate) mod store;
mod upload;

pub(crate) use download::Door;
pub use download::Found;
pub use incoming::limited;
pub(crate) use incoming::{arriving, sendable};
pub use list::{Level, ListedObject, Listing};
pub(crate) use pace::paced;
pub use relocate::{Copying, Override};
pub(crate) use serve::disposition;
pub use serve::{Serving, respond};
pub use store::Object;
pub use upload::NewObject;

use axum::Router;
use axum::extract::Path;
use axum::routing::{MethodRouter, get, post, put};
use chrono::{DateTime, SecondsFormat, Utc};
use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::blobs::Written;
use crate::{Error, Storage};

/// `storage.objects.metadata`, in the shape that clients read.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Metadata {
    /// Entity tag, quotes included: the hash of the bytes.
    pub e_tag: String,
    /// Bytes.
    pub size: u64,
    /// Type, with its parameters.
    pub mimetype: String,
    /// `Cache-Control` of downloads.
    pub cache_control: String,
    /// When the bytes were stored.
    pub last_modified: DateTime<Utc>,
    /// Bytes, once more.
    pub content_length: u64,
    /// 200.
    pub http_status_code: u16,
    /// `X-Robots-Tag` of downloads, where one was asked for.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub x_robots_tag: Option<String>,
}

impl Metadata {
    /// Of bytes that have just been stored.
    pub fn new(written: &Written, mimetype: &str, cache_control: &str, robots: Option<String>) -> Self {
        Self {
            e_tag: written.etag(),
            size: written.size,
            mimetype: mimetype.to_owned(),
            cache_control: cache_control.to_owned(),
            last_modified: Utc::now(),
            content_length: written.size,
            http_status_code: 200,
            x_robots_tag: robots,
        }
    }

    /// From a row. `None` where somebody wrote the row by hand: such an object has no bytes of ours.
    pub fn read(value: &Value) -> Option<Self> {
        Self::deserialize(value).ok()
    }

    /// For a row.
    pub fn json(&self) -> Value {
        let mut value = serde_json::to_value(self).expect("strings, numbers and dates are JSON");
        // As JavaScript writes dates.
        value["lastModified"] = timestamp(self.last_modified).into();
        value
    }
}

/// A date as JavaScript writes it.
pub(crate) fn timestamp(time: DateTime<Utc>) -> String {
    time.to_rfc3339_opts(SecondsFormat::Millis, true)
}

pub(crate) fn router() -> Router<Storage> {
    Router::new()
        .route("/object/{bucket}/{*name}", object())
        .route(
            "/object/authenticated/{bucket}/{*name}",
            get(download::authenticated).head(download::head_authenticated),
        )
        .route("/object/public/{bucket}/{*name}", get(download::public).head(download::head_public))
        .route("/object/info/{bucket}/{*name}", get(info::any))
        .route("/object/info/authenticated/{bucket}/{*name}", get(info::authenticated))
        .route("/object/info/public/{bucket}/{*name}", get(info::public))
        .route("/object/sign/{bucket}", post(sign::many))
        .route(
            "/object/sign/{bucket}/{*name}",
            post(sign::one).get(download::signed).head(download::head_signed),
        )
        .route("/object/upload/sign/{bucket}/{*name}", post(sign::upload).put(upload::signed))
        .route("/object/list/{bucket}", post(list::first))
        .route("/object/list-v2/{bucket}", post(list::second))
        .route("/object/move", post(relocate::rename))
        .route("/object/copy", post(relocate::copy))
        .route("/object/{bucket}", axum::routing::delete(delete::many))
        .route("/object/{bucket}/", nameless())
        .route("/object/upload/sign/{bucket}/", nameless())
        .route("/object/sign/{bucket}/", nameless())
}

fn object() -> MethodRouter<Storage> {
    get(download::any)
        .head(download::head_any)
        .post(upload::create)
        .merge(put(upload::update))
        .delete(delete::one)
}

/// A path that ends where the object's name should begin.
fn nameless() -> MethodRouter<Storage> {
    axum::routing::any(async |Path(_): Path<String>| Error::invalid_key(""))
}
