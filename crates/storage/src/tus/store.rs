//! SQL of resumable uploads. Their rows belong to the server; whether somebody may upload, the rows of objects say.

use chrono::{DateTime, Utc};
use longhouse_database::tokio_postgres::Row;
use longhouse_database::{End, ServiceReason, Step};
use serde_json::Value;
use tokio_postgres::types::ToSql;
use uuid::Uuid;

use super::JOINING;
use super::error::Refusal;
use super::id::UploadId;
use crate::blobs::Version;
use crate::ledger::{Pending, Stored};
use crate::names::{BucketId, ObjectName};
use crate::{Error, Storage, failpoints};

const REASON: ServiceReason = ServiceReason::because(
    "pieces of an upload belong to no user until the whole has a row, which policies decide",
);

const INSERT: &str = "
    insert into storage.resumable_uploads
      (id, bucket_id, name, upsert, owner_id, mimetype, cache_control, user_metadata, upload_metadata, length)
    values ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10)
    returning expires_at";
const FIND: &str = "
    select bucket_id, name, upsert, mimetype, cache_control, user_metadata, upload_metadata, length, received,
      completed_at is not null, expires_at, expires_at < now()
    from storage.resumable_uploads where id = $1";
const TAKE_OVER: &str = "
    update storage.resumable_uploads set writer = writer + 1, length = coalesce(length, $3)
    where id = $1 and received = $2 and completed_at is null
      and (joining_until is null or joining_until < now())
    returning writer";
// The ledger's entry goes with the piece's row, or not at all: see `append`.
const APPEND: &str = "
    with entry as (
      delete from storage.blobs where version = $5 and state = 'pending' returning version
    ), upload as (
      update storage.resumable_uploads set received = received + $4
      where id = $1 and writer = $2 and received = $3 and completed_at is null
      returning id
    )
    insert into storage.resumable_upload_parts (upload_id, start, size, version)
    select upload.id, $3, $4, entry.version from upload, entry
    returning 1";
const CLAIM: &str = "
    update storage.resumable_uploads set
      writer = writer + 1, joining_until = now() + make_interval(secs => $2)
    where id = $1 and completed_at is null and received = length
      and (joining_until is null or joining_until < now())
    returning writer, joined_version";
const KEEP: &str = "
    update storage.resumable_uploads set
      joining_until = now() + make_interval(secs => $3), joined_version = coalesce($4, joined_version)
    where id = $1 and writer = $2 and completed_at is null
    returning 1";
const RELEASE: &str = "
    update storage.resumable_uploads set joining_until = null where id = $1 and writer = $2 and completed_at is null";
const PARTS: &str = "
    select start, size, version from storage.resumable_upload_parts where upload_id = $1 order by start";
const HAS_ROW: &str = "select 1 from storage.objects where version = $1";
const COMPLETE: &str = "
    update storage.resumable_uploads set completed_at = now(), joining_until = null where id = $1 and writer = $2
    returning 1";
const DROP_PARTS: &str = "delete from storage.resumable_upload_parts where upload_id = $1";
const DELETE: &str =
    "delete from storage.resumable_uploads where id = $1 and completed_at is null returning 1";
const EXPIRE: &str = "
    delete from storage.resumable_uploads where id in (
      select id from storage.resumable_uploads where expires_at < now()
        and (joining_until is null or joining_until < now())
      order by expires_at limit $1 for update skip locked)";

/// Uploads that one statement forgets.
const EXPIRE_BATCH: i64 = 100;

/// An upload as its row says.
#[derive(Debug, Clone)]
pub(super) struct Upload {
    pub(super) id: UploadId,
    pub(super) upsert: bool,
    pub(super) mimetype: String,
    pub(super) cache_control: String,
    pub(super) user_metadata: Option<Value>,
    pub(super) upload_metadata: Option<String>,
    pub(super) length: Option<u64>,
    pub(super) received: u64,
    pub(super) completed: bool,
    pub(super) expires_at: DateTime<Utc>,
}

/// One piece.
pub(super) struct Part {
    pub(super) start: u64,
    pub(super) size: u64,
    pub(super) version: Version,
}

fn signed(bytes: u64) -> Result<i64, Refusal> {
    i64::try_from(bytes).map_err(|_| Refusal::TooLarge)
}

fn unsigned(bytes: i64) -> u64 {
    u64::try_from(bytes).unwrap_or(0)
}

fn read(id: Uuid, row: &Row) -> Result<Upload, Error> {
    Ok(Upload {
        id: UploadId { bucket: BucketId::parse(row.get(0))?, name: ObjectName::parse(row.get(1))?, id },
        upsert: row.get(2),
        mimetype: row.get(3),
        cache_control: row.get(4),
        user_metadata: row.get(5),
        upload_metadata: row.get(6),
        length: row.get::<_, Option<i64>>(7).map(unsigned),
        received: unsigned(row.get(8)),
        completed: row.get(9),
        expires_at: row.get(10),
    })
}

impl Storage {
    /// Enters a new upload, and says until when it can be completed.
    pub(super) async fn insert_upload(
        &self,
        upload: &Upload,
        owner: Option<&str>,
    ) -> Result<DateTime<Utc>, Refusal> {
        let length = upload.length.map(signed).transpose()?;
        let rows = self
            .service(REASON)
            .query(
                INSERT,
                &[
                    &upload.id.id,
                    &upload.id.bucket.as_str(),
                    &upload.id.name.as_str(),
                    &upload.upsert,
                    &owner,
                    &upload.mimetype,
                    &upload.cache_control,
                    &upload.user_metadata,
                    &upload.upload_metadata,
                    &length,
                ],
            )
            .await
            .map_err(Error::from)?;
        rows.first().map(|row| row.get(0)).ok_or(Refusal::NoSuchUpload)
    }

    /// An upload that its URL names.
    pub(super) async fn find_upload(&self, id: &UploadId) -> Result<Upload, Refusal> {
        let row = self.service(REASON).query_opt(FIND, &[&id.id]).await.map_err(Error::from)?;
        let row = row.ok_or(Refusal::NoSuchUpload)?;
        let upload = read(id.id, &row)?;
        match row.get::<_, bool>(11) {
            _ if upload.id != *id => Err(Refusal::NoSuchUpload),
            true => Err(Refusal::Expired),
            false => Ok(upload),
        }
    }

    /// Becomes the upload's writer at an offset; whoever wrote before can add no more. A length that was not known
    /// before is written down.
    pub(super) async fn take_over(
        &self,
        upload: &Upload,
        offset: u64,
        length: Option<u64>,
    ) -> Result<i64, Refusal> {
        let length = length.map(signed).transpose()?;
        let row =
            self.service(REASON).query_opt(TAKE_OVER, &[&upload.id.id, &signed(offset)?, &length]).await;
        if let Some(row) = row.map_err(Error::from)? {
            return Ok(row.get(0));
        }
        let now = self.find_upload(&upload.id).await?;
        if now.received == offset && !now.completed {
            return Err(Refusal::Locked);
        }
        Err(Refusal::Offset(now.received))
    }

    /// Adds durable pieces, all of them or none, as long as `writer` is the newest.
    pub(super) async fn append(
        &self,
        upload: &Upload,
        writer: i64,
        offset: u64,
        pieces: Vec<Stored>,
    ) -> Result<u64, Refusal> {
        let mut start = signed(offset)?;
        let mut values = Vec::with_capacity(pieces.len());
        for piece in &pieces {
            let size = signed(piece.written.size)?;
            values.push((start, size, piece.pending.version().to_string()));
            start += size;
        }
        let params: Vec<[&(dyn ToSql + Sync); 5]> = values
            .iter()
            .map(|(start, size, version)| -> [&(dyn ToSql + Sync); 5] {
                [&upload.id.id, &writer, start, size, version]
            })
            .collect();
        let steps: Vec<Step<'_>> = params.iter().map(|params| Step { sql: APPEND, params }).collect();
        let added = |rows: &[Vec<Row>]| rows.iter().all(|rows| !rows.is_empty());
        let rows =
            self.service(REASON).pipeline(&[], &steps, End::CommitIf(&added)).await.map_err(Error::from)?;
        if !added(&rows) {
            // Deleted, expired, or somebody else writes now; the pieces are cleaned up as they are dropped.
            self.find_upload(&upload.id).await?;
            return Err(Refusal::Locked);
        }
        pieces.into_iter().for_each(|piece| Pending::settle(piece.pending));
        failpoints::reach("resumable.received");
        Ok(unsigned(start))
    }

    /// Becomes who joins the pieces. Returns the number to write with, and what an earlier attempt had made of them.
    pub(super) async fn claim_joining(
        &self,
        upload: &Upload,
    ) -> Result<Option<(i64, Option<String>)>, Error> {
        let row = self.service(REASON).query_opt(CLAIM, &[&upload.id.id, &JOINING.as_secs_f64()]).await?;
        Ok(row.map(|row| (row.get(0), row.get(1))))
    }

    /// Says that joining goes on, or what blob it made.
    pub(super) async fn keep_joining(
        &self,
        upload: &Upload,
        writer: i64,
        joined: Option<Version>,
    ) -> Result<(), Refusal> {
        let joined = joined.map(|version| version.to_string());
        let params: [&(dyn ToSql + Sync); 4] = [&upload.id.id, &writer, &JOINING.as_secs_f64(), &joined];
        match self.service(REASON).query_opt(KEEP, &params).await.map_err(Error::from)? {
            Some(_) => Ok(()),
            None => Err(Refusal::Locked),
        }
    }

    /// Lets others try.
    pub(super) async fn release_joining(&self, upload: &Upload, writer: i64) -> Result<(), Error> {
        self.service(REASON).execute(RELEASE, &[&upload.id.id, &writer]).await?;
        Ok(())
    }

    pub(super) async fn parts_of(&self, upload: &Upload) -> Result<Vec<Part>, Error> {
        let rows = self.service(REASON).query(PARTS, &[&upload.id.id]).await?;
        rows.iter()
            .map(|row| {
                let version = Version::parse(row.get(2)).ok_or(Error::BytesMissing)?;
                Ok(Part { start: unsigned(row.get(0)), size: unsigned(row.get(1)), version })
            })
            .collect()
    }

    /// Whether a blob has become an object.
    pub(super) async fn has_row(&self, version: &str) -> Result<bool, Error> {
        Ok(self.service(REASON).query_opt(HAS_ROW, &[&version]).await?.is_some())
    }

    /// The whole has its row: the pieces go.
    pub(super) async fn complete_upload(&self, upload: &Upload, writer: i64) -> Result<(), Error> {
        let steps = [
            Step { sql: COMPLETE, params: &[&upload.id.id, &writer] },
            Step { sql: DROP_PARTS, params: &[&upload.id.id] },
        ];
        let ours = |rows: &[Vec<Row>]| rows.first().is_some_and(|rows| !rows.is_empty());
        self.service(REASON).pipeline(&[], &steps, End::CommitIf(&ours)).await?;
        Ok(())
    }

    /// Forgets an upload that is not completed.
    pub(super) async fn delete_upload(&self, upload: &Upload) -> Result<(), Refusal> {
        match self.service(REASON).query_opt(DELETE, &[&upload.id.id]).await.map_err(Error::from)? {
            Some(_) => Ok(()),
            None if self.find_upload(&upload.id).await?.completed => Err(Refusal::Completed),
            None => Err(Refusal::NoSuchUpload),
        }
    }

    /// Forgets uploads whose time has passed; the ledger then knows their pieces. Returns how many.
    ///
    /// # Errors
    /// The database.
    pub async fn expire_uploads(&self) -> Result<u64, Error> {
        let mut total = 0;
        loop {
            let gone = self.service(REASON).execute(EXPIRE, &[&EXPIRE_BATCH]).await?;
            total += gone;
            if gone < EXPIRE_BATCH as u64 {
                return Ok(total);
            }
        }
    }

    fn service(&self, reason: ServiceReason) -> longhouse_database::Acting<'_> {
        self.database().as_service(reason)
    }
}
