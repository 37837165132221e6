//! Everything that the API answers other than what was asked for, with PostgREST's codes, statuses and words.

mod catalog;
mod hints;
mod jwt;
mod postgres;
mod response;
#[cfg(test)]
mod tests;

use thiserror::Error as ThisError;

pub use catalog::SchemaCacheError;
pub use jwt::JwtError;
pub use postgres::{PostgresError, RaiseError};

/// A refusal or failure. `Display` is the message that clients see.
#[derive(Debug, Clone, PartialEq, ThisError)]
pub enum Error {
    /// PGRST000: no connection to the database could be made.
    #[error("Database connection error.")]
    Connection(Option<String>),
    /// PGRST001: the connection broke, or the driver did not understand the database.
    #[error("Database client error. Retrying the connection.")]
    Client(Option<String>),
    /// PGRST002: the schema cache has not been loaded yet.
    #[error("Could not query the database for the schema cache. Retrying.")]
    NoSchemaCache,
    /// PGRST003: all connections stayed busy.
    #[error("Timed out acquiring connection from connection pool.")]
    PoolTimeout,
    /// PGRST100: a parameter of the query string does not parse.
    #[error("{message}")]
    QueryParameter {
        /// What failed to parse, and where.
        message: String,
        /// What was met and what was expected.
        details: String,
    },
    /// PGRST101: a method that functions do not answer.
    #[error("Cannot use the {0} method on RPC")]
    InvalidRpcMethod(String),
    /// PGRST102: the body does not parse.
    #[error("{0}")]
    InvalidBody(String),
    /// PGRST103: a range that cannot be.
    #[error("Requested range not satisfiable")]
    InvalidRange(RangeError),
    /// PGRST105: `PUT` with other filters than equality on the primary key.
    #[error("Filters must include all and only primary key columns with 'eq' operators")]
    InvalidFilters,
    /// PGRST106: a profile that is not exposed.
    #[error("Invalid schema: {schema}")]
    UnacceptableSchema {
        /// The profile.
        schema: String,
        /// What is exposed.
        exposed: Vec<String>,
    },
    /// PGRST107: nothing that is produced is accepted; holds what was accepted.
    #[error("None of these media types are available: {}", .0.join(", "))]
    MediaType(Vec<String>),
    /// PGRST108: a filter, order or limit of something that is not embedded.
    #[error("'{resource}' is not an embedded resource in this request")]
    NotEmbedded {
        /// The name that was used.
        resource: String,
        /// (name, alias) when the resource is embedded under an alias.
        renamed: Option<(String, String)>,
    },
    /// PGRST111: the database set `response.headers` to something else than headers.
    #[error(
        "response.headers guc must be a JSON array composed of objects with a single key and a string value"
    )]
    GucHeaders,
    /// PGRST112: the database set `response.status` to something else than a status.
    #[error("response.status guc must be a valid status code")]
    GucStatus,
    /// PGRST114: `PUT` with a limit or offset.
    #[error("limit/offset querystring parameters are not allowed for PUT")]
    PutLimit,
    /// PGRST115: `PUT` whose body has another key than the URL.
    #[error("Payload values do not match URL in primary key column(s)")]
    PutMatchingKey,
    /// PGRST116: one object was asked for and this many rows were found.
    #[error("Cannot coerce the result to a single JSON object")]
    Singularity(u64),
    /// PGRST117: a method that the resource does not answer.
    #[error("Unsupported HTTP method: {0}")]
    UnsupportedMethod(String),
    /// PGRST118: order by a column of many related rows.
    #[error("A related order on '{target}' is not possible")]
    RelatedOrderNotToOne {
        /// The ordered relation.
        origin: String,
        /// The related one.
        target: String,
    },
    /// PGRST120: an embed filtered by something else than null.
    #[error("Bad operator on the '{0}' embedded resource")]
    UnacceptableFilter(String),
    /// PGRST122: unknown preferences under `handling=strict`.
    #[error("Invalid preferences given with handling=strict")]
    InvalidPreferences(Vec<String>),
    /// PGRST123: aggregates are switched off.
    #[error("Use of aggregate functions is not allowed")]
    AggregatesNotAllowed,
    /// PGRST124: a write would affect this many rows, more than `max-affected`.
    #[error("Query result exceeds max-affected preference constraint")]
    MaxAffected(u64),
    /// PGRST125: a path with too many segments.
    #[error("Invalid path specified in request URL")]
    InvalidPath,
    /// PGRST126: the description of the API is switched off.
    #[error("Root endpoint metadata is disabled")]
    OpenApiDisabled,
    /// PGRST127: something that cannot be done; says what.
    #[error("Feature not implemented")]
    NotImplemented(String),
    /// PGRST128: `max-affected` on a function of one result.
    #[error("Function must return SETOF or TABLE when max-affected preference is used with handling=strict")]
    MaxAffectedRpc,
    /// PGRST2xx: the schema has no such thing, or several.
    #[error(transparent)]
    SchemaCache(Box<SchemaCacheError>),
    /// PGRST3xx: who asks is not established.
    #[error(transparent)]
    Jwt(#[from] JwtError),
    /// Postgres refused.
    #[error("{}", .0.message())]
    Postgres(Box<PostgresError>),
    /// PGRSTX00: something that cannot happen did; the cause goes to the log, not to the client.
    #[error("Internal error")]
    Internal(String),
}

/// Why a range cannot be.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum RangeError {
    /// A limit below zero.
    NegativeLimit,
    /// `Range: 9-0`.
    LowerAboveUpper,
    /// An offset beyond the last row.
    OutOfBounds {
        /// The offset.
        lower: u64,
        /// Rows there are.
        total: u64,
    },
}

impl RangeError {
    fn details(&self) -> String {
        match self {
            Self::NegativeLimit => "Limit should be greater than or equal to zero.".to_owned(),
            Self::LowerAboveUpper => {
                "The lower boundary must be lower than or equal to the upper boundary in the Range header."
                    .to_owned()
            }
            Self::OutOfBounds { lower, total } => {
                format!("An offset of {lower} was requested, but there are only {total} rows.")
            }
        }
    }
}

impl From<SchemaCacheError> for Error {
    fn from(error: SchemaCacheError) -> Self {
        Self::SchemaCache(Box::new(error))
    }
}

impl From<PostgresError> for Error {
    fn from(error: PostgresError) -> Self {
        Self::Postgres(Box::new(error))
    }
}
