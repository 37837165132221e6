//! The pieces that every statement is made of.

use longhouse_database::push_ident;

use super::{Param, Statement};
use crate::plan::{Field, OrderBy, SelectColumn, aggregate_name};
use crate::request::{Aggregate, JsonOperand, JsonStep, Range};
use crate::schema::QualifiedName;

/// A statement in the making. Parameters are numbered in the order in which they are bound.
#[derive(Debug, Default)]
pub(crate) struct Sql {
    text: String,
    params: Vec<Param>,
}

impl Sql {
    pub(crate) fn new() -> Self {
        Self { text: String::with_capacity(512), params: Vec::new() }
    }

    pub(crate) fn finish(self) -> Statement {
        Statement { sql: self.text, params: self.params }
    }

    /// Adds SQL of our own.
    pub(crate) fn push(&mut self, sql: &str) -> &mut Self {
        self.text.push_str(sql);
        self
    }

    /// Adds a quoted name.
    pub(crate) fn ident(&mut self, name: &str) -> &mut Self {
        push_ident(&mut self.text, name);
        self
    }

    /// Adds a value.
    pub(crate) fn bind(&mut self, value: impl Into<Param>) -> &mut Self {
        self.params.push(value.into());
        self.text.push('$');
        self.text.push_str(&self.params.len().to_string());
        self
    }

    /// Adds a type name of the schema cache.
    pub(crate) fn type_name(&mut self, name: &str) -> &mut Self {
        self.push(name)
    }

    /// Adds the type of a cast that a request asks for. Quoted, `int` and the like would not be found; so it is taken
    /// as it is, if it consists of nothing but words.
    fn cast_type(&mut self, name: &str) -> &mut Self {
        let harmless = |c: char| c.is_alphanumeric() || c == '_' || c == ' ';
        if !name.is_empty() && name.chars().all(harmless) { self.push(name) } else { self.ident(name) }
    }

    /// Adds `"schema"."name"`.
    pub(crate) fn qualified(&mut self, name: &QualifiedName) -> &mut Self {
        if !name.schema.is_empty() {
            self.ident(&name.schema).push(".");
        }
        self.ident(&name.name)
    }

    /// Adds a column of a relation, or all of them.
    pub(crate) fn column(&mut self, relation: &QualifiedName, name: &str) -> &mut Self {
        self.qualified(relation).push(".");
        if name == "*" { self.push("*") } else { self.ident(name) }
    }

    /// Adds items with a separator between them.
    pub(crate) fn list<T>(
        &mut self,
        separator: &str,
        items: impl IntoIterator<Item = T>,
        mut add: impl FnMut(&mut Self, T),
    ) -> &mut Self {
        for (index, item) in items.into_iter().enumerate() {
            if index > 0 {
                self.push(separator);
            }
            add(self, item);
        }
        self
    }

    /// Adds a field of a relation, with its JSON path.
    pub(crate) fn field(&mut self, relation: &QualifiedName, field: &Field) -> &mut Self {
        if let Some(configuration) = &field.to_tsvector {
            self.push("to_tsvector(");
            if let Some(name) = configuration {
                self.bind(name.as_str()).push(", ");
            }
        }
        if field.full_row {
            self.ident(&relation.name);
        } else if field.json_path.is_empty() {
            self.column(relation, &field.name);
        } else if field.to_json {
            self.push("to_jsonb(").column(relation, &field.name).push(")").json_path(&field.json_path);
        } else {
            self.column(relation, &field.name).json_path(&field.json_path);
        }
        if field.to_tsvector.is_some() {
            self.push(")");
        }
        self
    }

    fn json_path(&mut self, path: &[JsonStep]) -> &mut Self {
        for step in path {
            self.push(if step.as_text { "->>" } else { "->" });
            match &step.operand {
                JsonOperand::Key(key) => self.bind(key.as_str()),
                JsonOperand::Index(index) => self.bind(index.as_str()).push("::int"),
            };
        }
        self
    }

    /// Adds a selected column with mapping, cast, aggregate and alias.
    pub(crate) fn selected(&mut self, relation: &QualifiedName, column: &SelectColumn) -> &mut Self {
        self.aggregated(column.aggregate, column.aggregate_cast.as_deref(), |sql| {
            sql.cast(column.cast.as_deref(), |sql| match &column.field.transform {
                Some(function) => {
                    sql.push(function).push("(").field(relation, &column.field).push(")");
                }
                None => {
                    sql.field(relation, &column.field);
                }
            });
        });
        self.aliased(column.alias.as_deref())
    }

    /// Adds an expression within an aggregate and its cast, if there are any.
    pub(crate) fn aggregated(
        &mut self,
        aggregate: Option<Aggregate>,
        cast: Option<&str>,
        expression: impl FnOnce(&mut Self),
    ) {
        match aggregate {
            None => expression(self),
            Some(aggregate) => self.cast(cast, |sql| {
                sql.push(aggregate_name(aggregate)).push("(");
                expression(sql);
                sql.push(")");
            }),
        }
    }

    fn cast(&mut self, cast: Option<&str>, expression: impl FnOnce(&mut Self)) {
        match cast {
            None => expression(self),
            Some(name) => {
                self.push("cast(");
                expression(self);
                self.push(" as ").cast_type(name).push(")");
            }
        }
    }

    /// Adds ` as "alias"`.
    pub(crate) fn aliased(&mut self, alias: Option<&str>) -> &mut Self {
        if let Some(alias) = alias {
            self.push(" as ").ident(alias);
        }
        self
    }

    /// Adds ` order by …`, if there is an order.
    pub(crate) fn order(&mut self, relation: &QualifiedName, order: &[OrderBy]) -> &mut Self {
        if order.is_empty() {
            return self;
        }
        self.push(" order by ").list(", ", order, |sql, term| {
            match &term.relation {
                Some(subquery) => sql.field(&QualifiedName::new("", subquery.as_str()), &term.field),
                None => sql.field(relation, &term.field),
            };
            match term.descending {
                Some(true) => sql.push(" desc"),
                Some(false) => sql.push(" asc"),
                None => sql,
            };
            match term.nulls_first {
                Some(true) => sql.push(" nulls first"),
                Some(false) => sql.push(" nulls last"),
                None => sql,
            };
        })
    }

    /// Adds ` limit … offset …`, if the range is one.
    pub(crate) fn range(&mut self, range: Range) -> &mut Self {
        if range == Range::default() {
            return self;
        }
        match range.limit {
            Some(limit) => self.push(" limit ").bind(limit.to_string()),
            None => self.push(" limit all"),
        };
        self.push(" offset ").bind(range.offset.to_string())
    }
}
