//! The schema cache: everything the planner must know about the exposed database, loaded in one pass.

use std::collections::{BTreeSet, HashMap};
use std::fmt;

use serde::Serialize;

mod load;
mod relationships;
mod view_columns;

pub use load::load;

/// A schema-qualified name.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize)]
pub struct QualifiedName {
    /// Schema.
    pub schema: String,
    /// Name within it.
    pub name: String,
}

impl QualifiedName {
    /// `schema.name`.
    pub fn new(schema: impl Into<String>, name: impl Into<String>) -> Self {
        Self { schema: schema.into(), name: name.into() }
    }
}

impl fmt::Display for QualifiedName {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "{}.{}", self.schema, self.name)
    }
}

/// A snapshot of the exposed schemas. Immutable; a reload makes another and swaps it in.
#[derive(Debug, Clone, Default)]
pub struct SchemaCache {
    /// Tables and views by name.
    pub tables: HashMap<QualifiedName, Table>,
    /// Relationships by source table and schema of the target, in a stable order.
    pub relationships: HashMap<(QualifiedName, String), Vec<Relationship>>,
    /// Functions by name; overloads ordered by fewest parameters first.
    pub routines: HashMap<QualifiedName, Vec<Routine>>,
    /// Casts between domains and json/text, by (source type, target type) as `format_type` writes them.
    pub representations: HashMap<(String, String), Representation>,
    /// Custom media type handlers by (relation or any, media type).
    pub media_handlers: HashMap<(HandlerRelation, String), MediaHandler>,
    /// Names that `Prefer: timezone` may use.
    pub timezones: BTreeSet<String>,
    /// Exposed schemas with their comments, for OpenAPI.
    pub schema_comments: HashMap<String, Option<String>>,
    /// `server_version_num`.
    pub server_version: u32,
    /// Settings of roles that requests may act as (`alter role … set`), applied to their transactions.
    pub role_settings: HashMap<String, RoleSettings>,
}

impl SchemaCache {
    /// All of it as JSON, for a person to look at.
    pub fn to_json(&self) -> serde_json::Value {
        let mut tables: Vec<&Table> = self.tables.values().collect();
        tables.sort_by(|one, two| one.name.cmp(&two.name));
        let mut relationships: Vec<&Relationship> = self.relationships.values().flatten().collect();
        relationships
            .sort_by(|one, two| (&one.table, &one.foreign_table).cmp(&(&two.table, &two.foreign_table)));
        let mut routines: Vec<&Routine> = self.routines.values().flatten().collect();
        routines.sort_by(|one, two| one.name.cmp(&two.name));
        serde_json::json!({
            "tables": tables,
            "relationships": relationships,
            "routines": routines,
            "representations": self.representations.values().collect::<Vec<_>>(),
            "media_handlers": self.media_handlers.iter().collect::<Vec<_>>(),
            "timezones": self.timezones,
            "role_settings": self.role_settings,
        })
    }
}

/// What `alter role … set` says of one role.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
pub struct RoleSettings {
    /// `default_transaction_isolation`, e.g. `serializable`.
    pub isolation: Option<String>,
    /// Other settings that an ordinary role may change, as (name, value).
    pub settings: Vec<(String, String)>,
}

/// A table or view.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Table {
    /// Its name.
    pub name: QualifiedName,
    /// Its comment.
    pub description: Option<String>,
    /// A view, materialised or not, or a foreign table without keys of its own is `false`.
    pub is_view: bool,
    /// Whether Postgres could insert into it (not: who may).
    pub insertable: bool,
    /// Whether Postgres could update it.
    pub updatable: bool,
    /// Whether Postgres could delete from it.
    pub deletable: bool,
    /// Primary key, of the base table for views; sorted by name.
    pub primary_key: Vec<String>,
    /// Columns in order.
    pub columns: Vec<Column>,
}

impl Table {
    /// The column of that name.
    pub fn column(&self, name: &str) -> Option<&Column> {
        self.columns.iter().find(|column| column.name == name)
    }
}

/// A column.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Column {
    /// Its name.
    pub name: String,
    /// Its comment.
    pub description: Option<String>,
    /// Whether it may be null.
    pub nullable: bool,
    /// Base type as `format_type` writes it, domains resolved.
    pub base_type: String,
    /// Declared type as `format_type` writes it: a domain keeps its name.
    pub nominal_type: String,
    /// Longest text, of `varchar(n)` and the like.
    pub max_length: Option<i32>,
    /// Default expression.
    pub default: Option<String>,
    /// Labels of an enum type.
    pub enum_labels: Vec<String>,
}

/// A way from one table to another.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Relationship {
    /// Where it starts.
    pub table: QualifiedName,
    /// Where it leads.
    pub foreign_table: QualifiedName,
    /// Both are the same table.
    pub is_self: bool,
    /// The start is a view.
    pub table_is_view: bool,
    /// The target is a view.
    pub foreign_is_view: bool,
    /// How rows correspond.
    pub kind: RelationshipKind,
}

/// How rows of two tables correspond.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub enum RelationshipKind {
    /// The foreign table references this one.
    OneToMany(ForeignKey),
    /// This table references the foreign one.
    ManyToOne(ForeignKey),
    /// A unique foreign key.
    OneToOne {
        /// The key.
        key: ForeignKey,
        /// This table is the referenced side.
        is_parent: bool,
    },
    /// Through a junction table.
    ManyToMany(Junction),
    /// A function from a row to rows.
    Computed {
        /// The function.
        function: QualifiedName,
        /// Type of the function's argument: the table's row type.
        argument: QualifiedName,
        /// It returns at most one row.
        to_one: bool,
    },
}

impl Relationship {
    /// Whether at most one foreign row corresponds.
    pub fn is_to_one(&self) -> bool {
        match &self.kind {
            RelationshipKind::ManyToOne(_) | RelationshipKind::OneToOne { .. } => true,
            RelationshipKind::Computed { to_one, .. } => *to_one,
            RelationshipKind::OneToMany(_) | RelationshipKind::ManyToMany(_) => false,
        }
    }
}

/// A foreign key seen from one side: pairs of (column of `table`, column of `foreign_table`).
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct ForeignKey {
    /// Constraint name.
    pub constraint: String,
    /// Column pairs.
    pub columns: Vec<(String, String)>,
}

/// A junction table of a many-to-many relationship.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Junction {
    /// The junction.
    pub table: QualifiedName,
    /// Constraint towards the source.
    pub constraint1: String,
    /// Constraint towards the target.
    pub constraint2: String,
    /// (column of the source, column of the junction).
    pub source_columns: Vec<(String, String)>,
    /// (column of the target, column of the junction).
    pub target_columns: Vec<(String, String)>,
}

/// A function.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Routine {
    /// Its name.
    pub name: QualifiedName,
    /// Its comment.
    pub description: Option<String>,
    /// Input parameters in order.
    pub parameters: Vec<Parameter>,
    /// What it returns.
    pub returns: Returns,
    /// What it may do.
    pub volatility: Volatility,
    /// Its last parameter is variadic.
    pub is_variadic: bool,
    /// `set default_transaction_isolation` of the function.
    pub isolation: Option<String>,
    /// Settings that are hoisted to the transaction (`statement_timeout`, …), as (name, value).
    pub settings: Vec<(String, String)>,
}

/// What a function returns.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Returns {
    /// `setof` or `table`.
    pub is_set: bool,
    /// The type.
    pub of: ReturnType,
}

/// Type of a function's result.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub enum ReturnType {
    /// Anything without columns, `pg_catalog.void` included.
    Scalar(QualifiedName),
    /// A row type, or a domain over one.
    Composite(QualifiedName),
}

impl Routine {
    /// One value.
    pub fn returns_scalar(&self) -> bool {
        !self.returns.is_set && matches!(self.returns.of, ReturnType::Scalar(_))
    }

    /// Several values.
    pub fn returns_set_of_scalar(&self) -> bool {
        self.returns.is_set && matches!(self.returns.of, ReturnType::Scalar(_))
    }

    /// One row.
    pub fn returns_single_composite(&self) -> bool {
        !self.returns.is_set && matches!(self.returns.of, ReturnType::Composite(_))
    }

    /// Nothing.
    pub fn returns_void(&self) -> bool {
        matches!(&self.returns.of, ReturnType::Scalar(t) if !self.returns.is_set && t.schema == "pg_catalog" && t.name == "void")
    }

    /// Table or row type whose columns the result has.
    pub fn composite(&self) -> Option<&QualifiedName> {
        match &self.returns.of {
            ReturnType::Composite(name) => Some(name),
            ReturnType::Scalar(_) => None,
        }
    }
}

/// A function's input parameter.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Parameter {
    /// Its name; empty when it has none.
    pub name: String,
    /// Type as `format_type` writes it, for casts; modifiers of `varchar(n)` and the like are not part of it.
    pub type_name: String,
    /// Type to use in a column list of `json_to_recordset`, where `character` needs a length.
    pub record_type: String,
    /// It has no default.
    pub required: bool,
    /// It is the variadic one.
    pub variadic: bool,
}

/// What a function may do.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
pub enum Volatility {
    /// May write.
    Volatile,
    /// Reads.
    Stable,
    /// Computes.
    Immutable,
}

/// A cast function between a domain and what the API shows or takes.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Representation {
    /// Type it takes.
    pub source_type: String,
    /// Type it gives.
    pub target_type: String,
    /// Qualified and quoted function name, ready for SQL.
    pub function: String,
}

/// Which relation a media type handler serves.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize)]
pub enum HandlerRelation {
    /// Any.
    Any,
    /// One table, view or function.
    Named(QualifiedName),
}

/// How rows become a body.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub enum MediaHandler {
    /// An aggregate or function of the database; `argument` is what it aggregates over.
    Custom {
        /// The aggregate or function.
        function: QualifiedName,
        /// Its argument's relation; any for `anyelement`.
        argument: HandlerRelation,
        /// Media type of the answer (an `*/*` handler decides for itself).
        media_type: String,
    },
}
