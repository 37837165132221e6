//! `auth.sessions` with their refresh tokens and the methods by which their holders signed in.

use std::net::IpAddr;

use chrono::{DateTime, NaiveDateTime, Utc};
use longhouse_database::Error;
use serde::{Deserialize, Serialize};
use tokio_postgres::Row;
use uuid::Uuid;

use super::Tx;
use crate::service::caller::Caller;

/// Authenticator assurance level of NIST SP 800-63B: how sure we are who holds a session.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub(crate) enum Aal {
    Aal1,
    Aal2,
}

impl Aal {
    /// From its column: `aal3` is never given out, null is from before levels existed.
    pub(super) fn read(name: Option<&str>) -> Self {
        match name {
            Some("aal2" | "aal3") => Self::Aal2,
            _ => Self::Aal1,
        }
    }

    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Aal1 => "aal1",
            Self::Aal2 => "aal2",
        }
    }
}

/// One method by which the holder proved who they are (`amr` of the access token).
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Amr {
    /// `password`, `otp`, `oauth`, `totp`, `mfa/phone`, `mfa/webauthn`, `recovery`, `invite`, `magiclink`,
    /// `email/signup`, `email_change`, `anonymous`, `passkey`.
    pub(crate) method: String,
    /// Seconds since 1970.
    pub(crate) timestamp: i64,
}

/// A signed-in device.
#[derive(Debug, Clone)]
pub(crate) struct Session {
    pub(crate) id: Uuid,
    pub(crate) user_id: Uuid,
    pub(crate) created_at: DateTime<Utc>,
    pub(crate) aal: Aal,
    pub(crate) not_after: Option<DateTime<Utc>>,
    pub(crate) refreshed_at: Option<DateTime<Utc>>,
    /// Newest first.
    pub(crate) amr: Vec<Amr>,
}

/// A link of a session's chain of refresh tokens.
#[derive(Debug, Clone)]
pub(crate) struct RefreshToken {
    pub(crate) id: i64,
    pub(crate) token: String,
    pub(crate) revoked: bool,
    pub(crate) updated_at: DateTime<Utc>,
    pub(crate) parent: Option<String>,
    pub(crate) session_id: Option<Uuid>,
}

const COLUMNS: &str = "s.id, s.user_id, s.created_at, s.aal::text as aal, s.not_after, s.refreshed_at,
    (select json_agg(json_build_object('method', c.authentication_method,
        'timestamp', extract(epoch from c.updated_at)::bigint) order by c.updated_at desc)
      from auth.mfa_amr_claims c where c.session_id = s.id) as amr";

impl Session {
    /// By id.
    pub(crate) async fn find(tx: &Tx, id: Uuid) -> Result<Option<Self>, Error> {
        let sql = const_format::concatcp!("select ", COLUMNS, " from auth.sessions s where s.id = $1");
        Ok(tx.query_opt(sql, &[&id]).await?.as_ref().map(Self::read))
    }

    /// By id, locked until the transaction ends: refreshes of one session go one after the other.
    pub(crate) async fn lock(tx: &Tx, id: Uuid) -> Result<Option<Self>, Error> {
        let sql = const_format::concatcp!(
            "select ",
            COLUMNS,
            " from auth.sessions s where s.id = $1 for update of s"
        );
        Ok(tx.query_opt(sql, &[&id]).await?.as_ref().map(Self::read))
    }

    /// Opens a session, signed in by `method` now.
    pub(crate) async fn insert(
        tx: &Tx,
        caller: &Caller,
        user: Uuid,
        method: &str,
        not_after: Option<DateTime<Utc>>,
    ) -> Result<Self, Error> {
        let id = Uuid::new_v4();
        let sql =
            "insert into auth.sessions (id, user_id, created_at, updated_at, aal, not_after, user_agent, ip)
            values ($1, $2, now(), now(), 'aal1', $3, $4, $5)";
        let ip: Option<IpAddr> = Some(caller.ip);
        tx.execute(sql, &[&id, &user, &not_after, &caller.user_agent, &ip]).await?;
        Self::add_amr(tx, id, method).await?;
        Ok(Self::find(tx, id).await?.expect("a row that was just inserted is there"))
    }

    /// Records that the holder proved who they are by `method` now.
    pub(crate) async fn add_amr(tx: &Tx, id: Uuid, method: &str) -> Result<(), Error> {
        let sql =
            "insert into auth.mfa_amr_claims (id, session_id, created_at, updated_at, authentication_method)
            values (gen_random_uuid(), $1, clock_timestamp(), clock_timestamp(), $2)
            on conflict (session_id, authentication_method) do update set updated_at = clock_timestamp()";
        tx.execute(sql, &[&id, &method]).await.map(drop)
    }

    /// Raises (or lowers) the assurance level, by that factor.
    pub(crate) async fn set_aal(tx: &Tx, id: Uuid, aal: Aal, factor: Option<Uuid>) -> Result<(), Error> {
        let sql = "update auth.sessions set aal = $2::text::auth.aal_level, factor_id = $3, updated_at = now() where id = $1";
        tx.execute(sql, &[&id, &aal.name(), &factor]).await.map(drop)
    }

    /// Notes a refresh.
    pub(crate) async fn refreshed(tx: &Tx, caller: &Caller, id: Uuid) -> Result<(), Error> {
        let sql = "update auth.sessions set refreshed_at = now() at time zone 'utc', updated_at = now(),
            user_agent = $2, ip = $3 where id = $1";
        let ip: Option<IpAddr> = Some(caller.ip);
        tx.execute(sql, &[&id, &caller.user_agent, &ip]).await.map(drop)
    }

    /// Whether the account has a session that was used later.
    pub(crate) async fn has_newer(tx: &Tx, session: &Self) -> Result<bool, Error> {
        let sql = "select exists (select from auth.sessions o, auth.sessions s where s.id = $1
            and o.user_id = s.user_id and o.id <> s.id and (o.not_after is null or o.not_after >= now())
            and greatest(o.created_at, o.refreshed_at at time zone 'utc')
              > greatest(s.created_at, s.refreshed_at at time zone 'utc'))";
        Ok(tx.query_opt(sql, &[&session.id]).await?.is_some_and(|row| row.get(0)))
    }

    /// Ends one session, with its refresh tokens.
    pub(crate) async fn delete(tx: &Tx, id: Uuid) -> Result<bool, Error> {
        Ok(tx.execute("delete from auth.sessions where id = $1", &[&id]).await? > 0)
    }

    /// Ends all sessions of an account, except one if named.
    pub(crate) async fn delete_of_user(tx: &Tx, user: Uuid, except: Option<Uuid>) -> Result<u64, Error> {
        let sql = "delete from auth.sessions where user_id = $1 and ($2::uuid is null or id <> $2)";
        tx.execute(sql, &[&user, &except]).await
    }

    /// Ends the sessions of an account whose holders have not proved a second factor.
    pub(crate) async fn delete_below_aal2(tx: &Tx, user: Uuid) -> Result<u64, Error> {
        let sql = "delete from auth.sessions where user_id = $1 and coalesce(aal, 'aal1') < 'aal2'";
        tx.execute(sql, &[&user]).await
    }

    /// Lowers sessions that were raised by a factor that is gone; without any verified factor left, all of them.
    pub(crate) async fn downgrade(tx: &Tx, user: Uuid, factor: Uuid, method: &str) -> Result<(), Error> {
        let forget = "delete from auth.mfa_amr_claims c using auth.sessions s
            where s.id = c.session_id and s.user_id = $1 and s.factor_id = $2 and c.authentication_method = $3";
        tx.execute(forget, &[&user, &factor, &method]).await?;
        let lower = "update auth.sessions set aal = 'aal1', factor_id = null, updated_at = now()
            where user_id = $1 and (factor_id = $2 or (aal > 'aal1' and not exists
              (select from auth.mfa_factors f where f.user_id = $1 and f.status = 'verified')))";
        tx.execute(lower, &[&user, &factor]).await.map(drop)
    }

    fn read(row: &Row) -> Self {
        let amr = row.get::<_, Option<serde_json::Value>>("amr");
        Self {
            id: row.get("id"),
            user_id: row.get("user_id"),
            created_at: row.get::<_, Option<DateTime<Utc>>>("created_at").unwrap_or_default(),
            aal: Aal::read(row.get("aal")),
            not_after: row.get("not_after"),
            refreshed_at: row.get::<_, Option<NaiveDateTime>>("refreshed_at").map(|time| time.and_utc()),
            amr: amr
                .map(|list| serde_json::from_value(list).expect("the query builds this shape"))
                .unwrap_or_default(),
        }
    }
}

impl RefreshToken {
    /// By value.
    pub(crate) async fn find(tx: &Tx, token: &str) -> Result<Option<Self>, Error> {
        let sql = "select id, token, revoked, updated_at, parent, session_id from auth.refresh_tokens where token = $1";
        Ok(tx.query_opt(sql, &[&token]).await?.as_ref().map(Self::read))
    }

    /// The one of a session that may be used next.
    pub(crate) async fn active(tx: &Tx, session: Uuid) -> Result<Option<Self>, Error> {
        let sql = "select id, token, revoked, updated_at, parent, session_id from auth.refresh_tokens
            where session_id = $1 and revoked = false order by id desc limit 1";
        Ok(tx.query_opt(sql, &[&session]).await?.as_ref().map(Self::read))
    }

    /// Adds a token to a session's chain.
    pub(crate) async fn insert(
        tx: &Tx,
        user: Uuid,
        session: Uuid,
        token: &str,
        parent: Option<&str>,
    ) -> Result<(), Error> {
        let sql = "insert into auth.refresh_tokens (instance_id, token, user_id, revoked, created_at, updated_at, parent,
                session_id)
            values ('00000000-0000-0000-0000-000000000000', $1, $2::uuid::text, false, now(), now(), $3, $4)";
        tx.execute(sql, &[&token, &user, &parent, &session]).await.map(drop)
    }

    /// Ends a session's chain: none of its tokens may be used any more.
    pub(crate) async fn revoke_all(tx: &Tx, session: Uuid) -> Result<(), Error> {
        let sql = "update auth.refresh_tokens set revoked = true, updated_at = now()
            where session_id = $1 and revoked = false";
        tx.execute(sql, &[&session]).await.map(drop)
    }

    /// Marks it as used.
    pub(crate) async fn revoke(tx: &Tx, id: i64) -> Result<(), Error> {
        let sql = "update auth.refresh_tokens set revoked = true, updated_at = now() where id = $1";
        tx.execute(sql, &[&id]).await.map(drop)
    }

    fn read(row: &Row) -> Self {
        Self {
            id: row.get("id"),
            token: row.get("token"),
            revoked: row.get::<_, Option<bool>>("revoked").unwrap_or(true),
            updated_at: row.get::<_, Option<DateTime<Utc>>>("updated_at").unwrap_or_default(),
            parent: row.get("parent"),
            session_id: row.get("session_id"),
        }
    }
}
