//! Writes.

use bytes::Bytes;

use super::{Param, Sql};
use crate::plan::{Condition, DeletePlan, Field, InsertPlan, MutatePlan, UpdatePlan};
use crate::schema::QualifiedName;

/// How a body becomes rows.
#[derive(Debug, Clone, Copy)]
pub(super) struct BodyRows {
    /// Begin with the select of its columns.
    pub(super) select: bool,
    /// Take the first row only.
    pub(super) first: bool,
    /// Fill what a row lacks with the column's default.
    pub(super) defaults: bool,
}

fn body_name() -> QualifiedName {
    QualifiedName::new("", "pgrst_body")
}

fn is_object(body: Option<&Bytes>) -> bool {
    body.is_some_and(|body| body.trim_ascii_start().first() == Some(&b'{'))
}

impl Sql {
    /// Adds a write.
    pub(crate) fn write(&mut self, plan: &MutatePlan) {
        match plan {
            MutatePlan::Insert(plan) => self.insert(plan),
            MutatePlan::Update(plan) => self.update(plan),
            MutatePlan::Delete(plan) => self.delete(plan),
        }
    }

    fn insert(&mut self, plan: &InsertPlan) {
        self.push("insert into ").qualified(&plan.relation).push(" ");
        if !plan.columns.is_empty() {
            self.push("(").list(", ", &plan.columns, |sql, column| {
                sql.ident(&column.name);
            });
            self.push(") ");
        }
        let rows = BodyRows { select: true, first: false, defaults: plan.apply_defaults };
        self.body_rows(plan.body.as_ref(), &plan.columns, rows);
        if plan.is_put() {
            self.push(" where ").count_row(true);
            for condition in &plan.conditions {
                self.push(" and ").condition(&body_name(), condition);
            }
        } else if plan.counts_new_rows() {
            self.push(" where ").count_row(true);
        }
        if let Some(conflict) = &plan.on_conflict
            && !conflict.columns.is_empty()
        {
            self.push(" on conflict (").list(", ", &conflict.columns, |sql, column| {
                sql.ident(column);
            });
            self.push(") do ");
            if conflict.merge && !plan.columns.is_empty() {
                self.push("update set ").list(", ", &plan.columns, |sql, column| {
                    sql.ident(&column.name).push(" = excluded.").ident(&column.name);
                });
                self.push(" where ").count_row(false);
            } else {
                self.push("nothing");
            }
        }
        self.returning(&plan.relation, &plan.returning);
    }

    /// Adds a condition that is always true and counts, in a setting of the transaction, the rows that were inserted:
    /// those tried, less those that were there.
    fn count_row(&mut self, tried: bool) -> &mut Self {
        let (change, never) = if tried { ("+ 1", "'0'") } else { ("- 1", "'-1'") };
        self.push("set_config('pgrst.inserted', (coalesce(nullif(current_setting('pgrst.inserted', true), '')::int, 0) ")
            .push(change)
            .push(")::text, true) <> ")
            .push(never)
    }

    fn update(&mut self, plan: &UpdatePlan) {
        if plan.columns.is_empty() {
            // `update … set` of nothing is no SQL. A select of no rows has the columns that are read later.
            self.push("select ");
            if plan.returning.is_empty() {
                self.push("null");
            } else {
                let relation = QualifiedName::new("", plan.relation.name.as_str());
                self.list(", ", &plan.returning, |sql, column| {
                    sql.column(&relation, column);
                });
            }
            self.push(" from ").qualified(&plan.relation).push(" where false");
            return;
        }
        self.push("update ").qualified(&plan.relation).push(" set ");
        self.list(", ", &plan.columns, |sql, column| {
            sql.ident(&column.name).push(" = ").column(&body_name(), &column.name);
        });
        self.push(" ");
        let rows = BodyRows { select: false, first: false, defaults: plan.apply_defaults };
        self.body_rows(plan.body.as_ref(), &plan.columns, rows);
        self.conditions(&plan.relation, &plan.conditions);
        self.returning(&plan.relation, &plan.returning);
    }

    fn delete(&mut self, plan: &DeletePlan) {
        self.push("delete from ").qualified(&plan.relation);
        self.conditions(&plan.relation, &plan.conditions);
        self.returning(&plan.relation, &plan.returning);
    }

    fn conditions(&mut self, relation: &QualifiedName, conditions: &[Condition]) {
        if conditions.is_empty() {
            return;
        }
        self.push(" where ").list(" and ", conditions, |sql, condition| {
            sql.condition(relation, condition);
        });
    }

    fn returning(&mut self, relation: &QualifiedName, columns: &[String]) {
        if columns.is_empty() {
            // Rows are counted even when nobody wants to see them.
            self.push(" returning 1");
            return;
        }
        self.push(" returning ").list(", ", columns, |sql, column| {
            sql.column(relation, column);
        });
    }

    /// Adds `from … pgrst_body`: the rows of a JSON body, typed by `columns`.
    pub(super) fn body_rows(&mut self, body: Option<&Bytes>, columns: &[Field], rows: BodyRows) {
        let object = is_object(body);
        if rows.select {
            self.push("select ").list(", ", columns, |sql, column| {
                sql.column(&body_name(), &column.name);
            });
            self.push(" ");
        }
        let json = if rows.defaults { "jsonb" } else { "json" };
        self.push("from (select ").bind(Param::Text(body.cloned())).push("::").push(json);
        self.push(" as json_data) pgrst_payload, ");
        if rows.defaults {
            self.push("lateral (select ");
            if object {
                self.defaults(columns);
                self.push(" || pgrst_payload.json_data as val) pgrst_json_defs, ");
            } else {
                self.push("jsonb_agg(");
                self.defaults(columns);
                self.push(
                    " || elem) as val from jsonb_array_elements(pgrst_payload.json_data) elem) pgrst_json_defs, ",
                );
            }
        }
        let source = if rows.defaults { "(pgrst_json_defs.val)" } else { "(pgrst_payload.json_data)" };
        self.push("lateral (select ").list(", ", columns, |sql, column| match &column.transform {
            Some(function) => {
                sql.push(function).push("(").ident(&column.name).push(") as ").ident(&column.name);
            }
            None => {
                sql.ident(&column.name);
            }
        });
        self.push(" from ");
        match (columns.is_empty(), object) {
            // Bodies without keys still say how many rows there are.
            (true, true) => {
                self.push("(values (1)) _");
            }
            (true, false) => {
                self.push(json).push("_array_elements").push(source).push(" _");
            }
            (false, _) => {
                self.push(json).push(if object { "_to_record" } else { "_to_recordset" }).push(source);
                self.push(" as _(").list(", ", columns, |sql, column| {
                    sql.ident(&column.name).push(" ").type_name(&column.type_name);
                });
                self.push(")");
                if rows.first {
                    self.push(" limit 1");
                }
            }
        }
        self.push(") pgrst_body");
    }

    /// Adds an object of the columns' defaults. Expressions come from the schema cache.
    fn defaults(&mut self, columns: &[Field]) {
        self.push("jsonb_build_object(");
        let defaults = columns.iter().filter_map(|column| Some((&column.name, column.default.as_ref()?)));
        self.list(", ", defaults, |sql, (name, default)| {
            sql.bind(name.as_str()).push("::text, ").push(default);
        });
        self.push(")");
    }
}
