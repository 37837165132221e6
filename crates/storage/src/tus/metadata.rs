//! `Upload-Metadata`: what the client says about the file.

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use serde_json::Value;

use super::error::Refusal;
use crate::names::{BucketId, ObjectName};
use crate::objects::sendable;

/// What of it the server knows.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct UploadMetadata {
    pub(super) bucket: BucketId,
    pub(super) name: ObjectName,
    pub(super) mimetype: String,
    pub(super) cache_control: String,
    pub(super) user_metadata: Option<Value>,
}

impl UploadMetadata {
    /// Reads `key <base64>,key <base64>,…`.
    pub(super) fn parse(text: &str) -> Result<Self, Refusal> {
        let invalid = |text: String| Refusal::Invalid(format!("Upload-Metadata: {text}"));
        let (mut bucket, mut name, mut mimetype, mut cache, mut own) = (None, None, None, None, None);
        for pair in text.split(',').map(str::trim).filter(|pair| !pair.is_empty()) {
            let (key, value) = pair.split_once(' ').unwrap_or((pair, ""));
            let place = match key {
                "bucketName" => &mut bucket,
                "objectName" => &mut name,
                "contentType" => &mut mimetype,
                "cacheControl" => &mut cache,
                "metadata" => &mut own,
                _ => continue,
            };
            let value = STANDARD
                .decode(value.trim())
                .ok()
                .and_then(|bytes| String::from_utf8(bytes).ok())
                .ok_or_else(|| invalid(format!("{key} is not text in base64")))?;
            if place.replace(value).is_some() {
                return Err(invalid(format!("{key} is there twice")));
            }
        }
        let needed = |value: Option<String>, key: &str| {
            value.ok_or_else(|| {
                invalid(format!("it needs {key}: bucketName and objectName say where the file goes"))
            })
        };
        let seconds = cache
            .filter(|text| !text.is_empty() && text.len() < 20 && text.bytes().all(|b| b.is_ascii_digit()));
        let own = own.filter(|text| !text.is_empty()).map(|text| match serde_json::from_str(&text) {
            Ok(value @ Value::Object(_)) => Ok(value),
            _ => Err(invalid("metadata is no JSON object".into())),
        });
        let mimetype = mimetype.filter(|text| !text.is_empty());
        Ok(Self {
            bucket: BucketId::parse(&needed(bucket, "bucketName")?)?,
            name: ObjectName::parse(&needed(name, "objectName")?)?,
            mimetype: sendable("contentType", mimetype.as_deref().unwrap_or("application/octet-stream"))?,
            cache_control: seconds.map_or_else(|| "no-cache".into(), |seconds| format!("max-age={seconds}")),
            user_metadata: own.transpose()?,
        })
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use rstest::rstest;
    use serde_json::json;

    use super::*;

    fn header(pairs: &[(&str, &str)]) -> String {
        let pairs: Vec<String> =
            pairs.iter().map(|(key, value)| format!("{key} {}", STANDARD.encode(value))).collect();
        pairs.join(",")
    }

    #[test]
    fn everything_is_read() {
        let text = header(&[
            ("bucketName", "files"),
            ("objectName", "a/b.png"),
            ("contentType", "image/png"),
            ("cacheControl", "60"),
            ("metadata", r#"{"a":1}"#),
            ("filename", "ignored"),
        ]);
        let read = UploadMetadata::parse(&format!("{text}, is_confidential")).unwrap();
        assert_eq!((read.bucket.as_str(), read.name.as_str()), ("files", "a/b.png"));
        assert_eq!((read.mimetype.as_str(), read.cache_control.as_str()), ("image/png", "max-age=60"));
        assert_eq!(read.user_metadata, Some(json!({"a": 1})));
        let least = UploadMetadata::parse(&header(&[("bucketName", "b"), ("objectName", "o")])).unwrap();
        assert_eq!(
            (least.mimetype.as_str(), least.cache_control.as_str()),
            ("application/octet-stream", "no-cache")
        );
    }

    #[rstest]
    #[case(&[])]
    #[case(&[("bucketName", "b")])]
    #[case(&[("objectName", "o")])]
    #[case(&[("bucketName", "b"), ("objectName", "../o")])]
    #[case(&[("bucketName", "a/b"), ("objectName", "o")])]
    #[case(&[("bucketName", "b"), ("objectName", "o"), ("objectName", "p")])]
    #[case(&[("bucketName", "b"), ("objectName", "o"), ("contentType", "a\nb")])]
    #[case(&[("bucketName", "b"), ("objectName", "o"), ("metadata", "[1]")])]
    fn nonsense_is_refused(#[case] pairs: &[(&str, &str)]) {
        assert!(UploadMetadata::parse(&header(pairs)).is_err());
    }

    proptest! {
        #[test]
        fn nothing_panics(text in "\\PC*") {
            let _ = UploadMetadata::parse(&text);
        }
    }
}
