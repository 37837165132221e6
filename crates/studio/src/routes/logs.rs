//! `GET /studio/v1/logs`: what the server that answers has logged lately.

use axum::Json;
use axum::extract::{Query, State};
use longhouse_operations::logs::{Level, LogEntry};
use serde::{Deserialize, Serialize};
use utoipa::{IntoParams, ToSchema};

use crate::{Error, Studio};

/// Entries of one answer.
const MOST: usize = 500;

/// Which entries.
#[derive(Debug, Deserialize, IntoParams)]
#[into_params(parameter_in = Query)]
pub(crate) struct Wanted {
    /// The least important: `error`, `warn`, `info` (the default), `debug` or `trace`.
    #[param(nullable = false)]
    level: Option<Level>,
    /// Only entries with this text, whatever its case.
    #[serde(default)]
    #[param(required = false)]
    search: String,
    /// Only entries after this number.
    #[serde(default)]
    #[param(required = false)]
    after: u64,
    /// 1 to 500; default 200.
    #[param(nullable = false)]
    limit: Option<usize>,
}

/// What was logged, newest first.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct Logs {
    entries: Vec<LogEntry>,
    /// How many entries the server keeps at most.
    kept: usize,
}

#[utoipa::path(
    get, path = "/studio/v1/logs", tag = "studio", params(Wanted),
    responses((status = 200, body = Logs), (status = 401), (status = 403, description = "Not an operator"))
)]
pub(crate) async fn logs(
    State(studio): State<Studio>,
    Query(wanted): Query<Wanted>,
) -> Result<Json<Logs>, Error> {
    let limit = wanted.limit.unwrap_or(200);
    if !(1..=MOST).contains(&limit) {
        return Err(Error::Parameter("`limit` is 1 to 500"));
    }
    let logs = &studio.inner.logs;
    let entries = logs.newest(wanted.level.unwrap_or(Level::Info), &wanted.search, wanted.after, limit);
    Ok(Json(Logs { entries, kept: logs.most() }))
}
