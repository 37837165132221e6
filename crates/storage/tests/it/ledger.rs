//! Bytes without a row: who enters them, who strikes them out, who deletes them.

use std::fs::File;
use std::time::{Duration, SystemTime};

use futures_util::StreamExt;
use longhouse_server::Drain;
use longhouse_storage::blobs::Version;
use longhouse_storage::ledger::sweeper::SweepOptions;
use serde_json::json;

use crate::harness::{ANN, ANN_, As, TestStorage};

#[tokio::test]
async fn the_sweeper_keeps_what_is_fresh() {
    let app = TestStorage::start().await;
    app.put(As::Service, "files/a", "a").await;
    app.call(As::Service, "DELETE", "/object/files/a", json!({})).await;
    let pending = app.storage.begin().await.unwrap();
    assert_eq!(app.storage.sweep(SweepOptions::default()).await.unwrap().deleted, 0);
    assert_eq!(app.ledger().await, ["condemned", "pending"]);
    let age = "update storage.blobs set touched_at = now() - interval '2 hours' where state = 'condemned'";
    app.owner.batch_execute(age).await.unwrap();
    assert_eq!(app.storage.sweep(SweepOptions::default()).await.unwrap().deleted, 1);
    assert_eq!(app.ledger().await, ["pending"]);
    assert!(app.files().is_empty());
    // A running upload keeps touching its entry.
    app.owner
        .batch_execute("update storage.blobs set touched_at = now() - interval '2 hours'")
        .await
        .unwrap();
    pending.touch().await.unwrap();
    assert_eq!(app.storage.sweep(SweepOptions::default()).await.unwrap().deleted, 0);
    drop(pending);
    app.nothing_pending().await;
}

#[tokio::test]
async fn a_staged_file_without_an_entry_goes_when_it_is_old() {
    let app = TestStorage::start().await;
    let pending = app.storage.begin().await.unwrap();
    let old = SystemTime::now() - Duration::from_secs(2 * 3600);
    let staged = [(Version::new(), old), (Version::new(), SystemTime::now()), (pending.version(), old)];
    let staged = staged.map(|(version, modified)| {
        let path = app.folder.path().join("staging").join(version.to_string());
        let file = File::create(&path).unwrap();
        file.set_modified(modified).unwrap();
        path
    });
    assert_eq!(app.storage.sweep(SweepOptions::default()).await.unwrap().deleted, 1);
    let there = staged.each_ref().map(|path| path.exists());
    assert_eq!(there, [false, true, true], "one may be about to be entered, one is entered");
    app.sweep().await;
    assert!(app.files().is_empty());
    drop(pending);
}

#[tokio::test]
async fn an_upload_that_was_given_up_cannot_be_finished() {
    let app = TestStorage::start().await;
    let content = futures_util::stream::iter([Ok(bytes::Bytes::from_static(b"late"))]).boxed();
    let stored = app.storage.receive(content).await.unwrap();
    assert_eq!(app.sweep().await.deleted, 1);
    assert!(stored.pending.touch().await.is_err());
    // Its row would have no bytes.
    let sql = format!(
        "begin; set local \"longhouse.blob\" = '{0}'; insert into storage.objects (bucket_id, name, version) values ('files', 'late', '{0}')",
        stored.pending.version()
    );
    let refused = app.owner.batch_execute(&sql).await.unwrap_err();
    assert_eq!(refused.code().unwrap().code(), "LH410");
    app.owner.batch_execute("rollback").await.unwrap();
    assert_eq!(app.count("objects").await, 0);
}

#[tokio::test]
async fn a_row_that_comes_back_keeps_its_bytes() {
    let app = TestStorage::start().await;
    let path = format!("files/{ANN}/a.txt");
    app.put(ANN_, &path, "back").await;
    app.owner
        .batch_execute(
            "create table public.rescued as select bucket_id, name, version, metadata from storage.objects;
             delete from storage.objects;
             insert into storage.objects (bucket_id, name, version, metadata) select * from public.rescued",
        )
        .await
        .unwrap();
    assert!(app.ledger().await.is_empty());
    app.sweep().await;
    assert_eq!(app.text(ANN_, &path).await.unwrap(), "back");
    // Two rows of the same bytes, by SQL: the bytes go with the last.
    app.owner
        .batch_execute(
            "insert into storage.objects (bucket_id, name, version, metadata) select 'other', name, version, metadata from public.rescued;
             delete from storage.objects where bucket_id = 'files'",
        )
        .await
        .unwrap();
    app.sweep().await;
    assert_eq!(app.files().len(), 1);
    assert_eq!(app.text(ANN_, &format!("other/{ANN}/a.txt")).await.unwrap(), "back");
    app.owner.batch_execute("delete from storage.objects").await.unwrap();
    app.sweep().await;
    assert!(app.files().is_empty());
}

#[tokio::test]
async fn nobody_but_the_service_sees_the_ledger() {
    let app = TestStorage::start().await;
    for role in ["anon", "authenticated"] {
        let sql = format!("begin; set local role {role}; select * from storage.blobs");
        assert!(app.owner.batch_execute(&sql).await.is_err(), "{role}");
        app.owner.batch_execute("rollback").await.unwrap();
    }
}

#[tokio::test]
async fn several_sweepers_share_the_work_and_stop() {
    let app = TestStorage::start().await;
    let many = (0..250).map(|n| {
        let app = &app;
        async move { app.put(As::Service, &format!("files/{n}"), "x").await.0 }
    });
    let done: Vec<u16> = futures_util::stream::iter(many).buffer_unordered(8).collect().await;
    assert!(done.iter().all(|status| *status == 200));
    app.call(As::Service, "POST", "/bucket/files/empty", json!({})).await;
    assert_eq!(app.ledger().await.len(), 250);
    let (one, two, three) = tokio::join!(app.sweep(), app.sweep(), app.sweep());
    assert_eq!(one.deleted + two.deleted + three.deleted, 250);
    assert!(app.files().is_empty() && app.ledger().await.is_empty());

    let drain = Drain::new();
    let task = app.storage.spawn_sweeper(SweepOptions::default(), drain.clone());
    drain.begin(Duration::from_secs(1));
    tokio::time::timeout(Duration::from_secs(10), task).await.expect("it stops on drain").unwrap();
}
