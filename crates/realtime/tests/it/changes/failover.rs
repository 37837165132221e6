//! Servers and connections that die, and a database that cannot.

use std::sync::Arc;
use std::time::Duration;

use longhouse_database::cluster::{Cluster, ClusterOptions, Login, Port};
use longhouse_database::{Claims, Database, connect_client};
use longhouse_realtime::bus::Local;
use longhouse_realtime::changes::{Changes, ChangesOptions, Sink, Source as _, SubscriptionId, SystemStatus};
use serde_json::json;
use tokio_postgres::Client;

use super::harness::{ANN, Recorder, TestProject, options};

const SLOT: &str = "select coalesce(string_agg(active::text, ','), 'none') from pg_replication_slots
                    where database = current_database()";

async fn until(project: &TestProject, sql: &str, expected: &str) {
    let wait = async {
        while project.text(sql).await != expected {
            tokio::task::yield_now().await;
        }
    };
    tokio::time::timeout(Duration::from_secs(30), wait)
        .await
        .unwrap_or_else(|_| panic!("{sql}: not {expected}"));
}

#[tokio::test]
async fn nothing_is_asked_of_the_database_before_somebody_subscribes() {
    let project = TestProject::create().await;
    let server = project.server().await;
    assert_eq!(project.text(SLOT).await, "none");
    assert_eq!(server.changes.status(), Ok(()));
    server.follow("notes").await;
    until(&project, SLOT, "true").await;
    server.changes.stop().await;
    assert_eq!(project.text(SLOT).await, "false", "it stays for the next start");
}

#[tokio::test]
async fn a_restart_goes_on_where_the_last_run_ended() {
    let project = TestProject::create().await;
    let first = project.server().await;
    let before = first.follow("notes").await;
    project.sql("insert into notes values (1)").await;
    first.ids_until(before, 1).await;
    first.changes.stop().await;
    project.sql("insert into notes values (2); select realtime.send('{}', 'meanwhile', 'room')").await;
    let second = project.server().await;
    let after = second.follow("notes").await;
    project.sql("insert into notes values (3)").await;
    assert_eq!(second.ids_until(after, 3).await, [2, 3], "nothing is lost, nothing comes twice");
    second.recorder.until("the message", |recorder| recorder.broadcasts().pop()).await;
    second.changes.stop().await;
}

#[tokio::test]
async fn a_slot_of_an_earlier_run_does_not_hold_back_the_log_for_ever() {
    let project = TestProject::create().await;
    let first = project.server().await;
    first.follow("notes").await;
    first.changes.stop().await;
    let second = project.server().await;
    until(&project, SLOT, "true").await;
    second.changes.stop().await;
}

#[tokio::test]
async fn a_terminated_connection_is_opened_again_without_losses_or_repetitions() {
    let project = TestProject::create().await;
    let server = project.server().await;
    let notes = server.follow("notes").await;
    for round in 0..5 {
        project.sql(&format!("insert into notes select n from generate_series({round}1, {round}8) n")).await;
        project
            .sql("select pg_terminate_backend(active_pid) from pg_replication_slots where database = current_database()")
            .await;
        project.sql(&format!("insert into notes values ({round}9)")).await;
    }
    let expected: Vec<i64> = (0..5).flat_map(|round| round * 10 + 1..=round * 10 + 9).collect();
    assert_eq!(server.ids_until(notes, 49).await, expected);
    server.changes.stop().await;
}

#[tokio::test]
async fn another_server_takes_over_when_the_reading_one_dies() {
    let project = TestProject::create().await;
    let first = project.server().await;
    let of_first = first.follow("notes").await;
    let second = project.server().await;
    let wanted = json!({"event": "*", "table": "notes"});
    let of_second = second.subscribe(&Claims::user(ANN), wanted).await;
    project.sql("insert into notes values (1)").await;
    assert_eq!(first.ids_until(of_first, 1).await, [1]);
    assert_eq!(
        second.ids_until(of_second, 1).await,
        [1],
        "the one that does not read is told by the one that does"
    );
    first.changes.stop().await;
    project.sql("insert into notes values (2); select realtime.send('{}', 'after', 'room')").await;
    assert_eq!(second.ids_until(of_second, 2).await, [1, 2]);
    second.recorder.until("the message", |recorder| recorder.broadcasts().pop()).await;
    assert!(second.recorder.system().is_empty());
    second.changes.stop().await;
}

#[tokio::test]
async fn a_slot_that_holds_back_too_much_is_made_anew_and_everybody_is_told() {
    let project = TestProject::create().await;
    let first = project.server().await;
    first.follow("notes").await;
    first.changes.stop().await;
    // Nobody reads meanwhile.
    project
        .sql("insert into notes select n, null, repeat(md5(n::text), 50) from generate_series(1, 2000) n")
        .await;
    let server = project.server_with(longhouse_realtime::changes::ChangesOptions {
        max_lag: 100_000,
        ..project.changes_options()
    });
    let server = server.await;
    let notes = server.follow("notes").await;
    project.sql("insert into notes values (5000)").await;
    assert_eq!(server.ids_until(notes, 5000).await, [5000]);
    let told = server.recorder.system();
    let (id, status, message) = told.first().unwrap();
    assert_eq!((*id, *status), (notes, SystemStatus::Error));
    assert!(message.contains("Changes were lost"), "{message}");
    server.changes.stop().await;
}

#[tokio::test]
async fn a_slot_or_publication_that_somebody_drops_is_made_anew() {
    let project = TestProject::create().await;
    let server = project.server().await;
    let notes = server.follow("notes").await;
    project.sql("insert into notes values (1)").await;
    server.ids_until(notes, 1).await;
    project
        .sql(
            "do $$ begin loop
               perform pg_terminate_backend(active_pid, 1000) from pg_replication_slots where database = current_database();
               begin
                 perform pg_drop_replication_slot(slot_name) from pg_replication_slots where database = current_database();
                 return;
               exception when object_in_use then null; end;
             end loop; end $$",
        )
        .await;
    server.recorder.until("the loss to be told", |recorder| recorder.system().pop()).await;
    project.sql("insert into notes values (2)").await;
    server.ids_until(notes, 2).await;

    project.sql("drop publication supabase_realtime; insert into notes values (3)").await;
    project.sql("create publication supabase_realtime for table notes").await;
    let wait = async {
        let mut number = 10;
        while !server.recorder.changes(notes).iter().any(|change| change["record"]["id"].as_i64() >= Some(10))
        {
            number += 1;
            project.sql(&format!("insert into notes values ({number})")).await;
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    };
    tokio::time::timeout(Duration::from_secs(30), wait).await.unwrap();
    server.changes.stop().await;
}

/// A cluster of its own with settings that a person has made, and a server on it.
async fn on_own_cluster(
    folder: &std::path::Path,
    settings: &str,
) -> (Cluster, Client, Arc<Recorder>, Arc<Changes>) {
    let start = async || {
        let cluster = ClusterOptions { port: Port::Preferred(0), ..ClusterOptions::new(folder) };
        Cluster::start(cluster).await.unwrap()
    };
    let cluster = start().await;
    std::fs::write(folder.join("data/local.conf"), settings).unwrap();
    cluster.stop().await.unwrap();
    let cluster = start().await;
    let url = cluster.url(Login::Superuser);
    let admin = connect_client(&options(&url)).await.unwrap();
    admin
        .batch_execute(
            "create role anon; create table notes (id int primary key); grant select on notes to anon;
             create publication supabase_realtime for table notes",
        )
        .await
        .unwrap();
    let database = Database::connect(&options(&url)).await.unwrap();
    let recorder = Arc::new(Recorder::default());
    let bus = Arc::new(Local::default().join());
    let changes = Changes::start(
        ChangesOptions::new(options(&url)),
        database,
        bus,
        Arc::clone(&recorder) as Arc<dyn Sink>,
    );
    (cluster, admin, recorder, changes)
}

#[tokio::test]
async fn a_database_that_does_not_log_enough_says_what_to_set() {
    let folder = tempfile::tempdir().unwrap();
    let (cluster, _admin, _, changes) =
        on_own_cluster(folder.path(), "wal_level = replica\nmax_wal_senders = 0\n").await;
    let wanted = serde_json::from_value(json!({"table": "notes"})).unwrap();
    let refused = changes.subscribe(SubscriptionId(1), &Claims::anon(), &wanted).await.unwrap_err();
    assert!(refused.to_string().contains("set wal_level = logical"), "{refused}");
    assert!(changes.status().unwrap_err().contains("restart Postgres"));
    changes.stop().await;
    cluster.stop().await.unwrap();
}

#[tokio::test]
async fn where_nothing_bounds_slots_none_is_left_behind() {
    let folder = tempfile::tempdir().unwrap();
    let (cluster, admin, recorder, changes) =
        on_own_cluster(folder.path(), "max_slot_wal_keep_size = -1\n").await;
    let wanted = serde_json::from_value(json!({"table": "notes"})).unwrap();
    let id = SubscriptionId(1);
    changes.subscribe(id, &Claims::anon(), &wanted).await.unwrap();
    let slots = "select coalesce(string_agg(temporary::text, ','), 'none') from pg_replication_slots";
    let slots = async || admin.query_one(slots, &[]).await.unwrap().get::<_, String>(0);
    assert_eq!(slots().await, "true");
    let arrives = async |number: i32| {
        admin.execute("insert into notes values ($1)", &[&number]).await.unwrap();
        let what = format!("row {number}");
        recorder
            .until(&what, |recorder| {
                recorder.changes(id).iter().any(|change| change["record"]["id"] == number).then_some(())
            })
            .await;
    };
    arrives(1).await;
    admin.execute("select pg_terminate_backend(active_pid) from pg_replication_slots", &[]).await.unwrap();
    recorder.until("the loss to be told", |recorder| recorder.system().pop()).await;
    arrives(2).await;
    changes.stop().await;
    assert_eq!(slots().await, "none");
    cluster.stop().await.unwrap();
}
