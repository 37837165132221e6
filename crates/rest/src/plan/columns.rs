//! Columns in context: their types, and the functions that map them.

use super::{Condition, Field, OrderBy, ReadNode, SelectColumn, Spread};
use crate::request::{self, Aggregate, JsonOperand, JsonStep, Logic, Operation, OrderTerm};
use crate::schema::{Column, QualifiedName, SchemaCache, Table};

/// Looks up columns of one relation.
#[derive(Debug, Clone, Copy)]
pub(super) struct Resolver<'a> {
    cache: &'a SchemaCache,
    table: Option<&'a Table>,
}

impl<'a> Resolver<'a> {
    pub(super) fn new(cache: &'a SchemaCache, relation: &QualifiedName) -> Self {
        Self { cache, table: cache.tables.get(relation) }
    }

    fn column(self, name: &str) -> Option<&'a Column> {
        self.table.and_then(|table| table.column(name))
    }

    /// A column in a select: mapped to JSON where its type has a mapping.
    pub(super) fn output(self, field: &request::Field) -> Field {
        self.formatted(self.typed(field, None))
    }

    /// A column of an order.
    pub(super) fn ordered(self, field: &request::Field) -> Field {
        self.typed(field, None)
    }

    /// A column that a payload sets: mapped from JSON. None when the relation has no such column.
    pub(super) fn input(self, name: &str) -> Option<Field> {
        let field = of_column(self.column(name)?);
        Some(self.mapped("json", field.type_name.clone(), field))
    }

    pub(super) fn condition(self, logic: &Logic) -> Condition {
        match logic {
            Logic::Group { negated, any, members } => Condition::Group {
                negated: *negated,
                any: *any,
                members: members.iter().map(|member| self.condition(member)).collect(),
            },
            Logic::Filter(filter) => {
                let to_tsvector = match &filter.operation {
                    Operation::FullText(_, configuration, _) => Some(configuration.clone()),
                    _ => None,
                };
                let field = self.typed(&filter.field, to_tsvector);
                Condition::Compare {
                    field: Box::new(self.mapped("text", field.type_name.clone(), field)),
                    negated: filter.negated,
                    operation: filter.operation.clone(),
                }
            }
        }
    }

    pub(super) fn order(self, term: &OrderTerm) -> OrderBy {
        OrderBy {
            field: if term.relation.is_some() {
                Field::unknown(term.field.name.as_str(), term.field.json_path.clone())
            } else {
                self.ordered(&term.field)
            },
            relation: term.relation.clone(),
            descending: term.descending,
            nulls_first: term.nulls_first,
        }
    }

    fn typed(self, field: &request::Field, to_tsvector: Option<Option<String>>) -> Field {
        let mut resolved = match self.column(&field.name) {
            Some(column) => Field { to_tsvector, ..of_column(column) },
            // PostgREST converts nothing that it does not know.
            None => Field::unknown(field.name.as_str(), Vec::new()),
        };
        resolved.json_path.clone_from(&field.json_path);
        // Indexes on JSON columns only serve expressions without the conversion.
        resolved.to_json = !matches!(resolved.type_name.as_str(), "json" | "jsonb");
        if resolved.base_type == "tsvector" {
            resolved.to_tsvector = None;
        }
        resolved
    }

    fn formatted(self, field: Field) -> Field {
        if field.type_name.is_empty() || self.cache.representations.is_empty() {
            return field;
        }
        let source = field.type_name.clone();
        match self.cache.representations.get(&(source, "json".to_owned())) {
            Some(mapping) => Field { transform: Some(mapping.function.clone()), ..field },
            None => field,
        }
    }

    /// Maps from text or JSON to the column's type; the field's own type is then what the mapping takes.
    fn mapped(self, source: &str, target: String, field: Field) -> Field {
        if target.is_empty() || self.cache.representations.is_empty() {
            return field;
        }
        match self.cache.representations.get(&(source.to_owned(), target)) {
            Some(mapping) => {
                Field { type_name: source.to_owned(), transform: Some(mapping.function.clone()), ..field }
            }
            None => field,
        }
    }

    fn has_output_mapping(self) -> bool {
        !self.cache.representations.is_empty()
            && self.table.is_some_and(|table| {
                table.columns.iter().any(|column| {
                    self.cache.representations.contains_key(&(column.nominal_type.clone(), "json".to_owned()))
                })
            })
    }
}

fn of_column(column: &Column) -> Field {
    Field {
        name: column.name.clone(),
        type_name: column.nominal_type.clone(),
        base_type: column.base_type.clone(),
        default: column.default.clone(),
        ..Field::default()
    }
}

/// Replaces `*` by the columns where it must be known what it stands for: beside aggregates, in to-many spreads and
/// for relations with mapped columns.
pub(super) fn expand_stars(node: &mut ReadNode, schema: &str, above_aggregates: bool, cache: &SchemaCache) {
    let aggregates = above_aggregates
        || node.select.iter().any(|column| column.aggregate.is_some())
        || matches!(node.spread, Some(Spread::ToMany { .. }));
    let relation = match (&node.from.schema[..], &node.from.alias) {
        // The result of a write or call has the columns of the relation that it is named after.
        ("", Some(alias)) => QualifiedName::new(schema, alias.as_str()),
        _ => node.from.qualified(),
    };
    let resolver = Resolver::new(cache, &relation);
    let spread = node.spread.is_some();
    let is_star = |column: &SelectColumn| column.field.name == "*" && column.field.json_path.is_empty();
    let concerns = |column: &SelectColumn| {
        column.aggregate.is_none() || (spread && column.aggregate == Some(Aggregate::Count))
    };
    let has_star = node.select.iter().any(|column| is_star(column) && concerns(column));
    if has_star && (aggregates || resolver.has_output_mapping()) {
        let columns = resolver.table.map_or(&[][..], |table| &table.columns[..]);
        let selected = std::mem::take(&mut node.select);
        for mut column in selected {
            if !is_star(&column) {
                node.select.push(column);
            } else if column.aggregate.is_none() {
                node.select.extend(columns.iter().map(|known| SelectColumn {
                    field: resolver.formatted(of_column(known)),
                    ..column.clone()
                }));
            } else {
                column.field.full_row = spread && column.aggregate == Some(Aggregate::Count);
                node.select.push(column);
            }
        }
    }
    for child in &mut node.children {
        expand_stars(child, schema, aggregates, cache);
    }
}

/// Names columns that Postgres would name otherwise: JSON paths, mapped columns, aggregates of spreads.
pub(super) fn add_aliases(node: &mut ReadNode) {
    let spread = node.spread.is_some();
    for column in &mut node.select {
        if column.alias.is_some() {
            continue;
        }
        column.alias = if let Some(aggregate) = column.aggregate {
            spread.then(|| aggregate_name(aggregate).to_owned())
        } else if let Some(key) = last_key(&column.field) {
            Some(key)
        } else if column.field.transform.is_some() {
            Some(column.field.name.clone())
        } else {
            None
        };
    }
    node.children.iter_mut().for_each(add_aliases);
}

/// Last key of a JSON path; the column's name when it has indexes only.
fn last_key(field: &Field) -> Option<String> {
    if field.json_path.is_empty() {
        return None;
    }
    let key = field.json_path.iter().rev().find_map(|JsonStep { operand, .. }| match operand {
        JsonOperand::Key(key) => Some(key.clone()),
        JsonOperand::Index(_) => None,
    });
    Some(key.unwrap_or_else(|| field.name.clone()))
}

/// SQL name of an aggregate.
pub(crate) fn aggregate_name(aggregate: Aggregate) -> &'static str {
    match aggregate {
        Aggregate::Sum => "sum",
        Aggregate::Avg => "avg",
        Aggregate::Max => "max",
        Aggregate::Min => "min",
        Aggregate::Count => "count",
    }
}
