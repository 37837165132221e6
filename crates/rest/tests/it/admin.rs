//! The admin server of an API that stands alone.

use std::sync::Arc;

use axum::body::Body;
use http::{Request, StatusCode};
use http_body_util::BodyExt as _;
use longhouse_rest::admin::Admin;
use longhouse_rest::config::RestConfig;
use serde_json::Value;
use tokio::net::TcpListener;
use tower::ServiceExt as _;

use crate::api::Fixture;

#[tokio::test]
async fn probes_follow_the_api_and_its_database() {
    let fixture = Fixture::new(RestConfig::default()).await;
    let listener = TcpListener::bind("0.0.0.0:0").await.expect("binds");
    let admin = Admin {
        database: fixture.pool.clone(),
        cache: fixture.reloader.cache(),
        api: listener.local_addr().expect("an address"),
        metrics: Arc::new(|| "figures\n".to_owned()),
    };
    let get = async |path: &str| {
        let request = Request::get(path).body(Body::empty()).expect("a request");
        let (parts, body) = admin.clone().router().oneshot(request).await.expect("answers").into_parts();
        (parts.status, body.collect().await.expect("a body").to_bytes())
    };
    assert_eq!((get("/live").await.0, get("/ready").await.0), (StatusCode::OK, StatusCode::OK));
    assert_eq!(get("/metrics").await, (StatusCode::OK, "figures\n".into()));
    assert_eq!(get("/notes").await.0, StatusCode::NOT_FOUND, "the API is elsewhere");
    let cache: Value = serde_json::from_slice(&get("/schema_cache").await.1).expect("JSON");
    let tables: Vec<&str> = cache["tables"]
        .as_array()
        .expect("tables")
        .iter()
        .filter_map(|table| table["name"]["name"].as_str())
        .collect();
    assert_eq!(tables, ["notes", "shelves"]);

    fixture.without_database().await;
    assert_eq!(
        (get("/live").await.0, get("/ready").await.0),
        (StatusCode::OK, StatusCode::SERVICE_UNAVAILABLE)
    );
    drop(listener);
    assert_eq!(get("/live").await.0, StatusCode::INTERNAL_SERVER_ERROR);
    assert_eq!(get("/ready").await.0, StatusCode::INTERNAL_SERVER_ERROR);
}
