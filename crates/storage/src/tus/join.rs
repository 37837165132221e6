//! The end of an upload: all pieces are there and become one object.

use futures_util::stream::{self, StreamExt, TryStreamExt};

use super::JOINING;
use super::error::Refusal;
use super::receive::detached;
use super::store::{Part, Upload};
use crate::blobs::{Content, Version};
use crate::ledger::Stored;
use crate::objects::{Metadata, NewObject};
use crate::storage::Caller;
use crate::{Error, Storage, failpoints};

impl Upload {
    /// What the upload becomes.
    pub(super) fn object(&self) -> NewObject {
        NewObject {
            bucket: self.id.bucket.clone(),
            name: self.id.name.clone(),
            upsert: self.upsert,
            mimetype: self.mimetype.clone(),
            content_length: self.length,
            user_metadata: self.user_metadata.clone(),
        }
    }
}

impl Storage {
    /// Joins the pieces of an upload that has all of them, whether the client waits or not.
    pub(super) async fn join_detached(&self, caller: Caller, upload: Upload) -> Result<(), Refusal> {
        let storage = self.clone();
        detached(async move { storage.join_pieces(&caller, &upload).await }).await
    }

    /// Makes one object of an upload's pieces, as the caller. Only one server does so at a time; the others are told
    /// to ask again.
    pub(super) async fn join_pieces(&self, caller: &Caller, upload: &Upload) -> Result<(), Refusal> {
        let Some((writer, joined)) = self.claim_joining(upload).await? else {
            return match self.find_upload(&upload.id).await?.completed {
                true => Ok(()),
                false => Err(Refusal::Locked),
            };
        };
        failpoints::reach("resumable.claimed");
        let outcome = self.join_as(caller, upload, writer, joined).await;
        if outcome.is_err()
            && let Err(error) = self.release_joining(upload, writer).await
        {
            tracing::debug!(%error, "an upload stays locked for a minute");
        }
        outcome
    }

    async fn join_as(
        &self,
        caller: &Caller,
        upload: &Upload,
        writer: i64,
        joined: Option<String>,
    ) -> Result<(), Refusal> {
        // A server may have died between the object's row and the upload's.
        if let Some(version) = joined
            && self.has_row(&version).await?
        {
            return Ok(self.complete_upload(upload, writer).await?);
        }
        let object = upload.object();
        let rules = self.rules(&object.bucket).await?;
        self.check_type(&rules, &object.name, &object.mimetype)?;
        if upload.received > self.size_limit_of(&rules, &object.name) {
            return Err(Refusal::TooLarge);
        }
        self.check_upload(caller, &object).await?;
        let parts = self.parts_of(upload).await?;
        let mut end = 0;
        for part in &parts {
            if part.start != end {
                return Err(Error::BytesMissing.into());
            }
            end += part.size;
        }
        if end != upload.received {
            return Err(Error::BytesMissing.into());
        }
        let stored = self.join_blobs(upload, writer, parts).await?;
        self.keep_joining(upload, writer, Some(stored.pending.version())).await?;
        failpoints::reach("resumable.joined");
        let metadata = Metadata::new(&stored.written, &object.mimetype, &upload.cache_control, None);
        self.commit_upload(caller, &object, &metadata, stored).await?;
        self.complete_upload(upload, writer).await?;
        failpoints::reach("resumable.completed");
        Ok(())
    }

    async fn join_blobs(&self, upload: &Upload, writer: i64, parts: Vec<Part>) -> Result<Stored, Refusal> {
        let pieces = parts.into_iter().map(|part| (part.version, part.size)).collect();
        let mut storing = std::pin::pin!(self.receive(self.joined(pieces)));
        loop {
            match tokio::time::timeout(JOINING / 3, &mut storing).await {
                Ok(stored) => {
                    let stored = stored?;
                    return match stored.written.size == upload.received {
                        true => Ok(stored),
                        false => Err(Error::BytesMissing.into()),
                    };
                }
                Err(_) => self.keep_joining(upload, writer, None).await?,
            }
        }
    }

    /// The bytes of several blobs, one after the other.
    pub(crate) fn joined(&self, pieces: Vec<(Version, u64)>) -> Content {
        let blobs = self.blobs().clone();
        stream::iter(pieces)
            .then(move |(version, size)| {
                let blobs = blobs.clone();
                async move { blobs.get(version, 0..size).await }
            })
            .try_flatten()
            .boxed()
    }
}
