//! Downloading: by whom, in part, again.

use reqwest::Method;
use reqwest::header::HeaderMap;
use rstest::rstest;
use serde_json::json;

use crate::harness::{ANN, ANN_, As, BOB_, TestStorage, answer};

#[tokio::test]
async fn private_files_are_for_those_whom_policies_let_in() {
    let app = TestStorage::start().await;
    let path = format!("files/{ANN}/a.txt");
    app.put(ANN_, &path, "hers").await;
    for door in ["", "authenticated/"] {
        assert_eq!(app.text(ANN_, &format!("{door}{path}")).await.unwrap(), "hers");
        assert_eq!(app.text(As::Service, &format!("{door}{path}")).await.unwrap(), "hers");
        assert_eq!(app.text(BOB_, &format!("{door}{path}")).await, Err(404));
        assert_eq!(app.text(As::Anon, &format!("{door}{path}")).await, Err(404));
    }
    assert_eq!(app.text(As::Nobody, &path).await, Err(404));
    assert_eq!(app.text(As::Nobody, &format!("authenticated/{path}")).await, Err(403));
    for who in [As::Nobody, ANN_, As::Service] {
        assert_eq!(app.text(who, &format!("public/{path}")).await, Err(404), "the bucket is not public");
        let info = app.get(who, &format!("/object/info/public/{path}")).await;
        assert_eq!(answer(info).await.0, 404);
    }
    for (who, status) in [(ANN_, 200), (BOB_, 400), (As::Nobody, 400)] {
        let head = app.request(who, Method::HEAD, &format!("/object/{path}")).send().await.unwrap();
        assert_eq!(head.status(), status);
        let info = app.get(who, &format!("/object/info/{path}")).await;
        assert_eq!(info.status(), status);
    }
}

#[tokio::test]
async fn public_files_are_everybodys() {
    let app = TestStorage::start().await;
    app.put(ANN_, "pictures/a.txt", "look").await;
    for who in [As::Nobody, As::Anon, BOB_] {
        assert_eq!(app.text(who, "public/pictures/a.txt").await.unwrap(), "look");
        assert_eq!(app.text(who, "pictures/a.txt").await.unwrap(), "look");
        assert_eq!(app.get(who, "/object/info/public/pictures/a.txt").await.status(), 200);
    }
    let outdated = app.client.get(app.url("/object/public/pictures/a.txt")).bearer_auth("expired");
    assert_eq!(outdated.send().await.unwrap().status(), 200, "an old session hides nothing");
    assert_eq!(app.text(As::Nobody, "public/pictures/b.txt").await, Err(404));
    assert_eq!(app.text(As::Nobody, "public/nowhere/b.txt").await, Err(404));
    // Closing the bucket closes it at once.
    app.call(As::Service, "PUT", "/bucket/pictures", json!({"public": false})).await;
    assert_eq!(app.text(As::Nobody, "public/pictures/a.txt").await, Err(404));
}

#[tokio::test]
async fn headers_describe_and_disarm() {
    let app = TestStorage::start().await;
    let page =
        app.request(ANN_, Method::POST, "/object/pictures/page.html").header("content-type", "text/html");
    page.body("<script>alert(1)</script>").send().await.unwrap();
    let got = app.get(As::Nobody, "/object/public/pictures/page.html").await;
    let header = |name: &str| got.headers()[name].to_str().unwrap().to_owned();
    assert_eq!(header("content-type"), "text/plain", "a page would run on our origin");
    assert_eq!(header("x-content-type-options"), "nosniff");
    assert!(header("content-security-policy").starts_with("default-src 'none'"));
    assert_eq!(header("accept-ranges"), "bytes");
    assert_eq!(header("cache-control"), "no-cache");
    assert_eq!(header("x-robots-tag"), "none");
    assert_eq!(header("content-length"), "25");
    assert!(!got.headers().contains_key("content-disposition"));
    let head =
        app.request(As::Nobody, Method::HEAD, "/object/public/pictures/page.html").send().await.unwrap();
    for name in ["content-type", "content-length", "etag", "last-modified", "cache-control"] {
        assert_eq!(head.headers()[name], got.headers()[name], "{name}");
    }
    assert_eq!(head.bytes().await.unwrap().len(), 0);
    let saved = app.get(As::Nobody, "/object/public/pictures/page.html?download=").await;
    assert_eq!(saved.headers()["content-disposition"], "attachment");
    let named = app.get(As::Nobody, "/object/public/pictures/page.html?download=caf%C3%A9%22.html").await;
    assert_eq!(
        named.headers()["content-disposition"],
        "attachment; filename=caf%C3%A9%22.html; filename*=UTF-8''caf%C3%A9%22.html"
    );
}

#[rstest]
#[case("bytes=0-4", 206, "01234", "bytes 0-4/10")]
#[case("bytes=7-", 206, "789", "bytes 7-9/10")]
#[case("bytes=-2", 206, "89", "bytes 8-9/10")]
#[case("bytes=3-99", 206, "3456789", "bytes 3-9/10")]
#[case("bytes=0-0,2-3", 200, "0123456789", "")]
#[tokio::test]
async fn parts_can_be_asked_for(
    #[case] range: &str,
    #[case] status: u16,
    #[case] text: &str,
    #[case] content_range: &str,
) {
    let app = TestStorage::start().await;
    app.put(ANN_, "pictures/a.txt", "0123456789").await;
    let request = app.client.get(app.url("/object/public/pictures/a.txt")).header("range", range);
    let got = request.send().await.unwrap();
    assert_eq!(got.status(), status);
    assert_eq!(got.content_length(), Some(text.len() as u64));
    let told = got.headers().get("content-range").map_or("", |value| value.to_str().unwrap());
    assert_eq!(told, content_range);
    assert_eq!(got.text().await.unwrap(), text);
}

#[tokio::test]
async fn a_part_beyond_the_end_is_told_the_length() {
    let app = TestStorage::start().await;
    app.put(ANN_, "pictures/a.txt", "0123456789").await;
    let request = app.client.get(app.url("/object/public/pictures/a.txt")).header("range", "bytes=10-");
    let got = request.send().await.unwrap();
    assert_eq!(got.status(), 416);
    assert_eq!(got.headers()["content-range"], "bytes */10");
    assert_eq!(answer(got).await.1["error"], "invalid_range");
}

#[tokio::test]
async fn what_a_client_has_is_not_sent_again() {
    let app = TestStorage::start().await;
    app.put(ANN_, "pictures/a.txt", "same").await;
    let url = app.url("/object/public/pictures/a.txt");
    let first = app.client.get(&url).send().await.unwrap();
    let ask = async |name: &str, value: &str| {
        let mut headers = HeaderMap::new();
        headers.insert(name.parse::<reqwest::header::HeaderName>().unwrap(), value.parse().unwrap());
        app.client.get(&url).headers(headers).send().await.unwrap()
    };
    let tag = first.headers()["etag"].to_str().unwrap().to_owned();
    let date = first.headers()["last-modified"].to_str().unwrap().to_owned();
    for (name, value) in [("if-none-match", &tag), ("if-modified-since", &date)] {
        let again = ask(name, value).await;
        assert_eq!(again.status(), 304, "{name}");
        assert_eq!(again.headers()["etag"], tag.as_str());
        assert_eq!(again.bytes().await.unwrap().len(), 0);
    }
    app.replace(As::Service, "pictures/a.txt", "other").await;
    assert_eq!(ask("if-none-match", &tag).await.text().await.unwrap(), "other");
    app.replace(As::Service, "pictures/a.txt", "same").await;
    assert_eq!(ask("if-none-match", &tag).await.status(), 304, "the tag is of the content");
}

#[tokio::test]
async fn a_download_outlives_its_object() {
    let app = TestStorage::start().await;
    let large = vec![5_u8; 8_000_000];
    app.request(ANN_, Method::POST, "/object/pictures/large").body(large).send().await.unwrap();
    let mut got = app.get(As::Nobody, "/object/public/pictures/large").await;
    let mut read = got.chunk().await.unwrap().unwrap().len();
    app.call(As::Service, "DELETE", "/object/pictures/large", json!({})).await;
    app.sweep().await;
    while let Some(chunk) = got.chunk().await.unwrap() {
        read += chunk.len();
    }
    assert_eq!(read, 8_000_000);
    assert!(app.files().is_empty());
}

#[tokio::test]
async fn rows_that_others_wrote_are_no_files() {
    let app = TestStorage::start().await;
    app.owner
        .batch_execute(
            "insert into storage.objects (bucket_id, name, version, metadata) values
             ('pictures', 'none', null, null),
             ('pictures', 'path', '../../../etc/passwd', '{\"eTag\":\"\\\"x\\\"\",\"size\":1,\"mimetype\":\"a/b\",\"cacheControl\":\"a\",\"lastModified\":\"2026-01-01T00:00:00Z\",\"contentLength\":1,\"httpStatusCode\":200}'),
             ('pictures', 'lost', gen_random_uuid()::text, '{\"eTag\":\"\\\"x\\\"\",\"size\":1,\"mimetype\":\"a/b\",\"cacheControl\":\"a\",\"lastModified\":\"2026-01-01T00:00:00Z\",\"contentLength\":1,\"httpStatusCode\":200}')",
        )
        .await
        .unwrap();
    assert_eq!(app.text(As::Nobody, "public/pictures/none").await, Err(404));
    assert_eq!(app.text(As::Nobody, "public/pictures/path").await, Err(404));
    assert_eq!(
        app.text(As::Nobody, "public/pictures/lost").await,
        Err(500),
        "a row without its bytes is our fault"
    );
}
