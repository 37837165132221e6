//! Hostile and broken requests: a clear refusal, and nothing left behind.

use std::time::Duration;

use reqwest::Method;
use reqwest::multipart::{Form, Part};
use rstest::rstest;
use serde_json::json;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use crate::harness::{As, TestStorage, answer};

async fn nothing_left(app: &TestStorage) {
    app.nothing_pending().await;
    assert_eq!(app.count("objects").await, 0);
    assert!(app.files().is_empty(), "{:?}", app.files());
}

/// A request as a hand writes it: no client normalises its path.
async fn raw(app: &TestStorage, request: &str) -> String {
    let mut stream = TcpStream::connect(app.address).await.unwrap();
    stream.write_all(request.as_bytes()).await.unwrap();
    let mut answer = Vec::new();
    let read = tokio::time::timeout(Duration::from_secs(5), stream.read_to_end(&mut answer)).await;
    read.expect("the server ends the connection").unwrap();
    String::from_utf8_lossy(&answer).into_owned()
}

#[rstest]
#[case("files/../../../etc/passwd")]
#[case("files/%2e%2e/%2e%2e/etc/passwd")]
#[case("files/a/%2e%2e%2fb")]
#[case("files/a%00b")]
#[case("files/a%0ab")]
#[case("files/a%5cb")]
#[case("files/%ff%fe")]
#[case("files/caf%C3%A9")]
#[case("files/")]
#[case("../bucket/x")]
#[case("a%2fb/x")]
#[tokio::test]
async fn hostile_names_go_nowhere(#[case] path: &str) {
    let app = TestStorage::start().await;
    for method in ["POST", "PUT", "GET", "DELETE"] {
        let request = format!(
            "{method} /storage/v1/object/{path} HTTP/1.1\r\nhost: a\r\nauthorization: Bearer service\r\ncontent-length: 1\r\nconnection: close\r\n\r\nx"
        );
        let answer = raw(&app, &request).await;
        assert!(answer.starts_with("HTTP/1.1 4"), "{method} {path}: {answer}");
        assert!(answer.contains("\"statusCode\":\"4") && answer.contains("\"message\""), "{answer}");
    }
    nothing_left(&app).await;
}

#[tokio::test]
async fn long_names_end_at_1024_bytes() {
    let app = TestStorage::start().await;
    assert_eq!(
        app.put(As::Service, &format!("files/{}", "n".repeat(1025)), "x").await.1["error"],
        "InvalidKey"
    );
    nothing_left(&app).await;
    assert_eq!(app.put(As::Service, &format!("files/{}", "n".repeat(1024)), "x").await.0, 200);
}

#[tokio::test]
async fn a_client_that_is_still_sending_learns_of_the_refusal() {
    let app = TestStorage::start().await;
    app.call(As::Service, "POST", "/bucket", json!({"name": "small", "file_size_limit": 10})).await;
    for head in ["", "content-length: 30000000\r\n", "transfer-encoding: chunked\r\n"] {
        let who = if head.is_empty() { "nobody" } else { "service" };
        let length = if head.is_empty() { "content-length: 30000000\r\n" } else { head };
        let mut stream = TcpStream::connect(app.address).await.unwrap();
        let begin = format!(
            "POST /storage/v1/object/small/a HTTP/1.1\r\nhost: a\r\nauthorization: Bearer {who}\r\n{length}\r\n"
        );
        stream.write_all(begin.as_bytes()).await.unwrap();
        let chunked = length.starts_with("transfer");
        for _ in 0..30 {
            if chunked {
                stream.write_all(b"f4240\r\n").await.unwrap();
            }
            stream.write_all(&vec![b'x'; 1_000_000]).await.unwrap();
            if chunked {
                stream.write_all(b"\r\n").await.unwrap();
            }
        }
        if chunked {
            stream.write_all(b"0\r\n\r\n").await.unwrap();
        }
        let mut answer = vec![0; 20];
        stream.read_exact(&mut answer).await.expect("the connection is not reset");
        assert_eq!(String::from_utf8_lossy(&answer[..12]), "HTTP/1.1 400", "{head}");
    }
    // Who asks before sending is told before sending.
    let asking = raw(&app, "POST /storage/v1/object/small/a HTTP/1.1\r\nhost: a\r\nauthorization: Bearer nobody\r\nexpect: 100-continue\r\ncontent-length: 30000000\r\nconnection: close\r\n\r\n").await;
    assert!(asking.starts_with("HTTP/1.1 400"), "{asking}");
    // A refusal does not wait for bytes that never come.
    let slow = raw(&app, "POST /storage/v1/object/files/a HTTP/1.1\r\nhost: a\r\nauthorization: Bearer anon\r\ncontent-length: 100\r\nconnection: close\r\n\r\nhalf").await;
    assert!(slow.contains("\"statusCode\":\"403\""), "{slow}");
    nothing_left(&app).await;
}

#[tokio::test]
async fn a_body_that_stops_short_leaves_nothing() {
    let app = TestStorage::start().await;
    let head = "POST /storage/v1/object/files/a HTTP/1.1\r\nhost: a\r\nauthorization: Bearer service\r\n";
    // The client goes away.
    let mut stream = TcpStream::connect(app.address).await.unwrap();
    stream.write_all(format!("{head}content-length: 100\r\n\r\nhalf").as_bytes()).await.unwrap();
    drop(stream);
    // The client falls silent.
    let silent = raw(&app, &format!("{head}content-length: 100\r\n\r\nhalf")).await;
    assert!(silent.contains("\"statusCode\":\"408\""), "{silent}");
    // A length that is none.
    let lengthless = raw(&app, &format!("{head}content-length: 1x\r\n\r\nhalf")).await;
    assert!(lengthless.starts_with("HTTP/1.1 400"), "{lengthless}");
    // Chunks that are none.
    let chunks = raw(&app, &format!("{head}transfer-encoding: chunked\r\n\r\nzz\r\n")).await;
    assert!(chunks.starts_with("HTTP/1.1 400"), "{chunks}");
    nothing_left(&app).await;
}

#[tokio::test]
async fn an_upload_may_take_its_time_while_it_moves() {
    let app = TestStorage::start().await;
    let head = "POST /storage/v1/object/files/slow HTTP/1.1\r\nhost: a\r\nauthorization: Bearer service\r\nconnection: close\r\ncontent-length: 8\r\n\r\n";
    let mut stream = TcpStream::connect(app.address).await.unwrap();
    stream.write_all(head.as_bytes()).await.unwrap();
    // Twice the time that the server gives other requests.
    let mut pace = tokio::time::interval(Duration::from_millis(150));
    for _ in 0..8 {
        pace.tick().await;
        stream.write_all(b"x").await.unwrap();
    }
    let mut answer = String::new();
    stream.read_to_string(&mut answer).await.unwrap();
    assert!(answer.starts_with("HTTP/1.1 200"), "{answer}");
    assert_eq!(app.text(As::Service, "files/slow").await.unwrap(), "xxxxxxxx");
}

#[tokio::test]
async fn broken_forms_are_refused() {
    let app = TestStorage::start().await;
    let file = || Part::text("x").file_name("f").mime_str("text/plain").unwrap();
    let send = async |form: Form| {
        let request = app.request(As::Service, Method::POST, "/object/files/form").multipart(form);
        answer(request.send().await.unwrap()).await
    };
    assert_eq!(send(Form::new().text("cacheControl", "60")).await.0, 400, "no file");
    assert_eq!(send(Form::new().part("a", file()).part("b", file())).await.0, 400, "two files");
    assert_eq!(send(Form::new().text("metadata", "not json").part("a", file())).await.0, 400);
    assert_eq!(send(Form::new().text("metadata", "\"text\"").part("a", file())).await.0, 400);
    assert_eq!(send(Form::new().text("cacheControl", "60\r\nset-cookie: a").part("a", file())).await.0, 400);
    assert_eq!(send(Form::new().text("contentType", "a\nb").part("a", file())).await.0, 415);
    let long = "x".repeat(1_100_000);
    assert_eq!(send(Form::new().text("metadata", long).part("a", file())).await.0, 413);
    let many = (0..12).fold(Form::new(), |form, n| form.text(format!("f{n}"), "x"));
    assert_eq!(send(many.part("a", file())).await.0, 400);
    for (kind, body) in [
        ("multipart/form-data", "x"),
        ("multipart/form-data; boundary=b", "no boundary here"),
        (
            "multipart/form-data; boundary=b",
            "--b\r\ncontent-disposition: form-data; name=\"f\"; filename=\"f\"\r\n\r\nbroken off",
        ),
    ] {
        let request =
            app.request(As::Service, Method::POST, "/object/files/form").header("content-type", kind);
        let (status, body) = answer(request.body(body).send().await.unwrap()).await;
        assert_eq!(status, 400, "{kind} {body}");
    }
    nothing_left(&app).await;
}

#[tokio::test]
async fn broken_descriptions_are_refused() {
    let app = TestStorage::start().await;
    let send = async |name: &str, value: &str| {
        let request = app
            .request(As::Service, Method::POST, "/object/files/a")
            .header(name.to_owned(), value.to_owned());
        answer(request.body("x").send().await.unwrap()).await.0
    };
    assert_eq!(send("x-metadata", "not base64!").await, 400);
    assert_eq!(send("x-metadata", "bm90IGpzb24=").await, 400);
    assert_eq!(send("x-metadata", "eyJhIjoiXHUwMDAwIn0=").await, 400, "a zero byte within");
    assert_eq!(send("x-robots-tag", "please").await, 400);
    assert_eq!(send("cache-control", &"x".repeat(2000)).await, 400);
    nothing_left(&app).await;
}

#[tokio::test]
async fn bodies_that_are_no_json_are_refused() {
    let app = TestStorage::start().await;
    for (method, path) in [
        (Method::POST, "/bucket"),
        (Method::PUT, "/bucket/files"),
        (Method::POST, "/object/list/files"),
        (Method::POST, "/object/list-v2/files"),
        (Method::POST, "/object/move"),
        (Method::POST, "/object/copy"),
        (Method::POST, "/object/sign/files"),
        (Method::DELETE, "/object/files"),
    ] {
        for body in ["{", "[]", "null", "\"text\"", "\u{0}"] {
            let request = app.request(As::Service, method.clone(), path).body(body);
            let (status, answer) = answer(request.send().await.unwrap()).await;
            assert_eq!(status, 400, "{method} {path} {body:?} {answer}");
        }
        let huge = format!("{{\"x\":\"{}\"}}", "x".repeat(1_100_000));
        let (status, _) =
            answer(app.request(As::Service, method, path).body(huge).send().await.unwrap()).await;
        assert_eq!(status, 413, "{path}");
    }
}

#[tokio::test]
async fn unknown_routes_answer_in_storages_words() {
    let app = TestStorage::start().await;
    assert_eq!(app.call(As::Service, "GET", "/nowhere", json!({})).await.0, 404);
    assert_eq!(app.call(As::Service, "PATCH", "/bucket", json!({})).await.0, 404);
    assert_eq!(
        app.get(As::Service, "/health").await.json::<serde_json::Value>().await.unwrap(),
        json!({"healthy": true})
    );
    assert_eq!(app.get(As::Nobody, "/status").await.status(), 200);
}
