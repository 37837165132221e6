//! The schema `ai`: its migrations, and the role that the gateway acts as in it.

use longhouse_database::Claims;
use longhouse_database::migrations::Embedded;

use crate::Error;

/// Postgres role of the gateway itself: it may write its own records, and nothing else of the project.
pub const AGENT_ROLE: &str = "ai_gateway";

/// Name of the schema.
pub const SCHEMA: &str = "ai";

/// The migrations of [`SCHEMA`].
pub const MIGRATIONS: &[Embedded] = &[
    Embedded { version: "0001", name: "ledger", sql: include_str!("../migrations/0001_ledger.sql") },
    Embedded { version: "0002", name: "quotas", sql: include_str!("../migrations/0002_quotas.sql") },
    Embedded { version: "0003", name: "keys", sql: include_str!("../migrations/0003_keys.sql") },
    Embedded { version: "0004", name: "reviews", sql: include_str!("../migrations/0004_reviews.sql") },
    Embedded { version: "0005", name: "jobs", sql: include_str!("../migrations/0005_jobs.sql") },
];

/// The gateway as somebody: [`AGENT_ROLE`], confined by row-level security.
pub(crate) fn claims() -> Claims {
    Claims::agent(AGENT_ROLE, serde_json::Map::new())
}

/// A failure of the database, for whoever made the call.
pub(crate) fn records(error: longhouse_database::Error) -> Error {
    Error::Records(error.to_string())
}
