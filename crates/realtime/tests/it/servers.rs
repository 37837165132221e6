//! Several servers of one project.

use std::net::TcpListener;
use std::process::Stdio;
use std::sync::Arc;
use std::time::Duration;

use longhouse_database::testing::TestDatabase;
use longhouse_realtime::Limits;
use longhouse_realtime::bus::{EventBus, Health, Local, Nats, NatsOptions};
use serde_json::{Value, json};
use tokio::process::{Child, Command};

use crate::harness::{Client, PATIENCE, Server, database};

async fn two(
    database: &Arc<TestDatabase>,
    one: Arc<dyn EventBus>,
    other: Arc<dyn EventBus>,
) -> (Server, Server) {
    let one = Server::on(Arc::clone(database), one, Limits::default()).await;
    let other = Server::on(Arc::clone(database), other, Limits::default()).await;
    (one, other)
}

async fn joined(server: &Server, key: &str) -> Client {
    let mut client = server.client().await;
    client.join("realtime:a", json!({ "presence": { "key": key } })).await;
    client
}

/// Waits until a newcomer at `server` sees exactly these keys.
async fn sees(server: &Server, expected: &[&str]) {
    let wait = async {
        loop {
            let mut newcomer = joined(server, "newcomer").await;
            let state = newcomer.event("presence_state").await.payload;
            let seen: Vec<&str> = state.as_object().unwrap().keys().map(String::as_str).collect();
            if seen == expected {
                return;
            }
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
    };
    tokio::time::timeout(Duration::from_secs(30), wait).await.expect("presence converges");
}

#[tokio::test]
async fn servers_on_one_bus_are_one_service() {
    let local = Local::default();
    let database = database().await;
    let (one, other) = two(&database, Arc::new(local.join()), Arc::new(local.join())).await;
    meet(&one, &other).await;
}

async fn meet(one: &Server, other: &Server) {
    let mut ann = joined(one, "ann").await;
    let mut bob = joined(other, "bob").await;
    ann.track("realtime:a", json!({ "at": "one" })).await;
    let came =
        bob.expect(|told| told.event == "presence_diff" && told.payload["joins"]["ann"] != Value::Null);
    assert_eq!(came.await.payload["joins"]["ann"]["metas"][0]["at"], "one");
    bob.track("realtime:a", json!({})).await;
    sees(one, &["ann", "bob"]).await;
    sees(other, &["ann", "bob"]).await;
    ann.broadcast("realtime:a", "far", json!({ "n": 1 })).await;
    let expected = json!({ "type": "broadcast", "event": "far", "payload": { "n": 1 } });
    assert_eq!(bob.event("broadcast").await.payload, expected);
    bob.push("realtime:a", "bytes", false, &[9]).await;
    assert_eq!(ann.event("broadcast").await.payload["payload"], json!([9]));
    bob.heard_no("broadcast").await;
    drop(ann);
    bob.expect(|told| told.event == "presence_diff" && told.payload["leaves"]["ann"] != Value::Null).await;
}

/// A real NATS, which can be killed and come back on the same port.
struct NatsServer {
    port: u16,
    process: Child,
}

impl NatsServer {
    async fn start() -> Self {
        let port = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
        let process = Self::spawn(port);
        let server = Self { port, process };
        server.answers().await;
        server
    }

    fn spawn(port: u16) -> Child {
        Command::new("nats-server")
            .args(["--addr", "127.0.0.1", "--port", &port.to_string()])
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .kill_on_drop(true)
            .spawn()
            .expect("nats-server is installed by `cargo xtask setup`")
    }

    async fn answers(&self) {
        let wait = async {
            while tokio::net::TcpStream::connect(("127.0.0.1", self.port)).await.is_err() {
                tokio::time::sleep(Duration::from_millis(20)).await;
            }
        };
        tokio::time::timeout(PATIENCE, wait).await.expect("nats-server starts");
    }

    async fn kill(&mut self) {
        self.process.kill().await.unwrap();
    }

    async fn restart(&mut self) {
        self.process = Self::spawn(self.port);
        self.answers().await;
    }

    async fn node(&self) -> Nats {
        let options =
            NatsOptions { servers: format!("nats://127.0.0.1:{}", self.port), prefix: "test".to_owned() };
        Nats::connect(&options).await.unwrap()
    }
}

async fn connected(bus: &dyn EventBus) {
    let mut health = bus.health();
    let wait = health.wait_for(|health| matches!(health, Health::Connected { .. }));
    tokio::time::timeout(PATIENCE, wait).await.expect("connects").unwrap();
}

#[tokio::test]
async fn nats_carries_everything() {
    let nats = NatsServer::start().await;
    let database = database().await;
    let (bus, other_bus) = (Arc::new(nats.node().await), Arc::new(nats.node().await));
    connected(&*bus).await;
    connected(&*other_bus).await;
    let (one, other) = two(&database, bus, other_bus).await;
    // Both have told each other that they are there once each sees the other's people.
    let mut early = joined(&one, "early").await;
    early.track("realtime:a", json!({})).await;
    sees(&other, &["early"]).await;
    drop(early);
    sees(&other, &[]).await;
    meet(&one, &other).await;
}

#[tokio::test]
async fn presence_heals_after_a_partition() {
    let mut nats = NatsServer::start().await;
    let database = database().await;
    let (bus, other_bus) = (Arc::new(nats.node().await), Arc::new(nats.node().await));
    let (one, other) = two(&database, bus.clone(), other_bus.clone()).await;
    let mut ann = joined(&one, "ann").await;
    let mut bob = joined(&other, "bob").await;
    ann.track("realtime:a", json!({})).await;
    bob.track("realtime:a", json!({})).await;
    sees(&one, &["ann", "bob"]).await;
    sees(&other, &["ann", "bob"]).await;

    nats.kill().await;
    let mut health = other_bus.health();
    health.wait_for(|health| *health == Health::CutOff).await.unwrap();
    // Each side goes on by itself: one leaves here, another comes there.
    drop(ann);
    let mut eve = joined(&one, "eve").await;
    eve.track("realtime:a", json!({})).await;
    sees(&one, &["bob", "eve"]).await;
    eve.broadcast("realtime:a", "lost", json!({})).await;

    nats.restart().await;
    connected(&*bus).await;
    connected(&*other_bus).await;
    sees(&other, &["bob", "eve"]).await;
    sees(&one, &["bob", "eve"]).await;
    let healed =
        bob.expect(|told| told.event == "presence_diff" && told.payload["leaves"]["ann"] != Value::Null);
    healed.await;
    bob.heard_no("broadcast").await;
    let mut heard = false;
    for _ in 0..50 {
        eve.broadcast("realtime:a", "again", json!({})).await;
        if tokio::time::timeout(Duration::from_millis(200), bob.event("broadcast")).await.is_ok() {
            heard = true;
            break;
        }
    }
    assert!(heard, "messages flow again");
}

#[tokio::test]
async fn a_server_that_stops_takes_its_people_along() {
    let local = Local::default();
    let database = database().await;
    let (one, other) = two(&database, Arc::new(local.join()), Arc::new(local.join())).await;
    let mut ann = joined(&one, "ann").await;
    ann.track("realtime:a", json!({})).await;
    sees(&other, &["ann"]).await;
    let drain = one.drain.clone();
    tokio::join!(ann.closed(), drain.run(Duration::from_secs(10)));
    sees(&other, &[]).await;
}
