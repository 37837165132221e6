//! `auth.one_time_tokens`: hashes of what was sent, each valid once. Older dumps keep theirs in `auth.users`.

use chrono::{DateTime, NaiveDateTime, Utc};
use longhouse_database::Error;
use uuid::Uuid;

use super::Tx;

/// What a token is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum TokenKind {
    Confirmation,
    Recovery,
    EmailChangeNew,
    EmailChangeCurrent,
    PhoneChange,
    Reauthentication,
}

impl TokenKind {
    fn name(self) -> &'static str {
        match self {
            Self::Confirmation => "confirmation_token",
            Self::Recovery => "recovery_token",
            Self::EmailChangeNew => "email_change_token_new",
            Self::EmailChangeCurrent => "email_change_token_current",
            Self::PhoneChange => "phone_change_token",
            Self::Reauthentication => "reauthentication_token",
        }
    }

    fn of(name: &str) -> Self {
        match name {
            "confirmation_token" => Self::Confirmation,
            "recovery_token" => Self::Recovery,
            "email_change_token_new" => Self::EmailChangeNew,
            "email_change_token_current" => Self::EmailChangeCurrent,
            "phone_change_token" => Self::PhoneChange,
            _ => Self::Reauthentication,
        }
    }
}

/// A token that was sent and not used yet.
#[derive(Debug, Clone)]
pub(crate) struct OneTimeToken {
    pub(crate) user_id: Uuid,
    pub(crate) kind: TokenKind,
    /// Hex SHA-224 of address and code; with the prefix `pkce_` for links that end in a code exchange.
    pub(crate) hash: String,
    /// The address or number it was sent to.
    pub(crate) relates_to: String,
    pub(crate) created_at: DateTime<Utc>,
}

impl OneTimeToken {
    /// Stores the hash of a token; an earlier one of the same kind ends.
    pub(crate) async fn put(
        tx: &Tx,
        user: Uuid,
        kind: TokenKind,
        hash: &str,
        relates_to: &str,
    ) -> Result<(), Error> {
        let sql = "insert into auth.one_time_tokens (id, user_id, token_type, token_hash, relates_to)
            values (gen_random_uuid(), $1, $2::text::auth.one_time_token_type, $3, lower($4))
            on conflict (user_id, token_type) do update set token_hash = excluded.token_hash,
              relates_to = excluded.relates_to, created_at = now() at time zone 'utc', updated_at = now() at time zone 'utc'";
        tx.execute(sql, &[&user, &kind.name(), &hash, &relates_to]).await.map(drop)
    }

    /// By hash, among those kinds.
    pub(crate) async fn find(tx: &Tx, hash: &str, kinds: &[TokenKind]) -> Result<Option<Self>, Error> {
        let sql = "select user_id, token_type::text as kind, token_hash, relates_to, created_at
            from auth.one_time_tokens where token_hash = $1 and token_type::text = any ($2)";
        let kinds: Vec<_> = kinds.iter().map(|kind| kind.name()).collect();
        Ok(tx.query_opt(sql, &[&hash, &kinds]).await?.map(|row| Self {
            user_id: row.get("user_id"),
            kind: TokenKind::of(row.get("kind")),
            hash: row.get("token_hash"),
            relates_to: row.get("relates_to"),
            created_at: row.get::<_, NaiveDateTime>("created_at").and_utc(),
        }))
    }

    /// The one of an account and kind.
    pub(crate) async fn of(tx: &Tx, user: Uuid, kind: TokenKind) -> Result<Option<Self>, Error> {
        let sql = "select token_hash, relates_to, created_at from auth.one_time_tokens
            where user_id = $1 and token_type = $2::text::auth.one_time_token_type";
        Ok(tx.query_opt(sql, &[&user, &kind.name()]).await?.map(|row| Self {
            user_id: user,
            kind,
            hash: row.get("token_hash"),
            relates_to: row.get("relates_to"),
            created_at: row.get::<_, NaiveDateTime>("created_at").and_utc(),
        }))
    }

    /// Ends those of an account and kind. False when there was none: somebody else used it in between.
    pub(crate) async fn clear(tx: &Tx, user: Uuid, kind: TokenKind) -> Result<bool, Error> {
        let sql = "delete from auth.one_time_tokens
            where user_id = $1 and token_type = $2::text::auth.one_time_token_type";
        Ok(tx.execute(sql, &[&user, &kind.name()]).await? > 0)
    }

    /// Uses one up: false when it was used or replaced in between.
    pub(crate) async fn take(&self, tx: &Tx) -> Result<bool, Error> {
        let sql = "delete from auth.one_time_tokens where user_id = $1
            and token_type = $2::text::auth.one_time_token_type and token_hash = $3";
        Ok(tx.execute(sql, &[&self.user_id, &self.kind.name(), &self.hash]).await? > 0)
    }

    /// Ends all of an account.
    pub(crate) async fn clear_all(tx: &Tx, user: Uuid) -> Result<(), Error> {
        tx.execute("delete from auth.one_time_tokens where user_id = $1", &[&user]).await.map(drop)
    }
}
