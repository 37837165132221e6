//! `auth.flow_state`: sign-ins under way, and PKCE exchanges.

use chrono::{DateTime, Utc};
use longhouse_database::Error;
use tokio_postgres::Row;
use tokio_postgres::types::ToSql;
use uuid::Uuid;

use super::Tx;

/// A sign-in that goes through another site or a mail, until its code is exchanged for a session.
#[derive(Debug, Clone, Default)]
pub(crate) struct FlowState {
    pub(crate) id: Uuid,
    /// Set once it is known who signs in.
    pub(crate) user_id: Option<Uuid>,
    /// What the page exchanges for a session; only with PKCE.
    pub(crate) auth_code: Option<String>,
    /// `s256` or `plain`; only with PKCE.
    pub(crate) code_challenge_method: Option<String>,
    pub(crate) code_challenge: Option<String>,
    /// `google`, `email`, …
    pub(crate) provider_type: String,
    pub(crate) provider_access_token: Option<String>,
    pub(crate) provider_refresh_token: Option<String>,
    /// The method that the session will name in `amr`.
    pub(crate) authentication_method: String,
    pub(crate) auth_code_issued_at: Option<DateTime<Utc>>,
    pub(crate) invite_token: Option<String>,
    /// Where the person is sent at the end; already checked.
    pub(crate) referrer: Option<String>,
    /// Our own PKCE verifier towards the provider, in `auth.oauth_client_states`.
    pub(crate) oauth_client_state_id: Option<Uuid>,
    /// Account that the identity is to be linked to.
    pub(crate) linking_target_id: Option<Uuid>,
    pub(crate) email_optional: bool,
    pub(crate) created_at: DateTime<Utc>,
}

const COLUMNS: &str =
    "id, user_id, auth_code, code_challenge_method::text as code_challenge_method, code_challenge,
    provider_type, provider_access_token, provider_refresh_token, authentication_method, auth_code_issued_at,
    invite_token, referrer, oauth_client_state_id, linking_target_id, email_optional, created_at";

impl FlowState {
    /// Stores one as it is (times apart).
    pub(crate) async fn insert(&self, tx: &Tx) -> Result<(), Error> {
        let sql = "insert into auth.flow_state (id, user_id, auth_code, code_challenge_method, code_challenge,
                provider_type, provider_access_token, provider_refresh_token, authentication_method, auth_code_issued_at,
                invite_token, referrer, oauth_client_state_id, linking_target_id, email_optional, created_at, updated_at)
            values ($1, $2, $3, $4::text::auth.code_challenge_method, $5, $6, $7, $8, $9, $10, $11, $12, $13, $14, $15,
                now(), now())";
        let params: [&(dyn ToSql + Sync); 15] = [
            &self.id,
            &self.user_id,
            &self.auth_code,
            &self.code_challenge_method,
            &self.code_challenge,
            &self.provider_type,
            &self.provider_access_token,
            &self.provider_refresh_token,
            &self.authentication_method,
            &self.auth_code_issued_at,
            &self.invite_token,
            &self.referrer,
            &self.oauth_client_state_id,
            &self.linking_target_id,
            &self.email_optional,
        ];
        tx.execute(sql, &params).await.map(drop)
    }

    /// By id, locked.
    pub(crate) async fn lock(tx: &Tx, id: Uuid) -> Result<Option<Self>, Error> {
        let sql =
            const_format::concatcp!("select ", COLUMNS, " from auth.flow_state where id = $1 for update");
        Ok(tx.query_opt(sql, &[&id]).await?.as_ref().map(Self::read))
    }

    /// By the code that was handed out, locked.
    pub(crate) async fn by_code(tx: &Tx, code: &str) -> Result<Option<Self>, Error> {
        let sql = const_format::concatcp!(
            "select ",
            COLUMNS,
            " from auth.flow_state where auth_code = $1 for update"
        );
        Ok(tx.query_opt(sql, &[&code]).await?.as_ref().map(Self::read))
    }

    /// The newest of an account that waits for this method.
    pub(crate) async fn of_user(tx: &Tx, user: Uuid, method: &str) -> Result<Option<Self>, Error> {
        let sql = const_format::concatcp!(
            "select ",
            COLUMNS,
            " from auth.flow_state where user_id = $1 and authentication_method = $2
              order by created_at desc limit 1 for update"
        );
        Ok(tx.query_opt(sql, &[&user, &method]).await?.as_ref().map(Self::read))
    }

    /// Stores who signed in and what the provider gave, and that the code was handed out now.
    pub(crate) async fn complete(&self, tx: &Tx) -> Result<(), Error> {
        let sql = "update auth.flow_state set user_id = $2, provider_access_token = $3, provider_refresh_token = $4,
            auth_code_issued_at = now(), updated_at = now() where id = $1";
        let params: [&(dyn ToSql + Sync); 4] =
            [&self.id, &self.user_id, &self.provider_access_token, &self.provider_refresh_token];
        tx.execute(sql, &params).await.map(drop)
    }

    /// Ends it. False when it had ended already.
    pub(crate) async fn delete(tx: &Tx, id: Uuid) -> Result<bool, Error> {
        Ok(tx.execute("delete from auth.flow_state where id = $1", &[&id]).await? > 0)
    }

    fn read(row: &Row) -> Self {
        Self {
            id: row.get("id"),
            user_id: row.get("user_id"),
            auth_code: row.get("auth_code"),
            code_challenge_method: row.get("code_challenge_method"),
            code_challenge: row.get("code_challenge"),
            provider_type: row.get("provider_type"),
            provider_access_token: row.get("provider_access_token"),
            provider_refresh_token: row.get("provider_refresh_token"),
            authentication_method: row.get("authentication_method"),
            auth_code_issued_at: row.get("auth_code_issued_at"),
            invite_token: row.get("invite_token"),
            referrer: row.get("referrer"),
            oauth_client_state_id: row.get("oauth_client_state_id"),
            linking_target_id: row.get("linking_target_id"),
            email_optional: row.get("email_optional"),
            created_at: row.get::<_, Option<DateTime<Utc>>>("created_at").unwrap_or_default(),
        }
    }
}
