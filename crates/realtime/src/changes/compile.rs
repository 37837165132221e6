//! Filters of subscriptions against the types of a table's columns. Postgres reads the values, so that it decides what
//! is a number and what is a date.

use longhouse_database::{Claims, Database, End, Error, Step};

use super::catalog::{Column, Table};
use super::filter::{Compiled, Condition, Family, MOST_VALUES, Operator};

/// Values come back in the same form as those of rows; see the settings of the replication connection.
pub(super) const FORMATS: &[(&str, &str)] = &[
    ("datestyle", "ISO"),
    ("intervalstyle", "postgres"),
    ("timezone", "UTC"),
    ("extra_float_digits", "1"),
    ("bytea_output", "hex"),
];

/// Why a filter cannot be used.
#[derive(Debug)]
pub(super) enum Unusable {
    /// It makes no sense for this table; the message is for the client.
    Invalid(String),
    /// Postgres cannot be asked.
    Database(Error),
}

/// What Postgres answered, for the client.
fn refusal(error: Error) -> Unusable {
    if error.is_transient() {
        return Unusable::Database(error);
    }
    let message = match &error {
        Error::Query(query) => {
            query.as_db_error().map(|db| format!("ERROR {} {}", db.code().code(), db.message()))
        }
        _ => None,
    };
    Unusable::Invalid(message.unwrap_or_else(|| error.to_string()))
}

/// Checks a condition and brings its values into their canonical form.
pub(super) async fn compile(
    database: &Database,
    claims: &Claims,
    table: &Table,
    condition: &Condition,
) -> Result<Compiled, Unusable> {
    let invalid = |message: String| Err(Unusable::Invalid(message));
    let Some(index) = table.column(&condition.column) else {
        return invalid(format!("invalid column for filter {}", condition.column));
    };
    let column = &table.columns[index];
    let mut compiled =
        Compiled { condition: condition.clone(), column: index, family: column.family, values: Vec::new() };
    let value = condition.value.as_str();
    let of = &column.sql_type;
    let sql = match condition.operator {
        Operator::Is => {
            if value != "null" && column.family != Family::Bool {
                return invalid(format!(
                    "is {value} filter requires a boolean column, got {}",
                    column.type_name
                ));
            }
            return Ok(compiled);
        }
        Operator::In => {
            format!("select x::text from unnest(($1::text)::{of}[]) as x limit {}", MOST_VALUES + 1)
        }
        Operator::Like | Operator::Ilike | Operator::Match | Operator::Imatch => {
            // Both that there is such an operator, and that the pattern is one.
            let operator = condition.operator.symbol();
            format!(
                "select $1::text where (''::text {operator} $1::text) is not null or (null::{of} {operator} ($1::text)::{of})"
            )
        }
        // As in rows: a cast to text would write booleans in another way.
        _ => format!("select pg_catalog.format('%s', ($1::text)::{of})"),
    };
    let rows = database
        .as_role(claims)
        .pipeline(FORMATS, &[Step { sql: &sql, params: &[&value] }], End::Commit)
        .await
        .map_err(refusal)?;
    compiled.values = rows
        .into_iter()
        .flatten()
        .map(|row| row.try_get::<_, Option<String>>(0).unwrap_or_default())
        .collect();
    if compiled.values.len() > MOST_VALUES {
        return invalid(format!("too many values for `in` filter. Maximum {MOST_VALUES}"));
    }
    if column.family == Family::Other {
        check_operator(database, claims, column, condition.operator).await?;
    }
    Ok(compiled)
}

/// A type may have no such comparison, say `json` no equality.
async fn check_operator(
    database: &Database,
    claims: &Claims,
    column: &Column,
    operator: Operator,
) -> Result<(), Unusable> {
    let of = &column.sql_type;
    let array = if operator == Operator::In { "[]" } else { "" };
    let sql = format!("select null::{of} {} (null::{of}{array})", operator.symbol());
    let step = Step { sql: &sql, params: &[] };
    database.as_role(claims).pipeline(&[], &[step], End::Commit).await.map_err(refusal)?;
    Ok(())
}

/// The statement that asks which of `$1` fulfil a condition with the value `$2`.
pub(super) fn question(compiled: &Compiled, column: &Column) -> String {
    let (of, operator) = (&column.sql_type, compiled.condition.operator);
    let value = match operator {
        Operator::In => format!("(($2::text)::{of}[])"),
        _ => format!("($2::text)::{of}"),
    };
    let not = if compiled.condition.negate { "not " } else { "" };
    format!(
        "select coalesce(pg_catalog.string_agg(v.o::text, ','), '') \
         from unnest($1::text[]) with ordinality as v (x, o) where {not}(v.x::{of} {} {value})",
        operator.symbol()
    )
}
