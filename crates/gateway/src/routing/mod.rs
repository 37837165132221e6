//! From a task to an answer: the chain of models, with deadlines, retries, breakers and limits.

mod adapters;
mod breaker;
mod chain;
mod chatting;
mod guarding;
mod hedging;
mod lanes;
mod live;
mod meter;
mod repeating;
mod retry;
mod serving;

use std::collections::HashMap;
use std::fmt;
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use serde::Serialize;
use tokio::time::Instant;
use tokio_util::task::TaskTracker;
use utoipa::ToSchema;
use uuid::Uuid;

use self::adapters::Adapter;
use self::lanes::Lanes;
use crate::cache::Answers;
use crate::capability::Protocol;
use crate::configuration::Configuration;
use crate::error::{Error, Failure, Fault, Tried};
use crate::keys::{ApiKey, KeySource, Owner};
use crate::ledger::Ledger;
use crate::live::Dialer;
use crate::model::{ModelRef, ProviderName, Task};
use crate::providers::{Attempt, Wire};
use crate::quotas::{Quotas, Standing};
use crate::safety::Reviews;

/// Longest time for a list of models, which is also how keys are tested.
const LISTING: Duration = Duration::from_secs(15);

/// What a call is for, for whom, and how long it may take.
#[derive(Debug, Clone)]
pub struct Call {
    /// What for.
    pub task: Task,
    /// For whom.
    pub owner: Owner,
    /// Sooner than the task's own deadline, if set.
    pub deadline: Option<Duration>,
    /// The same for every repetition of this call by the application.
    pub idempotency_key: Option<String>,
    /// Whether an answer may begin anew with another model after parts were handed on; unset: as the task says.
    pub restart: Option<bool>,
}

impl Call {
    /// A call for a task, on behalf of an owner.
    #[must_use]
    pub fn new(task: &str, owner: Owner) -> Self {
        Self { task: Task::new(task), owner, deadline: None, idempotency_key: None, restart: None }
    }
}

/// An answer, and how it came about.
#[derive(Debug)]
pub struct Served<T> {
    /// The answer.
    pub value: T,
    /// How.
    pub report: Report,
}

/// How an answer came about; for the caller to show and to log.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Report {
    /// The call's id in the ledger.
    pub call: Uuid,
    /// The model that served.
    pub model: ModelRef,
    /// Models before it that did not.
    pub tried: Vec<Tried>,
    /// How the owner stands with the limit of which the smallest part is left.
    pub quota: Option<Standing>,
    /// Whether the answer is one that was given before.
    pub cached: bool,
}

/// A provider, and how it does as this server sees it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, ToSchema)]
pub struct ProviderHealth {
    /// Its name.
    pub provider: String,
    /// What it speaks.
    pub protocol: &'static str,
    /// What it serves.
    pub modalities: Vec<String>,
    /// Whether it takes requests: `false` while the breakers of all its keys are open.
    pub well: bool,
    /// Keys with which it was asked lately.
    pub keys_in_use: usize,
    /// Of those, such whose breaker is open, or that the provider asked to wait.
    pub keys_waiting: usize,
}

impl Report {
    /// Whether the answer is not by the task's first choice.
    #[must_use]
    pub fn is_degraded(&self) -> bool {
        !self.tried.is_empty()
    }
}

/// The front door of every model call. Clones share everything.
#[derive(Clone)]
pub struct Gateway {
    inner: Arc<Inner>,
}

struct Inner {
    configuration: Configuration,
    adapters: HashMap<Protocol, Adapter>,
    keys: Arc<dyn KeySource>,
    quotas: Arc<dyn Quotas>,
    ledger: Arc<dyn Ledger>,
    /// Where findings of the safety rules go; unset: to the metrics alone.
    reviews: OnceLock<Arc<dyn Reviews>>,
    answers: Answers,
    lanes: Lanes,
    /// Whether people's own base URLs may be private addresses.
    allow_private_addresses: bool,
    /// Records of calls that nobody waited for.
    tasks: TaskTracker,
}

impl Gateway {
    /// A gateway over these stores.
    ///
    /// # Errors
    /// When no client for requests to the outside can be set up.
    pub fn new(
        configuration: Configuration,
        keys: Arc<dyn KeySource>,
        quotas: Arc<dyn Quotas>,
        ledger: Arc<dyn Ledger>,
        allow_private_addresses: bool,
    ) -> Result<Self, Error> {
        let wire = Wire::new()?;
        for warning in configuration.warnings() {
            tracing::warn!("{warning}");
        }
        let dialer = Dialer::new();
        let adapters = Protocol::ALL.into_iter().map(|p| (p, Adapter::of(p, &wire, &dialer))).collect();
        let inner = Inner {
            configuration,
            adapters,
            keys,
            quotas,
            ledger,
            reviews: OnceLock::new(),
            answers: Answers::default(),
            lanes: Lanes::default(),
            allow_private_addresses,
            tasks: TaskTracker::new(),
        };
        Ok(Self { inner: Arc::new(inner) })
    }

    /// The configuration it works by.
    #[must_use]
    pub fn configuration(&self) -> &Configuration {
        &self.inner.configuration
    }

    /// Puts findings of the safety rules into a queue. Only the first queue counts.
    #[must_use]
    pub fn with_reviews(self, reviews: Arc<dyn Reviews>) -> Self {
        let _ = self.inner.reviews.set(reviews);
        self
    }

    /// All providers, and how each does.
    #[must_use]
    pub fn health(&self) -> Vec<ProviderHealth> {
        let now = Instant::now();
        let providers = self.inner.configuration.providers.iter();
        providers
            .map(|(name, settings)| {
                let (keys_in_use, keys_waiting) = self.inner.lanes.of_provider(name, now);
                let modalities = settings.protocol.capabilities().modalities;
                ProviderHealth {
                    provider: name.to_string(),
                    protocol: settings.protocol.as_str(),
                    modalities: modalities.iter().map(ToString::to_string).collect(),
                    well: keys_in_use == 0 || keys_waiting < keys_in_use,
                    keys_in_use,
                    keys_waiting,
                }
            })
            .collect()
    }

    /// Lists the models (or voices) that a key may use at a provider, by a real request: also the test of a key.
    ///
    /// # Errors
    /// [`Error::Provider`], among them [`Fault::Unauthorized`] for a wrong key.
    pub async fn models(&self, provider: &ProviderName, key: Option<ApiKey>) -> Result<Vec<String>, Error> {
        let failure = |fault, message: &str| {
            Error::from(Failure {
                provider: provider.clone(),
                model: "models".into(),
                fault,
                status: None,
                message: message.to_owned(),
                retry_after: None,
                request_id: None,
                delivered: false,
            })
        };
        let settings = self.inner.configuration.providers.get(provider);
        let settings = settings.ok_or_else(|| failure(Fault::NotFound, "no such provider is configured"))?;
        if key.is_none() && settings.protocol.needs_key() {
            return Err(failure(Fault::NoKey, ""));
        }
        let listing = self.inner.adapters.get(&settings.protocol).and_then(|a| a.listing.clone());
        let listing = listing.ok_or_else(|| failure(Fault::Unsupported, "it lists no models"))?;
        let named = key.as_ref().and_then(ApiKey::base_url).cloned();
        let attempt = Attempt {
            provider: provider.clone(),
            model: "models".into(),
            trusted_address: named.is_none() || self.inner.allow_private_addresses,
            base_url: named.unwrap_or_else(|| settings.base_url.clone()),
            key,
            deadline: Instant::now() + LISTING,
            first_byte: LISTING,
            idle: LISTING,
            idempotency_key: Uuid::new_v4().to_string(),
        };
        listing.list(&attempt).await
    }

    /// Waits until everything that calls consumed is recorded. No call may begin afterwards.
    pub async fn close(&self) {
        self.inner.tasks.close();
        self.inner.tasks.wait().await;
    }
}

impl fmt::Debug for Gateway {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Gateway").field("configuration", &self.inner.configuration).finish_non_exhaustive()
    }
}
