//! Reads the catalogues of Postgres into a [`SchemaCache`].

use std::collections::HashMap;

use futures_util::future::{try_join, try_join4, try_join5};
use tokio_postgres::types::ToSql;
use tokio_postgres::{Client, Error, Row};

use super::relationships::{self, Key, Reference, TracedView};
use super::view_columns::{self, StoredView};
use super::{
    Column, HandlerRelation, MediaHandler, Parameter, QualifiedName, Relationship, RelationshipKind,
    Representation, ReturnType, Returns, RoleSettings, Routine, SchemaCache, Table, Volatility,
};
use crate::config::RestConfig;

const TABLES: &str = include_str!("queries/tables.sql");
const COLUMNS: &str = include_str!("queries/columns.sql");
const CONSTRAINTS: &str = include_str!("queries/constraints.sql");
const VIEWS: &str = include_str!("queries/views.sql");
const COMPUTED: &str = include_str!("queries/computed.sql");
const ROUTINES: &str = include_str!("queries/routines.sql");
const REPRESENTATIONS: &str = include_str!("queries/representations.sql");
const HANDLERS: &str = include_str!("queries/handlers.sql");
const ROLES: &str = include_str!("queries/roles.sql");
const SCHEMAS: &str = include_str!("queries/schemas.sql");
const TIMEZONES: &str = "select name from pg_catalog.pg_timezone_names";

/// One snapshot for all queries; without a search path every name that Postgres writes is qualified.
const BEGIN: &str = "begin isolation level repeatable read read only; set local search_path to ''";

/// Loads the schema cache in one transaction. The queries are pipelined.
///
/// The connection should be the caller's own: dropping the future halfway leaves the transaction open.
///
/// # Errors
/// When the connection breaks or Postgres refuses a query. The transaction is ended nevertheless.
pub async fn load(client: &Client, config: &RestConfig) -> Result<SchemaCache, Error> {
    client.batch_execute(BEGIN).await?;
    let loaded = read(client, config).await;
    let ended = client.batch_execute("rollback").await;
    let cache = loaded?;
    ended?;
    Ok(cache)
}

async fn read(client: &Client, config: &RestConfig) -> Result<SchemaCache, Error> {
    let (schemas, extra, hoisted) = (&config.schemas, &config.extra_search_path, &config.hoisted_settings);
    let exposed: [&(dyn ToSql + Sync); 1] = [schemas];
    let with_extra: [&(dyn ToSql + Sync); 2] = [schemas, extra];
    let with_hoisted: [&(dyn ToSql + Sync); 2] = [schemas, hoisted];
    let (
        (tables, columns, constraints, views, computed),
        (routines, representations, handlers, roles),
        (comments, timezones),
    ) = futures_util::try_join!(
        try_join5(
            client.query(TABLES, &exposed),
            client.query(COLUMNS, &exposed),
            client.query(CONSTRAINTS, &[]),
            client.query(VIEWS, &with_extra),
            client.query(COMPUTED, &exposed),
        ),
        try_join4(
            client.query(ROUTINES, &with_hoisted),
            client.query(REPRESENTATIONS, &[]),
            client.query(HANDLERS, &exposed),
            client.query(ROLES, &[]),
        ),
        try_join(client.query(SCHEMAS, &exposed), client.query(TIMEZONES, &[])),
    )?;

    let mut columns = columns_by_relation(&columns);
    let views: Vec<StoredView> = views
        .iter()
        .map(|row| StoredView {
            oid: row.get("oid"),
            exposed: row.get("exposed"),
            definition: row.get("definition"),
        })
        .collect();
    let mut origins = view_columns::trace(&views);
    let mut traced = Vec::new();
    let mut by_name = HashMap::with_capacity(tables.len());
    for row in &tables {
        let oid: u32 = row.get("oid");
        let columns = columns.remove(&oid).unwrap_or_default();
        let name = qualified(row, "schema", "name");
        if let Some(origins) = origins.remove(&oid) {
            let columns = columns.iter().map(|(number, column)| (*number, column.name.clone())).collect();
            traced.push(TracedView { name: name.clone(), columns, origins });
        }
        by_name.insert(name.clone(), table(row, name, columns));
    }
    traced.sort_by(|a, b| a.name.cmp(&b.name));

    let keys: Vec<Key> = constraints.iter().map(key).collect();
    for key in keys.iter().filter(|key| key.references.is_none()) {
        if let Some(table) = by_name.get_mut(&key.relation.1) {
            table.primary_key = key.columns.iter().map(|(_, name)| name.clone()).collect();
            table.primary_key.sort_unstable();
        }
    }
    relationships::add_view_keys(&mut by_name, &keys, &traced);
    let computed = computed.iter().map(computed_relationship).collect();
    let relationships = relationships::relate(&by_name, &keys, &traced, computed, schemas);

    Ok(SchemaCache {
        tables: by_name,
        relationships,
        routines: overloads(&routines),
        representations: representations.iter().map(representation).collect(),
        media_handlers: handlers.iter().map(handler).collect(),
        timezones: timezones.iter().map(|row| row.get(0)).collect(),
        server_version: comments
            .first()
            .and_then(|row| u32::try_from(row.get::<_, i32>("server_version")).ok())
            .unwrap_or_default(),
        schema_comments: comments.iter().map(|row| (row.get("name"), row.get("comment"))).collect(),
        role_settings: role_settings(&roles),
    })
}

fn qualified(row: &Row, schema: &str, name: &str) -> QualifiedName {
    QualifiedName::new(row.get::<_, String>(schema), row.get::<_, String>(name))
}

fn columns_by_relation(rows: &[Row]) -> HashMap<u32, Vec<(i16, Column)>> {
    let mut relations: HashMap<u32, Vec<(i16, Column)>> = HashMap::new();
    for row in rows {
        let column = Column {
            name: row.get("name"),
            description: row.get("description"),
            nullable: row.get("nullable"),
            base_type: row.get("base_type"),
            nominal_type: row.get("nominal_type"),
            max_length: row.get("max_length"),
            default: row.get("default_expression"),
            enum_labels: row.get("enum_labels"),
        };
        relations.entry(row.get("relation")).or_default().push((row.get("number"), column));
    }
    relations
}

fn table(row: &Row, name: QualifiedName, columns: Vec<(i16, Column)>) -> Table {
    // Bits of Postgres's command types.
    const UPDATE: i32 = 1 << 2;
    const INSERT: i32 = 1 << 3;
    const DELETE: i32 = 1 << 4;
    let events: i32 = row.get("events");
    Table {
        name,
        description: row.get("description"),
        is_view: row.get("is_view"),
        insertable: events & INSERT != 0,
        updatable: events & UPDATE != 0,
        deletable: events & DELETE != 0,
        primary_key: Vec::new(),
        columns: columns.into_iter().map(|(_, column)| column).collect(),
    }
}

fn key(row: &Row) -> Key {
    let numbered = |numbers: &str, names: &str| {
        let numbers: Option<Vec<i16>> = row.get(numbers);
        let names: Option<Vec<String>> = row.get(names);
        numbers.unwrap_or_default().into_iter().zip(names.unwrap_or_default()).collect()
    };
    let is_foreign = row.get::<_, &str>("kind") == "f";
    Key {
        name: row.get("name"),
        relation: (row.get("relation"), qualified(row, "schema", "table")),
        columns: numbered("numbers", "columns"),
        references: is_foreign.then(|| Reference {
            relation: (row.get("foreign_relation"), qualified(row, "foreign_schema", "foreign_table")),
            columns: numbered("foreign_numbers", "foreign_columns"),
            is_unique: row.get("is_unique"),
        }),
    }
}

fn computed_relationship(row: &Row) -> Relationship {
    let table = qualified(row, "table_schema", "table_name");
    let foreign_table = qualified(row, "foreign_schema", "foreign_name");
    Relationship {
        is_self: table == foreign_table,
        table_is_view: false,
        foreign_is_view: false,
        kind: RelationshipKind::Computed {
            function: qualified(row, "schema", "name"),
            argument: table.clone(),
            to_one: row.get("to_one"),
        },
        table,
        foreign_table,
    }
}

fn overloads(rows: &[Row]) -> HashMap<QualifiedName, Vec<Routine>> {
    let mut routines: HashMap<QualifiedName, Vec<Routine>> = HashMap::new();
    for routine in rows.iter().map(routine) {
        routines.entry(routine.name.clone()).or_default().push(routine);
    }
    for overloads in routines.values_mut() {
        overloads.sort_by(|a, b| {
            (a.parameters.len(), &a.description).cmp(&(b.parameters.len(), &b.description)).then_with(|| {
                let named = |routine: &Routine| -> Vec<(String, String)> {
                    routine.parameters.iter().map(|p| (p.name.clone(), p.type_name.clone())).collect()
                };
                named(a).cmp(&named(b))
            })
        });
    }
    routines
}

fn routine(row: &Row) -> Routine {
    let names: Vec<String> = row.get("names");
    let types: Vec<String> = row.get("types");
    let record_types: Vec<String> = row.get("record_types");
    let required: Vec<bool> = row.get("required");
    let variadic: Vec<bool> = row.get("variadic");
    let parameters = names
        .into_iter()
        .zip(types)
        .zip(record_types)
        .zip(required.into_iter().zip(variadic))
        .map(|(((name, type_name), record_type), (required, variadic))| Parameter {
            name,
            type_name,
            record_type,
            required,
            variadic,
        })
        .collect();
    let returned = qualified(row, "return_schema", "return_name");
    let setting_names: Vec<String> = row.get("setting_names");
    let setting_values: Vec<String> = row.get("setting_values");
    Routine {
        name: qualified(row, "schema", "name"),
        description: row.get("description"),
        parameters,
        returns: Returns {
            is_set: row.get("returns_set"),
            of: if row.get("returns_composite") {
                ReturnType::Composite(returned)
            } else {
                ReturnType::Scalar(returned)
            },
        },
        volatility: match row.get("volatility") {
            "i" => Volatility::Immutable,
            "s" => Volatility::Stable,
            _ => Volatility::Volatile,
        },
        is_variadic: row.get("is_variadic"),
        isolation: row.get("isolation"),
        settings: setting_names.into_iter().zip(setting_values).collect(),
    }
}

fn representation(row: &Row) -> ((String, String), Representation) {
    let source_type: String = row.get("source");
    let target_type: String = row.get("target");
    let key = (source_type.clone(), target_type.clone());
    (key, Representation { source_type, target_type, function: row.get("function") })
}

fn handler(row: &Row) -> ((HandlerRelation, String), MediaHandler) {
    let relation = qualified(row, "relation_schema", "relation_name");
    let argument = if relation == QualifiedName::new("pg_catalog", "anyelement") {
        HandlerRelation::Any
    } else {
        HandlerRelation::Named(relation)
    };
    let handler = MediaHandler::Custom {
        function: qualified(row, "schema", "name"),
        argument: argument.clone(),
        media_type: row.get("answered_type"),
    };
    ((argument, row.get("media_type")), handler)
}

fn role_settings(rows: &[Row]) -> HashMap<String, RoleSettings> {
    let mut roles: HashMap<String, RoleSettings> = HashMap::new();
    for row in rows {
        let settings = roles.entry(row.get("role")).or_default();
        let (name, value): (String, String) = (row.get("name"), row.get("value"));
        if name == "default_transaction_isolation" {
            settings.isolation = Some(value.to_lowercase());
        } else {
            settings.settings.push((name, value));
        }
    }
    roles
}
