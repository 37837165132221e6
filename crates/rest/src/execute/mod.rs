//! Runs plans: one transaction, in one network round trip, as the role of the request.

mod answer;

use std::error::Error as StdError;
use std::str::FromStr;

use bytes::Bytes;
use longhouse_database::{Database, End, Error as DatabaseError, Pipeline, Step};
use tokio_postgres::Row;
use tokio_postgres::types::{FromSql, Kind, ToSql, Type};

use crate::config::RestConfig;
use crate::error::Error;
use crate::plan::{Output, Plan};
use crate::request::{ApiRequest, Count, Mutation};
use crate::schema::SchemaCache;
use crate::sql::{self, Statement};

pub(crate) use answer::{Answer, answer};

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
    pub(crate) body: Bytes,
    /// `response.headers`
    pub(crate) headers: Option<String>,
    /// `response.status`
    pub(crate) status: Option<String>,
    /// Rows that were new.
    pub(crate) inserted: Option<i64>,
}

/// Any value, as Postgres sends it.
struct Raw<'a>(&'a [u8]);

impl<'a> FromSql<'a> for Raw<'a> {
    fn from_sql(of: &Type, raw: &'a [u8]) -> Result<Self, Box<dyn StdError + Sync + Send>> {
        let mut base = of;
        while let Kind::Domain(inner) = base.kind() {
            base = inner;
        }
        // The binary form of jsonb is its text behind a version.
        Ok(Self(if *base == Type::JSONB { raw.get(1..).unwrap_or_default() } else { raw }))
    }

    fn accepts(_: &Type) -> bool {
        true
    }
}

impl ResultSet {
    fn read(rows: &[Row]) -> Result<Self, tokio_postgres::Error> {
        let Some(row) = rows.first() else { return Ok(Self::default()) };
        Ok(Self {
            total: row.try_get("total_result_set")?,
            page: row.try_get("page_total")?,
            location: row.try_get("location")?,
            body: row
                .try_get::<_, Option<Raw<'_>>>("body")?
                .map(|raw| Bytes::copy_from_slice(raw.0))
                .unwrap_or_default(),
            headers: row.try_get("response_headers")?,
            status: row.try_get("response_status")?,
            inserted: row.try_get("response_inserted")?,
        })
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
        rows.get(main)
            .and_then(|rows| ResultSet::read(rows).ok())
            .is_some_and(|result| check(plan, output, request, &result).is_ok())
    };
    let end = if rolls_back(request, config) {
        End::Rollback
    } else if !read_only && !output.is_plan() && may_refuse(plan, output, request) {
        End::CommitIf(&accept)
    } else {
        End::Commit
    };
    let begin = begin(isolation(plan, context.identity, cache), read_only);
    let rows = run(context, begin, &statements, end).await?;
    let result = rows.get(main).map(Vec::as_slice).unwrap_or_default();
    if output.is_plan() {
        return explained(result).map(Outcome::Explained);
    }
    let mut result = ResultSet::read(result).map_err(unreadable)?;
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
    let mut rows = run(context, begin, &statements, End::Commit).await?;
    Ok(rows.pop().unwrap_or_default())
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
) -> Result<Vec<Vec<Row>>, Error> {
    let params: Vec<Vec<&(dyn ToSql + Sync)>> = statements
        .iter()
        .map(|statement| statement.params.iter().map(|param| param as &(dyn ToSql + Sync)).collect())
        .collect();
    let steps: Vec<Step<'_>> = statements
        .iter()
        .zip(&params)
        .map(|(statement, params)| Step { sql: &statement.sql, params })
        .collect();
    let pipeline = Pipeline { begin, steps: &steps, prepared: context.config.prepared_statements, end };
    context.database.pipeline(&pipeline).await.map_err(refused)
}

fn refused(error: DatabaseError) -> Error {
    match error {
        DatabaseError::Query(error) => Error::from(error),
        DatabaseError::Busy(_) => Error::PoolTimeout,
        DatabaseError::Unavailable(why) => Error::Connection(Some(why)),
        other => Error::Internal(other.to_string()),
    }
}

fn unreadable(error: tokio_postgres::Error) -> Error {
    Error::Internal(format!("a result of the database cannot be read: {error}"))
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
fn explained(rows: &[Row]) -> Result<Bytes, Error> {
    let mut text = Vec::new();
    for row in rows {
        let line: Raw<'_> = row.try_get(0).map_err(unreadable)?;
        text.extend_from_slice(line.0);
        text.push(b'\n');
    }
    Ok(text.into())
}

/// Rows that the planner expects.
fn planned_rows(rows: &[Row]) -> Result<Option<i64>, Error> {
    let Some(row) = rows.first() else { return Ok(None) };
    let plan: Raw<'_> = row.try_get(0).map_err(unreadable)?;
    let plan = serde_json::Value::from_str(&String::from_utf8_lossy(plan.0))
        .map_err(|error| Error::Internal(format!("a query plan is not JSON: {error}")))?;
    Ok(plan.pointer("/0/Plan/Plan Rows").and_then(serde_json::Value::as_i64))
}
