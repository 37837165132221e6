//! Reads the log of the database, on the one server that holds the slot, and hands what it says to all.
//!
//! A place in the log is confirmed only after everything before it was handed out. What was handed out and not
//! confirmed comes again after a loss of the connection; it is recognised by its position and left out.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use bytes::Bytes;
use longhouse_database::replication::{Message as Wire, ReplicationStream};
use longhouse_database::tokio_postgres::error::SqlState;
use longhouse_database::{Database, DatabaseOptions, Error};
use tokio::sync::{Notify, mpsc, watch};
use tokio::time::{Instant, MissedTickBehavior, interval, sleep, timeout};
use tokio_util::sync::CancellationToken;

use super::Sink;
use super::batch::{self, Batch, Entry, Position};
use super::messages;
use super::pgoutput::{self, Cell, Lsn, Message, Relation, RowChange};
use super::service::Lost;
use super::slot::{Slot, SlotError, SlotState, explain};
use crate::bus::EventBus;

/// Subject of the bus.
pub(super) const SUBJECT: &str = "changes";
/// Changes of one batch, and about how many bytes: NATS carries up to 1 MB.
const BATCH: usize = 1_000;
const BATCH_BYTES: usize = 512 * 1024;
/// A larger row is told without its large values.
const LARGEST_ROW: usize = 1024 * 1024;
/// What a value of such a row may have.
const SMALL_VALUE: usize = 64;
/// A row that was shortened and is still larger than this has too many columns to be told.
const LARGEST_SHORTENED: usize = 256 * 1024;
/// Between two confirmations.
const CONFIRM_EVERY: Duration = Duration::from_millis(100);
/// Between two looks at what the slot holds back.
const LOOK_EVERY: Duration = Duration::from_secs(5);
/// Between two tries to get the slot that another server reads from.
const TRY_EVERY: Duration = Duration::from_secs(1);
/// First and longest pause after a failure.
const PAUSES: (Duration, Duration) = (Duration::from_millis(100), Duration::from_secs(10));
/// Between two looks at whether there is a slot that nobody reads from, on a server that nobody has subscribed at.
const IDLE_EVERY: Duration = Duration::from_secs(60);
/// Longest farewell.
const CLOSE_LIMIT: Duration = Duration::from_secs(2);

/// What this server has to do with the log.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum State {
    /// Nobody has asked for changes yet.
    Idle,
    /// It is being found out.
    Starting,
    /// Another server reads it.
    Following,
    /// This one does.
    Leading,
    /// Nobody can; why.
    Failed(String),
}

/// How far changes have been handed out, by whichever server.
#[derive(Debug, Default)]
pub(super) struct Progress(Mutex<(u64, Position)>);

impl Progress {
    /// Notes that everything up to a position has been handed out.
    pub(super) fn note(&self, epoch: u64, position: Position) {
        let mut progress = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if progress.0 != epoch || progress.1 < position {
            *progress = (epoch, position);
        }
    }

    /// What has been handed out of this log.
    pub(super) fn of(&self, epoch: u64) -> Position {
        let progress = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if progress.0 == epoch { progress.1 } else { Position::default() }
    }
}

/// Everything that leading needs.
pub(super) struct Leader {
    pub(super) database: Database,
    pub(super) options: DatabaseOptions,
    pub(super) publication: String,
    /// Bytes that the slot may hold back.
    pub(super) max_lag: u64,
    /// How long after a start what has been missed waits for subscribers to come back.
    pub(super) grace: Duration,
    /// How long after the first of them it waits for the others.
    pub(super) settle: Duration,
    pub(super) bus: Arc<dyn EventBus>,
    pub(super) sink: Arc<dyn Sink>,
    pub(super) local: mpsc::Sender<Batch>,
    pub(super) progress: Arc<Progress>,
    pub(super) lost: Lost,
    pub(super) state: watch::Sender<State>,
    pub(super) wanted: Arc<Notify>,
    pub(super) stop: CancellationToken,
    /// Whether this server has read from the slot before: then a new slot means that changes were missed.
    pub(super) has_led: bool,
}

/// Why reading ended.
enum End {
    Stopped,
    /// Another server reads.
    Busy,
    /// Something has changed meanwhile: look again.
    Again,
    Failed(SlotError),
    /// The slot holds back too much, or cannot be read from any more.
    Discard(String),
}

impl Leader {
    pub(super) async fn run(mut self) {
        if !self.await_demand().await {
            return;
        }
        self.state.send_replace(State::Starting);
        let mut pause = PAUSES.0;
        let mut discard = None;
        loop {
            let began = Instant::now();
            let end = self.lead(discard.take()).await;
            if began.elapsed() > PAUSES.1 {
                pause = PAUSES.0;
            }
            let wait = match end {
                End::Stopped => return,
                End::Busy => {
                    self.state.send_replace(State::Following);
                    TRY_EVERY
                }
                End::Again => PAUSES.0,
                End::Discard(why) => {
                    discard = Some(why);
                    pause
                }
                End::Failed(error) => {
                    let message = error.to_string();
                    let known = matches!(&*self.state.borrow(), State::Failed(known) if *known == message);
                    if !known {
                        tracing::error!(error = message, "the changes of the database cannot be read");
                    }
                    self.state.send_replace(State::Failed(message));
                    pause = (pause * 2).min(PAUSES.1);
                    pause
                }
            };
            metrics::gauge!("realtime_changes_leading").set(0.0);
            tokio::select! {
                () = self.stop.cancelled() => return,
                // A subscriber does not wait for the pause.
                () = self.wanted.notified() => {}
                () = sleep(wait) => {}
            }
        }
    }

    /// Waits until somebody subscribes, or there is a slot that nobody reads from. No slot is made before anybody has
    /// asked: it would cost the database, and nobody would listen. False: stopped.
    async fn await_demand(&self) -> bool {
        let mut pause = Duration::ZERO;
        loop {
            let orphan = async {
                sleep(pause).await;
                let Ok(state) = SlotState::read(&self.database, &self.publication).await else {
                    return false;
                };
                if let (true, Err(error)) = (pause.is_zero(), state.check()) {
                    tracing::warn!(%error, "clients cannot follow changes of the database");
                }
                state.exists && !state.active
            };
            tokio::select! {
                () = self.stop.cancelled() => return false,
                () = self.wanted.notified() => break,
                orphan = orphan => {
                    if orphan {
                        // Subscribers of before a restart come back within seconds, and what they missed is for them.
                        tokio::select! {
                            () = self.stop.cancelled() => return false,
                            () = self.wanted.notified() => break,
                            () = sleep(self.grace) => return true,
                        }
                    }
                }
            }
            pause = IDLE_EVERY;
        }
        let backlog = SlotState::read(&self.database, &self.publication).await;
        if backlog.is_ok_and(|state| state.exists && !state.active) {
            tokio::select! {
                () = self.stop.cancelled() => return false,
                () = sleep(self.settle) => {}
            }
        }
        true
    }

    /// Reads until something ends it.
    async fn lead(&mut self, discard: Option<String>) -> End {
        let state = match SlotState::read(&self.database, &self.publication).await {
            Ok(state) => state,
            Err(error) => return End::Failed(explain(error)),
        };
        if let Err(error) = state.check() {
            return End::Failed(error);
        }
        if state.active {
            return if state.ready { End::Busy } else { End::Again };
        }
        #[expect(clippy::cast_precision_loss, reason = "a metric")]
        metrics::gauge!("realtime_changes_lag_bytes").set(state.lag as f64);
        let discard = discard.or_else(|| {
            (state.exists && state.lag > self.max_lag)
                .then(|| format!("the replication slot held back {} MB of log", state.lag >> 20))
        });
        let opened = Slot::open(&self.options, &state, &self.publication, discard.is_some()).await;
        let slot = match opened {
            Ok(Some(slot)) => slot,
            Ok(None) => return End::Again,
            Err(error) => return End::Failed(error),
        };
        let why = match (&discard, slot.fresh) {
            (Some(why), _) => Some(why.clone()),
            (None, true) if state.lost => {
                Some("the database no longer had the log that was needed".to_owned())
            }
            (None, true) if self.has_led => Some("the replication slot was gone".to_owned()),
            _ => None,
        };
        let epoch = slot.epoch;
        let stream = match slot.start().await {
            Ok(Some(stream)) => stream,
            Ok(None) => return End::Again,
            Err(error) => return End::Failed(error),
        };
        if let Some(why) = why {
            tracing::error!(why, "changes of the database were lost; reading goes on from now");
            metrics::counter!("realtime_changes_slot_resets_total").increment(1);
            self.bus.publish(SUBJECT, batch::encode_reset(&why));
            self.lost.tell(&why);
        }
        self.has_led = true;
        self.state.send_replace(State::Leading);
        metrics::gauge!("realtime_changes_leading").set(1.0);
        tracing::info!("reading the changes of the database");
        Box::pin(Reading::new(self, stream, epoch).run()).await
    }
}

/// The reading of one stream.
struct Reading<'l> {
    leader: &'l Leader,
    stream: ReplicationStream,
    relations: HashMap<u32, (Arc<Relation>, Bytes)>,
    /// The open transaction: its commit, when that was, and how many rows of it have come.
    transaction: Option<(Lsn, i64, u32)>,
    batch: Batch,
    bytes: usize,
    described: Vec<u32>,
    number: u64,
    /// Everything before is read, and handed out at the next flush.
    read: Lsn,
    /// Everything before is handed out.
    handed: Lsn,
    confirmed: Lsn,
    confirmed_at: Instant,
}

impl<'l> Reading<'l> {
    fn new(leader: &'l Leader, stream: ReplicationStream, epoch: u64) -> Self {
        let batch = Batch { epoch, handled: leader.progress.of(epoch), ..Batch::default() };
        Self {
            leader,
            stream,
            relations: HashMap::new(),
            transaction: None,
            batch,
            bytes: 0,
            described: Vec::new(),
            number: 0,
            read: 0,
            handed: 0,
            confirmed: 0,
            confirmed_at: Instant::now(),
        }
    }

    async fn run(mut self) -> End {
        let mut look = interval(LOOK_EVERY);
        look.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let leader = self.leader;
        let end = loop {
            let unconfirmed = self.handed > self.confirmed;
            let confirm_at = self.confirmed_at + CONFIRM_EVERY;
            let message = tokio::select! {
                biased;
                () = leader.stop.cancelled() => break End::Stopped,
                _ = look.tick() => {
                    match self.too_far_behind().await {
                        Some(why) => break End::Discard(why),
                        None => continue,
                    }
                }
                () = tokio::time::sleep_until(confirm_at), if unconfirmed => {
                    match self.confirm().await {
                        Ok(()) => continue,
                        Err(error) => break failed(error),
                    }
                }
                message = self.stream.next() => message,
            };
            let taken = match message {
                Ok(message) => self.take(message).await,
                Err(error) => break failed(error),
            };
            if let Err(end) = taken {
                break end;
            }
            let full = self.batch.entries.len() >= BATCH || self.bytes >= BATCH_BYTES;
            if (full || !self.stream.has_more())
                && let Err(error) = self.flush().await
            {
                break failed(error);
            }
        };
        if matches!(end, End::Stopped | End::Discard(_)) {
            let farewell = async {
                // What was read and not handed out comes again.
                let _ = self.confirm().await;
                self.stream.close().await;
            };
            let _ = timeout(CLOSE_LIMIT, farewell).await;
        }
        end
    }

    async fn take(&mut self, message: Wire) -> Result<(), End> {
        let (data, cut) = match message {
            Wire::Data { data, cut, .. } => (data, cut),
            Wire::Alive { end, reply } => {
                if self.transaction.is_none() && self.batch.entries.is_empty() {
                    self.read = self.read.max(end);
                    self.handed = self.handed.max(end);
                }
                return if reply { self.confirm().await.map_err(failed) } else { Ok(()) };
            }
        };
        let malformed = |_| End::Discard("a message of the log could not be read".to_owned());
        match pgoutput::read(data.clone(), cut).map_err(malformed)? {
            Message::Begin { commit, at } => self.transaction = Some((commit, at, 0)),
            Message::Commit { end } => {
                self.transaction = None;
                self.read = end;
            }
            Message::Relation(relation) => {
                self.described.retain(|oid| *oid != relation.oid);
                self.relations.insert(relation.oid, (Arc::new(relation), data));
            }
            Message::Row(row) => self.take_row(row, data, cut),
            Message::Other => {}
        }
        Ok(())
    }

    fn take_row(&mut self, row: RowChange, raw: Bytes, cut: bool) {
        let Some((commit, at, index)) = &mut self.transaction else { return };
        let position = Position { commit: *commit, index: *index };
        let at = *at;
        *index += 1;
        if position <= self.batch.handled && self.batch.handled != Position::default() {
            metrics::counter!("realtime_changes_repeated_total").increment(1);
            return;
        }
        let Some((relation, described)) = self.relations.get(&row.relation) else { return };
        self.batch.handled = position;
        if messages::is_messages(relation) {
            match messages::broadcast(relation, &row) {
                Some(_) if cut || raw.len() > LARGEST_ROW => {
                    tracing::warn!("a message of realtime.messages is larger than 1 MB and is not broadcast");
                }
                Some(message) => {
                    metrics::counter!("realtime_database_broadcasts_total").increment(1);
                    self.leader.sink.database_broadcast(message);
                }
                None => {}
            }
            return;
        }
        metrics::counter!("realtime_changes_decoded_total").increment(1);
        let oversize = cut || raw.len() > LARGEST_ROW;
        let (row, raw) = if oversize { shorten(&row) } else { (row, raw) };
        if !self.described.contains(&relation.oid) {
            self.described.push(relation.oid);
            self.batch.relations.push(described.clone());
            self.bytes += described.len();
        }
        self.bytes += raw.len() + 64;
        self.batch.entries.push(Entry { position, at, oversize, relation: Arc::clone(relation), row, raw });
    }

    /// Hands out what was read.
    async fn flush(&mut self) -> Result<(), Error> {
        let epoch = self.batch.epoch;
        let (read, leader) = (self.read, self.leader);
        if self.batch.handled > leader.progress.of(epoch) {
            self.number += 1;
            let handled = self.batch.handled;
            let next = Batch { epoch, handled, ..Batch::default() };
            let mut batch = std::mem::replace(&mut self.batch, next);
            batch.number = self.number;
            self.bytes = 0;
            self.described.clear();
            leader.bus.publish(SUBJECT, batch::encode(&batch));
            leader.progress.note(epoch, handled);
            if !batch.entries.is_empty() && !self.hand_over(batch).await? {
                // Stopped: what this server's subscribers did not get comes again.
                return Ok(());
            }
        }
        self.handed = self.handed.max(read);
        Ok(())
    }

    /// To the subscribers of this server. While they are behind, the database waits, and is told that we live. False:
    /// stopped meanwhile.
    async fn hand_over(&mut self, batch: Batch) -> Result<bool, Error> {
        let mut alive = interval(LOOK_EVERY);
        alive.tick().await;
        loop {
            tokio::select! {
                permit = self.leader.local.reserve() => {
                    if let Ok(permit) = permit {
                        permit.send(batch);
                    }
                    return Ok(true);
                }
                () = self.leader.stop.cancelled() => return Ok(false),
                _ = alive.tick() => self.confirm().await?,
            }
        }
    }

    async fn confirm(&mut self) -> Result<(), Error> {
        self.confirmed_at = Instant::now();
        if self.handed > 0 {
            self.stream.confirm(self.handed).await?;
            self.confirmed = self.handed;
        }
        Ok(())
    }

    /// Why to begin anew, if the slot holds back too much.
    async fn too_far_behind(&mut self) -> Option<String> {
        let leader = self.leader;
        let read = timeout(LOOK_EVERY, SlotState::read(&leader.database, &leader.publication));
        // The database is busy: the next look tells.
        let state = read.await.ok()?.ok()?;
        #[expect(clippy::cast_precision_loss, reason = "a metric")]
        metrics::gauge!("realtime_changes_lag_bytes").set(state.lag as f64);
        (state.lag > leader.max_lag).then(|| {
            format!("this server was too slow: the replication slot held back {} MB of log", state.lag >> 20)
        })
    }
}

/// A row without its large values; if that is still too much, without any.
fn shorten(row: &RowChange) -> (RowChange, Bytes) {
    let parse = |raw: &Bytes| match pgoutput::read(raw.clone(), false) {
        Ok(Message::Row(row)) => Some(row),
        _ => None,
    };
    let raw = pgoutput::shorten(row, SMALL_VALUE);
    let raw = if raw.len() > LARGEST_SHORTENED { pgoutput::shorten(row, 0) } else { raw };
    match parse(&raw) {
        Some(row) => (row, raw),
        None => {
            let dropped = |cells: &Vec<Cell>| vec![Cell::Dropped; cells.len()];
            let row = RowChange {
                old: row.old.as_ref().map(dropped),
                new: row.new.as_ref().map(dropped),
                ..row.clone()
            };
            (row, raw)
        }
    }
}

fn failed(error: Error) -> End {
    // Postgres looks at publications as they were when the change was made: one that was missing then is missing for
    // ever.
    if error.sql_state() == Some(&SqlState::UNDEFINED_OBJECT) && error.to_string().contains("publication") {
        return End::Discard("a publication was dropped".to_owned());
    }
    match explain(error) {
        SlotError::Database(error) if error.is_transient() => {
            tracing::warn!(%error, "lost the replication connection; connecting again");
            End::Failed(SlotError::Database(error))
        }
        error => End::Failed(error),
    }
}
