//! Bytes, each stored once under a random version: in a folder ([`local`]) or an S3-compatible store ([`remote`]).
//! Nothing here knows of users, buckets or names.

pub mod local;
mod reading;
pub mod remote;

use std::fmt;
use std::ops::Range;

use aws_lc_rs::digest;
use bytes::Bytes;
use chrono::{DateTime, Utc};
use futures_util::StreamExt;
use futures_util::future::BoxFuture;
use futures_util::stream::BoxStream;
use uuid::Uuid;

/// A stream of bytes, in chunks as they come.
pub type Content = BoxStream<'static, Result<Bytes, BlobError>>;

/// Ends when the ledger durably knows the bytes that are being stored.
pub type Entered = BoxFuture<'static, Result<(), BlobError>>;

/// Why bytes could not be stored, read or removed.
#[derive(Debug, thiserror::Error)]
pub enum BlobError {
    /// There is nothing of that version, or less of it than asked for.
    #[error("these bytes are not stored; run `longhouse storage check`")]
    NotFound,
    /// More arrived than may be stored.
    #[error("more arrived than may be stored")]
    TooLarge,
    /// The sender went away, or sent less or more than it announced.
    #[error("the sender stopped before the end")]
    Interrupted,
    /// Nothing came for so many seconds.
    #[error("nothing arrived for {0} s")]
    Stalled(u64),
    /// What arrived is not in the form that it claims.
    #[error("{0}")]
    Malformed(String),
    /// The disk.
    #[error("the folder of files failed: {0}; check its disk, owner and free space")]
    Io(#[from] std::io::Error),
    /// The S3-compatible store.
    #[error("the object store failed: {0}; check the [storage] settings and that it is reachable")]
    Remote(#[source] object_store::Error),
}

/// Names the bytes of one upload. Random, so that nothing of a user's naming reaches the store.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Version(Uuid);

impl Version {
    /// A new one.
    #[expect(clippy::new_without_default, reason = "two defaults would differ")]
    pub fn new() -> Self {
        Self(Uuid::new_v4())
    }

    /// Reads `storage.objects.version`; `None` for what we did not write.
    pub fn parse(text: &str) -> Option<Self> {
        // Only the one spelling that we write: two names for the same bytes would be two rows for one blob.
        Uuid::try_parse(text).ok().map(Self).filter(|version| version.to_string() == text)
    }

    /// Where its bytes are, below the store's prefix: `ab/ab12…`.
    pub fn path(&self) -> String {
        let name = self.to_string();
        format!("{}/{name}", &name[..2])
    }
}

impl fmt::Display for Version {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.as_hyphenated().fmt(formatter)
    }
}

/// What was stored.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Written {
    /// Bytes.
    pub size: u64,
    /// SHA-256 of them.
    pub sha256: [u8; 32],
}

impl Written {
    /// The hash as an entity tag, quotes included.
    pub fn etag(&self) -> String {
        format!("\"{}\"", hex::encode(self.sha256))
    }
}

/// One blob in a listing.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Entry {
    /// Its version.
    pub version: Version,
    /// Its bytes.
    pub size: u64,
    /// When it was written.
    pub modified: DateTime<Utc>,
}

/// A store of bytes.
pub trait Blobs: fmt::Debug + Send + Sync + 'static {
    /// Stores a stream. When this returns, the bytes survive a power cut; when it fails or is dropped, nothing is left
    /// or what is left goes with [`Self::delete`]. Until `entered` has ended well, whatever there is of the bytes is
    /// told by [`Self::unfinished`], so that its age can end it.
    fn put<'a>(
        &'a self,
        version: Version,
        content: Content,
        entered: Entered,
    ) -> BoxFuture<'a, Result<Written, BlobError>>;

    /// Reads a part of what is stored, in chunks, in memory that does not grow with it.
    ///
    /// [`BlobError::NotFound`] when there is nothing, or not that much.
    fn get<'a>(&'a self, version: Version, range: Range<u64>) -> BoxFuture<'a, Result<Content, BlobError>>;

    /// Stored bytes, if there are any.
    fn head<'a>(&'a self, version: Version) -> BoxFuture<'a, Result<Option<u64>, BlobError>>;

    /// Whether anything is stored, leftovers of an interrupted write included.
    fn is_present<'a>(&'a self, version: Version) -> BoxFuture<'a, Result<bool, BlobError>>;

    /// Stores the same bytes under another version, as durable as [`Self::put`].
    fn copy<'a>(&'a self, from: Version, to: Version) -> BoxFuture<'a, Result<(), BlobError>>;

    /// Removes what is stored and what an interrupted [`Self::put`] left. Nothing there is no error.
    fn delete<'a>(&'a self, version: Version) -> BoxFuture<'a, Result<(), BlobError>>;

    /// Everything that is stored, in no order.
    fn list<'a>(&'a self) -> BoxStream<'a, Result<Entry, BlobError>>;

    /// What goes on being written, and what interrupted writes left.
    fn unfinished<'a>(&'a self) -> BoxStream<'a, Result<Entry, BlobError>>;

    /// Removes what an interrupted [`Self::put`] left, and nothing that is finished.
    fn discard<'a>(&'a self, version: Version) -> BoxFuture<'a, Result<(), BlobError>>;
}

/// Size and hash of a stream as it passes.
pub(crate) struct Tally {
    size: u64,
    hash: digest::Context,
}

impl Tally {
    pub(crate) fn new() -> Self {
        Self { size: 0, hash: digest::Context::new(&digest::SHA256) }
    }

    pub(crate) fn add(&mut self, chunk: &[u8]) {
        self.size += chunk.len() as u64;
        self.hash.update(chunk);
    }

    pub(crate) fn finish(self) -> Written {
        let hash = self.hash.finish();
        Written { size: self.size, sha256: hash.as_ref().try_into().expect("SHA-256 has 32 bytes") }
    }
}

/// Takes chunks, uncopied, until there are `enough` bytes; and whether the stream has ended.
pub(crate) async fn gather(content: &mut Content, enough: usize) -> Result<(Vec<Bytes>, bool), BlobError> {
    let mut batch = Vec::new();
    let mut size = 0;
    while size < enough {
        match content.next().await {
            Some(chunk) => {
                let chunk = chunk?;
                if !chunk.is_empty() {
                    size += chunk.len();
                    batch.push(chunk);
                }
            }
            None => return Ok((batch, true)),
        }
    }
    Ok((batch, false))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn versions_have_one_spelling() {
        let version = Version::new();
        assert_eq!(Version::parse(&version.to_string()), Some(version));
        assert_eq!(Version::parse(&version.to_string().to_uppercase()), None);
        for hostile in ["", "1", "../../etc/passwd", "{00000000-0000-0000-0000-000000000000}"] {
            assert_eq!(Version::parse(hostile), None, "{hostile}");
        }
        assert_eq!(version.path(), format!("{}/{version}", &version.to_string()[..2]));
    }
}
