//! SQL of multipart uploads. Their rows belong to the server; whether somebody may upload, the rows of objects say.

use chrono::{DateTime, Utc};
use longhouse_database::tokio_postgres::Row;
use longhouse_database::{End, ServiceReason, Step};
use serde_json::{Value, json};
use tokio_postgres::types::ToSql;
use uuid::Uuid;

use crate::blobs::Version;
use crate::ledger::Stored;
use crate::names::{BucketId, ObjectName};
use crate::{Error, Storage};

const REASON: ServiceReason = ServiceReason::because(
    "parts of an upload belong to no user until the whole has a row, which policies decide",
);

const INSERT: &str = "
    insert into storage.s3_multipart_uploads
      (id, upload_signature, bucket_id, key, version, owner_id, user_metadata, metadata)
    values ($1, '', $2, $3, $1, $4, $5, $6)";
const FIND: &str = "
    select id, key, owner_id, user_metadata, metadata, created_at
    from storage.s3_multipart_uploads where id = $1 and bucket_id = $2 and key = $3";
// A part may be sent again: the newer one replaces it. The ledger's entry goes with the part's row, or not at all.
const PUT_PART: &str = "
    with entry as (
      delete from storage.blobs where version = $4 and state = 'pending' returning version
    ), former as (
      select coalesce(sum(size), 0)::bigint as size
      from storage.s3_multipart_uploads_parts where upload_id = $1 and part_number = $2
    ), upload as (
      update storage.s3_multipart_uploads u set in_progress_size = u.in_progress_size + $3 - former.size
      from former where u.id = $1 and u.in_progress_size + $3 - former.size <= $6
      returning u.id, u.bucket_id, u.key, u.owner_id
    )
    insert into storage.s3_multipart_uploads_parts (upload_id, part_number, size, bucket_id, key, owner_id, version, etag)
    select upload.id, $2, $3, upload.bucket_id, upload.key, upload.owner_id, entry.version, $5 from upload, entry
    on conflict (upload_id, part_number) do update set
      size = excluded.size, version = excluded.version, etag = excluded.etag, created_at = now()
    returning 1";
const PARTS: &str = "
    select part_number, size, version, etag, created_at from storage.s3_multipart_uploads_parts
    where upload_id = $1 and part_number > $2 order by part_number limit $3";
const DELETE: &str = "delete from storage.s3_multipart_uploads where id = $1 returning 1";
// As of objects: what lies deeper than the delimiter counts once.
const LIST: &str = "
    with matching as (
      select u.*, case when $3 = '' then 0 else position($3 in substr(u.key, length($2) + 1)) end as place
      from storage.s3_multipart_uploads u
      where u.bucket_id = $1 and left(u.key, length($2)) = $2 and ($4 or u.owner_id = $5)
    ), entries as (
      select left(m.key, length($2) + m.place + length($3) - 1) as key, null::text as id,
        null::timestamptz as created_at
      from matching m where m.place > 0 group by 1
      union all
      select m.key, m.id, m.created_at from matching m where m.place = 0
    )
    select key, id, created_at from entries
    where key collate \"C\" > $6 collate \"C\" or (key = $6 and $7 <> '' and id > $7)
    order by key collate \"C\", id limit $8";

/// An upload in parts.
pub(super) struct Upload {
    pub(super) id: String,
    pub(super) bucket: BucketId,
    pub(super) name: ObjectName,
    pub(super) mimetype: String,
    pub(super) cache_control: String,
    pub(super) user_metadata: Option<Value>,
}

/// One of its parts.
pub(super) struct Part {
    pub(super) number: i32,
    pub(super) size: u64,
    pub(super) version: Version,
    /// Without quotes.
    pub(super) etag: String,
    pub(super) created_at: DateTime<Utc>,
}

/// Uploads of a bucket, a page of them.
pub(super) struct Uploads<'a> {
    pub(super) prefix: &'a str,
    pub(super) delimiter: &'a str,
    /// Whose; unset: everybody's.
    pub(super) owner: Option<Option<&'a str>>,
    pub(super) after: (&'a str, &'a str),
    pub(super) limit: i64,
}

/// One of them, or a folder without an id.
pub(super) struct Listed {
    pub(super) key: String,
    pub(super) id: Option<String>,
    pub(super) created_at: Option<DateTime<Utc>>,
}

fn read(row: &Row) -> Result<Part, Error> {
    Ok(Part {
        number: row.get(0),
        size: u64::try_from(row.get::<_, i64>(1)).unwrap_or(0),
        version: Version::parse(row.get(2)).ok_or(Error::BytesMissing)?,
        etag: row.get(3),
        created_at: row.get(4),
    })
}

impl Storage {
    /// Begins an upload and names it.
    pub(super) async fn insert_multipart(&self, upload: &Upload, owner: Option<&str>) -> Result<(), Error> {
        let metadata = json!({ "mimetype": upload.mimetype, "cacheControl": upload.cache_control });
        let params: [&(dyn ToSql + Sync); 6] = [
            &upload.id,
            &upload.bucket.as_str(),
            &upload.name.as_str(),
            &owner,
            &upload.user_metadata,
            &metadata,
        ];
        self.database().as_service(REASON).query(INSERT, &params).await?;
        Ok(())
    }

    pub(super) async fn find_multipart(
        &self,
        id: &str,
        bucket: BucketId,
        name: ObjectName,
    ) -> Result<Option<Upload>, Error> {
        if Uuid::try_parse(id).is_err() {
            return Ok(None);
        }
        let acting = self.database().as_service(REASON);
        let row = acting.query_opt(FIND, &[&id, &bucket.as_str(), &name.as_str()]).await?;
        Ok(row.map(|row| {
            let metadata: Option<Value> = row.get(4);
            let text = |name: &str, default: &str| {
                let text = metadata.as_ref().and_then(|metadata| metadata.get(name)).and_then(Value::as_str);
                text.unwrap_or(default).to_owned()
            };
            Upload {
                id: row.get(0),
                bucket,
                name,
                mimetype: text("mimetype", "application/octet-stream"),
                cache_control: text("cacheControl", "no-cache"),
                user_metadata: row.get(3),
            }
        }))
    }

    /// Adds a durable part, unless the upload is gone or all its parts together would be larger than allowed.
    pub(super) async fn put_part(
        &self,
        upload: &Upload,
        number: i32,
        stored: Stored,
        limit: u64,
    ) -> Result<bool, Error> {
        let size = i64::try_from(stored.written.size).map_err(|_| Error::TooLarge("object"))?;
        let (version, etag) = (stored.pending.version().to_string(), hex::encode(stored.written.sha256));
        let limit = i64::try_from(limit).unwrap_or(i64::MAX);
        let params: [&(dyn ToSql + Sync); 6] = [&upload.id, &number, &size, &version, &etag, &limit];
        let added = |rows: &[Vec<Row>]| rows.iter().all(|rows| !rows.is_empty());
        let steps = [Step { sql: PUT_PART, params: &params }];
        let rows = self.database().as_service(REASON).pipeline(&[], &steps, End::CommitIf(&added)).await?;
        if added(&rows) {
            stored.pending.settle();
            return Ok(true);
        }
        Ok(false)
    }

    /// Parts after a number, in order.
    pub(super) async fn parts_of_multipart(
        &self,
        upload: &Upload,
        after: i32,
        limit: i64,
    ) -> Result<Vec<Part>, Error> {
        let rows = self.database().as_service(REASON).query(PARTS, &[&upload.id, &after, &limit]).await?;
        rows.iter().map(read).collect()
    }

    /// Forgets an upload; the ledger then knows its parts.
    pub(super) async fn delete_multipart(&self, upload: &Upload) -> Result<bool, Error> {
        Ok(self.database().as_service(REASON).query_opt(DELETE, &[&upload.id]).await?.is_some())
    }

    pub(super) async fn list_multiparts(
        &self,
        bucket: &BucketId,
        uploads: &Uploads<'_>,
    ) -> Result<Vec<Listed>, Error> {
        let params: [&(dyn ToSql + Sync); 8] = [
            &bucket.as_str(),
            &uploads.prefix,
            &uploads.delimiter,
            &uploads.owner.is_none(),
            &uploads.owner.flatten(),
            &uploads.after.0,
            &uploads.after.1,
            &uploads.limit,
        ];
        let rows = self.database().as_service(REASON).query(LIST, &params).await?;
        Ok(rows
            .iter()
            .map(|row| Listed { key: row.get(0), id: row.get(1), created_at: row.get(2) })
            .collect())
    }
}
