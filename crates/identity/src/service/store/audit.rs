//! `auth.audit_log_entries`: who did what to which account.

use chrono::{DateTime, Utc};
use longhouse_database::Error;
use serde::Serialize;
use serde_json::{Value, json};
use uuid::Uuid;

use super::{Tx, User};
use crate::service::caller::Caller;

/// What happened, in Supabase Auth's words.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Action {
    Login,
    Logout,
    InviteAccepted,
    UserSignedUp,
    UserInvited,
    UserDeleted,
    UserModified,
    RecoveryRequested,
    ReauthenticateRequested,
    ConfirmationRequested,
    RepeatedSignUp,
    UpdatedPassword,
    TokenRevoked,
    FactorInProgress,
    FactorUnenrolled,
    ChallengeCreated,
    VerificationAttempted,
    FactorDeleted,
    FactorUpdated,
    RecoveryCodesGenerated,
    IdentityLinked,
    IdentityUnlinked,
    PasskeyCreated,
    PasskeyUpdated,
    PasskeyDeleted,
}

impl Action {
    fn name_and_type(self) -> (&'static str, &'static str) {
        match self {
            Self::Login => ("login", "account"),
            Self::Logout => ("logout", "account"),
            Self::InviteAccepted => ("invite_accepted", "account"),
            Self::UserSignedUp => ("user_signedup", "team"),
            Self::UserInvited => ("user_invited", "team"),
            Self::UserDeleted => ("user_deleted", "team"),
            Self::UserModified => ("user_modified", "user"),
            Self::RecoveryRequested => ("user_recovery_requested", "user"),
            Self::ReauthenticateRequested => ("user_reauthenticate_requested", "user"),
            Self::ConfirmationRequested => ("user_confirmation_requested", "user"),
            Self::RepeatedSignUp => ("user_repeated_signup", "user"),
            Self::UpdatedPassword => ("user_updated_password", "user"),
            Self::TokenRevoked => ("token_revoked", "token"),
            Self::FactorInProgress => ("factor_in_progress", "factor"),
            Self::FactorUnenrolled => ("factor_unenrolled", "factor"),
            Self::ChallengeCreated => ("challenge_created", "factor"),
            Self::VerificationAttempted => ("verification_attempted", "factor"),
            Self::FactorDeleted => ("factor_deleted", "factor"),
            Self::FactorUpdated => ("factor_updated", "factor"),
            Self::RecoveryCodesGenerated => ("generate_recovery_codes", "factor"),
            Self::IdentityLinked => ("identity_linked", "user"),
            Self::IdentityUnlinked => ("identity_unlinked", "user"),
            Self::PasskeyCreated => ("passkey_created", "user"),
            Self::PasskeyUpdated => ("passkey_updated", "user"),
            Self::PasskeyDeleted => ("passkey_deleted", "user"),
        }
    }
}

/// Records what `actor` did. `traits` are details such as `{"provider": "email"}`; never secrets.
pub(crate) async fn audit(
    tx: &Tx,
    caller: &Caller,
    actor: &User,
    action: Action,
    traits: Value,
) -> Result<(), Error> {
    let (name, kind) = action.name_and_type();
    let username = if actor.email.is_empty() { &actor.phone } else { &actor.email };
    let mut payload = json!({
        "actor_id": actor.id,
        "actor_via_sso": actor.is_sso_user,
        "actor_username": username,
        "action": name,
        "log_type": kind,
    });
    if let Some(full_name) = actor.user_metadata.get("full_name").and_then(Value::as_str) {
        payload["actor_name"] = json!(full_name);
    }
    insert(tx, caller, payload, traits).await
}

/// An entry as clients see it.
#[derive(Debug, Clone, Serialize)]
pub(crate) struct AuditEntry {
    id: Uuid,
    payload: Option<Value>,
    created_at: Option<DateTime<Utc>>,
    ip_address: String,
}

/// What entries may be found by.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum AuditField {
    Author,
    Action,
    Type,
}

impl AuditEntry {
    /// A page of entries, newest first, and how many there are.
    pub(crate) async fn page(
        tx: &Tx,
        filter: Option<(AuditField, &str)>,
        limit: i64,
        offset: i64,
    ) -> Result<(Vec<Self>, i64), Error> {
        const MATCHES: &str = " from auth.audit_log_entries where case $1
              when 'author' then position(lower($2) in lower(payload ->> 'actor_username')) > 0
                or position(lower($2) in lower(payload ->> 'actor_name')) > 0
              when 'action' then position(lower($2) in lower(payload ->> 'action')) > 0
              when 'type' then position(lower($2) in lower(payload ->> 'log_type')) > 0
              else $2 = '' end";
        let (field, text) = match filter {
            None => ("", ""),
            Some((AuditField::Author, text)) => ("author", text),
            Some((AuditField::Action, text)) => ("action", text),
            Some((AuditField::Type, text)) => ("type", text),
        };
        let sql = const_format::concatcp!(
            "select id, payload, created_at, ip_address",
            MATCHES,
            " order by created_at desc, id limit $3 offset $4"
        );
        let rows = tx.query(sql, &[&field, &text, &limit, &offset]).await?;
        let count = const_format::concatcp!("select count(*)", MATCHES);
        let total = tx.query(count, &[&field, &text]).await?;
        let read = |row: &tokio_postgres::Row| Self {
            id: row.get("id"),
            payload: row.get("payload"),
            created_at: row.get("created_at"),
            ip_address: row.get("ip_address"),
        };
        Ok((rows.iter().map(read).collect(), total.first().map_or(0, |row| row.get(0))))
    }
}

/// Records what one of the project's own servers did, with the service key.
pub(crate) async fn audit_service(
    tx: &Tx,
    caller: &Caller,
    action: Action,
    traits: Value,
) -> Result<(), Error> {
    let (name, kind) = action.name_and_type();
    let payload = json!({
        "actor_id": uuid::Uuid::nil(),
        "actor_via_sso": false,
        "actor_username": "service_role",
        "action": name,
        "log_type": kind,
    });
    insert(tx, caller, payload, traits).await
}

async fn insert(tx: &Tx, caller: &Caller, mut payload: Value, traits: Value) -> Result<(), Error> {
    if !traits.is_null() {
        payload["traits"] = traits;
    }
    let sql = "insert into auth.audit_log_entries (instance_id, id, payload, created_at, ip_address)
        values ('00000000-0000-0000-0000-000000000000', gen_random_uuid(), $1, now(), $2)";
    tx.execute(sql, &[&payload, &caller.ip.to_string()]).await.map(drop)
}
