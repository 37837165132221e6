//! The tables of schema `auth`. Everything here runs in a transaction as `supabase_auth_admin`.

mod audit;
mod challenges;
mod factors;
mod flow_states;
mod identities;
mod oauth_client_states;
mod one_time_tokens;
mod passkeys;
pub(crate) mod recovery_codes;
mod rotation;
mod sessions;
mod users;

pub(crate) use audit::{Action, AuditEntry, AuditField, audit, audit_service};
pub(crate) use challenges::Challenge;
pub(crate) use factors::{Factor, FactorStatus, FactorType, NewFactor, StoredFactor};
pub(crate) use flow_states::FlowState;
pub(crate) use identities::{Identity, NewIdentity};
pub(crate) use oauth_client_states::OAuthClientState;
pub(crate) use one_time_tokens::{OneTimeToken, TokenKind};
pub(crate) use passkeys::{Ceremony, CeremonyKind, NewPasskey, Passkey};
pub(crate) use rotation::{Rotation, rotate};
pub(crate) use sessions::{Aal, RefreshToken, Session};
pub(crate) use users::{NewUser, User, UserChange};

use longhouse_database::{Claims, Database, Error, RoleTransaction};
use serde_json::Map;

/// The role that owns the tables.
pub(crate) const ROLE: &str = "supabase_auth_admin";

/// A transaction on the tables of `auth`.
pub(crate) type Tx = RoleTransaction;

/// Opens a transaction as the service's own role.
pub(crate) async fn begin(database: &Database) -> Result<Tx, Error> {
    database.as_role(&Claims::agent(ROLE, Map::new())).transaction().await
}

/// Does about as much as storing and mailing a code does, for nobody: otherwise the time that an answer takes tells
/// whether an address has an account. The commit then writes, and waits for the disk, as it would for somebody.
pub(crate) async fn pretend(tx: &Tx) -> Result<(), Error> {
    let nobody = uuid::Uuid::new_v4();
    User::lock(tx, nobody).await?;
    tx.execute("savepoint pretence", &[]).await?;
    let sql = "insert into longhouse.mail_outbox (kind, user_id, recipient, variables)
        values ('pretence', $1, '', jsonb_build_object('ConfirmationURL', repeat('-', 500)))";
    tx.execute(sql, &[&nobody]).await?;
    let sql = "insert into auth.audit_log_entries (instance_id, id, payload, created_at, ip_address)
        values ('00000000-0000-0000-0000-000000000000', $1, json_build_object('action', 'pretence'), now(), '')";
    tx.execute(sql, &[&nobody]).await?;
    tx.execute("rollback to savepoint pretence", &[]).await?;
    User::change(tx, nobody, &UserChange::default()).await?;
    // A record in the write-ahead log that nobody reads.
    tx.query("select pg_logical_emit_message(true, 'longhouse', '')::text", &[]).await?;
    Ok(())
}
