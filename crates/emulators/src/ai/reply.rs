//! What a vendor answers, before anything goes wrong with it.

use bytes::Bytes;
use http::{HeaderMap, Method, StatusCode};
use serde_json::Value;

/// What came in.
pub(super) struct Asked<'a> {
    pub(super) method: &'a Method,
    /// Below the vendor's prefix.
    pub(super) path: &'a str,
    pub(super) query: &'a str,
    pub(super) headers: &'a HeaderMap,
    pub(super) body: &'a Bytes,
    pub(super) options: &'a super::Options,
}

impl Asked<'_> {
    pub(super) fn header(&self, name: &str) -> Option<&str> {
        self.headers.get(name)?.to_str().ok()
    }

    /// The body as JSON; the vendor words the error.
    pub(super) fn json(&self) -> Result<Value, String> {
        let mime = self.header("content-type").unwrap_or_default();
        if !mime.starts_with("application/json") {
            return Err(format!("the content type must be application/json, not '{mime}'"));
        }
        serde_json::from_slice(self.body).map_err(|error| error.to_string())
    }

    pub(super) fn query(&self, name: &str) -> Option<String> {
        url::form_urlencoded::parse(self.query.as_bytes())
            .find(|(found, _)| found == name)
            .map(|(_, value)| value.into_owned())
    }
}

/// What goes out.
pub(super) enum Reply {
    /// A JSON body.
    Json(StatusCode, Value),
    /// Server-sent events, each written out whole.
    Events(Vec<String>),
    /// A file.
    File { mime: &'static str, bytes: Vec<u8> },
    /// Spoken text, in a format by the vendor's name.
    Speech { text: String, format: String },
}

impl Reply {
    pub(super) fn ok(value: Value) -> Self {
        Self::Json(StatusCode::OK, value)
    }
}

/// A PNG of one pixel, in base64: what all emulated pictures show.
pub(super) const PIXEL: &str =
    "iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAIAAACQd1PeAAAADElEQVR4nGNwaDgAAAKEAYEml6crAAAAAElFTkSuQmCC";

/// An event without a name.
pub(super) fn data(value: &Value) -> String {
    format!("data: {value}\n\n")
}

/// An event named after its type.
pub(super) fn named(value: &Value) -> String {
    format!("event: {}\ndata: {value}\n\n", value["type"].as_str().unwrap_or_default())
}

/// A vendor: pure, so that every answer is a function of what was asked.
pub(super) trait Vendor: Send + Sync {
    /// Judges and answers.
    fn answer(&self, asked: &Asked<'_>) -> Reply;

    /// An error of its own making, in its own shape.
    fn error(&self, status: StatusCode) -> Value;

    /// An overload in the middle of a stream.
    fn stream_error(&self) -> String;

    /// A header with an id of the request.
    fn request_id_header(&self) -> &'static str;
}

/// An id that looks like the vendor's.
pub(super) fn id(prefix: &str) -> String {
    format!("{prefix}{}", &uuid::Uuid::new_v4().simple().to_string()[..24])
}

/// Seconds since 1970.
pub(super) fn now() -> u64 {
    std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).map_or(0, |since| since.as_secs())
}

/// About how many tokens a text has.
pub(super) fn tokens(text: &str) -> usize {
    text.len().div_ceil(4)
}

/// A text in the pieces in which models write: words with the space before them.
pub(super) fn pieces(text: &str) -> Vec<&str> {
    let mut pieces = Vec::new();
    let mut rest = text;
    while !rest.is_empty() {
        let end =
            rest.char_indices().skip(1).find(|(_, c)| c.is_whitespace()).map_or(rest.len(), |(at, _)| at);
        pieces.push(&rest[..end]);
        rest = &rest[end..];
    }
    pieces
}
