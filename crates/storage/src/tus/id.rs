//! The last part of an upload's URL: bucket, object and a random id in base64.

use base64::Engine;
use base64::engine::general_purpose::{URL_SAFE, URL_SAFE_NO_PAD};
use uuid::Uuid;

use super::error::Refusal;
use crate::names::{BucketId, ObjectName};

/// Which upload.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct UploadId {
    pub(super) bucket: BucketId,
    pub(super) name: ObjectName,
    pub(super) id: Uuid,
}

impl UploadId {
    pub(super) fn new(bucket: BucketId, name: ObjectName) -> Self {
        Self { bucket, name, id: Uuid::new_v4() }
    }

    pub(super) fn decode(text: &str) -> Result<Self, Refusal> {
        let parse = || {
            let bytes = URL_SAFE_NO_PAD.decode(text).or_else(|_| URL_SAFE.decode(text)).ok()?;
            let text = String::from_utf8(bytes).ok()?;
            let (bucket, rest) = text.split_once('/')?;
            let (name, id) = rest.rsplit_once('/')?;
            let (bucket, name) = (BucketId::parse(bucket).ok()?, ObjectName::parse(name).ok()?);
            Some(Self { bucket, name, id: Uuid::try_parse(id).ok()? })
        };
        parse().ok_or(Refusal::NoSuchUpload)
    }

    pub(super) fn encode(&self) -> String {
        URL_SAFE_NO_PAD.encode(format!("{}/{}/{}", self.bucket, self.name, self.id))
    }

    /// `bucket/name`, as tokens of signed URLs name it.
    pub(super) fn object(&self) -> String {
        format!("{}/{}", self.bucket, self.name)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn urls_name_what_they_were_made_for() {
        let (bucket, name) = (BucketId::parse("b").unwrap(), ObjectName::parse("a/b c.txt").unwrap());
        let id = UploadId::new(bucket, name);
        assert_eq!(UploadId::decode(&id.encode()).unwrap(), id);
        for hostile in ["", "x", "Li4vLi4vLi4", "YS8uLi9iLzE", &"A".repeat(9000)] {
            assert!(UploadId::decode(hostile).is_err(), "{hostile}");
        }
    }
}
