//! Whether rows and bytes belong together: rows whose bytes are gone, bytes whose row is gone.

use std::collections::HashSet;

use chrono::Utc;
use futures_util::{StreamExt, TryStreamExt, stream};
use longhouse_database::ServiceReason;
use uuid::Uuid;

use crate::blobs::{Content, Entry, Tally, Version, Written};
use crate::ledger::sweeper::SweepOptions;
use crate::objects::Metadata;
use crate::{Error, Storage};

const REASON: ServiceReason = ServiceReason::because("an operator compares all rows with all bytes");

/// Rows, or blobs, looked at together.
const PAGE: i64 = 1000;
/// Blobs looked at at once.
const AT_ONCE: usize = 8;

const ROWS: &str = "
    select id, bucket_id, name, version, metadata from storage.objects where id > $1 order by id limit $2";
const KNOWN: &str = "
    select version from storage.objects where version = any($1)
    union select version from storage.blobs where version = any($1)
    union select version from storage.resumable_upload_parts where version = any($1)
    union select version from storage.s3_multipart_uploads_parts where version = any($1)";
const STILL: &str = "select 1 from storage.objects where id = $1 and version is not distinct from $2";
const REMOVE: &str =
    "delete from storage.objects where id = $1 and version is not distinct from $2 returning 1";
// So old that no grace keeps them: nobody could have read them.
const CONDEMN: &str = "
    insert into storage.blobs (version, state, touched_at)
    select version, 'condemned', '-infinity' from unnest($1::text[]) as version
    on conflict (version) do nothing";

/// What is looked at, and what is done about it.
#[derive(Debug, Clone, Copy, Default)]
pub struct CheckOptions {
    /// Read every byte and compare the hashes too.
    pub verify: bool,
    /// Remove rows without bytes, and bytes without a row.
    pub prune: bool,
}

/// Something that does not belong together.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Finding {
    /// A row whose bytes are not stored.
    WithoutBytes {
        /// Its bucket.
        bucket: String,
        /// Its name.
        name: String,
        /// What it names as its bytes.
        version: Option<String>,
    },
    /// A row whose bytes are others than it says. Never pruned: what is left may be of use.
    Damaged {
        /// Its bucket.
        bucket: String,
        /// Its name.
        name: String,
        /// What differs.
        difference: String,
    },
    /// Bytes that neither a row nor the ledger knows.
    WithoutRow {
        /// Their version.
        version: Version,
        /// How many.
        size: u64,
    },
}

/// The outcome.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Checked {
    /// Rows that were looked at.
    pub rows: u64,
    /// Blobs that were looked at.
    pub blobs: u64,
    /// Rows without bytes.
    pub without_bytes: u64,
    /// Rows with other bytes.
    pub damaged: u64,
    /// Bytes without a row.
    pub without_row: u64,
    /// Rows that were removed.
    pub rows_removed: u64,
    /// Bytes that were deleted.
    pub blobs_removed: u64,
}

struct Row {
    id: Uuid,
    bucket: String,
    name: String,
    version: Option<String>,
    metadata: Option<Metadata>,
}

enum Verdict {
    Sound,
    WithoutBytes,
    Damaged(String),
}

impl Storage {
    /// Compares all rows with all bytes, and tells each finding as it comes. Other servers may go on meanwhile.
    ///
    /// # Errors
    /// The database or the store, and [`Error::InvalidRequest`] when pruning would remove every row there is: then it
    /// is more likely that the store is the wrong one.
    pub async fn check(
        &self,
        options: CheckOptions,
        tell: &mut (dyn FnMut(&Finding) + Send),
    ) -> Result<Checked, Error> {
        let mut checked = Checked::default();
        let dangling = self.check_rows(options, &mut checked, tell).await?;
        let orphans = self.check_blobs(&mut checked, tell).await?;
        if options.prune {
            if checked.rows > 0 && checked.without_bytes == checked.rows {
                return Err(Error::InvalidRequest(
                    "no object at all has its bytes here: check the [storage] settings, nothing was pruned"
                        .into(),
                ));
            }
            for (id, version) in dangling {
                let acting = self.database().as_service(REASON);
                checked.rows_removed += acting.query(REMOVE, &[&id, &version]).await?.len() as u64;
            }
            for batch in orphans.chunks(PAGE as usize) {
                let batch: Vec<String> = batch.iter().map(ToString::to_string).collect();
                self.database().as_service(REASON).execute(CONDEMN, &[&batch]).await?;
            }
            checked.blobs_removed = self.sweep(SweepOptions::default()).await?.deleted;
        }
        Ok(checked)
    }

    async fn check_rows(
        &self,
        options: CheckOptions,
        checked: &mut Checked,
        tell: &mut (dyn FnMut(&Finding) + Send),
    ) -> Result<Vec<(Uuid, Option<String>)>, Error> {
        let mut dangling = Vec::new();
        let mut last = Uuid::nil();
        loop {
            let rows = self.database().as_service(REASON).query(ROWS, &[&last, &PAGE]).await?;
            let Some(end) = rows.last() else { return Ok(dangling) };
            last = end.get(0);
            checked.rows += rows.len() as u64;
            let rows = rows.iter().map(|row| Row {
                id: row.get(0),
                bucket: row.get::<_, Option<String>>(1).unwrap_or_default(),
                name: row.get::<_, Option<String>>(2).unwrap_or_default(),
                version: row.get(3),
                metadata: row.get::<_, Option<serde_json::Value>>(4).as_ref().and_then(Metadata::read),
            });
            let mut judged = stream::iter(rows)
                .map(|row| async move {
                    let verdict = self.judge(&row, options.verify).await;
                    verdict.map(|verdict| (row, verdict))
                })
                .buffer_unordered(AT_ONCE);
            while let Some(result) = judged.next().await {
                let (row, verdict) = result?;
                match verdict {
                    Verdict::Sound => {}
                    // Replaced or deleted meanwhile.
                    _ if !self.is_still(&row).await? => {}
                    Verdict::WithoutBytes => {
                        checked.without_bytes += 1;
                        dangling.push((row.id, row.version.clone()));
                        let Row { bucket, name, version, .. } = row;
                        tell(&Finding::WithoutBytes { bucket, name, version });
                    }
                    Verdict::Damaged(difference) => {
                        checked.damaged += 1;
                        tell(&Finding::Damaged { bucket: row.bucket, name: row.name, difference });
                    }
                }
            }
        }
    }

    async fn judge(&self, row: &Row, verify: bool) -> Result<Verdict, Error> {
        let Some(version) = row.version.as_deref().and_then(Version::parse) else {
            return Ok(Verdict::WithoutBytes);
        };
        let Some(size) = self.blobs().head(version).await? else { return Ok(Verdict::WithoutBytes) };
        let Some(metadata) = &row.metadata else {
            return Ok(Verdict::Damaged("the row does not describe its bytes".into()));
        };
        if size != metadata.size {
            return Ok(Verdict::Damaged(format!("{size} bytes are stored, {} were uploaded", metadata.size)));
        }
        if verify {
            let found = hashed(self.blobs().get(version, 0..size).await?).await?;
            if found.etag() != metadata.e_tag {
                return Ok(Verdict::Damaged("the bytes have another hash than was uploaded".into()));
            }
        }
        Ok(Verdict::Sound)
    }

    async fn is_still(&self, row: &Row) -> Result<bool, Error> {
        let acting = self.database().as_service(REASON);
        Ok(acting.query_opt(STILL, &[&row.id, &row.version]).await?.is_some())
    }

    async fn check_blobs(
        &self,
        checked: &mut Checked,
        tell: &mut (dyn FnMut(&Finding) + Send),
    ) -> Result<Vec<Version>, Error> {
        let mut orphans = Vec::new();
        // Younger ones may be about to be entered into the ledger.
        let due = Utc::now() - SweepOptions::default().abandoned;
        let left = self.blobs().unfinished().try_filter(|entry| std::future::ready(entry.modified <= due));
        let mut pages = self.blobs().list().chain(left).chunks(PAGE as usize);
        while let Some(page) = pages.next().await {
            let page: Vec<Entry> = page.into_iter().collect::<Result<_, _>>()?;
            checked.blobs += page.len() as u64;
            let versions: Vec<String> = page.iter().map(|entry| entry.version.to_string()).collect();
            // An upload is in the ledger before it leaves the staging folder, so what is unknown now stays unknown.
            let known = self.database().as_service(REASON).query(KNOWN, &[&versions]).await?;
            let known: HashSet<String> = known.iter().map(|row| row.get(0)).collect();
            for entry in page {
                let unknown = !known.contains(&entry.version.to_string());
                // Swept between the listing and the question.
                if unknown && self.blobs().is_present(entry.version).await? {
                    checked.without_row += 1;
                    orphans.push(entry.version);
                    tell(&Finding::WithoutRow { version: entry.version, size: entry.size });
                }
            }
        }
        Ok(orphans)
    }
}

async fn hashed(mut content: Content) -> Result<Written, Error> {
    let mut tally = Tally::new();
    while let Some(chunk) = content.next().await {
        tally.add(&chunk?);
    }
    Ok(tally.finish())
}
