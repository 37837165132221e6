//! `GET /studio/v1/audit`: what operators did.

use axum::Json;
use axum::extract::{Query, State};
use chrono::{DateTime, Utc};
use longhouse_database::ServiceReason;
use serde::{Deserialize, Serialize};
use tokio_postgres::Row;
use utoipa::{IntoParams, ToSchema};

use crate::{Error, Studio};

/// Entries of one answer.
const MOST: i64 = 100;

/// Which entries.
#[derive(Debug, Deserialize, IntoParams)]
#[into_params(parameter_in = Query)]
pub(crate) struct Wanted {
    /// Only entries before this number.
    #[param(nullable = false)]
    before: Option<i64>,
}

/// A request of an operator.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct AuditEntry {
    id: i64,
    at: DateTime<Utc>,
    operator: String,
    /// HTTP method.
    action: String,
    /// Path.
    target: String,
    /// Of the answer; null when none was given yet, or the server died.
    status: Option<i32>,
    client: Option<String>,
}

#[utoipa::path(
    get, path = "/studio/v1/audit", tag = "studio", params(Wanted),
    responses(
        (status = 200, body = [AuditEntry], description = "At most 100, newest first"), (status = 401),
        (status = 403, description = "Not an operator")
    )
)]
pub(crate) async fn entries(
    State(studio): State<Studio>,
    Query(wanted): Query<Wanted>,
) -> Result<Json<Vec<AuditEntry>>, Error> {
    const SQL: &str = "select id, at, operator_email, action, target, status, host(client)
        from longhouse.studio_audit where id < $1 order by id desc limit $2";
    let reason = ServiceReason::because("the audit of operators belongs to nobody");
    let before = wanted.before.unwrap_or(i64::MAX);
    let rows = studio.inner.database.as_service(reason).query(SQL, &[&before, &MOST]).await?;
    let entry = |row: &Row| AuditEntry {
        id: row.get(0),
        at: row.get(1),
        operator: row.get(2),
        action: row.get(3),
        target: row.get(4),
        status: row.get(5),
        client: row.get(6),
    };
    Ok(Json(rows.iter().map(entry).collect()))
}
