//! Watches the server and brings it back when it dies.

use std::time::{Duration, Instant};

use tokio::sync::watch;
use tracing::{error, info, warn};

use super::error::ClusterError;
use super::launch::{Launcher, LogMark, Server};

/// What the managed cluster is doing, for health checks.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ClusterState {
    /// Being created or started for the first time.
    Starting,
    /// Accepts connections.
    Running,
    /// It died and is being brought back.
    Restarting {
        /// The try that is under way, from 1.
        attempts: u32,
    },
    /// It could not be brought back; only a new start of Longhouse tries again.
    Failed {
        /// Why, with the last lines of its log.
        reason: String,
    },
    /// Stopped on request.
    Stopped,
}

/// How often and how patiently a dead server is brought back.
#[derive(Debug, Clone, Copy)]
pub struct RestartPolicy {
    /// Tries before giving up.
    pub tries: u32,
    /// Pause before the first try; it doubles with each.
    pub first_pause: Duration,
    /// Longest pause.
    pub longest_pause: Duration,
    /// After running this long, the tries are counted anew.
    pub forgiven_after: Duration,
}

impl Default for RestartPolicy {
    /// Eight tries within half a minute.
    fn default() -> Self {
        Self {
            tries: 8,
            first_pause: Duration::from_millis(100),
            longest_pause: Duration::from_secs(10),
            forgiven_after: Duration::from_secs(60),
        }
    }
}

impl RestartPolicy {
    fn pause(&self, attempt: u32) -> Duration {
        let factor = 1_u32.checked_shl(attempt.saturating_sub(1)).unwrap_or(u32::MAX);
        self.first_pause.saturating_mul(factor).min(self.longest_pause)
    }
}

pub(super) struct Supervisor {
    pub(super) launcher: Launcher,
    pub(super) port: u16,
    pub(super) policy: RestartPolicy,
    pub(super) state: watch::Sender<ClusterState>,
    pub(super) stop: watch::Receiver<bool>,
}

impl Supervisor {
    /// Runs until stopped. Dropping the future leaves the server running.
    pub(super) async fn run(mut self, server: Server) -> Result<(), ClusterError> {
        let mut server = Some(server);
        let mut attempts = 0;
        while let Some(mut running) = server.take() {
            let since = Instant::now();
            let mark = LogMark::new(&self.launcher.folder.log());
            let stop = tokio::select! {
                biased;
                () = requested(&mut self.stop) => true,
                () = running.exited() => false,
            };
            if stop {
                let stopped = running.stop().await;
                self.state.send_replace(match &stopped {
                    Ok(()) => ClusterState::Stopped,
                    Err(error) => ClusterState::Failed { reason: error.to_string() },
                });
                return stopped;
            }
            if since.elapsed() >= self.policy.forgiven_after {
                attempts = 0;
            }
            let said = super::launch::tail(&mark.since(&self.launcher.folder.log()));
            warn!(pid = running.pid, log = said, "Postgres ended unexpectedly; restarting it");
            server = self.restart(&mut attempts, said).await;
        }
        // Failed or stopped while restarting: nothing runs any more.
        requested(&mut self.stop).await;
        self.state.send_replace(ClusterState::Stopped);
        Ok(())
    }

    /// Brings the server back; `None` when it cannot or when stopped meanwhile.
    async fn restart(&mut self, attempts: &mut u32, mut reason: String) -> Option<Server> {
        while *attempts < self.policy.tries {
            *attempts += 1;
            self.state.send_replace(ClusterState::Restarting { attempts: *attempts });
            tokio::select! {
                biased;
                () = requested(&mut self.stop) => return None,
                () = tokio::time::sleep(self.policy.pause(*attempts)) => {}
            }
            match self.launcher.launch(self.port, Some(&self.stop)).await {
                Ok(server) => {
                    metrics::counter!("longhouse_postgres_restarts_total").increment(1);
                    info!(pid = server.pid, attempts = *attempts, "Postgres is back");
                    self.state.send_replace(ClusterState::Running);
                    return Some(server);
                }
                Err(_) if *self.stop.borrow() => return None,
                Err(error) => {
                    reason = error.to_string();
                    warn!(attempts = *attempts, reason, "Postgres did not come back");
                }
            }
        }
        let reason = format!(
            "Postgres ended {} times in a row; restart Longhouse when the cause is removed: {reason}",
            *attempts
        );
        error!(reason, "giving up on Postgres");
        self.state.send_replace(ClusterState::Failed { reason });
        None
    }
}

/// Returns when a stop is requested. A dropped cluster is no request: its server stays.
async fn requested(stop: &mut watch::Receiver<bool>) {
    if stop.wait_for(|stop| *stop).await.is_err() {
        std::future::pending::<()>().await;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pauses_double_up_to_a_bound() {
        let policy = RestartPolicy::default();
        let pauses: Vec<_> = (1..=8).map(|attempt| policy.pause(attempt).as_millis()).collect();
        assert_eq!(pauses, [100, 200, 400, 800, 1600, 3200, 6400, 10_000]);
        assert_eq!(policy.pause(u32::MAX), policy.longest_pause);
    }
}
