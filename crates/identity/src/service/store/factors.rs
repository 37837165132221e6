//! `auth.mfa_factors`, as far as accounts and tokens know them; ceremonies are in `mfa`.

use chrono::{DateTime, Utc};
use longhouse_database::Error;
use serde::{Deserialize, Serialize};
use serde_json::Value;
use tokio_postgres::Row;
use tokio_postgres::types::ToSql;
use uuid::Uuid;

use super::Tx;

/// A second factor as clients see it.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) struct Factor {
    pub(crate) id: Uuid,
    pub(crate) created_at: DateTime<Utc>,
    pub(crate) updated_at: DateTime<Utc>,
    pub(crate) status: FactorStatus,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) friendly_name: Option<String>,
    pub(crate) factor_type: FactorType,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) phone: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) last_challenged_at: Option<DateTime<Utc>>,
}

/// Whether its holder has proved to have it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub(crate) enum FactorStatus {
    Unverified,
    Verified,
}

/// What it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub(crate) enum FactorType {
    Totp,
    Phone,
    Webauthn,
}

impl Factor {
    pub(crate) fn is_verified(&self) -> bool {
        self.status == FactorStatus::Verified
    }
}

impl FactorType {
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Totp => "totp",
            Self::Phone => "phone",
            Self::Webauthn => "webauthn",
        }
    }

    /// The method that `amr` names after it was proved.
    pub(crate) fn method(self) -> &'static str {
        match self {
            Self::Totp => "totp",
            Self::Phone => "mfa/phone",
            Self::Webauthn => "mfa/webauthn",
        }
    }

    fn of(name: &str) -> Self {
        match name {
            "totp" => Self::Totp,
            "phone" => Self::Phone,
            _ => Self::Webauthn,
        }
    }
}

/// A factor with what only the server knows.
#[derive(Debug, Clone)]
pub(crate) struct StoredFactor {
    pub(crate) factor: Factor,
    pub(crate) user_id: Uuid,
    /// Of an authenticator app, in base 32.
    pub(crate) secret: Option<String>,
    /// Of a security key, as Supabase Auth stores it.
    pub(crate) credential: Option<Value>,
}

/// A factor to insert, not verified yet.
#[derive(Debug, Clone)]
pub(crate) struct NewFactor<'a> {
    pub(crate) user_id: Uuid,
    pub(crate) factor_type: FactorType,
    pub(crate) friendly_name: &'a str,
    pub(crate) secret: Option<&'a str>,
    pub(crate) phone: Option<&'a str>,
}

const COLUMNS: &str = "id, user_id, friendly_name, factor_type::text as factor_type, status::text as status,
    created_at, updated_at, secret, phone, last_challenged_at, web_authn_credential";

impl StoredFactor {
    /// By id, if it is that account's; locked until the transaction ends.
    pub(crate) async fn lock(tx: &Tx, user: Uuid, id: Uuid) -> Result<Option<Self>, Error> {
        let sql = const_format::concatcp!(
            "select ",
            COLUMNS,
            " from auth.mfa_factors where id = $2 and user_id = $1 for update"
        );
        Ok(tx.query_opt(sql, &[&user, &id]).await?.as_ref().map(Self::read))
    }

    /// All of an account, oldest first.
    pub(crate) async fn of_user(tx: &Tx, user: Uuid) -> Result<Vec<Self>, Error> {
        let sql = const_format::concatcp!(
            "select ",
            COLUMNS,
            " from auth.mfa_factors where user_id = $1 order by created_at, id"
        );
        Ok(tx.query(sql, &[&user]).await?.iter().map(Self::read).collect())
    }

    /// Inserts one.
    ///
    /// # Errors
    /// SQLSTATE 23505 when the account has one with that name or number.
    pub(crate) async fn insert(tx: &Tx, new: &NewFactor<'_>) -> Result<Self, Error> {
        let sql = const_format::concatcp!(
            "insert into auth.mfa_factors (id, user_id, friendly_name, factor_type, status, created_at, updated_at,
                secret, phone)
             values (gen_random_uuid(), $1, $2, $3::text::auth.factor_type, 'unverified', clock_timestamp(), now(), $4,
                $5) returning ",
            COLUMNS
        );
        let params: [&(dyn ToSql + Sync); 5] =
            [&new.user_id, &new.friendly_name, &new.factor_type.name(), &new.secret, &new.phone];
        let rows = tx.query(sql, &params).await?;
        Ok(Self::read(rows.first().expect("an insert returns its row")))
    }

    /// Notes that its holder has proved to have it; a security key brings its credential.
    pub(crate) async fn verified(
        tx: &Tx,
        id: Uuid,
        credential: Option<&Value>,
        aaguid: Option<Uuid>,
    ) -> Result<(), Error> {
        let sql = "update auth.mfa_factors set status = 'verified', updated_at = now(),
            web_authn_credential = coalesce($2, web_authn_credential),
            web_authn_aaguid = coalesce($3, web_authn_aaguid) where id = $1";
        tx.execute(sql, &[&id, &credential, &aaguid]).await.map(drop)
    }

    /// Changes name or number; `None` leaves one alone.
    pub(crate) async fn change(
        tx: &Tx,
        id: Uuid,
        friendly_name: Option<&str>,
        phone: Option<&str>,
    ) -> Result<(), Error> {
        let sql = "update auth.mfa_factors set friendly_name = coalesce($2, friendly_name),
            phone = coalesce($3, phone), updated_at = now() where id = $1";
        tx.execute(sql, &[&id, &friendly_name, &phone]).await.map(drop)
    }

    /// Deletes it.
    pub(crate) async fn delete(tx: &Tx, id: Uuid) -> Result<(), Error> {
        tx.execute("delete from auth.mfa_factors where id = $1", &[&id]).await.map(drop)
    }

    /// Deletes all of an account.
    pub(crate) async fn delete_of_user(tx: &Tx, user: Uuid) -> Result<(), Error> {
        tx.execute("delete from auth.mfa_factors where user_id = $1", &[&user]).await.map(drop)
    }

    /// Deletes those of an account and kind that were never verified.
    pub(crate) async fn delete_unverified(tx: &Tx, user: Uuid, kind: FactorType) -> Result<(), Error> {
        let sql = "delete from auth.mfa_factors where user_id = $1 and status = 'unverified'
            and factor_type = $2::text::auth.factor_type";
        tx.execute(sql, &[&user, &kind.name()]).await.map(drop)
    }

    /// Deletes those of an account that somebody began to enrol before `before` and gave up.
    pub(crate) async fn delete_abandoned(tx: &Tx, user: Uuid, before: DateTime<Utc>) -> Result<(), Error> {
        let sql =
            "delete from auth.mfa_factors f where user_id = $1 and status = 'unverified' and created_at < $2
            and not exists (select from auth.mfa_challenges c where c.factor_id = f.id)";
        tx.execute(sql, &[&user, &before]).await.map(drop)
    }

    fn read(row: &Row) -> Self {
        let factor = Factor {
            id: row.get("id"),
            created_at: row.get("created_at"),
            updated_at: row.get("updated_at"),
            status: match row.get("status") {
                "verified" => FactorStatus::Verified,
                _ => FactorStatus::Unverified,
            },
            friendly_name: row.get("friendly_name"),
            factor_type: FactorType::of(row.get("factor_type")),
            phone: row.get("phone"),
            last_challenged_at: row.get("last_challenged_at"),
        };
        Self {
            factor,
            user_id: row.get("user_id"),
            secret: row.get("secret"),
            credential: row.get("web_authn_credential"),
        }
    }
}
