//! `auth.identities`: how an account signs in, one row per provider.

use chrono::{DateTime, Utc};
use longhouse_database::Error;
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};
use tokio_postgres::Row;
use uuid::Uuid;

use super::Tx;

/// An identity as clients see it.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) struct Identity {
    /// Id of the row.
    pub(crate) identity_id: Uuid,
    /// Id of the person at the provider (`provider_id`).
    pub(crate) id: String,
    pub(crate) user_id: Uuid,
    pub(crate) identity_data: Map<String, Value>,
    pub(crate) provider: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) last_sign_in_at: Option<DateTime<Utc>>,
    pub(crate) created_at: Option<DateTime<Utc>>,
    pub(crate) updated_at: Option<DateTime<Utc>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) email: Option<String>,
}

/// An identity to insert.
#[derive(Debug, Clone)]
pub(crate) struct NewIdentity {
    pub(crate) user_id: Uuid,
    /// `email`, `phone`, `google`, …
    pub(crate) provider: String,
    /// Id of the person at the provider: for `email` and `phone` the account's own id.
    pub(crate) provider_id: String,
    /// At least `sub`; `email`, `email_verified`, `phone_verified` where known.
    pub(crate) data: Map<String, Value>,
}

const COLUMNS: &str =
    "id, provider_id, user_id, identity_data, provider, last_sign_in_at, created_at, updated_at, email";

impl Identity {
    /// By provider and the person's id there.
    pub(crate) async fn find(tx: &Tx, provider: &str, provider_id: &str) -> Result<Option<Self>, Error> {
        let sql = const_format::concatcp!(
            "select ",
            COLUMNS,
            " from auth.identities where provider = $1 and provider_id = $2"
        );
        Ok(tx.query_opt(sql, &[&provider, &provider_id]).await?.as_ref().map(Self::read))
    }

    /// All identities with that e-mail address, of any account.
    pub(crate) async fn by_email(tx: &Tx, email: &str) -> Result<Vec<Self>, Error> {
        let sql = const_format::concatcp!(
            "select ",
            COLUMNS,
            " from auth.identities where email = lower($1) order by created_at, id"
        );
        Ok(tx.query(sql, &[&email]).await?.iter().map(Self::read).collect())
    }

    /// Inserts one, signed in now.
    ///
    /// # Errors
    /// SQLSTATE 23505 when another account has it.
    pub(crate) async fn insert(tx: &Tx, new: &NewIdentity) -> Result<Self, Error> {
        let sql = const_format::concatcp!(
            "insert into auth.identities (provider_id, user_id, identity_data, provider, last_sign_in_at, created_at, updated_at)
             values ($1, $2, $3, $4, now(), now(), now()) returning ",
            COLUMNS
        );
        let data = Value::Object(new.data.clone());
        let rows = tx.query(sql, &[&new.provider_id, &new.user_id, &data, &new.provider]).await?;
        Ok(Self::read(rows.first().expect("an insert returns its row")))
    }

    /// Replaces what the provider says about the person.
    pub(crate) async fn update_data(tx: &Tx, id: Uuid, data: &Map<String, Value>) -> Result<(), Error> {
        let sql = "update auth.identities set identity_data = $2, updated_at = now() where id = $1";
        tx.execute(sql, &[&id, &Value::Object(data.clone())]).await.map(drop)
    }

    /// Notes a sign-in through it.
    pub(crate) async fn signed_in(tx: &Tx, id: Uuid) -> Result<(), Error> {
        let sql = "update auth.identities set last_sign_in_at = now(), updated_at = now() where id = $1";
        tx.execute(sql, &[&id]).await.map(drop)
    }

    /// Deletes it.
    pub(crate) async fn delete(tx: &Tx, id: Uuid) -> Result<bool, Error> {
        Ok(tx.execute("delete from auth.identities where id = $1", &[&id]).await? > 0)
    }

    fn read(row: &Row) -> Self {
        Self {
            identity_id: row.get("id"),
            id: row.get("provider_id"),
            user_id: row.get("user_id"),
            identity_data: match row.get::<_, Value>("identity_data") {
                Value::Object(map) => map,
                _ => Map::new(),
            },
            provider: row.get("provider"),
            last_sign_in_at: row.get("last_sign_in_at"),
            created_at: row.get("created_at"),
            updated_at: row.get("updated_at"),
            email: row.get("email"),
        }
    }
}
