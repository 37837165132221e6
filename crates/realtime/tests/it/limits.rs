//! Every bound, and what happens at it.

use std::time::Duration;

use longhouse_realtime::Limits;
use serde_json::{Value, json};
use tokio_tungstenite::tungstenite::{Error as SocketError, Message};

use crate::harness::{NOTHING, Server};

#[tokio::test]
async fn too_many_sockets() {
    let server = Server::with(Limits { connections: 1, ..Limits::default() }).await;
    let first = server.client().await;
    let Err(SocketError::Http(response)) = server.try_client("apikey=key").await else { panic!("accepted") };
    assert_eq!(response.status().as_u16(), 429);
    assert_eq!(response.body().as_deref(), Some(&br#"{"error":"Too many connected users"}"#[..]));
    drop(first);
    server.settles(NOTHING).await;
    server.client().await;
}

#[tokio::test]
async fn too_many_channels_and_joins() {
    let server = Server::with(Limits { channels: 2, joins_per_second: 4, ..Limits::default() }).await;
    let mut client = server.client().await;
    client.join("realtime:1", json!({})).await;
    client.join("realtime:2", json!({})).await;
    let (_, response, _) = client.try_join("realtime:3", json!({})).await;
    assert_eq!(response, json!({ "reason": "ChannelRateLimitReached: Too many channels" }));
    client.join("realtime:2", json!({})).await;
    let (_, response, _) = client.try_join("realtime:2", json!({})).await;
    assert_eq!(response, json!({ "reason": "ClientJoinRateLimitReached: Too many joins per second" }));
    assert_eq!(client.closed().await, Some(1008));
}

#[tokio::test]
async fn too_many_messages() {
    let server = Server::with(Limits { messages_per_second: 1, ..Limits::default() }).await;
    let mut client = server.client().await;
    client.join("realtime:a", json!({ "broadcast": { "self": true } })).await;
    for number in 0..11 {
        client.broadcast("realtime:a", "e", json!({ "number": number })).await;
    }
    let system = client.event("system").await.payload;
    assert_eq!(system["message"], "Too many messages per second");
    client.event("phx_close").await;
    client.join("realtime:a", json!({})).await;
}

#[tokio::test]
async fn too_large_messages() {
    let server = Server::with(Limits { payload: 10_000, ..Limits::default() }).await;
    let mut client = server.client().await;
    client.join("realtime:a", json!({ "broadcast": { "self": true, "ack": true } })).await;
    let sent = client.broadcast("realtime:a", "large", json!({ "text": "x".repeat(10_000) })).await;
    assert_eq!(client.reply(&sent).await, json!({ "status": "error", "response": "payload_size_exceeded" }));
    client.heard_no("broadcast").await;
    let track = json!({ "event": "track", "payload": { "text": "x".repeat(10_000) } });
    client.send(&Value::Null, "realtime:a", "presence", track).await;
    assert_eq!(client.event("system").await.payload["message"], "Track message size exceeded");
    client.raw(Message::text("x".repeat(100_000))).await;
    assert_eq!(client.closed().await, Some(1009));
}

#[tokio::test]
async fn too_many_presence_events() {
    let limits = Limits { presence_per_channel: 3, presence_per_second: 5, ..Limits::default() };
    let server = Server::with(limits).await;
    let mut one = server.client().await;
    one.join("realtime:a", json!({})).await;
    for number in 0..3 {
        assert_eq!(one.track("realtime:a", json!({ "number": number })).await["status"], "ok");
    }
    let track = json!({ "event": "track", "payload": {} });
    one.send(&Value::Null, "realtime:a", "presence", track.clone()).await;
    assert_eq!(one.event("system").await.payload["message"], "Client presence rate limit exceeded");
    let mut other = server.client().await;
    other.join("realtime:b", json!({})).await;
    for number in 0..3 {
        let track = json!({ "event": "track", "payload": { "number": number } });
        other.send(&Value::Null, "realtime:b", "presence", track).await;
    }
    assert_eq!(other.event("system").await.payload["message"], "Too many presence messages per second");
}

#[tokio::test]
async fn who_reads_too_slowly_is_cut_and_nobody_else() {
    let server = Server::with(Limits { outgoing: 200_000, ..Limits::default() }).await;
    let mut slow = server.client().await;
    slow.join("realtime:a", json!({})).await;
    let mut quick = server.client().await;
    quick.join("realtime:a", json!({ "broadcast": { "self": true } })).await;
    // More than the system's buffers and ours take together.
    let text = "x".repeat(50_000);
    let wait = async {
        while server.realtime.size().connections == 2 {
            quick.broadcast("realtime:a", "flood", json!({ "text": text })).await;
            quick.event("broadcast").await;
        }
    };
    tokio::time::timeout(Duration::from_secs(30), wait).await.expect("the slow client is cut");
    quick.broadcast("realtime:a", "after", json!({})).await;
    assert_eq!(quick.event("broadcast").await.payload["event"], "after");
    slow.closed().await;
}
