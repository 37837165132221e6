//! A service for each test, with two users, policies by folder, and a look behind its doors.

use std::fs;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use longhouse_database::cluster::Login;
use longhouse_database::testing::{TemplateDatabase, TestCluster, TestDatabase};
use longhouse_database::{Claims, Database, DatabaseOptions, bootstrap, connect_client};
use longhouse_server::{Drain, Listener, Stack, serve};
use longhouse_storage::blobs::Blobs;
use longhouse_storage::blobs::local::Local;
use longhouse_storage::ledger::sweeper::{SweepOptions, Swept};
use longhouse_storage::signing::SigningKey;
use longhouse_storage::{Options, Storage};
use reqwest::{Method, RequestBuilder, Response};
use secrecy::SecretString;
use serde_json::{Value, json};
use tempfile::TempDir;
use tokio_postgres::Client;
use uuid::Uuid;

pub(crate) const ANN: Uuid = Uuid::from_u128(0xa11);
pub(crate) const BOB: Uuid = Uuid::from_u128(0xb0b);
/// Largest file of any bucket.
pub(crate) const LIMIT: u64 = 10_000_000;
/// Longest silence of an upload.
pub(crate) const IDLE: Duration = Duration::from_millis(400);

/// Everybody reads and writes below their own id in `files` and `other`; anybody signed in adds to `pictures`.
pub(crate) const POLICIES: &str = "
    insert into storage.buckets (id, name, public) values
      ('files', 'files', false), ('other', 'other', false), ('pictures', 'pictures', true);
    create policy own_files on storage.objects for all to authenticated
      using (bucket_id in ('files', 'other') and (storage.foldername(name))[1] = auth.uid()::text)
      with check (bucket_id in ('files', 'other') and (storage.foldername(name))[1] = auth.uid()::text);
    create policy add_pictures on storage.objects for insert to authenticated
      with check (bucket_id = 'pictures' and storage.operation() like 'storage.object.upload%');
    create policy see_buckets on storage.buckets for select to authenticated using (id <> 'other');";

/// Who sends a request.
#[derive(Clone, Copy, PartialEq)]
pub(crate) enum As {
    Nobody,
    Anon,
    User(Uuid),
    Service,
}

pub(crate) const ANN_: As = As::User(ANN);
pub(crate) const BOB_: As = As::User(BOB);

pub(crate) struct TestStorage {
    pub(crate) address: SocketAddr,
    pub(crate) storage: Storage,
    pub(crate) owner: Client,
    pub(crate) folder: TempDir,
    pub(crate) database_url: SecretString,
    pub(crate) client: reqwest::Client,
    drain: Drain,
    // Dropped last: everything above uses it.
    _test_database: TestDatabase,
}

/// A database with the platform's schema and the policies.
pub(crate) async fn database() -> TestDatabase {
    // The bootstrap's own text is in the template's name by way of its ledger's checksums; bump this with it.
    let template = format!("storage {} {POLICIES}", bootstrap_text());
    TestDatabase::create(&template, prepare).await
}

fn bootstrap_text() -> &'static str {
    include_str!("../../../database/src/bootstrap/sql/storage.sql")
}

async fn prepare(template: &TemplateDatabase) -> Result<(), Box<dyn std::error::Error>> {
    let cluster = TestCluster::shared().await;
    let mut admin = connect_client(&options(&template.superuser_url)).await?;
    let passwords = bootstrap::Passwords {
        owner: cluster.password(Login::Owner),
        authenticator: cluster.password(Login::Authenticator),
    };
    Box::pin(bootstrap::apply(&mut admin, Some(&passwords))).await?;
    let owner = connect_client(&options(&template.owner_url)).await?;
    owner.batch_execute(POLICIES).await?;
    Ok(())
}

fn options(url: &SecretString) -> DatabaseOptions {
    DatabaseOptions { url: url.clone(), pool_size: 8, pool_timeout: Duration::from_secs(10), ca_file: None }
}

/// The service over a database and a folder.
pub(crate) async fn storage(authenticator_url: &SecretString, folder: PathBuf) -> Storage {
    patient_storage(authenticator_url, folder, IDLE).await
}

async fn local(folder: &std::path::Path) -> Arc<dyn Blobs> {
    Arc::new(Local::open(folder).await.unwrap())
}

/// The same, which waits so long for the next piece of an upload.
pub(crate) async fn patient_storage(
    authenticator_url: &SecretString,
    folder: PathBuf,
    idle_timeout: Duration,
) -> Storage {
    storage_over(authenticator_url, local(&folder).await, idle_timeout).await
}

async fn storage_over(
    authenticator_url: &SecretString,
    blobs: Arc<dyn Blobs>,
    idle_timeout: Duration,
) -> Storage {
    Storage::new(Options {
        database: Database::connect(&options(authenticator_url)).await.unwrap(),
        blobs,
        authenticate: Arc::new(|headers| {
            let Some(value) = headers.get("authorization") else { return Ok(None) };
            match value.to_str().unwrap().trim_start_matches("Bearer ") {
                "anon" => Ok(Some(Claims::anon())),
                "service" => Ok(Some(Claims::new("service_role", serde_json::Map::new()))),
                token => match Uuid::parse_str(token) {
                    Ok(id) => Ok(Some(Claims::user(id))),
                    Err(_) => Err("this key is not valid".into()),
                },
            }
        }),
        signing: SigningKey::derive(&"a secret of at least thirty-two characters".into()),
        file_size_limit: LIMIT,
        idle_timeout,
    })
    .with_s3(crate::s3::keys())
}

/// Serves it as the binary does.
pub(crate) async fn served(storage: &Storage) -> (SocketAddr, Drain) {
    let settings = longhouse_config::Server {
        request_timeout: Duration::from_millis(600),
        rate_limit_per_second: 0,
        ..longhouse_config::Server::default()
    };
    let listener = Listener::bind(SocketAddr::from(([127, 0, 0, 1], 0))).await.unwrap();
    let address = listener.local_addr();
    let router = Router::new().nest("/storage/v1", storage.router());
    let router = Stack::new(&settings).streaming("/storage/v1").apply(router);
    let drain = Drain::new();
    tokio::spawn(serve(listener, router, drain.clone()));
    (address, drain)
}

impl TestStorage {
    pub(crate) async fn start() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let blobs = local(folder.path()).await;
        Self::with(folder, blobs).await
    }

    /// A service whose bytes are elsewhere.
    pub(crate) async fn over(blobs: Arc<dyn Blobs>) -> Self {
        Self::with(tempfile::tempdir().unwrap(), blobs).await
    }

    async fn with(folder: TempDir, blobs: Arc<dyn Blobs>) -> Self {
        let test_database = database().await;
        let storage = storage_over(&test_database.authenticator_url, blobs, IDLE).await;
        let (address, drain) = served(&storage).await;
        let owner = connect_client(&options(&test_database.owner_url)).await.unwrap();
        let database_url = test_database.authenticator_url.clone();
        let client = reqwest::Client::builder().no_proxy().build().unwrap();
        Self { address, storage, owner, folder, database_url, client, drain, _test_database: test_database }
    }

    pub(crate) fn url(&self, path: &str) -> String {
        format!("http://{}/storage/v1{path}", self.address)
    }

    pub(crate) fn request(&self, who: As, method: Method, path: &str) -> RequestBuilder {
        let request = self.client.request(method, self.url(path));
        match who {
            As::Nobody => request,
            As::Anon => request.bearer_auth("anon"),
            As::User(id) => request.bearer_auth(id),
            As::Service => request.bearer_auth("service"),
        }
    }

    pub(crate) async fn get(&self, who: As, path: &str) -> Response {
        self.request(who, Method::GET, path).send().await.unwrap()
    }

    /// Status as the body tells it (200 without), and the body.
    pub(crate) async fn call(&self, who: As, method: &str, path: &str, body: Value) -> (u16, Value) {
        let request = self.request(who, method.parse().unwrap(), path).json(&body);
        answer(request.send().await.unwrap()).await
    }

    /// Uploads raw text.
    pub(crate) async fn put(&self, who: As, path: &str, text: &str) -> (u16, Value) {
        let request = self.request(who, Method::POST, &format!("/object/{path}"));
        let request = request.header("content-type", "text/plain").body(text.to_owned());
        answer(request.send().await.unwrap()).await
    }

    /// Replaces by raw text.
    pub(crate) async fn replace(&self, who: As, path: &str, text: &str) -> (u16, Value) {
        let request = self.request(who, Method::POST, &format!("/object/{path}")).header("x-upsert", "true");
        answer(request.header("content-type", "text/plain").body(text.to_owned()).send().await.unwrap()).await
    }

    /// Text of a file, or its refusal.
    pub(crate) async fn text(&self, who: As, path: &str) -> Result<String, u16> {
        let response = self.get(who, &format!("/object/{path}")).await;
        if response.status() == 200 {
            Ok(response.text().await.unwrap())
        } else {
            Err(answer(response).await.0)
        }
    }

    /// Sweeps as if every grace had passed.
    pub(crate) async fn sweep(&self) -> Swept {
        let at_once =
            SweepOptions { grace: Duration::ZERO, abandoned: Duration::ZERO, ..SweepOptions::default() };
        self.storage.sweep(at_once).await.unwrap()
    }

    /// Files on the disk.
    pub(crate) fn files(&self) -> Vec<PathBuf> {
        files(self.folder.path().into())
    }

    /// Ledger entries, as `state`.
    pub(crate) async fn ledger(&self) -> Vec<String> {
        let rows = self.owner.query("select state from storage.blobs order by 1", &[]).await.unwrap();
        rows.iter().map(|row| row.get(0)).collect()
    }

    /// Waits until an upload that ended badly has cleaned up behind itself.
    pub(crate) async fn nothing_pending(&self) {
        let waited = tokio::time::timeout(Duration::from_secs(10), async {
            while !self.ledger().await.is_empty() {
                tokio::task::yield_now().await;
            }
        });
        waited.await.expect("a failed upload leaves nothing in the ledger");
    }

    pub(crate) async fn count(&self, table: &str) -> i64 {
        let sql = format!("select count(*) from storage.{table}");
        self.owner.query_one(&sql, &[]).await.unwrap().get(0)
    }
}

impl TestStorage {
    /// Answers no more.
    pub(crate) fn stop(&self) {
        self.drain.stop();
    }
}

impl Drop for TestStorage {
    fn drop(&mut self) {
        self.drain.stop();
    }
}

pub(crate) fn files(folder: PathBuf) -> Vec<PathBuf> {
    let mut found = Vec::new();
    let mut folders = vec![folder];
    while let Some(folder) = folders.pop() {
        for entry in fs::read_dir(folder).unwrap() {
            let entry = entry.unwrap();
            let is_folder = entry.file_type().unwrap().is_dir();
            if is_folder { folders.push(entry.path()) } else { found.push(entry.path()) }
        }
    }
    found
}

/// The status that the body names, which a refusal must agree to travel under 400 or its own; and the body.
pub(crate) async fn answer(response: Response) -> (u16, Value) {
    let travelled = response.status().as_u16();
    let body: Value = response.json().await.unwrap_or_default();
    if travelled < 300 {
        return (200, body);
    }
    let named: u16 = body["statusCode"].as_str().unwrap_or_default().parse().unwrap_or(0);
    assert!(body["error"].is_string() && body["message"].is_string(), "{travelled} {body}");
    assert!(travelled == 400 || travelled == named, "{travelled} {body}");
    (named, body)
}

/// `{"statusCode", "error", "message"}` of a refusal.
pub(crate) fn refusal(status: &str, error: &str, message: &str) -> Value {
    json!({ "statusCode": status, "error": error, "message": message })
}

/// A refusal without its newer `code`.
pub(crate) fn classic(mut body: Value) -> Value {
    body.as_object_mut().unwrap().remove("code");
    body
}
