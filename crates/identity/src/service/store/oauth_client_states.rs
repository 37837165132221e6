//! `auth.oauth_client_states`: our secrets of sign-ins that are under way at a provider.

use longhouse_database::Error;
use uuid::Uuid;

use super::Tx;

/// A secret of ours, valid once.
pub(crate) struct OAuthClientState;

impl OAuthClientState {
    /// Keeps a secret and returns its id.
    pub(crate) async fn insert(tx: &Tx, provider: &str, verifier: &str) -> Result<Uuid, Error> {
        let id = Uuid::new_v4();
        let sql = "insert into auth.oauth_client_states (id, provider_type, code_verifier, created_at)
            values ($1, $2, $3, now())";
        tx.execute(sql, &[&id, &provider, &verifier]).await?;
        Ok(id)
    }

    /// The secret, which is used up by this. `None` when it was used before.
    pub(crate) async fn take(tx: &Tx, id: Uuid, provider: &str) -> Result<Option<String>, Error> {
        let sql = "delete from auth.oauth_client_states where id = $1 and provider_type = $2
            returning code_verifier";
        Ok(tx.query_opt(sql, &[&id, &provider]).await?.and_then(|row| row.get("code_verifier")))
    }

    /// Forgets sign-ins that were begun and never ended.
    pub(crate) async fn prune(tx: &Tx) -> Result<u64, Error> {
        let sql = "delete from auth.oauth_client_states where id in (
            select id from auth.oauth_client_states where created_at < now() - interval '1 day' limit 1000)";
        let forgotten = tx.execute(sql, &[]).await?;
        let sql = "delete from auth.flow_state where id in (
            select id from auth.flow_state where created_at < now() - interval '1 day' limit 1000)";
        Ok(forgotten + tx.execute(sql, &[]).await?)
    }
}
