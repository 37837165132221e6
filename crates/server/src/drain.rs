//! Stopping without hanging up on anyone.
//!
//! Running → Draining (`/ready` says 503, sessions end by themselves or hand over, HTTP is still answered so
//! that webhooks of calls in progress find us) → Stopping (nothing new is accepted, connections close).

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::watch;
use tokio::time::Instant;

/// Where the process is on its way out.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Phase {
    /// Serving.
    Running,
    /// Ending: sessions should finish or hand over before the deadline.
    Draining {
        /// When the remaining sessions are stopped.
        deadline: Instant,
    },
    /// The listener is closed; sessions must end now.
    Stopping,
}

/// The shared state of shutting down. Cheap to clone; every long-lived session holds one.
#[derive(Debug, Clone)]
pub struct Drain {
    phase: Arc<watch::Sender<Phase>>,
    sessions: Arc<watch::Sender<usize>>,
}

impl Default for Drain {
    fn default() -> Self {
        Self::new()
    }
}

impl Drain {
    /// A process that is running, with no sessions.
    pub fn new() -> Self {
        Self {
            phase: Arc::new(watch::Sender::new(Phase::Running)),
            sessions: Arc::new(watch::Sender::new(0)),
        }
    }

    /// Counts a session until the guard is dropped.
    #[must_use]
    pub fn register(&self) -> Guard {
        self.sessions.send_modify(|count| *count += 1);
        Guard { sessions: Arc::clone(&self.sessions) }
    }

    /// Sessions registered now.
    pub fn sessions(&self) -> usize {
        *self.sessions.borrow()
    }

    /// The phase now.
    pub fn phase(&self) -> Phase {
        *self.phase.borrow()
    }

    /// Whether shutting down has begun.
    pub fn is_draining(&self) -> bool {
        self.phase() != Phase::Running
    }

    /// A receiver that sees every later phase.
    pub fn subscribe(&self) -> watch::Receiver<Phase> {
        self.phase.subscribe()
    }

    /// Begins draining; later calls change nothing.
    pub fn begin(&self, timeout: Duration) {
        self.phase.send_if_modified(|phase| {
            let first = *phase == Phase::Running;
            if first {
                *phase = Phase::Draining { deadline: Instant::now() + timeout };
            }
            first
        });
    }

    /// Goes to [`Phase::Stopping`] at once.
    pub fn stop(&self) {
        self.phase.send_replace(Phase::Stopping);
    }

    /// Resolves when draining has begun (or stopping).
    pub async fn draining(&self) {
        self.reach(|phase| *phase != Phase::Running).await;
    }

    /// Resolves at [`Phase::Stopping`].
    pub async fn stopping(&self) {
        self.reach(|phase| *phase == Phase::Stopping).await;
    }

    /// Resolves when no session is left.
    pub async fn wait(&self) {
        let mut sessions = self.sessions.subscribe();
        sessions.wait_for(|count| *count == 0).await.expect("`self` keeps the sender alive");
    }

    /// The whole way down: drains for at most `timeout`, then stops. Returns how many sessions were cut off.
    pub async fn run(&self, timeout: Duration) -> usize {
        self.begin(timeout);
        let cut_off = match tokio::time::timeout(timeout, self.wait()).await {
            Ok(()) => 0,
            Err(_) => self.sessions(),
        };
        self.stop();
        cut_off
    }

    async fn reach(&self, wanted: impl FnMut(&Phase) -> bool) {
        let mut phase = self.phase.subscribe();
        phase.wait_for(wanted).await.expect("`self` keeps the sender alive");
    }
}

/// One session in progress; see [`Drain::register`].
#[derive(Debug)]
pub struct Guard {
    sessions: Arc<watch::Sender<usize>>,
}

impl Drop for Guard {
    fn drop(&mut self) {
        self.sessions.send_modify(|count| *count -= 1);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn waits_for_sessions_and_no_longer() {
        let drain = Drain::new();
        let guard = drain.register();
        let begun = Instant::now();
        let (cut_off, ()) = tokio::join!(drain.run(Duration::from_secs(20)), async {
            drain.draining().await;
            tokio::time::sleep(Duration::from_millis(50)).await;
            assert_eq!(drain.sessions(), 1);
            drop(guard);
        });
        assert_eq!(cut_off, 0);
        assert!((50..5000).contains(&begun.elapsed().as_millis()));
        assert_eq!(drain.phase(), Phase::Stopping);
    }

    #[tokio::test]
    async fn gives_up_at_the_deadline() {
        let drain = Drain::new();
        let _guard = drain.register();
        assert_eq!(drain.run(Duration::from_millis(20)).await, 1);
        drain.stopping().await;
    }

    #[tokio::test]
    async fn the_first_deadline_stands() {
        let drain = Drain::new();
        drain.begin(Duration::from_secs(5));
        let first = drain.phase();
        drain.begin(Duration::from_secs(50));
        assert_eq!(drain.phase(), first);
    }
}
