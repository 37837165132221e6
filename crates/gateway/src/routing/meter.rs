//! What a call consumed: settled and recorded once, however it ends.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use tokio::time::Instant;
use uuid::Uuid;

use super::{Call, Inner};
use crate::error::{Error, Tried};
use crate::ledger::{Entry, Outcome};
use crate::model::{Modality, ModelRef};
use crate::quotas::{Estimate, Reservation, Standing};
use crate::usage::Usage;

/// Runs along with a call. Dropping it before [`Meter::finish`] means that the caller went away.
pub(super) struct Meter {
    inner: Arc<Inner>,
    /// `None` when it has been recorded.
    open: Option<Open>,
    /// Whether the answer was broken off by us and not by its caller.
    refused: Arc<AtomicBool>,
}

struct Open {
    entry: Entry,
    reservation: Box<dyn Reservation>,
    begun: Instant,
}

impl Meter {
    /// Reserves.
    pub(super) async fn start(
        inner: Arc<Inner>,
        call: &Call,
        id: Uuid,
        modality: Modality,
        usage: Usage,
    ) -> Result<Self, Error> {
        let estimate = Estimate { task: call.task.clone(), modality, usage };
        let reservation = inner.quotas.reserve(&call.owner, &estimate).await?;
        let entry = blank(call, id, modality);
        let open = Open { entry, reservation, begun: Instant::now() };
        Ok(Self { inner, open: Some(open), refused: Arc::default() })
    }

    /// The model that is asked now.
    pub(super) fn asking(&mut self, hop: &super::chain::Hop) {
        if let Some(open) = &mut self.open {
            open.entry.model = Some(hop.model.clone());
            open.entry.key_id = hop.attempt.key.as_ref().map(|key| key.id().to_owned());
            open.entry.own_key = hop.own_key;
        }
    }

    /// To be set before the answer is dropped for its content.
    pub(super) fn refused(&self) -> Arc<AtomicBool> {
        Arc::clone(&self.refused)
    }

    /// How the owner stands with their limits.
    pub(super) fn standing(&self) -> Option<Standing> {
        self.open.as_ref()?.reservation.standing().cloned()
    }

    /// The first piece of an answer.
    pub(super) fn first_content(&mut self) {
        if let Some(open) = &mut self.open {
            let waited = open.begun.elapsed();
            if open.entry.first_content.replace(waited).is_none() {
                metrics::histogram!("gateway_first_content_seconds", &labels(&open.entry))
                    .record(waited.as_secs_f64());
            }
        }
    }

    /// More was consumed.
    pub(super) fn consumed(&mut self, usage: Usage) {
        if let Some(open) = &mut self.open {
            open.entry.usage += usage;
        }
    }

    /// What was consumed so far is replaced by the provider's own count.
    pub(super) fn counted(&mut self, usage: Usage) {
        if let Some(open) = &mut self.open {
            open.entry.usage = usage;
        }
    }

    /// Whether the end has been recorded.
    pub(super) fn is_closed(&self) -> bool {
        self.open.is_none()
    }

    pub(super) fn model(&self) -> Option<ModelRef> {
        self.open.as_ref()?.entry.model.clone()
    }

    /// Settles and records the end.
    pub(super) async fn finish(&mut self, outcome: Outcome, tried: &[Tried], request_id: Option<String>) {
        if let Some(mut open) = self.open.take() {
            open.entry.outcome = outcome;
            open.entry.tried = tried.to_vec();
            open.entry.provider_request_id = request_id;
            open.close(&self.inner).await;
        }
    }

    /// Settles and records a failure.
    pub(super) async fn fail(&mut self, error: &Error, tried: &[Tried]) {
        let outcome = match error.failure() {
            Some(failure) => Outcome::Failed(failure.fault),
            None => Outcome::Refused,
        };
        let request_id = error.failure().and_then(|failure| failure.request_id.clone());
        self.finish(outcome, tried, request_id).await;
    }
}

/// An entry of which nothing is known yet.
pub(super) fn blank(call: &Call, id: Uuid, modality: Modality) -> Entry {
    Entry {
        id,
        task: call.task.clone(),
        modality,
        owner: call.owner.clone(),
        model: None,
        key_id: None,
        own_key: false,
        usage: Usage::default(),
        outcome: Outcome::Cancelled,
        tried: Vec::new(),
        latency: std::time::Duration::ZERO,
        first_content: None,
        cached: false,
        provider_request_id: None,
    }
}

fn labels(entry: &Entry) -> [(&'static str, String); 3] {
    let model = entry.model.as_ref();
    [
        ("task", entry.task.to_string()),
        ("provider", model.map_or_else(String::new, |model| model.provider.to_string())),
        ("modality", entry.modality.to_string()),
    ]
}

impl Open {
    async fn close(mut self, inner: &Inner) {
        self.entry.latency = self.begun.elapsed();
        let labels = labels(&self.entry);
        metrics::histogram!("gateway_call_seconds", &labels).record(self.entry.latency.as_secs_f64());
        let [task, provider, modality] = labels;
        metrics::counter!("gateway_calls_total", "task" => task.1, "provider" => provider.1,
            "modality" => modality.1, "outcome" => self.entry.outcome.as_str())
        .increment(1);
        // The answer has been given: what cannot be recorded is at least said.
        if let Err(error) = self.reservation.settle(&self.entry).await {
            metrics::counter!("gateway_records_lost_total").increment(1);
            tracing::error!(%error, call = %self.entry.id, "a reservation could not be settled");
        }
        let id = self.entry.id;
        if let Err(error) = inner.ledger.record(self.entry).await {
            metrics::counter!("gateway_records_lost_total").increment(1);
            tracing::error!(%error, call = %id, "a call could not be recorded");
        }
    }
}

impl Drop for Meter {
    fn drop(&mut self) {
        if let Some(mut open) = self.open.take() {
            if self.refused.load(Ordering::Relaxed) {
                open.entry.outcome = Outcome::Refused;
            }
            let inner = Arc::clone(&self.inner);
            // Tracked: shutting down waits for it.
            self.inner.tasks.spawn(async move { open.close(&inner).await });
        }
    }
}
