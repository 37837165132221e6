//! Bytes in a folder: `blobs/<first two hex digits>/<version>`, written in `staging/` and moved when they are whole.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Write};
use std::ops::Range;
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use bytes::Bytes;
use futures_util::future::BoxFuture;
use futures_util::stream::{self, BoxStream};
use futures_util::{FutureExt, StreamExt, TryStreamExt};
use tokio::task::{JoinHandle, spawn_blocking};

use super::reading::{Downloads, Reading};
use super::{BlobError, Blobs, Content, Entered, Entry, Tally, Version, Written, gather};
use crate::failpoints;

/// Bytes handed to the disk at once: large enough that handing over costs nothing beside writing.
const WRITE: usize = 512 * 1024;

/// Bytes after which the disk begins to make them durable while more come, so that less is left for the end.
const SYNC: usize = 4 * 1024 * 1024;

/// A folder of blobs.
#[derive(Debug)]
pub struct Local {
    blobs: PathBuf,
    staging: PathBuf,
    downloads: Arc<Downloads>,
}

impl Local {
    /// Opens the folder, and makes it if it is not there.
    ///
    /// # Errors
    /// [`BlobError::Io`] when it cannot be made or written.
    pub async fn open(root: &Path) -> Result<Self, BlobError> {
        let local =
            Self { blobs: root.join("blobs"), staging: root.join("staging"), downloads: Arc::default() };
        let (blobs, staging) = (local.blobs.clone(), local.staging.clone());
        blocking(move || {
            make_folder(&staging)?;
            for byte in 0..=u8::MAX {
                make_folder(&blobs.join(hex::encode([byte])))?;
            }
            sync_folder(&blobs)?;
            sync_folder(blobs.parent().unwrap_or(&blobs))
        })
        .await?;
        Ok(local)
    }

    fn path(&self, version: Version) -> PathBuf {
        self.blobs.join(version.path())
    }

    fn staged(&self, version: Version) -> PathBuf {
        self.staging.join(version.to_string())
    }

    async fn store(
        &self,
        version: Version,
        mut content: Content,
        entered: Entered,
    ) -> Result<Written, BlobError> {
        let (staged, path) = (self.staged(version), self.path(version));
        let (draft, first) =
            tokio::join!(blocking(move || Draft::create(staged)), gather(&mut content, WRITE));
        let (mut draft, mut tally) = (draft?, Tally::new());
        let (mut batch, mut ended) = first?;
        let mut syncing: Option<JoinHandle<io::Result<()>>> = None;
        let mut unsynced = 0;
        loop {
            unsynced += batch.iter().map(Bytes::len).sum::<usize>();
            // While one batch goes to the disk and into the hash, on a thread each, the next is received.
            let hashed = batch.clone();
            let hashing = spawn_blocking(move || {
                hashed.iter().for_each(|chunk| tally.add(chunk));
                Ok(tally)
            });
            let writing = spawn_blocking(move || {
                draft.write(&batch)?;
                Ok(draft)
            });
            if ended {
                let written = async {
                    let draft = joined(writing).await;
                    failpoints::reach("upload.written");
                    draft
                };
                let (draft, entered) = tokio::join!(written, entered);
                entered?;
                let draft = draft?;
                if let Some(syncing) = syncing {
                    joined(syncing).await?;
                }
                blocking(move || draft.publish(&path)).await?;
                return Ok(joined(hashing).await?.finish());
            }
            (batch, ended) = gather(&mut content, WRITE).await?;
            draft = joined(writing).await?;
            tally = joined(hashing).await?;
            if unsynced >= SYNC && syncing.as_ref().is_none_or(JoinHandle::is_finished) {
                if let Some(syncing) = syncing.take() {
                    joined(syncing).await?;
                }
                let file = draft.file_mut().try_clone()?;
                syncing = Some(spawn_blocking(move || file.sync_data()));
                unsynced = 0;
            }
        }
    }

    async fn read(&self, version: Version, range: Range<u64>) -> Result<Content, BlobError> {
        let path = self.path(version);
        let end = range.end;
        let opened = blocking(move || {
            let file = File::open(path)?;
            match file.metadata()?.len() < end {
                true => Err(io::ErrorKind::NotFound.into()),
                false => Ok(file),
            }
        })
        .await;
        match opened {
            Ok(file) => {
                let reading = Reading::new(file, range, &self.downloads);
                Ok(stream::try_unfold(reading, Reading::next).boxed())
            }
            Err(error) if error.kind() == io::ErrorKind::NotFound => Err(BlobError::NotFound),
            Err(error) => Err(error.into()),
        }
    }
}

impl Blobs for Local {
    fn put<'a>(
        &'a self,
        version: Version,
        content: Content,
        entered: Entered,
    ) -> BoxFuture<'a, Result<Written, BlobError>> {
        self.store(version, content, entered).boxed()
    }

    fn get<'a>(&'a self, version: Version, range: Range<u64>) -> BoxFuture<'a, Result<Content, BlobError>> {
        self.read(version, range).boxed()
    }

    fn head<'a>(&'a self, version: Version) -> BoxFuture<'a, Result<Option<u64>, BlobError>> {
        let path = self.path(version);
        async move {
            match blocking(move || fs::metadata(path)).await {
                Ok(meta) => Ok(Some(meta.len())),
                Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
                Err(error) => Err(error.into()),
            }
        }
        .boxed()
    }

    fn is_present<'a>(&'a self, version: Version) -> BoxFuture<'a, Result<bool, BlobError>> {
        let (staged, path) = (self.staged(version), self.path(version));
        async move { Ok(blocking(move || Ok(path.try_exists()? || staged.try_exists()?)).await?) }.boxed()
    }

    fn copy<'a>(&'a self, from: Version, to: Version) -> BoxFuture<'a, Result<(), BlobError>> {
        let (source, staged, path) = (self.path(from), self.staged(to), self.path(to));
        async move {
            let copied = blocking(move || {
                let mut source = File::open(source)?;
                let mut draft = Draft::create(staged)?;
                // The system copies within the file system, or shares the blocks where it can.
                io::copy(&mut source, draft.file_mut())?;
                draft.publish(&path)
            })
            .await;
            match copied {
                Ok(_) => Ok(()),
                Err(error) if error.kind() == io::ErrorKind::NotFound => Err(BlobError::NotFound),
                Err(error) => Err(error.into()),
            }
        }
        .boxed()
    }

    fn delete<'a>(&'a self, version: Version) -> BoxFuture<'a, Result<(), BlobError>> {
        let (staged, path) = (self.staged(version), self.path(version));
        async move {
            Ok(blocking(move || {
                remove(&staged)?;
                remove(&path)
            })
            .await?)
        }
        .boxed()
    }

    fn list<'a>(&'a self) -> BoxStream<'a, Result<Entry, BlobError>> {
        let folders = (0..=u8::MAX).map(|byte| self.blobs.join(hex::encode([byte])));
        listed(folders.collect())
    }

    fn unfinished<'a>(&'a self) -> BoxStream<'a, Result<Entry, BlobError>> {
        listed(vec![self.staging.clone()])
    }

    fn discard<'a>(&'a self, version: Version) -> BoxFuture<'a, Result<(), BlobError>> {
        let staged = self.staged(version);
        async move { Ok(blocking(move || remove(&staged)).await?) }.boxed()
    }
}

/// A file that is being written; removed again unless it is published.
struct Draft {
    open: Option<(File, PathBuf)>,
}

impl Draft {
    fn create(path: PathBuf) -> io::Result<Self> {
        let file = OpenOptions::new().write(true).create_new(true).mode(0o600).open(&path)?;
        Ok(Self { open: Some((file, path)) })
    }

    fn file_mut(&mut self) -> &mut File {
        &mut self.open.as_mut().expect("open until it is published").0
    }

    fn write(&mut self, batch: &[Bytes]) -> io::Result<()> {
        batch.iter().try_for_each(|chunk| self.file_mut().write_all(chunk))
    }

    /// Gives the bytes their name, and makes both durable. No row knows them yet: until then a file of that name may
    /// be cut short by a power cut, and the ledger knows what to delete.
    fn publish(mut self, path: &Path) -> io::Result<()> {
        failpoints::reach("upload.staged");
        let (_, staged) = self.open.as_ref().expect("open until it is published");
        fs::rename(staged, path)?;
        let (file, _) = self.open.take().expect("just used");
        failpoints::reach("upload.renamed");
        // After the renaming: file systems with a journal write file and name at once, and find nothing left to do
        // for the folder.
        file.sync_all()?;
        failpoints::reach("upload.synced");
        sync_folder(path.parent().expect("a blob lies in a folder"))
    }
}

impl Drop for Draft {
    fn drop(&mut self) {
        if let Some((_, path)) = self.open.take()
            && let Err(error) = fs::remove_file(&path)
        {
            // The sweeper comes by for it.
            tracing::warn!(path = %path.display(), %error, "an unfinished upload stays in the staging folder");
        }
    }
}

fn listed(folders: Vec<PathBuf>) -> BoxStream<'static, Result<Entry, BlobError>> {
    stream::iter(folders)
        .then(|folder| async move {
            let entries = blocking(move || entries(&folder)).await?;
            Ok::<_, BlobError>(stream::iter(entries.into_iter().map(Ok)))
        })
        .try_flatten()
        .boxed()
}

fn remove(file: &Path) -> io::Result<()> {
    match fs::remove_file(file) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
        _ => Ok(()),
    }
}

fn entries(folder: &Path) -> io::Result<Vec<Entry>> {
    let mut found = Vec::new();
    for entry in fs::read_dir(folder)? {
        let entry = entry?;
        let Some(version) = entry.file_name().to_str().and_then(Version::parse) else { continue };
        match entry.metadata() {
            Ok(meta) => found.push(Entry { version, size: meta.len(), modified: meta.modified()?.into() }),
            // Deleted or published meanwhile.
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            Err(error) => return Err(error),
        }
    }
    Ok(found)
}

fn make_folder(path: &Path) -> io::Result<()> {
    fs::DirBuilder::new().recursive(true).mode(0o700).create(path)
}

fn sync_folder(path: &Path) -> io::Result<()> {
    File::open(path)?.sync_all()
}

async fn blocking<T: Send + 'static>(work: impl FnOnce() -> io::Result<T> + Send + 'static) -> io::Result<T> {
    joined(spawn_blocking(work)).await
}

pub(super) async fn joined<T>(handle: JoinHandle<io::Result<T>>) -> io::Result<T> {
    match handle.await {
        Ok(result) => result,
        Err(error) => match error.try_into_panic() {
            Ok(panic) => std::panic::resume_unwind(panic),
            Err(error) => Err(io::Error::other(error)),
        },
    }
}

#[cfg(test)]
mod tests {
    use aws_lc_rs::digest;

    use super::*;

    fn content(chunks: Vec<Result<Bytes, BlobError>>) -> Content {
        stream::iter(chunks).boxed()
    }

    fn entered() -> Entered {
        std::future::ready(Ok(())).boxed()
    }

    async fn read(local: &Local, version: Version, range: Range<u64>) -> Result<Vec<u8>, BlobError> {
        let chunks: Vec<Bytes> = local.get(version, range).await?.try_collect().await?;
        Ok(chunks.concat())
    }

    fn files(root: &Path) -> Vec<PathBuf> {
        let mut found = Vec::new();
        let mut folders = vec![root.to_owned()];
        while let Some(folder) = folders.pop() {
            for entry in fs::read_dir(folder).unwrap() {
                let entry = entry.unwrap();
                if entry.file_type().unwrap().is_dir() {
                    folders.push(entry.path());
                } else {
                    found.push(entry.path());
                }
            }
        }
        found
    }

    #[tokio::test]
    async fn what_is_put_is_got_whole_and_in_parts() {
        let root = tempfile::tempdir().unwrap();
        let local = Local::open(root.path()).await.unwrap();
        let bytes: Vec<u8> = (0..3 * 1024 * 1024 + 7_u32).map(|i| (i * 31 % 251) as u8).collect();
        let chunks = bytes.chunks(100_000).map(|chunk| Ok(Bytes::copy_from_slice(chunk))).collect();
        let version = Version::new();
        let written = local.put(version, content(chunks), entered()).await.unwrap();
        assert_eq!(written.size, bytes.len() as u64);
        let expected = digest::digest(&digest::SHA256, &bytes);
        assert_eq!(written.sha256, expected.as_ref());
        assert_eq!(files(root.path()), [root.path().join("blobs").join(version.path())]);
        assert_eq!(read(&local, version, 0..written.size).await.unwrap(), bytes);
        assert_eq!(read(&local, version, 5..300_000).await.unwrap(), bytes[5..300_000]);
        assert_eq!(read(&local, version, 9..9).await.unwrap(), b"");
        let beyond = read(&local, version, 0..written.size + 1).await;
        assert!(matches!(beyond, Err(BlobError::NotFound)), "a file that is too short is not served");
        let other = Version::new();
        local.copy(version, other).await.unwrap();
        local.delete(version).await.unwrap();
        local.delete(version).await.unwrap();
        assert_eq!(local.head(version).await.unwrap(), None);
        assert_eq!(read(&local, other, 0..written.size).await.unwrap(), bytes);
        let listed: Vec<Entry> = local.list().try_collect().await.unwrap();
        assert_eq!(
            listed.iter().map(|entry| (entry.version, entry.size)).collect::<Vec<_>>(),
            [(other, written.size)]
        );
        assert_eq!(local.downloads.running(), 0);
    }

    #[tokio::test]
    async fn a_broken_stream_leaves_nothing() {
        let root = tempfile::tempdir().unwrap();
        let local = Local::open(root.path()).await.unwrap();
        let chunks = vec![Ok(Bytes::from(vec![1; 2 * WRITE])), Err(BlobError::Interrupted)];
        let result = local.put(Version::new(), content(chunks), entered()).await;
        assert!(matches!(result, Err(BlobError::Interrupted)));
        let dropped = local.put(Version::new(), stream::pending().boxed(), entered());
        assert!(dropped.now_or_never().is_none());
        // The writing task may still hold its file for a moment.
        tokio::time::timeout(std::time::Duration::from_secs(5), async {
            while !files(root.path()).is_empty() {
                tokio::task::yield_now().await;
            }
        })
        .await
        .expect("the staged file is removed");
    }

    #[tokio::test]
    async fn bytes_that_the_ledger_does_not_know_stay_staged() {
        let root = tempfile::tempdir().unwrap();
        let local = Local::open(root.path()).await.unwrap();
        let bytes = || content(vec![Ok(Bytes::from_static(b"whole"))]);
        let refused = std::future::ready(Err(BlobError::Interrupted)).boxed();
        assert!(local.put(Version::new(), bytes(), refused).await.is_err());
        assert!(files(root.path()).is_empty());

        let (version, whole) = (Version::new(), async |local: &Local| {
            let staged: Vec<Entry> = local.unfinished().try_collect().await.unwrap();
            staged.iter().any(|entry| entry.size == 5)
        });
        let (tell, told) = tokio::sync::oneshot::channel();
        let told = told.map(|_| Ok(())).boxed();
        let mut storing = local.put(version, bytes(), told);
        while !whole(&local).await {
            assert!((&mut storing).now_or_never().is_none());
        }
        assert_eq!(local.head(version).await.unwrap(), None, "nobody sees it before");
        assert_eq!(local.list().count().await, 0);
        tell.send(()).unwrap();
        storing.await.unwrap();
        assert_eq!(read(&local, version, 0..5).await.unwrap(), b"whole");
        local.discard(version).await.unwrap();
        assert_eq!(local.head(version).await.unwrap(), Some(5), "what is finished is not discarded");
    }

    #[tokio::test]
    async fn nothing_is_empty_and_can_be_read() {
        let root = tempfile::tempdir().unwrap();
        let local = Local::open(root.path()).await.unwrap();
        let version = Version::new();
        assert_eq!(local.put(version, content(Vec::new()), entered()).await.unwrap().size, 0);
        assert_eq!(read(&local, version, 0..0).await.unwrap(), b"");
        assert!(matches!(read(&local, Version::new(), 0..0).await, Err(BlobError::NotFound)));
    }
}
