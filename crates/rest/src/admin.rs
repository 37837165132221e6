//! The admin server of an API that stands alone, with the paths of PostgREST's: `/live`, `/ready`, `/schema_cache`,
//! `/metrics`. It answers anybody, so it belongs on an address that only operators reach.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use axum::extract::State;
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use axum::{Json, Router};
use http::{StatusCode, header};
use longhouse_database::Database;
use longhouse_database::batch::{Batch, Command, End};
use tokio::net::TcpStream;
use tokio::sync::watch;
use tokio::time::timeout;

use crate::schema::SchemaCache;

/// A probe that takes longer has its answer.
const PATIENCE: Duration = Duration::from_secs(3);

/// Renders what the process records, in Prometheus' text format.
pub type RenderMetrics = Arc<dyn Fn() -> String + Send + Sync>;

/// What the admin server tells about.
#[derive(Clone)]
pub struct Admin {
    /// The API's database.
    pub database: Database,
    /// The API's schema cache.
    pub cache: watch::Receiver<Arc<SchemaCache>>,
    /// Where the API listens.
    pub api: SocketAddr,
    /// The process's metrics.
    pub metrics: RenderMetrics,
}

impl std::fmt::Debug for Admin {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter.debug_struct("Admin").field("api", &self.api).finish_non_exhaustive()
    }
}

impl Admin {
    /// Its routes.
    pub fn router(self) -> Router {
        Router::new()
            .route("/live", get(live))
            .route("/ready", get(ready))
            .route("/schema_cache", get(schema_cache))
            .route("/metrics", get(metrics))
            .with_state(self)
    }

    /// Whether the API's socket takes connections.
    async fn is_live(&self) -> bool {
        matches!(timeout(PATIENCE, TcpStream::connect(reachable(self.api))).await, Ok(Ok(_)))
    }

    /// Whether the database answers.
    async fn is_ready(&self) -> bool {
        let ask = [Command { sql: "select", params: &[] }];
        let batch = Batch { begin: "begin", commands: &ask, prepared: false, end: End::Commit, large: None };
        matches!(timeout(PATIENCE, self.database.batch(&batch)).await, Ok(Ok(_)))
    }
}

/// The address by which this machine reaches a socket that listens on every address.
fn reachable(mut address: SocketAddr) -> SocketAddr {
    match address.ip() {
        IpAddr::V4(ip) if ip.is_unspecified() => address.set_ip(Ipv4Addr::LOCALHOST.into()),
        IpAddr::V6(ip) if ip.is_unspecified() => address.set_ip(Ipv6Addr::LOCALHOST.into()),
        _ => {}
    }
    address
}

async fn live(State(admin): State<Admin>) -> StatusCode {
    if admin.is_live().await { StatusCode::OK } else { StatusCode::INTERNAL_SERVER_ERROR }
}

async fn ready(State(admin): State<Admin>) -> StatusCode {
    match (admin.is_live().await, admin.is_ready().await) {
        (false, _) => StatusCode::INTERNAL_SERVER_ERROR,
        (true, false) => StatusCode::SERVICE_UNAVAILABLE,
        (true, true) => StatusCode::OK,
    }
}

async fn schema_cache(State(admin): State<Admin>) -> Json<serde_json::Value> {
    let cache = admin.cache.borrow().clone();
    Json(cache.to_json())
}

async fn metrics(State(admin): State<Admin>) -> Response {
    let (in_use, _, most) = admin.database.batch_status();
    metrics::gauge!("pgrst_db_pool_max").set(most as f64);
    metrics::gauge!("pgrst_db_pool_available").set((most - in_use.min(most)) as f64);
    ([(header::CONTENT_TYPE, "text/plain; version=0.0.4")], (admin.metrics)()).into_response()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_socket_on_every_address_is_reached_on_this_machine() {
        for (listens, reached) in
            [("0.0.0.0:3000", "127.0.0.1:3000"), ("[::]:80", "[::1]:80"), ("10.0.0.7:3000", "10.0.0.7:3000")]
        {
            assert_eq!(reachable(listens.parse().expect("an address")).to_string(), reached);
        }
    }
}
