//! Messages between clients of one channel.

use rstest::rstest;
use serde_json::json;

use crate::harness::Server;

#[rstest]
#[case("1.0.0", "1.0.0")]
#[case("1.0.0", "2.0.0")]
#[case("2.0.0", "1.0.0")]
#[case("2.0.0", "2.0.0")]
#[tokio::test]
async fn others_hear_and_the_sender_only_if_it_wants(#[case] from: &str, #[case] to: &str) {
    let server = Server::start().await;
    let mut sender = server.client_of(from).await;
    let mut receiver = server.client_of(to).await;
    sender.join("realtime:a", json!({ "broadcast": { "ack": true } })).await;
    receiver.join("realtime:a", json!({ "broadcast": { "self": true } })).await;
    let sent = sender.broadcast("realtime:a", "shout", json!({ "text": "grüß \"dich\"" })).await;
    assert_eq!(sender.reply(&sent).await, json!({ "status": "ok", "response": {} }));
    let heard = receiver.event("broadcast").await;
    assert_eq!(heard.topic, "realtime:a");
    let expected = json!({ "type": "broadcast", "event": "shout", "payload": { "text": "grüß \"dich\"" } });
    assert_eq!(heard.payload, expected);
    receiver.broadcast("realtime:a", "echo", json!({})).await;
    assert_eq!(receiver.event("broadcast").await.payload["event"], "echo");
    assert_eq!(sender.event("broadcast").await.payload["event"], "echo");
    sender.heard_no("broadcast").await;
}

#[tokio::test]
async fn binary_frames_reach_both_versions_as_far_as_they_can() {
    let server = Server::start().await;
    let mut sender = server.client().await;
    let mut new = server.client().await;
    let mut old = server.client_of("1.0.0").await;
    sender.join("realtime:a", json!({ "broadcast": { "ack": true } })).await;
    new.join("realtime:a", json!({})).await;
    old.join("realtime:a", json!({})).await;
    let sent = sender.push("realtime:a", "bytes", false, &[0, 255, 7]).await;
    assert_eq!(sender.reply(&sent).await["status"], "ok");
    sender.push("realtime:a", "json", true, br#"{"a":[1]}"#).await;
    let bytes = json!({ "type": "broadcast", "event": "bytes", "payload": [0, 255, 7] });
    let json = json!({ "type": "broadcast", "event": "json", "payload": { "a": [1] } });
    assert_eq!(new.event("broadcast").await.payload, bytes);
    assert_eq!(new.event("broadcast").await.payload, json);
    assert_eq!(old.event("broadcast").await.payload, json, "the older version cannot be told bytes");
}

#[tokio::test]
async fn a_name_is_two_channels_one_of_them_private() {
    let server = Server::start().await;
    let mut public = server.client().await;
    let mut private = server.client().await;
    public.join("realtime:room-1", json!({})).await;
    private
        .join_as("realtime:room-1", json!({ "private": true, "broadcast": { "self": true } }), Some("ann"))
        .await;
    private.broadcast("realtime:room-1", "secret", json!({})).await;
    assert_eq!(private.event("broadcast").await.payload["event"], "secret");
    public.heard_no("broadcast").await;
    public.broadcast("realtime:room-1", "open", json!({})).await;
    public.heard_no("broadcast").await;
    private.heard_no("broadcast").await;
}

#[tokio::test]
async fn who_left_hears_nothing_more_and_may_come_back() {
    let server = Server::start().await;
    let mut sender = server.client().await;
    let mut receiver = server.client().await;
    sender.join("realtime:a", json!({})).await;
    let first = receiver.join("realtime:a", json!({})).await;
    let left = receiver.send(&first, "realtime:a", "phx_leave", json!({})).await;
    assert_eq!(receiver.reply(&left).await["status"], "ok");
    let closed = receiver.event("phx_close").await;
    assert_eq!((&closed.join_ref, &closed.reference), (&first, &first));
    sender.broadcast("realtime:a", "lost", json!({})).await;
    sender.heard_no("broadcast").await;
    receiver.heard_no("broadcast").await;
    let second = receiver.join("realtime:a", json!({})).await;
    // A late leave of the first join does not end the second.
    receiver.send(&first, "realtime:a", "phx_leave", json!({})).await;
    sender.broadcast("realtime:a", "heard", json!({})).await;
    assert_eq!(receiver.event("broadcast").await.payload["event"], "heard");
    // Joining once more takes the place of the join before.
    receiver.join("realtime:a", json!({})).await;
    assert_eq!(receiver.event("phx_close").await.join_ref, second);
    sender.broadcast("realtime:a", "once", json!({})).await;
    assert_eq!(receiver.event("broadcast").await.payload["event"], "once");
    receiver.heard_no("broadcast").await;
}
