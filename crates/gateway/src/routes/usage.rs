//! What the caller consumed, and what is left.

use std::sync::Arc;

use axum::Json;
use axum::extract::{Query, State};
use chrono::NaiveDate;
use longhouse_server::ApiError;
use serde::{Deserialize, Serialize};
use utoipa::{IntoParams, ToSchema};

use super::{Api, Caller, error};
use crate::quotas::Used;
use crate::schema;

const USAGE: &str = "
    select (created_at at time zone 'utc')::date, app, task, coalesce(provider, ''), coalesce(model, ''), count(*),
      count(*) filter (where status = 'failed'), count(*) filter (where cached), sum(input_tokens)::bigint,
      sum(output_tokens)::bigint, sum(audio_ms)::bigint, sum(characters)::bigint, sum(images)::bigint,
      coalesce(sum(cost_nano_usd), 0)::float8 / 1e9, bool_or(estimated), bool_or(cost_nano_usd is null)
    from ai.calls
    where created_at >= date_trunc('day', now() at time zone 'utc') at time zone 'utc' - make_interval(days => $1 - 1)
    group by 1, 2, 3, 4, 5 order by 1 desc, 2, 3, 4, 5 limit 5000";

/// Which days.
#[derive(Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub(super) struct Days {
    /// How many days, today (UTC) included: 1 to 366. Default 30.
    days: Option<i32>,
}

/// What was consumed on a day by one task with one model.
#[derive(Serialize, ToSchema)]
pub(super) struct UsageOfDay {
    /// UTC.
    day: NaiveDate,
    /// The application.
    app: String,
    /// The task.
    task: String,
    /// The provider; empty where none was asked.
    provider: String,
    /// The model.
    model: String,
    /// Calls.
    calls: i64,
    /// Of those, failed.
    failed: i64,
    /// Of those, answered from the cache.
    cached: i64,
    /// Tokens of prompts.
    input_tokens: i64,
    /// Tokens of answers.
    output_tokens: i64,
    /// Milliseconds of audio.
    audio_ms: i64,
    /// Characters spoken.
    characters: i64,
    /// Pictures.
    images: i64,
    /// At list price, in US dollars.
    cost_usd: f64,
    /// Whether some amounts are our estimates, because the provider did not say.
    estimated: bool,
    /// Whether some calls have no known price and are missing in `cost_usd`.
    unpriced: bool,
}

/// Tells what the caller consumed, day by day; servers of the project see everybody's.
#[utoipa::path(
    get, path = "/ai/v1/usage", tag = "ai", params(Days),
    responses((status = 200, body = Vec<UsageOfDay>), (status = 401, description = "No valid key or token")),
)]
pub(super) async fn usage(
    State(api): State<Arc<Api>>,
    caller: Caller,
    Query(Days { days }): Query<Days>,
) -> Result<Json<Vec<UsageOfDay>>, ApiError> {
    let days = days.unwrap_or(30);
    if !(1..=366).contains(&days) {
        return Err(error::invalid("`days` must be between 1 and 366"));
    }
    let rows = api.options.database.as_role(&caller.claims).query(USAGE, &[&days]).await;
    let rows = rows.map_err(|failure| error::of(schema::records(failure)))?;
    let usage = rows.iter().map(|row| UsageOfDay {
        day: row.get(0),
        app: row.get(1),
        task: row.get(2),
        provider: row.get(3),
        model: row.get(4),
        calls: row.get(5),
        failed: row.get(6),
        cached: row.get(7),
        input_tokens: row.get(8),
        output_tokens: row.get(9),
        audio_ms: row.get(10),
        characters: row.get(11),
        images: row.get(12),
        cost_usd: row.get(13),
        estimated: row.get(14),
        unpriced: row.get(15),
    });
    Ok(Json(usage.collect()))
}

/// Tells the caller's own limits and what is used of them.
#[utoipa::path(
    get, path = "/ai/v1/quotas", tag = "ai",
    responses((status = 200, body = Vec<Used>), (status = 401, description = "No valid key or token")),
)]
pub(super) async fn quotas(State(api): State<Arc<Api>>, caller: Caller) -> Result<Json<Vec<Used>>, ApiError> {
    let owner = caller.owner(None)?;
    api.options.quotas.used(&owner).await.map(Json).map_err(error::of)
}
