//! SQL of objects. All of it runs as the caller, unless it says why not.

use chrono::{DateTime, Utc};
use longhouse_database::tokio_postgres::Row;
use longhouse_database::{End, ServiceReason, Step};
use serde_json::Value;
use tokio_postgres::types::ToSql;
use uuid::Uuid;

use super::upload::NewObject;
use super::{Found, Metadata};
use crate::ledger::Stored;
use crate::names::{BucketId, ObjectName};
use crate::storage::Caller;
use crate::{Error, Storage, failpoints};

const PUBLIC: ServiceReason = ServiceReason::because("objects of public buckets are everybody's to read");
const EXISTENCE: ServiceReason =
    ServiceReason::because("deleting tells a missing object from one that the caller may not delete");

// Nothing is returned: uploading needs no right to read.
const CHECK_INSERT: &str = "
    insert into storage.objects (bucket_id, name, owner, owner_id, metadata, user_metadata)
    values ($1, $2, $3, $4, $5, $6)";
const CHECK_UPSERT: &str = "
    insert into storage.objects (bucket_id, name, owner, owner_id, metadata, user_metadata)
    values ($1, $2, $3, $4, $5, $6)
    on conflict (bucket_id, name) do update set
      owner = excluded.owner, owner_id = excluded.owner_id, metadata = excluded.metadata,
      user_metadata = excluded.user_metadata";
const INSERT: &str = "
    insert into storage.objects (bucket_id, name, owner, owner_id, metadata, user_metadata, version, id)
    values ($1, $2, $3, $4, $5, $6, $7, $8)";
const UPSERT: &str = "
    insert into storage.objects (bucket_id, name, owner, owner_id, metadata, user_metadata, version, id)
    values ($1, $2, $3, $4, $5, $6, $7, $8)
    on conflict (bucket_id, name) do update set
      owner = excluded.owner, owner_id = excluded.owner_id, metadata = excluded.metadata,
      user_metadata = excluded.user_metadata, version = excluded.version, last_accessed_at = now()
    returning id";
const FIND: &str = "
    select id, bucket_id, name, owner, owner_id, version, metadata, user_metadata, created_at, updated_at,
      last_accessed_at
    from storage.objects where bucket_id = $1 and name = $2";
const FIND_WITH_BUCKET: &str = "
    select o.id, b.id, o.name, o.owner, o.owner_id, o.version, o.metadata, o.user_metadata, o.created_at,
      o.updated_at, o.last_accessed_at, coalesce(b.public, false)
    from storage.buckets b left join storage.objects o on o.bucket_id = b.id and o.name = $2
    where b.id = $1";
const EXISTS: &str = "select 1 from storage.objects where bucket_id = $1 and name = $2";
const EXISTING: &str = "select name from storage.objects where bucket_id = $1 and name = any($2)";
const DELETE: &str = "delete from storage.objects where bucket_id = $1 and name = $2 returning 1";
const DELETE_MANY: &str = "
    delete from storage.objects where bucket_id = $1 and name = any($2)
    returning id, bucket_id, name, owner, owner_id, version, metadata, user_metadata, created_at, updated_at,
      last_accessed_at";
const RENAME: &str = "
    update storage.objects set
      bucket_id = $3, name = $4, owner = case when $5::text is null then owner else $6 end,
      owner_id = coalesce($5, owner_id)
    where bucket_id = $1 and name = $2
    returning id";

/// A row of `storage.objects`.
#[derive(Debug, Clone)]
pub struct Object {
    /// Its id, which stays when the object is replaced or moved.
    pub id: Uuid,
    /// Its bucket.
    pub bucket_id: String,
    /// Its name within the bucket.
    pub name: String,
    /// Who uploaded it, where that is a user.
    pub owner: Option<Uuid>,
    /// Who uploaded it.
    pub owner_id: Option<String>,
    /// Where its bytes are; see [`crate::blobs::Version`].
    pub version: Option<String>,
    /// What the server says about the bytes; see [`Metadata`].
    pub metadata: Option<Value>,
    /// What the uploader says about it.
    pub user_metadata: Option<Value>,
    /// When it was first uploaded.
    pub created_at: Option<DateTime<Utc>>,
    /// When it was last replaced, moved or changed.
    pub updated_at: Option<DateTime<Utc>>,
    /// When it was last replaced; reading does not write.
    pub last_accessed_at: Option<DateTime<Utc>>,
}

impl Object {
    fn read(row: &Row) -> Self {
        Self {
            id: row.get(0),
            bucket_id: row.get::<_, Option<String>>(1).unwrap_or_default(),
            name: row.get::<_, Option<String>>(2).unwrap_or_default(),
            owner: row.get(3),
            owner_id: row.get(4),
            version: row.get(5),
            metadata: row.get(6),
            user_metadata: row.get(7),
            created_at: row.get(8),
            updated_at: row.get(9),
            last_accessed_at: row.get(10),
        }
    }

    /// What the server knows about the bytes, if it stored them.
    pub fn described(&self) -> Option<Metadata> {
        self.metadata.as_ref().and_then(Metadata::read)
    }
}

/// An object before it is stored, as parameters.
struct Draft<'a> {
    bucket: &'a str,
    name: &'a str,
    owner: Option<Uuid>,
    owner_id: Option<&'a str>,
    metadata: Value,
    user_metadata: Option<&'a Value>,
}

impl<'a> Draft<'a> {
    fn new(caller: &'a Caller, object: &'a NewObject, metadata: Value) -> Self {
        Self {
            bucket: object.bucket.as_str(),
            name: object.name.as_str(),
            owner: caller.owner(),
            owner_id: caller.owner_id(),
            metadata,
            user_metadata: object.user_metadata.as_ref(),
        }
    }

    fn params(&self) -> [&(dyn ToSql + Sync); 6] {
        [&self.bucket, &self.name, &self.owner, &self.owner_id, &self.metadata, &self.user_metadata]
    }
}

impl Storage {
    /// Whether the caller may upload this object: tried in a transaction that is rolled back, so that policies,
    /// constraints and a name that is taken speak before the first byte is read.
    ///
    /// # Errors
    /// [`Error::AccessDenied`], [`Error::AlreadyExists`], [`Error::NoSuchBucket`].
    pub async fn check_upload(&self, caller: &Caller, object: &NewObject) -> Result<(), Error> {
        let draft = Draft::new(caller, object, object.announced());
        let sql = if object.upsert { CHECK_UPSERT } else { CHECK_INSERT };
        self.run(caller, &[Step { sql, params: &draft.params() }], End::Rollback).await?;
        failpoints::reach("upload.checked");
        Ok(())
    }

    /// Gives stored bytes their row, as the caller: they are visible when this returns. What they replace loses its
    /// row in the same transaction, and its bytes later. Returns the object's id.
    ///
    /// # Errors
    /// As [`Self::check_upload`]; the bytes are removed then.
    pub async fn commit_upload(
        &self,
        caller: &Caller,
        object: &NewObject,
        metadata: &Metadata,
        stored: Stored,
    ) -> Result<Uuid, Error> {
        let draft = Draft::new(caller, object, metadata.json());
        let (version, id) = (stored.pending.version().to_string(), Uuid::new_v4());
        let [bucket, name, owner, owner_id, metadata, user_metadata] = draft.params();
        let params: [&(dyn ToSql + Sync); 8] =
            [bucket, name, owner, owner_id, metadata, user_metadata, &version, &id];
        let sql = if object.upsert { UPSERT } else { INSERT };
        // The trigger then insists that the ledger still knows these bytes.
        let settings = [("longhouse.blob", version.as_str())];
        let rows = self.run_with(caller, &settings, &[Step { sql, params: &params }], End::Commit).await?;
        stored.pending.settle();
        failpoints::reach("upload.committed");
        Ok(rows.first().and_then(|rows| rows.first()).map_or(id, |row| row.get(0)))
    }

    /// An object that the caller may read.
    ///
    /// # Errors
    /// [`Error::NoSuchKey`].
    pub async fn find_object(
        &self,
        caller: &Caller,
        bucket: &BucketId,
        name: &ObjectName,
    ) -> Result<Object, Error> {
        let rows = self.query(caller, FIND, &[&bucket.as_str(), &name.as_str()]).await?;
        rows.first().map(Object::read).ok_or(Error::NoSuchKey)
    }

    /// An object and whether its bucket is public, whoever asks. For whom it is, the caller of this decides.
    pub(crate) async fn find_for_anybody(
        &self,
        bucket: &BucketId,
        name: &ObjectName,
    ) -> Result<Found, Error> {
        let acting = self.database().as_service(PUBLIC);
        let row = acting.query_opt(FIND_WITH_BUCKET, &[&bucket.as_str(), &name.as_str()]).await?;
        let row = row.ok_or(Error::NoSuchBucket)?;
        let object = row.get::<_, Option<Uuid>>(0).map(|_| Object::read(&row));
        Ok(Found { public: row.get(11), object })
    }

    /// Which of these objects the caller may read.
    pub(crate) async fn existing(
        &self,
        caller: &Caller,
        bucket: &BucketId,
        names: &[String],
    ) -> Result<Vec<String>, Error> {
        let rows = self.query(caller, EXISTING, &[&bucket.as_str(), &names]).await?;
        Ok(rows.iter().map(|row| row.get(0)).collect())
    }

    /// Deletes an object; its bytes go later.
    ///
    /// # Errors
    /// [`Error::NoSuchKey`] when there is none, [`Error::AccessDenied`] when the caller may not delete it.
    pub async fn delete_object(
        &self,
        caller: &Caller,
        bucket: &BucketId,
        name: &ObjectName,
    ) -> Result<(), Error> {
        let params: [&(dyn ToSql + Sync); 2] = [&bucket.as_str(), &name.as_str()];
        if self.count(caller, DELETE, &params).await? > 0 {
            failpoints::reach("delete.committed");
            return Ok(());
        }
        match self.database().as_service(EXISTENCE).query_opt(EXISTS, &params).await? {
            Some(_) => Err(Error::AccessDenied("Access denied".into())),
            None => Err(Error::NoSuchKey),
        }
    }

    /// Deletes those of these objects that the caller may delete, and returns them.
    ///
    /// # Errors
    /// The database.
    pub async fn delete_objects(
        &self,
        caller: &Caller,
        bucket: &BucketId,
        names: &[String],
    ) -> Result<Vec<Object>, Error> {
        let rows = self.query(caller, DELETE_MANY, &[&bucket.as_str(), &names]).await?;
        failpoints::reach("delete.committed");
        Ok(rows.iter().map(Object::read).collect())
    }

    /// Gives an object another name, bucket or both. Its bytes stay where they are. Returns its id.
    ///
    /// # Errors
    /// [`Error::NoSuchKey`], [`Error::AlreadyExists`], [`Error::AccessDenied`], [`Error::NoSuchBucket`].
    pub(crate) async fn rename_object(
        &self,
        caller: &Caller,
        from: (&BucketId, &ObjectName),
        to: (&BucketId, &ObjectName),
    ) -> Result<Uuid, Error> {
        let params: [&(dyn ToSql + Sync); 6] = [
            &from.0.as_str(),
            &from.1.as_str(),
            &to.0.as_str(),
            &to.1.as_str(),
            &caller.owner_id(),
            &caller.owner(),
        ];
        let rows = self.query(caller, RENAME, &params).await?;
        failpoints::reach("move.committed");
        rows.first().map(|row| row.get(0)).ok_or(Error::NoSuchKey)
    }
}
