//! One check: bounded in time, its result reused for a moment, never run twice at once.

use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::time::{Duration, Instant};

use serde::Serialize;
use tokio::sync::Mutex;
use utoipa::ToSchema;

/// How a part is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, ToSchema)]
#[serde(rename_all = "lowercase")]
pub enum Status {
    /// Works.
    Ok,
    /// Works with a restriction; traffic is still welcome.
    Degraded,
    /// Does not work; traffic should go elsewhere.
    Failed,
}

/// What a check found. The detail is shown to anyone who asks: no hosts, users or secrets in it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Outcome {
    /// How the part is.
    pub status: Status,
    /// Why, or what it is.
    pub detail: Option<String>,
}

impl Outcome {
    /// Works.
    pub fn ok() -> Self {
        Self { status: Status::Ok, detail: None }
    }

    /// Works with a restriction.
    pub fn degraded(detail: impl Into<String>) -> Self {
        Self { status: Status::Degraded, detail: Some(detail.into()) }
    }

    /// Does not work.
    pub fn failed(detail: impl Into<String>) -> Self {
        Self { status: Status::Failed, detail: Some(detail.into()) }
    }

    /// Adds a detail, e.g. that the part is emulated.
    #[must_use]
    pub fn because(mut self, detail: impl Into<String>) -> Self {
        self.detail = Some(detail.into());
        self
    }
}

/// A part whose health can be asked.
pub trait Check: Send + Sync + 'static {
    /// Name in the health documents: `database`, `openai`, `storage`, …
    fn name(&self) -> &'static str;

    /// Asks the part itself, with a real query or request.
    fn run(&self) -> Pin<Box<dyn Future<Output = Outcome> + Send + '_>>;

    /// For how long a good result stands, where asking is dear; `None`: as the registry says.
    fn fresh_for(&self) -> Option<Duration> {
        None
    }
}

/// A check from a function.
///
/// ```
/// use longhouse_operations::health::{Outcome, check};
///
/// let storage = check("storage", || async { Outcome::ok() });
/// assert_eq!(storage.name(), "storage");
/// ```
pub fn check<F, R>(name: &'static str, run: F) -> Arc<dyn Check>
where
    F: Fn() -> R + Send + Sync + 'static,
    R: Future<Output = Outcome> + Send + 'static,
{
    Arc::new(Function { name, run, fresh_for: None })
}

/// As [`check`], asked no more often than this while all is well: for providers that count requests.
pub fn check_every<F, R>(name: &'static str, interval: Duration, run: F) -> Arc<dyn Check>
where
    F: Fn() -> R + Send + Sync + 'static,
    R: Future<Output = Outcome> + Send + 'static,
{
    Arc::new(Function { name, run, fresh_for: Some(interval) })
}

struct Function<F> {
    name: &'static str,
    run: F,
    fresh_for: Option<Duration>,
}

impl<F, R> Check for Function<F>
where
    F: Fn() -> R + Send + Sync + 'static,
    R: Future<Output = Outcome> + Send + 'static,
{
    fn name(&self) -> &'static str {
        self.name
    }

    fn run(&self) -> Pin<Box<dyn Future<Output = Outcome> + Send + '_>> {
        Box::pin((self.run)())
    }

    fn fresh_for(&self) -> Option<Duration> {
        self.fresh_for
    }
}

/// What a check found and how long it took.
#[derive(Debug, Clone, PartialEq, Serialize, ToSchema)]
pub struct CheckResult {
    /// How the part is.
    pub status: Status,
    /// Why, or what it is.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub detail: Option<String>,
    /// How long the check took.
    pub latency_ms: f64,
}

pub(super) struct Cached {
    check: Arc<dyn Check>,
    timeout: Duration,
    fresh_for: Duration,
    /// Held while the check runs: probes that come meanwhile wait for its result instead of adding load.
    last: Mutex<Option<(Instant, CheckResult)>>,
}

impl Cached {
    pub(super) fn new(check: Arc<dyn Check>, timeout: Duration, fresh_for: Duration) -> Self {
        Self { check, timeout, fresh_for, last: Mutex::new(None) }
    }

    pub(super) fn name(&self) -> &'static str {
        self.check.name()
    }

    /// A bad result is asked again soon even where asking is dear, so that recovery shows.
    fn stands(&self, result: &CheckResult) -> Duration {
        match self.check.fresh_for() {
            Some(interval) if result.status == Status::Ok => interval,
            _ => self.fresh_for,
        }
    }

    pub(super) async fn get(&self) -> CheckResult {
        let mut last = self.last.lock().await;
        if let Some((found, result)) = &*last
            && found.elapsed() < self.stands(result)
        {
            return result.clone();
        }
        let started = Instant::now();
        let outcome = tokio::time::timeout(self.timeout, self.check.run())
            .await
            .unwrap_or_else(|_| Outcome::failed(format!("no answer within {} ms", self.timeout.as_millis())));
        if outcome.status != Status::Ok {
            tracing::warn!(check = self.name(), status = ?outcome.status, detail = outcome.detail, "health check");
        }
        let latency_ms = (started.elapsed().as_secs_f64() * 1e5).round() / 100.0;
        let result = CheckResult { status: outcome.status, detail: outcome.detail, latency_ms };
        *last = Some((Instant::now(), result.clone()));
        result
    }
}
