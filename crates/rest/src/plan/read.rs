//! The tree of a read: what is selected, filtered, ordered and cut where.

use super::columns::{Resolver, add_aliases, expand_stars};
use super::{
    Condition, Field, OrderBy, ReadNode, ReadPlan, Relation, SelectColumn, Spread, embed, negotiate, spread,
};
use crate::config::RestConfig;
use crate::error::Error;
use crate::request::{Action, ApiRequest, EmbedPath, IsValue, Operation, Range, SelectItem};
use crate::response::headers::allow_table;
use crate::schema::{QualifiedName, SchemaCache, Table};

pub(super) fn plan(
    request: &ApiRequest,
    relation: &str,
    head: bool,
    cache: &SchemaCache,
    config: &RestConfig,
) -> Result<ReadPlan, Error> {
    let relation = find_table(request, relation, cache)?.name.clone();
    let tree = tree(request, &relation, cache, config)?;
    let output = negotiate::output(request, &relation, tree.is_default_select(), cache, config)?;
    request.preferences.check()?;
    Ok(ReadPlan { tree, output, head, relation })
}

/// Methods that a relation takes.
pub(super) fn options(request: &ApiRequest, relation: &str, cache: &SchemaCache) -> Result<String, Error> {
    Ok(allow_table(find_table(request, relation, cache)?))
}

pub(super) fn find_table<'a>(
    request: &ApiRequest,
    relation: &str,
    cache: &'a SchemaCache,
) -> Result<&'a Table, Error> {
    let name = QualifiedName::new(request.schema.as_str(), relation);
    cache.tables.get(&name).ok_or_else(|| Error::table_not_found(&name.schema, &name.name, cache))
}

/// The tree of a read of `relation`, or of the result of the request's write or call on it.
pub(super) fn tree(
    request: &ApiRequest,
    relation: &QualifiedName,
    cache: &SchemaCache,
    config: &RestConfig,
) -> Result<ReadNode, Error> {
    let mutates = matches!(request.action, Action::Mutate { .. });
    let is_read = matches!(request.action, Action::Read { .. });
    let mut root =
        ReadNode { from: Relation::of(relation), name: relation.name.clone(), ..ReadNode::default() };
    add_items(&mut root, &request.query.select, &relation.schema, cache);

    let legacy = config.legacy_target_names;
    for (path, logic) in &request.query.filters {
        // The filters of a write choose what it writes; those of its embeds choose what is shown.
        if mutates && path.is_empty() {
            continue;
        }
        let node = find_node(&mut root, path, legacy)?;
        let resolver = Resolver::new(cache, &node.from.qualified());
        node.filters.push(resolver.condition(logic));
    }
    for (path, terms) in &request.query.order {
        let node = find_node(&mut root, path, legacy)?;
        // As PostgREST: types of the root decide, whichever node is ordered.
        let resolver = Resolver::new(cache, relation);
        node.order = terms.iter().map(|term| resolver.order(term)).collect();
    }
    if !mutates {
        for (path, range) in &request.query.ranges {
            if !path.is_empty() {
                find_node(&mut root, path, legacy)?.range = *range;
            }
        }
        root.range = request.range;
    }

    if !is_read {
        root.from = Relation {
            schema: String::new(),
            name: super::SOURCE.into(),
            alias: Some(relation.name.clone()),
        };
    }
    embed::relate(&mut root, &relation.schema, cache)?;
    expand_stars(&mut root, &relation.schema, false, cache);
    add_aliases(&mut root);
    order_by_related(&mut root)?;
    filter_by_match(&mut root);
    spread::show_embeds(&mut root);
    check_aggregates(&root, config)?;
    spread::hoist_aggregates(&mut root);
    spread::order_to_many(&mut root)?;
    if !mutates {
        restrict(&mut root, config.max_rows);
    }
    Ok(root)
}

fn add_items(node: &mut ReadNode, items: &[SelectItem], schema: &str, cache: &SchemaCache) {
    let resolver = Resolver::new(cache, &node.from.qualified());
    for item in items {
        match item {
            SelectItem::Column { field, cast, alias, aggregate, aggregate_cast } => {
                let mut field = resolver.output(field);
                if field.name.is_empty() && aggregate.is_some() {
                    field.name = "*".into();
                }
                node.select.push(SelectColumn {
                    field,
                    aggregate: *aggregate,
                    aggregate_cast: aggregate_cast.clone(),
                    cast: cast.clone(),
                    alias: alias.clone(),
                });
            }
            SelectItem::Embed(embed) => {
                let mut child = ReadNode {
                    from: Relation { schema: schema.to_owned(), name: embed.relation.clone(), alias: None },
                    name: embed.relation.clone(),
                    alias: embed.alias.clone(),
                    hint: embed.hint.clone(),
                    join: embed.join,
                    spread: embed.spread.then_some(Spread::ToOne),
                    depth: node.depth + 1,
                    ..ReadNode::default()
                };
                add_items(&mut child, &embed.select, schema, cache);
                node.children.push(child);
            }
        }
    }
    if node.depth == 0 && items.is_empty() {
        node.select.push(SelectColumn::plain(Field::unknown("*", Vec::new())));
    }
}

/// The node that a path of a filter, order or range names.
fn find_node<'t>(root: &'t mut ReadNode, path: &EmbedPath, legacy: bool) -> Result<&'t mut ReadNode, Error> {
    let mut node = root;
    for name in path {
        let strict = |child: &ReadNode| child.shown_as() == name;
        let by_either = |child: &ReadNode| child.name == *name || child.alias.as_ref() == Some(name);
        let found = if legacy {
            node.children.iter().position(by_either)
        } else {
            node.children.iter().position(strict)
        };
        let Some(index) = found else {
            let aliased = node.children.iter().find(|child| by_either(child));
            let usage = aliased
                .filter(|_| !legacy)
                .and_then(|child| child.alias.clone().map(|alias| (child.name.clone(), alias)));
            return Err(Error::NotEmbedded { resource: name.clone(), renamed: usage });
        };
        node = &mut node.children[index];
        if node.name == *name && node.alias.as_ref().is_some_and(|alias| alias != name) {
            node.named_by_relation = true;
        }
    }
    Ok(node)
}

/// Points orders by a column of an embed at its subquery.
fn order_by_related(node: &mut ReadNode) -> Result<(), Error> {
    let ReadNode { order, children, from, .. } = node;
    for OrderBy { relation, .. } in order {
        let Some(target) = relation else { continue };
        let Some(child) = children.iter().find(|child| child.shown_as() == target) else {
            return Err(Error::NotEmbedded { resource: target.clone(), renamed: None });
        };
        if !child.relationship.as_ref().is_some_and(|relationship| relationship.is_to_one()) {
            return Err(Error::RelatedOrderNotToOne {
                origin: from.name.clone(),
                target: child.shown_as().to_owned(),
            });
        }
        *target = child.subquery.clone();
    }
    children.iter_mut().try_for_each(order_by_related)
}

/// Turns `embed=is.null` into a test for matches.
fn filter_by_match(node: &mut ReadNode) {
    fn turn(condition: &mut Condition, children: &[ReadNode]) {
        match condition {
            Condition::Group { members, .. } => {
                members.iter_mut().for_each(|member| turn(member, children));
            }
            Condition::Compare { field, negated, operation } if field.json_path.is_empty() => {
                let negated = match operation {
                    Operation::Is(IsValue::Null) => *negated,
                    _ => return,
                };
                if let Some(child) = children.iter().find(|child| child.shown_as() == field.name) {
                    *condition = Condition::Unmatched { negated, subquery: child.subquery.clone() };
                }
            }
            Condition::Compare { .. } | Condition::Unmatched { .. } => {}
        }
    }
    let ReadNode { filters, children, .. } = node;
    filters.iter_mut().for_each(|condition| turn(condition, children));
    children.iter_mut().for_each(filter_by_match);
}

fn check_aggregates(node: &ReadNode, config: &RestConfig) -> Result<(), Error> {
    if !config.aggregates && node.select.iter().any(|column| column.aggregate.is_some()) {
        return Err(Error::AggregatesNotAllowed);
    }
    node.children.iter().try_for_each(|child| check_aggregates(child, config))
}

fn restrict(node: &mut ReadNode, max_rows: Option<u64>) {
    let Some(most) = max_rows else { return };
    node.range = Range { limit: Some(node.range.limit.map_or(most, |limit| limit.min(most))), ..node.range };
    node.children.iter_mut().for_each(|child| restrict(child, max_rows));
}
