//! Bytes in an S3-compatible store.

use std::ops::Range;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use futures_util::future::BoxFuture;
use futures_util::stream::{self, BoxStream};
use futures_util::{FutureExt, StreamExt, TryStreamExt};
use object_store::aws::AmazonS3Builder;
use object_store::path::Path;
use object_store::{
    ClientOptions, GetOptions, MultipartUpload, ObjectStore, ObjectStoreExt, PutPayload, RetryConfig,
};
use secrecy::{ExposeSecret, SecretString};
use tokio::task::JoinSet;
use url::Url;

use super::{BlobError, Blobs, Content, Entered, Entry, Tally, Version, Written, gather};
use crate::failpoints;

/// Size of a part, exactly: some stores want all but the last alike. Stores take 10,000 parts, so a file of up to 78 GiB.
const PART: usize = 8 * 1024 * 1024;
/// Parts on their way at once.
const PARTS_AT_ONCE: usize = 3;
/// How often a request that failed is sent again, and for how long: someone waits for the answer.
const RETRIES: usize = 5;
const RETRY_FOR: Duration = Duration::from_secs(30);

/// How to reach a bucket of an S3-compatible store.
#[derive(Debug, Clone)]
pub struct S3Options {
    /// `https://…` of the store; unset: AWS.
    pub endpoint: Option<Url>,
    /// Region, e.g. `eu-central-1`.
    pub region: String,
    /// Bucket that holds everything.
    pub bucket: String,
    /// Folder in it, without slashes around it; may be empty.
    pub prefix: String,
    /// Access key; unset: from the machine's role.
    pub access_key_id: Option<String>,
    /// Its secret.
    pub secret_access_key: Option<SecretString>,
    /// `https://host/bucket/key` instead of `https://bucket.host/key`.
    pub path_style: bool,
}

/// Blobs in an object store.
#[derive(Debug)]
pub struct Remote {
    store: Arc<dyn ObjectStore>,
    prefix: Path,
}

impl Remote {
    /// Blobs in a bucket of an S3-compatible store. Nothing is asked of it yet.
    ///
    /// # Errors
    /// [`BlobError::Remote`] when the options do not fit together.
    pub fn s3(options: &S3Options) -> Result<Self, BlobError> {
        let client = ClientOptions::new()
            .with_connect_timeout(Duration::from_secs(10))
            // Of one request: a part of an upload, or a download as a whole.
            .with_timeout_disabled()
            .with_read_timeout(Duration::from_secs(60));
        let mut builder = AmazonS3Builder::new()
            .with_region(&options.region)
            .with_bucket_name(&options.bucket)
            .with_virtual_hosted_style_request(!options.path_style)
            .with_retry(RetryConfig {
                max_retries: RETRIES,
                retry_timeout: RETRY_FOR,
                ..RetryConfig::default()
            })
            .with_client_options(client);
        if let Some(endpoint) = &options.endpoint {
            let text = endpoint.as_str().trim_end_matches('/');
            builder = builder.with_endpoint(text).with_allow_http(endpoint.scheme() == "http");
        }
        if let (Some(key), Some(secret)) = (&options.access_key_id, &options.secret_access_key) {
            builder = builder.with_access_key_id(key).with_secret_access_key(secret.expose_secret());
        }
        let store = builder.build().map_err(BlobError::Remote)?;
        Ok(Self::over(Arc::new(store), &options.prefix))
    }

    /// Blobs below `prefix` of any object store.
    pub fn over(store: Arc<dyn ObjectStore>, prefix: &str) -> Self {
        Self { store, prefix: Path::from(prefix) }
    }

    fn path(&self, version: Version) -> Path {
        Path::from_iter(self.prefix.parts().chain(Path::from(version.path()).parts()))
    }

    async fn store(
        &self,
        version: Version,
        mut content: Content,
        entered: Entered,
    ) -> Result<Written, BlobError> {
        let path = self.path(version);
        let mut tally = Tally::new();
        let mut rest = None;
        // Nothing is stored outside of where the ledger's deletions look, so nothing is stored before.
        let (first, entered) = tokio::join!(part(&mut content, &mut rest), entered);
        entered?;
        let (first, ended) = first?;
        first.iter().for_each(|chunk| tally.add(chunk));
        failpoints::reach("upload.staged");
        if ended {
            self.store.put(&path, PutPayload::from_iter(first)).await.map_err(failed)?;
        } else {
            self.store_parts(&path, first, (&mut content, rest), &mut tally).await?;
        }
        failpoints::reach("upload.renamed");
        Ok(tally.finish())
    }

    async fn store_parts(
        &self,
        path: &Path,
        first: Vec<Bytes>,
        (content, mut rest): (&mut Content, Option<Bytes>),
        tally: &mut Tally,
    ) -> Result<(), BlobError> {
        let mut parts = Parts(Some(self.store.put_multipart(path).await.map_err(failed)?));
        let mut sending = JoinSet::new();
        sending.spawn(parts.open().put_part(PutPayload::from_iter(first)));
        loop {
            let (batch, ended) = part(content, &mut rest).await?;
            batch.iter().for_each(|chunk| tally.add(chunk));
            while sending.len() >= PARTS_AT_ONCE {
                sent(&mut sending).await?;
            }
            if !batch.is_empty() {
                sending.spawn(parts.open().put_part(PutPayload::from_iter(batch)));
            }
            if ended {
                break;
            }
        }
        while !sending.is_empty() {
            sent(&mut sending).await?;
        }
        failpoints::reach("upload.synced");
        parts.open().complete().await.map_err(failed)?;
        parts.0 = None;
        Ok(())
    }
}

/// One part, uncopied; what the last chunk holds beyond it is kept in `rest` for the next.
async fn part(content: &mut Content, rest: &mut Option<Bytes>) -> Result<(Vec<Bytes>, bool), BlobError> {
    let kept = rest.take();
    let mut size = kept.as_ref().map_or(0, Bytes::len);
    let mut batch: Vec<Bytes> = kept.into_iter().collect();
    let mut ended = false;
    if size < PART {
        let (more, end) = gather(content, PART - size).await?;
        size += more.iter().map(Bytes::len).sum::<usize>();
        batch.extend(more);
        ended = end;
    }
    if size > PART
        && let Some(last) = batch.last_mut()
    {
        *rest = Some(last.split_off(last.len() - (size - PART)));
    }
    Ok((batch, ended))
}

async fn sent(sending: &mut JoinSet<object_store::Result<()>>) -> Result<(), BlobError> {
    match sending.join_next().await {
        Some(Ok(result)) => result.map_err(failed),
        Some(Err(error)) => Err(BlobError::Remote(error.into())),
        None => Ok(()),
    }
}

/// An upload in parts; given up unless it completes, so that the store keeps no stray parts.
struct Parts(Option<Box<dyn MultipartUpload>>);

impl Parts {
    fn open(&mut self) -> &mut dyn MultipartUpload {
        self.0.as_mut().expect("open until complete").as_mut()
    }
}

impl Drop for Parts {
    fn drop(&mut self) {
        if let Some(mut upload) = self.0.take()
            && let Ok(runtime) = tokio::runtime::Handle::try_current()
        {
            runtime.spawn(async move {
                if let Err(error) = upload.abort().await {
                    tracing::warn!(%error, "parts of an unfinished upload stay in the object store");
                }
            });
        }
    }
}

impl Blobs for Remote {
    fn put<'a>(
        &'a self,
        version: Version,
        content: Content,
        entered: Entered,
    ) -> BoxFuture<'a, Result<Written, BlobError>> {
        self.store(version, content, entered).boxed()
    }

    fn get<'a>(&'a self, version: Version, range: Range<u64>) -> BoxFuture<'a, Result<Content, BlobError>> {
        async move {
            let path = self.path(version);
            if range.is_empty() {
                // No range can name no bytes; whether the object is there still counts.
                let meta = self.store.head(&path).await.map_err(failed)?;
                return if meta.size < range.end {
                    Err(BlobError::NotFound)
                } else {
                    Ok(stream::empty().boxed())
                };
            }
            let options = GetOptions::new().with_range(Some(range.clone()));
            let result = self.store.get_opts(&path, options).await.map_err(failed)?;
            if result.meta.size < range.end {
                return Err(BlobError::NotFound);
            }
            Ok(result.into_stream().map_err(failed).boxed())
        }
        .boxed()
    }

    fn head<'a>(&'a self, version: Version) -> BoxFuture<'a, Result<Option<u64>, BlobError>> {
        async move {
            match self.store.head(&self.path(version)).await {
                Ok(meta) => Ok(Some(meta.size)),
                Err(object_store::Error::NotFound { .. }) => Ok(None),
                Err(error) => Err(failed(error)),
            }
        }
        .boxed()
    }

    fn is_present<'a>(&'a self, version: Version) -> BoxFuture<'a, Result<bool, BlobError>> {
        async move { Ok(self.head(version).await?.is_some()) }.boxed()
    }

    fn copy<'a>(&'a self, from: Version, to: Version) -> BoxFuture<'a, Result<(), BlobError>> {
        async move { self.store.copy(&self.path(from), &self.path(to)).await.map_err(failed) }.boxed()
    }

    fn delete<'a>(&'a self, version: Version) -> BoxFuture<'a, Result<(), BlobError>> {
        async move {
            match self.store.delete(&self.path(version)).await {
                Ok(()) | Err(object_store::Error::NotFound { .. }) => Ok(()),
                Err(error) => Err(failed(error)),
            }
        }
        .boxed()
    }

    fn list<'a>(&'a self) -> BoxStream<'a, Result<Entry, BlobError>> {
        let entry = |meta: object_store::ObjectMeta| {
            let version = meta.location.filename().and_then(Version::parse)?;
            Some(Entry { version, size: meta.size, modified: meta.last_modified })
        };
        self.store
            .list(Some(&self.prefix))
            .map_err(failed)
            .try_filter_map(move |meta| std::future::ready(Ok(entry(meta))))
            .boxed()
    }

    fn unfinished<'a>(&'a self) -> BoxStream<'a, Result<Entry, BlobError>> {
        // Parts of uploads that never completed are no objects: a lifecycle rule of the bucket ends them.
        stream::empty().boxed()
    }

    fn discard<'a>(&'a self, _version: Version) -> BoxFuture<'a, Result<(), BlobError>> {
        std::future::ready(Ok(())).boxed()
    }
}

fn failed(error: object_store::Error) -> BlobError {
    match error {
        object_store::Error::NotFound { .. } => BlobError::NotFound,
        other => BlobError::Remote(other),
    }
}

#[cfg(test)]
mod tests {
    use object_store::memory::InMemory;

    use super::*;

    fn entered() -> Entered {
        std::future::ready(Ok(())).boxed()
    }

    #[tokio::test]
    async fn parts_make_the_whole() {
        let remote = Remote::over(Arc::new(InMemory::new()), "files");
        let bytes: Vec<u8> = (0..(2 * PART + 99)).map(|i| (i % 251) as u8).collect();
        let chunks: Vec<_> = bytes.chunks(1_000_000).map(|chunk| Ok(Bytes::copy_from_slice(chunk))).collect();
        let version = Version::new();
        let written = remote.put(version, stream::iter(chunks).boxed(), entered()).await.unwrap();
        assert_eq!(written.size, bytes.len() as u64);
        let copied = Version::new();
        remote.copy(version, copied).await.unwrap();
        remote.delete(version).await.unwrap();
        remote.delete(version).await.unwrap();
        assert_eq!(remote.head(version).await.unwrap(), None);
        let part = remote.get(copied, 7..9_000_000).await.unwrap();
        let part: Vec<Bytes> = part.try_collect().await.unwrap();
        assert_eq!(part.concat(), bytes[7..9_000_000]);
        let beyond = remote.get(copied, 0..written.size + 1).await;
        assert!(matches!(beyond, Err(BlobError::NotFound)));
        let listed: Vec<Entry> = remote.list().try_collect().await.unwrap();
        assert_eq!(listed.iter().map(|entry| entry.version).collect::<Vec<_>>(), [copied]);
    }

    #[tokio::test]
    async fn a_broken_stream_stores_nothing() {
        let remote = Remote::over(Arc::new(InMemory::new()), "");
        for size in [10, PART + 1] {
            let chunks = vec![Ok(Bytes::from(vec![0; size])), Err(BlobError::Interrupted)];
            let result = remote.put(Version::new(), stream::iter(chunks).boxed(), entered()).await;
            assert!(matches!(result, Err(BlobError::Interrupted)));
        }
        assert!(remote.list().next().await.is_none());
        let nothing = remote.put(Version::new(), stream::empty().boxed(), entered()).await.unwrap();
        assert_eq!(nothing.size, 0);
    }
}
