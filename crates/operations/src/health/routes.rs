//! `/health` and `/ready`.

use std::collections::BTreeMap;

use axum::Json;
use axum::extract::State;
use axum::http::StatusCode;
use axum::http::header::CACHE_CONTROL;
use axum::response::{IntoResponse, Response};
use chrono::{SecondsFormat, Utc};
use serde::Serialize;
use utoipa::ToSchema;
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

use super::{CheckResult, Health, Report, Status, seeds};

/// Every route that probes ask: to be exempt from rate limits and kept out of the access log.
pub const PROBES: &[&str] = &[
    "/health",
    "/ready",
    "/metrics",
    "/health/live",
    "/health/ready",
    "/api/health",
    "/api/v1/health",
    "/api/v1/ping",
    "/functions/v1/health",
    "/functions/v1/ping",
    "/functions/v1/twilio-voice-realtime/health",
    "/twilio/health",
    "/interviews/health",
];

/// `GET /health`: a superset of what the five seeds' `/health` documents hold, so that their monitors keep
/// working. The seeds disagree on `status`; here it is `ok` or `degraded`.
#[derive(Debug, Serialize, ToSchema)]
pub(super) struct Alive {
    /// `ok`, or `degraded` when a check is not ok.
    #[schema(example = "ok")]
    status: &'static str,
    /// Always `longhouse`.
    service: &'static str,
    version: &'static str,
    /// Commit that the server was built from.
    build_id: String,
    /// Latest migration of the database; null until it is known.
    migration_version: Option<String>,
    timestamp: String,
    uptime_seconds: u64,
    /// `local`, `s3` or `supabase`.
    storage: &'static str,
    /// `enabled` or `disabled`.
    auth: &'static str,
    /// `connected` or `disconnected`.
    database: &'static str,
    /// Calls and conversations in progress.
    sessions: usize,
    workers: Workers,
    checks: BTreeMap<&'static str, CheckResult>,
}

/// Sessions in progress and allowed.
#[derive(Debug, Serialize, ToSchema)]
pub(super) struct Workers {
    active: usize,
    /// Null when unbounded.
    max: Option<usize>,
}

/// `GET /ready`.
#[derive(Debug, Serialize, ToSchema)]
pub(super) struct Ready {
    /// `ready`, `degraded` (traffic is welcome), `full`, `draining` or `unready`.
    #[schema(example = "ready")]
    status: &'static str,
    capacity: Workers,
    checks: BTreeMap<&'static str, CheckResult>,
}

impl Health {
    /// `/health`, `/ready` and the seeds' own health paths.
    pub fn router<S: Clone + Send + Sync + 'static>(&self) -> OpenApiRouter<S> {
        OpenApiRouter::new()
            .routes(routes!(alive))
            .routes(routes!(ready))
            .merge(seeds::router())
            .with_state(self.clone())
    }
}

pub(super) fn timestamp() -> String {
    Utc::now().to_rfc3339_opts(SecondsFormat::Millis, true)
}

pub(super) fn workers(report: &Report) -> Workers {
    let max = Some(report.capacity.max).filter(|max| *max != usize::MAX);
    Workers { active: report.capacity.active, max }
}

pub(super) fn auth(health: &Health) -> &'static str {
    if health.about().auth_enabled { "enabled" } else { "disabled" }
}

pub(super) fn database(report: &Report) -> &'static str {
    if report.status_of("database") == Some(Status::Failed) { "disconnected" } else { "connected" }
}

/// An answer that no proxy keeps.
pub(super) fn answer(status: StatusCode, body: impl Serialize) -> Response {
    (status, [(CACHE_CONTROL, "no-store")], Json(body)).into_response()
}

/// Whether the process is alive, and how its parts are. Always 200: a restart mends none of them.
#[utoipa::path(get, path = "/health", tag = "operations", responses((status = 200, body = Alive)))]
async fn alive(State(health): State<Health>) -> Response {
    let report = health.report().await;
    let about = health.about();
    let body = Alive {
        status: if report.status() == Status::Ok { "ok" } else { "degraded" },
        service: "longhouse",
        version: about.version,
        build_id: about.build_id.clone(),
        migration_version: report.migration_version.clone(),
        timestamp: timestamp(),
        uptime_seconds: report.uptime.as_secs(),
        storage: about.storage,
        auth: auth(&health),
        database: database(&report),
        sessions: report.capacity.active,
        workers: workers(&report),
        checks: report.checks,
    };
    answer(StatusCode::OK, body)
}

/// Whether traffic should be sent here.
#[utoipa::path(
    get, path = "/ready", tag = "operations",
    responses(
        (status = 200, body = Ready),
        (status = 503, body = Ready, description = "A check failed, no session is free, or the server is stopping")
    )
)]
async fn ready(State(health): State<Health>) -> Response {
    readiness(&health.report().await)
}

pub(super) fn readiness(report: &Report) -> Response {
    let status = match report.status() {
        _ if report.draining => "draining",
        Status::Failed => "unready",
        _ if !report.has_capacity() => "full",
        Status::Degraded => "degraded",
        Status::Ok => "ready",
    };
    let code = if report.is_ready() { StatusCode::OK } else { StatusCode::SERVICE_UNAVAILABLE };
    answer(code, Ready { status, capacity: workers(report), checks: report.checks.clone() })
}
