//! Private channels, tokens and replays.

use rstest::rstest;
use serde_json::{Value, json};

use crate::harness::Server;

fn now() -> i64 {
    chrono::Utc::now().timestamp()
}

#[rstest]
#[case::nobody(None, "Unauthorized: You do not have permissions to read from this Channel topic: room-1")]
#[case::nonsense(Some("nonsense"), "MalformedJWT: The token provided is not a valid JWT")]
#[case::forged(Some("a.b.c"), "JwtSignatureError: Failed to validate JWT signature")]
#[tokio::test]
async fn private_channels_are_refused(#[case] token: Option<&str>, #[case] reason: &str) {
    let server = Server::start().await;
    let mut client = server.client().await;
    let payload = json!({ "config": { "private": true }, "access_token": token });
    let (status, response, _) = client.try_join("realtime:room-1", payload).await;
    assert_eq!((status, response), (json!("error"), json!({ "reason": reason })));
}

#[tokio::test]
async fn rights_of_both_kinds_are_apart() {
    let server = Server::start().await;
    let private = json!({ "private": true, "broadcast": { "ack": true }, "presence": { "key": "k" } });
    let mut ann = server.client().await;
    ann.join_as("realtime:room-1", private.clone(), Some("ann")).await;
    ann.event("presence_state").await;
    let mut bob = server.client().await;
    bob.join_as("realtime:room-1", private.clone(), Some("bob")).await;
    let mut eve = server.client().await;
    let payload = json!({ "config": private, "access_token": "eve" });
    let (status, ..) = eve.try_join("realtime:elsewhere", payload).await;
    assert_eq!(status, "error");

    let sent = ann.broadcast("realtime:room-1", "hello", json!({})).await;
    assert_eq!(ann.reply(&sent).await["status"], "ok");
    assert_eq!(bob.event("broadcast").await.payload["event"], "hello");
    bob.broadcast("realtime:room-1", "refused", json!({})).await;
    bob.heard_no("phx_reply").await;
    ann.heard_no("broadcast").await;

    assert_eq!(ann.track("realtime:room-1", json!({})).await["status"], "ok");
    ann.event("presence_diff").await;
    assert_eq!(bob.track("realtime:room-1", json!({})).await["status"], "error");
    bob.heard_no("presence_state").await;
    bob.heard_no("presence_diff").await;
    ann.heard_no("presence_diff").await;
    let kept: i64 =
        server.owner.query_one("select count(*) from realtime.messages", &[]).await.unwrap().get(0);
    assert_eq!(kept, 0, "asking leaves nothing");
}

#[tokio::test]
async fn a_refreshed_token_decides_anew() {
    let server = Server::start().await;
    let mut client = server.client().await;
    let config = json!({ "private": true, "broadcast": { "ack": true, "self": true } });
    let join_ref = client.join_as("realtime:room-1", config, Some("bob")).await;
    client.broadcast("realtime:room-1", "refused", json!({})).await;
    client.heard_no("broadcast").await;
    client.send(&join_ref, "realtime:room-1", "access_token", json!({ "access_token": "ann" })).await;
    client.broadcast("realtime:room-1", "allowed", json!({})).await;
    assert_eq!(client.event("broadcast").await.payload["event"], "allowed");
    server.owner.batch_execute("drop policy receive on realtime.messages").await.unwrap();
    client.send(&join_ref, "realtime:room-1", "access_token", json!({ "access_token": "bob" })).await;
    let system = client.event("system").await.payload;
    let message = "You do not have permissions to read from this Channel topic: room-1";
    let expected =
        json!({ "extension": "system", "status": "error", "message": message, "channel": "room-1" });
    assert_eq!(system, expected);
    client.event("phx_close").await;
}

#[tokio::test]
async fn channels_end_with_their_tokens() {
    let server = Server::start().await;
    let mut client = server.client().await;
    let expiry = now() + 2;
    client.join_as("realtime:a", json!({}), Some(&format!("ann@{expiry}"))).await;
    client.join_as("realtime:b", json!({}), Some("ann")).await;
    let system = client.event("system").await;
    assert!(now() >= expiry);
    assert_eq!(system.topic, "realtime:a");
    let message = system.payload["message"].as_str().unwrap();
    assert!(message.starts_with("Token has expired") && message.ends_with("seconds ago"), "{message}");
    assert_eq!(client.event("phx_close").await.topic, "realtime:a");
    let heartbeat = client.broadcast("realtime:b", "still", json!({})).await;
    client.heard_no("phx_close").await;
    assert_ne!(heartbeat, Value::Null);
    let payload = json!({ "config": {}, "access_token": format!("ann@{}", now() - 60) });
    let (status, response, _) = client.try_join("realtime:a", payload).await;
    assert_eq!(status, "error");
    let reason = response["reason"].as_str().unwrap();
    assert!(reason.starts_with("InvalidJWTToken: Token has expired 6"), "{reason}");
}

#[tokio::test]
async fn earlier_messages_are_replayed_once() {
    let server = Server::start().await;
    for number in 0..3 {
        let sql = "select realtime.send(jsonb_build_object('number', $1::int), 'told', 'room-1', true)";
        server.owner.execute(sql, &[&number]).await.unwrap();
    }
    let mut client = server.client().await;
    let replay = |since: i64, limit: i64| json!({ "private": true, "broadcast": { "replay": { "since": since, "limit": limit } } });
    client.join_as("realtime:room-1", replay(now() * 1_000 - 60_000, 2), Some("ann")).await;
    for number in 1..3 {
        let told = client.event("broadcast").await.payload;
        assert_eq!((&told["payload"]["number"], &told["event"]), (&json!(number), &json!("told")), "{told}");
        assert_eq!(told["meta"]["replayed"], true);
        assert!(told["meta"]["id"].is_string());
    }
    client.heard_no("broadcast").await;
    client.join_as("realtime:room-1", replay(now() * 1_000 + 60_000, 25), Some("ann")).await;
    client.heard_no("broadcast").await;
}

#[rstest]
#[case::public(false, json!({ "since": 0 }), "UnableToReplayMessages: Replay is not allowed for public channels")]
#[case::nonsense(true, json!({ "since": "x" }), "UnableToReplayMessages: Replay params are not valid")]
#[tokio::test]
async fn replays_that_are_refused(#[case] private: bool, #[case] replay: Value, #[case] reason: &str) {
    let server = Server::start().await;
    let mut client = server.client().await;
    let config = json!({ "private": private, "broadcast": { "replay": replay } });
    let payload = json!({ "config": config, "access_token": "ann" });
    let (_, response, _) = client.try_join("realtime:room-1", payload).await;
    assert_eq!(response, json!({ "reason": reason }));
}

#[tokio::test]
async fn changes_are_answered_with_ids_and_why_they_do_not_flow() {
    let server = Server::start().await;
    let mut client = server.client().await;
    let changes = json!([
        { "event": "INSERT", "schema": "public", "table": "notes", "filter": "id=eq.1" },
        { "event": "*", "schema": "public" }
    ]);
    let payload = json!({ "config": { "postgres_changes": changes } });
    let (status, response, join_ref) = client.try_join("realtime:a", payload).await;
    assert_eq!(status, "ok");
    let answered = response["postgres_changes"].as_array().unwrap();
    assert_eq!(answered.len(), 2);
    assert_eq!((&answered[0]["filter"], &answered[1]["event"]), (&json!("id=eq.1"), &json!("*")));
    assert!(answered[0]["id"].is_u64() && answered[0]["id"] != answered[1]["id"]);
    let system = client.event("system").await;
    assert_eq!((&system.join_ref, &system.payload["extension"]), (&join_ref, &json!("postgres_changes")));
    assert_eq!(system.payload["status"], "error");
}
