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
pub(crate) use sessions::{Aal, Amr, RefreshToken, Session};
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
