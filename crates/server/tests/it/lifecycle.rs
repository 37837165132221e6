//! Starting, slow clients, draining and stopping.

use std::net::SocketAddr;
use std::time::{Duration, Instant};

use axum::Router;
use axum::routing::get;
use longhouse_server::{Error, Listener};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use crate::{TestServer, client, settings};

/// Sends text as it is and returns what comes back until the server closes or the time is over.
pub(crate) async fn raw(address: SocketAddr, text: &str, patience: Duration) -> String {
    let mut stream = TcpStream::connect(address).await.unwrap();
    stream.write_all(text.as_bytes()).await.unwrap();
    let mut answer = Vec::new();
    let _ = tokio::time::timeout(patience, stream.read_to_end(&mut answer)).await;
    String::from_utf8_lossy(&answer).into_owned()
}

/// How long the server keeps a connection on which it was sent no more than `text`.
async fn kept_open(address: SocketAddr, text: &str) -> Duration {
    let started = Instant::now();
    let _ = raw(address, text, Duration::from_secs(10)).await;
    started.elapsed()
}

fn hello() -> Router {
    Router::new().route("/", get(|| async { "hello" }))
}

#[tokio::test]
async fn a_busy_port_is_named_with_the_remedy() {
    let first = Listener::bind(SocketAddr::from(([127, 0, 0, 1], 0))).await.unwrap();
    let error = Listener::bind(first.local_addr()).await.unwrap_err();
    assert!(matches!(error, Error::PortBusy(_)));
    let message = error.to_string();
    assert!(message.contains(&first.local_addr().port().to_string()), "{message}");
    assert!(message.contains("longhouse stop") && message.contains("--port"), "{message}");
}

#[tokio::test]
async fn clients_that_trickle_headers_are_dropped() {
    let tune = |listener: Listener| listener.header_timeout(Duration::from_millis(200));
    let server = TestServer::start_with(settings(), hello(), tune).await;
    for text in ["", "GET / HTTP/1.1\r\nhost: a\r\n", "PRI * HTTP/2.0\r\n", "P"] {
        let open = kept_open(server.address, text).await;
        assert!(open < Duration::from_secs(3), "{text:?} held a connection for {open:?}");
    }
    assert_eq!(client().get(server.url("/")).send().await.unwrap().status(), 200);
}

#[tokio::test]
async fn connections_above_the_cap_wait_for_a_place() {
    let tune = |listener: Listener| listener.max_connections(1);
    let server = TestServer::start_with(settings(), hello(), tune).await;
    let first = TcpStream::connect(server.address).await.unwrap();
    tokio::time::sleep(Duration::from_millis(50)).await;
    let request = "GET / HTTP/1.1\r\nhost: a\r\nconnection: close\r\n\r\n";
    let second = tokio::spawn(raw(server.address, request, Duration::from_secs(5)));
    tokio::time::sleep(Duration::from_millis(100)).await;
    assert!(!second.is_finished(), "the cap was ignored");
    drop(first);
    assert!(second.await.unwrap().starts_with("HTTP/1.1 200"));
}

#[tokio::test]
async fn draining_answers_and_closes_then_stopping_ends() {
    let server = TestServer::start(settings(), hello()).await;
    let session = server.drain.register();
    let drain = server.drain.clone();
    let draining = tokio::spawn(async move { drain.run(Duration::from_secs(10)).await });
    server.drain.draining().await;
    let response = client().get(server.url("/")).send().await.unwrap();
    assert_eq!(response.status(), 200, "calls in progress still send webhooks");
    assert_eq!(response.headers()["connection"], "close");
    assert!(!server.task.is_finished());
    drop(session);
    assert_eq!(draining.await.unwrap(), 0);
    tokio::time::timeout(Duration::from_secs(3), server.task).await.unwrap().unwrap();
    assert!(TcpStream::connect(server.address).await.is_err());
}

#[tokio::test]
async fn a_request_in_progress_is_answered_while_stopping() {
    let slow = get(|| async {
        tokio::time::sleep(Duration::from_millis(200)).await;
        "done"
    });
    let server = TestServer::start(settings(), Router::new().route("/slow", slow)).await;
    let request = tokio::spawn(client().get(server.url("/slow")).send());
    tokio::time::sleep(Duration::from_millis(100)).await;
    server.drain.stop();
    assert_eq!(request.await.unwrap().unwrap().text().await.unwrap(), "done");
    tokio::time::timeout(Duration::from_secs(3), server.task).await.unwrap().unwrap();
}
