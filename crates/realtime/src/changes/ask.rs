//! Questions that only Postgres can answer, many in one round trip.

use std::collections::HashSet;
use std::sync::Arc;

use bytes::Bytes;
use futures_util::future::BoxFuture;
use futures_util::{StreamExt as _, TryStreamExt as _, stream};
use longhouse_database::batch::{Batch, Command, End, Param};
use longhouse_database::{Claims, Database, Error};

use super::catalog::Column;
use super::compile::{FORMATS, question};
use super::filter::Compiled;

/// Questions at once, each on a connection of the pool.
const AT_ONCE: usize = 4;
/// Identities that are asked about in one transaction.
const IDENTITIES: usize = 64;
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

/// Those who asked about values that do not fulfil their condition.
pub(super) async fn filters(
    database: &Database,
    questions: Vec<FilterQuestion<'_>>,
) -> Result<HashSet<usize>, Error> {
    let mut answers: Vec<BoxFuture<'_, _>> = Vec::with_capacity(questions.len());
    for question in &questions {
        answers.push(Box::pin(filter(database, question)));
    }
    let answers: Vec<Vec<usize>> = stream::iter(answers).buffer_unordered(AT_ONCE).try_collect().await?;
    Ok(answers.into_iter().flatten().collect())
}

async fn filter(database: &Database, asked: &FilterQuestion<'_>) -> Result<Vec<usize>, Error> {
    let acting = database.as_role(asked.claims);
    let sql = question(asked.compiled, asked.column);
    let value = &asked.compiled.condition.value;
    let params: &[&(dyn longhouse_database::tokio_postgres::types::ToSql + Sync)] = &[&asked.values, value];
    let step = longhouse_database::Step { sql: &sql, params };
    let passed: HashSet<usize> = match acting
        .pipeline(FORMATS, &[step], longhouse_database::End::Commit)
        .await
    {
        Ok(rows) => {
            let answer: String =
                rows.first().and_then(|rows| rows.first()).map(|row| row.get(0)).unwrap_or_default();
            numbers(&answer).collect()
        }
        Err(error) if error.is_transient() => return Err(error),
        Err(error) => {
            tracing::warn!(%error, column = asked.column.name, "a filter cannot be evaluated; it lets nothing through");
            HashSet::new()
        }
    };
    Ok(asked
        .asked_by
        .iter()
        .enumerate()
        .filter(|(place, _)| !passed.contains(place))
        .map(|(_, &by)| by)
        .collect())
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
        Err(error) if error.is_transient() => Err(error),
        Err(error) if parts.len() == 1 => {
            tracing::debug!(%error, "a policy fails; the row is not visible");
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
