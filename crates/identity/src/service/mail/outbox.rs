//! `longhouse.mail_outbox`: mail on its way, and for a while mail that left.

use std::time::Duration;

use chrono::{DateTime, Utc};
use longhouse_database::Error;
use serde_json::Value;
use tokio_postgres::Row;

use crate::service::store::Tx;

/// Most mails on a page.
const PAGE: i64 = 200;

/// A mail in the outbox.
#[derive(Debug, Clone)]
pub(crate) struct OutboxMail {
    pub(crate) id: i64,
    pub(crate) kind: String,
    pub(crate) recipient: String,
    pub(crate) variables: Value,
    pub(crate) created_at: DateTime<Utc>,
    /// How often it was tried, this time included.
    pub(crate) attempts: i32,
    pub(crate) sent_at: Option<DateTime<Utc>>,
    pub(crate) error: Option<String>,
}

const COLUMNS: &str = "id, kind, recipient, variables, created_at, attempts, sent_at, error";

/// How the outbox stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Standing {
    pub(crate) waiting: i64,
    pub(crate) given_up: i64,
}

impl OutboxMail {
    /// Takes mails that are due. They come again when `lease` is over, unless they were sent, so that those of a server
    /// that died are not lost.
    pub(crate) async fn claim(tx: &Tx, most: i64, lease: Duration) -> Result<Vec<Self>, Error> {
        let sql = const_format::concatcp!(
            "update longhouse.mail_outbox set attempts = attempts + 1, next_attempt_at = now() + make_interval(secs => $2)
             where id in (select id from longhouse.mail_outbox where sent_at is null and next_attempt_at <= now()
                order by next_attempt_at limit $1 for update skip locked)
             returning ",
            COLUMNS
        );
        Ok(tx.query(sql, &[&most, &lease.as_secs_f64()]).await?.iter().map(Self::read).collect())
    }

    /// Notes that it left. With `forget`, what was secret in it goes.
    pub(crate) async fn sent(tx: &Tx, id: i64, forget: bool) -> Result<(), Error> {
        let sql = "update longhouse.mail_outbox set sent_at = now(), error = null, variables = case when $2
                then variables - '{ConfirmationURL,Token,TokenHash}'::text[] else variables end
            where id = $1";
        tx.execute(sql, &[&id, &forget]).await.map(drop)
    }

    /// Notes why it did not leave, and when it is tried again.
    pub(crate) async fn failed(tx: &Tx, id: i64, error: &str, wait: Option<Duration>) -> Result<(), Error> {
        let sql = "update longhouse.mail_outbox set error = $2, next_attempt_at =
                coalesce(now() + make_interval(secs => $3), 'infinity')
            where id = $1";
        tx.execute(sql, &[&id, &error, &wait.map(|wait| wait.as_secs_f64())]).await.map(drop)
    }

    /// Deletes what is old.
    pub(crate) async fn prune(tx: &Tx, keep: Duration) -> Result<u64, Error> {
        let sql = "delete from longhouse.mail_outbox where id in (select id from longhouse.mail_outbox
            where created_at < now() - make_interval(secs => $1) limit 1000)";
        tx.execute(sql, &[&keep.as_secs_f64()]).await
    }

    pub(crate) async fn standing(tx: &Tx) -> Result<Standing, Error> {
        let sql = "select count(*) filter (where next_attempt_at < 'infinity') as waiting,
                count(*) filter (where next_attempt_at = 'infinity') as given_up
            from longhouse.mail_outbox where sent_at is null";
        let row = tx.query_opt(sql, &[]).await?;
        let count = |name: &str| row.as_ref().map_or(0, |row| row.get(name));
        Ok(Standing { waiting: count("waiting"), given_up: count("given_up") })
    }

    /// The newest mails, to one address if named.
    pub(crate) async fn newest(tx: &Tx, to: Option<&str>) -> Result<Vec<Self>, Error> {
        let sql = const_format::concatcp!(
            "select ",
            COLUMNS,
            " from longhouse.mail_outbox where $1::text is null or recipient = lower($1) order by id desc limit $2"
        );
        Ok(tx.query(sql, &[&to, &PAGE]).await?.iter().map(Self::read).collect())
    }

    /// By id.
    pub(crate) async fn find(tx: &Tx, id: i64) -> Result<Option<Self>, Error> {
        let sql = const_format::concatcp!("select ", COLUMNS, " from longhouse.mail_outbox where id = $1");
        Ok(tx.query_opt(sql, &[&id]).await?.as_ref().map(Self::read))
    }

    fn read(row: &Row) -> Self {
        Self {
            id: row.get("id"),
            kind: row.get("kind"),
            recipient: row.get("recipient"),
            variables: row.get("variables"),
            created_at: row.get("created_at"),
            attempts: row.get("attempts"),
            sent_at: row.get("sent_at"),
            error: row.get("error"),
        }
    }
}
