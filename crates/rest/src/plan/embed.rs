//! Relationships between the nodes of a read.

use std::sync::Arc;

use super::{JoinCondition, ReadNode, Relation, Spread};
use crate::error::Error;
use crate::schema::{ForeignKey, QualifiedName, Relationship, RelationshipKind, SchemaCache};

/// Finds the relationship of every embed of a node, and joins it.
pub(super) fn relate(parent: &mut ReadNode, schema: &str, cache: &SchemaCache) -> Result<(), Error> {
    // The result of a write or call stands for the relation that it is an alias of.
    let origin = match &parent.from.alias {
        Some(alias) if parent.depth == 0 => alias.clone(),
        _ => parent.from.name.clone(),
    };
    for child in &mut parent.children {
        let relationship = find(schema, &origin, &child.name, child.hint.as_deref(), cache)?;
        let depth = child.depth;
        child.subquery = format!("{}_{}_{depth}", relationship.table.name, child.shown_as());
        if child.spread.is_some() && !relationship.is_to_one() {
            child.spread = Some(Spread::ToMany { extra: Vec::new(), order: Vec::new() });
        }
        child.from = Relation {
            alias: Some(format!("{}_{depth}", relationship.foreign_table.name)),
            ..Relation::of(&relationship.foreign_table)
        };
        if matches!(relationship.kind, RelationshipKind::Computed { .. }) {
            child.computed_argument = Some(match &parent.from.alias {
                Some(alias) => QualifiedName::new("", alias.as_str()),
                None => relationship.table.clone(),
            });
        }
        child.join_conditions = join_conditions(relationship, &parent.from, &child.from);
        child.relationship = Some(Arc::new(relationship.clone()));
        relate(child, schema, cache)?;
    }
    Ok(())
}

fn name_in_query(relation: &Relation) -> QualifiedName {
    match &relation.alias {
        Some(alias) => QualifiedName::new("", alias.as_str()),
        None => relation.qualified(),
    }
}

fn join_conditions(relationship: &Relationship, parent: &Relation, child: &Relation) -> Vec<JoinCondition> {
    let parent = name_in_query(parent);
    let child = name_in_query(child);
    match &relationship.kind {
        RelationshipKind::Computed { .. } => Vec::new(),
        RelationshipKind::OneToMany(key)
        | RelationshipKind::ManyToOne(key)
        | RelationshipKind::OneToOne { key, .. } => key
            .columns
            .iter()
            .map(|(column, foreign)| JoinCondition {
                left: (child.clone(), foreign.clone()),
                right: (parent.clone(), column.clone()),
            })
            .collect(),
        RelationshipKind::ManyToMany(junction) => {
            let towards = |columns: &[(String, String)], table: &QualifiedName| -> Vec<JoinCondition> {
                columns
                    .iter()
                    .map(|(column, of_junction)| JoinCondition {
                        left: (junction.table.clone(), of_junction.clone()),
                        right: (table.clone(), column.clone()),
                    })
                    .collect()
            };
            let mut conditions = towards(&junction.target_columns, &child);
            conditions.extend(towards(&junction.source_columns, &parent));
            conditions
        }
    }
}

/// The one relationship that a target, perhaps with a hint, names.
fn find<'a>(
    schema: &str,
    origin: &str,
    target: &str,
    hint: Option<&str>,
    cache: &'a SchemaCache,
) -> Result<&'a Relationship, Error> {
    let key = (QualifiedName::new(schema, origin), schema.to_owned());
    let candidates = cache.relationships.get(&key).map_or(&[][..], Vec::as_slice);
    let mut matching = candidates.iter().filter(|relationship| matches(relationship, target, hint));
    let Some(first) = matching.next() else {
        return Err(Error::no_relationship(origin, target, hint, schema, cache));
    };
    let rest: Vec<&Relationship> = matching.collect();
    if rest.is_empty() {
        return Ok(first);
    }
    let all: Vec<&Relationship> = std::iter::once(first).chain(rest).collect();
    Err(Error::ambiguous_relationship(origin, target, &all))
}

fn foreign_key(kind: &RelationshipKind) -> Option<&ForeignKey> {
    match kind {
        RelationshipKind::OneToMany(key)
        | RelationshipKind::ManyToOne(key)
        | RelationshipKind::OneToOne { key, .. } => Some(key),
        RelationshipKind::ManyToMany(_) | RelationshipKind::Computed { .. } => None,
    }
}

fn matches(relationship: &Relationship, target: &str, hint: Option<&str>) -> bool {
    let kind = &relationship.kind;
    if let RelationshipKind::Computed { function, .. } = kind {
        return function.name == target;
    }
    let single = |name: &str, of_foreign: bool| {
        foreign_key(kind).is_some_and(|key| match &key.columns[..] {
            [(column, foreign)] => name == if of_foreign { foreign } else { column },
            _ => false,
        })
    };
    let constraint = |name: &str| foreign_key(kind).is_some_and(|key| key.constraint == name);
    let names_target = relationship.foreign_table.name == target;

    if relationship.is_self {
        // One key makes two relationships of a table with itself: the table's name means its children, the column's
        // name the parent.
        let to_many = matches!(kind, RelationshipKind::OneToMany(_));
        return match hint {
            None => {
                (names_target && to_many)
                    || (matches!(kind, RelationshipKind::ManyToOne(_)) && single(target, false))
            }
            Some(hint) => names_target && to_many && single(hint, true),
        };
    }
    match hint {
        None => {
            names_target || (!relationship.foreign_is_view && (constraint(target) || single(target, false)))
        }
        Some(hint) => {
            let junction = matches!(kind, RelationshipKind::ManyToMany(j) if j.table.name == hint);
            names_target && (constraint(hint) || single(hint, false) || single(hint, true) || junction)
        }
    }
}
