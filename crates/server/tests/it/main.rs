//! The front door over real sockets.
#![allow(clippy::unwrap_used)] // a failed unwrap is a failed test, also in the tests' own functions

mod http;
mod lifecycle;
mod websocket;

use std::net::SocketAddr;
use std::time::Duration;

use axum::Router;
use longhouse_config::Server;
use longhouse_server::{Drain, Listener, Stack, serve};
use tokio::task::JoinHandle;

/// A server on a free port, gone with the test's process.
struct TestServer {
    address: SocketAddr,
    drain: Drain,
    task: JoinHandle<()>,
}

impl TestServer {
    async fn start(settings: Server, router: Router) -> Self {
        Self::start_with(settings, router, |listener| listener).await
    }

    async fn start_with(settings: Server, router: Router, tune: impl FnOnce(Listener) -> Listener) -> Self {
        let listener = tune(Listener::bind(SocketAddr::from(([127, 0, 0, 1], 0))).await.unwrap());
        let address = listener.local_addr();
        let router =
            Stack::new(&settings).webhook("/webhook").probe("/probe").streaming("/files").apply(router);
        let drain = Drain::new();
        let task = tokio::spawn(serve(listener, router, drain.clone()));
        Self { address, drain, task }
    }

    fn url(&self, path: &str) -> String {
        format!("http://{}{path}", self.address)
    }
}

fn settings() -> Server {
    Server { request_timeout: Duration::from_millis(300), body_limit: 1000, ..Server::default() }
}

fn client() -> reqwest::Client {
    reqwest::Client::builder().no_proxy().build().unwrap()
}
