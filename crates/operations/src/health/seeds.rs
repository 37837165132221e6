//! The health documents of the five seed applications, at their own paths and in their own shapes, from the
//! same checks. Their deployments' monitors and watchdogs then need no change.

use axum::extract::State;
use axum::http::StatusCode;
use axum::response::Response;
use serde_json::{Map, Value, json};
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

use super::routes::{answer, auth, database, readiness, timestamp, workers};
use super::{Health, Report, Status};

pub(super) fn router() -> OpenApiRouter<Health> {
    OpenApiRouter::new()
        .routes(routes!(npc))
        .routes(routes!(stories))
        .routes(routes!(stories_ping))
        .routes(routes!(stories_ping_versioned))
        .routes(routes!(receptionist))
        .routes(routes!(receptionist_short))
        .routes(routes!(interviews))
        .routes(routes!(live))
        .routes(routes!(live_and_ready))
        .routes(routes!(worlds))
}

fn code(report: &Report) -> StatusCode {
    match report.status() {
        Status::Failed => StatusCode::SERVICE_UNAVAILABLE,
        _ => StatusCode::OK,
    }
}

fn healthy(report: &Report) -> &'static str {
    match report.status() {
        Status::Failed => "unhealthy",
        _ => "healthy",
    }
}

/// Characters: `{status, timestamp, version, storage, auth, sessions}`.
#[utoipa::path(get, path = "/api/health", tag = "health of the applications", responses((status = 200), (status = 503)))]
async fn npc(State(health): State<Health>) -> Response {
    let report = health.report().await;
    let about = health.about();
    let body = json!({
        "status": if report.status() == Status::Failed { "error" } else { "ok" },
        "timestamp": timestamp(),
        "version": about.version,
        "storage": about.storage,
        "auth": auth(&health),
        "sessions": report.capacity.active,
    });
    answer(code(&report), body)
}

/// Stories: `{status: healthy|degraded, checks: {database, storage, openai}, timestamp}`; 503 unless healthy.
#[utoipa::path(get, path = "/functions/v1/health", tag = "health of the applications", responses((status = 200), (status = 503)))]
async fn stories(State(health): State<Health>) -> Response {
    let report = health.report().await;
    let checks: Map<String, Value> = report
        .checks
        .iter()
        .map(|(name, result)| {
            let word = match result.status {
                Status::Ok => "healthy",
                Status::Degraded => "degraded",
                Status::Failed => "unhealthy",
            };
            ((*name).to_owned(), json!(word))
        })
        .collect();
    // This document's `degraded` means 503, so a mere restriction must not be called so.
    let status = if report.status() == Status::Failed { "degraded" } else { "healthy" };
    answer(code(&report), json!({ "status": status, "checks": checks, "timestamp": timestamp() }))
}

/// Stories: alive.
#[utoipa::path(get, path = "/functions/v1/ping", tag = "health of the applications", responses((status = 200)))]
async fn stories_ping() -> Response {
    answer(StatusCode::OK, json!({ "status": "ok", "timestamp": timestamp() }))
}

/// Stories: alive.
#[utoipa::path(get, path = "/api/v1/ping", tag = "health of the applications", responses((status = 200)))]
async fn stories_ping_versioned() -> Response {
    stories_ping().await
}

/// Receptionist: `{status, service}`.
#[utoipa::path(
    get, path = "/functions/v1/twilio-voice-realtime/health", tag = "health of the applications",
    responses((status = 200), (status = 503))
)]
async fn receptionist(State(health): State<Health>) -> Response {
    let report = health.report().await;
    answer(code(&report), json!({ "status": healthy(&report), "service": "twilio-voice-realtime" }))
}

/// Receptionist: `{status, service}`.
#[utoipa::path(get, path = "/twilio/health", tag = "health of the applications", responses((status = 200), (status = 503)))]
async fn receptionist_short(health: State<Health>) -> Response {
    receptionist(health).await
}

/// Interviews: `{status, database, workers}`; 500 with the reason when unhealthy.
#[utoipa::path(get, path = "/interviews/health", tag = "health of the applications", responses((status = 200), (status = 500)))]
async fn interviews(State(health): State<Health>) -> Response {
    let report = health.report().await;
    match report.failure() {
        Some(error) => {
            answer(StatusCode::INTERNAL_SERVER_ERROR, json!({ "status": "unhealthy", "error": error }))
        }
        None => {
            let workers = workers(&report);
            answer(
                StatusCode::OK,
                json!({ "status": "healthy", "database": database(&report), "workers": workers }),
            )
        }
    }
}

/// Alive, without asking any part.
#[utoipa::path(get, path = "/health/live", tag = "health of the applications", responses((status = 200)))]
async fn live() -> Response {
    answer(StatusCode::OK, json!({ "status": "ok" }))
}

/// As `/ready`.
#[utoipa::path(get, path = "/health/ready", tag = "health of the applications", responses((status = 200), (status = 503)))]
async fn live_and_ready(State(health): State<Health>) -> Response {
    readiness(&health.report().await)
}

/// Worlds: `{status, version, timestamp, build_id, migration_version, database}`, which its deployment
/// verification waits for.
#[utoipa::path(get, path = "/api/v1/health", tag = "health of the applications", responses((status = 200), (status = 503)))]
async fn worlds(State(health): State<Health>) -> Response {
    let report = health.report().await;
    let about = health.about();
    let body = json!({
        "status": healthy(&report),
        "version": about.version,
        "timestamp": timestamp(),
        "build_id": about.build_id,
        "migration_version": report.migration_version,
        "database": database(&report),
    });
    answer(code(&report), body)
}
