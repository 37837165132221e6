//! Health documents and metrics as a probe sees them.
#![allow(clippy::unwrap_used)] // a failed unwrap is a failed test, also in the tests' own functions

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::Duration;

use axum::Router;
use axum::body::Body;
use axum::http::Request;
use longhouse_operations::health::{About, Capacity, Check, Health, Outcome, PROBES, check};
use longhouse_operations::metrics::Metrics;
use rstest::rstest;
use serde_json::{Value, json};
use tower::ServiceExt;

/// A process whose database, load and drain the test decides.
#[derive(Clone, Default)]
struct Process {
    database_down: Arc<AtomicBool>,
    provider_slow: Arc<AtomicBool>,
    draining: Arc<AtomicBool>,
    sessions: Arc<AtomicUsize>,
    asked: Arc<AtomicUsize>,
}

impl Process {
    fn database(&self) -> Arc<dyn Check> {
        let (down, asked) = (Arc::clone(&self.database_down), Arc::clone(&self.asked));
        check("database", move || {
            asked.fetch_add(1, Ordering::SeqCst);
            let down = down.load(Ordering::SeqCst);
            async move { if down { Outcome::failed("no connection") } else { Outcome::ok() } }
        })
    }

    fn provider(&self) -> Arc<dyn Check> {
        let slow = Arc::clone(&self.provider_slow);
        check("openai", move || {
            let slow = slow.load(Ordering::SeqCst);
            async move { if slow { std::future::pending().await } else { Outcome::ok().because("emulated") } }
        })
    }

    fn health(&self, fresh_for: Duration) -> Health {
        let (sessions, draining) = (Arc::clone(&self.sessions), Arc::clone(&self.draining));
        let about =
            About { version: "9.9.9", build_id: "abc123".into(), storage: "local", auth_enabled: true };
        let health = Health::builder(about)
            .check(self.database())
            .check(self.provider())
            .capacity(move || Capacity { active: sessions.load(Ordering::SeqCst), max: 5 })
            .draining(move || draining.load(Ordering::SeqCst))
            .timeout(Duration::from_millis(100))
            .fresh_for(fresh_for)
            .build();
        health.set_migration_version("20261121000000");
        health
    }

    fn router(&self) -> Router {
        self.health(Duration::ZERO).router().split_for_parts().0
    }
}

async fn get(router: &Router, path: &str) -> (u16, Value) {
    let request = Request::get(path).body(Body::empty()).unwrap();
    let response = router.clone().oneshot(request).await.unwrap();
    let status = response.status().as_u16();
    assert_eq!(response.headers()["cache-control"], "no-store", "{path}");
    let body = axum::body::to_bytes(response.into_body(), 100_000).await.unwrap();
    (status, serde_json::from_slice(&body).unwrap())
}

fn keys(document: &Value) -> Vec<&str> {
    document.as_object().unwrap().keys().map(String::as_str).collect()
}

#[tokio::test]
async fn health_tells_everything_the_seeds_told() {
    let process = Process::default();
    process.sessions.store(2, Ordering::SeqCst);
    let (status, body) = get(&process.router(), "/health").await;
    assert_eq!(status, 200);
    assert_eq!(body["status"], "ok");
    assert_eq!((&body["version"], &body["build_id"]), (&json!("9.9.9"), &json!("abc123")));
    assert_eq!(body["migration_version"], "20261121000000");
    assert_eq!(body["checks"]["openai"]["detail"], "emulated");
    assert!(body["checks"]["database"]["latency_ms"].is_number());
    assert_eq!(body["workers"], json!({ "active": 2, "max": 5 }));
    assert_eq!((&body["sessions"], &body["database"]), (&json!(2), &json!("connected")));
    assert_eq!((&body["storage"], &body["auth"]), (&json!("local"), &json!("enabled")));
    assert!(body["timestamp"].as_str().unwrap().ends_with('Z'));
}

#[rstest]
#[case::npc("/api/health", "ok", &["auth", "sessions", "status", "storage", "timestamp", "version"])]
#[case::stories("/functions/v1/health", "healthy", &["checks", "status", "timestamp"])]
#[case::stories_ping("/functions/v1/ping", "ok", &["status", "timestamp"])]
#[case::stories_ping_versioned("/api/v1/ping", "ok", &["status", "timestamp"])]
#[case::receptionist("/functions/v1/twilio-voice-realtime/health", "healthy", &["service", "status"])]
#[case::receptionist_short("/twilio/health", "healthy", &["service", "status"])]
#[case::interviews("/interviews/health", "healthy", &["database", "status", "workers"])]
#[case::live("/health/live", "ok", &["status"])]
#[case::ready("/health/ready", "ready", &["capacity", "checks", "status"])]
#[case::worlds(
    "/api/v1/health", "healthy",
    &["build_id", "database", "migration_version", "status", "timestamp", "version"]
)]
#[tokio::test]
async fn seeds_find_their_own_shape(#[case] path: &str, #[case] word: &str, #[case] expected: &[&str]) {
    let (status, body) = get(&Process::default().router(), path).await;
    assert_eq!(status, 200);
    assert_eq!(body["status"], word);
    let mut found = keys(&body);
    found.sort_unstable();
    assert_eq!(found, expected);
    assert!(PROBES.contains(&path));
}

#[rstest]
#[case("/health", 200, "degraded")]
#[case("/ready", 503, "unready")]
#[case("/health/live", 200, "ok")]
#[case("/health/ready", 503, "unready")]
#[case("/api/health", 503, "error")]
#[case("/functions/v1/health", 503, "degraded")]
#[case("/twilio/health", 503, "unhealthy")]
#[case("/interviews/health", 500, "unhealthy")]
#[case("/api/v1/health", 503, "unhealthy")]
#[tokio::test]
async fn a_lost_database_shows_everywhere(#[case] path: &str, #[case] status: u16, #[case] word: &str) {
    let process = Process::default();
    let router = process.router();
    process.database_down.store(true, Ordering::SeqCst);
    let (found, body) = get(&router, path).await;
    assert_eq!((found, body["status"].as_str()), (status, Some(word)), "{body}");
    process.database_down.store(false, Ordering::SeqCst);
    assert_eq!(get(&router, path).await.0, 200, "it recovers");
}

#[tokio::test]
async fn ready_follows_drain_capacity_and_slow_providers() {
    let process = Process::default();
    let router = process.router();
    let (status, body) = get(&router, "/ready").await;
    assert_eq!((status, &body["status"]), (200, &json!("ready")));
    process.sessions.store(5, Ordering::SeqCst);
    let (status, body) = get(&router, "/ready").await;
    assert_eq!((status, &body["status"]), (503, &json!("full")));
    process.sessions.store(0, Ordering::SeqCst);
    process.provider_slow.store(true, Ordering::SeqCst);
    let (status, body) = get(&router, "/ready").await;
    assert_eq!((status, &body["status"]), (503, &json!("unready")));
    assert_eq!(body["checks"]["openai"]["detail"], "no answer within 100 ms");
    process.provider_slow.store(false, Ordering::SeqCst);
    process.draining.store(true, Ordering::SeqCst);
    let (status, body) = get(&router, "/ready").await;
    assert_eq!((status, &body["status"]), (503, &json!("draining")));
}

#[tokio::test]
async fn many_probes_ask_the_database_once() {
    let process = Process::default();
    let router = process.health(Duration::from_secs(60)).router().split_for_parts().0;
    let probes: Vec<_> = (0..50)
        .map(|_| {
            let router: Router = router.clone();
            tokio::spawn(async move { get(&router, "/health").await.0 })
        })
        .collect();
    for probe in probes {
        assert_eq!(probe.await.unwrap(), 200);
    }
    assert_eq!(process.asked.load(Ordering::SeqCst), 1);
}

#[tokio::test]
async fn metrics_show_the_process_and_what_was_recorded() {
    let installed = Metrics::install("9.9.9", "abc123").unwrap();
    metrics::counter!("http_requests_total", "route" => "/x").increment(3);
    metrics::histogram!("http_request_duration_seconds").record(0.02);
    let router: Router = installed.router().split_for_parts().0;
    let request = Request::get("/metrics").body(Body::empty()).unwrap();
    let response = router.oneshot(request).await.unwrap();
    assert!(response.headers()["content-type"].to_str().unwrap().starts_with("text/plain; version=0.0.4"));
    let body = axum::body::to_bytes(response.into_body(), 1_000_000).await.unwrap();
    let text = String::from_utf8(body.to_vec()).unwrap();
    let value = |name: &str| -> f64 {
        let line =
            text.lines().find(|line| line.starts_with(name)).unwrap_or_else(|| panic!("{name} in {text}"));
        line.rsplit(' ').next().unwrap().parse().unwrap()
    };
    assert_eq!(value("http_requests_total{"), 3.0);
    assert_eq!(value("http_request_duration_seconds_bucket{le=\"0.025\"}"), 1.0);
    assert!(text.contains("longhouse_build_info{"));
    assert!(value("process_resident_memory_bytes ") > 1e6);
    assert!(value("process_open_fds ") >= 3.0);
    assert!(value("process_max_fds ") > 10.0);
    assert!(value("process_cpu_seconds_total ") >= 0.0);
    assert!(value("tokio_workers ") >= 1.0);
    assert!(Metrics::install("9.9.9", "abc123").is_err(), "twice in a process is an error, not a panic");
}

#[test]
fn a_wrong_log_filter_is_explained() {
    let settings =
        longhouse_config::Log { filter: "info,=x=".into(), format: longhouse_config::LogFormat::Json };
    let message = longhouse_operations::logs::init(&settings).unwrap_err().to_string();
    assert!(message.contains("info,=x=") && message.contains("longhouse_voice=debug"), "{message}");
}

#[test]
fn the_documents_are_in_the_openapi_description() {
    let health = Process::default().health(Duration::ZERO);
    let (_, document) = health.router::<()>().split_for_parts();
    let json = serde_json::to_value(&document).unwrap();
    for path in PROBES.iter().filter(|path| **path != "/metrics") {
        assert!(json["paths"][path]["get"].is_object(), "{path} is not described");
    }
    assert!(json["components"]["schemas"]["Alive"].is_object());
}
