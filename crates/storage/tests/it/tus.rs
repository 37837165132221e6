//! Uploads in pieces, by TUS.

use std::time::Duration;

use aws_lc_rs::digest;
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use longhouse_server::Drain;
use longhouse_storage::ledger::sweeper::Swept;
use reqwest::{Method, RequestBuilder, Response};
use rstest::rstest;
use serde_json::json;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use crate::harness::{ANN, ANN_, As, BOB, BOB_, TestStorage, patient_storage, served, storage};

pub(crate) const STREAM: &str = "application/offset+octet-stream";

fn metadata(bucket: &str, name: &str) -> String {
    let pairs =
        [("bucketName", bucket), ("objectName", name), ("contentType", "text/plain"), ("cacheControl", "60")];
    let pairs = pairs.map(|(key, value)| format!("{key} {}", STANDARD.encode(value)));
    pairs.join(",")
}

pub(crate) fn own(name: &str) -> String {
    format!("{ANN}/{name}")
}

impl TestStorage {
    pub(crate) fn tus(&self, who: As, method: &str, url: &str) -> RequestBuilder {
        let path = url.split_once("/storage/v1").map_or(url, |(_, path)| path);
        let request = self.request(who, Method::from_bytes(method.as_bytes()).unwrap(), path);
        request.header("tus-resumable", "1.0.0")
    }

    async fn begin(&self, who: As, bucket: &str, name: &str, length: usize) -> Response {
        let request = self.tus(who, "POST", "/upload/resumable").header("upload-length", length);
        request.header("upload-metadata", metadata(bucket, name)).send().await.unwrap()
    }

    /// Begins an upload of ann's own and returns its URL.
    pub(crate) async fn begun(&self, name: &str, length: usize) -> String {
        let response = self.begin(ANN_, "files", &own(name), length).await;
        assert_eq!(response.status(), 201);
        response.headers()["location"].to_str().unwrap().to_owned()
    }

    pub(crate) async fn patch(
        &self,
        who: As,
        url: &str,
        offset: usize,
        body: impl Into<reqwest::Body>,
    ) -> Response {
        let request =
            self.tus(who, "PATCH", url).header("content-type", STREAM).header("upload-offset", offset);
        request.body(body).send().await.unwrap()
    }

    pub(crate) async fn offset(&self, url: &str) -> Result<u64, u16> {
        let response = self.tus(ANN_, "HEAD", url).send().await.unwrap();
        assert_eq!(response.headers()["cache-control"], "no-store");
        match response.status().as_u16() {
            200 => Ok(header(&response, "upload-offset").parse().unwrap()),
            status => Err(status),
        }
    }

    /// A connection that sends the beginning of a `PATCH` and holds still.
    async fn hanging_patch(&self, url: &str, offset: usize, announced: usize, bytes: &[u8]) -> TcpStream {
        let (address, path) = url["http://".len()..].split_once('/').unwrap();
        let mut socket = TcpStream::connect(address).await.unwrap();

        let head = format!(
            "PATCH /{path} HTTP/1.1\r\nhost: x\r\nauthorization: Bearer {ANN}\r\ntus-resumable: 1.0.0\r\n\
             content-type: {STREAM}\r\nupload-offset: {offset}\r\ncontent-length: {announced}\r\n\r\n"
        );
        socket.write_all(head.as_bytes()).await.unwrap();
        socket.write_all(bytes).await.unwrap();
        socket
    }
}

fn header(response: &Response, name: &str) -> String {
    response.headers().get(name).map(|value| value.to_str().unwrap().to_owned()).unwrap_or_default()
}

#[tokio::test]
async fn a_client_learns_what_is_served() {
    let app = TestStorage::start().await;
    for path in ["/upload/resumable", "/upload/resumable/", "/upload/resumable/sign", "/upload/resumable/abc"]
    {
        let response = app.request(As::Nobody, Method::OPTIONS, path).send().await.unwrap();
        assert_eq!(response.status(), 204, "{path}");
        assert_eq!(header(&response, "tus-version"), "1.0.0");
        assert_eq!(header(&response, "tus-max-size"), crate::harness::LIMIT.to_string());
        for extension in ["creation", "creation-with-upload", "termination", "expiration", "checksum"] {
            assert!(header(&response, "tus-extension").split(',').any(|known| known == extension));
        }
    }
    // A browser's question is another one.
    let preflight = app
        .request(As::Nobody, Method::OPTIONS, "/upload/resumable")
        .header("origin", "https://app.example")
        .header("access-control-request-method", "PATCH");
    let preflight = preflight.send().await.unwrap();
    assert!(header(&preflight, "access-control-allow-methods").contains("PATCH"));
    let response = app.request(ANN_, Method::POST, "/upload/resumable").send().await.unwrap();
    assert_eq!((response.status().as_u16(), header(&response, "tus-version").as_str()), (412, "1.0.0"));
}

#[tokio::test]
async fn an_upload_in_pieces_becomes_an_object() {
    let app = TestStorage::start().await;
    let url = app.begun("a.txt", 11).await;
    assert!(url.starts_with(&app.url("/upload/resumable/")), "{url}");
    assert_eq!(app.offset(&url).await, Ok(0));
    let first = app.patch(ANN_, &url, 0, "hello ").await;
    assert_eq!((first.status().as_u16(), header(&first, "upload-offset").as_str()), (204, "6"));
    assert!(header(&first, "upload-expires").ends_with("GMT"));
    assert_eq!(app.text(ANN_, &format!("files/{}", own("a.txt"))).await, Err(404), "half of it is not there");
    let head = app.tus(ANN_, "HEAD", &url).send().await.unwrap();
    assert_eq!((header(&head, "upload-offset"), header(&head, "upload-length")), ("6".into(), "11".into()));
    assert_eq!(header(&head, "upload-metadata"), metadata("files", &own("a.txt")));
    let second = app.patch(ANN_, &url, 6, "world").await;
    assert_eq!((second.status().as_u16(), header(&second, "upload-offset").as_str()), (204, "11"));
    let got = app.get(ANN_, &format!("/object/files/{}", own("a.txt"))).await;
    assert_eq!(header(&got, "content-type"), "text/plain");
    assert_eq!(header(&got, "cache-control"), "max-age=60");
    let hash = digest::digest(&digest::SHA256, b"hello world");
    assert_eq!(header(&got, "etag"), format!("\"{}\"", hex::encode(hash.as_ref())), "the hash of the whole");
    assert_eq!(got.text().await.unwrap(), "hello world");
    let owner: String =
        app.owner.query_one("select owner_id from storage.objects", &[]).await.unwrap().get(0);
    assert_eq!(owner, ANN.to_string());
    // Whoever missed the last answer learns that it is done.
    assert_eq!(app.offset(&url).await, Ok(11));
    assert_eq!(app.patch(ANN_, &url, 6, "world").await.status(), 409);
    assert_eq!(app.count("resumable_upload_parts").await, 0);
    app.sweep().await;
    assert_eq!((app.files().len(), app.ledger().await.len()), (1, 0), "the pieces are gone");
    let terminated = app.tus(ANN_, "DELETE", &url).send().await.unwrap();
    assert_eq!(terminated.status(), 400, "an object is deleted as an object");
}

#[tokio::test]
async fn bytes_may_come_with_the_creation() {
    let app = TestStorage::start().await;
    let create = async |length: Option<usize>, body: &'static str| {
        let request = app.tus(ANN_, "POST", "/upload/resumable/").header("content-type", STREAM);
        let request = request.header("upload-metadata", metadata("files", &own(body))).body(body);
        let request = match length {
            Some(length) => request.header("upload-length", length),
            None => request.header("upload-defer-length", "1"),
        };
        let response = request.send().await.unwrap();
        assert_eq!(response.status(), 201);
        (header(&response, "location"), header(&response, "upload-offset"))
    };
    let (url, offset) = create(Some(9), "begin").await;
    assert_eq!(offset, "5");
    assert_eq!(app.patch(ANN_, &url, 5, "+end").await.status(), 204);
    assert_eq!(app.text(ANN_, &format!("files/{}", own("begin"))).await.unwrap(), "begin+end");
    let (_, offset) = create(Some(3), "all").await;
    assert_eq!(offset, "3");
    assert_eq!(app.text(ANN_, &format!("files/{}", own("all"))).await.unwrap(), "all");
    let (url, offset) = create(None, "long").await;
    assert_eq!(offset, "4");
    let head = app.tus(ANN_, "HEAD", &url).send().await.unwrap();
    assert_eq!(
        (header(&head, "upload-defer-length"), header(&head, "upload-length")),
        ("1".into(), String::new())
    );
    let last = app.tus(ANN_, "PATCH", &url).header("content-type", STREAM).header("upload-offset", 4);
    let last = last.header("upload-length", 6).body("er").send().await.unwrap();
    assert_eq!(last.status(), 204);
    assert_eq!(app.text(ANN_, &format!("files/{}", own("long"))).await.unwrap(), "longer");
    let empty = app.begin(ANN_, "files", &own("empty"), 0).await;
    assert_eq!(empty.status(), 201);
    assert_eq!(app.text(ANN_, &format!("files/{}", own("empty"))).await.unwrap(), "");
}

#[tokio::test]
async fn policies_speak_at_each_step() {
    let app = TestStorage::start().await;
    for who in [BOB_, As::Anon, As::Nobody] {
        let refused = app.begin(who, "files", &own("a.txt"), 5).await;
        assert_eq!(refused.status(), 403);
        assert!(refused.headers().get("location").is_none());
    }
    let missing = app.begin(ANN_, "nowhere", "a.txt", 5).await;
    assert_eq!(
        (missing.status().as_u16(), missing.text().await.unwrap().as_str()),
        (404, "Bucket not found")
    );
    assert_eq!(app.count("resumable_uploads").await, 0);
    let url = app.begun("a.txt", 5).await;
    for who in [BOB_, As::Anon, As::Nobody] {
        assert_eq!(app.patch(who, &url, 0, "mine!").await.status(), 403);
        assert_eq!(app.tus(who, "DELETE", &url).send().await.unwrap().status(), 403);
    }
    assert_eq!(app.offset(&url).await, Ok(0));
    // A right that is taken away ends the upload.
    app.owner.batch_execute("drop policy own_files on storage.objects").await.unwrap();
    assert_eq!(app.patch(ANN_, &url, 0, "still").await.status(), 403);
    assert!(app.files().is_empty());
}

#[tokio::test]
async fn replacing_needs_a_word() {
    let app = TestStorage::start().await;
    let path = format!("files/{}", own("a.txt"));
    app.put(ANN_, &path, "old").await;
    assert_eq!(app.begin(ANN_, "files", &own("a.txt"), 3).await.status(), 409);
    let request =
        app.tus(ANN_, "POST", "/upload/resumable").header("upload-length", 3).header("x-upsert", "true");
    let begun = request.header("upload-metadata", metadata("files", &own("a.txt"))).send().await.unwrap();
    let url = header(&begun, "location");
    assert_eq!(app.patch(ANN_, &url, 0, "ne").await.status(), 204);
    assert_eq!(
        app.text(ANN_, &path).await.unwrap(),
        "old",
        "the old bytes stay until the new ones are whole"
    );
    assert_eq!(app.patch(ANN_, &url, 2, "w").await.status(), 204);
    assert_eq!(app.text(ANN_, &path).await.unwrap(), "new");
    // Of two uploads of one name the first to end wins.
    let (one, two) = (app.begun("b.txt", 1).await, app.begun("b.txt", 1).await);
    assert_eq!(app.patch(ANN_, &one, 0, "1").await.status(), 204);
    assert_eq!(app.patch(ANN_, &two, 0, "2").await.status(), 409);
    assert_eq!(app.tus(ANN_, "DELETE", &two).send().await.unwrap().status(), 204);
}

#[tokio::test]
async fn signed_urls_upload_without_a_key() {
    let app = TestStorage::start().await;
    let path = format!("files/{}", own("signed.txt"));
    let (_, signed) = app.call(ANN_, "POST", &format!("/object/upload/sign/{path}"), json!({})).await;
    let token = signed["token"].as_str().unwrap();
    let begin = |token: &str, name: &str| {
        let request = app.tus(As::Nobody, "POST", "/upload/resumable/sign").header("upload-length", 5);
        request.header("upload-metadata", metadata("files", &own(name))).header("x-signature", token)
    };
    let other = begin(token, "other.txt").send().await.unwrap();
    assert_eq!((other.status().as_u16(), other.text().await.unwrap().as_str()), (400, "Invalid signature"));
    let forged = begin("nonsense", "signed.txt").send().await.unwrap();
    assert_eq!(
        (forged.status().as_u16(), forged.text().await.unwrap().as_str()),
        (400, "Invalid Compact JWS")
    );
    let none = app.tus(As::Nobody, "POST", "/upload/resumable/sign").header("upload-length", 5);
    let none = none.header("upload-metadata", metadata("files", &own("signed.txt"))).send().await.unwrap();
    assert_eq!(none.text().await.unwrap(), "Missing x-signature header");
    let url = header(&begin(token, "signed.txt").send().await.unwrap(), "location");
    assert!(url.contains("/upload/resumable/sign/"), "{url}");
    assert_eq!(app.patch(As::Nobody, &url, 0, "hello").await.status(), 400);
    let sent = app.tus(As::Nobody, "PATCH", &url).header("content-type", STREAM).header("upload-offset", 0);
    assert_eq!(sent.header("x-signature", token).body("hello").send().await.unwrap().status(), 204);
    assert_eq!(app.text(ANN_, &path).await.unwrap(), "hello");
    let owner: String =
        app.owner.query_one("select owner_id from storage.objects", &[]).await.unwrap().get(0);
    assert_eq!(owner, ANN.to_string(), "it belongs to who signed");
}

#[rstest]
#[case::no_metadata(&[("upload-length", "5")], 400)]
#[case::no_length(&[("upload-metadata", "FILE")], 400)]
#[case::two_lengths(&[("upload-length", "5"), ("upload-defer-length", "1"), ("upload-metadata", "FILE")], 400)]
#[case::deferred_how(&[("upload-defer-length", "2"), ("upload-metadata", "FILE")], 400)]
#[case::negative(&[("upload-length", "-5"), ("upload-metadata", "FILE")], 400)]
#[case::too_large(&[("upload-length", "10000001"), ("upload-metadata", "FILE")], 413)]
#[case::beyond_numbers(&[("upload-length", "99999999999999999999999"), ("upload-metadata", "FILE")], 413)]
#[case::climbing(&[("upload-length", "5"), ("upload-metadata", "CLIMB")], 400)]
#[tokio::test]
async fn beginnings_that_make_no_sense(#[case] headers: &[(&'static str, &str)], #[case] status: u16) {
    let app = TestStorage::start().await;
    let mut request = app.tus(As::Service, "POST", "/upload/resumable");
    for (name, value) in headers {
        let value = match *value {
            "FILE" => metadata("files", "a.txt"),
            "CLIMB" => metadata("files", "../../a.txt"),
            other => other.to_owned(),
        };
        request = request.header(*name, value);
    }
    let response = request.send().await.unwrap();
    assert_eq!(response.status().as_u16(), status);
    assert_eq!(header(&response, "tus-resumable"), "1.0.0");
    assert_eq!(app.count("resumable_uploads").await, 0);
}

#[tokio::test]
async fn pieces_that_do_not_fit_are_refused() {
    let app = TestStorage::start().await;
    let limited = json!({"name": "small", "file_size_limit": 10, "allowed_mime_types": ["image/png"]});
    app.call(As::Service, "POST", "/bucket", limited).await;
    assert_eq!(app.begin(As::Service, "small", "a.txt", 5).await.status(), 415);
    let url = app.begun("a.txt", 5).await;
    assert_eq!(app.patch(ANN_, &url, 1, "hello").await.status(), 409);
    assert_eq!(app.patch(ANN_, &url, 0, "hello!").await.status(), 413);
    let pieces = ["hel", "lo!"].map(|piece| Ok::<_, std::io::Error>(piece.to_owned()));
    let unannounced = reqwest::Body::wrap_stream(futures_util::stream::iter(pieces));
    assert_eq!(app.patch(ANN_, &url, 0, unannounced).await.status(), 413);
    let typed = app.tus(ANN_, "PATCH", &url).header("content-type", "text/plain").header("upload-offset", 0);
    assert_eq!(typed.body("hello").send().await.unwrap().status(), 415);
    let nowhere = app.tus(ANN_, "PATCH", &url).header("content-type", STREAM).body("hello");
    assert_eq!(nowhere.send().await.unwrap().status(), 400);
    for unknown in [format!("{url}x"), app.url("/upload/resumable/x")] {
        assert_eq!(app.patch(ANN_, &unknown, 0, "hello").await.status(), 404);
        assert_eq!(app.offset(&unknown).await, Err(404));
    }
    let overridden = app.tus(ANN_, "POST", &url).header("x-http-method-override", "DELETE");
    assert_eq!(overridden.send().await.unwrap().status(), 204);
    assert_eq!(app.offset(&url).await, Err(404));
    app.sweep().await;
    assert!(app.files().is_empty() && app.ledger().await.is_empty());
}

#[rstest]
#[case("sha1", "qvTGHdzF6KLavt4PO0gs2a6pQ00=")]
#[case("sha256", "LPJNul+wow4m6DsqxbninhsWHlwfp0JecwQzYpOLmCQ=")]
#[case("md5", "XUFAKrxLKna5cZ2REBfFkg==")]
#[tokio::test]
async fn checksums_are_checked_before_anything_counts(#[case] algorithm: &str, #[case] hash: &str) {
    let app = TestStorage::start().await;
    let url = app.begun("a.txt", 5).await;
    let send = async |checksum: String, body: &'static str| {
        let request = app.tus(ANN_, "PATCH", &url).header("content-type", STREAM).header("upload-offset", 0);
        request.header("upload-checksum", checksum).body(body).send().await.unwrap().status().as_u16()
    };
    assert_eq!(send(format!("{algorithm} {hash}"), "hallo").await, 460);
    assert_eq!(app.offset(&url).await, Ok(0));
    app.nothing_pending().await;
    assert!(app.files().is_empty(), "what did not match is gone");
    assert_eq!(send("crc32 AAAAAA==".into(), "hello").await, 400);
    assert_eq!(send(format!("{algorithm} {hash}"), "hello").await, 204);
    assert_eq!(app.text(ANN_, &format!("files/{}", own("a.txt"))).await.unwrap(), "hello");
}

#[tokio::test]
async fn what_arrived_before_a_connection_broke_is_kept() {
    let app = TestStorage::start().await;
    let url = app.begun("a.txt", 11).await;
    let mut socket = app.hanging_patch(&url, 0, 11, b"hello ").await;
    socket.shutdown().await.unwrap();
    let mut answer = Vec::new();
    // The server may close without a word; what counts is that it is done with what it got.
    let _ = socket.read_to_end(&mut answer).await;
    let waited = tokio::time::timeout(Duration::from_secs(10), async {
        while app.offset(&url).await != Ok(6) {
            tokio::task::yield_now().await;
        }
    });
    waited.await.unwrap();
    assert_eq!(app.patch(ANN_, &url, 6, "world").await.status(), 204);
    assert_eq!(app.text(ANN_, &format!("files/{}", own("a.txt"))).await.unwrap(), "hello world");
}

#[tokio::test]
async fn a_creation_that_breaks_off_is_forgotten() {
    let app = TestStorage::start().await;
    let mut socket = TcpStream::connect(app.address).await.unwrap();
    let head = format!(
        "POST /storage/v1/upload/resumable HTTP/1.1\r\nhost: x\r\nauthorization: Bearer {ANN}\r\n\
         tus-resumable: 1.0.0\r\ncontent-type: {STREAM}\r\nupload-length: 11\r\nupload-metadata: {}\r\n\
         content-length: 11\r\n\r\nhello ",
        metadata("files", &own("a.txt"))
    );
    socket.write_all(head.as_bytes()).await.unwrap();
    while app.count("resumable_uploads").await == 0 {
        tokio::task::yield_now().await;
    }
    drop(socket);
    let waited = tokio::time::timeout(Duration::from_secs(10), async {
        while app.count("resumable_uploads").await > 0 {
            tokio::task::yield_now().await;
        }
    });
    waited.await.expect("nobody knows its URL");
    app.sweep().await;
    assert!(app.files().is_empty() && app.ledger().await.is_empty());
}

/// Another server of the same rows and bytes, which waits for its clients; the upload's URL there.
async fn elsewhere(app: &TestStorage, url: &str) -> (String, Drain) {
    let patience = Duration::from_secs(60);
    let other = patient_storage(&app.database_url, app.folder.path().into(), patience).await;
    let (address, drain) = served(&other).await;
    (url.replace(&app.address.to_string(), &address.to_string()), drain)
}

#[tokio::test]
async fn a_new_connection_takes_over_from_one_that_hangs() {
    let app = TestStorage::start().await;
    let (url, drain) = elsewhere(&app, &app.begun("a.txt", 11).await).await;
    let ask = |method: Method, who: uuid::Uuid| {
        app.client.request(method, &url).bearer_auth(who).header("tus-resumable", "1.0.0")
    };
    let patch = async |who: uuid::Uuid, offset: u64, body: &'static str| {
        let request = ask(Method::PATCH, who).header("content-type", STREAM).header("upload-offset", offset);
        request.body(body).send().await.unwrap().status().as_u16()
    };
    let mut hanging = app.hanging_patch(&url, 0, 11, b"hello").await;
    // It has been let in once its piece is entered.
    while app.ledger().await.is_empty() {
        tokio::task::yield_now().await;
    }
    // Nobody ends the connection of somebody else.
    assert_eq!(ask(Method::HEAD, BOB).send().await.unwrap().status(), 200);
    assert_eq!(patch(BOB, 0, "bob's").await, 403);
    assert!(!app.ledger().await.is_empty());
    let head = ask(Method::HEAD, ANN).send().await.unwrap();
    assert_eq!(header(&head, "upload-offset"), "5", "what the older one brought counts");
    let mut answer = vec![0; 12];
    hanging.read_exact(&mut answer).await.unwrap();
    assert_eq!(answer, b"HTTP/1.1 423", "it can add no more");
    assert_eq!(patch(ANN, 5, " world").await, 204);
    assert_eq!(app.text(ANN_, &format!("files/{}", own("a.txt"))).await.unwrap(), "hello world");
    drain.stop();
}

#[tokio::test]
async fn another_servers_connection_is_outrun() {
    let app = TestStorage::start().await;
    let url = app.begun("a.txt", 11).await;
    let (there, drain) = elsewhere(&app, &url).await;
    let mut hanging = app.hanging_patch(&there, 0, 11, b"HELLO").await;
    while app.ledger().await.is_empty() {
        tokio::task::yield_now().await;
    }
    assert_eq!(app.patch(ANN_, &url, 0, "hello world").await.status(), 204);
    // What it brings now finds no upload that waits for it.
    hanging.write_all(b" WORLD").await.unwrap();
    let mut answer = vec![0; 12];
    hanging.read_exact(&mut answer).await.unwrap();
    assert_eq!(answer, b"HTTP/1.1 423");
    assert_eq!(app.text(ANN_, &format!("files/{}", own("a.txt"))).await.unwrap(), "hello world");
    drain.stop();
}

#[tokio::test]
async fn another_server_goes_on() {
    let app = TestStorage::start().await;
    let url = app.begun("a.txt", 11).await;
    assert_eq!(app.patch(ANN_, &url, 0, "hello ").await.status(), 204);
    let other = storage(&app.database_url, app.folder.path().into()).await;
    let (address, drain) = served(&other).await;
    let there = url.replace(&app.address.to_string(), &address.to_string());
    let request = app.client.patch(&there).bearer_auth(ANN).header("tus-resumable", "1.0.0");
    let request = request.header("content-type", STREAM).header("upload-offset", 6).body("world");
    assert_eq!(request.send().await.unwrap().status(), 204);
    drain.stop();
    assert_eq!(app.offset(&url).await, Ok(11));
    assert_eq!(app.text(ANN_, &format!("files/{}", own("a.txt"))).await.unwrap(), "hello world");
}

#[tokio::test]
async fn what_a_dead_server_had_not_joined_is_joined_on_demand() {
    let app = TestStorage::start().await;
    let url = app.begun("a.txt", 5).await;
    assert_eq!(app.patch(ANN_, &url, 0, "hell").await.status(), 204);
    // As if a server had died between the last piece and the object: the piece is there, the rest is not.
    let pieces =
        "update storage.resumable_uploads set length = 4, joining_until = now() + interval '1 minute'";
    app.owner.batch_execute(pieces).await.unwrap();
    assert_eq!(app.offset(&url).await, Err(423), "somebody may still be at it");
    app.owner
        .batch_execute("update storage.resumable_uploads set joining_until = now() - interval '1 second'")
        .await
        .unwrap();
    assert_eq!(app.offset(&url).await, Ok(4));
    assert_eq!(app.text(ANN_, &format!("files/{}", own("a.txt"))).await.unwrap(), "hell");
    // As if it had died between the object and the upload's end: nothing is stored twice.
    let undone = "update storage.resumable_uploads set completed_at = null, joining_until = null";
    app.owner.batch_execute(undone).await.unwrap();
    assert_eq!(app.offset(&url).await, Ok(4));
    assert_eq!(app.count("objects").await, 1);
    app.sweep().await;
    assert_eq!(app.files().len(), 1);
}

#[tokio::test]
async fn uploads_that_are_not_completed_in_time_are_forgotten() {
    let app = TestStorage::start().await;
    let url = app.begun("a.txt", 11).await;
    assert_eq!(app.patch(ANN_, &url, 0, "hello ").await.status(), 204);
    let done = app.begun("b.txt", 1).await;
    assert_eq!(app.patch(ANN_, &done, 0, "b").await.status(), 204);
    app.sweep().await;
    assert_eq!((app.offset(&url).await, app.files().len()), (Ok(6), 2), "a piece is no orphan");
    app.owner
        .batch_execute("update storage.resumable_uploads set expires_at = now() - interval '1 second'")
        .await
        .unwrap();
    assert_eq!(app.offset(&url).await, Err(410));
    assert_eq!(app.patch(ANN_, &url, 6, "world").await.status(), 410);
    assert_eq!(app.sweep().await, Swept { deleted: 1, failed: 0 });
    assert_eq!(app.count("resumable_uploads").await, 0);
    assert_eq!(app.files().len(), 1, "the completed one stays");
    assert_eq!(app.offset(&url).await, Err(404));
    let gone = app.begun("c.txt", 9).await;
    assert_eq!(app.patch(ANN_, &gone, 0, "c").await.status(), 204);
    assert_eq!(app.tus(ANN_, "DELETE", &gone).send().await.unwrap().status(), 204);
    assert_eq!(app.sweep().await.deleted, 1);
    assert_eq!(app.patch(ANN_, &gone, 1, "c").await.status(), 404);
}

#[tokio::test]
async fn a_bucket_takes_its_uploads_along() {
    let app = TestStorage::start().await;
    app.call(As::Service, "POST", "/bucket", json!({"name": "short"})).await;
    let url = header(&app.begin(As::Service, "short", "a.txt", 9).await, "location");
    assert_eq!(app.patch(As::Service, &url, 0, "a").await.status(), 204);
    assert_eq!(app.call(As::Service, "DELETE", "/bucket/short", json!({})).await.0, 200);
    assert_eq!(app.patch(As::Service, &url, 1, "b").await.status(), 404);
    assert_eq!(app.sweep().await.deleted, 1);
    assert!(app.files().is_empty());
}
