//! One lane for each provider and key: its breaker, and how many requests it takes at once.

use std::collections::HashMap;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::Duration;

use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::time::{Instant, timeout_at};

use super::breaker::{Admission, Breaker};
use crate::configuration::ProviderSettings;
use crate::error::{Failure, Fault};
use crate::model::ProviderName;

/// Most lanes that are remembered; those without requests and troubles make room.
const MOST_LANES: usize = 10_000;

/// A provider, and the id of a key at it.
type Name = (ProviderName, Arc<str>);

/// All lanes.
#[derive(Debug, Default)]
pub(super) struct Lanes {
    lanes: Mutex<HashMap<Name, Arc<Lane>>>,
}

/// One lane.
#[derive(Debug)]
pub(super) struct Lane {
    breaker: Mutex<Breaker>,
    places: Arc<Semaphore>,
    waiting: AtomicUsize,
    queue: usize,
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().expect("no code panics while it holds this lock")
}

impl Lanes {
    pub(super) fn of(&self, provider: &ProviderName, key_id: &str, settings: &ProviderSettings) -> Arc<Lane> {
        let mut lanes = lock(&self.lanes);
        let name = (provider.clone(), Arc::<str>::from(key_id));
        if let Some(lane) = lanes.get(&name) {
            return Arc::clone(lane);
        }
        if lanes.len() >= MOST_LANES {
            let now = Instant::now();
            lanes.retain(|_, lane| Arc::strong_count(lane) > 1 || !lock(&lane.breaker).is_idle(now));
        }
        let lane = Arc::new(Lane {
            breaker: Mutex::default(),
            places: Arc::new(Semaphore::new(settings.concurrency)),
            waiting: AtomicUsize::new(0),
            queue: settings.queue,
        });
        if lanes.len() < MOST_LANES {
            lanes.insert(name, Arc::clone(&lane));
        }
        lane
    }
}

impl Lanes {
    /// How many lanes of a provider there are, and how many of them take no requests at the moment.
    pub(super) fn of_provider(&self, provider: &ProviderName, now: Instant) -> (usize, usize) {
        let lanes = lock(&self.lanes);
        let own = lanes.iter().filter(|((of, _), _)| of == provider);
        own.fold((0, 0), |(all, closed), (_, lane)| {
            let refused = matches!(lock(&lane.breaker).clone().admit(now), Admission::Refused(_));
            (all + 1, closed + usize::from(refused))
        })
    }
}

/// Why there is no place.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum NoPlace {
    /// The breaker is open for this much longer.
    Open(Duration),
    /// Too many wait already, or waiting took too long.
    Busy,
}

impl Lane {
    /// Waits for a place until `by`.
    pub(super) async fn enter(self: &Arc<Self>, by: Instant) -> Result<Place, NoPlace> {
        // Looked at before waiting, too: nobody should queue for a provider that is ill.
        if let Admission::Refused(wait) = lock(&self.breaker).clone().admit(Instant::now()) {
            return Err(NoPlace::Open(wait));
        }
        let permit = match Arc::clone(&self.places).try_acquire_owned() {
            Ok(permit) => permit,
            Err(_) => {
                let _waiting = Waiting::new(self).ok_or(NoPlace::Busy)?;
                match timeout_at(by, Arc::clone(&self.places).acquire_owned()).await {
                    Ok(Ok(permit)) => permit,
                    _ => return Err(NoPlace::Busy),
                }
            }
        };
        match lock(&self.breaker).admit(Instant::now()) {
            Admission::Refused(wait) => Err(NoPlace::Open(wait)),
            Admission::Granted | Admission::Probe => {
                Ok(Place { lane: Arc::clone(self), _permit: permit, reported: false })
            }
        }
    }
}

struct Waiting<'a>(&'a Lane);

impl<'a> Waiting<'a> {
    fn new(lane: &'a Lane) -> Option<Self> {
        let before = lane.waiting.fetch_add(1, Ordering::AcqRel);
        // Counted in any case: dropping counts down.
        let waiting = Self(lane);
        (before < lane.queue).then_some(waiting)
    }
}

impl Drop for Waiting<'_> {
    fn drop(&mut self) {
        self.0.waiting.fetch_sub(1, Ordering::AcqRel);
    }
}

/// A place in a lane, held for as long as the answer takes.
#[derive(Debug)]
pub(super) struct Place {
    lane: Arc<Lane>,
    _permit: OwnedSemaphorePermit,
    reported: bool,
}

impl Place {
    /// The provider did its part.
    pub(super) fn succeeded(mut self) {
        self.reported = true;
        lock(&self.lane.breaker).succeeded();
    }

    /// A request failed: counted only if the provider is to blame.
    pub(super) fn failed(mut self, failure: &Failure) {
        self.reported = true;
        let now = Instant::now();
        let mut breaker = lock(&self.lane.breaker);
        if failure.fault.counts_against_health() {
            breaker.failed(now);
        } else if failure.fault == Fault::RateLimited {
            breaker.abandoned(now);
        } else {
            breaker.succeeded();
        }
        if let Some(wait) = failure.retry_after {
            breaker.pause(now, wait);
        }
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        if !self.reported {
            lock(&self.lane.breaker).abandoned(Instant::now());
        }
    }
}

#[cfg(test)]
mod tests {
    use url::Url;

    use super::*;
    use crate::capability::Protocol;

    fn lane(concurrency: usize, queue: usize) -> Arc<Lane> {
        let settings = ProviderSettings {
            protocol: Protocol::Openai,
            base_url: Url::parse("https://api.example.com").unwrap(),
            key_variable: None,
            concurrency,
            queue,
        };
        Lanes::default().of(&ProviderName::new("p"), "k", &settings)
    }

    #[tokio::test]
    async fn places_and_the_queue_are_bounded() {
        let lane = lane(1, 1);
        let patience = Duration::from_millis(50);
        let soon = || Instant::now() + patience;
        let first = lane.enter(soon()).await.unwrap();
        let waiting = tokio::spawn({
            let lane = Arc::clone(&lane);
            async move { lane.enter(Instant::now() + Duration::from_secs(60)).await.map(drop) }
        });
        tokio::task::yield_now().await;
        assert_eq!(lane.enter(soon()).await.unwrap_err(), NoPlace::Busy, "the queue is full");
        first.succeeded();
        waiting.await.unwrap().unwrap();
        let _second = lane.enter(soon()).await.unwrap();
        let before = Instant::now();
        assert_eq!(lane.enter(soon()).await.unwrap_err(), NoPlace::Busy);
        assert!(before.elapsed() >= patience, "it waited as long as it was told");
    }
}
