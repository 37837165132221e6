//! What Postgres' catalog says of a table: its columns, who may read which of them, and its policies.

use std::collections::HashMap;
use std::sync::Arc;

use longhouse_database::{Claims, Database, Error, quote_ident};
use serde::Deserialize;

use super::filter::Family;
use super::policy::{self, Expression, Type};
use super::values::{self, Kind};

const FACTS: &str = include_str!("catalog.sql");
const TYPES: &str = include_str!("catalog_types.sql");
const FINGERPRINT: &str = include_str!("fingerprint.sql");

/// Types nested deeper are shown as text.
const DEEPEST: u8 = 10;

/// Whether the functions of `auth` are what this server's own bootstrap makes them: then it knows what they give.
/// Compared without spaces.
const OUR_FUNCTIONS: &str = "
    with known (name, source) as (values
      ('uid', 'select coalesce(nullif(current_setting(''request.jwt.claims'', true), '''')::jsonb ->> ''sub'',
        nullif(current_setting(''request.jwt.claim.sub'', true), ''''))::uuid'),
      ('role', 'select coalesce(nullif(current_setting(''request.jwt.claims'', true), '''')::jsonb ->> ''role'',
        nullif(current_setting(''request.jwt.claim.role'', true), ''''))'),
      ('email', 'select coalesce(nullif(current_setting(''request.jwt.claims'', true), '''')::jsonb ->> ''email'',
        nullif(current_setting(''request.jwt.claim.email'', true), ''''))'),
      ('jwt', 'select coalesce(nullif(current_setting(''request.jwt.claims'', true), ''''),
        nullif(current_setting(''request.jwt.claim'', true), ''''))::jsonb')
    )
    select count(*) = 4 from known
    join pg_catalog.pg_proc p on p.proname = known.name and p.pronargs = 0
    join pg_catalog.pg_namespace n on n.oid = p.pronamespace and n.nspname = 'auth'
    where regexp_replace(p.prosrc, '\\s', '', 'g') = regexp_replace(known.source, '\\s', '', 'g')";

/// Whether anything that policies may call or read looks at claims that differ from session to session.
const READS_SESSIONS: &str = r"
    select exists (select from pg_catalog.pg_policy p
        where pg_catalog.pg_get_expr(p.polqual, p.polrelid) ~ '\m(exp|iat|nbf|jti|session_id|amr|aal)\M')
      or exists (select from pg_catalog.pg_proc p join pg_catalog.pg_namespace n on n.oid = p.pronamespace
        where n.nspname not in ('pg_catalog', 'information_schema')
          and p.prosrc ~ '\m(exp|iat|nbf|jti|session_id|amr|aal)\M' and p.prosrc ~ 'jwt|current_setting')
      or exists (select from pg_catalog.pg_rewrite w join pg_catalog.pg_class c on c.oid = w.ev_class
        join pg_catalog.pg_namespace n on n.oid = c.relnamespace
        where n.nspname not in ('pg_catalog', 'information_schema') and c.relkind = 'v'
          and pg_catalog.pg_get_viewdef(c.oid) ~ '\m(exp|iat|nbf|jti|session_id|amr|aal)\M'
          and pg_catalog.pg_get_viewdef(c.oid) ~ 'jwt|current_setting')";

/// A column.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Column {
    pub(super) name: String,
    pub(super) type_name: String,
    /// Of the primary key.
    pub(super) key: bool,
    pub(super) kind: Kind,
    pub(super) family: Family,
    /// Its type's name for SQL, quoted.
    pub(super) sql_type: String,
    policy_type: Option<Type>,
}

/// What a role may see of a table.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct RoleFacts {
    /// Whether the role may use the table's schema.
    pub(super) schema: bool,
    /// For each column, whether the role may select it.
    pub(super) columns: Vec<bool>,
    pub(super) rows: Rows,
}

/// Which rows a role may see.
#[derive(Debug, Clone, PartialEq)]
pub(super) enum Rows {
    /// None: no right to the table or its schema, or no policy that lets it see any.
    Nothing,
    /// All: there is no row-level security, or it does not concern the role.
    Everything,
    /// Those that the policies allow.
    Allowed(Arc<Policies>),
}

/// The policies that concern a role, in two forms.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Policies {
    /// To evaluate here, if they are simple enough.
    pub(super) here: Option<Expression>,
    /// What the columns are for `here`.
    pub(super) types: Vec<(String, Option<Type>)>,
    /// As Postgres writes them.
    condition: String,
    /// The statement that asks Postgres: `$1` is a JSON array of rows, the answer the numbers of those that are
    /// allowed, joined by commas.
    pub(super) sql: String,
}

impl Policies {
    /// Whether they may read a column: by its name, or because they read whole rows.
    pub(super) fn mentions(&self, column: &str) -> bool {
        let part_of_word = |c: char| c.is_alphanumeric() || c == '_';
        self.condition.contains(".*")
            || self.condition.match_indices(column).any(|(at, _)| {
                let (before, after) = (&self.condition[..at], &self.condition[at + column.len()..]);
                !before.ends_with(part_of_word) && !after.starts_with(part_of_word)
            })
    }
}

/// A table.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Table {
    pub(super) oid: u32,
    pub(super) schema: String,
    pub(super) name: String,
    /// Whether row-level security is on.
    pub(super) row_security: bool,
    pub(super) columns: Vec<Column>,
    pub(super) roles: HashMap<String, RoleFacts>,
}

impl Table {
    pub(super) fn column(&self, name: &str) -> Option<usize> {
        self.columns.iter().position(|column| column.name == name)
    }
}

/// What was read of some tables for some roles at one time.
#[derive(Debug, Default)]
pub(super) struct Catalog {
    pub(super) tables: HashMap<u32, Arc<Table>>,
    /// Whether claims that differ between sessions of one user may matter.
    pub(super) reads_sessions: bool,
}

#[derive(Deserialize)]
struct RawTable {
    oid: u32,
    schema: String,
    table: String,
    row_security: bool,
    columns: Vec<RawColumn>,
    policies: Vec<RawPolicy>,
    roles: Vec<RawRole>,
}

#[derive(Deserialize)]
struct RawColumn {
    name: String,
    type_oid: u32,
    type_name: String,
    key: bool,
    deterministic: bool,
}

#[derive(Deserialize)]
struct RawPolicy {
    permissive: bool,
    using: Option<String>,
}

#[derive(Deserialize)]
struct RawRole {
    name: String,
    free: bool,
    schema: bool,
    columns: Vec<bool>,
    policies: Vec<bool>,
}

#[derive(Deserialize)]
struct RawType {
    oid: u32,
    schema: String,
    name: String,
    kind: String,
    element: u32,
    base: u32,
    delimiter: String,
    fields: Vec<RawField>,
}

#[derive(Deserialize)]
struct RawField {
    name: String,
    type_oid: u32,
}

/// What [`load`] would find, in short.
///
/// # Errors
/// Why the database cannot be asked.
pub(super) async fn fingerprint(
    database: &Database,
    tables: &[u32],
    roles: &[String],
) -> Result<String, Error> {
    let rows = database.as_role(&Claims::anon()).query(FINGERPRINT, &[&tables, &roles]).await?;
    Ok(rows.first().map(|row| row.get(0)).unwrap_or_default())
}

/// Reads the facts of tables for roles. Tables that are gone are left out.
///
/// # Errors
/// Why the database cannot be asked.
pub(super) async fn load(database: &Database, tables: &[u32], roles: &[String]) -> Result<Catalog, Error> {
    let anon = Claims::anon();
    let acting = database.as_role(&anon);
    let rows = acting.query(FACTS, &[&tables, &roles]).await?;
    let raw: Vec<RawTable> = rows.iter().filter_map(|row| serde_json::from_str(row.get(0)).ok()).collect();
    let mut wanted: Vec<u32> = raw.iter().flat_map(|t| t.columns.iter().map(|c| c.type_oid)).collect();
    wanted.sort_unstable();
    wanted.dedup();
    let rows = acting.query(TYPES, &[&wanted]).await?;
    let types: HashMap<u32, RawType> = rows
        .iter()
        .filter_map(|row| serde_json::from_str::<RawType>(row.get(0)).ok())
        .map(|raw| (raw.oid, raw))
        .collect();
    let flag = async |sql| {
        Ok::<_, Error>(acting.query(sql, &[]).await?.first().is_some_and(|row| row.get::<_, bool>(0)))
    };
    let known_functions = flag(OUR_FUNCTIONS).await?;
    let reads_sessions = flag(READS_SESSIONS).await?;
    let tables = raw.into_iter().map(|raw| (raw.oid, Arc::new(raw.table(&types, known_functions)))).collect();
    Ok(Catalog { tables, reads_sessions })
}

impl RawTable {
    fn table(self, types: &HashMap<u32, RawType>, known_functions: bool) -> Table {
        let columns: Vec<Column> = self.columns.iter().map(|raw| raw.column(types)).collect();
        let roles = self
            .roles
            .iter()
            .map(|role| {
                let facts = self.role(role, &columns, known_functions);
                (role.name.clone(), facts)
            })
            .collect();
        Table {
            oid: self.oid,
            schema: self.schema,
            name: self.table,
            row_security: self.row_security,
            columns,
            roles,
        }
    }

    fn role(&self, role: &RawRole, columns: &[Column], known_functions: bool) -> RoleFacts {
        let rows = if !role.schema || !role.columns.contains(&true) {
            Rows::Nothing
        } else if !self.row_security || role.free {
            Rows::Everything
        } else {
            let concern = self.policies.iter().zip(&role.policies).filter(|(_, concerns)| **concerns);
            let (permissive, restrictive): (Vec<_>, Vec<_>) =
                concern.map(|(policy, _)| policy).partition(|policy| policy.permissive);
            if permissive.is_empty() {
                Rows::Nothing
            } else {
                Rows::Allowed(Arc::new(self.policies(&permissive, &restrictive, columns, known_functions)))
            }
        };
        RoleFacts { schema: role.schema, columns: role.columns.clone(), rows }
    }

    fn policies(
        &self,
        permissive: &[&RawPolicy],
        restrictive: &[&RawPolicy],
        columns: &[Column],
        known_functions: bool,
    ) -> Policies {
        fn using(policy: &RawPolicy) -> &str {
            policy.using.as_deref().unwrap_or("true")
        }
        let types: Vec<_> = columns.iter().map(|column| (column.name.clone(), column.policy_type)).collect();
        let parsed = |policies: &[&RawPolicy]| -> Option<Vec<Expression>> {
            policies.iter().map(|one| policy::parse(using(one), &types)).collect()
        };
        let here = known_functions.then_some(()).and_then(|()| {
            let mut parts = vec![Expression::Or(parsed(permissive)?)];
            parts.extend(parsed(restrictive)?);
            Some(Expression::And(parts))
        });
        let texts: Vec<_> = permissive.iter().map(|one| format!("({})", using(one))).collect();
        let mut condition = format!("({})", texts.join(" or "));
        for one in restrictive {
            condition.push_str(&format!(" and ({})", using(one)));
        }
        // Rendered by Postgres from its catalog, and run as the role whose rows they decide about: this is the
        // policy itself, on the very row that was committed, wherever that row is now.
        let names: Vec<_> = columns.iter().map(|column| quote_ident(&column.name)).collect();
        let table = quote_ident(&self.table);
        let sql = format!(
            "select coalesce(pg_catalog.string_agg({table}.\"longhouse ordinal\"::text, ','), '') \
             from pg_catalog.jsonb_populate_recordset(null::{}.{table}, $1::jsonb) with ordinality \
             as {table} ({}, \"longhouse ordinal\") where {condition}",
            quote_ident(&self.schema),
            names.join(", "),
        );
        Policies { here, types, condition, sql }
    }
}

impl RawColumn {
    fn column(&self, types: &HashMap<u32, RawType>) -> Column {
        let mut base = self.type_oid;
        for _ in 0..DEEPEST {
            match types.get(&base) {
                Some(raw) if raw.kind == "d" => base = raw.base,
                _ => break,
            }
        }
        let enumeration = types.get(&base).is_some_and(|raw| raw.kind == "e");
        let sql_type = types.get(&self.type_oid).map_or_else(
            || "text".into(),
            |raw| format!("{}.{}", quote_ident(&raw.schema), quote_ident(&raw.name)),
        );
        Column {
            name: self.name.clone(),
            type_name: self.type_name.clone(),
            key: self.key,
            kind: kind(self.type_oid, types, 0),
            family: Family::of(base, enumeration, self.deterministic),
            sql_type,
            // A domain may have operators of its own.
            policy_type: Type::of_column(self.type_oid, self.deterministic),
        }
    }
}

fn kind(type_oid: u32, types: &HashMap<u32, RawType>, depth: u8) -> Kind {
    let Some(raw) = types.get(&type_oid).filter(|_| depth < DEEPEST) else { return Kind::of(type_oid) };
    match raw.kind.as_str() {
        "d" => kind(raw.base, types, depth + 1),
        "c" => Kind::Composite(
            raw.fields
                .iter()
                .map(|field| (field.name.clone(), kind(field.type_oid, types, depth + 1)))
                .collect(),
        ),
        _ if raw.element != 0 => {
            let delimiter = raw.delimiter.chars().next().unwrap_or(',');
            Kind::Array(Box::new(kind(raw.element, types, depth + 1)), delimiter)
        }
        _ => values::Kind::of(type_oid),
    }
}
