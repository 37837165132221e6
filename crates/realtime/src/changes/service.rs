//! [`Changes`]: subscriptions of this server, and the tasks that serve them.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use async_trait::async_trait;
use longhouse_database::{Claims, Database, DatabaseOptions, Error};
use tokio::sync::{Notify, mpsc, watch};
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

use super::batch::{self, Batch, Notice};
use super::catalog::{self, Table};
use super::compile::{self, Unusable};
use super::leader::{Leader, Progress, SUBJECT, State};
use super::registry::{Registry, Selection};
use super::router::{AT_ONCE, Router};
use super::{Sink, Source, SubscribeError, SubscriptionId, SystemStatus, Wanted, messages};
use crate::bus::{EventBus, NodeId};

/// Batches that wait for the router. With more, the leader waits, and the others drop and tell.
const WAITING: usize = 64;
/// Longest that a subscription waits until changes flow.
const START_LIMIT: Duration = Duration::from_secs(10);
/// How long what was found out about a table serves further subscriptions.
const FRESH: Duration = Duration::from_secs(3);
/// Tables and roles that this is kept for.
const MOST_FRESH: usize = 1_000;
/// Tables of a wildcard whose columns are checked at once.
const MOST_CHECKED: usize = 100;
/// Between two messages about lost changes.
const TELL_EVERY: Duration = Duration::from_secs(5);
/// Longest that a stop waits for the tasks.
const STOP_LIMIT: Duration = Duration::from_secs(5);

/// How to read changes.
#[derive(Debug, Clone)]
pub struct ChangesOptions {
    /// The login that replicates: it needs the attribute `replication` and a direct connection. The project's owner.
    pub replication: DatabaseOptions,
    /// The publication whose tables clients may follow.
    pub publication: String,
    /// Bytes of log that our slot may hold back. Beyond, it is made anew: changes are lost, and everybody is told.
    pub max_lag: u64,
    /// After a start, how long changes that were made meanwhile wait for the first subscriber to come back.
    pub grace: Duration,
    /// And for the others, once the first is there.
    pub settle: Duration,
}

impl ChangesOptions {
    /// Defaults: publication `supabase_realtime`, 1 GB, 15 s and 2 s.
    pub fn new(replication: DatabaseOptions) -> Self {
        Self {
            replication,
            publication: "supabase_realtime".into(),
            max_lag: 1 << 30,
            grace: Duration::from_secs(15),
            settle: Duration::from_secs(2),
        }
    }
}

/// Tells subscribers that changes were lost.
#[derive(Clone)]
pub(super) struct Lost {
    sink: Arc<dyn Sink>,
    registry: Arc<Mutex<Registry>>,
    told: Arc<Mutex<Option<Instant>>>,
}

impl Lost {
    pub(super) fn tell(&self, why: &str) {
        metrics::counter!("realtime_changes_losses_total").increment(1);
        // Whoever knows already need not hear it of each batch.
        let told = lock(&self.told).replace(Instant::now());
        if told.is_some_and(|told| told.elapsed() < TELL_EVERY) {
            return;
        }
        let ids = lock(&self.registry).ids();
        if !ids.is_empty() {
            let message = format!("Changes were lost: {why}. Read the tables anew");
            self.sink.system(&ids, SystemStatus::Error, &message);
        }
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Changes of one database for the subscriptions of this server.
#[derive(Debug)]
pub struct Changes {
    database: Database,
    publication: String,
    registry: Arc<Mutex<Registry>>,
    checked: Mutex<HashMap<Asked, Checked>>,
    state: watch::Receiver<State>,
    wanted: Arc<Notify>,
    stop: CancellationToken,
    tasks: Mutex<Vec<JoinHandle<()>>>,
}

/// Schema, table, role.
type Asked = (Option<String>, Option<String>, String);
/// When tables were looked at, and what was found.
type Checked = (Instant, Arc<Vec<Arc<Table>>>);

impl Changes {
    /// Starts the tasks. Nothing is asked of the database until somebody subscribes, or a slot is found that an earlier
    /// run has left.
    pub fn start(
        options: ChangesOptions,
        database: Database,
        bus: Arc<dyn EventBus>,
        sink: Arc<dyn Sink>,
    ) -> Arc<Self> {
        describe_metrics();
        let registry = Arc::new(Mutex::new(Registry::default()));
        let (local, batches) = mpsc::channel(WAITING);
        let (state, watching) = watch::channel(State::Idle);
        let wanted = Arc::new(Notify::new());
        let stop = CancellationToken::new();
        let progress = Arc::new(Progress::default());
        let lost = Lost { sink: Arc::clone(&sink), registry: Arc::clone(&registry), told: Arc::default() };
        let router = Router::new(database.clone(), Arc::clone(&sink), Arc::clone(&registry));
        let follower = Follower {
            bus: Arc::clone(&bus),
            local: local.clone(),
            progress: Arc::clone(&progress),
            lost: lost.clone(),
            last: None,
        };
        let publication = options.publication.clone();
        let leader = Leader {
            database: database.clone(),
            options: options.replication,
            publication: options.publication,
            max_lag: options.max_lag,
            grace: options.grace,
            settle: options.settle,
            bus,
            sink,
            local,
            progress,
            lost,
            state,
            wanted: Arc::clone(&wanted),
            stop: stop.clone(),
            has_led: false,
        };
        let tasks = vec![
            tokio::spawn(route(router, batches)),
            tokio::spawn(follower.run(stop.clone())),
            tokio::spawn(leader.run()),
            tokio::spawn(messages::maintain(database.clone(), stop.clone())),
        ];
        Arc::new(Self {
            database,
            publication,
            registry,
            checked: Mutex::default(),
            state: watching,
            wanted,
            stop,
            tasks: Mutex::new(tasks),
        })
    }

    /// Begins to read the log, if no server does yet: to be called when the first channel is joined, since the
    /// database may send messages to any channel. Returns at once.
    pub fn attend(&self) {
        if *self.state.borrow() == State::Idle {
            self.wanted.notify_one();
        }
    }

    /// Hands out what was read, says how far, and ends. The slot stays, so that the next start goes on from here.
    pub async fn stop(&self) {
        self.stop.cancel();
        let tasks = std::mem::take(&mut *lock(&self.tasks));
        for task in tasks {
            let abort = task.abort_handle();
            if tokio::time::timeout(STOP_LIMIT, task).await.is_err() {
                abort.abort();
            }
        }
    }

    /// Waits until some server reads the log.
    async fn flowing(&self) -> Result<(), SubscribeError> {
        let mut state = self.state.clone();
        match &*state.borrow_and_update() {
            State::Leading | State::Following => return Ok(()),
            State::Idle | State::Failed(_) => self.wanted.notify_one(),
            State::Starting => {}
        }
        let settled = async {
            loop {
                if state.changed().await.is_err() {
                    return Err("this server is being stopped".to_owned());
                }
                match &*state.borrow_and_update() {
                    State::Leading | State::Following => return Ok(()),
                    State::Failed(why) => return Err(why.clone()),
                    State::Idle | State::Starting => {}
                }
            }
        };
        match tokio::time::timeout(START_LIMIT, settled).await {
            Ok(settled) => settled.map_err(SubscribeError::Unavailable),
            Err(_) => match self.status() {
                Ok(()) => Ok(()),
                Err(why) => Err(SubscribeError::Unavailable(why)),
            },
        }
    }

    /// The published tables that a selection concerns, as a role sees them.
    async fn tables(&self, selection: &Selection, role: &str) -> Result<Arc<Vec<Arc<Table>>>, Error> {
        const SQL: &str = "
            select c.oid from pg_publication_tables p
            join pg_namespace n on n.nspname = p.schemaname
            join pg_class c on c.relnamespace = n.oid and c.relname = p.tablename
            where p.pubname = $1 and ($2::text is null or p.schemaname = $2::text)
              and ($3::text is null or p.tablename = $3::text)
            order by c.oid limit $4";
        let asked = (selection.schema.clone(), selection.table.clone(), role.to_owned());
        if let Some((at, tables)) = lock(&self.checked).get(&asked)
            && at.elapsed() < FRESH
        {
            return Ok(Arc::clone(tables));
        }
        let limit = i64::try_from(MOST_CHECKED).unwrap_or(i64::MAX);
        let anon = Claims::anon();
        let rows = self
            .database
            .as_role(&anon)
            .query(SQL, &[&self.publication, &selection.schema, &selection.table, &limit])
            .await?;
        let oids: Vec<u32> = rows.iter().map(|row| row.get(0)).collect();
        let tables = match oids.is_empty() {
            true => Vec::new(),
            false => {
                let catalog = catalog::load(&self.database, &oids, &[role.to_owned()]).await?;
                catalog.tables.into_values().collect()
            }
        };
        let tables = Arc::new(tables);
        // One that is not published yet may be in a moment.
        if !tables.is_empty() {
            let mut checked = lock(&self.checked);
            if checked.len() >= MOST_FRESH {
                checked.clear();
            }
            checked.insert(asked, (Instant::now(), Arc::clone(&tables)));
        }
        Ok(tables)
    }

    /// Says what is wrong with a subscription, as Supabase does.
    async fn check(&self, claims: &Claims, selection: &Selection) -> Result<(), SubscribeError> {
        let unavailable = |error: Error| {
            SubscribeError::Unavailable(format!("Unable to subscribe to changes at the moment: {error}"))
        };
        let refuse = |why: String| {
            SubscribeError::Invalid(format!(
                "Unable to subscribe to changes with given parameters. An exception happened so please check your \
                 connect parameters: [{}]. Exception: {why}",
                selection.describe()
            ))
        };
        let tables = self.tables(selection, claims.role()).await.map_err(unavailable)?;
        if tables.is_empty() {
            return Err(SubscribeError::Unavailable(format!(
                "Unable to subscribe to changes with given parameters. Please check Realtime is enabled for the given \
                 connect parameters: [{}]",
                selection.describe()
            )));
        }
        for table in tables.iter() {
            let Some(role) = table.roles.get(claims.role()) else {
                return Err(refuse(format!("role {:?} does not exist", claims.role())));
            };
            let named = selection.table.is_some();
            if named && !role.schema {
                return Err(refuse(format!("ERROR 42501 permission denied for schema {}", table.schema)));
            }
            if named && !role.columns.contains(&true) {
                return Err(refuse(format!("ERROR 42501 permission denied for table {}", table.name)));
            }
            let allowed =
                |name: &str| table.column(name).is_some_and(|column| role.columns.get(column) == Some(&true));
            for column in selection.select.iter().flatten() {
                if !allowed(column) {
                    return Err(refuse(format!("invalid column for select {column}")));
                }
            }
            for condition in &selection.conditions {
                if !allowed(&condition.column) {
                    return Err(refuse(format!("invalid column for filter {}", condition.column)));
                }
                match compile::compile(&self.database, claims, table, condition).await {
                    Ok(_) => {}
                    Err(Unusable::Invalid(why)) => return Err(refuse(why)),
                    Err(Unusable::Database(error)) => return Err(unavailable(error)),
                }
            }
        }
        Ok(())
    }
}

impl Drop for Changes {
    fn drop(&mut self) {
        self.stop.cancel();
    }
}

#[async_trait]
impl Source for Changes {
    async fn subscribe(
        &self,
        id: SubscriptionId,
        claims: &Claims,
        wanted: &Wanted,
    ) -> Result<(), SubscribeError> {
        let selection = Selection::parse(wanted).map_err(SubscribeError::Invalid)?;
        // Known before reading begins, since what was missed during a restart is told at once.
        let insert = |selection: &Arc<Selection>| {
            let mut registry = lock(&self.registry);
            registry.insert(id, claims, Arc::clone(selection));
            #[expect(clippy::cast_precision_loss, reason = "a metric")]
            metrics::gauge!("realtime_changes_subscriptions").set(registry.len() as f64);
        };
        let selection = Arc::new(selection);
        self.check(claims, &selection).await?;
        insert(&selection);
        let flowing = self.flowing().await;
        if flowing.is_err() {
            self.unsubscribe(&[id]);
        }
        flowing
    }

    fn unsubscribe(&self, ids: &[SubscriptionId]) {
        let mut registry = lock(&self.registry);
        registry.remove(ids);
        #[expect(clippy::cast_precision_loss, reason = "a metric")]
        metrics::gauge!("realtime_changes_subscriptions").set(registry.len() as f64);
    }

    async fn renew(&self, ids: &[SubscriptionId], claims: &Claims) {
        lock(&self.registry).renew(ids, claims);
    }

    fn attend(&self) {
        Self::attend(self);
    }

    async fn ready(&self) -> Result<(), SubscribeError> {
        self.flowing().await
    }

    fn status(&self) -> Result<(), String> {
        match &*self.state.borrow() {
            State::Idle | State::Leading | State::Following => Ok(()),
            State::Starting => {
                Err("the changes of the database are being connected; try again in a moment".into())
            }
            State::Failed(why) => Err(why.clone()),
        }
    }
}

/// Hands batches to the router, as many at once as have come; ends when all that came before the stop is handed out.
async fn route(mut router: Router, mut batches: mpsc::Receiver<Batch>) {
    while let Some(batch) = batches.recv().await {
        let mut entries = batch.entries;
        while entries.len() < AT_ONCE
            && let Ok(more) = batches.try_recv()
        {
            entries.extend(more.entries);
        }
        router.route(&entries).await;
    }
}

/// Receives what other servers read.
struct Follower {
    bus: Arc<dyn EventBus>,
    local: mpsc::Sender<Batch>,
    progress: Arc<Progress>,
    lost: Lost,
    /// The server that reads, and its last batch.
    last: Option<(NodeId, u64)>,
}

impl Follower {
    async fn run(mut self, stop: CancellationToken) {
        let mut subscription = self.bus.subscribe(SUBJECT);
        while let Some(delivery) = tokio::select! {
            delivery = subscription.next() => delivery,
            () = stop.cancelled() => None,
        } {
            match batch::decode(delivery.payload) {
                Some(Notice::Changes(batch)) => self.take(delivery.from, batch),
                Some(Notice::Reset(why)) => self.lost.tell(&why),
                None => {
                    tracing::warn!(from = %delivery.from, "another server sends changes in an unknown form");
                }
            }
        }
    }

    fn take(&mut self, from: NodeId, mut batch: Batch) {
        if let Some((leader, number)) = self.last.replace((from, batch.number))
            && leader == from
            && batch.number > number + 1
        {
            self.lost.tell("messages between servers were lost");
        }
        let known = self.progress.of(batch.epoch);
        batch.entries.retain(|entry| entry.position > known);
        self.progress.note(batch.epoch, batch.handled);
        if !batch.entries.is_empty() && self.local.try_send(batch).is_err() {
            self.lost.tell("this server was too slow");
        }
    }
}

fn describe_metrics() {
    use metrics::{describe_counter, describe_gauge};
    describe_gauge!("realtime_changes_subscriptions", "Subscriptions to changes of the database");
    describe_gauge!("realtime_changes_leading", "Whether this server reads the log of the database");
    describe_gauge!("realtime_changes_lag_bytes", "Bytes of log that the replication slot holds back");
    describe_gauge!("realtime_changes_lag_seconds", "Age of the change that was handed out last");
    describe_counter!("realtime_changes_decoded_total", "Changes of rows read from the log");
    describe_counter!("realtime_changes_repeated_total", "Changes that came again and were left out");
    describe_counter!("realtime_changes_checks_total", "Policies evaluated, here or by Postgres");
    describe_counter!("realtime_changes_delivered_total", "Changes handed to subscriptions");
    describe_counter!(
        "realtime_changes_lost_total",
        "Changes given up because Postgres did not say who may see them"
    );
    describe_counter!("realtime_changes_losses_total", "Times that subscribers were told of lost changes");
    describe_counter!(
        "realtime_changes_slot_resets_total",
        "Times that the replication slot had to be made anew"
    );
    describe_counter!("realtime_database_broadcasts_total", "Messages that the database sent to channels");
    describe_gauge!(
        "realtime_messages_maintained",
        "Whether the partitions of realtime.messages could be maintained"
    );
}
