//! Bytes of audio, pictures and documents within requests.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use bytes::Bytes;
use serde::{Deserialize, Deserializer, Serialize, Serializer, de};
use url::Url;

/// Bytes with their media type, such as `image/png`. Written as base64 in JSON.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Media {
    /// The media type.
    pub mime: String,
    /// The bytes.
    #[serde(serialize_with = "to_base64", deserialize_with = "from_base64")]
    pub data: Bytes,
}

impl Media {
    /// Bytes of a media type.
    #[must_use]
    pub fn new(mime: &str, data: impl Into<Bytes>) -> Self {
        Self { mime: mime.to_owned(), data: data.into() }
    }

    /// The bytes in base64.
    #[must_use]
    pub fn base64(&self) -> String {
        STANDARD.encode(&self.data)
    }

    /// As a `data:` URL.
    #[must_use]
    pub fn data_url(&self) -> String {
        format!("data:{};base64,{}", self.mime, self.base64())
    }

    /// A file name that fits the type: providers judge uploads by it.
    #[must_use]
    pub fn file_name(&self) -> String {
        let subtype = self.mime.split(';').next().and_then(|mime| mime.split('/').nth(1)).unwrap_or("bin");
        let extension = match subtype {
            "mpeg" => "mp3",
            "x-wav" | "wave" | "vnd.wave" => "wav",
            "jpeg" => "jpg",
            "x-m4a" | "mp4a-latm" => "m4a",
            other => other,
        };
        format!("upload.{extension}")
    }
}

/// A picture: its bytes, or a public address that the provider fetches itself.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Picture {
    /// The bytes.
    Media(Media),
    /// The address.
    Url(Url),
}

fn to_base64<S: Serializer>(bytes: &Bytes, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.serialize_str(&STANDARD.encode(bytes))
}

fn from_base64<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Bytes, D::Error> {
    let text = String::deserialize(deserializer)?;
    STANDARD.decode(text).map(Bytes::from).map_err(de::Error::custom)
}
