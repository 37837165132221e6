//! The usual refresh, in one statement: one round trip, and no moment between check and change.

use std::time::Duration;

use chrono::{DateTime, Utc};
use longhouse_database::{Claims, Database, Error};
use serde_json::{Map, Value};
use std::net::IpAddr;
use std::sync::LazyLock;

use super::sessions::{Aal, Session};
use super::users::{self, User};
use crate::service::caller::Caller;

/// Limits of sessions, as the statement checks them.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Rotation {
    pub(crate) timebox: Option<Duration>,
    pub(crate) inactivity: Option<Duration>,
}

static CLAIMS: LazyLock<Claims> = LazyLock::new(|| Claims::agent(super::ROLE, Map::new()));

// The session's row is locked first, as everywhere: whoever waited for it finds the token revoked by then, because an
// update looks again at a row that has changed.
const SQL: &str = const_format::concatcp!(
    "with session as materialized (
       select s.id, s.user_id, s.created_at, s.aal, s.not_after, s.refreshed_at
       from auth.sessions s
       where s.id = (select t.session_id from auth.refresh_tokens t where t.token = $1)
       for no key update of s
     ), used as (
       update auth.refresh_tokens t set revoked = true, updated_at = now()
       from session s join auth.users o on o.id = s.user_id
       where t.token = $1 and t.revoked = false
         and o.deleted_at is null and (o.banned_until is null or o.banned_until <= now())
         and (s.not_after is null or s.not_after >= now())
         and ($5::float8 is null or s.created_at + make_interval(secs => $5) >= now())
         and ($6::float8 is null or greatest(s.created_at, s.refreshed_at at time zone 'utc', t.updated_at)
           + make_interval(secs => $6) >= now())
       returning t.session_id
     ), next as (
       insert into auth.refresh_tokens
         (instance_id, token, user_id, revoked, created_at, updated_at, parent, session_id)
       select '00000000-0000-0000-0000-000000000000', $2, s.user_id::text, false, now(), now(), $1, s.id
       from session s join used on used.session_id = s.id
     ), touched as (
       update auth.sessions s
       set refreshed_at = now() at time zone 'utc', updated_at = now(), user_agent = $3, ip = $4
       from used where s.id = used.session_id
     )
     select s.id as session_id, s.created_at as session_created_at, s.aal::text as aal, s.not_after,
       (select json_agg(json_build_object('method', c.authentication_method,
           'timestamp', extract(epoch from c.updated_at)::bigint) order by c.updated_at desc)
         from auth.mfa_amr_claims c where c.session_id = s.id) as amr, ",
    users::COLUMNS,
    " from used join session s on s.id = used.session_id join auth.users u on u.id = s.user_id"
);

/// Replaces `token` by `next`, if it is the newest of a session that may go on. `None`: it is not, nothing has changed.
pub(crate) async fn rotate(
    database: &Database,
    caller: &Caller,
    token: &str,
    next: &str,
    limits: &Rotation,
) -> Result<Option<(User, Session)>, Error> {
    let ip: Option<IpAddr> = Some(caller.ip);
    let timebox = limits.timebox.map(|time| time.as_secs_f64());
    let inactivity = limits.inactivity.map(|time| time.as_secs_f64());
    let row = database
        .as_role(&CLAIMS)
        .query_opt(SQL, &[&token, &next, &caller.user_agent, &ip, &timebox, &inactivity])
        .await?;
    Ok(row.map(|row| {
        let user = User::read(&row);
        let session = Session {
            id: row.get("session_id"),
            user_id: user.id,
            created_at: row.get::<_, Option<DateTime<Utc>>>("session_created_at").unwrap_or_default(),
            aal: Aal::read(row.get("aal")),
            not_after: row.get("not_after"),
            refreshed_at: Some(Utc::now()),
            amr: row
                .get::<_, Option<Value>>("amr")
                .map(|list| serde_json::from_value(list).expect("the query builds this shape"))
                .unwrap_or_default(),
        };
        (user, session)
    }))
}
