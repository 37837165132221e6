//! Whether the process is alive, ready, and well: real checks, asked rarely however often the probes come.
//!
//! `/health` says alive (always 200), `/ready` says whether to send traffic here (200 or 503). The five seeds'
//! own paths and shapes are served from the same checks in `seeds`.

mod check;
mod routes;
mod seeds;

use std::collections::BTreeMap;
use std::sync::{Arc, OnceLock};
use std::time::{Duration, Instant};

use futures_util::future::join_all;

use check::Cached;
pub use check::{Check, CheckResult, Outcome, Status, check, check_every};
pub use routes::PROBES;

/// What the process says about itself.
#[derive(Debug, Clone)]
pub struct About {
    /// Version of the release, e.g. `0.1.0`.
    pub version: &'static str,
    /// Commit that it was built from, or `dev`.
    pub build_id: String,
    /// Where files are kept: `local`, `s3` or `supabase`.
    pub storage: &'static str,
    /// Whether requests are checked for a key or token.
    pub auth_enabled: bool,
}

/// Sessions in this process.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Capacity {
    /// In progress.
    pub active: usize,
    /// Above this, new ones are turned away.
    pub max: usize,
}

/// The checks of a process and what its health endpoints say. Cheap to clone.
#[derive(Clone)]
pub struct Health {
    inner: Arc<Inner>,
}

struct Inner {
    about: About,
    started: Instant,
    checks: Vec<Cached>,
    capacity: Box<dyn Fn() -> Capacity + Send + Sync>,
    draining: Box<dyn Fn() -> bool + Send + Sync>,
    migration_version: OnceLock<String>,
}

/// Collects checks; see [`Health::builder`].
pub struct Builder {
    about: About,
    checks: Vec<Arc<dyn Check>>,
    capacity: Box<dyn Fn() -> Capacity + Send + Sync>,
    draining: Box<dyn Fn() -> bool + Send + Sync>,
    timeout: Duration,
    fresh_for: Duration,
}

impl Health {
    /// Starts with no checks, unbounded capacity and never draining; a check may take 2 s, and its result is
    /// reused for 1 s.
    pub fn builder(about: About) -> Builder {
        Builder {
            about,
            checks: Vec::new(),
            capacity: Box::new(|| Capacity { active: 0, max: usize::MAX }),
            draining: Box::new(|| false),
            timeout: Duration::from_secs(2),
            fresh_for: Duration::from_secs(1),
        }
    }

    /// Says which migration the database is at, once known.
    pub fn set_migration_version(&self, version: impl Into<String>) {
        // Known once, at start: a second call would come from a second start, which there is not.
        let _ = self.inner.migration_version.set(version.into());
    }

    /// All checks, run at once or taken from what was found a moment ago.
    pub async fn report(&self) -> Report {
        let results = join_all(self.inner.checks.iter().map(Cached::get)).await;
        let checks = self.inner.checks.iter().map(Cached::name).zip(results).collect();
        Report {
            checks,
            capacity: (self.inner.capacity)(),
            draining: (self.inner.draining)(),
            migration_version: self.inner.migration_version.get().cloned(),
            uptime: self.inner.started.elapsed(),
        }
    }

    pub(crate) fn about(&self) -> &About {
        &self.inner.about
    }
}

impl Builder {
    /// Adds a check.
    #[must_use]
    pub fn check(mut self, check: Arc<dyn Check>) -> Self {
        self.checks.push(check);
        self
    }

    /// Says how many sessions there are and may be.
    #[must_use]
    pub fn capacity(mut self, capacity: impl Fn() -> Capacity + Send + Sync + 'static) -> Self {
        self.capacity = Box::new(capacity);
        self
    }

    /// Says whether the process is on its way out.
    #[must_use]
    pub fn draining(mut self, draining: impl Fn() -> bool + Send + Sync + 'static) -> Self {
        self.draining = Box::new(draining);
        self
    }

    /// Longest run of a check; a slower one has failed.
    #[must_use]
    pub fn timeout(mut self, timeout: Duration) -> Self {
        self.timeout = timeout;
        self
    }

    /// For how long a result is reused.
    #[must_use]
    pub fn fresh_for(mut self, fresh_for: Duration) -> Self {
        self.fresh_for = fresh_for;
        self
    }

    /// The finished registry.
    pub fn build(self) -> Health {
        let (timeout, fresh_for) = (self.timeout, self.fresh_for);
        Health {
            inner: Arc::new(Inner {
                about: self.about,
                started: Instant::now(),
                checks: self.checks.into_iter().map(|check| Cached::new(check, timeout, fresh_for)).collect(),
                capacity: self.capacity,
                draining: self.draining,
                migration_version: OnceLock::new(),
            }),
        }
    }
}

/// What was found.
#[derive(Debug, Clone)]
pub struct Report {
    /// By name.
    pub checks: BTreeMap<&'static str, CheckResult>,
    /// Sessions now.
    pub capacity: Capacity,
    /// On the way out.
    pub draining: bool,
    /// Latest migration of the database.
    pub migration_version: Option<String>,
    /// Since the start.
    pub uptime: Duration,
}

impl Report {
    /// The worst of all checks.
    pub fn status(&self) -> Status {
        self.checks.values().map(|result| result.status).max().unwrap_or(Status::Ok)
    }

    /// The status of one check, if there is such a one.
    pub fn status_of(&self, name: &str) -> Option<Status> {
        self.checks.get(name).map(|result| result.status)
    }

    /// Whether another session can be taken.
    pub fn has_capacity(&self) -> bool {
        self.capacity.active < self.capacity.max
    }

    /// Whether traffic should be sent here.
    pub fn is_ready(&self) -> bool {
        !self.draining && self.status() != Status::Failed && self.has_capacity()
    }

    /// The first failed check, as a sentence.
    pub fn failure(&self) -> Option<String> {
        let (name, result) = self.checks.iter().find(|(_, result)| result.status == Status::Failed)?;
        Some(match &result.detail {
            Some(detail) => format!("{name}: {detail}"),
            None => format!("{name} failed"),
        })
    }
}
