//! Tables and views: their paths, definitions and parameters.

use serde_json::{Map, Value, json};

use super::{set, summary, types};
use crate::schema::{Column, RelationshipKind, SchemaCache, Table};

fn reference(parameter: &str) -> Value {
    json!({"$ref": format!("#/parameters/{parameter}")})
}

/// The operations on a table.
pub(super) fn path(table: &Table) -> Value {
    let name = &table.name.name;
    let filters =
        || table.columns.iter().map(|column| reference(&format!("rowFilter.{name}.{}", column.name)));
    let body = reference(&format!("body.{name}"));
    let (first, rest) = summary(table.description.as_deref());
    let operation = |parameters: Vec<Value>, responses: Value| {
        let mut operation = Map::new();
        operation.insert("tags".to_owned(), json!([name]));
        set(&mut operation, "summary", first);
        set(&mut operation, "description", rest);
        operation.insert("parameters".to_owned(), parameters.into());
        operation.insert("responses".to_owned(), responses);
        Value::Object(operation)
    };
    let shared = |names: &[&str]| names.iter().map(|name| reference(name)).collect::<Vec<_>>();

    let reading =
        filters().chain(shared(&["select", "order", "range", "rangeUnit", "offset", "limit", "preferCount"]));
    let rows = json!({"type": "array", "items": {"$ref": format!("#/definitions/{name}")}});
    let mut path = Map::new();
    path.insert(
        "get".to_owned(),
        operation(
            reading.collect(),
            json!({
                "200": {"description": "OK", "schema": rows},
                "206": {"description": "Partial Content"},
            }),
        ),
    );
    if table.insertable || table.updatable || table.deletable {
        let done = json!({"204": {"description": "No Content"}});
        let creating = [body.clone()].into_iter().chain(shared(&["select", "preferPost"])).collect();
        path.insert("post".to_owned(), operation(creating, json!({"201": {"description": "Created"}})));
        let changing = filters().chain([body]).chain(shared(&["preferReturn"])).collect();
        path.insert("patch".to_owned(), operation(changing, done.clone()));
        let removing = filters().chain(shared(&["preferReturn"])).collect();
        path.insert("delete".to_owned(), operation(removing, done));
    }
    Value::Object(path)
}

/// The shape of a row.
pub(super) fn definition(cache: &SchemaCache, table: &Table) -> Value {
    let mut definition = Map::new();
    definition.insert("type".to_owned(), "object".into());
    set(&mut definition, "description", table.description.as_deref());
    let properties: Map<String, Value> =
        table.columns.iter().map(|column| (column.name.clone(), property(cache, table, column))).collect();
    if !properties.is_empty() {
        definition.insert("properties".to_owned(), properties.into());
    }
    let required: Vec<&str> =
        table.columns.iter().filter(|column| !column.nullable).map(|column| column.name.as_str()).collect();
    if !required.is_empty() {
        definition.insert("required".to_owned(), required.into());
    }
    Value::Object(definition)
}

fn property(cache: &SchemaCache, table: &Table, column: &Column) -> Value {
    let mut property = types::property(&column.base_type);
    let default = column.default.as_deref();
    set(&mut property, "default", default.and_then(|text| types::default(&column.base_type, text)));
    set(&mut property, "description", description(cache, table, column));
    set(&mut property, "enum", (!column.enum_labels.is_empty()).then(|| column.enum_labels.clone()));
    set(&mut property, "maxLength", column.max_length);
    Value::Object(property)
}

/// The column's comment, and notes on keys in a form that clients look for.
fn description(cache: &SchemaCache, table: &Table, column: &Column) -> Option<String> {
    let mut notes = vec!["Note:".to_owned()];
    if table.primary_key.contains(&column.name) {
        notes.push("This is a Primary Key.<pk/>".to_owned());
    }
    if let Some((foreign_table, foreign_column)) = referenced(cache, table, column) {
        notes.push(format!(
            "This is a Foreign Key to `{foreign_table}.{foreign_column}`.\
             <fk table='{foreign_table}' column='{foreign_column}'/>"
        ));
    }
    if notes.len() == 1 {
        return column.description.clone();
    }
    let comment = column.description.as_ref().map(|comment| format!("{comment}\n\n")).unwrap_or_default();
    Some(format!("{comment}{}", notes.join("\n")))
}

/// What the column alone references in the same schema; tables before views.
fn referenced<'a>(cache: &'a SchemaCache, table: &Table, column: &Column) -> Option<(&'a str, &'a str)> {
    let relationships = cache.relationships.get(&(table.name.clone(), table.name.schema.clone()))?;
    let mut found = relationships.iter().filter_map(|relationship| {
        let (RelationshipKind::ManyToOne(key) | RelationshipKind::OneToOne { key, is_parent: false }) =
            &relationship.kind
        else {
            return None;
        };
        match &key.columns[..] {
            [(own, foreign)] if *own == column.name => Some((
                relationship.foreign_is_view,
                relationship.foreign_table.name.as_str(),
                foreign.as_str(),
            )),
            _ => None,
        }
    });
    let first = found.next()?;
    let table_first = if first.0 { found.find(|(is_view, ..)| !is_view).unwrap_or(first) } else { first };
    Some((table_first.1, table_first.2))
}

/// Parameters that all tables share.
pub(super) fn shared_parameters() -> Map<String, Value> {
    let prefer = |values: &[&str]| {
        let mut parameter = Map::new();
        parameter.insert("name".to_owned(), "Prefer".into());
        parameter.insert("description".to_owned(), "Preference".into());
        parameter.insert("required".to_owned(), false.into());
        parameter.insert("in".to_owned(), "header".into());
        parameter.insert("type".to_owned(), "string".into());
        set(&mut parameter, "enum", (!values.is_empty()).then(|| values.to_vec()));
        Value::Object(parameter)
    };
    let plain = |name: &str, description: &str, place: &str| json!({"name": name, "description": description, "required": false, "in": place, "type": "string"});
    let mut unit = plain("Range-Unit", "Limiting and Pagination", "header");
    unit["default"] = "items".into();
    [
        ("preferParams", prefer(&[])),
        ("preferReturn", prefer(&["return=representation", "return=minimal", "return=none"])),
        ("preferCount", prefer(&["count=none"])),
        (
            "preferPost",
            prefer(&[
                "return=representation",
                "return=minimal",
                "return=none",
                "resolution=ignore-duplicates",
                "resolution=merge-duplicates",
            ]),
        ),
        ("select", plain("select", "Filtering Columns", "query")),
        ("on_conflict", plain("on_conflict", "On Conflict", "query")),
        ("order", plain("order", "Ordering", "query")),
        ("range", plain("Range", "Limiting and Pagination", "header")),
        ("rangeUnit", unit),
        ("offset", plain("offset", "Limiting and Pagination", "query")),
        ("limit", plain("limit", "Limiting and Pagination", "query")),
    ]
    .into_iter()
    .map(|(name, parameter)| (name.to_owned(), parameter))
    .collect()
}

/// The body and the filters of one table.
pub(super) fn parameters(table: &Table) -> impl Iterator<Item = (String, Value)> {
    let name = &table.name.name;
    let body = json!({
        "name": name,
        "description": name,
        "required": false,
        "in": "body",
        "schema": {"$ref": format!("#/definitions/{name}")},
    });
    let filters = table.columns.iter().map(move |column| {
        let mut filter = Map::new();
        filter.insert("name".to_owned(), column.name.as_str().into());
        set(&mut filter, "description", column.description.as_deref());
        filter.insert("required".to_owned(), false.into());
        filter.insert("in".to_owned(), "query".into());
        filter.insert("type".to_owned(), "string".into());
        (format!("rowFilter.{name}.{}", column.name), Value::Object(filter))
    });
    std::iter::once((format!("body.{name}"), body)).chain(filters)
}
