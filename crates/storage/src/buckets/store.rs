//! SQL of buckets.

use longhouse_database::ServiceReason;
use longhouse_database::tokio_postgres::Row;

use super::{Bucket, Rules};
use crate::names::BucketId;
use crate::storage::Caller;
use crate::{Error, Storage};

const RULES: ServiceReason =
    ServiceReason::because("limits and publicity of a bucket hold for everybody, whoever may see its row");

const SELECT_RULES: &str = "
    select coalesce(public, false), file_size_limit, coalesce(allowed_mime_types, '{}')
    from storage.buckets where id = $1";
const INSERT: &str = "
    insert into storage.buckets (id, name, owner, owner_id, public, file_size_limit, allowed_mime_types)
    values ($1, $2, $3, $4, $5, $6, $7)";
const SELECT: &str = "
    select id, name, owner, coalesce(public, false), file_size_limit, allowed_mime_types, created_at, updated_at
    from storage.buckets where id = $1";
const LIST: &str = "
    select id, name, owner, coalesce(public, false), file_size_limit, allowed_mime_types, created_at, updated_at
    from storage.buckets
    where $1::text is null or position(lower($1) in lower(name)) > 0
    order by
      case when $2 = 'name' and not $3 then name end collate \"C\",
      case when $2 = 'name' and $3 then name end collate \"C\" desc,
      case when $2 = 'created_at' and not $3 then created_at end,
      case when $2 = 'created_at' and $3 then created_at end desc,
      case when $2 = 'updated_at' and not $3 then updated_at end,
      case when $2 = 'updated_at' and $3 then updated_at end desc,
      case when $2 = 'id' and $3 then id end collate \"C\" desc,
      id collate \"C\"
    limit $4 offset $5";
// A flag beside each value says whether it is given at all: null is a value here.
const UPDATE: &str = "
    update storage.buckets set
      public = coalesce($2, public),
      file_size_limit = case when $3 then $4 else file_size_limit end,
      allowed_mime_types = case when $5 then $6 else allowed_mime_types end,
      updated_at = now()
    where id = $1
    returning 1";
const DELETE: &str = "delete from storage.buckets where id = $1 returning 1";
const EMPTY: &str = "
    with batch as (select id from storage.objects where bucket_id = $1 limit $2)
    delete from storage.objects o using batch where o.id = batch.id returning 1";

/// A bucket that is to be made.
pub(crate) struct NewBucket {
    pub(crate) id: BucketId,
    pub(crate) name: BucketId,
    pub(crate) public: bool,
    pub(crate) file_size_limit: Option<i64>,
    pub(crate) allowed_mime_types: Option<Vec<String>>,
}

/// What is to change of a bucket; the inner `None` removes a limit.
#[derive(Default)]
pub(crate) struct Changes {
    pub(crate) public: Option<bool>,
    pub(crate) file_size_limit: Option<Option<i64>>,
    pub(crate) allowed_mime_types: Option<Option<Vec<String>>>,
}

/// Which buckets, in which order.
pub(crate) struct Listing {
    pub(crate) search: Option<String>,
    pub(crate) column: &'static str,
    pub(crate) descending: bool,
    pub(crate) limit: i64,
    pub(crate) offset: i64,
}

impl Storage {
    /// Limits and publicity of a bucket, whoever asks.
    ///
    /// # Errors
    /// [`Error::NoSuchBucket`].
    pub async fn rules(&self, bucket: &BucketId) -> Result<Rules, Error> {
        let acting = self.database().as_service(RULES);
        let row = acting.query_opt(SELECT_RULES, &[&bucket.as_str()]).await?.ok_or(Error::NoSuchBucket)?;
        Ok(Rules { public: row.get(0), file_size_limit: row.get(1), allowed_mime_types: row.get(2) })
    }

    pub(crate) async fn insert_bucket(&self, caller: &Caller, bucket: &NewBucket) -> Result<(), Error> {
        let (owner, owner_id) = (caller.owner(), caller.owner_id());
        self.query(
            caller,
            INSERT,
            &[
                &bucket.id.as_str(),
                &bucket.name.as_str(),
                &owner,
                &owner_id,
                &bucket.public,
                &bucket.file_size_limit,
                &bucket.allowed_mime_types,
            ],
        )
        .await?;
        Ok(())
    }

    pub(crate) async fn find_bucket(&self, caller: &Caller, bucket: &BucketId) -> Result<Bucket, Error> {
        let rows = self.query(caller, SELECT, &[&bucket.as_str()]).await?;
        rows.first().map(|row| read(row, None)).ok_or(Error::NoSuchBucket)
    }

    /// The buckets that the caller may see.
    ///
    /// # Errors
    /// The database.
    pub(crate) async fn list_buckets(
        &self,
        caller: &Caller,
        listing: &Listing,
        kind: Option<&'static str>,
    ) -> Result<Vec<Bucket>, Error> {
        let params: [&(dyn tokio_postgres::types::ToSql + Sync); 5] =
            [&listing.search, &listing.column, &listing.descending, &listing.limit, &listing.offset];
        let rows = self.query(caller, LIST, &params).await?;
        Ok(rows.iter().map(|row| read(row, kind)).collect())
    }

    pub(crate) async fn update_bucket(
        &self,
        caller: &Caller,
        bucket: &BucketId,
        changes: &Changes,
    ) -> Result<(), Error> {
        let (limit, types) = (&changes.file_size_limit, &changes.allowed_mime_types);
        let params: [&(dyn tokio_postgres::types::ToSql + Sync); 6] = [
            &bucket.as_str(),
            &changes.public,
            &limit.is_some(),
            &limit.flatten(),
            &types.is_some(),
            &types.as_ref().and_then(Option::as_ref),
        ];
        let changed = self.count(caller, UPDATE, &params).await?;
        if changed == 0 { Err(Error::NoSuchBucket) } else { Ok(()) }
    }

    pub(crate) async fn delete_bucket(&self, caller: &Caller, bucket: &BucketId) -> Result<(), Error> {
        match self.count(caller, DELETE, &[&bucket.as_str()]).await {
            Ok(0) => Err(Error::NoSuchBucket),
            Ok(_) => Ok(()),
            Err(Error::Referenced) => Err(Error::BucketNotEmpty),
            Err(error) => Err(error),
        }
    }

    /// Deletes up to `most` objects of a bucket that the caller may delete, and says how many.
    pub(crate) async fn empty_some(
        &self,
        caller: &Caller,
        bucket: &BucketId,
        most: i64,
    ) -> Result<u64, Error> {
        self.count(caller, EMPTY, &[&bucket.as_str(), &most]).await
    }
}

fn read(row: &Row, kind: Option<&'static str>) -> Bucket {
    Bucket {
        id: row.get(0),
        name: row.get(1),
        owner: row.get(2),
        public: row.get(3),
        kind,
        file_size_limit: row.get(4),
        allowed_mime_types: row.get(5),
        created_at: row.get(6),
        updated_at: row.get(7),
    }
}
