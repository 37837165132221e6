//! Measures how changes keep up: so many users, each with a subscription of its own, and so many changes a second, one
//! transaction each, decided by row-level security. Postgres, writer and server share the machine.
//!
//! `cargo run --release -p longhouse-realtime --example changes -- [users] [changes a second] [seconds]`

#![allow(clippy::print_stdout, clippy::unwrap_used, clippy::large_futures)]

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use chrono::{DateTime, Utc};
use longhouse_database::cluster::Login;
use longhouse_database::testing::{TemplateDatabase, TestCluster, TestDatabase};
use longhouse_database::{Claims, Database, DatabaseOptions, bootstrap, connect_client};
use longhouse_realtime::bus::Local;
use longhouse_realtime::changes::{
    Change, Changes, ChangesOptions, DatabaseBroadcast, Sink, Source as _, SubscriptionId, SystemStatus,
    Wanted,
};
use secrecy::SecretString;
use uuid::Uuid;

fn options(url: &SecretString) -> DatabaseOptions {
    DatabaseOptions { url: url.clone(), pool_size: 6, pool_timeout: Duration::from_secs(30), ca_file: None }
}

async fn prepare(template: &TemplateDatabase) -> Result<(), Box<dyn std::error::Error>> {
    let cluster = TestCluster::shared().await;
    let mut admin = connect_client(&options(&template.superuser_url)).await?;
    let passwords = bootstrap::Passwords {
        owner: cluster.password(Login::Owner),
        authenticator: cluster.password(Login::Authenticator),
    };
    bootstrap::apply(&mut admin, Some(&passwords)).await?;
    let owner = connect_client(&options(&template.owner_url)).await?;
    owner
        .batch_execute(
            "create function is_mine(owner uuid) returns boolean stable language sql as $$ select owner = auth.uid() $$;
             create table known (id bigserial primary key, owner uuid, body text);
             create table asked (like known including all);
             create table filtered (like known including all);
             alter table known enable row level security;
             alter table asked enable row level security;
             create policy own on known for select to authenticated using (owner = auth.uid());
             create policy own on asked for select to authenticated using (is_mine(owner));
             alter publication supabase_realtime add table known, asked, filtered;",
        )
        .await?;
    Ok(())
}

/// Counts, and notes how old each change is when it comes.
#[derive(Default)]
struct Counter {
    delivered: AtomicU64,
    ages: Mutex<Vec<i64>>,
}

impl Sink for Counter {
    fn change(&self, receivers: &[SubscriptionId], change: &Arc<Change>) {
        self.delivered.fetch_add(receivers.len() as u64, Ordering::Relaxed);
        let text = std::str::from_utf8(&change.data).unwrap();
        let at = text.split_once("\"commit_timestamp\":\"").unwrap().1;
        let at = at[..24].parse::<DateTime<Utc>>().unwrap();
        self.ages.lock().unwrap().push((Utc::now() - at).num_milliseconds());
    }

    fn database_broadcast(&self, _message: DatabaseBroadcast) {}

    fn system(&self, _receivers: &[SubscriptionId], _status: SystemStatus, message: &str) {
        println!("system: {message}");
    }
}

/// Seconds of processor time of this process.
fn used() -> f64 {
    let text = std::fs::read_to_string("/proc/self/stat").unwrap();
    let fields: Vec<&str> = text.rsplit_once(')').unwrap().1.split_whitespace().collect();
    (fields[11].parse::<f64>().unwrap() + fields[12].parse::<f64>().unwrap()) / 100.0
}

#[tokio::main]
async fn main() {
    let mut arguments = std::env::args().skip(1).map(|argument| argument.parse::<u64>().unwrap());
    let users = arguments.next().unwrap_or(1_000);
    let rate = arguments.next().unwrap_or(1_000);
    let seconds = arguments.next().unwrap_or(20);
    let database = TestDatabase::create(&format!("changes {}", std::process::id()), prepare).await;
    for table in ["known", "asked", "filtered"] {
        scenario(&database, table, users, rate, seconds).await;
    }
}

async fn scenario(database: &TestDatabase, table: &str, users: u64, rate: u64, seconds: u64) {
    let counter = Arc::new(Counter::default());
    let pool = Database::connect(&options(&database.authenticator_url)).await.unwrap();
    let settings =
        ChangesOptions { settle: Duration::ZERO, ..ChangesOptions::new(options(&database.owner_url)) };
    let bus = Arc::new(Local::default().join());
    let changes = Changes::start(settings, pool, bus, Arc::clone(&counter) as Arc<dyn Sink>);
    let began = Instant::now();
    for user in 0..users {
        let id = Uuid::from_u128(user.into());
        let filter = (table == "filtered").then(|| format!("owner=eq.{id}"));
        let wanted = Wanted { table: Some(table.into()), filter, ..Wanted::default() };
        changes.subscribe(SubscriptionId(user), &Claims::user(id), &wanted).await.unwrap();
    }
    let subscribed = began.elapsed();
    let writer = connect_client(&options(&database.owner_url)).await.unwrap();
    let insert =
        format!("insert into {table} (owner, body) values ($1, 'a row of some length, as rows are')");
    let insert = writer.prepare(&insert).await.unwrap();
    // The first change loads what is known of the table.
    writer.execute(&insert, &[&Uuid::nil()]).await.unwrap();
    while counter.delivered.load(Ordering::Relaxed) == 0 {
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    counter.ages.lock().unwrap().clear();
    let (began, before) = (Instant::now(), used());
    let total = rate * seconds;
    for number in 0..total {
        let due = Duration::from_micros(number * 1_000_000 / rate);
        if let Some(early) = due.checked_sub(began.elapsed()) {
            tokio::time::sleep(early).await;
        }
        writer.execute(&insert, &[&Uuid::from_u128((number % users).into())]).await.unwrap();
    }
    let wrote = began.elapsed();
    let behind = Instant::now();
    while counter.delivered.load(Ordering::Relaxed) < total + 1 && behind.elapsed() < Duration::from_secs(120)
    {
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    let behind = behind.elapsed();
    let cpu = used() - before;
    let mut ages = std::mem::take(&mut *counter.ages.lock().unwrap());
    ages.sort_unstable();
    let percentile = |percent: usize| ages.get(ages.len() * percent / 100).copied().unwrap_or_default();
    println!(
        "{table}: {users} subscribed in {:.1} s; {:.0} changes/s for {:.1} s; delivered {} of {}; age p50 {} p95 {} p99 {} \
         max {} ms; behind at the end {} ms; {:.0} µs of this process for each change",
        subscribed.as_secs_f64(),
        total as f64 / wrote.as_secs_f64(),
        wrote.as_secs_f64(),
        counter.delivered.load(Ordering::Relaxed) - 1,
        total,
        percentile(50),
        percentile(95),
        percentile(99),
        ages.last().copied().unwrap_or_default(),
        behind.as_millis(),
        cpu * 1e6 / total as f64,
    );
    changes.stop().await;
}
