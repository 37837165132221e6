//! A database of its own, and servers on it whose subscribers write down what they receive.

use std::collections::HashMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use longhouse_database::cluster::Login;
use longhouse_database::testing::{TemplateDatabase, TestCluster, TestDatabase};
use longhouse_database::{Claims, Database, DatabaseOptions, bootstrap, connect_client};
use longhouse_realtime::bus::{EventBus, Local};
use longhouse_realtime::changes::{
    Change, Changes, ChangesOptions, DatabaseBroadcast, Sink, Source as _, SubscribeError, SubscriptionId,
    SystemStatus, Wanted,
};
use secrecy::SecretString;
use serde_json::{Value, json};
use tokio::sync::Notify;
use tokio_postgres::Client;
use uuid::Uuid;

pub(crate) const ANN: Uuid = Uuid::from_u128(0xa11);
pub(crate) const BOB: Uuid = Uuid::from_u128(0xb0b);

/// Longest wait for anything.
const LIMIT: Duration = Duration::from_secs(30);

/// Tables that tests follow.
const TABLES: &str = "
    create table notes (id int primary key, owner uuid, body text);
    create table secrets (id int primary key, owner uuid, body text);
    alter table secrets enable row level security;
    create policy own on secrets for select to authenticated using (owner = auth.uid());
    create table silent (id int primary key);
    alter publication supabase_realtime add table notes, secrets;";

pub(crate) fn options(url: &SecretString) -> DatabaseOptions {
    DatabaseOptions { url: url.clone(), pool_size: 6, pool_timeout: Duration::from_secs(10), ca_file: None }
}

async fn prepare(template: &TemplateDatabase) -> Result<(), Box<dyn std::error::Error>> {
    let cluster = TestCluster::shared().await;
    let mut admin = connect_client(&options(&template.superuser_url)).await?;
    let passwords = bootstrap::Passwords {
        owner: cluster.password(Login::Owner),
        authenticator: cluster.password(Login::Authenticator),
    };
    Box::pin(bootstrap::apply(&mut admin, Some(&passwords))).await?;
    let owner = connect_client(&options(&template.owner_url)).await?;
    owner.batch_execute(TABLES).await?;
    Ok(())
}

/// What a server handed out.
#[derive(Default)]
pub(crate) struct Recorder {
    changes: Mutex<HashMap<SubscriptionId, Vec<Value>>>,
    broadcasts: Mutex<Vec<DatabaseBroadcast>>,
    system: Mutex<Vec<(SubscriptionId, SystemStatus, String)>>,
    news: Notify,
}

impl Sink for Recorder {
    fn change(&self, receivers: &[SubscriptionId], change: &Arc<Change>) {
        let data: Value = serde_json::from_slice(&change.data).unwrap();
        let mut changes = self.changes.lock().unwrap();
        for id in receivers {
            changes.entry(*id).or_default().push(data.clone());
        }
        drop(changes);
        self.news.notify_waiters();
    }

    fn database_broadcast(&self, message: DatabaseBroadcast) {
        self.broadcasts.lock().unwrap().push(message);
        self.news.notify_waiters();
    }

    fn system(&self, receivers: &[SubscriptionId], status: SystemStatus, message: &str) {
        let mut system = self.system.lock().unwrap();
        system.extend(receivers.iter().map(|id| (*id, status, message.to_owned())));
        drop(system);
        self.news.notify_waiters();
    }
}

impl Recorder {
    /// Waits until something is true of what was handed out.
    pub(crate) async fn until<T>(&self, what: &str, mut found: impl FnMut(&Self) -> Option<T>) -> T {
        let waited = tokio::time::timeout(LIMIT, async {
            loop {
                let news = self.news.notified();
                tokio::pin!(news);
                news.as_mut().enable();
                if let Some(found) = found(self) {
                    return found;
                }
                news.await;
            }
        });
        match waited.await {
            Ok(found) => found,
            Err(_) => panic!(
                "waited in vain for {what}; handed out: {:#?}, {:?}, {:?}",
                self.changes.lock().unwrap(),
                self.broadcasts.lock().unwrap(),
                self.system.lock().unwrap()
            ),
        }
    }

    pub(crate) fn changes(&self, id: SubscriptionId) -> Vec<Value> {
        self.changes.lock().unwrap().get(&id).cloned().unwrap_or_default()
    }

    pub(crate) fn broadcasts(&self) -> Vec<DatabaseBroadcast> {
        self.broadcasts.lock().unwrap().clone()
    }

    pub(crate) fn system(&self) -> Vec<(SubscriptionId, SystemStatus, String)> {
        self.system.lock().unwrap().clone()
    }
}

static IDS: AtomicU64 = AtomicU64::new(1);

/// A database with tables to follow.
pub(crate) struct TestProject {
    pub(crate) owner: Client,
    pub(crate) bus: Local,
    // Dropped last: everything above uses it.
    pub(crate) database: TestDatabase,
}

impl TestProject {
    pub(crate) async fn create() -> Self {
        let bootstrap = include_str!("../../../../database/src/bootstrap/sql/realtime.sql");
        let database = TestDatabase::create(&format!("realtime changes {bootstrap} {TABLES}"), prepare).await;
        let owner = connect_client(&options(&database.owner_url)).await.unwrap();
        Self { owner, bus: Local::default(), database }
    }

    /// Runs SQL as the owner.
    pub(crate) async fn sql(&self, sql: &str) {
        self.owner.batch_execute(sql).await.unwrap_or_else(|error| panic!("{sql}: {error:?}"));
    }

    pub(crate) async fn text(&self, sql: &str) -> String {
        self.owner.query_one(sql, &[]).await.unwrap().get::<_, Option<String>>(0).unwrap_or_default()
    }

    pub(crate) fn changes_options(&self) -> ChangesOptions {
        ChangesOptions {
            settle: Duration::ZERO,
            grace: Duration::from_millis(500),
            ..ChangesOptions::new(options(&self.database.owner_url))
        }
    }

    /// A server.
    pub(crate) async fn server(&self) -> TestServer {
        self.server_with(self.changes_options()).await
    }

    pub(crate) async fn server_with(&self, options_: ChangesOptions) -> TestServer {
        let database = Database::connect(&options(&self.database.authenticator_url)).await.unwrap();
        let recorder = Arc::new(Recorder::default());
        let bus: Arc<dyn EventBus> = Arc::new(self.bus.join());
        let changes = Changes::start(options_, database.clone(), bus, Arc::clone(&recorder) as Arc<dyn Sink>);
        TestServer { changes, recorder, database }
    }
}

/// A server and what it handed out.
pub(crate) struct TestServer {
    pub(crate) changes: Arc<Changes>,
    pub(crate) recorder: Arc<Recorder>,
    pub(crate) database: Database,
}

impl TestServer {
    pub(crate) async fn try_subscribe(
        &self,
        claims: &Claims,
        wanted: Value,
    ) -> Result<SubscriptionId, SubscribeError> {
        let id = SubscriptionId(IDS.fetch_add(1, Ordering::Relaxed));
        let wanted: Wanted = serde_json::from_value(wanted).unwrap();
        self.changes.subscribe(id, claims, &wanted).await.map(|()| id)
    }

    pub(crate) async fn subscribe(&self, claims: &Claims, wanted: Value) -> SubscriptionId {
        self.try_subscribe(claims, wanted).await.unwrap()
    }

    /// As the service, to a whole table.
    pub(crate) async fn follow(&self, table: &str) -> SubscriptionId {
        self.subscribe(&service(), json!({"event": "*", "schema": "public", "table": table})).await
    }

    /// The first changes that a subscription received, once there are so many.
    pub(crate) async fn received(&self, id: SubscriptionId, count: usize) -> Vec<Value> {
        let what = format!("{count} changes of {id:?}");
        self.recorder
            .until(&what, |recorder| {
                let changes = recorder.changes(id);
                (changes.len() >= count).then_some(changes)
            })
            .await
    }

    /// Ids of the rows that a subscription received, once one has come: changes come in order.
    pub(crate) async fn ids_until(&self, id: SubscriptionId, last: i64) -> Vec<i64> {
        let what = format!("row {last} for {id:?}");
        self.recorder
            .until(&what, |recorder| {
                let ids: Vec<i64> = recorder.changes(id).iter().map(row_id).collect();
                ids.contains(&last).then_some(ids)
            })
            .await
    }
}

pub(crate) fn row_id(change: &Value) -> i64 {
    let record = if change["type"] == "DELETE" { &change["old_record"] } else { &change["record"] };
    record["id"].as_i64().unwrap_or_default()
}

pub(crate) fn service() -> Claims {
    Claims::new("service_role", serde_json::Map::new())
}
