//! From a called number to its tenant, and from a webhook to a call's row.

use longhouse_database::{Database, Error};
use uuid::Uuid;

use super::{agent_of, called};
use crate::domain::disposition::Fallback;

/// The tenant behind a number, as far as the webhook needs it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Line {
    pub(crate) tenant: Uuid,
    pub(crate) business: String,
    pub(crate) enabled: bool,
    pub(crate) greeting: Option<String>,
    pub(crate) voice: String,
    pub(crate) fallback: Fallback,
}

/// Finds the tenant of an E.164 number. The database alone decides; what a request claims is not asked (B16).
pub(crate) async fn find_line(database: &Database, number: &str) -> Result<Option<Line>, Error> {
    let row = database
        .as_role(&called(number))
        .query_opt(
            "select t.id, t.name, coalesce(a.enabled, false), a.greeting, coalesce(a.voice, 'marin'),
                    a.forward_number, a.apology
             from receptionist.numbers n
             join receptionist.tenants t on t.id = n.tenant_id
             left join receptionist.agents a on a.tenant_id = t.id
             where n.e164 = $1",
            &[&number],
        )
        .await?;
    Ok(row.map(|row| Line {
        tenant: row.get(0),
        business: row.get(1),
        enabled: row.get(2),
        greeting: row.get(3),
        voice: row.get(4),
        fallback: Fallback { forward_number: row.get(5), apology: row.get(6) },
    }))
}

/// A call's row after the webhook has asked for it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct RegisteredCall {
    pub(crate) status: String,
    pub(crate) outcome: Option<String>,
    /// Number of the stream that may be opened next.
    pub(crate) epoch: i32,
}

/// Makes the row of a new call, or counts up the stream of one that comes back.
pub(crate) async fn register_call(
    database: &Database,
    tenant: Uuid,
    call_sid: &str,
    from: Option<&str>,
    to: &str,
) -> Result<RegisteredCall, Error> {
    let row = database
        .as_role(&agent_of(tenant))
        .query_opt(
            "insert into receptionist.calls as c (tenant_id, call_sid, from_number, to_number)
             values ($1, $2, $3, $4)
             on conflict (call_sid) do update set epoch = c.epoch + 1, last_seen_at = now()
             returning c.status::text, c.outcome, c.epoch",
            &[&tenant, &call_sid, &from, &to],
        )
        .await?;
    row.map(|row| RegisteredCall { status: row.get(0), outcome: row.get(1), epoch: row.get(2) })
        .ok_or_else(|| Error::Unavailable("the call's row was not returned".into()))
}

/// A call's row as it is, for a server that will not open another stream. `None`: it has no row yet.
pub(crate) async fn registered_call(
    database: &Database,
    tenant: Uuid,
    call_sid: &str,
) -> Result<Option<RegisteredCall>, Error> {
    let row = database
        .as_role(&agent_of(tenant))
        .query_opt(
            "select status::text, outcome, epoch from receptionist.calls where call_sid = $1",
            &[&call_sid],
        )
        .await?;
    Ok(row.map(|row| RegisteredCall { status: row.get(0), outcome: row.get(1), epoch: row.get(2) }))
}
