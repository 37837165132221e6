//! Signed URLs, for reading and for uploading.

use reqwest::Method;
use serde_json::{Value, json};

use crate::harness::{ANN, ANN_, As, BOB_, TestStorage, answer, classic, refusal};

async fn sign(app: &TestStorage, who: As, path: &str, body: Value) -> (u16, Value) {
    app.call(who, "POST", &format!("/object/sign/{path}"), body).await
}

#[tokio::test]
async fn a_signed_url_opens_one_object_to_everybody() {
    let app = TestStorage::start().await;
    let path = format!("files/{ANN}/a b.txt");
    app.put(ANN_, &path, "for you").await;
    let (_, signed) = sign(&app, ANN_, &path, json!({"expiresIn": 60})).await;
    let url = signed["signedURL"].as_str().unwrap();
    assert!(url.starts_with(&format!("/object/sign/{path}?token=")), "{url}");
    let got = app.get(As::Nobody, &format!("{url}&download=b.txt")).await;
    assert_eq!(got.headers()["content-disposition"], "attachment; filename=b.txt; filename*=UTF-8''b.txt");
    assert!(got.headers().contains_key("expires"));
    assert_eq!(got.text().await.unwrap(), "for you");
    let head = app.request(As::Nobody, Method::HEAD, url).send().await.unwrap();
    assert_eq!(head.headers()["content-length"], "7");
    let ranged = app.request(As::Nobody, Method::GET, url).header("range", "bytes=0-2");
    assert_eq!(ranged.send().await.unwrap().text().await.unwrap(), "for");

    let other = url.replace("a%20b.txt", "c.txt").replace("a b.txt", "c.txt");
    assert_eq!(classic(answer(app.get(As::Nobody, &other).await).await.1)["error"], "InvalidSignature");
    let (start, _) = url.split_once('?').unwrap();
    assert_eq!(answer(app.get(As::Nobody, start).await).await.0, 400, "without a token");
    assert_eq!(answer(app.get(As::Nobody, &format!("{start}?token=forged")).await).await.0, 400);
    // Not even the service's key stands in for a token.
    assert_eq!(answer(app.get(As::Service, &format!("{start}?token=x.y.z")).await).await.0, 400);

    assert_eq!(sign(&app, ANN_, &path, json!({"expiresIn": "60"})).await.0, 200, "as supabase-py writes it");
    assert_eq!(sign(&app, BOB_, &path, json!({"expiresIn": 60})).await.0, 404);
    assert_eq!(sign(&app, As::Nobody, &path, json!({"expiresIn": 60})).await.0, 403);
    for bad in [
        json!({}),
        json!({"expiresIn": 0}),
        json!({"expiresIn": 1e300}),
        json!({"expiresIn": "soon"}),
        json!({"expiresIn": i64::MAX}),
    ] {
        assert_eq!(sign(&app, ANN_, &path, bad).await.0, 400);
    }
}

#[tokio::test]
async fn names_with_question_marks_can_be_signed() {
    let app = TestStorage::start().await;
    let path = format!("files/{ANN}/why%3F.txt");
    app.put(ANN_, &path, "because").await;
    let (_, signed) = sign(&app, ANN_, &path, json!({"expiresIn": 60})).await;
    let url = signed["signedURL"].as_str().unwrap();
    assert_eq!(app.get(As::Nobody, url).await.text().await.unwrap(), "because");
    // As JavaScript's `encodeURI` leaves it.
    let escaped = url.replace("%3F", "%253F");
    assert_eq!(app.get(As::Nobody, &escaped).await.text().await.unwrap(), "because");
}

#[tokio::test]
async fn many_are_signed_at_once() {
    let app = TestStorage::start().await;
    let (mine, none) = (format!("{ANN}/a.txt"), format!("{ANN}/none.txt"));
    app.put(ANN_, &format!("files/{mine}"), "a").await;
    let body = json!({"expiresIn": 60, "paths": [mine, none, "../x"]});
    let (_, signed) = sign(&app, ANN_, "files", body.clone()).await;
    assert_eq!(signed[0]["path"], mine);
    assert_eq!(signed[0]["error"], json!(null));
    let url = signed[0]["signedURL"].as_str().unwrap();
    assert_eq!(app.get(As::Nobody, url).await.text().await.unwrap(), "a");
    for missing in [1, 2] {
        assert_eq!(signed[missing]["signedURL"], json!(null));
        assert_eq!(
            signed[missing]["error"],
            "Either the object does not exist or you do not have access to it"
        );
    }
    let (_, signed) = sign(&app, BOB_, "files", body).await;
    assert_eq!(signed[0]["signedURL"], json!(null));
    let paths = vec!["x"; 1001];
    assert_eq!(sign(&app, ANN_, "files", json!({"expiresIn": 60, "paths": paths})).await.0, 400);
    assert_eq!(sign(&app, ANN_, "files", json!({"expiresIn": 60, "paths": []})).await.0, 400);
}

#[tokio::test]
async fn a_signed_upload_is_its_signers() {
    let app = TestStorage::start().await;
    let path = format!("files/{ANN}/a.txt");
    let ask = async |who, upsert: &str| {
        let request = app.request(who, Method::POST, &format!("/object/upload/sign/{path}"));
        answer(request.header("x-upsert", upsert.to_owned()).json(&json!({})).send().await.unwrap()).await
    };
    assert_eq!(ask(BOB_, "false").await.0, 403, "who may not upload may not let others");
    assert_eq!(ask(As::Nobody, "false").await.0, 403);
    let (_, signed) = ask(ANN_, "false").await;
    let url = signed["url"].as_str().unwrap();
    assert!(url.starts_with(&format!("/object/upload/sign/{path}?token=")));
    assert!(url.ends_with(signed["token"].as_str().unwrap()));
    let put = async |url: &str, text: &str| {
        let request = app.request(As::Nobody, Method::PUT, url).header("content-type", "text/plain");
        answer(request.body(text.to_owned()).send().await.unwrap()).await
    };
    assert_eq!(put(url, "signed").await.1, json!({"Key": path}));
    assert_eq!(app.text(ANN_, &path).await.unwrap(), "signed", "it is hers to read");
    assert_eq!(
        classic(put(url, "again").await.1),
        refusal("409", "Duplicate", "The resource already exists")
    );
    assert_eq!(ask(ANN_, "false").await.0, 409, "it is there by now");
    let (_, upsert) = ask(ANN_, "true").await;
    assert_eq!(put(upsert["url"].as_str().unwrap(), "replaced").await.0, 200);
    assert_eq!(app.text(ANN_, &path).await.unwrap(), "replaced");
    let elsewhere = url.replace("a.txt", "b.txt");
    assert_eq!(put(&elsewhere, "x").await.0, 400);
    let (_, download) = sign(&app, ANN_, &path, json!({"expiresIn": 60})).await;
    let token = download["signedURL"].as_str().unwrap().split_once("token=").unwrap().1.to_owned();
    assert_eq!(put(&format!("/object/upload/sign/{path}?token={token}"), "x").await.0, 400);
    assert_eq!(app.text(ANN_, &path).await.unwrap(), "replaced");
}
