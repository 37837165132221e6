//! The server dies at every step of everything that writes. Afterwards nothing is lost, nothing is half, and what was
//! left over goes with the next sweep.

use std::io::Write;
use std::os::unix::process::ExitStatusExt;
use std::path::PathBuf;
use std::process::Stdio;
use std::time::Duration;

use bytes::Bytes;
use longhouse_storage::Storage;
use longhouse_storage::check::{CheckOptions, Checked};
use longhouse_storage::failpoints::POINTS;
use longhouse_storage::ledger::sweeper::SweepOptions;
use object_store::ObjectStoreExt;
use object_store::PutPayload;
use object_store::multipart::{MultipartStore, PartId};
use object_store::path::Path;
use rand::RngExt;
use reqwest::Method;
use secrecy::{ExposeSecret, SecretString};
use serde_json::{Value, json};
use tokio::io::{AsyncBufReadExt, BufReader};

use crate::harness::{self, ANN, ANN_, As, TestStorage};
use crate::{s3, tus};

const DATABASE: &str = "LONGHOUSE_TEST_DATABASE_URL";
const FOLDER: &str = "LONGHOUSE_TEST_FOLDER";
const SIGABRT: i32 = 6;
const FAILPOINT: &str = "LONGHOUSE_TEST_FAILPOINT";
const AT_ONCE: SweepOptions = SweepOptions {
    every: Duration::from_millis(20),
    grace: Duration::ZERO,
    abandoned: Duration::from_secs(3600),
};

/// In the process that a test starts of itself, serves until somebody kills it.
async fn serve_if_child() {
    let Ok(url) = std::env::var(DATABASE) else { return };
    let folder = PathBuf::from(std::env::var(FOLDER).unwrap());
    let storage: Storage = harness::storage(&SecretString::from(url), folder).await;
    let (address, drain) = harness::served(&storage).await;
    let mut stdout = std::io::stdout();
    writeln!(stdout, "\nserving {address}").unwrap();
    if std::env::var(FAILPOINT).is_ok_and(|point| point.starts_with("sweep")) {
        storage.spawn_sweeper(AT_ONCE, drain.clone());
    }
    drain.stopping().await;
}

/// A server of its own process over the same rows and bytes.
struct Victim {
    child: tokio::process::Child,
    base: String,
    client: reqwest::Client,
}

impl Victim {
    /// `test` is the name of the test that calls this: the process begins as it does.
    async fn start(app: &TestStorage, test: &str, failpoint: &str) -> Self {
        let mut command = tokio::process::Command::new(std::env::current_exe().unwrap());
        command
            .args(["--exact", &format!("failpoints::{test}"), "--nocapture"])
            .env(DATABASE, app.database_url.expose_secret())
            .env(FOLDER, app.folder.path())
            .env(FAILPOINT, failpoint)
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .kill_on_drop(true);
        let mut child = command.spawn().unwrap();
        let mut lines = BufReader::new(child.stdout.take().unwrap()).lines();
        let address = tokio::time::timeout(Duration::from_secs(30), async {
            while let Some(line) = lines.next_line().await.unwrap() {
                if let Some(address) = line.strip_prefix("serving ") {
                    return address.to_owned();
                }
            }
            // A sweeper may reach its point before the server serves.
            String::new()
        })
        .await
        .expect("the server starts");
        let client = reqwest::Client::builder().no_proxy().build().unwrap();
        Self { child, base: format!("http://{address}/storage/v1"), client }
    }

    async fn send(&self, method: Method, path: &str, upsert: bool, body: Vec<u8>) -> Option<u16> {
        let request = self.client.request(method, format!("{}{path}", self.base)).bearer_auth("service");
        let request = request.header("x-upsert", upsert.to_string()).body(body);
        request.send().await.ok().map(|response| response.status().as_u16())
    }

    /// One piece of an upload by TUS that another server began.
    async fn piece(&self, url: &str, offset: usize, body: Vec<u8>) -> Option<u16> {
        let (_, path) = url.split_once("/storage/v1").unwrap();
        let request = self.client.patch(format!("{}{path}", self.base)).bearer_auth(ANN);
        let request = request.header("tus-resumable", "1.0.0").header("content-type", tus::STREAM);
        let request = request.header("upload-offset", offset).body(body);
        request.send().await.ok().map(|response| response.status().as_u16())
    }

    async fn json(&self, method: Method, path: &str, body: Value) -> Option<u16> {
        self.send(method, path, false, body.to_string().into_bytes()).await
    }

    async fn died(mut self) {
        let status = tokio::time::timeout(Duration::from_secs(20), self.child.wait()).await;
        let status = status.expect("the failpoint is reached").unwrap();
        assert_eq!(status.signal(), Some(SIGABRT), "it dies at its failpoint, not of something else");
    }
}

/// What a client, and an operator, find after the next start and sweep.
async fn all_is_well(app: &TestStorage, point: &str) {
    // Postgres may still be about to notice that the dead server's transaction is over.
    let swept = tokio::time::timeout(Duration::from_secs(20), async {
        // Once at least: what was only staged need not be in the ledger.
        app.sweep().await;
        while !app.ledger().await.is_empty() {
            app.sweep().await;
        }
    });
    swept.await.unwrap_or_else(|_| panic!("{point}: the sweeper leaves something"));
    let mut findings = Vec::new();
    let options = CheckOptions { verify: true, prune: false };
    let checked = app.storage.check(options, &mut |finding| findings.push(finding.clone())).await.unwrap();
    assert!(findings.is_empty(), "{point}: {findings:?}");
    let Checked { rows, blobs, .. } = checked;
    assert_eq!((rows, blobs), (rows, rows), "{point}: as many files as rows");
    assert_eq!(app.files().len() as u64, rows, "{point}: nothing else is in the folder");
    assert_eq!(app.text(As::Service, "files/bystander").await.unwrap(), "untouched", "{point}");
}

async fn started() -> TestStorage {
    let app = TestStorage::start().await;
    app.put(As::Service, "files/bystander", "untouched").await;
    app
}

fn points(prefixes: &[&str]) -> Vec<&'static str> {
    let found: Vec<_> = POINTS
        .iter()
        .copied()
        .filter(|point| prefixes.iter().any(|prefix| point.starts_with(prefix)))
        .collect();
    assert!(!found.is_empty());
    found
}

/// More than one chunk, so that a half of it would be one.
fn large(letter: u8) -> Vec<u8> {
    vec![letter; 1_500_000]
}

async fn content(app: &TestStorage, path: &str) -> Option<Vec<u8>> {
    let response = app.get(As::Service, &format!("/object/{path}")).await;
    match response.status().as_u16() {
        200 => Some(response.bytes().await.unwrap().to_vec()),
        _ => None,
    }
}

#[tokio::test]
async fn dying_while_uploading() {
    serve_if_child().await;
    let app = started().await;
    for point in points(&["upload."]) {
        let path = format!("files/{point}");
        let victim = Victim::start(&app, "dying_while_uploading", point).await;
        assert_eq!(victim.send(Method::POST, &format!("/object/{path}"), false, large(b'n')).await, None);
        victim.died().await;
        all_is_well(&app, point).await;
        let committed = point == "upload.committed";
        assert_eq!(content(&app, &path).await, committed.then(|| large(b'n')), "{point}");
        // And again, as a client would.
        if !committed {
            assert_eq!(app.put(As::Service, &path, "again").await.0, 200, "{point}");
        }
    }
}

#[tokio::test]
async fn dying_while_overwriting() {
    serve_if_child().await;
    let app = started().await;
    for point in points(&["upload."]) {
        let path = format!("files/{point}");
        app.put(As::Service, &path, "old").await;
        let victim = Victim::start(&app, "dying_while_overwriting", point).await;
        assert_eq!(victim.send(Method::POST, &format!("/object/{path}"), true, large(b'n')).await, None);
        victim.died().await;
        let expected = if point == "upload.committed" { large(b'n') } else { b"old".to_vec() };
        assert_eq!(content(&app, &path).await.unwrap(), expected, "{point}");
        all_is_well(&app, point).await;
        assert_eq!(content(&app, &path).await.unwrap(), expected, "{point}");
    }
}

/// Points with the times that they are passed before an upload is whole: by its last piece, then by their joining.
fn twice(prefixes: &[&str]) -> Vec<String> {
    let once = ["upload.committed", "resumable.", "multipart."];
    let points = points(prefixes).into_iter();
    points
        .flat_map(|point| match once.iter().any(|once| point.starts_with(once)) {
            true => vec![point.to_owned()],
            false => vec![point.to_owned(), format!("{point}#2")],
        })
        .collect()
}

#[tokio::test]
async fn dying_while_joining_pieces() {
    serve_if_child().await;
    let app = started().await;
    let whole = [large(b'1'), large(b'2')].concat();
    for point in twice(&["upload.", "resumable."]) {
        for resumed in [true, false] {
            let name = format!("{}.{resumed}", point.replace('#', "-"));
            let path = format!("files/{}", tus::own(&name));
            let url = app.begun(&name, whole.len()).await;
            assert_eq!(app.patch(ANN_, &url, 0, large(b'1')).await.status(), 204);
            let victim = Victim::start(&app, "dying_while_joining_pieces", &point).await;
            assert_eq!(victim.piece(&url, 1_500_000, large(b'2')).await, None, "{point}");
            victim.died().await;
            // The dead server's claim on the pieces runs out.
            let expire = "update storage.resumable_uploads set joining_until = now() - interval '1 second' where joining_until is not null";
            app.owner.batch_execute(expire).await.unwrap();
            let committed = ["upload.committed", "resumable.completed"].contains(&point.as_str());
            assert_eq!(content(&app, &path).await, committed.then(|| whole.clone()), "{point}: whole or not");
            if resumed {
                let offset = app.offset(&url).await.unwrap() as usize;
                let joined = point.ends_with("#2") || point.starts_with("resumable") || committed;
                assert_eq!(offset, if joined { 3_000_000 } else { 1_500_000 }, "{point}");
                if !joined {
                    assert_eq!(app.patch(ANN_, &url, offset, large(b'2')).await.status(), 204, "{point}");
                }
            } else {
                let given_up = app.tus(ANN_, "DELETE", &url).send().await.unwrap().status();
                assert_eq!(given_up, if point == "resumable.completed" { 400 } else { 204 }, "{point}");
            }
            all_is_well(&app, &point).await;
            let expected = (resumed || committed).then(|| whole.clone());
            assert_eq!(content(&app, &path).await, expected, "{point}, resumed: {resumed}");
        }
    }
}

#[tokio::test]
async fn dying_while_completing_a_multipart_upload() {
    serve_if_child().await;
    let app = started().await;
    let store = app.operator("files");
    let part = |letter| PutPayload::from(Bytes::from(large(letter)));
    let whole = [large(b'1'), large(b'2')].concat();
    for point in twice(&["upload.", "multipart.completed"]) {
        // Asked once for the upload and once for the object; the bytes are joined once.
        if point.ends_with("#2") && point != "upload.checked#2" {
            continue;
        }
        let path = Path::from(point.replace('#', "-"));
        let id = store.create_multipart(&path).await.unwrap();
        let mut parts = Vec::new();
        for (index, letter) in [b'1', b'2'].into_iter().enumerate() {
            parts.push(store.put_part(&path, &id, index, part(letter)).await.unwrap());
        }
        let victim = Victim::start(&app, "dying_while_completing_a_multipart_upload", &point).await;
        let elsewhere = s3::operator_at(&victim.base, "files");
        assert!(elsewhere.complete_multipart(&path, &id, parts.clone()).await.is_err(), "{point}");
        victim.died().await;
        let committed = ["upload.committed", "multipart.completed"].contains(&point.as_str());
        let found = content(&app, &format!("files/{path}")).await;
        assert_eq!(found, committed.then(|| whole.clone()), "{point}: whole or not");
        // As a client does that got no answer.
        let again = store.complete_multipart(&path, &id, parts).await;
        assert_eq!(again.is_ok(), point != "multipart.completed", "{point}: {again:?}");
        all_is_well(&app, &point).await;
        assert_eq!(content(&app, &format!("files/{path}")).await, Some(whole.clone()), "{point}");
    }
}

#[tokio::test]
async fn dying_while_receiving_a_part() {
    serve_if_child().await;
    let app = started().await;
    let store = app.operator("files");
    let part = |letter| PutPayload::from(Bytes::from(large(letter)));
    for (index, point) in points(&["upload.", "multipart.received"]).into_iter().enumerate() {
        if point == "upload.committed" {
            continue;
        }
        let path = Path::from(point);
        let id = store.create_multipart(&path).await.unwrap();
        // Sent before, it is replaced or it stays.
        store.put_part(&path, &id, 0, part(b'o')).await.unwrap();
        let victim = Victim::start(&app, "dying_while_receiving_a_part", point).await;
        let elsewhere = s3::operator_at(&victim.base, "files");
        assert!(elsewhere.put_part(&path, &id, 0, part(b'n')).await.is_err(), "{point}");
        victim.died().await;
        if index % 2 == 0 {
            store.abort_multipart(&path, &id).await.unwrap();
        } else {
            let PartId { content_id } = store.put_part(&path, &id, 0, part(b'n')).await.unwrap();
            store.complete_multipart(&path, &id, vec![PartId { content_id }]).await.unwrap();
            assert_eq!(store.get(&path).await.unwrap().bytes().await.unwrap(), large(b'n'), "{point}");
        }
        all_is_well(&app, point).await;
    }
}

#[tokio::test]
async fn dying_while_copying() {
    serve_if_child().await;
    let app = started().await;
    for point in points(&[
        "copy.",
        "upload.checked",
        "upload.pending",
        "upload.s",
        "upload.renamed",
        "upload.committed",
    ]) {
        let to = format!("{point}.copy");
        let victim = Victim::start(&app, "dying_while_copying", point).await;
        let body = json!({"bucketId": "files", "sourceKey": "bystander", "destinationKey": to});
        assert_eq!(victim.json(Method::POST, "/object/copy", body).await, None, "{point}");
        victim.died().await;
        all_is_well(&app, point).await;
        let copied = content(&app, &format!("files/{to}")).await;
        assert_eq!(copied, point.ends_with("committed").then(|| b"untouched".to_vec()), "{point}");
    }
}

#[tokio::test]
async fn dying_while_moving_and_deleting() {
    serve_if_child().await;
    let app = started().await;
    for point in points(&["move.", "delete."]) {
        let (from, to) = (point.to_owned(), format!("{point}.moved"));
        app.put(As::Service, &format!("files/{from}"), "mine").await;
        let victim = Victim::start(&app, "dying_while_moving_and_deleting", point).await;
        let answered = if point.starts_with("move") {
            let body = json!({"bucketId": "files", "sourceKey": from, "destinationKey": to});
            victim.json(Method::POST, "/object/move", body).await
        } else {
            victim.json(Method::DELETE, &format!("/object/files/{from}"), json!({})).await
        };
        assert_eq!(answered, None);
        victim.died().await;
        all_is_well(&app, point).await;
        let there = [&from, &to].map(|name| format!("files/{name}"));
        let found = [content(&app, &there[0]).await.is_some(), content(&app, &there[1]).await.is_some()];
        let expected = match point {
            "move.checked" => [true, false],
            "move.committed" => [false, true],
            _ => [false, false],
        };
        assert_eq!(found, expected, "{point}");
    }
}

#[tokio::test]
async fn dying_while_sweeping() {
    serve_if_child().await;
    let app = started().await;
    for point in points(&["sweep."]) {
        app.put(As::Service, "files/doomed", "doomed").await;
        app.call(As::Service, "DELETE", "/object/files/doomed", json!({})).await;
        Victim::start(&app, "dying_while_sweeping", point).await.died().await;
        all_is_well(&app, point).await;
    }
}

#[tokio::test]
async fn killed_at_any_moment() {
    serve_if_child().await;
    let app = started().await;
    for round in 0..4 {
        let mut victim = Victim::start(&app, "killed_at_any_moment", "none").await;
        let moment = Duration::from_millis(rand::rng().random_range(20..400));
        let work = async {
            let one = async |n: usize| {
                let path = format!("/object/files/{}", n % 5);
                let letter = b'a' + (n % 26) as u8;
                match n % 3 {
                    0 | 1 => victim.send(Method::POST, &path, true, large(letter)).await,
                    _ => victim.json(Method::DELETE, &path, json!({})).await,
                }
            };
            let mut n = 0;
            loop {
                tokio::join!(one(n), one(n + 1), one(n + 2), one(n + 3));
                n += 4;
            }
        };
        assert!(tokio::time::timeout(moment, work).await.is_err());
        victim.child.kill().await.unwrap();
        let at = format!("round {round}, after {moment:?}");
        for n in 0..5 {
            if let Some(bytes) = content(&app, &format!("files/{n}")).await {
                assert_eq!(bytes.len(), 1_500_000, "{at}");
                assert!(bytes.iter().all(|byte| *byte == bytes[0]), "{at}: nothing is mixed");
            }
        }
        all_is_well(&app, &at).await;
    }
}
