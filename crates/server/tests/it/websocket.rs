//! Upgrades with the client that Longhouse itself uses.

use std::time::Duration;

use axum::Router;
use axum::routing::any;
use futures_util::{SinkExt, StreamExt};
use longhouse_server::websocket::{Socket, Upgrade};
use serde_json::Value;
use tokio_tungstenite::connect_async;
use tokio_tungstenite::tungstenite::client::IntoClientRequest;
use tokio_tungstenite::tungstenite::{Error, Message};

use crate::{TestServer, client, settings};

async fn echo(mut socket: Socket) {
    while let Some(Ok(message)) = socket.next().await {
        if message.is_text() && socket.send(message).await.is_err() {
            return;
        }
    }
}

async fn server() -> TestServer {
    let route = any(|upgrade: Upgrade| async move { upgrade.protocols(&["b", "a"]).on_upgrade(echo) });
    TestServer::start(settings(), Router::new().route("/echo", route)).await
}

fn address(server: &TestServer) -> String {
    format!("ws://{}/echo", server.address)
}

#[tokio::test]
async fn echoes_longer_than_any_request_may_take() {
    let server = server().await;
    let (mut socket, response) = connect_async(address(&server)).await.unwrap();
    assert_eq!(response.status(), 101);
    assert!(response.headers().contains_key("x-request-id"));
    assert_eq!(server.drain.sessions(), 1);
    tokio::time::sleep(settings().request_timeout * 2).await;
    socket.send(Message::text("still there?")).await.unwrap();
    assert_eq!(socket.next().await.unwrap().unwrap(), Message::text("still there?"));
    socket.close(None).await.unwrap();
    while let Some(Ok(_)) = socket.next().await {}
    tokio::time::timeout(Duration::from_secs(2), server.drain.wait())
        .await
        .expect("the session is counted off");
}

#[tokio::test]
async fn an_oversized_frame_ends_the_session() {
    let server = server().await;
    let (mut socket, _) = connect_async(address(&server)).await.unwrap();
    socket.send(Message::text("x".repeat(64 * 1024))).await.unwrap();
    assert_eq!(socket.next().await.unwrap().unwrap().len(), 64 * 1024);
    let _ = socket.send(Message::text("x".repeat(64 * 1024 + 1))).await;
    assert!(!matches!(socket.next().await, Some(Ok(Message::Text(_)))), "it was echoed");
    tokio::time::timeout(Duration::from_secs(2), server.drain.wait()).await.unwrap();
}

#[tokio::test]
async fn chooses_a_subprotocol_that_both_know() {
    let server = server().await;
    let choose = async |offer: &'static str| {
        let mut request = address(&server).into_client_request().unwrap();
        request.headers_mut().insert("sec-websocket-protocol", offer.parse().unwrap());
        let (_, response) = connect_async(request).await?;
        let chosen = response.headers().get("sec-websocket-protocol");
        Ok::<_, Error>(chosen.map(|chosen| chosen.to_str().unwrap().to_owned()))
    };
    assert_eq!(choose("a, b").await.unwrap().as_deref(), Some("b"));
    assert_eq!(choose("a").await.unwrap().as_deref(), Some("a"));
    assert!(choose("c").await.is_err(), "the client sees that nothing was agreed on");
}

#[tokio::test]
async fn a_browser_that_opens_the_address_is_told() {
    let server = server().await;
    let response = client().get(server.url("/echo")).send().await.unwrap();
    assert_eq!(response.status(), 426);
    assert_eq!(response.headers()["sec-websocket-version"], "13");
    assert_eq!(response.json::<Value>().await.unwrap()["code"], "websocket_required");
}

#[tokio::test]
async fn malformed_keys_are_refused() {
    let server = server().await;
    let request = client()
        .get(server.url("/echo"))
        .header("connection", "upgrade")
        .header("upgrade", "websocket")
        .header("sec-websocket-version", "13")
        .header("sec-websocket-key", "short");
    assert_eq!(request.send().await.unwrap().status(), 400);
}

#[tokio::test]
async fn nothing_new_while_stopping_but_sessions_see_it() {
    let told = any(|upgrade: Upgrade, drain: axum::Extension<longhouse_server::Drain>| async move {
        upgrade.on_upgrade(move |mut socket| async move {
            drain.draining().await;
            let _ = socket.send(Message::text("moving you")).await;
            let _ = socket.close(None).await;
        })
    });
    let server = TestServer::start(settings(), Router::new().route("/echo", told)).await;
    let (mut socket, _) = connect_async(address(&server)).await.unwrap();
    let cut_off = tokio::spawn({
        let drain = server.drain.clone();
        async move { drain.run(Duration::from_secs(5)).await }
    });
    assert_eq!(socket.next().await.unwrap().unwrap(), Message::text("moving you"));
    while let Some(Ok(_)) = socket.next().await {}
    assert_eq!(cut_off.await.unwrap(), 0);
    assert!(connect_async(address(&server)).await.is_err());
}
