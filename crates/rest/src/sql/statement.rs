//! Whole statements: the rows as one body, beside counts and what the database says of the response.
//!
//! Every statement has the same columns in the same order: `total_result_set bigint`, `page_total bigint`,
//! `location text[]`, `response_headers text`, `response_status text`, `response_inserted bigint`, `body`. The body
//! is last, so that all else is known before the first byte of a large one. Only where the plan is asked for, which shows
//! the columns, do they stand in PostgREST's order.

use super::{Sql, Statement};
use crate::plan::{Handler, MutatePlan, Output, ReadPlan, RoutinePlan, WritePlan};
use crate::request::{Count, MediaType, Preferences, Range, Return};
use crate::schema::{QualifiedName, Routine};

const NO_LOCATION: &str = ", array[]::text[] as location";
const NONE_INSERTED: &str = ", null::bigint as response_inserted";

/// The statement of a read.
pub(crate) fn read(
    plan: &ReadPlan,
    preferences: &Preferences,
    range: Range,
    max_rows: Option<u64>,
) -> Statement {
    let mut sql = Sql::new();
    sql.explain(&plan.output.media);
    sql.push("with pgrst_source as (").read(&plan.tree);
    sql.push(")");
    let total = counts_apart(preferences, range, max_rows);
    if total {
        sql.push(", pgrst_source_count as (").count_source(&plan.tree);
        // An estimate only needs to know whether there are more rows than may be shown.
        if let (Some(Count::Estimated), Some(most)) = (preferences.count, max_rows) {
            sql.push(" limit ").push(&(most.saturating_add(1)).to_string());
        }
        sql.push(")");
    }
    sql.push(" select ").total(preferences, total, None).push(", ").page_total(None);
    sql.rest_of_read(&plan.output, None).push(" from (select * from pgrst_source) _postgrest_t");
    sql.finish()
}

/// The statement of a write.
pub(crate) fn write(plan: &WritePlan, preferences: &Preferences) -> Statement {
    let mut sql = Sql::new();
    sql.explain(&plan.output.media);
    sql.push("with pgrst_source as (").write(&plan.write);
    sql.push(") select null::bigint as total_result_set, ").page_total(None).push(", ");
    match &plan.write {
        MutatePlan::Insert(insert) if preferences.representation == Some(Return::HeadersOnly) => {
            sql.location(&insert.primary_key);
        }
        _ => {
            sql.push("array[]::text[]");
        }
    }
    sql.push(" as location");
    if plan.output.is_plan() {
        sql.body(&plan.output.handler, None);
    }
    sql.response_settings().push(", ");
    match &plan.write {
        MutatePlan::Insert(insert) if insert.counts_new_rows() => {
            sql.push("nullif(current_setting('pgrst.inserted', true), '')::bigint");
        }
        _ => {
            sql.push("0::bigint");
        }
    }
    sql.push(" as response_inserted");
    if !plan.output.is_plan() {
        sql.body(&plan.output.handler, None);
    }
    sql.push(" from (");
    if plan.output.handler == Handler::None {
        // What is selected need not be there when nothing is returned.
        sql.push("select * from pgrst_source");
    } else {
        sql.read(&plan.tree);
    }
    sql.push(") _postgrest_t");
    sql.finish()
}

/// The statement of a call.
pub(crate) fn call(
    plan: &RoutinePlan,
    preferences: &Preferences,
    range: Range,
    max_rows: Option<u64>,
) -> Statement {
    let mut sql = Sql::new();
    sql.explain(&plan.output.media);
    sql.push("with pgrst_source as (").call(&plan.call);
    sql.push(")");
    let total = counts_apart(preferences, range, max_rows);
    if total {
        sql.push(", pgrst_source_count as (").count_source(&plan.tree);
        sql.push(")");
    }
    let routine = Some(&plan.routine);
    sql.push(" select ").total(preferences, total, routine).push(", ").page_total(routine);
    sql.rest_of_read(&plan.output, routine).push(" from (").read(&plan.tree);
    sql.push(") _postgrest_t");
    sql.finish()
}

/// Asks the planner how many rows a read has without its range.
pub(crate) fn explained_count(plan: &ReadPlan) -> Statement {
    let mut sql = Sql::new();
    sql.push("explain (format json) ").count_source(&plan.tree);
    sql.finish()
}

/// Whether the rows are counted, and the count is not that of the page.
fn counts_apart(preferences: &Preferences, range: Range, max_rows: Option<u64>) -> bool {
    counts(preferences) && (max_rows.is_some() || range != Range::default())
}

fn counts(preferences: &Preferences) -> bool {
    matches!(preferences.count, Some(Count::Exact | Count::Estimated))
}

impl Sql {
    fn explain(&mut self, media: &MediaType) {
        let MediaType::Plan { json, options, .. } = media else { return };
        self.push("explain (format ").push(if *json { "json" } else { "text" });
        for option in ["analyze", "verbose", "settings", "buffers", "wal"] {
            if options.iter().any(|asked| asked == option) {
                self.push(", ").push(option);
            }
        }
        self.push(") ");
    }

    fn total(&mut self, preferences: &Preferences, apart: bool, routine: Option<&Routine>) -> &mut Self {
        if apart {
            self.push("(select pg_catalog.count(*) from pgrst_source_count)");
        } else if counts(preferences) {
            self.page_count(routine);
        } else {
            self.push("null::bigint");
        }
        self.push(" as total_result_set")
    }

    fn page_total(&mut self, routine: Option<&Routine>) -> &mut Self {
        self.page_count(routine).push(" as page_total")
    }

    fn page_count(&mut self, routine: Option<&Routine>) -> &mut Self {
        match routine {
            Some(routine) if !routine.returns.is_set => self.push("1::bigint"),
            _ => self.push("pg_catalog.count(_postgrest_t)"),
        }
    }

    fn response_settings(&mut self) -> &mut Self {
        self.push(
            ", nullif(current_setting('response.headers', true), '') as response_headers, \
             nullif(current_setting('response.status', true), '') as response_status",
        )
    }

    /// Adds `key=eq.value` of the primary key of the one row that was inserted.
    fn location(&mut self, primary_key: &[String]) {
        self.push(
            "case when pg_catalog.count(_postgrest_t) = 1 then coalesce((\
             with data as (select row_to_json(_) as row from pgrst_source as _ limit 1) \
             select array_agg(json_data.key || '=' || coalesce('eq.' || json_data.value, 'is.null')) \
             from data cross join json_each_text(data.row) as json_data \
             where json_data.key = any(",
        );
        self.bind(super::condition::array_literal(primary_key));
        self.push("::text[])), array[]::text[]) else array[]::text[] end");
    }

    /// The columns of a read or call behind its counts.
    fn rest_of_read(&mut self, output: &Output, routine: Option<&Routine>) -> &mut Self {
        if output.is_plan() {
            let sql = self.body(&output.handler, routine).response_settings();
            return sql.push(NONE_INSERTED).push(NO_LOCATION);
        }
        self.push(NO_LOCATION).response_settings().push(NONE_INSERTED).body(&output.handler, routine)
    }

    fn body(&mut self, handler: &Handler, routine: Option<&Routine>) -> &mut Self {
        self.push(", ");
        let scalar = routine.is_some_and(Routine::returns_scalar);
        match handler {
            Handler::Json { strip_nulls } => {
                let scalars = scalar || routine.is_some_and(Routine::returns_set_of_scalar);
                let single = scalar || routine.is_some_and(Routine::returns_single_composite);
                self.json(*strip_nulls, scalars, single, if single { "null" } else { "[]" });
            }
            Handler::Object { strip_nulls } => self.json(*strip_nulls, scalar, true, "null"),
            Handler::Csv => {
                self.push(
                    "(select coalesce(string_agg(a.k, ','), '') from (\
                     select json_object_keys(r)::text as k from (\
                     select row_to_json(hh) as r from pgrst_source as hh limit 1) s) a) || E'\\n' || \
                     coalesce(string_agg(substring(_postgrest_t::text, 2, length(_postgrest_t::text) - 2), E'\\n'), '')",
                );
            }
            Handler::GeoJson => {
                self.push(
                    "json_build_object('type', 'FeatureCollection', 'features', \
                     coalesce(json_agg(st_asgeojson(_postgrest_t)::json), '[]'))",
                );
            }
            Handler::Custom { function, relation } => {
                self.qualified(function).push("(_postgrest_t");
                match relation {
                    _ if scalar => self.push(".pgrst_scalar"),
                    Some(relation) => self.push("::").qualified(relation),
                    None => self,
                };
                self.push(")");
            }
            Handler::None => {
                self.push("''::text");
            }
        }
        self.push(" as body")
    }

    fn json(&mut self, strip_nulls: bool, scalars: bool, first: bool, none: &str) {
        self.push("coalesce(").push(if strip_nulls { "json_strip_nulls(" } else { "" });
        self.push("json_agg(_postgrest_t").push(if scalars { ".pgrst_scalar)" } else { ")" });
        self.push(if first { "->0" } else { "" }).push(if strip_nulls { ")" } else { "" });
        self.push(", '").push(none).push("')");
    }
}

/// Whether an output needs rows at all.
impl Output {
    /// The plan instead of the rows.
    pub(crate) fn is_plan(&self) -> bool {
        matches!(self.media, MediaType::Plan { .. })
    }
}

/// Qualified name of a function, for a statement of its own.
pub(super) fn call_without_arguments(function: &QualifiedName) -> Statement {
    let mut sql = Sql::new();
    sql.push("select ").qualified(function).push("()");
    sql.finish()
}
