//! The running transcript: entries leave the session at once and are stored by a task of their own.

use std::borrow::Cow;
use std::time::Duration;

use longhouse_database::{Database, Error};
use longhouse_voice::session::{Entry, Speaker, Turn};
use tokio::sync::{mpsc, oneshot};
use uuid::Uuid;

use super::agent_of;
use crate::domain::token::Grant;

/// Entries that wait at most; a database that is away this long loses the newest (counted).
const WAITING: usize = 256;
/// Pause after a failed write.
const RETRY: Duration = Duration::from_millis(250);
/// Tries for one entry: about ten minutes, longer than a crash recovery or a failover takes.
const TRIES: u32 = 300;

enum Job {
    Store(Entry),
    Finished(oneshot::Sender<()>),
}

/// Writes one call's entries in order.
#[derive(Debug)]
pub(crate) struct Journal {
    jobs: mpsc::Sender<Job>,
}

impl Journal {
    pub(crate) fn start(database: Database, call: Uuid, grant: Grant) -> Self {
        let (jobs, queue) = mpsc::channel(WAITING);
        tokio::spawn(write(database, call, grant, queue));
        Self { jobs }
    }

    /// Queues an entry without waiting.
    pub(crate) fn record(&self, entry: Entry) {
        if self.jobs.try_send(Job::Store(entry)).is_err() {
            metrics::counter!("longhouse_receptionist_journal_dropped_total").increment(1);
            tracing::error!("the transcript cannot be stored fast enough; an entry is lost");
        }
    }

    /// Returns when everything queued so far is stored (or given up).
    pub(crate) async fn flush(&self) {
        let (done, stored) = oneshot::channel();
        if self.jobs.send(Job::Finished(done)).await.is_ok() {
            let _ = stored.await;
        }
    }
}

async fn write(database: Database, call: Uuid, grant: Grant, mut queue: mpsc::Receiver<Job>) {
    let mut batch = Vec::new();
    while queue.recv_many(&mut batch, 32).await > 0 {
        let mut entries = Vec::new();
        let mut waiters = Vec::new();
        for job in batch.drain(..) {
            match job {
                Job::Store(entry) => merge(&mut entries, entry),
                Job::Finished(done) => waiters.push(done),
            }
        }
        for entry in entries {
            store_persistently(&database, call, grant, &entry).await;
        }
        for done in waiters {
            let _ = done.send(());
        }
    }
}

/// A turn that has grown replaces its earlier state that was not written yet.
fn merge(entries: &mut Vec<Entry>, entry: Entry) {
    if let Entry::Turn(turn) = &entry
        && let Some(waiting) =
            entries.iter_mut().find(|e| matches!(e, Entry::Turn(earlier) if earlier.ordinal == turn.ordinal))
    {
        *waiting = entry;
    } else {
        entries.push(entry);
    }
}

async fn store_persistently(database: &Database, call: Uuid, grant: Grant, entry: &Entry) {
    for attempt in 1..=TRIES {
        match store(database, call, grant, entry).await {
            Ok(()) => return,
            Err(error) if error.is_transient() && attempt < TRIES => {
                tracing::warn!(%error, attempt, "the transcript is not stored yet");
                tokio::time::sleep(RETRY * attempt.min(8)).await;
            }
            Err(error) => {
                metrics::counter!("longhouse_receptionist_journal_dropped_total").increment(1);
                tracing::error!(%error, "an entry of the transcript is lost");
                return;
            }
        }
    }
}

async fn store(database: &Database, call: Uuid, grant: Grant, entry: &Entry) -> Result<(), Error> {
    let claims = agent_of(grant.tenant);
    let acting = database.as_role(&claims);
    match entry {
        Entry::Turn(turn) => store_turn(&acting, call, grant, turn).await,
        Entry::Tool { after, name, arguments, output, took } => acting
            .execute(
                "insert into receptionist.tool_runs (call_id, tenant_id, after_ordinal, name, arguments, output, took_ms)
                 select c.id, c.tenant_id, $3, $4, $5, $6, $7
                 from receptionist.calls c where c.id = $1 and c.opened_epoch = $2",
                &[&call, &grant.epoch, after, name, &storable(arguments), &storable(output), &millis(took.as_millis())],
            )
            .await
            .map(drop),
        Entry::Alive => acting
            .execute(
                "update receptionist.calls set last_seen_at = now() where id = $1 and opened_epoch = $2",
                &[&call, &grant.epoch],
            )
            .await
            .map(drop),
    }
}

async fn store_turn(
    acting: &longhouse_database::Acting<'_>,
    call: Uuid,
    grant: Grant,
    turn: &Turn,
) -> Result<(), Error> {
    let speaker = match turn.speaker {
        Speaker::Caller => "caller",
        Speaker::Agent => "agent",
    };
    // Fenced: a server that has lost the call to another one writes nothing more into it.
    acting
        .execute(
            "insert into receptionist.turns
               (call_id, tenant_id, ordinal, speaker, text, started_ms, ended_ms, interrupted)
             select c.id, c.tenant_id, $3, $4::text::receptionist.turn_speaker, $5, $6, $7, $8
             from receptionist.calls c where c.id = $1 and c.opened_epoch = $2
             on conflict (call_id, ordinal) do update
               set text = excluded.text, ended_ms = excluded.ended_ms, interrupted = excluded.interrupted",
            &[
                &call,
                &grant.epoch,
                &turn.ordinal,
                &speaker,
                &storable(&turn.text),
                &millis(turn.started.0.into()),
                &millis(turn.ended.0.into()),
                &turn.interrupted,
            ],
        )
        .await
        .map(drop)
}

/// Postgres has no NUL in texts; what a model wrote around one is kept.
fn storable(text: &str) -> Cow<'_, str> {
    if text.contains('\0') { text.replace('\0', "").into() } else { text.into() }
}

fn millis(value: u128) -> i64 {
    i64::try_from(value).unwrap_or(i64::MAX)
}
