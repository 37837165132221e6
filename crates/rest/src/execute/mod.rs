//! Runs plans: one transaction, in one network round trip, as the role of the request.
//!
//! # Large results
//! Postgres builds the body, as one value behind everything that status and headers depend on. A body of more than
//! [`LARGE`] bytes is not collected here: status and headers go out when it begins, with its length, and its bytes pass
//! through as the client takes them. So whatever can be refused has been refused before the status, `Content-Range` is
//! exact, and memory here stays flat. Its connection is in use until the client has it all (see
//! [`LargeValue`] for how long that may take). This holds for reads, and for calls of functions that only read. Not for
//! writes, whose answer must not begin before their transaction is committed, nor with `count=planned` or
//! `count=estimated` and `tx=rollback`, where another statement follows; these bodies are collected.

mod answer;

use std::str::FromStr;

use bytes::Bytes;
use longhouse_database::batch::{Batch, Command, End, LargeValue, Results, Row};
use longhouse_database::{Database, Error as DatabaseError};

use crate::config::RestConfig;
use crate::error::{Error, PostgresError};
use crate::plan::{Output, Plan};
use crate::request::{ApiRequest, Count, Mutation};
use crate::schema::SchemaCache;
use crate::sql::{self, Statement};

pub(crate) use answer::{Answer, answer};

/// Bodies up to this many bytes are collected, so that their connection is free for others at once.
const LARGE: usize = 256 * 1024;

/// Columns of the statements that [`crate::sql`] writes.
mod column {
    pub(super) const TOTAL: usize = 0;
    pub(super) const PAGE: usize = 1;
    pub(super) const LOCATION: usize = 2;
    pub(super) const HEADERS: usize = 3;
    pub(super) const STATUS: usize = 4;
    pub(super) const INSERTED: usize = 5;
    pub(super) const BODY: usize = 6;
}

/// Who acts.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Identity {
    /// Postgres role.
    pub role: String,
    /// Claims as JSON text, `role` among them.
    pub claims: String,
    /// The role is not that of visitors.
    pub authenticated: bool,
}

/// Everything that a plan is run with.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Context<'a> {
    pub(crate) database: &'a Database,
    pub(crate) cache: &'a SchemaCache,
    pub(crate) config: &'a RestConfig,
    pub(crate) identity: &'a Identity,
}

/// What the database answered.
#[derive(Debug)]
pub(crate) enum Outcome {
    /// Rows, as one body.
    Rows(ResultSet),
    /// A query plan.
    Explained(Bytes),
    /// The database was not asked.
    Nothing,
}

/// The one row of every statement.
#[derive(Debug, Default)]
pub(crate) struct ResultSet {
    /// Rows there are, where they were counted.
    pub(crate) total: Option<i64>,
    /// Rows in the body.
    pub(crate) page: i64,
    /// `key=eq.value` of the inserted row.
    pub(crate) location: Vec<String>,
    pub(crate) body: Content,
    /// `response.headers`
    pub(crate) headers: Option<String>,
    /// `response.status`
    pub(crate) status: Option<String>,
    /// Rows that were new.
    pub(crate) inserted: Option<i64>,
}

/// A body.
#[derive(Debug)]
pub(crate) enum Content {
    /// All of it.
    Whole(Bytes),
    /// One that Postgres is still sending.
    Large(LargeValue),
}

impl Default for Content {
    fn default() -> Self {
        Self::Whole(Bytes::new())
    }
}

impl ResultSet {
    /// Reads the row of a statement, but for a body that is large.
    fn read(rows: &[Row]) -> Self {
        let Some(row) = rows.first() else { return Self::default() };
        Self {
            total: row.bigint(column::TOTAL),
            page: row.bigint(column::PAGE).unwrap_or_default(),
            location: row.texts(column::LOCATION).unwrap_or_default(),
            body: Content::Whole(row.get(column::BODY).unwrap_or_default()),
            headers: row.text(column::HEADERS),
            status: row.text(column::STATUS),
            inserted: row.bigint(column::INSERTED),
        }
    }
}

/// Runs a plan.
///
/// # Errors
/// Refusals of Postgres, and results that are not what the request insists on; nothing is changed then.
pub(crate) async fn execute(
    context: Context<'_>,
    plan: &Plan,
    request: &ApiRequest,
) -> Result<Outcome, Error> {
    let Context { cache, config, .. } = context;
    let preferences = &request.preferences;
    let mut statements = Vec::with_capacity(4);
    statements.push(settings(context, plan, request));
    if let Some(function) = &config.pre_request {
        statements.push(sql::pre_request(function));
    }
    let main = statements.len();
    let (output, read_only) = match plan {
        Plan::Options(_) | Plan::Describe { .. } => return Ok(Outcome::Nothing),
        Plan::Read(read) => {
            statements.push(sql::read(read, preferences, request.range, config.max_rows));
            let estimated = matches!(preferences.count, Some(Count::Planned | Count::Estimated));
            if estimated && !read.output.is_plan() {
                statements.push(sql::explained_count(read));
            }
            (&read.output, true)
        }
        Plan::Mutate(write) => {
            statements.push(sql::write(write, preferences));
            (&write.output, false)
        }
        Plan::Call(call) => {
            statements.push(sql::call(call, preferences, request.range, config.max_rows));
            (&call.output, call.read_only)
        }
    };
    let accept = |rows: &[Vec<Row>]| {
        rows.get(main).is_some_and(|rows| check(plan, output, request, &ResultSet::read(rows)).is_ok())
    };
    let end = if rolls_back(request, config) {
        End::Rollback
    } else if !read_only && !output.is_plan() && may_refuse(plan, output, request) {
        End::CommitIf(&accept)
    } else {
        End::Commit
    };
    let begin = begin(isolation(plan, context.identity, cache), read_only);
    if config.log_query {
        tracing::info!(method = request.method, path = request.path, sql = statements[main].sql, "query");
    }
    let streams =
        read_only && !output.is_plan() && matches!(end, End::Commit) && statements.len() == main + 1;
    let Results { rows, large } = run(context, begin, &statements, end, streams.then_some(LARGE)).await?;
    let result = rows.get(main).map(Vec::as_slice).unwrap_or_default();
    if output.is_plan() {
        return Ok(Outcome::Explained(explained(result)));
    }
    let mut result = ResultSet::read(result);
    if let Some(large) = large {
        result.body = Content::Large(large);
    }
    check(plan, output, request, &result)?;
    if let Some(explained) = rows.get(main + 1) {
        let planned = planned_rows(explained)?;
        result.total = match (preferences.count, result.total, config.max_rows) {
            (Some(Count::Planned), ..) => planned,
            // Counted up to the limit of a page; beyond it the planner's guess is good enough.
            (Some(Count::Estimated), Some(total), most)
                if most.is_none_or(|most| i128::from(total) > i128::from(most)) =>
            {
                planned.map(|planned| planned.max(total))
            }
            (_, total, _) => total,
        };
    }
    Ok(Outcome::Rows(result))
}

/// Runs another statement as the role of a request, reading only, and returns its rows.
///
/// # Errors
/// Refusals of Postgres.
pub(crate) async fn inspect(
    context: Context<'_>,
    plan: &Plan,
    request: &ApiRequest,
    inspection: Statement,
) -> Result<Vec<Row>, Error> {
    let mut statements = vec![settings(context, plan, request)];
    if let Some(function) = &context.config.pre_request {
        statements.push(sql::pre_request(function));
    }
    statements.push(inspection);
    let begin = begin(isolation(plan, context.identity, context.cache), true);
    let mut results = run(context, begin, &statements, End::Commit, None).await?;
    Ok(results.rows.pop().unwrap_or_default())
}

fn settings(context: Context<'_>, plan: &Plan, request: &ApiRequest) -> Statement {
    let Context { cache, config, identity, .. } = context;
    sql::settings(request, plan, &identity.role, &identity.claims, cache, config)
}

async fn run(
    context: Context<'_>,
    begin: &str,
    statements: &[Statement],
    end: End<'_>,
    large: Option<usize>,
) -> Result<Results, Error> {
    let commands: Vec<Command<'_>> =
        statements.iter().map(|Statement { sql, params }| Command { sql, params }).collect();
    let prepared = context.config.prepared_statements;
    let batch = Batch { begin, commands: &commands, prepared, end, large };
    context.database.batch(&batch).await.map_err(refused)
}

fn refused(error: DatabaseError) -> Error {
    match error {
        DatabaseError::Refused(refusal) => PostgresError::from(*refusal).into(),
        DatabaseError::Lost(error) => Error::Client(Some(error.to_string())),
        DatabaseError::Busy(_) => Error::PoolTimeout,
        DatabaseError::Unavailable(why) => Error::Connection(Some(why)),
        other => Error::Internal(other.to_string()),
    }
}

fn rolls_back(request: &ApiRequest, config: &RestConfig) -> bool {
    match request.preferences.commit {
        Some(commit) => !commit,
        None => config.tx_end.rollback,
    }
}

fn isolation<'a>(plan: &'a Plan, identity: &Identity, cache: &'a SchemaCache) -> &'a str {
    let of_routine = match plan {
        Plan::Call(call) => call.routine.isolation.as_deref(),
        _ => None,
    };
    let of_role = || cache.role_settings.get(&identity.role).and_then(|role| role.isolation.as_deref());
    of_routine.or_else(of_role).unwrap_or("read committed")
}

fn begin(isolation: &str, read_only: bool) -> &'static str {
    match (isolation.to_ascii_lowercase().as_str(), read_only) {
        ("serializable", true) => "begin isolation level serializable read only",
        ("serializable", false) => "begin isolation level serializable read write",
        ("repeatable read", true) => "begin isolation level repeatable read read only",
        ("repeatable read", false) => "begin isolation level repeatable read read write",
        (_, true) => "begin isolation level read committed read only",
        (_, false) => "begin isolation level read committed read write",
    }
}

/// Whether what the statement gives may be refused, although Postgres had no objection.
fn may_refuse(plan: &Plan, output: &Output, request: &ApiRequest) -> bool {
    let is_put = matches!(plan, Plan::Mutate(write) if write.mutation == Mutation::SingleUpsert);
    is_put || output.is_single() || most_affected(request).is_some()
}

fn most_affected(request: &ApiRequest) -> Option<u64> {
    request.preferences.max_affected.filter(|_| request.preferences.strict == Some(true))
}

fn check(plan: &Plan, output: &Output, request: &ApiRequest, result: &ResultSet) -> Result<(), Error> {
    let page = u64::try_from(result.page).unwrap_or_default();
    let mutation = match plan {
        Plan::Mutate(write) => Some(write.mutation),
        _ => None,
    };
    if mutation == Some(Mutation::SingleUpsert) {
        return if page == 1 { Ok(()) } else { Err(Error::PutMatchingKey) };
    }
    if output.is_single() && page != 1 {
        return Err(Error::Singularity(page));
    }
    let limited =
        matches!(plan, Plan::Call(_)) || matches!(mutation, Some(Mutation::Update | Mutation::Delete));
    match most_affected(request) {
        Some(most) if limited && page > most => Err(Error::MaxAffected(page)),
        _ => Ok(()),
    }
}

/// Lines of a query plan.
fn explained(rows: &[Row]) -> Bytes {
    let mut text = Vec::new();
    for line in rows.iter().filter_map(|row| row.get(0)) {
        text.extend_from_slice(&line);
        text.push(b'\n');
    }
    text.into()
}

/// Rows that the planner expects.
fn planned_rows(rows: &[Row]) -> Result<Option<i64>, Error> {
    let Some(plan) = rows.first().and_then(|row| row.text(0)) else { return Ok(None) };
    let plan = serde_json::Value::from_str(&plan)
        .map_err(|error| Error::Internal(format!("a query plan is not JSON: {error}")))?;
    Ok(plan.pointer("/0/Plan/Plan Rows").and_then(serde_json::Value::as_i64))
}
