//! A request, parsed: what the URL, the headers and the body ask for, before any table is looked at.

mod csv;
mod filter;
mod logic;
mod media;
mod names;
mod order;
mod parser;
mod payload;
mod preferences;
mod query;
mod ranges;
mod resource;
mod select;
#[cfg(test)]
mod tests;

use std::collections::BTreeSet;

use bytes::Bytes;
use http::{HeaderName, HeaderValue};

pub use preferences::Applied;
pub(crate) use query::UNRESERVED;
pub use ranges::RequestedRanges;

/// A column, and a path into it when it is JSON or composite.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Default)]
pub struct Field {
    /// Column name; `*` stands for all.
    pub name: String,
    /// Path, outermost first.
    pub json_path: Vec<JsonStep>,
}

/// One step of a JSON path.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct JsonStep {
    /// `->>` rather than `->`: the result is text.
    pub as_text: bool,
    /// Key or index.
    pub operand: JsonOperand,
}

/// Operand of `->`.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum JsonOperand {
    /// Object key.
    Key(String),
    /// Array index, perhaps negative, as written.
    Index(String),
}

/// A tree of selected things.
#[derive(Debug, Clone, PartialEq)]
pub enum SelectItem {
    /// A column.
    Column {
        /// Which.
        field: Field,
        /// `col::type`.
        cast: Option<String>,
        /// `alias:col`.
        alias: Option<String>,
        /// `col.sum()`; `count()` alone has an empty or `*` field.
        aggregate: Option<Aggregate>,
        /// `col.sum()::type`.
        aggregate_cast: Option<String>,
    },
    /// An embedded relation.
    Embed(Embed),
}

/// An embedded relation of a select.
#[derive(Debug, Clone, PartialEq)]
pub struct Embed {
    /// Relation, foreign key or column name.
    pub relation: String,
    /// `alias:relation`; never with a spread.
    pub alias: Option<String>,
    /// `relation!hint`.
    pub hint: Option<String>,
    /// `!inner` or `!left`.
    pub join: Option<Join>,
    /// `...relation`.
    pub spread: bool,
    /// What is selected of it; empty: `relation()`.
    pub select: Vec<SelectItem>,
}

/// Join of an embed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Join {
    /// Rows without a match stay.
    Left,
    /// Rows without a match go.
    Inner,
}

/// Aggregate functions.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Aggregate {
    /// `sum()`
    Sum,
    /// `avg()`
    Avg,
    /// `max()`
    Max,
    /// `min()`
    Min,
    /// `count()`
    Count,
}

/// A condition tree.
#[derive(Debug, Clone, PartialEq)]
pub enum Logic {
    /// `and(…)`, `or(…)`, with `not.` in front.
    Group {
        /// `not.`
        negated: bool,
        /// Or rather than and.
        any: bool,
        /// Members.
        members: Vec<Logic>,
    },
    /// One comparison.
    Filter(Filter),
}

/// A comparison of a field.
#[derive(Debug, Clone, PartialEq)]
pub struct Filter {
    /// Left side.
    pub field: Field,
    /// `not.`
    pub negated: bool,
    /// Operator and right side.
    pub operation: Operation,
}

/// Operator and right side of a filter.
#[derive(Debug, Clone, PartialEq)]
pub enum Operation {
    /// `neq cs cd ov sl sr nxr nxl adj`.
    Simple(SimpleOperator, String),
    /// `eq gte gt lte lt like ilike match imatch`, with `(any)` or `(all)`.
    Quantified(QuantifiedOperator, Option<Quantifier>, String),
    /// `in.(…)`
    In(Vec<String>),
    /// `is.…`
    Is(IsValue),
    /// `isdistinct.…`
    IsDistinct(String),
    /// `fts plfts phfts wfts`, with a configuration name.
    FullText(FullTextOperator, Option<String>, String),
}

/// Operators without quantifier.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum SimpleOperator {
    /// `neq`
    NotEqual,
    /// `cs`
    Contains,
    /// `cd`
    Contained,
    /// `ov`
    Overlaps,
    /// `sl`
    StrictlyLeft,
    /// `sr`
    StrictlyRight,
    /// `nxr`
    NotExtendsRight,
    /// `nxl`
    NotExtendsLeft,
    /// `adj`
    Adjacent,
}

/// Operators that take `any` and `all`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum QuantifiedOperator {
    /// `eq`
    Equal,
    /// `gte`
    GreaterOrEqual,
    /// `gt`
    Greater,
    /// `lte`
    LessOrEqual,
    /// `lt`
    Less,
    /// `like`; `*` stands for `%`
    Like,
    /// `ilike`
    ILike,
    /// `match`
    Match,
    /// `imatch`
    IMatch,
}

/// Quantifiers.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Quantifier {
    /// `(any)`
    Any,
    /// `(all)`
    All,
}

/// Values of `is`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum IsValue {
    /// `null`
    Null,
    /// `not_null`
    NotNull,
    /// `true`
    True,
    /// `false`
    False,
    /// `unknown`
    Unknown,
}

/// Full-text operators.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum FullTextOperator {
    /// `fts`: `to_tsquery`
    Plain,
    /// `plfts`: `plainto_tsquery`
    Words,
    /// `phfts`: `phraseto_tsquery`
    Phrase,
    /// `wfts`: `websearch_to_tsquery`
    Web,
}

/// One term of an order.
#[derive(Debug, Clone, PartialEq)]
pub struct OrderTerm {
    /// `relation(column)`: order by a column of a to-one embed.
    pub relation: Option<String>,
    /// What to order by.
    pub field: Field,
    /// Direction, if said.
    pub descending: Option<bool>,
    /// `nullsfirst` (true) or `nullslast`, if said.
    pub nulls_first: Option<bool>,
}

/// Names of embeds from the root to a node; empty for the root. Aliases count as names.
pub type EmbedPath = Vec<String>;

/// Offset and limit; no limit is `None`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Range {
    /// Rows skipped.
    pub offset: u64,
    /// Rows at most.
    pub limit: Option<u64>,
}

/// The query string, parsed.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct Query {
    /// `select`; one `*` when it is absent, empty for `select=` (no columns at all).
    pub select: Vec<SelectItem>,
    /// `and`, `or` and plain filters of the root and of embeds, in order of appearance.
    pub filters: Vec<(EmbedPath, Logic)>,
    /// `order`, `rel.order`.
    pub order: Vec<(EmbedPath, Vec<OrderTerm>)>,
    /// `limit`/`offset`, `rel.limit`, …; the root's from the query only (not from `Range`).
    pub ranges: Vec<(EmbedPath, Range)>,
    /// `columns`.
    pub columns: Option<BTreeSet<String>>,
    /// `on_conflict`.
    pub on_conflict: Option<Vec<String>>,
    /// Parameters of an RPC: what is neither reserved nor a filter on the result. In order, repeated ones kept.
    pub arguments: Vec<(String, String)>,
    /// Keys of all filters and arguments as written: those of a `PUT` must be the primary key.
    pub filter_fields: BTreeSet<String>,
    /// The query string in canonical (sorted) form, for `Content-Location`.
    pub canonical: String,
}

/// `Prefer`, parsed.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Preferences {
    /// `return=`
    pub representation: Option<Return>,
    /// `count=`
    pub count: Option<Count>,
    /// `resolution=`: true merges duplicates, false ignores them.
    pub merge_duplicates: Option<bool>,
    /// `tx=`: true commits, false rolls back.
    pub commit: Option<bool>,
    /// `missing=`: true fills defaults, false nulls.
    pub missing_default: Option<bool>,
    /// `handling=`: true is strict.
    pub strict: Option<bool>,
    /// `timezone=`, whether or not it exists.
    pub timezone: Option<String>,
    /// `max-affected=`
    pub max_affected: Option<u64>,
    /// Preferences nobody knows, for `handling=strict`.
    pub invalid: Vec<String>,
}

/// `Prefer: return`
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Return {
    /// `representation`
    Representation,
    /// `headers-only`
    HeadersOnly,
    /// `minimal`
    Minimal,
}

/// `Prefer: count`
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Count {
    /// `exact`
    Exact,
    /// `planned`
    Planned,
    /// `estimated`
    Estimated,
}

/// The body of a request.
#[derive(Debug, Clone, PartialEq)]
pub enum Payload {
    /// A JSON object or array of objects; the keys are those of every row.
    Json {
        /// As sent (or as made from CSV).
        raw: Bytes,
        /// Keys of the rows.
        keys: BTreeSet<String>,
        /// An array rather than one object.
        is_array: bool,
    },
    /// Form fields.
    Form(Vec<(String, String)>),
    /// Anything else: JSON of another shape for single-JSON functions, text, binary.
    Raw(Bytes),
}

/// What is asked of which resource.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Action {
    /// `GET`/`HEAD /relation`
    Read {
        /// Table or view.
        relation: String,
        /// `HEAD`: no body.
        head: bool,
    },
    /// A write to a relation.
    Mutate {
        /// Table or view.
        relation: String,
        /// Which.
        mutation: Mutation,
    },
    /// `/rpc/function`
    Call {
        /// Function.
        routine: String,
        /// How.
        invocation: Invocation,
    },
    /// `GET`/`HEAD /`: the OpenAPI description, or the root function.
    Describe {
        /// `HEAD`: no body.
        head: bool,
    },
    /// `OPTIONS` of a relation.
    RelationOptions(String),
    /// `OPTIONS` of a function.
    RoutineOptions(String),
    /// `OPTIONS /`
    RootOptions,
}

/// Writes to a relation.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Mutation {
    /// `POST`
    Create,
    /// `PATCH`
    Update,
    /// `PUT`
    SingleUpsert,
    /// `DELETE`
    Delete,
}

/// Ways to call a function.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Invocation {
    /// `GET`
    Get,
    /// `HEAD`
    Head,
    /// `POST`
    Post,
}

/// A media type of `Accept` or `Content-Type`.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum MediaType {
    /// `application/json`
    Json,
    /// `application/geo+json`
    GeoJson,
    /// `text/csv`
    Csv,
    /// `text/plain`
    Text,
    /// `text/xml`
    Xml,
    /// `application/openapi+json`
    OpenApi,
    /// `application/x-www-form-urlencoded`
    Form,
    /// `application/octet-stream`
    OctetStream,
    /// `*/*`
    Any,
    /// `application/vnd.pgrst.object+json`
    Object {
        /// `;nulls=stripped`
        strip_nulls: bool,
    },
    /// `application/vnd.pgrst.array+json;nulls=stripped`
    ArrayStripped,
    /// `application/vnd.pgrst.plan…`
    Plan {
        /// `+json` rather than `+text`.
        json: bool,
        /// `for="…"`
        of: Box<MediaType>,
        /// `options=analyze|verbose|settings|buffers|wal`, in that order.
        options: Vec<String>,
    },
    /// Another type, lower case, with its parameters.
    Other(String),
}

/// A whole request.
#[derive(Debug, Clone, PartialEq)]
pub struct ApiRequest {
    /// What is asked.
    pub action: Action,
    /// Schema it is asked of.
    pub schema: String,
    /// Whether `Content-Profile` must be answered (more than one schema is exposed).
    pub profile_answered: bool,
    /// The query string.
    pub query: Query,
    /// Root range: `limit`/`offset` within the `Range` header.
    pub range: Range,
    /// `Prefer`.
    pub preferences: Preferences,
    /// `Accept`, best first; never empty.
    pub accept: Vec<MediaType>,
    /// `Content-Type`; JSON when absent.
    pub content_type: MediaType,
    /// The body, for methods that have one.
    pub payload: Option<Payload>,
    /// Columns that a write sets: `columns=`, else the payload's keys.
    pub columns: BTreeSet<String>,
    /// Headers for `request.headers`.
    pub headers: Vec<(HeaderName, HeaderValue)>,
    /// Cookies for `request.cookies`.
    pub cookies: Vec<(String, String)>,
    /// `GET`, …
    pub method: String,
    /// Path for `request.path`.
    pub path: String,
}
