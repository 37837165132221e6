//! One server from its first start to its end.

use std::fs;
use std::os::unix::fs::PermissionsExt;

use serde_json::Value;

use crate::project::Project;
use crate::{stderr, stdout};

#[tokio::test]
async fn serves_reports_and_stops() {
    let project = Project::new();
    let server = project.serve();

    let mode = |name: &str| fs::metadata(project.path(name)).unwrap().permissions().mode() & 0o777;
    // Nobody else may look into the folder; root's Postgres may pass through it.
    assert_eq!((mode(".longhouse") & 0o766, mode(".longhouse/run.json")), (0o700, 0o600));

    let output = project.run(&["status", "--json"]);
    assert!(output.status.success(), "{}", stderr(&output));
    let status: Value = serde_json::from_slice(&output.stdout).unwrap();
    assert_eq!(status["HEALTH"]["status"], "ready", "{status}");
    assert_eq!(status["HEALTH"]["checks"]["database"]["status"], "ok");
    assert_eq!(status["PID"], server.id());
    let people = stdout(&project.run(&["status"]));
    for label in ["API URL", "DB URL", "Publishable key", "service_role key", "JWT secret", "database: ok"] {
        assert!(people.contains(label), "{label} in\n{people}");
    }

    let url = |path: &str| format!("{}{path}", status["API_URL"].as_str().unwrap());
    let client = reqwest::Client::builder().no_proxy().build().unwrap();
    let health: Value = client.get(url("/health")).send().await.unwrap().json().await.unwrap();
    assert_eq!((health["status"].as_str(), health["build_id"].is_string()), (Some("ok"), true), "{health}");
    assert!(health["migration_version"].is_string(), "the receptionist's schema: {health}");

    let metrics = client.get(url("/metrics")).send().await.unwrap().text().await.unwrap();
    assert!(metrics.contains("http_requests_total{") && metrics.contains("process_resident_memory_bytes"));
    // Somebody whom a proxy on this machine speaks for is not this machine.
    let ask = |key: &str| {
        client
            .get(url("/metrics"))
            .header("x-forwarded-for", "203.0.113.7")
            .bearer_auth(key.to_owned())
            .send()
    };
    assert_eq!(ask("forged").await.unwrap().status(), 401);
    assert_eq!(ask(status["ANON_KEY"].as_str().unwrap()).await.unwrap().status(), 403);
    assert_eq!(ask(status["SERVICE_ROLE_KEY"].as_str().unwrap()).await.unwrap().status(), 200);

    let document: Value = client.get(url("/openapi.json")).send().await.unwrap().json().await.unwrap();
    assert!(document["paths"]["/metrics"].is_object());
    assert!(document["paths"]["/functions/v1/twilio-router"].is_object(), "the applications are described");
    assert_eq!(client.get(url("/nowhere")).send().await.unwrap().status(), 404);

    let second = project.run(&["serve", "--port", "0"]);
    assert_eq!(second.status.code(), Some(1));
    assert!(stderr(&second).contains("already runs"), "{}", stderr(&second));

    let stopped = project.run(&["stop"]);
    assert!(stopped.status.success(), "{}", stderr(&stopped));
    let (code, banner, log) = server.wait();
    assert_eq!(code, Some(0), "{log}");
    assert!(!project.path(".longhouse/run.json").exists());
    assert_eq!(project.run(&["status"]).status.code(), Some(3));

    assert!(banner.contains("is ready") && banner.contains("longhouse call"), "{banner}");
    assert!(
        log.lines().all(|line| serde_json::from_str::<Value>(line).is_ok()),
        "JSON off a terminal:\n{log}"
    );
    assert!(log.contains("ready in"), "{log}");
    for name in ["SERVICE_ROLE_KEY", "SECRET_KEY", "JWT_SECRET"] {
        let secret = status[name].as_str().unwrap();
        assert!(!banner.contains(secret) && !log.contains(secret), "{name} is in the output");
    }
}
