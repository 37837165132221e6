//! The ledger in Postgres: entries wait in a bounded queue, and one task writes them in batches.
//!
//! The queue is what keeps the database off the way of an answer. It is bounded: while it is full, whoever records waits
//! a moment, and then the entry is lost, said, and counted. An orderly stop writes everything that was recorded.

use std::sync::Mutex;
use std::time::Duration;

use async_trait::async_trait;
use chrono::{DateTime, Utc};
use longhouse_database::{Claims, Database};
use serde_json::{Value, json};
use tokio::sync::mpsc;
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

use super::{Entry, Ledger, Outcome};
use crate::prices::Prices;
use crate::{Error, schema};

/// Bounds of the ledger's writer.
#[derive(Debug, Clone, Copy)]
pub struct LedgerOptions {
    /// Entries that wait to be written. Default 10 000.
    pub queue: usize,
    /// Entries of one statement. Default 500.
    pub batch: usize,
    /// How long the first entry of a batch waits for others. Default 100 ms.
    pub linger: Duration,
    /// How long recording waits for a place in a full queue. Default 2 s.
    pub patience: Duration,
    /// How long an orderly stop waits for a database that is away. Default 20 s.
    pub closing: Duration,
    /// Months that stay in `ai.calls`; older ones are archived. 0: all. Default 13.
    pub keep_months: i32,
    /// Between two looks at partitions and prices. Default 60 s.
    pub upkeep: Duration,
}

impl Default for LedgerOptions {
    fn default() -> Self {
        Self {
            queue: 10_000,
            batch: 500,
            linger: Duration::from_millis(100),
            patience: Duration::from_secs(2),
            closing: Duration::from_secs(20),
            keep_months: 13,
            upkeep: Duration::from_secs(60),
        }
    }
}

/// Months that are made ahead.
const AHEAD: i32 = 3;
/// Between attempts to reach a database that is away: first, and at most.
const PAUSES: (Duration, Duration) = (Duration::from_millis(50), Duration::from_secs(5));

const WRITE: &str = "
    insert into ai.calls (id, created_at, task, modality, app, user_id, tenant_id, project_id, provider, model, key_id,
      own_key, input_tokens, cached_input_tokens, cache_write_tokens, input_audio_tokens, output_tokens,
      reasoning_tokens, output_media_tokens, audio_ms, characters, images, estimated, cost_nano_usd, status, fault,
      tried, latency_ms, first_content_ms, cached, provider_request_id)
    select id, created_at, task, modality, app, user_id, tenant_id, project_id, provider, model, key_id,
      own_key, input_tokens, cached_input_tokens, cache_write_tokens, input_audio_tokens, output_tokens,
      reasoning_tokens, output_media_tokens, audio_ms, characters, images, estimated, cost_nano_usd, status, fault,
      tried, latency_ms, first_content_ms, cached, provider_request_id
    from jsonb_populate_recordset(null::ai.calls, $1)
    on conflict do nothing";

const MAINTAIN: &str = "select made, archived from ai.maintain_calls($1, $2)";

/// Entries in `ai.calls`.
#[derive(Debug)]
pub struct PostgresLedger {
    queue: mpsc::Sender<Value>,
    prices: Prices,
    patience: Duration,
    closing: Duration,
    /// Ends upkeep at once, and the writer when the queue is empty.
    stop: CancellationToken,
    tasks: Mutex<Vec<JoinHandle<()>>>,
}

impl PostgresLedger {
    /// Starts the writer, and the task that makes and archives months and follows the operator's prices.
    #[must_use]
    pub fn start(database: Database, prices: Prices, options: LedgerOptions) -> Self {
        let (queue, entries) = mpsc::channel(options.queue.max(1));
        let stop = CancellationToken::new();
        let writer = Writer { database: database.clone(), claims: schema::claims(), stop: stop.clone() };
        let tasks = vec![
            tokio::spawn(writer.run(entries, options)),
            tokio::spawn(upkeep(database, prices.clone(), options, stop.clone())),
        ];
        let (patience, closing) = (options.patience, options.closing);
        Self { queue, prices, patience, closing, stop, tasks: Mutex::new(tasks) }
    }

    /// Writes what was recorded, and ends. Nothing can be recorded afterwards.
    pub async fn close(&self) {
        self.stop.cancel();
        let tasks = std::mem::take(&mut *self.tasks.lock().expect("no code panics while it holds this lock"));
        let ended = tokio::time::timeout(self.closing, async {
            for task in tasks {
                if let Err(error) = task.await {
                    tracing::error!(%error, "a task of the ledger failed");
                }
            }
        });
        if ended.await.is_err() {
            tracing::error!("the database stayed away: calls are missing in the ledger");
        }
    }
}

#[async_trait]
impl Ledger for PostgresLedger {
    async fn record(&self, entry: Entry) -> Result<(), Error> {
        let row = row(&entry, &self.prices, Utc::now());
        if self.stop.is_cancelled() {
            return Err(Error::Records("the ledger is closed".into()));
        }
        self.queue.send_timeout(row, self.patience).await.map_err(|error| {
            Error::Records(match error {
                mpsc::error::SendTimeoutError::Timeout(_) => "the ledger's queue is full".into(),
                mpsc::error::SendTimeoutError::Closed(_) => "the ledger is closed".into(),
            })
        })
    }
}

/// An entry as `ai.calls` has it.
fn row(entry: &Entry, prices: &Prices, at: DateTime<Utc>) -> Value {
    let usage = &entry.usage;
    let cost = prices.of(entry, at);
    if cost.is_none() {
        let model = entry.model.as_ref().map(ToString::to_string).unwrap_or_default();
        metrics::counter!("gateway_unpriced_calls_total", "model" => model).increment(1);
    }
    let tried: Vec<Value> = entry
        .tried
        .iter()
        .map(|tried| json!({"model": tried.model, "fault": tried.fault.as_str(), "requests": tried.requests}))
        .collect();
    let fault = match entry.outcome {
        Outcome::Failed(fault) => Some(fault.as_str()),
        _ => None,
    };
    let milliseconds = |time: Duration| i64::try_from(time.as_millis()).unwrap_or(i64::MAX);
    json!({
        "id": entry.id,
        "created_at": at,
        "task": entry.task,
        "modality": entry.modality.to_string(),
        "app": entry.owner.app,
        "user_id": entry.owner.user,
        "tenant_id": entry.owner.tenant,
        "project_id": entry.owner.project,
        "provider": entry.model.as_ref().map(|model| model.provider.as_str()),
        "model": entry.model.as_ref().map(|model| &*model.model),
        "key_id": entry.key_id,
        "own_key": entry.own_key,
        "input_tokens": usage.input_tokens,
        "cached_input_tokens": usage.cached_input_tokens,
        "cache_write_tokens": usage.cache_write_tokens,
        "input_audio_tokens": usage.input_audio_tokens,
        "output_tokens": usage.output_tokens,
        "reasoning_tokens": usage.reasoning_tokens,
        "output_media_tokens": usage.output_media_tokens,
        "audio_ms": usage.audio_ms,
        "characters": usage.characters,
        "images": usage.images,
        "estimated": usage.estimated,
        "cost_nano_usd": cost.map(crate::prices::NanoUsd::as_i64),
        "status": entry.outcome.as_str(),
        "fault": fault,
        "tried": tried,
        "latency_ms": milliseconds(entry.latency),
        "first_content_ms": entry.first_content.map(milliseconds),
        "cached": entry.cached,
        "provider_request_id": entry.provider_request_id,
    })
}

struct Writer {
    database: Database,
    claims: Claims,
    stop: CancellationToken,
}

impl Writer {
    async fn run(self, mut entries: mpsc::Receiver<Value>, options: LedgerOptions) {
        let mut batch = Vec::with_capacity(options.batch);
        loop {
            let stopping = tokio::select! {
                biased;
                received = entries.recv_many(&mut batch, options.batch) => received == 0,
                () = self.stop.cancelled() => true,
            };
            if stopping {
                // Whoever recorded before has its place in the queue; nobody gets one any more.
                entries.close();
                while entries.recv_many(&mut batch, options.batch).await > 0 {
                    self.write(std::mem::take(&mut batch)).await;
                }
                return;
            }
            let full = tokio::time::sleep(options.linger);
            tokio::pin!(full);
            while batch.len() < options.batch {
                let room = options.batch - batch.len();
                tokio::select! {
                    received = entries.recv_many(&mut batch, room) => if received == 0 { break },
                    () = &mut full => break,
                    () = self.stop.cancelled() => break,
                }
            }
            metrics::gauge!("gateway_ledger_waiting").set(entries.len() as f64);
            self.write(std::mem::take(&mut batch)).await;
        }
    }

    /// Until it is written. Repeating is safe: an entry has an id.
    async fn write(&self, batch: Vec<Value>) {
        if batch.is_empty() {
            return;
        }
        let (mut pause, longest) = PAUSES;
        let rows = batch.len() as u64;
        let whole = Value::Array(batch);
        loop {
            match self.database.as_role(&self.claims).execute(WRITE, &[&whole]).await {
                Ok(_) => {
                    metrics::counter!("gateway_ledger_rows_total").increment(rows);
                    return;
                }
                Err(error) if error.is_transient() => {
                    metrics::counter!("gateway_ledger_retries_total").increment(1);
                    tracing::warn!(%error, rows, "the ledger cannot be written; trying again");
                    tokio::time::sleep(pause).await;
                    pause = (pause * 2).min(longest);
                }
                Err(error) => {
                    tracing::error!(%error, rows, "the ledger refused a batch; its rows are written one by one");
                    break;
                }
            }
        }
        let Value::Array(batch) = whole else { return };
        for row in batch {
            let one = Value::Array(vec![row]);
            if let Err(error) = self.database.as_role(&self.claims).execute(WRITE, &[&one]).await {
                metrics::counter!("gateway_records_lost_total").increment(1);
                tracing::error!(%error, call = %one[0]["id"], "a call could not be recorded");
            }
        }
    }
}

async fn upkeep(database: Database, prices: Prices, options: LedgerOptions, stop: CancellationToken) {
    let claims = schema::claims();
    loop {
        let (keep, ahead) = (options.keep_months, AHEAD);
        match database.as_role(&claims).query_opt(MAINTAIN, &[&keep, &ahead]).await {
            Ok(Some(row)) => {
                let (made, archived): (i32, i32) = (row.get(0), row.get(1));
                if made + archived > 0 {
                    tracing::info!(made, archived, "months of the ledger");
                }
            }
            Ok(None) => {}
            Err(error) => {
                tracing::warn!(%error, "the ledger's months could not be looked after; tried again");
            }
        }
        if let Err(error) = prices.refresh(&database).await {
            tracing::warn!(%error, "the operator's prices could not be read; those before stay in force");
        }
        if let Err(error) = database.as_role(&claims).query("select ai.sweep_quotas()", &[]).await {
            tracing::warn!(%error, "old reservations could not be swept; tried again");
        }
        tokio::select! {
            () = tokio::time::sleep(options.upkeep) => {}
            () = stop.cancelled() => return,
        }
    }
}
