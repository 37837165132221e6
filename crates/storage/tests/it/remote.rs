//! Bytes in an S3-compatible store behind a socket: another Longhouse, whose `/s3` checks signatures, lengths and
//! conditions as a store does.

use std::sync::Arc;

use bytes::Bytes;
use futures_util::StreamExt;
use futures_util::stream;
use longhouse_storage::blobs::BlobError;
use longhouse_storage::blobs::remote::{Remote, S3Options};
use longhouse_storage::check::{CheckOptions, Finding};
use reqwest::Method;
use serde_json::json;

use crate::harness::{ANN_, As, TestStorage, answer};
use crate::s3::OPERATOR;
use crate::tus::own;

/// A service, and the one that holds its bytes.
async fn both() -> (TestStorage, TestStorage) {
    let store = TestStorage::start().await;
    let (id, secret) = OPERATOR;
    let remote = Remote::s3(&S3Options {
        endpoint: Some(store.url("/s3").parse().unwrap()),
        region: "eu-north-1".into(),
        bucket: "files".into(),
        prefix: "longhouse/one".into(),
        access_key_id: Some(id.into()),
        secret_access_key: Some(secret.into()),
        path_style: true,
    });
    let app = TestStorage::over(Arc::new(remote.unwrap())).await;
    (app, store)
}

/// More than one part of an upload to the store.
fn large() -> Vec<u8> {
    (0..9_500_000_u32).map(|i| (i.wrapping_mul(31) % 251) as u8).collect()
}

async fn upload(app: &TestStorage, path: &str, bytes: Vec<u8>) -> u16 {
    let request = app.request(As::Service, Method::POST, &format!("/object/{path}"));
    answer(request.header("x-upsert", "true").body(bytes).send().await.unwrap()).await.0
}

async fn download(app: &TestStorage, path: &str) -> Vec<u8> {
    let response = app.get(As::Service, &format!("/object/{path}")).await;
    assert_eq!(response.status(), 200, "{path}");
    response.bytes().await.unwrap().to_vec()
}

async fn findings(app: &TestStorage) -> Vec<Finding> {
    let mut found = Vec::new();
    let options = CheckOptions { verify: true, prune: false };
    app.storage.check(options, &mut |finding| found.push(finding.clone())).await.unwrap();
    found
}

#[tokio::test]
async fn files_lie_in_a_store_of_another_server() {
    let (app, store) = both().await;
    assert_eq!(upload(&app, "files/small", b"small".to_vec()).await, 200);
    assert_eq!(upload(&app, "files/empty", Vec::new()).await, 200);
    assert_eq!(upload(&app, "files/large", large()).await, 200);
    assert_eq!(download(&app, "files/small").await, b"small");
    assert_eq!(download(&app, "files/empty").await, b"");
    assert!(download(&app, "files/large").await == large());
    let part =
        app.request(As::Service, Method::GET, "/object/files/large").header("range", "bytes=8388600-8388620");
    let part = part.send().await.unwrap();
    assert_eq!(part.status(), 206);
    assert_eq!(part.bytes().await.unwrap(), large()[8_388_600..=8_388_620]);
    assert!(app.files().is_empty(), "nothing lies here");
    assert_eq!(store.count("objects").await, 3);
    let sql = "select count(*) from storage.objects where name ~ '^longhouse/one/[0-9a-f]{2}/[0-9a-f-]{36}$'";
    let named: i64 = store.owner.query_one(sql, &[]).await.unwrap().get(0);
    assert_eq!(named, 3, "no name of a user's is known there");

    let to = json!({"bucketId": "files", "sourceKey": "large", "destinationKey": "moved"});
    assert_eq!(app.call(As::Service, "POST", "/object/move", to).await.0, 200);
    let to = json!({"bucketId": "files", "sourceKey": "moved", "destinationKey": "copied"});
    assert_eq!(app.call(As::Service, "POST", "/object/copy", to).await.0, 200);
    assert!(download(&app, "files/copied").await == large());
    assert_eq!(upload(&app, "files/small", b"other".to_vec()).await, 200);
    assert_eq!(download(&app, "files/small").await, b"other");
    let url = app.begun("resumed.txt", 11).await;
    assert_eq!(app.patch(ANN_, &url, 0, "hello ").await.status(), 204);
    assert_eq!(app.patch(ANN_, &url, 6, "world").await.status(), 204);
    assert_eq!(app.text(ANN_, &format!("files/{}", own("resumed.txt"))).await.unwrap(), "hello world");
    app.sweep().await;
    assert_eq!(
        store.count("objects").await,
        app.count("objects").await,
        "replaced bytes and pieces are gone"
    );
    assert_eq!(findings(&app).await, []);

    app.call(As::Service, "POST", "/bucket/files/empty", json!({})).await;
    app.sweep().await;
    assert_eq!((store.count("objects").await, store.count("s3_multipart_uploads").await), (0, 0));
    store.sweep().await;
    assert!(store.files().is_empty());
}

#[tokio::test]
async fn what_breaks_off_leaves_nothing_in_the_store() {
    let (app, store) = both().await;
    for size in [10, 9_000_000] {
        let broken = stream::iter([Ok(Bytes::from(vec![1; size])), Err(BlobError::Interrupted)]).boxed();
        assert!(app.storage.receive(broken).await.is_err());
        app.nothing_pending().await;
        // The store is told in the background that the parts are not wanted.
        let aborted = tokio::time::timeout(std::time::Duration::from_secs(10), async {
            while store.count("s3_multipart_uploads").await > 0 {
                tokio::task::yield_now().await;
            }
        });
        aborted.await.expect("the upload in parts is aborted");
        store.sweep().await;
        assert_eq!((store.count("objects").await, store.files().len()), (0, 0), "{size}");
    }
}

#[tokio::test]
async fn bytes_that_the_store_lost_are_found_missing() {
    let (app, store) = both().await;
    upload(&app, "files/kept", b"kept".to_vec()).await;
    upload(&app, "files/lost", b"lost".to_vec()).await;
    let version: String = app
        .owner
        .query_one("select version from storage.objects where name = 'lost'", &[])
        .await
        .unwrap()
        .get(0);
    let sql = "delete from storage.objects where name like '%' || $1";
    assert_eq!(store.owner.execute(sql, &[&version]).await.unwrap(), 1);
    let (status, refusal) = answer(app.get(As::Service, "/object/files/lost").await).await;
    assert!(status >= 400 && refusal["message"].as_str().unwrap().len() > 10, "{status} {refusal}");
    let found = findings(&app).await;
    assert!(matches!(&found[..], [Finding::WithoutBytes { name, .. }] if name == "lost"), "{found:?}");
    assert_eq!(download(&app, "files/kept").await, b"kept");
}

#[tokio::test]
async fn a_store_that_is_gone_is_a_refusal_and_no_row() {
    let (app, store) = both().await;
    upload(&app, "files/old", b"old".to_vec()).await;
    store.stop();
    let response =
        app.request(As::Service, Method::POST, "/object/files/new").body("new").send().await.unwrap();
    assert!(response.status().is_server_error(), "{}", response.status());
    let text = response.text().await.unwrap();
    assert!(text.contains("\"statusCode\""), "{text}");
    assert!(!text.contains("127.0.0.1") && !text.contains("/s3"), "where the store is stays ours: {text}");
    let response = app.get(As::Service, "/object/files/old").await;
    assert!(response.status().is_server_error());
    assert_eq!(app.count("objects").await, 1);
}
