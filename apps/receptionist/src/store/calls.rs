//! A call's row through its life.

use longhouse_database::{Database, Error, ServiceReason};
use longhouse_voice::session::{Ending, Resumed};
use longhouse_voice::upstreams::realtime::HistoryItem;
use std::time::Duration;
use uuid::Uuid;

use super::agent_of;
use crate::domain::prompt::{AgentConfig, Booking};
use crate::domain::token::Grant;

/// A call whose stream has been opened.
#[derive(Debug)]
pub(crate) struct OpenedCall {
    pub(crate) id: Uuid,
    pub(crate) agent: AgentConfig,
    /// Who calls, where Twilio knows.
    pub(crate) from_number: Option<String>,
    /// Present from the second stream on.
    pub(crate) resumed: Option<Resumed>,
}

/// Uses up a stream token: at most one stream is opened for each. `None` when it was used or overtaken.
pub(crate) async fn open_stream(
    database: &Database,
    call_sid: &str,
    grant: Grant,
) -> Result<Option<OpenedCall>, Error> {
    let claims = agent_of(grant.tenant);
    let row = database
        .as_role(&claims)
        .query_opt(
            "with opened as (
               update receptionist.calls
               set opened_epoch = $3, status = 'in_progress', outcome = null, ended_at = null,
                   answered_at = coalesce(answered_at, now()), last_seen_at = now()
               where call_sid = $1 and tenant_id = $2 and epoch = $3 and opened_epoch < $3
               returning id, answered_at, from_number
             )
             select o.id, t.name, a.greeting, coalesce(a.instructions, ''), coalesce(a.voice, 'marin'),
                    a.language, a.forward_number,
                    (extract(epoch from now() - o.answered_at) * 1000)::bigint, o.from_number,
                    now() at time zone t.timezone, b.mode is not distinct from 'external', b.external_url,
                    exists (select from receptionist.services s where s.tenant_id = $2 and s.active)
             from opened o
             join receptionist.tenants t on t.id = $2
             left join receptionist.agents a on a.tenant_id = $2
             left join receptionist.booking_settings b on b.tenant_id = $2",
            &[&call_sid, &grant.tenant, &grant.epoch],
        )
        .await?;
    let Some(row) = row else { return Ok(None) };
    let id: Uuid = row.get(0);
    let agent = AgentConfig {
        business: row.get(1),
        greeting: row.get(2),
        instructions: row.get(3),
        voice: row.get(4),
        language: row.get(5),
        forward_number: row.get(6),
        now: row.get(9),
        booking: match (row.get(10), row.get::<_, Option<String>>(11), row.get(12)) {
            (true, url, _) => url.map_or(Booking::No, Booking::Elsewhere),
            (false, _, true) => Booking::Here,
            (false, _, false) => Booking::No,
        },
    };
    let from_number = row.get(8);
    let elapsed: i64 = row.get(7);
    let resumed =
        if grant.epoch > 1 { earlier_turns(database, id, grant.tenant, elapsed).await? } else { None };
    Ok(Some(OpenedCall { id, agent, from_number, resumed }))
}

/// What was said before this stream. A call without any turn starts afresh, with its greeting.
async fn earlier_turns(
    database: &Database,
    call: Uuid,
    tenant: Uuid,
    elapsed_ms: i64,
) -> Result<Option<Resumed>, Error> {
    let rows = database
        .as_role(&agent_of(tenant))
        .query(
            "select ordinal, speaker::text, text from
               (select ordinal, speaker, text from receptionist.turns
                where call_id = $1 order by ordinal desc limit 40) as latest
             order by ordinal",
            &[&call],
        )
        .await?;
    let Some(last) = rows.last() else { return Ok(None) };
    let next_ordinal = last.get::<_, i32>(0) + 1;
    let history = rows
        .iter()
        .map(|row| {
            let text: String = row.get(2);
            if row.get::<_, &str>(1) == "caller" {
                HistoryItem::Caller(text)
            } else {
                HistoryItem::Agent(text)
            }
        })
        .collect();
    let elapsed = Duration::from_millis(u64::try_from(elapsed_ms).unwrap_or(0));
    Ok(Some(Resumed { history, next_ordinal, elapsed }))
}

/// Writes the end of a stream, unless a newer stream of the call has been opened meanwhile.
pub(crate) async fn finish_call(
    database: &Database,
    call: Uuid,
    grant: Grant,
    ending: Ending,
) -> Result<(), Error> {
    let status = match ending {
        Ending::HandedOver | Ending::ConnectionLost | Ending::Crashed => "interrupted",
        _ => "completed",
    };
    database
        .as_role(&agent_of(grant.tenant))
        .execute(
            "update receptionist.calls
             set status = $3::text::receptionist.call_status, outcome = $4, ended_at = now(), last_seen_at = now(),
                 duration_ms = (extract(epoch from now() - coalesce(answered_at, started_at)) * 1000)::bigint
             where id = $1 and opened_epoch = $2",
            &[&call, &grant.epoch, &status, &ending.name()],
        )
        .await?;
    Ok(())
}

/// Closes calls whose server died and that nobody took up again.
pub(crate) async fn close_lost_calls(database: &Database) -> Result<u64, Error> {
    database
        .as_service(ServiceReason::because("calls of any tenant that a dead server left open"))
        .execute(
            "update receptionist.calls
             set status = 'completed', ended_at = last_seen_at,
                 outcome = case status when 'ringing' then 'never_connected' else 'server_lost' end,
                 duration_ms = greatest(0, extract(epoch from last_seen_at - coalesce(answered_at, last_seen_at)) * 1000)::bigint
             where status in ('ringing', 'in_progress') and last_seen_at < now() - interval '100 seconds'",
            &[],
        )
        .await
}
