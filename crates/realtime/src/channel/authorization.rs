//! Private channels: the policies of `realtime.messages` decide. Who may select a message of the channel may receive,
//! who may insert one may send; nothing of either stays.

use longhouse_database::tokio_postgres::error::SqlState;
use longhouse_database::{Claims, Database, End, Error, ServiceReason, Step};
use uuid::Uuid;

/// Kinds of messages, each with rights of its own.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Extension {
    Broadcast,
    Presence,
}

impl Extension {
    fn name(self) -> &'static str {
        match self {
            Self::Broadcast => "broadcast",
            Self::Presence => "presence",
        }
    }
}

/// What somebody may do on a private channel. `None`: not asked yet.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct Rights {
    pub(crate) read_broadcasts: Option<bool>,
    pub(crate) read_presence: Option<bool>,
    pub(crate) send_broadcasts: Option<bool>,
    pub(crate) send_presence: Option<bool>,
}

/// Who asks, for which channel.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Question<'q> {
    pub(crate) claims: &'q Claims,
    /// Name of the channel without the prefix: what `realtime.topic()` returns.
    pub(crate) topic: &'q str,
    /// The connection's headers as a JSON object: what `request.headers` is.
    pub(crate) headers: &'q str,
}

/// Why nobody knows.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Refusal {
    /// A policy fails instead of deciding.
    #[error("{0}")]
    Policy(String),
    /// The partition of today is missing.
    #[error("Realtime was unable to find the expected messages partition")]
    MissingPartition,
    /// The database takes too long.
    #[error("Query was cancelled, please try again")]
    Cancelled,
    /// All connections are busy.
    #[error("Please increase your connection pool size")]
    Busy,
    /// The database is away.
    #[error("Realtime was unable to connect to the project database")]
    Unavailable,
}

impl Refusal {
    /// The name under which Supabase Realtime reports it.
    pub(crate) fn code(&self) -> &'static str {
        match self {
            Self::Policy(_) => "RlsPolicyError",
            Self::MissingPartition => "MissingPartition",
            Self::Cancelled => "QueryCanceled",
            Self::Busy => "IncreaseConnectionPool",
            Self::Unavailable => "UnableToConnectToProject",
        }
    }

    fn of(error: &Error) -> Self {
        tracing::debug!(%error, "cannot decide about a private channel");
        match error {
            Error::Busy(_) => Self::Busy,
            _ => match error.sql_state() {
                Some(&SqlState::QUERY_CANCELED) => Self::Cancelled,
                Some(&SqlState::CHECK_VIOLATION) => Self::MissingPartition,
                Some(_) if !error.is_transient() => Self::Policy(error.to_string()),
                _ => Self::Unavailable,
            },
        }
    }
}

/// Policies show only whether a row is visible, so there must be one for a moment; the caller may not be able to make it.
const PROBES: ServiceReason =
    ServiceReason::because("make the rows that a caller's right to read is tried on");

const INSERT_PROBES: &str = "\
insert into realtime.messages (id, topic, extension)
select probe.id, $1, probe.extension from unnest($2::uuid[], $3::text[]) as probe (id, extension)";

/// From here on as the caller.
const ASSUME: &str = "\
select set_config('role', $1, true), set_config('request.jwt.claims', $2, true),
       set_config('request.jwt.claim.sub', coalesce($2::jsonb ->> 'sub', ''), true),
       set_config('request.jwt.claim.role', $1, true)";

const VISIBLE: &str = "select extension from realtime.messages where id = any($1::uuid[])";

const INSERT: &str = "insert into realtime.messages (topic, extension) values ($1, $2)";

/// Whether the caller may receive broadcasts and, if that is asked, presence.
pub(crate) async fn may_read(
    database: &Database,
    question: Question<'_>,
    presence: bool,
) -> Result<(bool, bool), Refusal> {
    let extensions: &[&str] = if presence { &["broadcast", "presence"] } else { &["broadcast"] };
    let ids: Vec<Uuid> = extensions.iter().map(|_| Uuid::new_v4()).collect();
    let (role, claims) = (question.claims.role(), question.claims.json());
    let steps = [
        Step { sql: INSERT_PROBES, params: &[&question.topic, &ids, &extensions] },
        Step { sql: ASSUME, params: &[&role, &claims] },
        Step { sql: VISIBLE, params: &[&ids] },
    ];
    let settings = [("realtime.topic", question.topic), ("request.headers", question.headers)];
    match database.as_service(PROBES).pipeline(&settings, &steps, End::Rollback).await {
        Ok(rows) => {
            let visible = |name: &str| rows[2].iter().any(|row| row.get::<_, &str>(0) == name);
            Ok((visible("broadcast"), presence && visible("presence")))
        }
        Err(error) if error.sql_state() == Some(&SqlState::INSUFFICIENT_PRIVILEGE) => Ok((false, false)),
        Err(error) => Err(Refusal::of(&error)),
    }
}

/// Whether the caller may send.
pub(crate) async fn may_send(
    database: &Database,
    question: Question<'_>,
    extension: Extension,
) -> Result<bool, Refusal> {
    let subject = subject(question.claims);
    let settings = [
        ("realtime.topic", question.topic),
        ("request.headers", question.headers),
        ("request.jwt.claim.sub", &subject),
        ("request.jwt.claim.role", question.claims.role()),
    ];
    let steps = [Step { sql: INSERT, params: &[&question.topic, &extension.name()] }];
    match database.as_role(question.claims).pipeline(&settings, &steps, End::Rollback).await {
        Ok(_) => Ok(true),
        Err(error) if error.sql_state() == Some(&SqlState::INSUFFICIENT_PRIVILEGE) => Ok(false),
        Err(error) => Err(Refusal::of(&error)),
    }
}

fn subject(claims: &Claims) -> String {
    let claims: serde_json::Value = serde_json::from_str(claims.json()).unwrap_or_default();
    claims.get("sub").and_then(serde_json::Value::as_str).unwrap_or_default().to_owned()
}
