//! `auth.webauthn_credentials` and the ceremonies with them in `auth.webauthn_challenges`.

use chrono::{DateTime, Utc};
use longhouse_database::Error;
use serde::Serialize;
use serde_json::Value;
use tokio_postgres::Row;
use tokio_postgres::types::ToSql;
use uuid::Uuid;

use super::Tx;

/// A passkey. Serialised as clients see it.
#[derive(Debug, Clone, Serialize)]
pub(crate) struct Passkey {
    pub(crate) id: Uuid,
    #[serde(skip)]
    pub(crate) user_id: Uuid,
    #[serde(skip)]
    pub(crate) credential_id: Vec<u8>,
    /// COSE key (RFC 9052) as CBOR.
    #[serde(skip)]
    pub(crate) public_key: Vec<u8>,
    #[serde(skip)]
    pub(crate) sign_count: i64,
    #[serde(skip)]
    pub(crate) transports: Vec<String>,
    #[serde(skip)]
    pub(crate) backup_eligible: bool,
    #[serde(skip)]
    pub(crate) backed_up: bool,
    #[serde(skip_serializing_if = "String::is_empty")]
    pub(crate) friendly_name: String,
    pub(crate) created_at: DateTime<Utc>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) last_used_at: Option<DateTime<Utc>>,
}

/// A passkey to insert.
#[derive(Debug, Clone)]
pub(crate) struct NewPasskey<'a> {
    pub(crate) user_id: Uuid,
    pub(crate) credential_id: &'a [u8],
    pub(crate) public_key: &'a [u8],
    pub(crate) aaguid: Option<Uuid>,
    pub(crate) sign_count: i64,
    pub(crate) transports: &'a [String],
    pub(crate) backup_eligible: bool,
    pub(crate) backed_up: bool,
    pub(crate) friendly_name: &'a str,
}

const COLUMNS: &str =
    "id, user_id, credential_id, public_key, sign_count, transports, backup_eligible, backed_up,
    friendly_name, created_at, last_used_at";

impl Passkey {
    /// Inserts one.
    ///
    /// # Errors
    /// SQLSTATE 23505 when it is registered already.
    pub(crate) async fn insert(tx: &Tx, new: &NewPasskey<'_>) -> Result<Self, Error> {
        let sql = const_format::concatcp!(
            "insert into auth.webauthn_credentials (user_id, credential_id, public_key, attestation_type, aaguid,
                sign_count, transports, backup_eligible, backed_up, friendly_name)
             values ($1, $2, $3, 'none', $4, $5, to_jsonb($6::text[]), $7, $8, $9) returning ",
            COLUMNS
        );
        let params: [&(dyn ToSql + Sync); 9] = [
            &new.user_id,
            &new.credential_id,
            &new.public_key,
            &new.aaguid,
            &new.sign_count,
            &new.transports,
            &new.backup_eligible,
            &new.backed_up,
            &new.friendly_name,
        ];
        let rows = tx.query(sql, &params).await?;
        Ok(Self::read(rows.first().expect("an insert returns its row")))
    }

    /// All of an account, oldest first.
    pub(crate) async fn of_user(tx: &Tx, user: Uuid) -> Result<Vec<Self>, Error> {
        let sql = const_format::concatcp!(
            "select ",
            COLUMNS,
            " from auth.webauthn_credentials where user_id = $1 order by created_at, id"
        );
        Ok(tx.query(sql, &[&user]).await?.iter().map(Self::read).collect())
    }

    /// By the authenticator's own id, locked: its counter may not go back.
    pub(crate) async fn lock_by_credential(tx: &Tx, credential: &[u8]) -> Result<Option<Self>, Error> {
        let sql = const_format::concatcp!(
            "select ",
            COLUMNS,
            " from auth.webauthn_credentials where credential_id = $1 for update"
        );
        Ok(tx.query_opt(sql, &[&credential]).await?.as_ref().map(Self::read))
    }

    /// Notes a sign-in with it.
    pub(crate) async fn used(tx: &Tx, id: Uuid, sign_count: i64, backed_up: bool) -> Result<(), Error> {
        let sql =
            "update auth.webauthn_credentials set sign_count = $2, backed_up = $3, last_used_at = now(),
            updated_at = now() where id = $1";
        tx.execute(sql, &[&id, &sign_count, &backed_up]).await.map(drop)
    }

    /// Gives it a name. `None` when the account has no such passkey.
    pub(crate) async fn rename(tx: &Tx, user: Uuid, id: Uuid, name: &str) -> Result<Option<Self>, Error> {
        let sql = const_format::concatcp!(
            "update auth.webauthn_credentials set friendly_name = $3, updated_at = now()
             where id = $2 and user_id = $1 returning ",
            COLUMNS
        );
        Ok(tx.query_opt(sql, &[&user, &id, &name]).await?.as_ref().map(Self::read))
    }

    /// Deletes it. False when the account has no such passkey.
    pub(crate) async fn delete(tx: &Tx, user: Uuid, id: Uuid) -> Result<bool, Error> {
        let sql = "delete from auth.webauthn_credentials where id = $2 and user_id = $1";
        Ok(tx.execute(sql, &[&user, &id]).await? > 0)
    }

    /// Deletes all of an account.
    pub(crate) async fn delete_of_user(tx: &Tx, user: Uuid) -> Result<(), Error> {
        tx.execute("delete from auth.webauthn_credentials where user_id = $1", &[&user]).await.map(drop)
    }

    fn read(row: &Row) -> Self {
        Self {
            id: row.get("id"),
            user_id: row.get("user_id"),
            credential_id: row.get("credential_id"),
            public_key: row.get("public_key"),
            sign_count: row.get("sign_count"),
            transports: serde_json::from_value(row.get("transports")).unwrap_or_default(),
            backup_eligible: row.get("backup_eligible"),
            backed_up: row.get("backed_up"),
            friendly_name: row.get("friendly_name"),
            created_at: row.get("created_at"),
            last_used_at: row.get("last_used_at"),
        }
    }
}

/// What a ceremony is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum CeremonyKind {
    Registration,
    Authentication,
}

impl CeremonyKind {
    fn name(self) -> &'static str {
        match self {
            Self::Registration => "registration",
            Self::Authentication => "authentication",
        }
    }
}

/// A ceremony under way.
#[derive(Debug, Clone)]
pub(crate) struct Ceremony {
    pub(crate) state: Value,
    pub(crate) expires_at: DateTime<Utc>,
}

impl Ceremony {
    /// Begins one. Those that have expired are forgotten.
    pub(crate) async fn insert(
        &self,
        tx: &Tx,
        kind: CeremonyKind,
        user: Option<Uuid>,
    ) -> Result<Uuid, Error> {
        // A few at a time: a visitor's request shall not pay for a day's crowd.
        let old = "delete from auth.webauthn_challenges where id in
            (select id from auth.webauthn_challenges where expires_at < now() limit 20 for update skip locked)";
        tx.execute(old, &[]).await?;
        let sql = "insert into auth.webauthn_challenges (user_id, challenge_type, session_data, expires_at)
            values ($1, $2, $3, $4) returning id";
        let rows = tx.query(sql, &[&user, &kind.name(), &self.state, &self.expires_at]).await?;
        Ok(rows.first().expect("an insert returns its row").get(0))
    }

    /// Takes one away: nobody else can finish it.
    pub(crate) async fn take(
        tx: &Tx,
        id: Uuid,
        kind: CeremonyKind,
        user: Option<Uuid>,
    ) -> Result<Option<Self>, Error> {
        let sql = "delete from auth.webauthn_challenges
            where id = $1 and challenge_type = $2 and user_id is not distinct from $3
            returning session_data, expires_at";
        let row = tx.query_opt(sql, &[&id, &kind.name(), &user]).await?;
        Ok(row.map(|row| Self { state: row.get("session_data"), expires_at: row.get("expires_at") }))
    }
}
