//! Moving, copying and deleting, and what policies say to it.

use reqwest::Method;
use serde_json::json;

use crate::harness::{ANN, ANN_, As, BOB, BOB_, TestStorage, answer, classic, refusal};

#[tokio::test]
async fn moving_changes_the_name_alone() {
    let app = TestStorage::start().await;
    let (from, to) = (format!("{ANN}/a.txt"), format!("{ANN}/b/c.txt"));
    let (_, uploaded) = app.put(ANN_, &format!("files/{from}"), "moved").await;
    let files = app.files();
    let body = json!({"bucketId": "files", "sourceKey": from, "destinationKey": to});
    let (_, moved) = app.call(ANN_, "POST", "/object/move", body.clone()).await;
    assert_eq!(moved["message"], "Successfully moved");
    assert_eq!(moved["Id"], uploaded["Id"]);
    assert_eq!(app.text(ANN_, &format!("files/{from}")).await, Err(404));
    assert_eq!(app.text(ANN_, &format!("files/{to}")).await.unwrap(), "moved");
    assert_eq!(app.files(), files);
    assert!(app.ledger().await.is_empty());
    assert_eq!(
        classic(app.call(ANN_, "POST", "/object/move", body).await.1),
        refusal("404", "not_found", "Object not found")
    );
    let across =
        json!({"bucketId": "files", "sourceKey": to, "destinationBucket": "other", "destinationKey": to});
    assert_eq!(app.call(ANN_, "POST", "/object/move", across).await.0, 200);
    assert_eq!(app.text(ANN_, &format!("other/{to}")).await.unwrap(), "moved");
}

#[tokio::test]
async fn moving_respects_policies_limits_and_names_that_are_taken() {
    let app = TestStorage::start().await;
    let (mine, taken) = (format!("{ANN}/a.txt"), format!("{ANN}/taken.txt"));
    app.put(ANN_, &format!("files/{mine}"), "a").await;
    app.put(ANN_, &format!("files/{taken}"), "b").await;
    let go = async |who, bucket: &str, to: &str| {
        let body = json!({"bucketId": "files", "sourceKey": mine, "destinationBucket": bucket, "destinationKey": to});
        app.call(who, "POST", "/object/move", body).await.0
    };
    assert_eq!(go(BOB_, "files", &format!("{BOB}/a.txt")).await, 404);
    assert_eq!(go(As::Anon, "files", "a.txt").await, 404);
    assert_eq!(go(As::Nobody, "files", "a.txt").await, 403);
    assert_eq!(go(ANN_, "files", &format!("{BOB}/a.txt")).await, 403, "into somebody else's folder");
    assert_eq!(go(ANN_, "pictures", "a.txt").await, 403, "no right to change there");
    assert_eq!(go(ANN_, "files", &taken).await, 409);
    assert_eq!(go(ANN_, "nowhere", "a.txt").await, 404);
    assert_eq!(go(ANN_, "files", "../../a.txt").await, 400);
    let picky = json!({"name": "picky", "allowed_mime_types": ["image/*"]});
    app.call(As::Service, "POST", "/bucket", picky).await;
    assert_eq!(go(As::Service, "picky", "a.txt").await, 415, "a bucket's limits hold for what is moved in");
    assert_eq!(go(ANN_, "files", &mine).await, 200, "to itself");
    assert_eq!(app.text(ANN_, &format!("files/{mine}")).await.unwrap(), "a");
    assert_eq!(app.count("objects").await, 2);
}

#[tokio::test]
async fn a_copy_lives_on_its_own() {
    let app = TestStorage::start().await;
    let (from, to) = (format!("{ANN}/a.txt"), format!("{ANN}/b.txt"));
    let upload = app
        .request(ANN_, Method::POST, &format!("/object/files/{from}"))
        .header("content-type", "text/plain")
        .header("cache-control", "max-age=7")
        .header("x-metadata", "eyJhIjoxfQ==")
        .body("copied");
    upload.send().await.unwrap();
    let body =
        json!({"bucketId": "files", "sourceKey": from, "destinationBucket": "other", "destinationKey": to});
    let (_, copy) = app.call(ANN_, "POST", "/object/copy", body.clone()).await;
    assert_eq!(copy["Key"], format!("other/{to}"));
    assert!(copy["Id"].is_string());
    let again = app.call(ANN_, "POST", "/object/copy", body.clone()).await;
    assert_eq!(again.0, 409);
    let over = app.request(ANN_, Method::POST, "/object/copy").header("x-upsert", "true").json(&body);
    assert_eq!(answer(over.send().await.unwrap()).await.1["Id"], copy["Id"]);
    app.call(ANN_, "DELETE", &format!("/object/files/{from}"), json!({})).await;
    app.sweep().await;
    assert_eq!(app.text(ANN_, &format!("other/{to}")).await.unwrap(), "copied");
    assert_eq!(app.files().len(), 1);
    let info = app.call(ANN_, "GET", &format!("/object/info/other/{to}"), json!({})).await.1;
    assert_eq!(info["metadata"], json!({"a": 1}));
    assert_eq!(info["cache_control"], "max-age=7");
    // Onto itself, with another description.
    let body = json!({"bucketId": "other", "sourceKey": to, "destinationKey": to, "copyMetadata": false,
                      "metadata": {"mimetype": "text/markdown"}});
    let described = app.request(ANN_, Method::POST, "/object/copy").header("x-upsert", "true").json(&body);
    assert_eq!(answer(described.header("x-metadata", "eyJiIjoyfQ==").send().await.unwrap()).await.0, 200);
    let info = app.call(ANN_, "GET", &format!("/object/info/other/{to}"), json!({})).await.1;
    assert_eq!(info["metadata"], json!({"b": 2}));
    assert_eq!(
        (info["content_type"].as_str(), info["cache_control"].as_str()),
        (Some("text/markdown"), Some("max-age=7"))
    );
}

#[tokio::test]
async fn copying_needs_to_read_here_and_to_upload_there() {
    let app = TestStorage::start().await;
    let mine = format!("{ANN}/a.txt");
    app.put(ANN_, &format!("files/{mine}"), "a").await;
    let go = async |who, from: &str, to: &str| {
        let body = json!({"bucketId": "files", "sourceKey": from, "destinationKey": to});
        app.call(who, "POST", "/object/copy", body).await.0
    };
    assert_eq!(go(BOB_, &mine, &format!("{BOB}/a.txt")).await, 404);
    assert_eq!(go(ANN_, &mine, &format!("{BOB}/a.txt")).await, 403);
    assert_eq!(go(As::Nobody, &mine, "a").await, 403);
    assert_eq!(go(ANN_, &format!("{ANN}/none"), &format!("{ANN}/b")).await, 404);
    assert_eq!(app.count("objects").await, 1);
    assert_eq!(app.files().len(), 1);
}

#[tokio::test]
async fn deleting_frees_the_bytes_whoever_deletes() {
    let app = TestStorage::start().await;
    let path = |name: &str| format!("files/{ANN}/{name}");
    for name in ["a", "b", "c", "d"] {
        app.put(ANN_, &path(name), name).await;
    }
    let one = |name: &str| format!("/object/{}", path(name));
    assert_eq!(app.call(BOB_, "DELETE", &one("a"), json!({})).await.0, 403);
    assert_eq!(app.call(As::Nobody, "DELETE", &one("a"), json!({})).await.0, 403);
    assert_eq!(app.call(ANN_, "DELETE", &one("none"), json!({})).await.0, 404);
    let gone = app.call(ANN_, "DELETE", &one("a"), json!({})).await;
    assert_eq!(gone.1, json!({"message": "Successfully deleted"}));
    assert_eq!(app.text(ANN_, &path("a")).await, Err(404));
    let names = json!({"prefixes": [format!("{ANN}/b"), format!("{ANN}/none"), "a\u{0}b"]});
    let (_, none) = app.call(BOB_, "DELETE", "/object/files", names.clone()).await;
    assert_eq!(none, json!([]));
    let (_, some) = app.call(ANN_, "DELETE", "/object/files", names).await;
    assert_eq!(some.as_array().unwrap().len(), 1);
    assert_eq!(some[0]["name"], format!("{ANN}/b"));
    assert_eq!(some[0]["bucket_id"], "files");
    assert_eq!(app.call(ANN_, "DELETE", "/object/files", json!({"prefixes": []})).await.0, 400);
    // By SQL too.
    app.owner.execute("delete from storage.objects where name = $1", &[&format!("{ANN}/c")]).await.unwrap();
    assert_eq!(app.ledger().await, ["condemned"; 3]);
    assert_eq!(app.sweep().await.deleted, 3);
    assert_eq!(app.files().len(), 1);
    assert_eq!(app.text(ANN_, &path("d")).await.unwrap(), "d");
}
