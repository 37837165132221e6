//! What every call consumed and became: one [`Entry`] a call.

mod postgres;

use std::time::Duration;

use async_trait::async_trait;
use uuid::Uuid;

use crate::Error;
use crate::error::{Fault, Tried};
use crate::keys::Owner;
use crate::model::{Modality, ModelRef, Task};
use crate::usage::Usage;

pub use postgres::{LedgerOptions, PostgresLedger};

/// One call, when it is over.
#[derive(Debug, Clone, PartialEq)]
pub struct Entry {
    /// The call.
    pub id: Uuid,
    /// What for.
    pub task: Task,
    /// What kind.
    pub modality: Modality,
    /// For whom.
    pub owner: Owner,
    /// The model that served, or the last that was tried.
    pub model: Option<ModelRef>,
    /// The key that was used.
    pub key_id: Option<String>,
    /// Whether the key is the owner's own, so that the call costs the platform nothing.
    pub own_key: bool,
    /// What it consumed, failed attempts included where the provider said.
    pub usage: Usage,
    /// How it ended.
    pub outcome: Outcome,
    /// Models that did not serve.
    pub tried: Vec<Tried>,
    /// From the call to its end.
    pub latency: Duration,
    /// From the call to the first content.
    pub first_content: Option<Duration>,
    /// Whether the answer came from the cache.
    pub cached: bool,
    /// The provider's id of the request.
    pub provider_request_id: Option<String>,
}

/// How a call ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Outcome {
    /// With a whole answer.
    Done,
    /// The caller went away; usage is what had come until then.
    Cancelled,
    /// A provider failed.
    Failed(Fault),
    /// Refused before or after: quota, safety, deadline, configuration.
    Refused,
}

impl Outcome {
    /// As the ledger and metrics write it.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Done => "done",
            Self::Cancelled => "cancelled",
            Self::Failed(_) => "failed",
            Self::Refused => "refused",
        }
    }
}

/// Keeps entries.
#[async_trait]
pub trait Ledger: Send + Sync {
    /// Stores an entry. Called once for every call, also for those that were cancelled.
    ///
    /// # Errors
    /// [`Error::Records`]; the gateway logs it and goes on, since the answer has been given.
    async fn record(&self, entry: Entry) -> Result<(), Error>;
}

/// Writes entries to the log only: for command-line use and servers without a database.
#[derive(Debug, Clone, Copy, Default)]
pub struct LogLedger;

#[async_trait]
impl Ledger for LogLedger {
    async fn record(&self, entry: Entry) -> Result<(), Error> {
        tracing::info!(
            id = %entry.id,
            task = %entry.task,
            model = entry.model.as_ref().map(tracing::field::display),
            outcome = entry.outcome.as_str(),
            input_tokens = entry.usage.input_tokens,
            output_tokens = entry.usage.output_tokens,
            latency_ms = entry.latency.as_millis() as u64,
            "model call"
        );
        Ok(())
    }
}
