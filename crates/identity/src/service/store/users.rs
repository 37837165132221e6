//! `auth.users`.

use chrono::{DateTime, Utc};
use longhouse_database::Error;
use serde::Serialize;
use serde_json::{Map, Value};
use tokio_postgres::Row;
use tokio_postgres::types::ToSql;
use uuid::Uuid;

use super::{Factor, Identity, Tx};

/// An account, with what it can sign in with. Serialised as clients see it: secrets never are.
#[derive(Debug, Clone, Serialize)]
pub(crate) struct User {
    pub(crate) id: Uuid,
    pub(crate) aud: String,
    pub(crate) role: String,
    pub(crate) email: String,
    #[serde(skip)]
    pub(crate) is_sso_user: bool,
    #[serde(skip)]
    pub(crate) encrypted_password: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) email_confirmed_at: Option<DateTime<Utc>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) invited_at: Option<DateTime<Utc>>,
    pub(crate) phone: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) phone_confirmed_at: Option<DateTime<Utc>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) confirmation_sent_at: Option<DateTime<Utc>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) confirmed_at: Option<DateTime<Utc>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) recovery_sent_at: Option<DateTime<Utc>>,
    #[serde(rename = "new_email", skip_serializing_if = "String::is_empty")]
    pub(crate) email_change: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) email_change_sent_at: Option<DateTime<Utc>>,
    /// 0: nothing confirmed, 1: one of two addresses.
    #[serde(skip)]
    pub(crate) email_change_confirm_status: i16,
    #[serde(rename = "new_phone", skip_serializing_if = "String::is_empty")]
    pub(crate) phone_change: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) phone_change_sent_at: Option<DateTime<Utc>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) reauthentication_sent_at: Option<DateTime<Utc>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) last_sign_in_at: Option<DateTime<Utc>>,
    pub(crate) app_metadata: Map<String, Value>,
    pub(crate) user_metadata: Map<String, Value>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub(crate) factors: Vec<Factor>,
    pub(crate) identities: Vec<Identity>,
    pub(crate) created_at: DateTime<Utc>,
    pub(crate) updated_at: DateTime<Utc>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) banned_until: Option<DateTime<Utc>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) deleted_at: Option<DateTime<Utc>>,
    pub(crate) is_anonymous: bool,
}

/// Every column that [`User`] holds, identities and factors as JSON, for `from auth.users u`.
pub(super) const COLUMNS: &str = "u.id, u.aud, u.role, u.email, u.is_sso_user, u.encrypted_password, u.email_confirmed_at,
    u.invited_at, u.phone, u.phone_confirmed_at, u.confirmation_sent_at, u.confirmed_at, u.recovery_sent_at,
    u.email_change, u.email_change_sent_at, u.email_change_confirm_status, u.phone_change, u.phone_change_sent_at,
    u.reauthentication_sent_at, u.last_sign_in_at, u.raw_app_meta_data, u.raw_user_meta_data, u.created_at,
    u.updated_at, u.banned_until, u.deleted_at, u.is_anonymous,
    (select json_agg(json_build_object('identity_id', i.id, 'id', i.provider_id, 'user_id', i.user_id,
        'identity_data', i.identity_data, 'provider', i.provider, 'last_sign_in_at', i.last_sign_in_at,
        'created_at', i.created_at, 'updated_at', i.updated_at, 'email', i.email) order by i.created_at, i.id)
      from auth.identities i where i.user_id = u.id) as identities,
    (select json_agg(json_build_object('id', f.id, 'created_at', f.created_at, 'updated_at', f.updated_at,
        'status', f.status, 'friendly_name', f.friendly_name, 'factor_type', f.factor_type, 'phone', f.phone,
        'last_challenged_at', f.last_challenged_at) order by f.created_at, f.id)
      from auth.mfa_factors f where f.user_id = u.id) as factors";

/// A row to insert. Everything unnamed is null or empty, as the columns' readers expect.
#[derive(Debug, Clone, Default)]
pub(crate) struct NewUser {
    /// Unset: a random one.
    pub(crate) id: Option<Uuid>,
    pub(crate) role: String,
    /// In lower case; empty for none.
    pub(crate) email: String,
    /// Digits without `+`; empty for none.
    pub(crate) phone: String,
    pub(crate) encrypted_password: Option<String>,
    pub(crate) app_metadata: Map<String, Value>,
    pub(crate) user_metadata: Map<String, Value>,
    pub(crate) is_anonymous: bool,
}

/// Columns to set; `None` leaves one alone. `Some(None)` clears it.
#[derive(Debug, Clone, Default)]
pub(crate) struct UserChange {
    pub(crate) role: Option<String>,
    pub(crate) email: Option<String>,
    pub(crate) phone: Option<String>,
    pub(crate) encrypted_password: Option<String>,
    pub(crate) email_confirmed_at: Option<Option<DateTime<Utc>>>,
    pub(crate) phone_confirmed_at: Option<Option<DateTime<Utc>>>,
    pub(crate) invited_at: Option<Option<DateTime<Utc>>>,
    pub(crate) confirmation_sent_at: Option<Option<DateTime<Utc>>>,
    pub(crate) recovery_sent_at: Option<Option<DateTime<Utc>>>,
    pub(crate) email_change: Option<String>,
    pub(crate) email_change_sent_at: Option<Option<DateTime<Utc>>>,
    pub(crate) email_change_confirm_status: Option<i16>,
    pub(crate) phone_change: Option<String>,
    pub(crate) phone_change_sent_at: Option<Option<DateTime<Utc>>>,
    pub(crate) reauthentication_sent_at: Option<Option<DateTime<Utc>>>,
    pub(crate) last_sign_in_at: Option<Option<DateTime<Utc>>>,
    pub(crate) app_metadata: Option<Map<String, Value>>,
    pub(crate) user_metadata: Option<Map<String, Value>>,
    pub(crate) banned_until: Option<Option<DateTime<Utc>>>,
    pub(crate) deleted_at: Option<Option<DateTime<Utc>>>,
    pub(crate) is_anonymous: Option<bool>,
}

impl User {
    /// By id.
    pub(crate) async fn find(tx: &Tx, id: Uuid) -> Result<Option<Self>, Error> {
        let sql = const_format::concatcp!("select ", COLUMNS, " from auth.users u where u.id = $1");
        Self::one(tx, sql, &[&id]).await
    }

    /// By id, locked until the transaction ends.
    ///
    /// Reads only once it has the lock: a statement that waits for a lock still sees the identities and factors of
    /// before it waited.
    pub(crate) async fn lock(tx: &Tx, id: Uuid) -> Result<Option<Self>, Error> {
        let sql = "select id from auth.users where id = $1 for update";
        match tx.query_opt(sql, &[&id]).await? {
            Some(_) => Self::find(tx, id).await,
            None => Ok(None),
        }
    }

    /// By e-mail address, in whatever case it is written; accounts of SSO do not count.
    pub(crate) async fn by_email(tx: &Tx, email: &str) -> Result<Option<Self>, Error> {
        let sql = const_format::concatcp!(
            "select ",
            COLUMNS,
            " from auth.users u where u.email = lower($1) and not u.is_sso_user"
        );
        Self::one(tx, sql, &[&email]).await
    }

    /// By telephone number (digits only).
    pub(crate) async fn by_phone(tx: &Tx, phone: &str) -> Result<Option<Self>, Error> {
        let sql = const_format::concatcp!("select ", COLUMNS, " from auth.users u where u.phone = $1");
        Self::one(tx, sql, &[&phone]).await
    }

    /// A page of accounts, newest first, and how many there are.
    pub(crate) async fn page(tx: &Tx, limit: i64, offset: i64) -> Result<(Vec<Self>, i64), Error> {
        let sql = const_format::concatcp!(
            "select ",
            COLUMNS,
            " from auth.users u order by u.created_at desc, u.id limit $1 offset $2"
        );
        let rows = tx.query(sql, &[&limit, &offset]).await?;
        let total = tx.query("select count(*) from auth.users", &[]).await?;
        Ok((rows.iter().map(Self::read).collect(), total.first().map_or(0, |row| row.get(0))))
    }

    /// As [`Self::page`], of those whose address or full name holds the text; perhaps oldest first.
    pub(crate) async fn search(
        tx: &Tx,
        text: &str,
        oldest_first: bool,
        limit: i64,
        offset: i64,
    ) -> Result<(Vec<Self>, i64), Error> {
        if text.is_empty() && !oldest_first {
            return Self::page(tx, limit, offset).await;
        }
        const MATCHES: &str = " from auth.users u where $1 = ''
            or position(lower($1) in lower(u.email)) > 0
            or position(lower($1) in lower(u.raw_user_meta_data ->> 'full_name')) > 0";
        let sql = const_format::concatcp!(
            "select ",
            COLUMNS,
            MATCHES,
            " order by case when $2 then u.created_at end, case when not $2 then u.created_at end desc, u.id
              limit $3 offset $4"
        );
        let rows = tx.query(sql, &[&text, &oldest_first, &limit, &offset]).await?;
        let count = const_format::concatcp!("select count(*)", MATCHES);
        let total = tx.query(count, &[&text]).await?;
        Ok((rows.iter().map(Self::read).collect(), total.first().map_or(0, |row| row.get(0))))
    }

    /// Takes out of an account whatever names a person; its id stays, for what refers to it.
    pub(crate) async fn soft_delete(tx: &Tx, user: &Self) -> Result<(), Error> {
        // As Supabase Auth does: hashes of id and name, so that the names are free and nobody can be recognised.
        const USER: &str = "update auth.users set
            email = case when email <> '' then translate(rtrim(encode(sha256(convert_to(id::text || email, 'utf8')),
              'base64'), '='), '+/', '-_') else email end,
            phone = case when phone <> '' then left(translate(encode(sha256(convert_to(id::text || phone, 'utf8')),
              'base64'), '+/', '-_'), 15) else phone end,
            email_change = '', phone_change = '', encrypted_password = '', confirmation_token = '', recovery_token = '',
            email_change_token_current = '', email_change_token_new = '', phone_change_token = '',
            reauthentication_token = '', raw_user_meta_data = '{}', raw_app_meta_data = '{}', deleted_at = now(),
            updated_at = now() where id = $1";
        const IDENTITIES: &str = "update auth.identities set identity_data = '{}', updated_at = now(),
            provider_id = translate(rtrim(encode(sha256(convert_to(user_id::text || provider || ':' || provider_id,
              'utf8')), 'base64'), '='), '+/', '-_') where user_id = $1";
        tx.execute(USER, &[&user.id]).await?;
        tx.execute(IDENTITIES, &[&user.id]).await.map(drop)
    }

    /// Inserts an account.
    ///
    /// # Errors
    /// SQLSTATE 23505 when the address, number or id is taken.
    pub(crate) async fn insert(tx: &Tx, new: &NewUser) -> Result<Self, Error> {
        let sql = "insert into auth.users (instance_id, id, aud, role, email, phone, encrypted_password,
                raw_app_meta_data, raw_user_meta_data, is_anonymous, created_at, updated_at, confirmation_token,
                recovery_token, email_change_token_new, email_change_token_current, email_change,
                reauthentication_token, phone_change, phone_change_token)
            values ('00000000-0000-0000-0000-000000000000', $1, 'authenticated', $2, nullif($3, ''), nullif($4, ''),
                coalesce($5, ''), $6, $7, $8, now(), now(), '', '', '', '', '', '', '', '')";
        let id = new.id.unwrap_or_else(Uuid::new_v4);
        let (app, user) = (Value::Object(new.app_metadata.clone()), Value::Object(new.user_metadata.clone()));
        let params: [&(dyn ToSql + Sync); 8] =
            [&id, &new.role, &new.email, &new.phone, &new.encrypted_password, &app, &user, &new.is_anonymous];
        tx.execute(sql, &params).await?;
        Ok(Self::find(tx, id).await?.expect("a row that was just inserted is there"))
    }

    /// Changes columns and returns the account as it is then. `None` when it is gone.
    ///
    /// # Errors
    /// SQLSTATE 23505 when the new address or number is taken.
    pub(crate) async fn change(tx: &Tx, id: Uuid, change: &UserChange) -> Result<Option<Self>, Error> {
        let json = |map: &Option<Map<String, Value>>| map.clone().map(Value::Object);
        let (app, user) = (json(&change.app_metadata), json(&change.user_metadata));
        // A flag says whether a column is set, its value what to; unset ones keep theirs.
        let sql = "update auth.users set updated_at = now(),
                role = coalesce($2, role),
                email = case when $3::text is null then email else nullif(lower($3), '') end,
                phone = case when $4::text is null then phone else nullif($4, '') end,
                encrypted_password = coalesce($5, encrypted_password),
                email_confirmed_at = case when $6 then $7::timestamptz else email_confirmed_at end,
                phone_confirmed_at = case when $8 then $9::timestamptz else phone_confirmed_at end,
                invited_at = case when $10 then $11::timestamptz else invited_at end,
                confirmation_sent_at = case when $12 then $13::timestamptz else confirmation_sent_at end,
                recovery_sent_at = case when $14 then $15::timestamptz else recovery_sent_at end,
                email_change = coalesce($16, email_change),
                email_change_sent_at = case when $17 then $18::timestamptz else email_change_sent_at end,
                email_change_confirm_status = coalesce($19::smallint, email_change_confirm_status),
                phone_change = coalesce($20, phone_change),
                phone_change_sent_at = case when $21 then $22::timestamptz else phone_change_sent_at end,
                reauthentication_sent_at = case when $23 then $24::timestamptz else reauthentication_sent_at end,
                last_sign_in_at = case when $25 then $26::timestamptz else last_sign_in_at end,
                raw_app_meta_data = coalesce($27::jsonb, raw_app_meta_data),
                raw_user_meta_data = coalesce($28::jsonb, raw_user_meta_data),
                banned_until = case when $29 then $30::timestamptz else banned_until end,
                deleted_at = case when $31 then $32::timestamptz else deleted_at end,
                is_anonymous = coalesce($33::boolean, is_anonymous)
            where id = $1";
        let set = |time: &Option<Option<DateTime<Utc>>>| (time.is_some(), time.flatten());
        let (email_confirmed, email_confirmed_at) = set(&change.email_confirmed_at);
        let (phone_confirmed, phone_confirmed_at) = set(&change.phone_confirmed_at);
        let (invited, invited_at) = set(&change.invited_at);
        let (confirmation, confirmation_at) = set(&change.confirmation_sent_at);
        let (recovery, recovery_at) = set(&change.recovery_sent_at);
        let (email_change, email_change_at) = set(&change.email_change_sent_at);
        let (phone_change, phone_change_at) = set(&change.phone_change_sent_at);
        let (reauthentication, reauthentication_at) = set(&change.reauthentication_sent_at);
        let (signed_in, signed_in_at) = set(&change.last_sign_in_at);
        let (banned, banned_until) = set(&change.banned_until);
        let (deleted, deleted_at) = set(&change.deleted_at);
        let params: [&(dyn ToSql + Sync); 33] = [
            &id,
            &change.role,
            &change.email,
            &change.phone,
            &change.encrypted_password,
            &email_confirmed,
            &email_confirmed_at,
            &phone_confirmed,
            &phone_confirmed_at,
            &invited,
            &invited_at,
            &confirmation,
            &confirmation_at,
            &recovery,
            &recovery_at,
            &change.email_change,
            &email_change,
            &email_change_at,
            &change.email_change_confirm_status,
            &change.phone_change,
            &phone_change,
            &phone_change_at,
            &reauthentication,
            &reauthentication_at,
            &signed_in,
            &signed_in_at,
            &app,
            &user,
            &banned,
            &banned_until,
            &deleted,
            &deleted_at,
            &change.is_anonymous,
        ];
        if tx.execute(sql, &params).await? == 0 {
            return Ok(None);
        }
        Self::find(tx, id).await
    }

    /// Deletes an account with everything that hangs on it. False when there is none.
    pub(crate) async fn delete(tx: &Tx, id: Uuid) -> Result<bool, Error> {
        // Refresh tokens of before sessions existed hang on nothing.
        tx.execute("delete from auth.refresh_tokens where user_id = $1::uuid::text", &[&id]).await?;
        Ok(tx.execute("delete from auth.users where id = $1", &[&id]).await? > 0)
    }

    /// Whether the account may not sign in at that time.
    pub(crate) fn is_banned(&self, now: DateTime<Utc>) -> bool {
        self.banned_until.is_some_and(|until| now < until)
    }

    /// Whether a password is set.
    pub(crate) fn has_password(&self) -> bool {
        self.encrypted_password.as_deref().is_some_and(|hash| !hash.is_empty())
    }

    /// Whether a verified second factor exists, so that sessions can reach `aal2`.
    pub(crate) fn has_mfa(&self) -> bool {
        self.factors.iter().any(Factor::is_verified)
    }

    /// The accounts that wait for this number to be confirmed as their new one, the latest first.
    pub(crate) async fn by_phone_change(tx: &Tx, phone: &str) -> Result<Vec<Self>, Error> {
        let sql = const_format::concatcp!(
            "select ",
            COLUMNS,
            " from auth.users u where u.phone_change = $1 and u.phone_change <> ''
              order by u.phone_change_sent_at desc nulls last limit 10"
        );
        Ok(tx.query(sql, &[&phone]).await?.iter().map(Self::read).collect())
    }

    /// An account with nothing but an id, for decisions under test.
    #[cfg(test)]
    pub(crate) fn blank(id: Uuid, user_metadata: Map<String, Value>) -> Self {
        Self {
            id,
            aud: "authenticated".into(),
            role: "authenticated".into(),
            email: String::new(),
            is_sso_user: false,
            encrypted_password: None,
            email_confirmed_at: None,
            invited_at: None,
            phone: String::new(),
            phone_confirmed_at: None,
            confirmation_sent_at: None,
            confirmed_at: None,
            recovery_sent_at: None,
            email_change: String::new(),
            email_change_sent_at: None,
            email_change_confirm_status: 0,
            phone_change: String::new(),
            phone_change_sent_at: None,
            reauthentication_sent_at: None,
            last_sign_in_at: None,
            app_metadata: Map::new(),
            user_metadata,
            factors: Vec::new(),
            identities: Vec::new(),
            created_at: DateTime::default(),
            updated_at: DateTime::default(),
            banned_until: None,
            deleted_at: None,
            is_anonymous: false,
        }
    }

    async fn one(tx: &Tx, sql: &str, params: &[&(dyn ToSql + Sync)]) -> Result<Option<Self>, Error> {
        Ok(tx.query_opt(sql, params).await?.as_ref().map(Self::read))
    }

    /// Reads a row of [`COLUMNS`]. Dumps and seeds leave many of them null.
    pub(super) fn read(row: &Row) -> Self {
        let text = |column: &str| row.get::<_, Option<String>>(column).unwrap_or_default();
        let object = |column: &str| match row.get::<_, Option<Value>>(column) {
            Some(Value::Object(map)) => map,
            _ => Map::new(),
        };
        let list =
            |column: &str| row.get::<_, Option<Value>>(column).unwrap_or_else(|| Value::Array(Vec::new()));
        Self {
            id: row.get("id"),
            aud: text("aud"),
            role: text("role"),
            email: text("email"),
            is_sso_user: row.get("is_sso_user"),
            encrypted_password: row.get("encrypted_password"),
            email_confirmed_at: row.get("email_confirmed_at"),
            invited_at: row.get("invited_at"),
            phone: text("phone"),
            phone_confirmed_at: row.get("phone_confirmed_at"),
            confirmation_sent_at: row.get("confirmation_sent_at"),
            confirmed_at: row.get("confirmed_at"),
            recovery_sent_at: row.get("recovery_sent_at"),
            email_change: text("email_change"),
            email_change_sent_at: row.get("email_change_sent_at"),
            email_change_confirm_status: row
                .get::<_, Option<i16>>("email_change_confirm_status")
                .unwrap_or(0),
            phone_change: text("phone_change"),
            phone_change_sent_at: row.get("phone_change_sent_at"),
            reauthentication_sent_at: row.get("reauthentication_sent_at"),
            last_sign_in_at: row.get("last_sign_in_at"),
            app_metadata: object("raw_app_meta_data"),
            user_metadata: object("raw_user_meta_data"),
            factors: serde_json::from_value(list("factors")).expect("the query builds this shape"),
            identities: serde_json::from_value(list("identities")).expect("the query builds this shape"),
            created_at: row.get::<_, Option<DateTime<Utc>>>("created_at").unwrap_or_default(),
            updated_at: row.get::<_, Option<DateTime<Utc>>>("updated_at").unwrap_or_default(),
            banned_until: row.get("banned_until"),
            deleted_at: row.get("deleted_at"),
            is_anonymous: row.get("is_anonymous"),
        }
    }
}
