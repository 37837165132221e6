//! `auth.mfa_challenges`: questions put to the holder of a second factor.

use std::net::IpAddr;

use chrono::{DateTime, Utc};
use longhouse_database::Error;
use serde_json::Value;
use tokio_postgres::Row;
use uuid::Uuid;

use super::Tx;

/// A question that waits for its answer.
#[derive(Debug, Clone)]
pub(crate) struct Challenge {
    pub(crate) id: Uuid,
    pub(crate) created_at: DateTime<Utc>,
    pub(crate) verified_at: Option<DateTime<Utc>>,
    pub(crate) ip: IpAddr,
    /// Of a text message: the code's hash. Of an app's code that was accepted: its time step.
    pub(crate) otp_code: Option<String>,
    /// State of a WebAuthn ceremony.
    pub(crate) ceremony: Option<Value>,
}

const COLUMNS: &str = "id, created_at, verified_at, ip_address, otp_code, web_authn_session_data";

impl Challenge {
    /// Asks, and notes in the factor when. Old questions about it are forgotten.
    pub(crate) async fn insert(
        tx: &Tx,
        factor: Uuid,
        ip: IpAddr,
        otp_code: Option<&str>,
        ceremony: Option<&Value>,
    ) -> Result<Self, Error> {
        // Not sooner: accepted ones tell which codes were used.
        let old =
            "delete from auth.mfa_challenges where factor_id = $1 and created_at < now() - interval '1 day'";
        tx.execute(old, &[&factor]).await?;
        let sql = const_format::concatcp!(
            "insert into auth.mfa_challenges (id, factor_id, created_at, ip_address, otp_code, web_authn_session_data)
             values (gen_random_uuid(), $1, clock_timestamp(), $2, $3, $4) returning ",
            COLUMNS
        );
        let rows = tx.query(sql, &[&factor, &ip, &otp_code, &ceremony]).await?;
        let challenged = "update auth.mfa_factors set last_challenged_at = clock_timestamp() where id = $1";
        tx.execute(challenged, &[&factor]).await?;
        Ok(Self::read(rows.first().expect("an insert returns its row")))
    }

    /// By id, if it is about that factor; locked, so that of two answers at once one comes second.
    pub(crate) async fn lock(tx: &Tx, factor: Uuid, id: Uuid) -> Result<Option<Self>, Error> {
        let sql = const_format::concatcp!(
            "select ",
            COLUMNS,
            " from auth.mfa_challenges where id = $2 and factor_id = $1 for update"
        );
        Ok(tx.query_opt(sql, &[&factor, &id]).await?.as_ref().map(Self::read))
    }

    /// The time step of the newest code of an app that was accepted for a factor.
    pub(crate) async fn last_step(tx: &Tx, factor: Uuid) -> Result<Option<i64>, Error> {
        let sql = "select max(otp_code::bigint) from auth.mfa_challenges
            where factor_id = $1 and verified_at is not null and otp_code ~ '^[0-9]{1,12}$'";
        Ok(tx.query_opt(sql, &[&factor]).await?.and_then(|row| row.get(0)))
    }

    /// Notes that it was answered; `otp_code` replaces what was stored.
    pub(crate) async fn verified(tx: &Tx, id: Uuid, otp_code: Option<&str>) -> Result<(), Error> {
        let sql =
            "update auth.mfa_challenges set verified_at = clock_timestamp(), otp_code = $2 where id = $1";
        tx.execute(sql, &[&id, &otp_code]).await.map(drop)
    }

    /// Forgets it.
    pub(crate) async fn delete(tx: &Tx, id: Uuid) -> Result<(), Error> {
        tx.execute("delete from auth.mfa_challenges where id = $1", &[&id]).await.map(drop)
    }

    fn read(row: &Row) -> Self {
        Self {
            id: row.get("id"),
            created_at: row.get("created_at"),
            verified_at: row.get("verified_at"),
            ip: row.get("ip_address"),
            otp_code: row.get("otp_code"),
            ceremony: row.get("web_authn_session_data"),
        }
    }
}
