//! Relationships and view keys, derived from the keys of tables and the origins of view columns.

use std::cmp::Ordering;
use std::collections::{BTreeSet, HashMap};

use super::view_columns::Origins;
use super::{ForeignKey, Junction, QualifiedName, Relationship, RelationshipKind, Table};

/// A primary or foreign key of a table.
#[derive(Debug, Clone)]
pub(crate) struct Key {
    /// Name of the constraint.
    pub(crate) name: String,
    /// Table, by object identifier and name.
    pub(crate) relation: (u32, QualifiedName),
    /// Its columns, by number and name, in the order of the key.
    pub(crate) columns: Vec<(i16, String)>,
    /// What a foreign key references.
    pub(crate) references: Option<Reference>,
}

/// The far side of a foreign key.
#[derive(Debug, Clone)]
pub(crate) struct Reference {
    /// Table, by object identifier and name.
    pub(crate) relation: (u32, QualifiedName),
    /// Columns that correspond to the key's.
    pub(crate) columns: Vec<(i16, String)>,
    /// The key is unique in its own table: one row at most references another.
    pub(crate) is_unique: bool,
}

/// An exposed view with what its columns show.
#[derive(Debug, Clone)]
pub(crate) struct TracedView {
    /// Its name.
    pub(crate) name: QualifiedName,
    /// Names of its columns by number.
    pub(crate) columns: HashMap<i16, String>,
    /// Where they come from.
    pub(crate) origins: Origins,
}

impl TracedView {
    /// For each column of a key, the columns of this view that show it; none unless all are shown.
    fn shown(&self, relation: u32, key: &[(i16, String)]) -> Option<Vec<Vec<String>>> {
        key.iter()
            .map(|(number, _)| {
                let numbers = self.origins.get(&(relation, *number))?;
                let names: Vec<String> =
                    numbers.iter().filter_map(|number| self.columns.get(number).cloned()).collect();
                (!names.is_empty()).then_some(names)
            })
            .collect()
    }
}

/// Views by the relations that they show columns of.
struct ViewIndex<'a>(HashMap<u32, Vec<&'a TracedView>>);

impl<'a> ViewIndex<'a> {
    fn new(views: &'a [TracedView]) -> Self {
        let mut index: HashMap<u32, Vec<&TracedView>> = HashMap::new();
        for view in views {
            let relations: BTreeSet<u32> = view.origins.keys().map(|(relation, _)| *relation).collect();
            for relation in relations {
                index.entry(relation).or_default().push(view);
            }
        }
        Self(index)
    }

    fn showing(&self, relation: u32, key: &[(i16, String)]) -> Vec<(&'a TracedView, Vec<Vec<String>>)> {
        let views = self.0.get(&relation).into_iter().flatten();
        views.filter_map(|view| Some((*view, view.shown(relation, key)?))).collect()
    }
}

/// Gives views the primary keys of the tables whose whole key they show. A key column that a view shows twice
/// counts once: rows need one name for it.
pub(crate) fn add_view_keys(tables: &mut HashMap<QualifiedName, Table>, keys: &[Key], views: &[TracedView]) {
    let index = ViewIndex::new(views);
    let mut primary: Vec<&Key> = keys.iter().filter(|key| key.references.is_none()).collect();
    primary.sort_by(|a, b| a.relation.1.cmp(&b.relation.1));
    for key in primary {
        for (view, columns) in index.showing(key.relation.0, &key.columns) {
            let Some(table) = tables.get_mut(&view.name) else { continue };
            table.primary_key.extend(columns.into_iter().filter_map(|names| names.into_iter().next()));
        }
    }
}

/// All relationships between `schemas`, by source table and schema of the target.
pub(crate) fn relate(
    tables: &HashMap<QualifiedName, Table>,
    keys: &[Key],
    views: &[TracedView],
    computed: Vec<Relationship>,
    schemas: &[String],
) -> HashMap<(QualifiedName, String), Vec<Relationship>> {
    let mut found = Vec::new();
    let index = ViewIndex::new(views);
    for key in keys {
        if let Some(reference) = &key.references {
            found.extend(from_key(key, reference, &index));
        }
    }
    let through = through_junctions(tables, &found);
    found.extend(through);
    let inverse: Vec<Relationship> = found.iter().filter_map(inverted).collect();
    found.extend(inverse);

    // A computed relationship takes the place of those to a table of the function's name.
    let mut by_target: HashMap<(QualifiedName, QualifiedName), Vec<Relationship>> = HashMap::new();
    for relationship in found {
        let target = (relationship.table.clone(), relationship.foreign_table.clone());
        by_target.entry(target).or_default().push(relationship);
    }
    for relationship in computed {
        if let RelationshipKind::Computed { function, .. } = &relationship.kind {
            by_target.insert((relationship.table.clone(), function.clone()), vec![relationship]);
        }
    }

    let exposed = |name: &QualifiedName| schemas.contains(&name.schema);
    let mut relationships: HashMap<(QualifiedName, String), Vec<Relationship>> = HashMap::new();
    for ((table, target), members) in by_target {
        if exposed(&table) {
            // A table whose relationships are all hidden is still known, so that no other is suggested in its place.
            relationships.entry((table.clone(), table.schema.clone())).or_default();
            let kept = members.into_iter().filter(|relationship| {
                exposed(&relationship.foreign_table)
                    && match &relationship.kind {
                        RelationshipKind::ManyToMany(junction) => exposed(&junction.table),
                        _ => true,
                    }
            });
            relationships.entry((table, target.schema)).or_default().extend(kept);
        }
    }
    relationships.retain(|(table, schema), members| table.schema == *schema || !members.is_empty());
    for members in relationships.values_mut() {
        members.sort_by(order);
    }
    relationships
}

/// The relationship of a foreign key, and those of the views that show either side or both. A view that shows a
/// column of the key several times can be followed through each.
fn from_key(key: &Key, reference: &Reference, index: &ViewIndex<'_>) -> Vec<Relationship> {
    type Side<'a> = (&'a QualifiedName, bool, Vec<String>);

    let sides = |relation: &'_ (u32, QualifiedName), columns: &[(i16, String)]| {
        index.showing(relation.0, columns).into_iter().flat_map(|(view, shown)| {
            combinations(&shown).into_iter().map(move |names| (&view.name, true, names))
        })
    };
    let names = |columns: &[(i16, String)]| columns.iter().map(|(_, name)| name.clone()).collect();
    let mut near: Vec<Side<'_>> = vec![(&key.relation.1, false, names(&key.columns))];
    near.extend(sides(&key.relation, &key.columns));
    let mut far: Vec<Side<'_>> = vec![(&reference.relation.1, false, names(&reference.columns))];
    far.extend(sides(&reference.relation, &reference.columns));

    let mut relationships = Vec::with_capacity(near.len() * far.len());
    for (table, table_is_view, columns) in &near {
        for (foreign_table, foreign_is_view, foreign_columns) in &far {
            let foreign_key = ForeignKey {
                constraint: key.name.clone(),
                columns: columns.iter().cloned().zip(foreign_columns.iter().cloned()).collect(),
            };
            relationships.push(Relationship {
                table: (*table).clone(),
                foreign_table: (*foreign_table).clone(),
                is_self: table == foreign_table,
                table_is_view: *table_is_view,
                foreign_is_view: *foreign_is_view,
                kind: if reference.is_unique {
                    RelationshipKind::OneToOne { key: foreign_key, is_parent: false }
                } else {
                    RelationshipKind::ManyToOne(foreign_key)
                },
            });
        }
    }
    relationships
}

/// Every way to take one name of each list.
fn combinations(lists: &[Vec<String>]) -> Vec<Vec<String>> {
    lists.iter().fold(vec![Vec::new()], |chosen, names| {
        let with = |before: &Vec<String>| {
            names.iter().map(|name| [&before[..], std::slice::from_ref(name)].concat()).collect::<Vec<_>>()
        };
        chosen.iter().flat_map(with).collect()
    })
}

/// Many-to-many relationships: a table whose primary key holds two foreign keys joins what they reference.
fn through_junctions(tables: &HashMap<QualifiedName, Table>, found: &[Relationship]) -> Vec<Relationship> {
    let mut by_table: HashMap<&QualifiedName, Vec<(&Relationship, &ForeignKey)>> = HashMap::new();
    for relationship in found {
        if let RelationshipKind::ManyToOne(key) = &relationship.kind {
            by_table.entry(&relationship.table).or_default().push((relationship, key));
        }
    }
    let swapped = |key: &ForeignKey| key.columns.iter().map(|(a, b)| (b.clone(), a.clone())).collect();
    let mut through = Vec::new();
    for (junction, members) in by_table {
        let Some(table) = tables.get(junction) else { continue };
        let in_key =
            |key: &ForeignKey| key.columns.iter().all(|(column, _)| table.primary_key.contains(column));
        let members: Vec<_> = members.into_iter().filter(|(_, key)| in_key(key)).collect();
        for (source, source_key) in &members {
            for (target, target_key) in &members {
                if source_key.constraint != target_key.constraint {
                    through.push(Relationship {
                        table: source.foreign_table.clone(),
                        foreign_table: target.foreign_table.clone(),
                        is_self: source.foreign_table == target.foreign_table,
                        table_is_view: source.foreign_is_view,
                        foreign_is_view: target.foreign_is_view,
                        kind: RelationshipKind::ManyToMany(Junction {
                            table: junction.clone(),
                            constraint1: source_key.constraint.clone(),
                            constraint2: target_key.constraint.clone(),
                            source_columns: swapped(source_key),
                            target_columns: swapped(target_key),
                        }),
                    });
                }
            }
        }
    }
    through
}

/// The same relationship from the referenced side.
fn inverted(relationship: &Relationship) -> Option<Relationship> {
    let swapped = |key: &ForeignKey| ForeignKey {
        constraint: key.constraint.clone(),
        columns: key.columns.iter().map(|(a, b)| (b.clone(), a.clone())).collect(),
    };
    let kind = match &relationship.kind {
        RelationshipKind::ManyToOne(key) => RelationshipKind::OneToMany(swapped(key)),
        RelationshipKind::OneToOne { key, is_parent } => {
            RelationshipKind::OneToOne { key: swapped(key), is_parent: !is_parent }
        }
        _ => return None,
    };
    Some(Relationship {
        table: relationship.foreign_table.clone(),
        foreign_table: relationship.table.clone(),
        is_self: relationship.is_self,
        table_is_view: relationship.foreign_is_view,
        foreign_is_view: relationship.table_is_view,
        kind,
    })
}

/// The order in which ambiguous relationships are listed to the client.
fn order(a: &Relationship, b: &Relationship) -> Ordering {
    fn rank(kind: &RelationshipKind) -> u8 {
        match kind {
            RelationshipKind::OneToMany(_) => 0,
            RelationshipKind::ManyToOne(_) => 1,
            RelationshipKind::OneToOne { .. } => 2,
            RelationshipKind::ManyToMany(_) => 3,
            RelationshipKind::Computed { .. } => 4,
        }
    }
    fn key(kind: &RelationshipKind) -> Option<(&ForeignKey, bool)> {
        match kind {
            RelationshipKind::OneToMany(key) | RelationshipKind::ManyToOne(key) => Some((key, false)),
            RelationshipKind::OneToOne { key, is_parent } => Some((key, *is_parent)),
            _ => None,
        }
    }
    let computed =
        |relationship: &Relationship| matches!(relationship.kind, RelationshipKind::Computed { .. });
    let within = || match (&a.kind, &b.kind) {
        (RelationshipKind::ManyToMany(x), RelationshipKind::ManyToMany(y)) => (
            &x.table,
            &x.constraint1,
            &x.constraint2,
            &x.source_columns,
            &x.target_columns,
        )
            .cmp(&(&y.table, &y.constraint1, &y.constraint2, &y.source_columns, &y.target_columns)),
        (RelationshipKind::Computed { function: x, .. }, RelationshipKind::Computed { function: y, .. }) => {
            x.cmp(y)
        }
        (x, y) => match (key(x), key(y)) {
            (Some((x, x_parent)), Some((y, y_parent))) => {
                (&x.constraint, &x.columns, x_parent).cmp(&(&y.constraint, &y.columns, y_parent))
            }
            _ => Ordering::Equal,
        },
    };
    computed(a)
        .cmp(&computed(b))
        .then_with(|| (&a.table, &a.foreign_table, a.is_self).cmp(&(&b.table, &b.foreign_table, b.is_self)))
        .then_with(|| rank(&a.kind).cmp(&rank(&b.kind)))
        .then_with(within)
        .then_with(|| (a.table_is_view, a.foreign_is_view).cmp(&(b.table_is_view, b.foreign_is_view)))
}

#[cfg(test)]
#[path = "relationships_tests.rs"]
mod tests;
