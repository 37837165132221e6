//! Broadcasts by HTTP.

use rstest::rstest;
use serde_json::{Value, json};

use crate::harness::Server;

#[tokio::test]
async fn a_batch_reaches_public_channels_and_private_ones_by_right() {
    let server = Server::start().await;
    let mut public = server.client().await;
    public.join("realtime:a", json!({})).await;
    let mut private = server.client().await;
    private.join_as("realtime:room-1", json!({ "private": true }), Some("ann")).await;
    let batch = json!({ "messages": [
        { "topic": "a", "event": "public", "payload": { "n": 1 } },
        { "topic": "room-1", "event": "private", "payload": { "n": 2 }, "private": true }
    ]});
    assert_eq!(server.post("/api/broadcast", "bob", batch.clone()).await, (202, String::new()));
    let expected = json!({ "type": "broadcast", "event": "public", "payload": { "n": 1 } });
    assert_eq!(public.event("broadcast").await.payload, expected);
    private.heard_no("broadcast").await;
    assert_eq!(server.post("/api/broadcast", "ann", batch).await.0, 202);
    assert_eq!(private.event("broadcast").await.payload["payload"], json!({ "n": 2 }));
}

#[rstest]
#[case::no_messages("ann", json!({}), 422, json!({ "errors": { "messages": ["can't be blank"] } }))]
#[case::blank(
    "ann",
    json!({ "messages": [{ "event": "e", "payload": {}, "topic": "t" }, { "payload": [] }] }),
    422,
    json!({ "errors": { "messages": [{}, { "topic": ["can't be blank"], "event": ["can't be blank"], "payload": ["is invalid"] }] } })
)]
#[case::stranger("a.b.c", json!({ "messages": [] }), 401, json!({ "message": "Unauthorized" }))]
#[tokio::test]
async fn batches_that_are_refused(
    #[case] token: &str,
    #[case] batch: Value,
    #[case] status: u16,
    #[case] expected: Value,
) {
    let server = Server::start().await;
    let (answered, body) = server.post("/api/broadcast", token, batch).await;
    assert_eq!((answered, serde_json::from_str::<Value>(&body).unwrap()), (status, expected));
}

#[tokio::test]
async fn one_message_may_be_bytes() {
    let server = Server::start().await;
    let mut client = server.client().await;
    client.join("realtime:a b", json!({})).await;
    let url = format!("http://{}/realtime/v1/api/broadcast/a%20b/events/e%2F1", server.address);
    let post = async |content_type: &'static str, body: &'static [u8]| {
        let request =
            reqwest::Client::new().post(&url).bearer_auth("ann").header("content-type", content_type);
        request.body(body).send().await.unwrap().status().as_u16()
    };
    assert_eq!(post("application/octet-stream", &[1, 2]).await, 202);
    let expected = json!({ "type": "broadcast", "event": "e/1", "payload": [1, 2] });
    assert_eq!(client.event("broadcast").await.payload, expected);
    assert_eq!(post("application/json; charset=utf-8", b"{\"n\":1}").await, 202);
    assert_eq!(client.event("broadcast").await.payload["payload"], json!({ "n": 1 }));
    assert_eq!(post("application/json", b"{").await, 422);
    assert_eq!(post("text/plain", b"x").await, 415);
}
