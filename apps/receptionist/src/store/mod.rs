//! The application's SQL. Everything acts as the voice agent of one line, so row-level security applies.

pub(crate) mod booking;
mod calendar;
mod calls;
mod journal;
mod knowledge;
mod line;

use longhouse_database::Claims;
use serde_json::{Map, Value};
use uuid::Uuid;

pub(crate) use calendar::{CalendarEntry, calendar_entries};
pub(crate) use calls::{OpenedCall, close_lost_calls, finish_call, open_stream};
pub(crate) use journal::Journal;
pub(crate) use knowledge::search_knowledge;
pub(crate) use line::{find_line, register_call, registered_call};

/// The Postgres role that a voice agent acts as.
pub const AGENT_ROLE: &str = "receptionist_agent";

/// Claims of the agent of whichever tenant owns a number: it can read that tenant, nothing else.
fn called(number: &str) -> Claims {
    let mut claims = Map::new();
    claims.insert("called_number".into(), Value::from(number));
    Claims::agent(AGENT_ROLE, claims)
}

/// Claims of an agent that works for nobody: what a request without a user acts as.
fn nobodys() -> Claims {
    Claims::agent(AGENT_ROLE, Map::new())
}

/// Claims of a tenant's agent.
pub(crate) fn agent_of(tenant: Uuid) -> Claims {
    let mut claims = Map::new();
    claims.insert("tenant_id".into(), Value::from(tenant.to_string()));
    Claims::agent(AGENT_ROLE, claims)
}
