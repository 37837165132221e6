//! The ledger of bytes that no row refers to: uploads on their way, and what the sweeper will delete.
//!
//! A blob is entered as pending before it leaves the staging folder, and a trigger on `storage.objects` strikes it out
//! in the transaction that gives it a row. Whatever fails in between, the entry is left and the sweeper finds it; it also
//! ends, by their age, staged files that have no entry.

pub mod sweeper;

use std::time::Duration;

use futures_util::future::{Either, select};
use futures_util::{FutureExt, TryFutureExt};
use longhouse_database::ServiceReason;
use tokio::sync::oneshot;

use crate::blobs::{BlobError, Content, Version, Written};
use crate::{Error, Storage, failpoints};

/// How often a running upload says that it still runs.
const TOUCH: Duration = Duration::from_secs(60);

const WRITE: ServiceReason = ServiceReason::because("the ledger of bytes without a row belongs to no user");

const BEGIN: &str = "insert into storage.blobs (version, state) values ($1, 'pending')";
const TOUCHED: &str = "update storage.blobs set touched_at = now() where version = $1 and state = 'pending'";
const GIVE_UP: &str = "update storage.blobs set state = 'condemned', touched_at = now() where version = $1 and state = 'pending'";
const STRIKE: &str = "delete from storage.blobs where version = $1 and state = 'condemned'";

/// Bytes that are being stored, or are stored and have no row yet. Dropped without [`Self::settle`], they are removed
/// at once if that works, else by the sweeper.
#[derive(Debug)]
pub struct Pending {
    storage: Storage,
    version: Version,
    settled: bool,
}

/// Durable bytes without a row.
#[derive(Debug)]
pub struct Stored {
    /// Their entry.
    pub pending: Pending,
    /// Size and hash.
    pub written: Written,
}

impl Storage {
    /// Enters a new version into the ledger.
    ///
    /// # Errors
    /// The database.
    pub async fn begin(&self) -> Result<Pending, Error> {
        let pending = self.pending();
        pending.enter().await?;
        Ok(pending)
    }

    fn pending(&self) -> Pending {
        Pending { storage: self.clone(), version: Version::new(), settled: false }
    }

    /// Stores a stream as a new version, durably. Its entry is made meanwhile.
    ///
    /// # Errors
    /// The stream's own error, or why it cannot be stored. Nothing is left behind.
    pub async fn receive(&self, content: Content) -> Result<Stored, Error> {
        let pending = self.pending();
        let (tell, told) = oneshot::channel();
        let entering = async {
            pending.enter().await?;
            // Nobody listens any more when storing has failed.
            let _ = tell.send(());
            Ok::<(), Error>(())
        };
        let entered = told.map_err(|_| BlobError::Interrupted).boxed();
        let storing = pending.alive(self.blobs().put(pending.version, content, entered));
        let result = match select(std::pin::pin!(entering), std::pin::pin!(storing)).await {
            Either::Left((entered, storing)) => {
                entered?;
                storing.await
            }
            Either::Right((result, entering)) => {
                // An entry that came later than it is given up would wait for the sweeper.
                entering.await?;
                result
            }
        };
        let written = result?;
        failpoints::reach("upload.durable");
        Ok(Stored { pending, written })
    }
}

impl Pending {
    /// The version that the bytes are stored under.
    pub fn version(&self) -> Version {
        self.version
    }

    /// Makes the entry, durably.
    async fn enter(&self) -> Result<(), Error> {
        self.storage.database().as_service(WRITE).execute(BEGIN, &[&self.version.to_string()]).await?;
        failpoints::reach("upload.pending");
        Ok(())
    }

    /// Waits for work on these bytes, and keeps telling the sweeper that it goes on.
    ///
    /// # Errors
    /// The work's, or the database's.
    pub async fn alive<T>(&self, work: impl Future<Output = Result<T, BlobError>>) -> Result<T, Error> {
        let mut work = std::pin::pin!(work);
        loop {
            match tokio::time::timeout(TOUCH, &mut work).await {
                Ok(result) => return Ok(result?),
                Err(_) => self.touch().await?,
            }
        }
    }

    /// Tells the sweeper once that these bytes are still wanted.
    ///
    /// # Errors
    /// [`Error::Interrupted`] when the sweeper has given them up, or the database.
    pub async fn touch(&self) -> Result<(), Error> {
        let acting = self.storage.database().as_service(WRITE);
        match acting.execute(TOUCHED, &[&self.version.to_string()]).await? {
            0 => Err(Error::Interrupted),
            _ => Ok(()),
        }
    }

    /// The transaction that gave the bytes a row is committed.
    pub fn settle(mut self) {
        self.settled = true;
    }
}

impl Drop for Pending {
    fn drop(&mut self) {
        if self.settled {
            return;
        }
        let (storage, version) = (self.storage.clone(), self.version);
        if let Ok(runtime) = tokio::runtime::Handle::try_current() {
            runtime.spawn(async move {
                if let Err(error) = give_up(&storage, version).await {
                    tracing::debug!(%error, %version, "an unfinished upload is left to the sweeper");
                }
            });
        }
    }
}

/// Removes bytes unless they got a row after all: whoever dropped the upload may not know how its commit ended.
async fn give_up(storage: &Storage, version: Version) -> Result<(), Error> {
    let acting = storage.database().as_service(WRITE);
    let text = version.to_string();
    if acting.execute(GIVE_UP, &[&text]).await? == 0 {
        return Ok(());
    }
    // No row ever named them, so nobody reads them.
    storage.blobs().delete(version).await?;
    acting.execute(STRIKE, &[&text]).await?;
    Ok(())
}
