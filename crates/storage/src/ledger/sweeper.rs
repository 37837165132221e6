//! Deletes bytes that lost their row, and what uploads left that never ended.

use std::time::Duration;

use chrono::{DateTime, Utc};
use futures_util::{StreamExt, TryStreamExt, stream};
use longhouse_database::ServiceReason;
use longhouse_server::Drain;
use tokio::task::JoinHandle;

use crate::blobs::{BlobError, Entry, Version};
use crate::{Error, Storage, failpoints};

/// Blobs of one transaction.
const BATCH: i64 = 100;
/// Deletions at once.
const AT_ONCE: usize = 8;

const REASON: ServiceReason = ServiceReason::because("bytes without a row belong to no user any more");

const LEASE: &str = "
    select b.version, exists (select from storage.objects o where o.version = b.version) as wanted
    from storage.blobs b
    where (b.state = 'condemned' and b.touched_at < now() - make_interval(secs => $1))
       or (b.state = 'pending' and b.touched_at < now() - make_interval(secs => $2))
    order by b.touched_at
    limit $3
    for update of b skip locked";
const STRIKE: &str = "delete from storage.blobs where version = any($1)";
// Later than the others, so that one that never goes does not keep them.
const POSTPONE: &str = "update storage.blobs set touched_at = now() where version = any($1)";
const ENTERED: &str = "select version from storage.blobs where version = any($1)";
const COUNT: &str = "
    select count(*) filter (where state = 'pending'), count(*) filter (where state = 'condemned') from storage.blobs";

/// When the sweeper comes, and what it leaves alone.
#[derive(Debug, Clone, Copy)]
pub struct SweepOptions {
    /// Between two rounds.
    pub every: Duration,
    /// How long bytes stay after they lost their row: downloads that began before may go on.
    pub grace: Duration,
    /// How long an upload may stay silent before it counts as dead.
    pub abandoned: Duration,
}

impl Default for SweepOptions {
    fn default() -> Self {
        Self {
            every: Duration::from_secs(60),
            grace: Duration::from_secs(10 * 60),
            abandoned: Duration::from_secs(60 * 60),
        }
    }
}

/// What one round did.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Swept {
    /// Blobs whose bytes are gone now.
    pub deleted: u64,
    /// Blobs that could not be deleted, and stay in the ledger.
    pub failed: u64,
}

impl Storage {
    /// Sweeps until the process drains. Any number of servers may do so on one database.
    pub fn spawn_sweeper(&self, options: SweepOptions, drain: Drain) -> JoinHandle<()> {
        let storage = self.clone();
        tokio::spawn(async move {
            loop {
                // A task of its own, so that a panic ends one round and not all of them.
                let round = storage.clone();
                let round = tokio::spawn(async move { round.sweep(options).await });
                let outcome = match round.await {
                    Ok(Ok(swept)) => {
                        if swept.deleted > 0 {
                            tracing::info!(deleted = swept.deleted, failed = swept.failed, "swept files");
                        }
                        "done"
                    }
                    Ok(Err(error)) => {
                        tracing::warn!(%error, "sweeping files failed; it is tried again");
                        "failed"
                    }
                    Err(error) => {
                        tracing::error!(%error, "sweeping files panicked; it is tried again");
                        "panicked"
                    }
                };
                metrics::counter!("storage_sweeps_total", "outcome" => outcome).increment(1);
                tokio::select! {
                    () = drain.draining() => return,
                    () = tokio::time::sleep(options.every) => {}
                }
            }
        })
    }

    /// One round: everything that is due, pieces of uploads that were not completed in time included.
    ///
    /// # Errors
    /// The database. A store that fails is counted instead, so that one bad blob does not keep the others.
    pub async fn sweep(&self, options: SweepOptions) -> Result<Swept, Error> {
        self.expire_uploads().await?;
        let mut total = Swept::default();
        loop {
            let (leased, swept) = self.sweep_batch(options).await?;
            total.deleted += swept.deleted;
            total.failed += swept.failed;
            if leased < BATCH {
                break;
            }
        }
        let staged = self.sweep_staged(options.abandoned).await?;
        total.deleted += staged.deleted;
        total.failed += staged.failed;
        metrics::counter!("storage_blobs_deleted_total").increment(total.deleted);
        metrics::counter!("storage_blobs_delete_failures_total").increment(total.failed);
        let counts = self.database().as_service(REASON).query(COUNT, &[]).await?;
        if let Some(row) = counts.first() {
            let gauge = |state: &'static str, count: i64| {
                metrics::gauge!("storage_blobs_without_row", "state" => state).set(count as f64);
            };
            gauge("pending", row.get(0));
            gauge("condemned", row.get(1));
        }
        Ok(total)
    }

    async fn sweep_batch(&self, options: SweepOptions) -> Result<(i64, Swept), Error> {
        let transaction = self.database().as_service(REASON).transaction().await?;
        let (grace, abandoned) = (options.grace.as_secs_f64(), options.abandoned.as_secs_f64());
        let rows = transaction.query(LEASE, &[&grace, &abandoned, &BATCH]).await?;
        if rows.is_empty() {
            return Ok((0, Swept::default()));
        }
        failpoints::reach("sweep.leased");
        let mut struck: Vec<String> = Vec::with_capacity(rows.len());
        let mut failed: Vec<String> = Vec::new();
        let mut doomed = Vec::new();
        for row in &rows {
            let text: String = row.get(0);
            match Version::parse(&text) {
                // By SQL, a row can take its bytes back.
                _ if row.get(1) => struck.push(text),
                // By SQL, a row can name what we never stored.
                None => struck.push(text),
                Some(version) => doomed.push(version),
            }
        }
        let mut deletions = stream::iter(doomed)
            .map(|version| async move { (version, self.blobs().delete(version).await) })
            .buffer_unordered(AT_ONCE);
        let mut deleted = 0;
        while let Some((version, result)) = deletions.next().await {
            match result {
                Ok(()) => {
                    struck.push(version.to_string());
                    deleted += 1;
                }
                Err(error) => {
                    tracing::warn!(%version, %error, "bytes cannot be deleted; it is tried again");
                    failed.push(version.to_string());
                }
            }
        }
        failpoints::reach("sweep.deleted");
        transaction.execute(STRIKE, &[&struck]).await?;
        transaction.execute(POSTPONE, &[&failed]).await?;
        transaction.commit().await?;
        failpoints::reach("sweep.committed");
        Ok((rows.len() as i64, Swept { deleted, failed: failed.len() as u64 }))
    }

    /// Ends writes whose server died before it could enter them: staged files that are old and have no entry.
    async fn sweep_staged(&self, abandoned: Duration) -> Result<Swept, Error> {
        let mut swept = Swept::default();
        let due =
            match Utc::now().checked_sub_signed(chrono::Duration::from_std(abandoned).unwrap_or_default()) {
                Some(due) => due,
                None => DateTime::<Utc>::MIN_UTC,
            };
        let old = self.blobs().unfinished().try_filter(|entry| std::future::ready(entry.modified <= due));
        let mut pages = old.chunks(BATCH as usize);
        while let Some(page) = pages.next().await {
            let page = match page.into_iter().collect::<Result<Vec<Entry>, BlobError>>() {
                Ok(page) => page,
                Err(error) => {
                    tracing::warn!(%error, "staged files cannot be listed; it is tried again");
                    swept.failed += 1;
                    break;
                }
            };
            let versions: Vec<String> = page.iter().map(|entry| entry.version.to_string()).collect();
            let rows = self.database().as_service(REASON).query(ENTERED, &[&versions]).await?;
            let entered: Vec<String> = rows.iter().map(|row| row.get(0)).collect();
            for Entry { version, .. } in page {
                if entered.contains(&version.to_string()) {
                    continue;
                }
                // Finished meanwhile, it is no longer staged and stays.
                match self.blobs().discard(version).await {
                    Ok(()) => swept.deleted += 1,
                    Err(error) => {
                        tracing::warn!(%version, %error, "a staged file cannot be removed; it is tried again");
                        swept.failed += 1;
                    }
                }
            }
        }
        Ok(swept)
    }
}
