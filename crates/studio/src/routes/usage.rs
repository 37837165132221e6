//! `GET /studio/v1/usage`: what model calls consumed and cost, of the gateway's ledger.

use axum::Json;
use axum::extract::{Query, State};
use chrono::NaiveDate;
use longhouse_database::{Database, ServiceReason};
use serde::{Deserialize, Serialize};
use tokio_postgres::Row;
use utoipa::{IntoParams, ToSchema};

use crate::{Error, Studio};

const REASON: ServiceReason = ServiceReason::because("the Studio sums the model calls of everybody");
/// Models of one answer; the cheapest are left off.
const MOST: i64 = 100;

/// How far back.
#[derive(Debug, Deserialize, IntoParams)]
#[into_params(parameter_in = Query)]
pub(crate) struct Wanted {
    /// Days up to today (UTC), 1 to 366; default 30.
    #[param(nullable = false)]
    days: Option<i32>,
}

/// What was consumed. Everything is empty where no gateway has been at work.
#[derive(Debug, Default, Serialize, ToSchema)]
pub(crate) struct Usage {
    /// Each day, also those without a call, oldest first.
    days: Vec<Day>,
    /// The dearest first, at most 100.
    models: Vec<ModelUse>,
}

/// A day's calls.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct Day {
    day: NaiveDate,
    calls: i64,
    failed: i64,
    /// At list price, in US dollars.
    cost_usd: f64,
    /// Of it, on the project's own keys.
    platform_cost_usd: f64,
}

/// What one task used of one model.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct ModelUse {
    app: String,
    task: String,
    /// Null for calls that reached none.
    provider: Option<String>,
    model: Option<String>,
    calls: i64,
    failed: i64,
    cached: i64,
    /// Calls whose price is not known: they are not in the cost.
    unpriced: i64,
    input_tokens: i64,
    output_tokens: i64,
    audio_ms: i64,
    /// At list price, in US dollars.
    cost_usd: f64,
    mean_latency_ms: i64,
}

#[utoipa::path(
    get, path = "/studio/v1/usage", tag = "studio", params(Wanted),
    responses(
        (status = 200, body = Usage), (status = 400, description = "Impossible parameters"), (status = 401),
        (status = 403, description = "Not an operator")
    )
)]
pub(crate) async fn usage(
    State(studio): State<Studio>,
    Query(wanted): Query<Wanted>,
) -> Result<Json<Usage>, Error> {
    let days = wanted.days.unwrap_or(30);
    if !(1..=366).contains(&days) {
        return Err(Error::Parameter("`days` is 1 to 366"));
    }
    let database = &studio.inner.database;
    if !has_ledger(database).await? {
        return Ok(Json(Usage::default()));
    }
    Ok(Json(Usage { days: by_day(database, days).await?, models: by_model(database, days).await? }))
}

async fn has_ledger(database: &Database) -> Result<bool, Error> {
    const SQL: &str = "select to_regclass('ai.usage_by_day') is not null";
    let row = database.as_service(REASON).query_opt(SQL, &[]).await?;
    Ok(row.is_some_and(|row| row.get(0)))
}

async fn by_day(database: &Database, days: i32) -> Result<Vec<Day>, Error> {
    const SQL: &str = "select d.day, coalesce(sum(u.calls), 0)::bigint, coalesce(sum(u.failed), 0)::bigint,
            coalesce(sum(u.cost_usd), 0)::float8, coalesce(sum(u.platform_cost_usd), 0)::float8
        from (select (now() at time zone 'utc')::date - n as day from generate_series(0, $1::integer - 1) n) d
        left join ai.usage_by_day u on u.day = d.day and u.day > (now() at time zone 'utc')::date - $1::integer
        group by d.day order by d.day";
    let rows = database.as_service(REASON).query(SQL, &[&days]).await?;
    let day = |row: &Row| Day {
        day: row.get(0),
        calls: row.get(1),
        failed: row.get(2),
        cost_usd: row.get(3),
        platform_cost_usd: row.get(4),
    };
    Ok(rows.iter().map(day).collect())
}

async fn by_model(database: &Database, days: i32) -> Result<Vec<ModelUse>, Error> {
    const SQL: &str = "select app, task, provider, model, sum(calls)::bigint, sum(failed)::bigint,
            sum(cached)::bigint, sum(unpriced)::bigint, sum(input_tokens)::bigint, sum(output_tokens)::bigint,
            sum(audio_ms)::bigint, sum(cost_usd)::float8,
            (sum(mean_latency_ms * calls) / greatest(sum(calls), 1))::bigint
        from ai.usage_by_day where day > (now() at time zone 'utc')::date - $1::integer
        group by 1, 2, 3, 4 order by 12 desc, 5 desc, 1, 2 limit $2";
    let rows = database.as_service(REASON).query(SQL, &[&days, &MOST]).await?;
    let used = |row: &Row| ModelUse {
        app: row.get(0),
        task: row.get(1),
        provider: row.get(2),
        model: row.get(3),
        calls: row.get(4),
        failed: row.get(5),
        cached: row.get(6),
        unpriced: row.get(7),
        input_tokens: row.get(8),
        output_tokens: row.get(9),
        audio_ms: row.get(10),
        cost_usd: row.get(11),
        mean_latency_ms: row.get(12),
    };
    Ok(rows.iter().map(used).collect())
}
