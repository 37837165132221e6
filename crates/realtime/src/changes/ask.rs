//! Questions that only Postgres can answer, many in one round trip.

use std::collections::HashSet;
use std::sync::Arc;

use bytes::Bytes;
use futures_util::future::BoxFuture;
use futures_util::{StreamExt as _, TryStreamExt as _, stream};
use longhouse_database::batch::{Batch, Command, End, Param};
use longhouse_database::tokio_postgres::error::SqlState;
use longhouse_database::{Claims, Database, Error};

use super::catalog::Column;
use super::compile::{FORMATS, question};
use super::filter::{Compiled, Condition};

/// Questions at once, each on a connection of the pool.
const AT_ONCE: usize = 4;
/// Identities that are asked about in one transaction.
const IDENTITIES: usize = 64;
/// Longest time for the values of one filter.
const FILTER_LIMIT: &str = "500ms";
/// Rows that are asked about in one statement.
const ROWS: usize = 500;

const ASSUME: &str = "select set_config('role', $1, true), set_config('request.jwt.claims', $2, true)";
const SET: &str = "select set_config($1, $2, true)";

/// Which values fulfil a condition.
pub(super) struct FilterQuestion<'q> {
    pub(super) claims: &'q Claims,
    pub(super) compiled: &'q Compiled,
    pub(super) column: &'q Column,
    pub(super) values: Vec<Option<String>>,
    /// Who wants to know, in the order of values.
    pub(super) asked_by: Vec<usize>,
}

impl FilterQuestion<'_> {
    pub(super) fn push(&mut self, value: Option<String>, by: usize) {
        self.values.push(value);
        self.asked_by.push(by);
    }
}

/// Which rows an identity may see.
pub(super) struct PolicyQuestion<'q> {
    pub(super) claims: &'q Claims,
    pub(super) sql: &'q str,
    /// Rows in JSON, each once.
    pub(super) rows: Vec<Arc<str>>,
    /// For each row: entry, and the candidates that want to know.
    pub(super) asked: Vec<(usize, Vec<usize>)>,
}

impl PolicyQuestion<'_> {
    pub(super) fn push(&mut self, entry: usize, candidate: usize, row: impl FnOnce() -> Arc<str>) {
        match self.asked.last_mut() {
            Some((last, candidates)) if *last == entry => candidates.push(candidate),
            _ => {
                self.rows.push(row());
                self.asked.push((entry, vec![candidate]));
            }
        }
    }
}

/// Numbers, counted from 0, of an answer's text: `1,3`.
fn numbers(answer: &str) -> impl Iterator<Item = usize> + '_ {
    answer
        .split(',')
        .filter_map(|number| number.parse::<usize>().ok())
        .filter_map(|number| number.checked_sub(1))
}

/// What was found out about filters.
#[derive(Default)]
pub(super) struct Filtered {
    /// Those who asked about values that do not fulfil their condition.
    pub(super) failed: HashSet<usize>,
    /// Conditions that take too long: a client's pattern must not hold up everybody.
    pub(super) slow: Vec<Condition>,
}

/// Asks about filters.
pub(super) async fn filters(
    database: &Database,
    questions: Vec<FilterQuestion<'_>>,
) -> Result<Filtered, Error> {
    let mut answers: Vec<BoxFuture<'_, _>> = Vec::with_capacity(questions.len());
    for question in &questions {
        answers.push(Box::pin(filter(database, question)));
    }
    let mut answers = stream::iter(answers).buffer_unordered(AT_ONCE);
    let mut all = Filtered::default();
    while let Some((failed, slow)) = answers.try_next().await? {
        all.failed.extend(failed);
        all.slow.extend(slow);
    }
    Ok(all)
}

async fn filter(
    database: &Database,
    asked: &FilterQuestion<'_>,
) -> Result<(Vec<usize>, Option<Condition>), Error> {
    let acting = database.as_role(asked.claims);
    let sql = question(asked.compiled, asked.column);
    let condition = &asked.compiled.condition;
    let params: &[&(dyn longhouse_database::tokio_postgres::types::ToSql + Sync)] =
        &[&asked.values, &condition.value];
    let step = longhouse_database::Step { sql: &sql, params };
    let mut settings = FORMATS.to_vec();
    settings.push(("statement_timeout", FILTER_LIMIT));
    let mut slow = None;
    let passed: HashSet<usize> =
        match acting.pipeline(&settings, &[step], longhouse_database::End::Commit).await {
            Ok(rows) => {
                let answer = rows.first().and_then(|rows| rows.first()).map(|row| row.get::<_, String>(0));
                numbers(&answer.unwrap_or_default()).collect()
            }
            Err(error) if error.sql_state() == Some(&SqlState::QUERY_CANCELED) => {
                tracing::warn!(
                    column = asked.column.name,
                    "a filter takes too long; it lets nothing through any more"
                );
                slow = Some(condition.clone());
                HashSet::new()
            }
            Err(error) if error.is_transient() => return Err(error),
            Err(error) => {
                tracing::warn!(%error, column = asked.column.name, "a filter fails; it lets nothing through");
                HashSet::new()
            }
        };
    let asked_by = asked.asked_by.iter().enumerate();
    Ok((asked_by.filter(|(place, _)| !passed.contains(place)).map(|(_, &by)| by).collect(), slow))
}

/// Entries and candidates that may see them.
pub(super) async fn policies(
    database: &Database,
    questions: Vec<PolicyQuestion<'_>>,
) -> Result<Vec<(usize, usize)>, Error> {
    // Each question in parts of bounded size, and many parts in one transaction.
    let mut parts = Vec::new();
    for question in &questions {
        for (rows, asked) in question.rows.chunks(ROWS).zip(question.asked.chunks(ROWS)) {
            parts.push(Part { claims: question.claims, sql: question.sql, input: array(rows), asked });
        }
    }
    let mut answers: Vec<BoxFuture<'_, _>> = Vec::new();
    for parts in parts.chunks(IDENTITIES) {
        answers.push(Box::pin(together(database, parts)));
    }
    let answers: Vec<Vec<_>> = stream::iter(answers).buffer_unordered(AT_ONCE).try_collect().await?;
    Ok(answers.into_iter().flatten().collect())
}

struct Part<'q> {
    claims: &'q Claims,
    sql: &'q str,
    input: Bytes,
    asked: &'q [(usize, Vec<usize>)],
}

fn array(rows: &[Arc<str>]) -> Bytes {
    let mut out = String::with_capacity(rows.iter().map(|row| row.len() + 1).sum::<usize>() + 2);
    out.push('[');
    out.push_str(&rows.join(","));
    out.push(']');
    out.into()
}

/// Many parts in one transaction. A policy that fails for one identity must not decide about the others: then each is
/// asked by itself.
async fn together(database: &Database, parts: &[Part<'_>]) -> Result<Vec<(usize, usize)>, Error> {
    match run(database, parts).await {
        Ok(answers) => Ok(answers),
        Err(error) if error.is_transient() && error.sql_state() != Some(&SqlState::QUERY_CANCELED) => {
            Err(error)
        }
        Err(error) if parts.len() == 1 => {
            tracing::warn!(%error, role = parts[0].claims.role(), "a policy fails; its rows are not shown");
            Ok(Vec::new())
        }
        Err(_) => {
            let mut answers = Vec::new();
            for part in parts {
                answers.extend(Box::pin(together(database, std::slice::from_ref(part))).await?);
            }
            Ok(answers)
        }
    }
}

async fn run(database: &Database, parts: &[Part<'_>]) -> Result<Vec<(usize, usize)>, Error> {
    let formats: Vec<[Param; 2]> =
        FORMATS.iter().map(|(name, value)| [Param::from(*name), Param::from(*value)]).collect();
    let params: Vec<([Param; 2], [Param; 1])> = parts
        .iter()
        .map(|part| {
            let assume = [Param::from(part.claims.role()), Param::from(part.claims.json())];
            (assume, [Param::Text(Some(part.input.clone()))])
        })
        .collect();
    let mut commands: Vec<Command<'_>> = formats.iter().map(|params| Command { sql: SET, params }).collect();
    for (part, (assume, input)) in parts.iter().zip(&params) {
        commands.push(Command { sql: ASSUME, params: assume });
        commands.push(Command { sql: part.sql, params: input });
    }
    let batch = Batch {
        begin: "begin read only",
        commands: &commands,
        prepared: true,
        end: End::Commit,
        large: None,
    };
    let results = database.batch(&batch).await?;
    let answers = results.rows.into_iter().skip(FORMATS.len()).skip(1).step_by(2);
    let mut visible = Vec::new();
    for (part, rows) in parts.iter().zip(answers) {
        let answer = rows.first().and_then(|row| row.text(0)).unwrap_or_default();
        for place in numbers(&answer) {
            if let Some((entry, candidates)) = part.asked.get(place) {
                visible.extend(candidates.iter().map(|&candidate| (*entry, candidate)));
            }
        }
    }
    Ok(visible)
}
