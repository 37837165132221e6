//! A Studio for each test, and people with and without the right to use it.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use longhouse_database::testing::{TemplateDatabase, TestDatabase};
use longhouse_database::tokio_postgres::{self, Client, NoTls};
use longhouse_database::{Database, DatabaseOptions, bootstrap};
use longhouse_identity::service::{AuthOptions, AuthService, PasswordHash, Signer};
use longhouse_identity::{KeyRing, ProjectKeys, Verifier};
use longhouse_operations::health::{About, Health};
use longhouse_operations::logs::RecentLogs;
use longhouse_server::{Drain, Listener, Stack, serve};
use longhouse_studio::{Options, Studio, operators};
use reqwest::Method;
use secrecy::{ExposeSecret, SecretString};
use serde_json::{Value, json};
use url::Url;
use utoipa_axum::router::OpenApiRouter;

const PASSWORD: &str = "correct horse";

/// A running Studio beside its auth service.
pub(crate) struct TestStudio {
    pub(crate) keys: ProjectKeys,
    /// A superuser, who sees and changes every row.
    pub(crate) sql: Client,
    address: SocketAddr,
    client: reqwest::Client,
    // Dropped last: everything above uses it.
    _test_database: TestDatabase,
}

/// An answer: its status, and its body where that is JSON.
#[derive(Debug)]
pub(crate) struct Answer {
    pub(crate) status: u16,
    pub(crate) headers: reqwest::header::HeaderMap,
    pub(crate) body: Value,
}

impl TestStudio {
    pub(crate) async fn start() -> Self {
        let template = format!("studio {}", include_str!("../../../database/src/bootstrap/sql/studio.sql"));
        let test_database = TestDatabase::create(&template, prepare).await;
        let sql = connect(&test_database.superuser_url).await;
        let database = Database::connect(&DatabaseOptions {
            url: test_database.authenticator_url.clone(),
            pool_size: 4,
            pool_timeout: Duration::from_secs(10),
            ca_file: None,
        })
        .await
        .unwrap();
        let listener = Listener::bind("127.0.0.1:0".parse().unwrap()).await.unwrap();
        let address = listener.local_addr();
        let keys = ProjectKeys::generate();
        let ring = KeyRing::new(&keys).with_database(database.clone());
        let verifier = Verifier::of(&keys, &ring);
        let external = Url::parse(&format!("http://{address}/auth/v1")).unwrap();
        let mut options = AuthOptions::new(external, Url::parse("http://localhost:3000").unwrap());
        options.password.hash = PasswordHash::Bcrypt(4);
        options.email.autoconfirm = true;
        options.mailbox = true;
        let auth = AuthService::new(options, database.clone(), verifier.clone(), Signer::of(&ring));
        let about = About { version: "9.9.9", build_id: "abc".into(), storage: "local", auth_enabled: true };
        let studio = Studio::new(Options {
            database,
            verifier,
            health: Health::builder(about).build(),
            logs: RecentLogs::default(),
            version: "9.9.9",
            public_url: None,
            exposed_schemas: Arc::new(|| vec!["public".to_owned()]),
            publishable_key: keys.publishable_key.expose_secret().to_owned(),
            anon_key: keys.anon_key.expose_secret().to_owned(),
            service_key: keys.service_role_key.clone(),
            auth: auth.router(),
            storage: None,
            mailbox: Some(auth.mailbox_router()),
        });
        let (own, _) = OpenApiRouter::new().merge(studio.router()).split_for_parts();
        let router: Router = own.nest("/auth/v1", auth.router());
        let settings =
            longhouse_config::Server { rate_limit_per_second: 0, ..longhouse_config::Server::default() };
        tokio::spawn(serve(listener, Stack::new(&settings).apply(router), Drain::new()));
        let client = reqwest::Client::builder()
            .no_proxy()
            .redirect(reqwest::redirect::Policy::none())
            .build()
            .unwrap();
        Self { keys, sql, address, client, _test_database: test_database }
    }

    pub(crate) async fn send(
        &self,
        method: Method,
        path: &str,
        token: Option<&str>,
        body: Option<Value>,
    ) -> Answer {
        let mut request = self.client.request(method, format!("http://{}{path}", self.address));
        if let Some(token) = token {
            request = request.bearer_auth(token);
        }
        if let Some(body) = body {
            request = request.json(&body);
        }
        let response = request.send().await.unwrap();
        let (status, headers) = (response.status().as_u16(), response.headers().clone());
        let text = response.text().await.unwrap();
        Answer { status, headers, body: serde_json::from_str(&text).unwrap_or_default() }
    }

    pub(crate) async fn get(&self, path: &str, token: &str) -> Answer {
        self.send(Method::GET, path, Some(token), None).await
    }

    /// Signs somebody up, with metadata of their own choice: their access token.
    pub(crate) async fn sign_up(&self, email: &str, data: Value) -> String {
        let body = json!({ "email": email, "password": PASSWORD, "data": data });
        let answer = self.send(Method::POST, "/auth/v1/signup", None, Some(body)).await;
        assert_eq!(answer.status, 200, "{answer:?}");
        answer.body["access_token"].as_str().unwrap().to_owned()
    }

    /// A new session: its access token.
    pub(crate) async fn sign_in(&self, email: &str) -> String {
        let body = json!({ "email": email, "password": PASSWORD });
        let answer = self.send(Method::POST, "/auth/v1/token?grant_type=password", None, Some(body)).await;
        assert_eq!(answer.status, 200, "{answer:?}");
        answer.body["access_token"].as_str().unwrap().to_owned()
    }

    /// Somebody who has the right, signed in.
    pub(crate) async fn operator(&self) -> String {
        self.sign_up("olga@example.com", json!({})).await;
        operators::grant(&self.sql, "Olga@example.com").await.unwrap().expect("she has signed up");
        self.sign_in("olga@example.com").await
    }

    pub(crate) async fn run(&self, sql: &str) {
        self.sql.batch_execute(sql).await.unwrap();
    }
}

async fn prepare(template: &TemplateDatabase) -> Result<(), String> {
    let passwords = bootstrap::Passwords {
        owner: template.owner_password.clone(),
        authenticator: template.authenticator_password.clone(),
    };
    let mut superuser = connect(&template.superuser_url).await;
    bootstrap::apply(&mut superuser, Some(&passwords)).await.map(drop).map_err(|error| error.to_string())
}

async fn connect(url: &SecretString) -> Client {
    let (client, connection) = tokio_postgres::connect(url.expose_secret(), NoTls).await.unwrap();
    tokio::spawn(connection);
    client
}
