//! From the handshake to the end of a connection.

use std::time::Duration;

use longhouse_realtime::{Limits, Size};
use rstest::rstest;
use serde_json::{Value, json};
use tokio_tungstenite::tungstenite::{Error as SocketError, Message};

use crate::harness::{Client, NOTHING, Server};

#[rstest]
#[case::no_key("vsn=1.0.0", 401, "API key is missing")]
#[case::empty("vsn=1.0.0&apikey=", 401, "API key is missing")]
#[case::nonsense("apikey=nonsense", 401, "The token provided is not a valid JWT")]
#[case::forged("apikey=a.b.c", 401, "Failed to validate JWT signature")]
#[case::expired("apikey=ann@1000", 401, "Token has expired")]
#[case::version("apikey=key&vsn=3.0.0", 403, "This vsn is not spoken here; use 1.0.0 or 2.0.0")]
#[tokio::test]
async fn handshakes_that_are_refused(#[case] query: &str, #[case] status: u16, #[case] message: &str) {
    let server = Server::start().await;
    let Err(SocketError::Http(response)) = server.try_client(query).await else { panic!("accepted") };
    assert_eq!(response.status().as_u16(), status);
    let body: Value = serde_json::from_slice(response.body().as_ref().unwrap()).unwrap();
    assert_eq!(body, json!({ "error": message }));
    server.settles(NOTHING).await;
}

#[rstest]
#[case("1.0.0")]
#[case("2.0.0")]
#[tokio::test]
async fn heartbeats_and_unknown_channels_are_answered(#[case] vsn: &str) {
    let server = Server::start().await;
    let mut client = server.client_of(vsn).await;
    let heartbeat = client.send(&Value::Null, "phoenix", "heartbeat", json!({})).await;
    assert_eq!(client.reply(&heartbeat).await, json!({ "status": "ok", "response": {} }));
    let lost = client.broadcast("realtime:nowhere", "e", json!({})).await;
    let unmatched = json!({ "status": "error", "response": { "reason": "unmatched topic" } });
    assert_eq!(client.reply(&lost).await, unmatched);
    let left = client.send(&Value::Null, "realtime:nowhere", "phx_leave", json!({})).await;
    assert_eq!(client.reply(&left).await["status"], "ok");
    let (status, response, _) = client.try_join("elsewhere", json!({})).await;
    assert_eq!((status, response), (json!("error"), json!({ "reason": "unmatched topic" })));
}

#[rstest]
#[case::not_json("1.0.0", Message::text("hello"))]
#[case::wrong_version("2.0.0", Message::text(r#"{"topic":"a","event":"e","payload":{},"ref":null}"#))]
#[case::binary_in_1("1.0.0", Message::binary(vec![3, 0, 0, 0, 0, 0, 0]))]
#[case::half_a_frame("2.0.0", Message::binary(vec![3, 9, 9, 9, 9, 9, 0, 1]))]
#[tokio::test]
async fn who_does_not_speak_the_protocol_is_closed(#[case] vsn: &str, #[case] message: Message) {
    let server = Server::start().await;
    let mut client = server.client_of(vsn).await;
    client.join("realtime:a", json!({})).await;
    client.raw(message).await;
    assert_eq!(client.closed().await, Some(1007));
    server.settles(NOTHING).await;
}

#[tokio::test]
async fn nothing_is_left_of_clients_that_vanish() {
    let server = Server::start().await;
    let mut clients: Vec<Client> = Vec::new();
    for number in 0..20 {
        let mut client = server.client().await;
        client.join("realtime:all", json!({ "presence": { "key": "k" } })).await;
        client.join(&format!("realtime:own-{number}"), json!({})).await;
        client.track("realtime:all", json!({})).await;
        clients.push(client);
    }
    server.settles(Size { connections: 20, channels: 21, members: 40, followers: 0 }).await;
    drop(clients);
    server.settles(NOTHING).await;
    let mut late = server.client().await;
    late.join("realtime:all", json!({ "presence": { "key": "late" } })).await;
    assert_eq!(late.event("presence_state").await.payload, json!({}));
}

#[tokio::test]
async fn silent_clients_are_closed() {
    let limits = Limits { idle: Duration::from_millis(300), ..Limits::default() };
    let server = Server::with(limits).await;
    let mut client = server.client().await;
    client.join("realtime:a", json!({})).await;
    assert_eq!(client.closed().await, Some(1000));
    server.settles(NOTHING).await;
}

#[tokio::test]
async fn a_server_that_stops_sends_clients_elsewhere() {
    let server = Server::start().await;
    let mut client = server.client().await;
    client.join("realtime:a", json!({})).await;
    let drain = server.drain.clone();
    let (code, cut_off) = tokio::join!(client.closed(), drain.run(Duration::from_secs(10)));
    assert_eq!((code, cut_off), (Some(1012), 0));
}
