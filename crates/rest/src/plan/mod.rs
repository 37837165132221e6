//! The planner: a parsed request and the schema cache give a plan, without any IO.
//!
//! A read is a tree: the root relation, below it what it embeds. Writes and calls run first, as a common table
//! expression, and are then read like a table.

mod call;
mod columns;
mod embed;
mod mutate;
mod negotiate;
mod read;
mod spread;

#[cfg(test)]
pub(crate) mod tests;

use std::sync::Arc;

use crate::config::RestConfig;
use crate::error::Error;
use crate::request::{
    Action, Aggregate, ApiRequest, Invocation, Join, JsonStep, MediaType, Mutation, Operation, Range,
};
use crate::response::headers::ALLOW_ROOT;
use crate::schema::{QualifiedName, Relationship, Routine, SchemaCache};

pub(crate) use call::{CallArguments, CallParameters, CallPlan, RpcValue};
pub(crate) use columns::aggregate_name;
pub(crate) use mutate::{DeletePlan, InsertPlan, MutatePlan, UpdatePlan};

/// Name of the common table expression that holds the result of a write or a call.
pub(crate) const SOURCE: &str = "pgrst_source";

/// What to do for a request.
#[derive(Debug, Clone)]
pub enum Plan {
    /// Read rows.
    Read(ReadPlan),
    /// Write rows and read what was written.
    Mutate(WritePlan),
    /// Call a function and read its result.
    Call(RoutinePlan),
    /// Describe the schema.
    Describe {
        /// `HEAD`: no body.
        head: bool,
    },
    /// Say which methods a relation takes: the value of `Allow`.
    Options(String),
}

/// A read of a relation.
#[derive(Debug, Clone)]
pub struct ReadPlan {
    pub(crate) tree: ReadNode,
    pub(crate) output: Output,
    pub(crate) head: bool,
    pub(crate) relation: QualifiedName,
}

/// A write, and the read of its result.
#[derive(Debug, Clone)]
pub struct WritePlan {
    pub(crate) tree: ReadNode,
    pub(crate) write: MutatePlan,
    pub(crate) output: Output,
    pub(crate) mutation: Mutation,
    pub(crate) relation: QualifiedName,
}

/// A call, and the read of its result.
#[derive(Debug, Clone)]
pub struct RoutinePlan {
    pub(crate) tree: ReadNode,
    pub(crate) call: CallPlan,
    pub(crate) output: Output,
    pub(crate) routine: Routine,
    pub(crate) invocation: Invocation,
    pub(crate) read_only: bool,
}

/// How rows become a body, and the media type of it.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Output {
    pub(crate) handler: Handler,
    pub(crate) media: MediaType,
}

impl Output {
    /// Whether exactly one row is asked for.
    pub(crate) fn is_single(&self) -> bool {
        matches!(self.media, MediaType::Object { .. })
    }
}

/// How rows become a body.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Handler {
    /// A JSON array, or what a function returns as JSON.
    Json { strip_nulls: bool },
    /// One JSON object.
    Object { strip_nulls: bool },
    /// CSV with a header line.
    Csv,
    /// A GeoJSON feature collection.
    GeoJson,
    /// A function of the database; without relation it takes any row.
    Custom { function: QualifiedName, relation: Option<QualifiedName> },
    /// No body at all.
    None,
}

/// One relation of a read, and below it what it embeds.
#[derive(Debug, Clone, PartialEq, Default)]
pub(crate) struct ReadNode {
    pub(crate) select: Vec<SelectColumn>,
    pub(crate) from: Relation,
    pub(crate) filters: Vec<Condition>,
    pub(crate) order: Vec<OrderBy>,
    pub(crate) range: Range,
    /// Name by which the request embeds it.
    pub(crate) name: String,
    /// Alias that the request gives it.
    pub(crate) alias: Option<String>,
    pub(crate) hint: Option<String>,
    pub(crate) join: Option<Join>,
    pub(crate) spread: Option<Spread>,
    /// How it belongs to its parent; none for the root.
    pub(crate) relationship: Option<Arc<Relationship>>,
    /// Table or alias whose row a computed relationship takes.
    pub(crate) computed_argument: Option<QualifiedName>,
    pub(crate) join_conditions: Vec<JoinCondition>,
    /// Name of its lateral subquery.
    pub(crate) subquery: String,
    /// What it shows of its children.
    pub(crate) embedded: Vec<EmbeddedColumn>,
    pub(crate) depth: usize,
    /// The request named it by its relation although it has an alias.
    pub(crate) named_by_relation: bool,
    pub(crate) children: Vec<ReadNode>,
}

impl ReadNode {
    /// Name under which the parent shows it.
    pub(crate) fn shown_as(&self) -> &str {
        self.alias.as_deref().unwrap_or(&self.name)
    }

    /// Whether nothing but all of its columns is selected.
    pub(crate) fn is_default_select(&self) -> bool {
        self.children.is_empty() && matches!(&self.select[..], [only] if only.field.name == "*")
    }

    /// (relation, alias) of embeds that the request named by relation although they have an alias.
    pub(crate) fn legacy_names(&self, into: &mut Vec<(String, String)>) {
        if let (true, Some(alias)) = (self.named_by_relation, &self.alias) {
            into.push((self.name.clone(), alias.clone()));
        }
        for child in &self.children {
            child.legacy_names(into);
        }
    }
}

/// What a node selects from.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub(crate) struct Relation {
    /// Empty for the common table expression.
    pub(crate) schema: String,
    pub(crate) name: String,
    pub(crate) alias: Option<String>,
}

impl Relation {
    pub(crate) fn of(name: &QualifiedName) -> Self {
        Self { schema: name.schema.clone(), name: name.name.clone(), alias: None }
    }

    pub(crate) fn qualified(&self) -> QualifiedName {
        QualifiedName::new(self.schema.as_str(), self.name.as_str())
    }
}

/// A column as one use needs it: its types, and the function that maps it, if any.
#[derive(Debug, Clone, PartialEq, Default)]
pub(crate) struct Field {
    pub(crate) name: String,
    pub(crate) json_path: Vec<JsonStep>,
    /// Convert with `to_jsonb` before the path is applied.
    pub(crate) to_json: bool,
    /// Convert with `to_tsvector`, perhaps with this configuration.
    pub(crate) to_tsvector: Option<Option<String>>,
    /// Type before mapping; empty when unknown.
    pub(crate) type_name: String,
    /// Base type of a domain.
    pub(crate) base_type: String,
    /// Function that maps the value.
    pub(crate) transform: Option<String>,
    pub(crate) default: Option<String>,
    /// The whole row: `count()` of a spread counts rows of its own relation only.
    pub(crate) full_row: bool,
}

impl Field {
    pub(crate) fn unknown(name: impl Into<String>, json_path: Vec<JsonStep>) -> Self {
        Self { name: name.into(), json_path, ..Self::default() }
    }
}

/// A selected column.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct SelectColumn {
    pub(crate) field: Field,
    pub(crate) aggregate: Option<Aggregate>,
    pub(crate) aggregate_cast: Option<String>,
    pub(crate) cast: Option<String>,
    pub(crate) alias: Option<String>,
}

impl SelectColumn {
    pub(crate) fn plain(field: Field) -> Self {
        Self { field, aggregate: None, aggregate_cast: None, cast: None, alias: None }
    }
}

/// A condition tree.
#[derive(Debug, Clone, PartialEq)]
pub(crate) enum Condition {
    Group {
        negated: bool,
        any: bool,
        members: Vec<Condition>,
    },
    Compare {
        field: Box<Field>,
        negated: bool,
        operation: Operation,
    },
    /// Whether an embed has no match: the name of its subquery. Negated: it has one.
    Unmatched {
        negated: bool,
        subquery: String,
    },
}

/// One term of an order.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct OrderBy {
    /// Embed to order by: its name in the request, later its subquery.
    pub(crate) relation: Option<String>,
    pub(crate) field: Field,
    pub(crate) descending: Option<bool>,
    pub(crate) nulls_first: Option<bool>,
}

/// Equality of two columns.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct JoinCondition {
    pub(crate) left: (QualifiedName, String),
    pub(crate) right: (QualifiedName, String),
}

/// How a spread embed shows its columns in the parent.
#[derive(Debug, Clone, PartialEq)]
pub(crate) enum Spread {
    /// As columns.
    ToOne,
    /// As arrays, in an order that needs more columns in the subquery.
    ToMany { extra: Vec<(Option<String>, SelectColumn)>, order: Vec<OrderBy> },
}

/// What a parent shows of a child.
#[derive(Debug, Clone, PartialEq)]
pub(crate) enum EmbeddedColumn {
    Json {
        name: String,
        subquery: String,
        to_one: bool,
        /// `relation()`: joined, not shown.
        empty: bool,
    },
    Spread {
        subquery: String,
        columns: Vec<SpreadColumn>,
    },
}

impl EmbeddedColumn {
    pub(crate) fn subquery(&self) -> &str {
        match self {
            Self::Json { subquery, .. } | Self::Spread { subquery, .. } => subquery,
        }
    }
}

/// A column of a spread child.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct SpreadColumn {
    pub(crate) name: String,
    pub(crate) aggregate: Option<Aggregate>,
    pub(crate) aggregate_cast: Option<String>,
    pub(crate) alias: Option<String>,
}

/// Plans a request.
///
/// # Errors
/// What the request names and the schema does not have, or what the configuration does not allow.
pub fn plan(request: &ApiRequest, cache: &SchemaCache, config: &RestConfig) -> Result<Plan, Error> {
    match &request.action {
        Action::Read { relation, head } => {
            read::plan(request, relation, *head, cache, config).map(Plan::Read)
        }
        Action::Mutate { relation, mutation } => {
            mutate::plan(request, relation, *mutation, cache, config).map(Plan::Mutate)
        }
        Action::Call { routine, invocation } => {
            call::plan(request, routine, *invocation, cache, config).map(Plan::Call)
        }
        Action::Describe { head } => negotiate::description(request).map(|()| Plan::Describe { head: *head }),
        Action::RelationOptions(relation) => read::options(request, relation, cache).map(Plan::Options),
        Action::RoutineOptions(routine) => call::options(request, routine, cache, config).map(Plan::Options),
        Action::RootOptions => Ok(Plan::Options(ALLOW_ROOT.into())),
    }
}
