//! `GET /studio/v1/tables`: what is in the database, and which rules decide who sees it.

use axum::Json;
use axum::extract::{Path, State};
use longhouse_database::ServiceReason;
use serde::Serialize;
use tokio_postgres::Row;
use utoipa::ToSchema;

use crate::{Error, Studio};

/// Schemas that Longhouse and Supabase keep for themselves.
pub(crate) const PLATFORM: &[&str] = &[
    "auth",
    "extensions",
    "graphql",
    "graphql_public",
    "longhouse",
    "pgbouncer",
    "realtime",
    "storage",
    "supabase_functions",
    "supabase_migrations",
    "vault",
    "_realtime",
];

const REASON: ServiceReason = ServiceReason::because("the Studio describes tables of every schema");
/// Tables that one answer lists.
const MOST: i64 = 2000;

/// A table or view.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct Table {
    schema: String,
    name: String,
    /// `table`, `view`, `materialized view` or `foreign table`.
    kind: &'static str,
    comment: Option<String>,
    /// As the planner estimates; null before the first analysis.
    estimated_rows: Option<i64>,
    bytes: i64,
    /// Whether policies decide.
    row_security: bool,
    policies: i64,
    /// Whether `/rest/v1` serves its schema.
    exposed: bool,
    /// Whether the schema is the platform's own.
    platform: bool,
    /// Of `anon`, `authenticated` and `service_role`, who may read.
    readable_by: Vec<String>,
    /// Of these, who may change.
    writable_by: Vec<String>,
    /// What deserves a look: `open` (no policy is asked, though visitors or users may touch it), `no_policies` (nobody
    /// but the service role gets anything) or null.
    warning: Option<&'static str>,
}

/// A table with everything that is known of it.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct TableDetail {
    table: Table,
    columns: Vec<Column>,
    policies: Vec<Policy>,
    /// As Postgres defines them.
    indexes: Vec<Definition>,
    /// Primary, foreign and unique keys, checks and exclusions.
    constraints: Vec<Definition>,
    triggers: Vec<Definition>,
}

/// A column.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct Column {
    name: String,
    /// As SQL writes it.
    data_type: String,
    nullable: bool,
    /// Expression.
    default: Option<String>,
    primary_key: bool,
    /// `schema.table.column` that it refers to.
    refers_to: Option<String>,
    comment: Option<String>,
}

/// A row-level policy.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct Policy {
    name: String,
    /// `select`, `insert`, `update`, `delete` or `all`.
    command: String,
    /// Whether it adds to what others allow; else it takes away from it.
    permissive: bool,
    roles: Vec<String>,
    /// Which rows are seen or touched.
    using: Option<String>,
    /// Which rows may come to be.
    check: Option<String>,
}

/// Something named that SQL defines.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct Definition {
    name: String,
    sql: String,
}

const TABLES: &str = "select n.nspname::text, c.relname::text, c.relkind::text, obj_description(c.oid, 'pg_class'),
        case when c.relkind in ('r', 'p', 'm') and c.reltuples >= 0 then c.reltuples::bigint end,
        case when c.relkind in ('r', 'p', 'm') then pg_total_relation_size(c.oid) else 0 end,
        c.relrowsecurity, (select count(*) from pg_policy p where p.polrelid = c.oid),
        array(select r from unnest(array['anon', 'authenticated', 'service_role']) r
          where has_schema_privilege(r, n.oid, 'usage') and has_table_privilege(r, c.oid, 'select')),
        array(select r from unnest(array['anon', 'authenticated', 'service_role']) r
          where has_schema_privilege(r, n.oid, 'usage') and has_table_privilege(r, c.oid, 'insert, update, delete')),
        c.oid
    from pg_class c join pg_namespace n on n.oid = c.relnamespace
    where c.relkind in ('r', 'p', 'v', 'm', 'f') and not c.relispartition
      and n.nspname !~ '^pg_' and n.nspname <> 'information_schema'";

fn table(row: &Row, exposed: &[String]) -> Table {
    let (schema, relkind): (String, String) = (row.get(0), row.get(2));
    let kind = match relkind.as_str() {
        "v" => "view",
        "m" => "materialized view",
        "f" => "foreign table",
        _ => "table",
    };
    let exposed = exposed.contains(&schema);
    let (row_security, policies): (bool, i64) = (row.get(6), row.get(7));
    let (readable_by, writable_by): (Vec<String>, Vec<String>) = (row.get(8), row.get(9));
    let public = |roles: &[String]| roles.iter().any(|role| role != "service_role");
    let touched = public(&readable_by) || public(&writable_by);
    let warning = match (kind, row_security) {
        ("table", false) if exposed && touched => Some("open"),
        ("table", true) if exposed && touched && policies == 0 => Some("no_policies"),
        _ => None,
    };
    Table {
        platform: PLATFORM.contains(&schema.as_str()),
        schema,
        name: row.get(1),
        kind,
        comment: row.get(3),
        estimated_rows: row.get(4),
        bytes: row.get(5),
        row_security,
        policies,
        exposed,
        readable_by,
        writable_by,
        warning,
    }
}

#[utoipa::path(
    get, path = "/studio/v1/tables", tag = "studio",
    responses((status = 200, body = [Table]), (status = 401), (status = 403, description = "Not an operator"))
)]
pub(crate) async fn list(State(studio): State<Studio>) -> Result<Json<Vec<Table>>, Error> {
    let sql = format!("{TABLES} order by 1, 2 limit $1");
    let rows = studio.inner.database.as_service(REASON).query(&sql, &[&MOST]).await?;
    let exposed = (studio.inner.exposed_schemas)();
    Ok(Json(rows.iter().map(|row| table(row, &exposed)).collect()))
}

/// A table of that name, with its oid.
pub(crate) async fn find(studio: &Studio, schema: &str, name: &str) -> Result<(Table, u32), Error> {
    let sql = format!("{TABLES} and n.nspname = $1 and c.relname = $2");
    let row = studio.inner.database.as_service(REASON).query_opt(&sql, &[&schema, &name]).await?;
    let row = row.ok_or_else(|| Error::NoTable(format!("{schema}.{name}")))?;
    Ok((table(&row, &(studio.inner.exposed_schemas)()), row.get(10)))
}

pub(crate) async fn columns(studio: &Studio, oid: u32) -> Result<Vec<Column>, Error> {
    const SQL: &str = "select a.attname::text, format_type(a.atttypid, a.atttypmod), not a.attnotnull,
            pg_get_expr(d.adbin, d.adrelid),
            exists (select from pg_index i where i.indrelid = a.attrelid and i.indisprimary
              and a.attnum = any (i.indkey)),
            (select format('%s.%s.%s', fn.nspname, f.relname, fa.attname) from pg_constraint k
              join pg_class f on f.oid = k.confrelid join pg_namespace fn on fn.oid = f.relnamespace
              join pg_attribute fa on fa.attrelid = f.oid and fa.attnum = k.confkey[array_position(k.conkey, a.attnum)]
              where k.conrelid = a.attrelid and k.contype = 'f' and a.attnum = any (k.conkey) limit 1),
            col_description(a.attrelid, a.attnum)
        from pg_attribute a left join pg_attrdef d on d.adrelid = a.attrelid and d.adnum = a.attnum
        where a.attrelid = $1 and a.attnum > 0 and not a.attisdropped order by a.attnum";
    let rows = studio.inner.database.as_service(REASON).query(SQL, &[&oid]).await?;
    let column = |row: &Row| Column {
        name: row.get(0),
        data_type: row.get(1),
        nullable: row.get(2),
        default: row.get(3),
        primary_key: row.get(4),
        refers_to: row.get(5),
        comment: row.get(6),
    };
    Ok(rows.iter().map(column).collect())
}

impl Column {
    pub(crate) fn name(&self) -> &str {
        &self.name
    }

    pub(crate) fn is_key(&self) -> bool {
        self.primary_key
    }
}

#[utoipa::path(
    get, path = "/studio/v1/tables/{schema}/{name}", tag = "studio",
    params(("schema" = String, Path), ("name" = String, Path)),
    responses(
        (status = 200, body = TableDetail), (status = 401), (status = 403, description = "Not an operator"),
        (status = 404, description = "No such table")
    )
)]
pub(crate) async fn describe(
    State(studio): State<Studio>,
    Path((schema, name)): Path<(String, String)>,
) -> Result<Json<TableDetail>, Error> {
    const POLICIES: &str = "select polname::text,
            case polcmd when 'r' then 'select' when 'a' then 'insert' when 'w' then 'update' when 'd' then 'delete'
              else 'all' end,
            polpermissive,
            array(select case r when 0 then 'public' else pg_get_userbyid(r)::text end from unnest(polroles) r),
            pg_get_expr(polqual, polrelid), pg_get_expr(polwithcheck, polrelid)
        from pg_policy where polrelid = $1 order by 1";
    const INDEXES: &str = "select c.relname::text, pg_get_indexdef(i.indexrelid)
        from pg_index i join pg_class c on c.oid = i.indexrelid where i.indrelid = $1 order by 1";
    const CONSTRAINTS: &str = "select conname::text, pg_get_constraintdef(oid) from pg_constraint
        where conrelid = $1 and contype in ('p', 'f', 'u', 'c', 'x') order by contype = 'p' desc, 1";
    const TRIGGERS: &str = "select tgname::text, pg_get_triggerdef(oid) from pg_trigger
        where tgrelid = $1 and not tgisinternal order by 1";
    let (table, oid) = find(&studio, &schema, &name).await?;
    let acting = studio.inner.database.as_service(REASON);
    let policy = |row: &Row| Policy {
        name: row.get(0),
        command: row.get(1),
        permissive: row.get(2),
        roles: row.get(3),
        using: row.get(4),
        check: row.get(5),
    };
    let definition = |row: &Row| Definition { name: row.get(0), sql: row.get(1) };
    Ok(Json(TableDetail {
        table,
        columns: columns(&studio, oid).await?,
        policies: acting.query(POLICIES, &[&oid]).await?.iter().map(policy).collect(),
        indexes: acting.query(INDEXES, &[&oid]).await?.iter().map(definition).collect(),
        constraints: acting.query(CONSTRAINTS, &[&oid]).await?.iter().map(definition).collect(),
        triggers: acting.query(TRIGGERS, &[&oid]).await?.iter().map(definition).collect(),
    }))
}
