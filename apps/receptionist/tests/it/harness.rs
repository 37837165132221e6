//! A real server for each test: Postgres with the schema, the speech emulator, HTTP on a free port.

use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use longhouse_database::cluster::Login;
use longhouse_database::testing::{TemplateDatabase, TestCluster, TestDatabase};
use longhouse_database::tokio_postgres::{Client, NoTls};
use longhouse_database::{Database, DatabaseOptions, bootstrap, migrations};
use longhouse_emulators::openai;
use longhouse_emulators::speech::Speaker;
use longhouse_emulators::twilio::{CallOptions, Step};
use longhouse_receptionist::{MIGRATIONS, Options, Receptionist, StreamTokens, WEBHOOKS, demo};
use longhouse_server::{Drain, Listener, Stack, serve};
use longhouse_voice::callers::twilio::signature::Verifier;
use longhouse_voice::session::Settings;
use longhouse_voice::upstreams::realtime::Connector;
use secrecy::{ExposeSecret, SecretString};
use url::Url;

use crate::outage::Outage;

pub(crate) const AUTH_TOKEN: &str = "test-auth-token";
pub(crate) const JWT_SECRET: &str = "test-jwt-secret-of-more-than-32-characters";
/// The demonstration's number.
pub(crate) const NUMBER: &str = demo::NUMBER;
pub(crate) const GREETING: &str = "Hello, this is Marigold Hair Studio. How can I help you?";

/// A running receptionist and everything around it.
pub(crate) struct TestApp {
    pub(crate) address: SocketAddr,
    pub(crate) database: Database,
    pub(crate) owner: Client,
    pub(crate) upstream: openai::Server,
    pub(crate) drain: Drain,
    pub(crate) receptionist: Receptionist,
    /// The receptionist's road to the database.
    pub(crate) outage: Outage,
    // Dropped last: everything above uses it.
    test_database: TestDatabase,
}

/// What a test changes about the usual set-up.
pub(crate) struct Setup {
    pub(crate) session: Settings,
    pub(crate) upstream: openai::Options,
    pub(crate) max_calls: usize,
    pub(crate) tokens: Vec<&'static str>,
    pub(crate) public_url: Option<Url>,
    pub(crate) stream_url: Option<Url>,
    pub(crate) trusted_proxies: Vec<IpAddr>,
}

impl Default for Setup {
    fn default() -> Self {
        Self {
            session: Settings::default(),
            upstream: openai::Options {
                speaker: Speaker::detect(),
                first_audio_latency: Duration::from_millis(60),
                ..openai::Options::default()
            },
            max_calls: 1_000,
            tokens: vec![AUTH_TOKEN],
            public_url: None,
            stream_url: None,
            trusted_proxies: Vec::new(),
        }
    }
}

impl Setup {
    /// A voice that costs nothing, and answers that come at once: for tests of what happens around the words.
    pub(crate) fn quick() -> Self {
        let mut setup = Self::default();
        setup.upstream.speaker = Speaker::tone();
        setup.upstream.transcription_delay = Duration::from_millis(100);
        setup
    }
}

/// Waits for a reply, as [`Step::reply`], but not as long as a person would after it.
pub(crate) fn reply() -> Step {
    Step::WaitForReply { quiet_ms: 500, timeout: Duration::from_secs(15) }
}

/// Says a text.
pub(crate) fn say(text: &str) -> Step {
    Step::Say(text.to_owned())
}

impl TestApp {
    pub(crate) async fn start() -> Self {
        Self::with(Setup::default()).await
    }

    pub(crate) async fn with(setup: Setup) -> Self {
        // `LONGHOUSE_TEST_LOG=debug cargo nextest run …` shows the server's log.
        if let Ok(filter) = std::env::var("LONGHOUSE_TEST_LOG") {
            let _ = tracing_subscriber::fmt().with_env_filter(filter).with_test_writer().try_init();
        }
        let test_database = database().await;
        let owner = connect(&test_database.owner_url).await;
        let outage = Outage::before(&test_database.authenticator_url).await;
        let database = pool(&outage.url(&test_database.authenticator_url)).await;
        let upstream = openai::Server::start(setup.upstream.clone()).await.unwrap();
        let (address, drain, receptionist) = launch(&setup, database.clone(), &upstream.url()).await;
        Self { address, database, owner, upstream, drain, receptionist, outage, test_database }
    }

    /// A second server on the same database and upstream, as after a deploy.
    pub(crate) async fn second(&self, setup: Setup) -> (SocketAddr, Drain, Receptionist) {
        let database = pool(&self.test_database.authenticator_url).await;
        launch(&setup, database, &self.upstream.url()).await
    }

    pub(crate) fn url(&self, path: &str) -> Url {
        Url::parse(&format!("http://{}{path}", self.address)).unwrap()
    }

    pub(crate) fn webhook(&self) -> Url {
        self.url("/functions/v1/twilio-router")
    }

    /// A call to the demonstration's number.
    pub(crate) fn call(&self, script: Vec<Step>) -> CallOptions {
        let mut options = CallOptions::new(self.webhook(), AUTH_TOKEN);
        options.to = NUMBER.into();
        options.from = "+12025550199".into();
        options.script = script;
        options.max_duration = Duration::from_secs(60);
        options
    }

    /// What the demonstration's agent says first, and where it sends callers who want a person.
    pub(crate) async fn set_agent(&self, greeting: Option<&str>, forward_number: Option<&str>) {
        self.owner
            .execute(
                "update receptionist.agents set greeting = $1, forward_number = $2",
                &[&greeting, &forward_number],
            )
            .await
            .unwrap();
    }

    /// A call to the demonstration's number in the voice of [`Setup::quick`].
    pub(crate) fn quick_call(&self, script: Vec<Step>) -> CallOptions {
        CallOptions { speaker: Speaker::tone(), record_limit: Duration::ZERO, ..self.call(script) }
    }

    /// (status, outcome) of a call.
    pub(crate) async fn call_row(&self, call_sid: &str) -> (String, Option<String>) {
        let row = self
            .owner
            .query_one(
                "select status::text, outcome from receptionist.calls where call_sid = $1",
                &[&call_sid],
            )
            .await
            .unwrap();
        (row.get(0), row.get(1))
    }

    /// Waits until a call's row has the outcome.
    pub(crate) async fn wait_for_outcome(&self, call_sid: &str, outcome: &str) {
        for _ in 0..200 {
            if self.call_row(call_sid).await.1.as_deref() == Some(outcome) {
                return;
            }
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
        panic!("outcome is {:?}, expected {outcome}", self.call_row(call_sid).await);
    }

    /// The stored transcript: (speaker, text, interrupted) in order.
    pub(crate) async fn turns(&self, call_sid: &str) -> Vec<(String, String, bool)> {
        self.owner
            .query(
                "select t.speaker::text, t.text, t.interrupted from receptionist.turns t
                 join receptionist.calls c on c.id = t.call_id where c.call_sid = $1 order by t.ordinal",
                &[&call_sid],
            )
            .await
            .unwrap()
            .iter()
            .map(|row| (row.get(0), row.get(1), row.get(2)))
            .collect()
    }

    /// What the agent said according to the transcript, as one line.
    pub(crate) async fn agent_text(&self, call_sid: &str) -> String {
        let turns = self.turns(call_sid).await;
        let said: Vec<&str> =
            turns.iter().filter(|(who, _, _)| who == "agent").map(|(_, text, _)| text.as_str()).collect();
        said.join(" ")
    }

    /// The transcript as one text, lower-cased.
    pub(crate) async fn transcript(&self, call_sid: &str) -> String {
        let turns = self.turns(call_sid).await;
        turns.iter().map(|(who, text, _)| format!("{who}: {text}\n")).collect::<String>().to_lowercase()
    }
}

pub(crate) async fn launch(
    setup: &Setup,
    database: Database,
    upstream: &Url,
) -> (SocketAddr, Drain, Receptionist) {
    let drain = Drain::new();
    let connector =
        Connector::new(upstream, "gpt-realtime-2.1", "test-key".to_owned().into(), Duration::from_secs(3))
            .unwrap();
    let receptionist = Receptionist::start(Options {
        database,
        connector,
        transcription_model: "gpt-transcribe".into(),
        session: setup.session.clone(),
        verifier: Verifier::new(setup.tokens.iter().map(|t| SecretString::from((*t).to_owned()))),
        account_sid: None,
        tokens: StreamTokens::derived(&JWT_SECRET.to_owned().into()),
        stream_url: setup.stream_url.clone(),
        max_calls: setup.max_calls,
        drain: drain.clone(),
    });
    let (router, _) = receptionist.router().split_for_parts();
    let settings = longhouse_config::Server {
        public_url: setup.public_url.clone(),
        trusted_proxies: setup.trusted_proxies.clone(),
        ..longhouse_config::Server::default()
    };
    let mut stack = Stack::new(&settings);
    for route in WEBHOOKS {
        stack = stack.webhook(route);
    }
    let listener = Listener::bind("127.0.0.1:0".parse().unwrap()).await.unwrap();
    let address = listener.local_addr();
    tokio::spawn(serve(listener, stack.apply(router), drain.clone()));
    (address, drain, receptionist)
}

/// A database with the platform schema, the application and its demonstration.
pub(crate) async fn database() -> TestDatabase {
    let sql: String = MIGRATIONS.iter().map(|migration| migration.sql).collect();
    let recipe = format!("receptionist with its demonstration 3\n{sql}");
    TestDatabase::create(&recipe, prepare).await
}

async fn prepare(template: &TemplateDatabase) -> Result<(), String> {
    let passwords = bootstrap::Passwords {
        owner: template.owner_password.clone(),
        authenticator: template.authenticator_password.clone(),
    };
    let mut superuser = connect(&template.superuser_url).await;
    bootstrap::apply(&mut superuser, Some(&passwords)).await.map_err(|e| e.to_string())?;
    let mut owner = connect(&template.owner_url).await;
    migrations::app(&mut owner, "receptionist", MIGRATIONS).await.map_err(|e| e.to_string())?;
    demo::ensure(&mut owner).await.map_err(|e| e.to_string())?;
    Ok(())
}

async fn pool(url: &SecretString) -> Database {
    Database::connect(&DatabaseOptions {
        url: url.clone(),
        pool_size: 8,
        pool_timeout: Duration::from_secs(5),
        ca_file: None,
    })
    .await
    .unwrap()
}

pub(crate) async fn connect(url: &SecretString) -> Client {
    let (client, connection) =
        longhouse_database::tokio_postgres::connect(url.expose_secret(), NoTls).await.unwrap();
    tokio::spawn(connection);
    client
}

/// Somewhere nothing listens.
pub(crate) async fn unreachable_database() -> Database {
    // The pool proves itself with one connection, so it is opened on a real one that then goes away.
    let cluster = TestCluster::shared().await;
    let name = format!("t_gone_{}", uuid::Uuid::new_v4().simple());
    let superuser = connect(&cluster.url(Login::Superuser, "postgres")).await;
    superuser.batch_execute(&format!("create database {name}")).await.unwrap();
    let database = pool(&cluster.url(Login::Superuser, &name)).await;
    superuser.batch_execute(&format!("drop database {name} with (force)")).await.unwrap();
    database
}
