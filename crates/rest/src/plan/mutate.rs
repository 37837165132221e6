//! Writes: which columns are set from the payload, which rows are meant, what must come back.

use std::collections::BTreeSet;

use bytes::Bytes;

use super::columns::Resolver;
use super::read::{find_table, tree};
use super::{Condition, Field, ReadNode, WritePlan, negotiate};
use crate::config::RestConfig;
use crate::error::Error;
use crate::request::{ApiRequest, Logic, Mutation, Operation, Payload, QuantifiedOperator, Return};
use crate::schema::{QualifiedName, RelationshipKind, SchemaCache, Table};

/// A write of a relation.
#[derive(Debug, Clone, PartialEq)]
pub(crate) enum MutatePlan {
    Insert(InsertPlan),
    Update(UpdatePlan),
    Delete(DeletePlan),
}

/// `insert`, perhaps with `on conflict`.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct InsertPlan {
    pub(crate) relation: QualifiedName,
    pub(crate) columns: Vec<Field>,
    pub(crate) body: Option<Bytes>,
    /// Columns of the conflict, and whether the new row wins.
    pub(crate) on_conflict: Option<OnConflict>,
    /// What a PUT's row must satisfy.
    pub(crate) conditions: Vec<Condition>,
    pub(crate) returning: Vec<String>,
    pub(crate) primary_key: Vec<String>,
    pub(crate) apply_defaults: bool,
}

/// What happens to rows that are there already.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct OnConflict {
    pub(crate) merge: bool,
    pub(crate) columns: Vec<String>,
}

/// `update`
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct UpdatePlan {
    pub(crate) relation: QualifiedName,
    pub(crate) columns: Vec<Field>,
    pub(crate) body: Option<Bytes>,
    pub(crate) conditions: Vec<Condition>,
    pub(crate) returning: Vec<String>,
    pub(crate) apply_defaults: bool,
}

/// `delete`
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct DeletePlan {
    pub(crate) relation: QualifiedName,
    pub(crate) conditions: Vec<Condition>,
    pub(crate) returning: Vec<String>,
}

impl InsertPlan {
    /// Whether this is a PUT.
    pub(crate) fn is_put(&self) -> bool {
        !self.conditions.is_empty()
    }

    /// Whether it counts which rows were new.
    pub(crate) fn counts_new_rows(&self) -> bool {
        self.is_put() || self.on_conflict.as_ref().is_some_and(|conflict| conflict.merge)
    }
}

pub(super) fn plan(
    request: &ApiRequest,
    relation: &str,
    mutation: Mutation,
    cache: &SchemaCache,
    config: &RestConfig,
) -> Result<WritePlan, Error> {
    let table = find_table(request, relation, cache)?;
    let tree = tree(request, &table.name, cache, config)?;
    let write = write(request, table, mutation, cache, &tree)?;
    request.preferences.check()?;
    let output = negotiate::output(request, &table.name, tree.is_default_select(), cache, config)?;
    Ok(WritePlan { tree, write, output, mutation, relation: table.name.clone() })
}

fn write(
    request: &ApiRequest,
    table: &Table,
    mutation: Mutation,
    cache: &SchemaCache,
    tree: &ReadNode,
) -> Result<MutatePlan, Error> {
    let resolver = Resolver::new(cache, &table.name);
    let root_filters = || request.query.filters.iter().filter(|(path, _)| path.is_empty()).map(|(_, f)| f);
    let conditions = || root_filters().map(|logic| resolver.condition(logic)).collect::<Vec<_>>();
    let columns = || {
        request
            .columns
            .iter()
            .map(|name| resolver.input(name).ok_or_else(|| Error::column_not_found(&table.name.name, name)))
            .collect::<Result<Vec<Field>, Error>>()
    };
    let returning = match request.preferences.representation {
        None | Some(Return::Minimal) => Vec::new(),
        Some(Return::Representation | Return::HeadersOnly) => {
            needed_columns(tree, &table.primary_key).into_iter().collect()
        }
    };
    let body = request.payload.as_ref().and_then(raw);
    let apply_defaults = request.preferences.missing_default == Some(true);
    let relation = table.name.clone();
    Ok(match mutation {
        Mutation::Create => MutatePlan::Insert(InsertPlan {
            relation,
            columns: columns()?,
            body,
            on_conflict: request.preferences.merge_duplicates.map(|merge| OnConflict {
                merge,
                columns: request.query.on_conflict.clone().unwrap_or_else(|| table.primary_key.clone()),
            }),
            conditions: Vec::new(),
            returning,
            primary_key: table.primary_key.clone(),
            apply_defaults,
        }),
        Mutation::SingleUpsert => {
            if !names_primary_key(request, table) {
                return Err(Error::InvalidFilters);
            }
            MutatePlan::Insert(InsertPlan {
                relation,
                columns: columns()?,
                body,
                on_conflict: Some(OnConflict { merge: true, columns: table.primary_key.clone() }),
                conditions: conditions(),
                returning,
                primary_key: Vec::new(),
                apply_defaults: false,
            })
        }
        Mutation::Update => MutatePlan::Update(UpdatePlan {
            relation,
            columns: columns()?,
            body,
            conditions: conditions(),
            returning,
            apply_defaults,
        }),
        Mutation::Delete => MutatePlan::Delete(DeletePlan { relation, conditions: conditions(), returning }),
    })
}

/// Bytes of a payload as sent, where it has some.
pub(super) fn raw(payload: &Payload) -> Option<Bytes> {
    match payload {
        Payload::Json { raw, .. } | Payload::Raw(raw) => Some(raw.clone()),
        Payload::Form(_) => None,
    }
}

/// A PUT names its row by `eq` of every column of the primary key, and by nothing else.
fn names_primary_key(request: &ApiRequest, table: &Table) -> bool {
    let mut named = BTreeSet::new();
    for (path, logic) in &request.query.filters {
        match logic {
            Logic::Group { .. } => return false,
            Logic::Filter(filter) if path.is_empty() => {
                if filter.negated
                    || !matches!(filter.operation, Operation::Quantified(QuantifiedOperator::Equal, None, _))
                {
                    return false;
                }
                named.insert(filter.field.name.as_str());
            }
            Logic::Filter(_) => {}
        }
    }
    let key: BTreeSet<&str> = table.primary_key.iter().map(String::as_str).collect();
    !key.is_empty() && named == key
}

/// Columns that must come back from a write or a call, so that what is selected and embedded can be read from it.
pub(super) fn needed_columns(tree: &ReadNode, primary_key: &[String]) -> BTreeSet<String> {
    let all = || BTreeSet::from(["*".to_owned()]);
    let mut needed: BTreeSet<String> = tree.select.iter().map(|column| column.field.name.clone()).collect();
    if needed.contains("*") {
        return all();
    }
    for child in &tree.children {
        let Some(relationship) = &child.relationship else { continue };
        let columns = match &relationship.kind {
            RelationshipKind::OneToMany(key)
            | RelationshipKind::ManyToOne(key)
            | RelationshipKind::OneToOne { key, .. } => &key.columns,
            RelationshipKind::ManyToMany(junction) => &junction.source_columns,
            // A function may look at any column.
            RelationshipKind::Computed { .. } => return all(),
        };
        needed.extend(columns.iter().map(|(column, _)| column.clone()));
    }
    needed.extend(primary_key.iter().cloned());
    needed
}
