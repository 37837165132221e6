//! Who is on a channel.

use serde_json::{Value, json};

use crate::harness::{Client, Server};

fn references(presence: &Value, key: &str) -> Vec<String> {
    let metas = presence[key]["metas"].as_array().cloned().unwrap_or_default();
    metas.iter().map(|meta| meta["phx_ref"].as_str().unwrap().to_owned()).collect()
}

async fn joined(server: &Server, vsn: &str, key: &str) -> Client {
    let mut client = server.client_of(vsn).await;
    client.join("realtime:a", json!({ "presence": { "key": key, "enabled": true } })).await;
    client
}

#[tokio::test]
async fn tabs_of_one_person_share_a_key() {
    let server = Server::start().await;
    let mut watcher = joined(&server, "2.0.0", "watcher").await;
    assert_eq!(watcher.event("presence_state").await.payload, json!({}));
    let mut one = joined(&server, "1.0.0", "ann").await;
    let mut other = joined(&server, "2.0.0", "ann").await;
    assert_eq!(one.track("realtime:a", json!({ "tab": 1 })).await, json!({ "status": "ok", "response": {} }));
    let first = watcher.event("presence_diff").await.payload;
    assert_eq!(first["joins"]["ann"]["metas"][0]["tab"], 1);
    assert_eq!(first["leaves"], json!({}));
    other.track("realtime:a", json!({ "tab": 2 })).await;
    let second = watcher.event("presence_diff").await.payload;
    assert_eq!(references(&second["joins"], "ann").len(), 1);

    let mut late = joined(&server, "2.0.0", "late").await;
    let state = late.event("presence_state").await.payload;
    assert_eq!(references(&state, "ann").len(), 2, "{state}");

    drop(one);
    let diff = watcher.event("presence_diff").await.payload;
    assert_eq!(references(&diff["leaves"], "ann"), references(&first["joins"], "ann"));
    let untrack = json!({ "type": "presence", "event": "untrack" });
    other.send(&Value::Null, "realtime:a", "presence", untrack).await;
    let diff = watcher.event("presence_diff").await.payload;
    assert_eq!(references(&diff["leaves"], "ann"), references(&second["joins"], "ann"));
}

#[tokio::test]
async fn what_is_tracked_may_change() {
    let server = Server::start().await;
    let mut ann = joined(&server, "2.0.0", "ann").await;
    ann.track("realtime:a", json!({ "typing": false })).await;
    let before = references(&ann.event("presence_diff").await.payload["joins"], "ann");
    ann.track("realtime:a", json!({ "typing": false })).await;
    ann.heard_no("presence_diff").await;
    ann.track("realtime:a", json!({ "typing": true })).await;
    let diff = ann.event("presence_diff").await.payload;
    let meta = &diff["joins"]["ann"]["metas"][0];
    assert_eq!((&meta["typing"], &meta["phx_ref_prev"]), (&json!(true), &json!(before[0])));
    assert_eq!(references(&diff["leaves"], "ann"), before);
}

#[tokio::test]
async fn tracking_switches_presence_on_and_must_be_an_object() {
    let server = Server::start().await;
    let mut client = server.client().await;
    client.join("realtime:a", json!({ "presence": { "key": "x", "enabled": false } })).await;
    client.heard_no("presence_state").await;
    let refused = client.track("realtime:a", json!("text")).await;
    let reason = json!({ "reason": "Presence track payload must be a map" });
    assert_eq!(refused, json!({ "status": "error", "response": reason }));
    assert_eq!(client.track("realtime:a", json!({})).await["status"], "ok");
    assert_eq!(client.event("presence_diff").await.payload["leaves"], json!({}));
}

#[tokio::test]
async fn without_a_key_everybody_is_somebody_else() {
    let server = Server::start().await;
    let mut one = joined(&server, "2.0.0", "").await;
    let mut other = joined(&server, "2.0.0", "").await;
    one.track("realtime:a", json!({})).await;
    other.track("realtime:a", json!({})).await;
    let mut late = joined(&server, "2.0.0", "").await;
    assert_eq!(late.event("presence_state").await.payload.as_object().unwrap().len(), 2);
}
