//! A real server for each test: Postgres with the schema, `/auth/v1` on a free port, and its mail outbox.

use std::net::SocketAddr;
use std::time::Duration;

use axum::Router;
use axum::http::HeaderMap;
use longhouse_database::testing::{TemplateDatabase, TestDatabase};
use longhouse_database::tokio_postgres::{self, Client, NoTls};
use longhouse_database::{Database, DatabaseOptions, bootstrap};
use longhouse_identity::service::{AuthOptions, AuthService, PasswordHash, Signer};
use longhouse_identity::{KeyRing, ProjectKeys, Verifier};
use longhouse_server::{Drain, Listener, Stack, serve};
use reqwest::Method;
use secrecy::{ExposeSecret, SecretString};
use serde_json::{Map, Value, json};
use url::Url;

/// A running auth service and its database.
pub(crate) struct TestAuth {
    pub(crate) address: SocketAddr,
    pub(crate) service: AuthService,
    pub(crate) database: Database,
    pub(crate) keys: ProjectKeys,
    /// Reads the tables when a test refreshes it.
    pub(crate) ring: KeyRing,
    /// A superuser, who sees and changes every row.
    pub(crate) sql: Client,
    client: reqwest::Client,
    options: AuthOptions,
    // Dropped last: everything above uses it.
    _test_database: TestDatabase,
}

/// An answer of the service.
#[derive(Debug)]
pub(crate) struct Answer {
    pub(crate) status: u16,
    pub(crate) headers: HeaderMap,
    /// `Null` when there is none or it is no JSON.
    pub(crate) body: Value,
    pub(crate) text: String,
}

/// A mail in the outbox.
#[derive(Debug)]
pub(crate) struct Mail {
    pub(crate) kind: String,
    pub(crate) variables: Value,
}

impl TestAuth {
    pub(crate) async fn start() -> Self {
        Self::with(|_| ()).await
    }

    /// Supabase's defaults, except that hashing is cheap and nothing is limited; `change` changes more.
    pub(crate) async fn with(change: impl FnOnce(&mut AuthOptions)) -> Self {
        // `LONGHOUSE_TEST_LOG=debug cargo nextest run …` shows the server's log.
        if let Ok(filter) = std::env::var("LONGHOUSE_TEST_LOG") {
            let _ = tracing_subscriber::fmt().with_env_filter(filter).with_test_writer().try_init();
        }
        let test_database = TestDatabase::create("auth service 1", prepare).await;
        let sql = connect(&test_database.superuser_url).await;
        let database = Database::connect(&DatabaseOptions {
            url: test_database.authenticator_url.clone(),
            pool_size: 8,
            pool_timeout: Duration::from_secs(10),
            ca_file: None,
        })
        .await
        .unwrap();
        let listener = Listener::bind("127.0.0.1:0".parse().unwrap()).await.unwrap();
        let address = listener.local_addr();
        let external = Url::parse(&format!("http://{address}/auth/v1")).unwrap();
        let mut options = AuthOptions::new(external, Url::parse("http://localhost:3000").unwrap());
        options.password.hash = PasswordHash::Bcrypt(4);
        options.email.max_frequency = Duration::ZERO;
        options.phone.max_frequency = Duration::ZERO;
        options.allow_private_addresses = true;
        let limits = &mut options.limits;
        (limits.emails_per_hour, limits.sms_per_hour, limits.otp, limits.verify) = (0, 0, 0, 0);
        (limits.token, limits.anonymous, limits.mfa, limits.failures_per_account) = (0, 0, 0, 0);
        change(&mut options);
        let keys = ProjectKeys::generate();
        let ring = KeyRing::new(&keys).with_database(database.clone());
        let (verifier, signer) = (Verifier::of(&keys, &ring), Signer::of(&ring));
        let service = AuthService::new(options.clone(), database.clone(), verifier, signer);
        run(listener, &service);
        // Redirects are answers to look at.
        let client = reqwest::Client::builder()
            .no_proxy()
            .redirect(reqwest::redirect::Policy::none())
            .build()
            .unwrap();
        Self { address, service, database, keys, ring, sql, client, options, _test_database: test_database }
    }

    /// A second server on the same database: it shares nothing else with the first.
    pub(crate) async fn another_server(&self) -> SocketAddr {
        let listener = Listener::bind("127.0.0.1:0".parse().unwrap()).await.unwrap();
        let address = listener.local_addr();
        let (verifier, signer) = (Verifier::of(&self.keys, &self.ring), Signer::of(&self.ring));
        let service = AuthService::new(self.options.clone(), self.database.clone(), verifier, signer);
        run(listener, &service);
        address
    }

    pub(crate) fn url(&self, path: &str) -> String {
        format!("http://{}/auth/v1{path}", self.address)
    }

    /// Sends a request; `token` goes into `Authorization`, the anon key into `apikey`.
    pub(crate) async fn send(
        &self,
        method: Method,
        path: &str,
        token: Option<&str>,
        headers: &[(&str, &str)],
        body: Option<Value>,
    ) -> Answer {
        // A whole address is another server's.
        let url = if path.starts_with("http") { path.to_owned() } else { self.url(path) };
        let mut request = self.client.request(method, url);
        request = request.header("apikey", self.keys.anon_key.expose_secret());
        if let Some(token) = token {
            request = request.bearer_auth(token);
        }
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        if let Some(body) = body {
            request = request.json(&body);
        }
        let response = request.send().await.unwrap();
        let (status, headers) = (response.status().as_u16(), response.headers().clone());
        let text = response.text().await.unwrap();
        Answer { status, headers, body: serde_json::from_str(&text).unwrap_or_default(), text }
    }

    pub(crate) async fn post(&self, path: &str, body: Value) -> Answer {
        self.send(Method::POST, path, None, &[], Some(body)).await
    }

    pub(crate) async fn post_as(&self, token: &str, path: &str, body: Value) -> Answer {
        self.send(Method::POST, path, Some(token), &[], Some(body)).await
    }

    pub(crate) async fn get(&self, path: &str) -> Answer {
        self.send(Method::GET, path, None, &[], None).await
    }

    pub(crate) async fn get_as(&self, token: &str, path: &str) -> Answer {
        self.send(Method::GET, path, Some(token), &[], None).await
    }

    pub(crate) async fn put_as(&self, token: &str, path: &str, body: Value) -> Answer {
        self.send(Method::PUT, path, Some(token), &[], Some(body)).await
    }

    pub(crate) async fn delete_as(&self, token: &str, path: &str) -> Answer {
        self.send(Method::DELETE, path, Some(token), &[], None).await
    }

    /// The project's service key: what admin endpoints want as token.
    pub(crate) fn service_key(&self) -> &str {
        self.keys.service_role_key.expose_secret()
    }

    /// The newest mail to an address.
    pub(crate) async fn last_mail(&self, to: &str) -> Mail {
        let sql =
            "select kind, variables from longhouse.mail_outbox where recipient = $1 order by id desc limit 1";
        let row = self.sql.query_opt(sql, &[&to]).await.unwrap();
        let row = row.unwrap_or_else(|| panic!("no mail to {to}"));
        Mail { kind: row.get(0), variables: row.get(1) }
    }

    /// How many mails an address got.
    pub(crate) async fn mails(&self, to: &str) -> i64 {
        let sql = "select count(*) from longhouse.mail_outbox where recipient = $1";
        self.sql.query_one(sql, &[&to]).await.unwrap().get(0)
    }

    /// An account with a confirmed address and password `correct horse`, signed in: the session.
    pub(crate) async fn signed_up(&self, email: &str) -> Value {
        let answer = self.post("/signup", json!({ "email": email, "password": "correct horse" })).await;
        assert_eq!(answer.status, 200, "{}", answer.text);
        if answer.body["access_token"].is_string() {
            return answer.body;
        }
        let mail = self.last_mail(email).await;
        let body = json!({ "type": "signup", "token_hash": mail.token_hash() });
        let answer = self.post("/verify", body).await;
        assert_eq!(answer.status, 200, "{}", answer.text);
        answer.body
    }

    /// Signs in by password.
    pub(crate) async fn sign_in(&self, email: &str, password: &str) -> Answer {
        self.post("/token?grant_type=password", json!({ "email": email, "password": password })).await
    }

    /// Claims of an access token, verified.
    pub(crate) fn claims(&self, session: &Value) -> Map<String, Value> {
        let token = session["access_token"].as_str().unwrap();
        let claims = Verifier::of(&self.keys, &self.ring).verify(token).unwrap();
        serde_json::from_str(claims.json()).unwrap()
    }
}

impl Answer {
    /// `error_code` of an error.
    pub(crate) fn code(&self) -> &str {
        self.body["error_code"].as_str().unwrap_or_default()
    }

    pub(crate) fn header(&self, name: &str) -> &str {
        self.headers.get(name).map(|value| value.to_str().unwrap()).unwrap_or_default()
    }

    /// Where a redirect leads.
    pub(crate) fn location(&self) -> Url {
        Url::parse(self.header("location")).unwrap_or_else(|error| panic!("{error}: {self:?}"))
    }

    /// A parameter in the fragment of a redirect.
    pub(crate) fn in_fragment(&self, name: &str) -> Option<String> {
        let location = self.location();
        let fragment = location.fragment().unwrap_or_default().as_bytes().to_vec();
        url::form_urlencoded::parse(&fragment)
            .find(|(key, _)| key == name)
            .map(|(_, value)| value.into_owned())
    }

    /// A parameter in the query of a redirect.
    pub(crate) fn in_query(&self, name: &str) -> Option<String> {
        self.location().query_pairs().find(|(key, _)| key == name).map(|(_, value)| value.into_owned())
    }

    /// A string in the body.
    pub(crate) fn text_at(&self, pointer: &str) -> &str {
        let value = self.body.pointer(pointer).and_then(Value::as_str);
        value.unwrap_or_else(|| panic!("no text at {pointer} in {}", self.text))
    }
}

impl Mail {
    fn variable(&self, name: &str) -> &str {
        self.variables[name].as_str().unwrap()
    }

    /// The code to type in.
    pub(crate) fn code(&self) -> &str {
        self.variable("Token")
    }

    pub(crate) fn token_hash(&self) -> &str {
        self.variable("TokenHash")
    }

    /// The link's path below `/auth/v1`, with its query.
    pub(crate) fn link(&self) -> &str {
        let link = self.variable("ConfirmationURL");
        link.split_once("/auth/v1").unwrap().1
    }
}

fn run(listener: Listener, service: &AuthService) {
    let settings = longhouse_config::Server {
        rate_limit_per_second: 0,
        trusted_proxies: vec![listener.local_addr().ip()],
        ..longhouse_config::Server::default()
    };
    let router = Router::new().nest("/auth/v1", service.router());
    tokio::spawn(serve(listener, Stack::new(&settings).apply(router), Drain::new()));
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
