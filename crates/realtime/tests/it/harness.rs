//! A service for each test, and clients that speak Phoenix channels in both versions.

use std::collections::VecDeque;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use futures_util::{SinkExt as _, StreamExt as _};
use longhouse_database::cluster::Login;
use longhouse_database::testing::{TemplateDatabase, TestCluster, TestDatabase};
use longhouse_database::{Claims, Database, DatabaseOptions, bootstrap, connect_client};
use longhouse_realtime::bus::{EventBus, Local};
use longhouse_realtime::changes::{Changes, ChangesOptions};
use longhouse_realtime::{Limits, Options, Realtime, Size, TokenError, Verify};
use longhouse_server::{Drain, Listener, Stack, serve};
use secrecy::SecretString;
use serde_json::{Value, json};
use tokio::net::TcpStream;
use tokio_postgres::Client as Postgres;
use tokio_tungstenite::tungstenite::{Error as SocketError, Message};
use tokio_tungstenite::{MaybeTlsStream, WebSocketStream};

/// Longest wait for anything that must come.
pub(crate) const PATIENCE: Duration = Duration::from_secs(10);

/// Ann receives and sends on `room-…`; Bob only receives there; nobody else does anything. Presence is Ann's alone.
const POLICIES: &str = "
    create policy receive on realtime.messages for select to authenticated
      using (realtime.topic() like 'room-%' and extension = 'broadcast');
    create policy send on realtime.messages for insert to authenticated
      with check (realtime.topic() like 'room-%' and extension = 'broadcast' and auth.jwt() ->> 'name' = 'ann');
    create policy see on realtime.messages for select to authenticated
      using (realtime.topic() like 'room-%' and extension = 'presence' and auth.jwt() ->> 'name' = 'ann');
    create policy be_seen on realtime.messages for insert to authenticated
      with check (realtime.topic() like 'room-%' and extension = 'presence' and auth.jwt() ->> 'name' = 'ann');";

pub(crate) struct Server {
    pub(crate) address: SocketAddr,
    pub(crate) realtime: Realtime,
    pub(crate) owner: Postgres,
    pub(crate) drain: Drain,
    pub(crate) changes: Option<Arc<Changes>>,
    _database: Arc<TestDatabase>,
}

/// A database with the platform's schema and the policies.
pub(crate) async fn database() -> Arc<TestDatabase> {
    let template = format!("realtime {POLICIES} {}", bootstrap_text());
    Arc::new(TestDatabase::create(&template, prepare).await)
}

fn bootstrap_text() -> &'static str {
    include_str!("../../../database/src/bootstrap/sql/realtime.sql")
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

/// Tokens of these tests: `name` or `name@expiry`, of a signed-in user; `key` is the project's.
fn verify() -> Verify {
    Arc::new(|token| {
        if token == "key" {
            return Ok(Claims::anon());
        }
        if token.contains('.') {
            return Err(TokenError::Signature);
        }
        let (name, expiry) = token.split_once('@').unwrap_or((token, "9999999999"));
        if !["ann", "bob", "eve"].contains(&name) {
            return Err(TokenError::Malformed);
        }
        let Value::Object(claims) = json!({ "name": name, "exp": expiry.parse::<u64>().unwrap() }) else {
            unreachable!()
        };
        Ok(Claims::new("authenticated", claims))
    })
}

impl Server {
    pub(crate) async fn start() -> Self {
        Self::with(Limits::default()).await
    }

    pub(crate) async fn with(limits: Limits) -> Self {
        Self::on(database().await, Arc::new(Local::default().join()), limits).await
    }

    /// One of several servers of a project.
    pub(crate) async fn on(database: Arc<TestDatabase>, bus: Arc<dyn EventBus>, limits: Limits) -> Self {
        Self::made(database, bus, limits, false).await
    }

    /// One that follows the database, to be stopped with [`Self::stop`].
    pub(crate) async fn following() -> Self {
        Self::made(database().await, Arc::new(Local::default().join()), Limits::default(), true).await
    }

    async fn made(
        database: Arc<TestDatabase>,
        bus: Arc<dyn EventBus>,
        limits: Limits,
        follows: bool,
    ) -> Self {
        let pool = Database::connect(&options(&database.authenticator_url)).await.unwrap();
        let realtime = Realtime::new(Options {
            database: pool.clone(),
            verify: verify(),
            bus: Arc::clone(&bus),
            limits,
        });
        let changes = follows.then(|| {
            let changes_options = ChangesOptions {
                settle: Duration::ZERO,
                grace: Duration::from_millis(500),
                ..ChangesOptions::new(options(&database.owner_url))
            };
            let changes = Changes::start(changes_options, pool, bus, realtime.sink());
            realtime.follow(Arc::clone(&changes) as _);
            changes
        });
        let drain = Drain::new();
        tokio::spawn(realtime.run(drain.clone()));
        let listener = Listener::bind(([127, 0, 0, 1], 0).into()).await.unwrap();
        let address = listener.local_addr();
        let router = Router::new().nest("/realtime/v1", realtime.router());
        let settings = longhouse_config::Server { rate_limit_per_second: 0, ..Default::default() };
        tokio::spawn(serve(listener, Stack::new(&settings).apply(router), drain.clone()));
        let owner = connect_client(&options(&database.owner_url)).await.unwrap();
        Self { address, realtime, owner, drain, changes, _database: database }
    }

    pub(crate) async fn stop(&self) {
        if let Some(changes) = &self.changes {
            changes.stop().await;
        }
    }

    /// A client of version 2.
    pub(crate) async fn client(&self) -> Client {
        self.client_of("2.0.0").await
    }

    pub(crate) async fn client_of(&self, vsn: &str) -> Client {
        self.try_client(&format!("vsn={vsn}&apikey=key")).await.unwrap()
    }

    pub(crate) async fn try_client(&self, query: &str) -> Result<Client, SocketError> {
        let url = format!("ws://{}/realtime/v1/websocket?{query}", self.address);
        let (socket, _) = tokio_tungstenite::connect_async(url).await?;
        let version = if query.contains("vsn=2") { 2 } else { 1 };
        Ok(Client { socket, version, number: 0, kept: VecDeque::new() })
    }

    /// Waits until the service has this size.
    pub(crate) async fn settles(&self, expected: Size) {
        let wait = async {
            while self.realtime.size() != expected {
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
        };
        let settled = tokio::time::timeout(PATIENCE, wait).await;
        assert!(settled.is_ok(), "{:?} instead of {expected:?}", self.realtime.size());
    }

    pub(crate) async fn post(&self, path: &str, token: &str, body: Value) -> (u16, String) {
        let request = reqwest::Client::new()
            .post(format!("http://{}/realtime/v1{path}", self.address))
            .bearer_auth(token)
            .json(&body);
        let response = request.send().await.unwrap();
        (response.status().as_u16(), response.text().await.unwrap())
    }
}

pub(crate) const NOTHING: Size = Size { connections: 0, channels: 0, members: 0, followers: 0 };

/// A message of the server, the same in both versions.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Told {
    pub(crate) join_ref: Value,
    pub(crate) reference: Value,
    pub(crate) topic: String,
    pub(crate) event: String,
    pub(crate) payload: Value,
}

pub(crate) struct Client {
    socket: WebSocketStream<MaybeTlsStream<TcpStream>>,
    version: u8,
    number: u32,
    kept: VecDeque<Told>,
}

impl Client {
    pub(crate) async fn raw(&mut self, message: Message) {
        self.socket.send(message).await.unwrap();
    }

    /// Sends a message and returns its number.
    pub(crate) async fn send(&mut self, join_ref: &Value, topic: &str, event: &str, payload: Value) -> Value {
        self.number += 1;
        let reference = json!(self.number.to_string());
        let message = match self.version {
            1 => {
                json!({ "topic": topic, "event": event, "payload": payload, "ref": reference, "join_ref": join_ref })
            }
            _ => json!([join_ref, reference, topic, event, payload]),
        };
        self.raw(Message::text(message.to_string())).await;
        reference
    }

    /// Joins and returns the reply: its status, its response, and the number of the join.
    pub(crate) async fn try_join(&mut self, topic: &str, payload: Value) -> (Value, Value, Value) {
        let join_ref = json!((self.number + 1).to_string());
        self.send(&join_ref, topic, "phx_join", payload).await;
        let mut reply = self.reply(&join_ref).await;
        (reply["status"].take(), reply["response"].take(), join_ref)
    }

    /// Joins, and returns the number of the join.
    pub(crate) async fn join(&mut self, topic: &str, config: Value) -> Value {
        self.join_as(topic, config, None).await
    }

    pub(crate) async fn join_as(&mut self, topic: &str, config: Value, token: Option<&str>) -> Value {
        let payload = json!({ "config": config, "access_token": token });
        let (status, response, join_ref) = self.try_join(topic, payload).await;
        assert_eq!(status, "ok", "{response}");
        join_ref
    }

    /// The reply to a message; what comes before it is kept.
    pub(crate) async fn reply(&mut self, reference: &Value) -> Value {
        self.expect(|told| told.event == "phx_reply" && told.reference == *reference).await.payload
    }

    /// The next message of this event; what comes before it is kept.
    pub(crate) async fn event(&mut self, event: &str) -> Told {
        self.expect(|told| told.event == event).await
    }

    pub(crate) async fn expect(&mut self, wanted: impl Fn(&Told) -> bool) -> Told {
        if let Some(index) = self.kept.iter().position(&wanted) {
            return self.kept.remove(index).unwrap();
        }
        let wait = async {
            loop {
                let told = self.next().await.expect("the connection was closed");
                if wanted(&told) {
                    return told;
                }
                self.kept.push_back(told);
            }
        };
        match tokio::time::timeout(PATIENCE, wait).await {
            Ok(told) => told,
            Err(_) => panic!("did not come; there was {:#?}", self.kept),
        }
    }

    /// The next message, or how the connection was closed.
    pub(crate) async fn next(&mut self) -> Result<Told, Option<u16>> {
        loop {
            match self.socket.next().await {
                Some(Ok(Message::Text(text))) => return Ok(self.read(&serde_json::from_str(&text).unwrap())),
                Some(Ok(Message::Binary(bytes))) => return Ok(user_broadcast(&bytes)),
                Some(Ok(Message::Close(frame))) => return Err(frame.map(|frame| frame.code.into())),
                Some(Ok(_)) => {}
                Some(Err(_)) | None => return Err(None),
            }
        }
    }

    /// How the server closes the connection.
    pub(crate) async fn closed(&mut self) -> Option<u16> {
        let wait = async {
            loop {
                match self.next().await {
                    Ok(told) => self.kept.push_back(told),
                    Err(code) => return code,
                }
            }
        };
        tokio::time::timeout(PATIENCE, wait).await.expect("the connection stays open")
    }

    fn read(&self, message: &Value) -> Told {
        let text = |value: &Value| value.as_str().unwrap().to_owned();
        match self.version {
            1 => Told {
                join_ref: Value::Null,
                reference: message["ref"].clone(),
                topic: text(&message["topic"]),
                event: text(&message["event"]),
                payload: message["payload"].clone(),
            },
            _ => Told {
                join_ref: message[0].clone(),
                reference: message[1].clone(),
                topic: text(&message[2]),
                event: text(&message[3]),
                payload: message[4].clone(),
            },
        }
    }

    /// Nothing of this event has come: proven by a heartbeat that is answered after it would have.
    pub(crate) async fn heard_no(&mut self, event: &str) {
        let reference = self.send(&Value::Null, "phoenix", "heartbeat", json!({})).await;
        self.reply(&reference).await;
        let heard: Vec<_> = self.kept.iter().filter(|told| told.event == event).collect();
        assert!(heard.is_empty(), "{heard:#?}");
    }

    /// Sends a broadcast, as version 1 does.
    pub(crate) async fn broadcast(&mut self, topic: &str, event: &str, payload: Value) -> Value {
        let message = json!({ "type": "broadcast", "event": event, "payload": payload });
        self.send(&Value::Null, topic, "broadcast", message).await
    }

    /// Sends a broadcast in a binary frame.
    pub(crate) async fn push(&mut self, topic: &str, event: &str, json: bool, data: &[u8]) -> Value {
        self.number += 1;
        let reference = self.number.to_string();
        let mut frame =
            vec![3, 0, reference.len() as u8, topic.len() as u8, event.len() as u8, 0, u8::from(json)];
        for part in [reference.as_bytes(), topic.as_bytes(), event.as_bytes(), data] {
            frame.extend_from_slice(part);
        }
        self.raw(Message::binary(frame)).await;
        json!(reference)
    }

    pub(crate) async fn track(&mut self, topic: &str, payload: Value) -> Value {
        let message = json!({ "type": "presence", "event": "track", "payload": payload });
        let reference = self.send(&Value::Null, topic, "presence", message).await;
        self.reply(&reference).await
    }
}

/// Reads a broadcast in a binary frame; bytes are shown as a list.
fn user_broadcast(bytes: &[u8]) -> Told {
    assert_eq!(bytes[0], 4);
    let lengths = [usize::from(bytes[1]), usize::from(bytes[2]), usize::from(bytes[3])];
    let mut at = 5;
    let [topic, event, meta] = lengths.map(|length| {
        let from = at;
        at += length;
        String::from_utf8(bytes[from..at].to_vec()).unwrap()
    });
    let payload = match bytes[4] {
        0 => json!(bytes[at..].to_vec()),
        _ => serde_json::from_slice(&bytes[at..]).unwrap(),
    };
    let mut all = json!({ "type": "broadcast", "event": event, "payload": payload });
    if !meta.is_empty() {
        all["meta"] = serde_json::from_str(&meta).unwrap();
    }
    Told { join_ref: Value::Null, reference: Value::Null, topic, event: "broadcast".into(), payload: all }
}
