//! Reads: a select with a lateral join for every embed.

use super::Sql;
use crate::plan::{EmbeddedColumn, Field, ReadNode, SelectColumn, Spread, SpreadColumn};
use crate::request::Join;
use crate::schema::{QualifiedName, RelationshipKind};

/// Name by which a node's columns are qualified.
fn qualifier(node: &ReadNode) -> QualifiedName {
    match &node.from.alias {
        Some(alias) => QualifiedName::new("", alias.as_str()),
        None => node.from.qualified(),
    }
}

impl Sql {
    /// Adds the select of a node and of everything below it.
    pub(crate) fn read(&mut self, node: &ReadNode) {
        let relation = qualifier(node);
        self.push("select ");
        let mut first = true;
        let mut separate = |sql: &mut Self| {
            if !std::mem::take(&mut first) {
                sql.push(", ");
            }
        };
        if node.select.is_empty() && node.children.is_empty() {
            separate(self);
            self.selected(&relation, &SelectColumn::plain(Field::unknown("*", Vec::new())));
        }
        for column in &node.select {
            separate(self);
            self.selected(&relation, column);
        }
        if let Some(Spread::ToMany { extra, .. }) = &node.spread {
            for (subquery, column) in extra {
                separate(self);
                match subquery {
                    Some(name) => self.selected(&QualifiedName::new("", name.as_str()), column),
                    None => self.selected(&relation, column),
                };
            }
        }
        for embedded in &node.embedded {
            match embedded {
                EmbeddedColumn::Json { empty: true, .. } => {}
                EmbeddedColumn::Json { name, subquery, to_one: true, .. } => {
                    separate(self);
                    self.push("row_to_json(").ident(subquery).push(".*)::jsonb as ").ident(name);
                }
                EmbeddedColumn::Json { name, subquery, .. } => {
                    separate(self);
                    self.push("coalesce(")
                        .ident(subquery)
                        .push(".")
                        .ident(subquery)
                        .push(", '[]') as ")
                        .ident(name);
                }
                EmbeddedColumn::Spread { subquery, columns } => {
                    for column in columns {
                        separate(self);
                        self.aggregated(column.aggregate, column.aggregate_cast.as_deref(), |sql| {
                            sql.column(&QualifiedName::new("", subquery.as_str()), &column.name);
                        });
                        self.aliased(column.alias.as_deref());
                    }
                }
            }
        }
        self.from(node);
        for embedded in &node.embedded {
            let child = node.children.iter().find(|child| child.subquery == embedded.subquery());
            if let Some(child) = child {
                self.join(embedded, child);
            }
        }
        let mut keyword = " where ";
        for condition in &node.filters {
            self.push(keyword).condition(&relation, condition);
            keyword = " and ";
        }
        for condition in &node.join_conditions {
            self.push(keyword).join_condition(condition);
            keyword = " and ";
        }
        self.group(node, &relation);
        self.order(&relation, &node.order).range(node.range);
    }

    fn from(&mut self, node: &ReadNode) {
        self.push(" from ");
        let relationship = node.relationship.as_deref();
        match (relationship.map(|relationship| &relationship.kind), &node.computed_argument) {
            (Some(RelationshipKind::Computed { function, argument, .. }), Some(row)) => {
                // The row may come from a common table expression, so the overload must be named by a cast.
                self.qualified(function).push("(").ident(&row.name).push("::").qualified(argument).push(")");
            }
            _ => {
                self.qualified(&node.from.qualified());
            }
        }
        self.aliased(node.from.alias.as_deref());
        if let Some(RelationshipKind::ManyToMany(junction)) =
            relationship.map(|relationship| &relationship.kind)
        {
            self.push(", ").qualified(&junction.table);
        }
    }

    fn join(&mut self, embedded: &EmbeddedColumn, child: &ReadNode) {
        let inner = child.join == Some(Join::Inner);
        self.push(if inner { " inner join lateral (" } else { " left join lateral (" });
        let subquery = embedded.subquery();
        let spread_order = match &child.spread {
            Some(Spread::ToMany { order, .. }) => Some(&order[..]),
            Some(Spread::ToOne) | None => None,
        };
        let columns: &[SpreadColumn] = match embedded {
            EmbeddedColumn::Spread { columns, .. } => columns,
            EmbeddedColumn::Json { .. } => &[],
        };
        let aggregated = match embedded {
            EmbeddedColumn::Json { to_one, .. } => !to_one,
            EmbeddedColumn::Spread { .. } => spread_order.is_some(),
        };
        if !aggregated {
            self.read(child);
            self.push(") as ").ident(subquery).push(" on true");
            return;
        }
        self.push("select json_agg(").ident(subquery).push(")::jsonb as ").ident(subquery);
        let source = QualifiedName::new("", subquery);
        for column in columns {
            self.push(", coalesce(json_agg(").column(&source, &column.name);
            self.order(&source, spread_order.unwrap_or_default());
            self.push("), '[]')::jsonb as ").ident(column.alias.as_deref().unwrap_or(&column.name));
        }
        self.push(" from (").read(child);
        self.push(") as ").ident(subquery).push(") as ").ident(subquery).push(" on ");
        if inner {
            self.ident(subquery).push(" is not null");
        } else {
            self.push("true");
        }
    }

    /// Adds ` group by …` where some columns are aggregated and others are not.
    fn group(&mut self, node: &ReadNode, relation: &QualifiedName) {
        let spread_aggregates = node.embedded.iter().any(|embedded| match embedded {
            EmbeddedColumn::Spread { columns, .. } => columns.iter().any(|column| column.aggregate.is_some()),
            EmbeddedColumn::Json { .. } => false,
        });
        if !spread_aggregates && node.select.iter().all(|column| column.aggregate.is_none()) {
            return;
        }
        let mut keyword = " group by ";
        for column in node.select.iter().filter(|column| column.aggregate.is_none()) {
            self.push(keyword);
            match &column.alias {
                Some(alias) => self.ident(alias),
                None => self.field(relation, &column.field),
            };
            keyword = ", ";
        }
        for embedded in &node.embedded {
            match embedded {
                EmbeddedColumn::Json { empty: true, .. } => {}
                EmbeddedColumn::Json { name, .. } => {
                    self.push(keyword).ident(name);
                    keyword = ", ";
                }
                EmbeddedColumn::Spread { subquery, columns } => {
                    for column in columns.iter().filter(|column| column.aggregate.is_none()) {
                        let name = column.alias.as_deref().unwrap_or(&column.name);
                        self.push(keyword).column(&QualifiedName::new("", subquery.as_str()), name);
                        keyword = ", ";
                    }
                }
            }
        }
    }

    /// Adds a select of as many rows as the node has without its range. Inner joins become `exists`.
    pub(crate) fn count_source(&mut self, node: &ReadNode) {
        let relation = qualifier(node);
        self.push("select 1");
        self.from(node);
        let mut keyword = " where ";
        for condition in &node.filters {
            self.push(keyword).counted_condition(&relation, condition, &node.children);
            keyword = " and ";
        }
        for condition in &node.join_conditions {
            self.push(keyword).join_condition(condition);
            keyword = " and ";
        }
        for child in node.children.iter().filter(|child| child.join == Some(Join::Inner)) {
            self.push(keyword).push("exists (").count_source(child);
            self.push(")");
            keyword = " and ";
        }
    }
}
