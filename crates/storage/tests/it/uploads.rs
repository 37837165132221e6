//! Uploading: raw and as a form, alone and over something, within and beyond what is allowed.

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use reqwest::Method;
use reqwest::multipart::{Form, Part};
use serde_json::json;

use crate::harness::{ANN, ANN_, As, BOB_, TestStorage, answer, classic, refusal};

#[tokio::test]
async fn uploads_belong_to_their_uploader() {
    let app = TestStorage::start().await;
    let path = format!("files/{ANN}/notes/a.txt");
    let (status, body) = app.put(ANN_, &path, "hello").await;
    assert_eq!((status, body["Key"].as_str()), (200, Some(path.as_str())));
    let row =
        app.owner.query_one("select id, owner, owner_id, metadata, version from storage.objects", &[]).await;
    let row = row.unwrap();
    assert_eq!(body["Id"], json!(row.get::<_, uuid::Uuid>(0)));
    assert_eq!(row.get::<_, uuid::Uuid>(1), ANN);
    assert_eq!(row.get::<_, String>(2), ANN.to_string());
    let metadata: serde_json::Value = row.get(3);
    let hash = "\"2cf24dba5fb0a30e26e83b2ac5b9e29e1b161e5c1fa7425e73043362938b9824\"";
    assert_eq!(metadata["eTag"], hash);
    assert_eq!(metadata["size"], 5);
    assert_eq!(metadata["contentLength"], 5);
    assert_eq!(metadata["mimetype"], "text/plain");
    assert_eq!(metadata["cacheControl"], "no-cache");
    assert_eq!(metadata["httpStatusCode"], 200);
    assert!(metadata["lastModified"].as_str().unwrap().ends_with('Z'));
    let version: String = row.get(4);
    assert_eq!(app.files(), [app.folder.path().join("blobs").join(&version[..2]).join(&version)]);
    assert!(app.ledger().await.is_empty());
    assert_eq!(app.text(ANN_, &path).await.unwrap(), "hello");
    let info = app.call(ANN_, "GET", &format!("/object/info/{path}"), json!({})).await.1;
    assert_eq!(info["metadata"], json!({}));
}

#[tokio::test]
async fn policies_speak_before_the_bytes() {
    let app = TestStorage::start().await;
    let path = format!("files/{ANN}/a.txt");
    for who in [BOB_, As::Anon] {
        let (_, body) = app.put(who, &path, "mine now").await;
        assert_eq!(
            classic(body),
            refusal("403", "Unauthorized", "new row violates row-level security policy")
        );
    }
    let (status, body) = app.put(As::Nobody, &path, "x").await;
    assert_eq!(
        (status, body["message"].as_str()),
        (403, Some("Invalid Compact JWS")),
        "as clients compare it"
    );
    assert!(body["hint"].as_str().unwrap().contains("apikey"));
    let forged = app.client.post(app.url(&format!("/object/{path}"))).bearer_auth("forged").body("x");
    assert_eq!(answer(forged.send().await.unwrap()).await.1["message"], "this key is not valid");
    assert_eq!(
        classic(app.put(ANN_, "nowhere/a.txt", "x").await.1),
        refusal("404", "Bucket not found", "Bucket not found")
    );
    assert_eq!(app.count("objects").await, 0);
    assert!(app.files().is_empty() && app.ledger().await.is_empty());
    // The policy sees which request it is.
    assert_eq!(app.put(ANN_, "pictures/a.txt", "x").await.0, 200);
}

#[tokio::test]
async fn replacing_needs_a_word_and_keeps_the_identity() {
    let app = TestStorage::start().await;
    let path = format!("files/{ANN}/a.txt");
    let (_, first) = app.put(ANN_, &path, "one").await;
    let twice = app.put(ANN_, &path, "two").await;
    assert_eq!(classic(twice.1), refusal("409", "Duplicate", "The resource already exists"));
    let (_, second) = app.replace(ANN_, &path, "three").await;
    assert_eq!(first["Id"], second["Id"]);
    assert_eq!(app.text(ANN_, &path).await.unwrap(), "three");
    assert_eq!(app.ledger().await, ["condemned"]);
    assert_eq!(app.files().len(), 2, "the old bytes stay for those who read them");
    assert_eq!(app.sweep().await.deleted, 1);
    assert_eq!(app.files().len(), 1);
    assert_eq!(app.text(ANN_, &path).await.unwrap(), "three");
    let put = app.request(ANN_, Method::PUT, &format!("/object/{path}")).body("four");
    assert_eq!(answer(put.send().await.unwrap()).await.1["Id"], first["Id"]);
    let new = app.request(ANN_, Method::PUT, &format!("/object/files/{ANN}/new.txt")).body("new");
    assert_eq!(answer(new.send().await.unwrap()).await.0, 200, "PUT makes what is not there");
    assert_eq!(app.replace(BOB_, &path, "bob's").await.0, 403);
    assert_eq!(app.text(ANN_, &path).await.unwrap(), "four");
}

#[tokio::test]
async fn forms_are_read_as_browsers_send_them() {
    let app = TestStorage::start().await;
    let part = Part::bytes(vec![1, 2, 3]).file_name("blob").mime_str("image/webp").unwrap();
    let form = Form::new().text("cacheControl", "3600").text("metadata", r#"{"a":1}"#).part("", part);
    let path = format!("files/{ANN}/a.webp");
    let sent = app.request(ANN_, Method::POST, &format!("/object/{path}")).multipart(form);
    assert_eq!(answer(sent.send().await.unwrap()).await.0, 200);
    let got = app.get(ANN_, &format!("/object/{path}")).await;
    assert_eq!(got.headers()["content-type"], "image/webp");
    assert_eq!(got.headers()["cache-control"], "max-age=3600");
    assert_eq!(got.bytes().await.unwrap().as_ref(), [1, 2, 3]);
    let info = app.call(ANN_, "GET", &format!("/object/info/{path}"), json!({})).await.1;
    assert_eq!(info["metadata"], json!({"a": 1}));
    assert_eq!(info["size"], 3);
    assert_eq!(info["content_type"], "image/webp");
    assert_eq!(info["cache_control"], "max-age=3600");
    assert_eq!(info["bucket_id"], "files");
    assert_eq!(info["name"], format!("{ANN}/a.webp"));
}

#[tokio::test]
async fn headers_of_a_raw_upload_come_back() {
    let app = TestStorage::start().await;
    let path = format!("/object/files/{ANN}/a.txt");
    let metadata = STANDARD.encode(r#"{"kind":"note"}"#);
    let sent = app
        .request(ANN_, Method::POST, &path)
        .header("content-type", "text/markdown; charset=utf-8")
        .header("cache-control", "max-age=60")
        .header("x-metadata", metadata)
        .header("x-robots-tag", "noindex")
        .body("# hi");
    assert_eq!(answer(sent.send().await.unwrap()).await.0, 200);
    let got = app.get(ANN_, &path).await;
    assert_eq!(got.headers()["content-type"], "text/markdown; charset=utf-8");
    assert_eq!(got.headers()["cache-control"], "max-age=60");
    assert_eq!(got.headers()["x-robots-tag"], "noindex");
    let info = app.call(ANN_, "GET", &format!("/object/info/files/{ANN}/a.txt"), json!({})).await.1;
    assert_eq!(info["metadata"], json!({"kind": "note"}));
}

#[tokio::test]
async fn buckets_bound_size_and_type() {
    let app = TestStorage::start().await;
    let limited =
        json!({"name": "small", "file_size_limit": 10, "allowed_mime_types": ["text/*", "image/png"]});
    app.call(As::Service, "POST", "/bucket", limited).await;
    let send = async |path: &str, kind: &str, body: reqwest::Body| {
        let request = app.request(As::Service, Method::POST, &format!("/object/small/{path}"));
        answer(request.header("content-type", kind.to_owned()).body(body).send().await.unwrap()).await
    };
    assert_eq!(send("fits.txt", "text/plain;charset=UTF-8", "0123456789".into()).await.0, 200);
    let announced = send("over.txt", "text/plain", "0123456789+".into()).await;
    let too_large = refusal("413", "Payload too large", "The object exceeded the maximum allowed size");
    assert_eq!(classic(announced.1), too_large);
    let pieces = ["01234", "56789", "+"].map(|piece| Ok::<_, std::io::Error>(piece.to_owned()));
    let unannounced = reqwest::Body::wrap_stream(futures_util::stream::iter(pieces));
    assert_eq!(classic(send("over.txt", "text/plain", unannounced).await.1), too_large);
    let form =
        Form::new().part("file", Part::text("0123456789+").file_name("f").mime_str("text/plain").unwrap());
    let form = app.request(As::Service, Method::POST, "/object/small/form.txt").multipart(form);
    assert_eq!(classic(answer(form.send().await.unwrap()).await.1), too_large);
    let wrong = send("a.jpg", "image/jpeg", "x".into()).await;
    assert_eq!(
        classic(wrong.1),
        refusal("415", "invalid_mime_type", "mime type image/jpeg is not supported")
    );
    let part = Part::text("x").file_name("f").mime_str("image/jpeg").unwrap();
    let form = app
        .request(As::Service, Method::POST, "/object/small/form.jpg")
        .multipart(Form::new().part("f", part));
    assert_eq!(answer(form.send().await.unwrap()).await.0, 415);
    // Folders are kept by an empty file of any type.
    assert_eq!(send("folder/.emptyFolderPlaceholder", "application/zip", "".into()).await.0, 200);
    assert_eq!(send("other/.emptyFolderPlaceholder", "text/plain", "x".into()).await.0, 413);
    app.nothing_pending().await;
    assert_eq!(app.count("objects").await, 2);
    assert_eq!(app.files().len(), 2);
}

#[tokio::test]
async fn the_servers_limit_holds_where_a_bucket_has_none() {
    let app = TestStorage::start().await;
    let large = vec![7_u8; usize::try_from(crate::harness::LIMIT).unwrap()];
    let send = async |name: &str, body: Vec<u8>| {
        let request = app.request(As::Service, Method::POST, &format!("/object/files/{name}"));
        answer(request.body(body).send().await.unwrap()).await.0
    };
    // Ten times what the server takes as a body elsewhere.
    assert_eq!(send("large", large.clone()).await, 200);
    assert_eq!(send("larger", [large, vec![7]].concat()).await, 413);
    let got = app.get(As::Service, "/object/files/large").await;
    assert_eq!(got.content_length(), Some(crate::harness::LIMIT));
    assert!(got.bytes().await.unwrap().iter().all(|byte| *byte == 7));
}

#[tokio::test]
async fn of_two_uploads_at_once_one_wins() {
    let app = TestStorage::start().await;
    let path = format!("files/{ANN}/race.txt");
    let uploads = (0..6).map(|_| app.put(ANN_, &path, "raced"));
    let statuses: Vec<u16> =
        futures_util::future::join_all(uploads).await.into_iter().map(|(s, _)| s).collect();
    assert_eq!(statuses.iter().filter(|status| **status == 200).count(), 1, "{statuses:?}");
    assert!(statuses.iter().all(|status| [200, 409].contains(status)), "{statuses:?}");
    let replacing = (0..6).map(|_| app.replace(ANN_, &path, "replaced"));
    for (status, body) in futures_util::future::join_all(replacing).await {
        assert_eq!(status, 200, "{body}");
    }
    assert_eq!(app.count("objects").await, 1);
    app.sweep().await;
    assert!(app.ledger().await.is_empty());
    assert_eq!(app.files().len(), 1);
    assert_eq!(app.text(ANN_, &path).await.unwrap(), "replaced");
}
