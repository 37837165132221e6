//! `GET /studio/v1/tables/{schema}/{name}/rows`: the rows of a table, as somebody sees them.

use axum::Json;
use axum::extract::{Path, Query, State};
use longhouse_database::{Claims, End, Step, quote_ident};
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value, json};
use tokio_postgres::types::ToSql;
use utoipa::{IntoParams, ToSchema};
use uuid::Uuid;

use super::tables;
use crate::{Error, Studio, operators};

/// Rows of one answer.
const MOST: i64 = 200;
/// Characters of a value that are shown.
const LONGEST: i32 = 1000;
/// A statement that takes longer is ended.
const PATIENCE: &str = "10s";

/// Which rows, and as whom.
#[derive(Debug, Deserialize, IntoParams)]
#[into_params(parameter_in = Query)]
pub(crate) struct Wanted {
    /// Whose eyes: `service_role` (all rows; the default), `authenticated` (with `user`) or `anon`.
    #[serde(default, rename = "as")]
    #[param(rename = "as", nullable = false)]
    role: Option<String>,
    /// Account, with `as=authenticated`.
    #[param(nullable = false)]
    user: Option<Uuid>,
    /// Only rows with this text in any column, whatever its case.
    #[serde(default)]
    #[param(required = false)]
    search: String,
    /// 1 to 200; default 50.
    #[param(nullable = false)]
    limit: Option<i64>,
    #[serde(default)]
    #[param(required = false)]
    offset: i64,
}

/// Some rows of a table.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct Rows {
    columns: Vec<String>,
    /// Values as text, null for SQL's null, at most 1000 characters of each (the 1001st is an ellipsis).
    rows: Vec<Vec<Option<String>>>,
    /// Whether there are more.
    more: bool,
    /// What Postgres answered that role instead of rows.
    refusal: Option<String>,
}

#[utoipa::path(
    get, path = "/studio/v1/tables/{schema}/{name}/rows", tag = "studio",
    params(("schema" = String, Path), ("name" = String, Path), Wanted),
    responses(
        (status = 200, body = Rows), (status = 400, description = "Impossible parameters"), (status = 401),
        (status = 403, description = "Not an operator"), (status = 404, description = "No such table or user")
    )
)]
pub(crate) async fn rows(
    State(studio): State<Studio>,
    Path((schema, name)): Path<(String, String)>,
    Query(wanted): Query<Wanted>,
) -> Result<Json<Rows>, Error> {
    let limit = wanted.limit.unwrap_or(50);
    if !(1..=MOST).contains(&limit) || wanted.offset < 0 {
        return Err(Error::Parameter("`limit` is 1 to 200, `offset` is not negative"));
    }
    let claims = claims(&studio, &wanted).await?;
    let (_, oid) = tables::find(&studio, &schema, &name).await?;
    let columns = tables::columns(&studio, oid).await?;
    let sql = statement(&schema, &name, &columns);
    let beyond = limit + 1;
    let params: [&(dyn ToSql + Sync); 4] = [&beyond, &wanted.offset, &wanted.search, &LONGEST];
    let acting = studio.inner.database.as_role(&claims);
    let steps = [Step { sql: &sql, params: &params }];
    // Nothing that a view or policy does while it is read shall stay.
    let found = acting.pipeline(&[("statement_timeout", PATIENCE)], &steps, End::Rollback).await;
    let columns: Vec<String> = columns.iter().map(|column| column.name().to_owned()).collect();
    let mut found = match found {
        Ok(mut results) => results.pop().unwrap_or_default(),
        Err(longhouse_database::Error::Query(error)) if error.as_db_error().is_some() => {
            let refusal = error.as_db_error().map(|refusal| refusal.message().to_owned());
            return Ok(Json(Rows { columns, rows: Vec::new(), more: false, refusal }));
        }
        Err(error) => return Err(error.into()),
    };
    let more = found.len() as i64 > limit;
    found.truncate(limit as usize);
    let rows = found.iter().map(|row| row.get::<_, Vec<Option<String>>>(0)).collect();
    Ok(Json(Rows { columns, rows, more, refusal: None }))
}

/// Names come from the catalog, and are quoted.
fn statement(schema: &str, name: &str, columns: &[tables::Column]) -> String {
    let values: Vec<String> = columns
        .iter()
        .map(|column| {
            let column = quote_ident(column.name());
            format!("case when length(t.{column}::text) > $4 then left(t.{column}::text, $4) || '…' else t.{column}::text end")
        })
        .collect();
    let keys: Vec<String> = columns
        .iter()
        .filter(|column| column.is_key())
        .map(|column| format!("t.{}", quote_ident(column.name())))
        .collect();
    let order = if keys.is_empty() { String::new() } else { format!("order by {}", keys.join(", ")) };
    // The values are written down twice, so that the order of an index serves and only the shown rows become text.
    let values = values.join(", ");
    format!(
        "select array[{values}]::text[] from {}.{} t
         where $3 = '' or position(lower($3) in lower(array_to_string(array[{values}]::text[], ' '))) > 0
         {order} limit $1 offset $2",
        quote_ident(schema),
        quote_ident(name),
    )
}

/// Whose eyes look: a role alone, or an account as its token would describe it.
async fn claims(studio: &Studio, wanted: &Wanted) -> Result<Claims, Error> {
    const SQL: &str = "select jsonb_build_object('sub', id, 'aud', 'authenticated', 'email', email, 'phone', phone,
            'app_metadata', raw_app_meta_data, 'user_metadata', raw_user_meta_data, 'is_anonymous', is_anonymous,
            'aal', 'aal1')
        from auth.users where id = $1 and deleted_at is null";
    match (wanted.role.as_deref().unwrap_or("service_role"), wanted.user) {
        ("authenticated", Some(user)) => {
            let row = operators::accounts(&studio.inner.database, SQL, &[&user]).await?;
            let row = row.ok_or(Error::Parameter("there is no such user"))?;
            let claims = match row.get::<_, Value>(0) {
                Value::Object(claims) => claims,
                _ => Map::from_iter([("sub".to_owned(), json!(user))]),
            };
            Ok(Claims::new("authenticated", claims))
        }
        ("authenticated", None) => Err(Error::Parameter("`as=authenticated` needs `user`")),
        (role @ ("anon" | "service_role"), None) => Ok(Claims::new(role, Map::new())),
        _ => Err(Error::Parameter("`as` is service_role, anon, or authenticated with `user`")),
    }
}
