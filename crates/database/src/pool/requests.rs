//! The connections that batches run on: a bounded pool, the most recently used first.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use super::wire::{Connector, Wire};
use super::{DatabaseOptions, Error};

/// How long connections for batches stay open.
#[derive(Debug, Clone, Copy, Default)]
pub struct Lifetimes {
    /// Closed when it has been open for so long and nobody uses it; none: never.
    pub longest: Option<Duration>,
    /// Closed when nobody has used it for so long, at the next use of another; none: never.
    pub idle: Option<Duration>,
}

/// A connection that nobody uses, and since when.
#[derive(Debug)]
struct Resting {
    wire: Wire,
    since: Instant,
}

pub(super) struct Requests {
    connector: Connector,
    size: usize,
    timeout: Duration,
    permits: Arc<Semaphore>,
    resting: Mutex<Vec<Resting>>,
    lifetimes: Mutex<Lifetimes>,
}

impl std::fmt::Debug for Requests {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter.debug_struct("Requests").field("status", &self.status()).finish_non_exhaustive()
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Requests {
    pub(super) fn new(connector: Connector, options: &DatabaseOptions) -> Self {
        Self {
            connector,
            size: options.pool_size,
            timeout: options.pool_timeout,
            permits: Arc::new(Semaphore::new(options.pool_size)),
            resting: Mutex::default(),
            lifetimes: Mutex::default(),
        }
    }

    pub(super) fn set_lifetimes(&self, lifetimes: Lifetimes) {
        *lock(&self.lifetimes) = lifetimes;
    }

    /// (in use, open, most)
    pub(super) fn status(&self) -> (usize, usize, usize) {
        let in_use = self.size - self.permits.available_permits();
        (in_use, in_use + lock(&self.resting).len(), self.size)
    }

    /// A connection that nobody else uses; waits for one within the time limit.
    pub(super) async fn lease(self: &Arc<Self>) -> Result<Lease, Error> {
        let permit = match Arc::clone(&self.permits).try_acquire_owned() {
            Ok(permit) => permit,
            Err(_) => tokio::time::timeout(self.timeout, Arc::clone(&self.permits).acquire_owned())
                .await
                .map_err(|_| Error::Busy("waiting for one took too long".into()))?
                .expect("the semaphore is never closed"),
        };
        let wire = match self.rested() {
            Some(wire) => wire,
            None => tokio::time::timeout(self.timeout, self.connector.connect())
                .await
                .map_err(|_| Error::Busy("opening one took too long".into()))??,
        };
        Ok(Lease { wire: Some(wire), pool: Arc::clone(self), _permit: permit })
    }

    /// The last one that was given back, if it is still good.
    fn rested(&self) -> Option<Wire> {
        loop {
            let Resting { mut wire, since } = lock(&self.resting).pop()?;
            if !self.is_over(&wire, since) && !wire.is_lost() {
                return Some(wire);
            }
        }
    }

    fn is_over(&self, wire: &Wire, since: Instant) -> bool {
        let Lifetimes { longest, idle } = *lock(&self.lifetimes);
        longest.is_some_and(|longest| wire.born().elapsed() > longest)
            || idle.is_some_and(|idle| since.elapsed() > idle)
    }

    fn give_back(&self, wire: Wire) {
        let now = Instant::now();
        let oldest = {
            let mut resting = lock(&self.resting);
            resting.push(Resting { wire, since: now });
            // The one at the bottom has waited longest, and would for ever while fewer than all are needed.
            let over = resting.first().is_some_and(|oldest| self.is_over(&oldest.wire, oldest.since));
            over.then(|| resting.remove(0))
        };
        // Closed without the lock.
        drop(oldest);
    }
}

/// The use of a connection. Dropped in the middle of something, the connection is closed, and what was open there
/// is rolled back by Postgres.
#[derive(Debug)]
pub(super) struct Lease {
    wire: Option<Wire>,
    pool: Arc<Requests>,
    _permit: OwnedSemaphorePermit,
}

impl Lease {
    pub(super) fn wire(&mut self) -> &mut Wire {
        self.wire.as_mut().expect("present until drop")
    }
}

impl Drop for Lease {
    // Before the permit goes, so that whoever gets that finds the connection.
    fn drop(&mut self) {
        if let Some(wire) = self.wire.take().filter(Wire::is_idle) {
            self.pool.give_back(wire);
        }
    }
}
