//! Limits, headers and error shapes of plain requests.

use std::time::Duration;

use axum::Router;
use axum::routing::{get, post};
use longhouse_config::Server;
use longhouse_server::{ClientIp, PublicOrigin, RequestId};
use reqwest::header::HeaderMap;
use rstest::rstest;
use serde_json::Value;

use crate::{TestServer, client, settings};

fn routes() -> Router {
    Router::new()
        .route("/", get(|| async { "hello" }))
        .route("/echo", post(|body: String| async move { body }))
        .route(
            "/panic",
            get(|| async {
                if true {
                    panic!("the ceiling fell")
                }
            }),
        )
        .route("/slow", get(|| tokio::time::sleep(Duration::from_secs(60))))
        .route("/files/take", post(|body: String| async move { body.len().to_string() }))
        .route("/files/wait", get(|| tokio::time::sleep(Duration::from_millis(500))))
        .route("/filesystem", post(|body: String| async move { body }))
        .route("/webhook", post(|| async { "thanks" }))
        .route(
            "/me",
            get(|ClientIp(ip): ClientIp, origin: PublicOrigin, id: RequestId| async move {
                format!("{ip} {origin} {} {}", origin.websocket(), id.as_str())
            }),
        )
}

async fn server() -> TestServer {
    TestServer::start(settings(), routes()).await
}

#[rstest]
#[case::unknown_path("GET", "/nowhere", 404, "not_found")]
#[case::wrong_method("DELETE", "/echo", 405, "method_not_allowed")]
#[case::panic("GET", "/panic", 500, "internal_error")]
#[case::slow_handler("GET", "/slow", 504, "timeout")]
#[tokio::test]
async fn failures_are_json_with_a_request_id(
    #[case] method: &str,
    #[case] path: &str,
    #[case] status: u16,
    #[case] code: &str,
) {
    let server = server().await;
    let response = client().request(method.parse().unwrap(), server.url(path)).send().await.unwrap();
    assert_eq!(response.status(), status);
    assert!(response.headers().contains_key("x-request-id"));
    let body: Value = response.json().await.unwrap();
    assert_eq!(body["code"], code);
    assert!(body["message"].is_string() && body["hint"].is_string(), "{body}");
    assert!(!body.to_string().contains("ceiling"), "internals leak: {body}");
}

#[tokio::test]
async fn a_panic_does_not_end_the_server() {
    let server = server().await;
    for _ in 0..3 {
        assert_eq!(client().get(server.url("/panic")).send().await.unwrap().status(), 500);
    }
    assert_eq!(client().get(server.url("/")).send().await.unwrap().text().await.unwrap(), "hello");
}

#[tokio::test]
async fn bodies_over_the_limit_are_refused_announced_or_not() {
    let server = server().await;
    let fits = client().post(server.url("/echo")).body("x".repeat(1000)).send().await.unwrap();
    assert_eq!(fits.text().await.unwrap().len(), 1000);
    let announced = client().post(server.url("/echo")).body("x".repeat(1001)).send().await.unwrap();
    assert_eq!(announced.status(), 413);
    assert_eq!(announced.json::<Value>().await.unwrap()["code"], "body_too_large");
    // Chunked: nobody knows the length until it has come.
    let mut chunked = String::from("POST /echo HTTP/1.1\r\nhost: a\r\ntransfer-encoding: chunked\r\n\r\n");
    for _ in 0..11 {
        chunked.push_str(&format!("64\r\n{}\r\n", "x".repeat(100)));
    }
    chunked.push_str("0\r\n\r\n");
    let answer = crate::lifecycle::raw(server.address, &chunked, Duration::from_secs(2)).await;
    assert!(answer.starts_with("HTTP/1.1 413"), "{answer}");
    assert!(answer.contains("body_too_large"), "{answer}");
}

#[tokio::test]
async fn streaming_routes_bound_themselves() {
    let server = server().await;
    let send = async |path: &str| {
        let request = client().post(server.url(path)).body("x".repeat(1001));
        let response = request.send().await.unwrap();
        (response.status().as_u16(), response.text().await.unwrap())
    };
    assert_eq!(send("/files/take").await, (200, "1001".to_owned()));
    assert_eq!(send("/filesystem").await.0, 413, "a path that only begins alike");
    assert_eq!(client().get(server.url("/files/wait")).send().await.unwrap().status(), 200);
}

#[tokio::test]
async fn a_body_that_does_not_arrive_is_the_clients_timeout() {
    let server = server().await;
    let half = "POST /echo HTTP/1.1\r\nhost: a\r\ncontent-length: 10\r\n\r\nhalf";
    let answer = crate::lifecycle::raw(server.address, half, Duration::from_secs(2)).await;
    assert!(answer.starts_with("HTTP/1.1 408"), "{answer}");
}

#[tokio::test]
async fn request_ids_are_kept_or_made() {
    let server = server().await;
    let id = |response: &reqwest::Response| response.headers()["x-request-id"].to_str().unwrap().to_owned();
    let sent = client().get(server.url("/me")).header("x-request-id", "call-42").send().await.unwrap();
    assert_eq!(id(&sent), "call-42");
    assert!(sent.text().await.unwrap().ends_with(" call-42"));
    let hostile = client().get(server.url("/me")).header("x-request-id", "a b<c>").send().await.unwrap();
    assert_eq!(id(&hostile).len(), 36);
    let none = client().get(server.url("/me")).send().await.unwrap();
    assert_ne!(id(&none), id(&hostile));
}

#[tokio::test]
async fn security_headers_are_on_every_answer() {
    let server = server().await;
    for path in ["/", "/nowhere", "/panic"] {
        let response = client().get(server.url(path)).send().await.unwrap();
        assert_eq!(response.headers()["x-content-type-options"], "nosniff", "{path}");
        assert_eq!(response.headers()["x-frame-options"], "DENY", "{path}");
        assert!(response.headers().contains_key("content-security-policy"), "{path}");
        assert!(
            !response.headers().contains_key("strict-transport-security"),
            "{path}: we are on plain HTTP"
        );
    }
}

async fn preflight(server: &TestServer, origin: &str) -> HeaderMap {
    let response = client()
        .request(reqwest::Method::OPTIONS, server.url("/echo"))
        .header("origin", origin)
        .header("access-control-request-method", "POST")
        .header(
            "access-control-request-headers",
            "apikey, authorization, x-client-info, prefer, x-retry-count",
        )
        .send()
        .await
        .unwrap();
    assert_eq!(response.status(), 200);
    response.headers().clone()
}

#[tokio::test]
async fn supabase_js_passes_the_preflight() {
    let server = server().await;
    let headers = preflight(&server, "https://app.example").await;
    assert_eq!(headers["access-control-allow-origin"], "*");
    for header in ["apikey", "authorization", "x-client-info", "prefer", "x-retry-count"] {
        assert!(headers["access-control-allow-headers"].to_str().unwrap().contains(header), "{header}");
    }
    assert!(headers["access-control-allow-methods"].to_str().unwrap().contains("PATCH"));
    let response =
        client().get(server.url("/nowhere")).header("origin", "https://app.example").send().await.unwrap();
    assert_eq!(response.headers()["access-control-allow-origin"], "*", "the page may read errors too");
    let exposed = response.headers()["access-control-expose-headers"].to_str().unwrap();
    assert!(exposed.contains("content-range"), "{exposed}");
}

#[tokio::test]
async fn configured_origins_alone_are_allowed() {
    let cors_origins = vec!["https://app.example".to_owned()];
    let server = TestServer::start(Server { cors_origins, ..settings() }, routes()).await;
    let ours = preflight(&server, "https://app.example").await;
    assert_eq!(ours["access-control-allow-origin"], "https://app.example");
    let theirs = preflight(&server, "https://evil.example").await;
    assert!(!theirs.contains_key("access-control-allow-origin"));
}

#[tokio::test]
async fn each_client_address_has_its_own_rate() {
    let limited = Server {
        rate_limit_per_second: 1,
        rate_limit_burst: 2,
        trusted_proxies: vec![[127, 0, 0, 1].into()],
        ..settings()
    };
    let server = TestServer::start(limited, routes()).await;
    let get = async |path: &str, address: &str| {
        client().get(server.url(path)).header("x-forwarded-for", address).send().await.unwrap()
    };
    assert_eq!(get("/", "203.0.113.7").await.status(), 200);
    assert_eq!(get("/", "203.0.113.7").await.status(), 200);
    let refused = get("/", "203.0.113.7").await;
    assert_eq!(refused.status(), 429);
    assert_eq!(refused.headers()["retry-after"], "1");
    assert_eq!(refused.json::<Value>().await.unwrap()["code"], "rate_limited");
    assert_eq!(get("/", "203.0.113.8").await.status(), 200);
    for _ in 0..10 {
        let twilio = client().post(server.url("/webhook")).header("x-forwarded-for", "203.0.113.7");
        assert_eq!(twilio.send().await.unwrap().status(), 200, "webhooks are exempt");
    }
}

#[tokio::test]
async fn forwarded_headers_count_only_from_trusted_proxies() {
    let ask = async |server: &TestServer| {
        client()
            .get(server.url("/me"))
            .header("x-forwarded-for", "203.0.113.7")
            .header("x-forwarded-proto", "https")
            .header("x-forwarded-host", "api.example.com")
            .header("x-request-id", "r")
            .send()
            .await
            .unwrap()
            .text()
            .await
            .unwrap()
    };
    let plain = server().await;
    let at = plain.address;
    assert_eq!(ask(&plain).await, format!("127.0.0.1 http://{at} ws://{at} r"));
    let proxied = Server { trusted_proxies: vec![[127, 0, 0, 1].into()], ..settings() };
    let proxied = TestServer::start(proxied, routes()).await;
    assert_eq!(ask(&proxied).await, "203.0.113.7 https://api.example.com wss://api.example.com r");
    let public = Server { public_url: Some("https://calls.example.com/".parse().unwrap()), ..settings() };
    let public = TestServer::start(public, routes()).await;
    assert_eq!(ask(&public).await, "127.0.0.1 https://calls.example.com wss://calls.example.com r");
}
