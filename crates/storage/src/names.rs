//! Names of buckets and objects: what is allowed is what S3 takes everywhere, so that files can move between stores.

use std::fmt;

use crate::Error;

/// Most bytes of an object's name, as in S3.
pub const LONGEST_KEY: usize = 1024;
const LONGEST_BUCKET: usize = 100;

/// A bucket's id, checked.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct BucketId(String);

/// An object's name within its bucket, checked. It lives in the database only: no file is ever named by it.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct ObjectName(String);

impl BucketId {
    /// Checks a bucket's id.
    ///
    /// # Errors
    /// [`Error::InvalidBucketName`] when it is empty, longer than 100 bytes, or holds anything but letters, digits and
    /// `_!.*'() &$=@;:+,?-`.
    pub fn parse(text: &str) -> Result<Self, Error> {
        let fits = !text.is_empty() && text.len() <= LONGEST_BUCKET && text.bytes().all(safe);
        if fits { Ok(Self(text.to_owned())) } else { Err(Error::InvalidBucketName) }
    }

    /// Checks the id of a bucket that is to be made: neither spaces around it nor a folder's name.
    ///
    /// # Errors
    /// As [`Self::parse`].
    pub fn parse_new(text: &str) -> Result<Self, Error> {
        if text.trim() != text || matches!(text, "." | "..") {
            return Err(Error::InvalidBucketName);
        }
        Self::parse(text)
    }

    /// As text.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl ObjectName {
    /// Checks an object's name.
    ///
    /// # Errors
    /// [`Error::InvalidKey`] when it is empty, longer than 1024 bytes, climbs (`.` or `..` between slashes), or holds
    /// anything but letters, digits and `/_!.*'() &$=@;:+,?-`.
    pub fn parse(text: &str) -> Result<Self, Error> {
        let fits = !text.is_empty()
            && text.len() <= LONGEST_KEY
            && text.bytes().all(|byte| byte == b'/' || safe(byte))
            && !text.split('/').any(|part| matches!(part, "." | ".."));
        if fits { Ok(Self(text.to_owned())) } else { Err(Error::invalid_key(text)) }
    }

    /// As text.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// Whether it is the empty file by which clients keep an empty folder: any type, no bytes.
    pub fn is_folder_placeholder(&self) -> bool {
        self.0.ends_with(".emptyFolderPlaceholder")
    }
}

fn safe(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || b"_!.*'() &$=@;:+,?-".contains(&byte)
}

impl fmt::Display for BucketId {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(&self.0)
    }
}

impl fmt::Display for ObjectName {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(&self.0)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use rstest::rstest;

    use super::*;

    #[rstest]
    #[case("folder/cat.png", true)]
    #[case("a b/(1)!.txt", true)]
    #[case("..hidden/...", true)]
    #[case("", false)]
    #[case("../secret", false)]
    #[case("a/../b", false)]
    #[case("a/./b", false)]
    #[case("a/..", false)]
    #[case("a\\b", false)]
    #[case("a\0b", false)]
    #[case("a\nb", false)]
    #[case("kätzchen.png", false)]
    #[case("a%2e%2e/b", false)]
    #[case("a#b", false)]
    fn object_names(#[case] name: &str, #[case] allowed: bool) {
        assert_eq!(ObjectName::parse(name).is_ok(), allowed, "{name:?}");
    }

    #[rstest]
    #[case("agent.portraits", true)]
    #[case("a b", true)]
    #[case("a/b", false)]
    #[case("", false)]
    #[case(" a", false)]
    #[case("..", false)]
    #[case("ümlaut", false)]
    fn new_buckets(#[case] name: &str, #[case] allowed: bool) {
        assert_eq!(BucketId::parse_new(name).is_ok(), allowed, "{name:?}");
    }

    #[test]
    fn lengths_end_where_s3_ends() {
        assert!(ObjectName::parse(&"a".repeat(1024)).is_ok());
        assert!(ObjectName::parse(&"a".repeat(1025)).is_err());
        assert!(BucketId::parse(&"a".repeat(100)).is_ok());
        assert!(BucketId::parse(&"a".repeat(101)).is_err());
    }

    proptest! {
        #[test]
        fn no_accepted_name_climbs_or_controls(name in ".{0,40}") {
            if let Ok(name) = ObjectName::parse(&name) {
                prop_assert!(!name.as_str().chars().any(char::is_control));
                prop_assert!(!name.as_str().split('/').any(|part| part == ".."));
            }
        }

        #[test]
        fn refusals_can_be_printed(name in "\\PC*|[\\x00-\\x1f]{1,9}") {
            if let Err(error) = ObjectName::parse(&name) {
                prop_assert!(!error.to_string().chars().any(char::is_control));
            }
        }
    }
}
