//! What a node shows of its children, spreads and their aggregates.

use super::{EmbeddedColumn, Field, OrderBy, ReadNode, SelectColumn, Spread, SpreadColumn};
use crate::error::Error;
use crate::request::Aggregate;

/// Decides what every node shows of its children.
pub(super) fn show_embeds(node: &mut ReadNode) {
    node.children.iter_mut().for_each(show_embeds);
    node.embedded = node
        .children
        .iter()
        .map(|child| {
            let subquery = child.subquery.clone();
            if child.spread.is_some() {
                EmbeddedColumn::Spread { subquery, columns: spread_columns(child) }
            } else {
                EmbeddedColumn::Json {
                    name: child.shown_as().to_owned(),
                    subquery,
                    to_one: child.relationship.as_ref().is_some_and(|relationship| relationship.is_to_one()),
                    empty: selects_nothing(child),
                }
            }
        })
        .collect();
}

fn selects_nothing(node: &ReadNode) -> bool {
    node.select.is_empty() && node.children.iter().all(selects_nothing)
}

fn spread_columns(node: &ReadNode) -> Vec<SpreadColumn> {
    let named = |name: &str| SpreadColumn {
        name: name.to_owned(),
        aggregate: None,
        aggregate_cast: None,
        alias: None,
    };
    let mut columns: Vec<SpreadColumn> = node
        .select
        .iter()
        .map(|column| named(column.alias.as_deref().unwrap_or(&column.field.name)))
        .collect();
    for embedded in &node.embedded {
        match embedded {
            EmbeddedColumn::Json { name, .. } => columns.push(named(name)),
            EmbeddedColumn::Spread { columns: nested, .. } => columns.extend(nested.iter().cloned()),
        }
    }
    columns
}

/// An aggregate on its way up: the subquery and column that it applies to.
struct Hoisted {
    subquery: String,
    column: String,
    aggregate: Aggregate,
    cast: Option<String>,
    alias: Option<String>,
}

/// Moves aggregates of to-one spreads up to the node that shows them: below, they would aggregate single rows.
pub(super) fn hoist_aggregates(root: &mut ReadNode) {
    hoist(root);
}

fn hoist(node: &mut ReadNode) -> Vec<Hoisted> {
    let from_children: Vec<Hoisted> = node.children.iter_mut().flat_map(hoist).collect();
    if node.depth == 0 || !matches!(node.spread, Some(Spread::ToOne)) {
        for embedded in &mut node.embedded {
            let EmbeddedColumn::Spread { subquery, columns } = embedded else { continue };
            for column in columns {
                let hoisted = from_children
                    .iter()
                    .find(|hoisted| hoisted.subquery == *subquery && hoisted.column == column.name);
                if let Some(hoisted) = hoisted {
                    column.aggregate = Some(hoisted.aggregate);
                    column.aggregate_cast.clone_from(&hoisted.cast);
                    column.alias.clone_from(&hoisted.alias);
                }
            }
        }
        return Vec::new();
    }
    let mut up = Vec::new();
    for column in &mut node.select {
        if let Some(aggregate) = column.aggregate.take() {
            up.push(Hoisted {
                subquery: node.subquery.clone(),
                column: column.alias.clone().unwrap_or_else(|| column.field.name.clone()),
                aggregate,
                cast: column.aggregate_cast.take(),
                alias: column.alias.clone(),
            });
        }
    }
    up.extend(
        from_children.into_iter().map(|hoisted| Hoisted { subquery: node.subquery.clone(), ..hoisted }),
    );
    up
}

/// Moves the order of to-many spreads into their arrays.
pub(super) fn order_to_many(node: &mut ReadNode) -> Result<(), Error> {
    if matches!(node.spread, Some(Spread::ToMany { .. })) {
        let aggregated = node.select.iter().any(|column| column.aggregate.is_some())
            || node.embedded.iter().any(|embedded| match embedded {
                EmbeddedColumn::Spread { columns, .. } => {
                    columns.iter().any(|column| column.aggregate.is_some())
                }
                EmbeddedColumn::Json { .. } => false,
            });
        if aggregated {
            return Err(Error::NotImplemented(
                "Aggregates are not implemented for one-to-many or many-to-many spreads.".into(),
            ));
        }
        let mut extra = Vec::new();
        let mut order = Vec::new();
        for (index, term) in std::mem::take(&mut node.order).into_iter().enumerate() {
            // Numbered, since a name may be ordered by twice.
            let alias = format!("{}_{}_{}", node.subquery, term.field.name, index + 1);
            extra.push((
                term.relation,
                SelectColumn { alias: Some(alias.clone()), ..SelectColumn::plain(term.field) },
            ));
            order.push(OrderBy {
                relation: None,
                field: Field::unknown(alias, Vec::new()),
                descending: term.descending,
                nulls_first: term.nulls_first,
            });
        }
        node.spread = Some(Spread::ToMany { extra, order });
    }
    node.children.iter_mut().try_for_each(order_to_many)
}
