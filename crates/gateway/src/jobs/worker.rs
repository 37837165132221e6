//! Workers: they lease jobs, work, and write down what became of them.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use serde_json::Value;
use tokio::sync::watch;
use tokio::task::JoinSet;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;
use uuid::Uuid;

use super::{COLUMNS, Job, Jobs};

/// Longest message that is kept, in characters.
const MESSAGE: usize = 500;
/// First and longest pause before a job is tried again.
const PAUSES: (f64, f64) = (2.0, 600.0);
/// Jobs that are over are forgotten after this.
const KEPT_DAYS: i32 = 30;

const CLAIM: &str = const_format::formatcp!(
    "update ai.jobs set state = 'running', attempts = attempts + 1, worker = $1,
       lease_until = now() + make_interval(secs => $2), started_at = coalesce(started_at, now())
     where id = (
       select j.id from ai.jobs j
       where j.kind = any($3) and not j.cancel_requested and j.attempts < j.max_attempts
         and ((j.state = 'queued' and j.run_at <= now()) or (j.state = 'running' and j.lease_until < now()))
       order by j.run_at limit 1 for update skip locked)
     returning {COLUMNS}"
);
// Leases that ran out, of jobs that may not be begun again or are not wanted any more.
const BURY: &str = "
    update ai.jobs set ended_at = now(), worker = null, lease_until = null,
      state = case when cancel_requested then 'cancelled' else 'failed' end,
      error = coalesce(error, case when cancel_requested then null else 'the server that worked on it ended' end)
    where state = 'running' and lease_until < now() and (attempts >= max_attempts or cancel_requested)";
const RENEW: &str = "
    update ai.jobs set lease_until = now() + make_interval(secs => $3), progress = $4, message = $5
    where id = $1 and worker = $2 and state = 'running' returning cancel_requested";
const END: &str = "
    update ai.jobs set state = $3, result = $4, error = $5, ended_at = now(), worker = null, lease_until = null,
      progress = case when $3 = 'done' then 1 else progress end
    where id = $1 and worker = $2 and state = 'running'";
const AGAIN: &str = "
    update ai.jobs set state = 'queued', run_at = now() + make_interval(secs => $3), error = $4, worker = null,
      lease_until = null
    where id = $1 and worker = $2 and state = 'running'";
// Given back by a server that stops: it does not count as an attempt.
const RELEASE: &str = "
    update ai.jobs set state = 'queued', run_at = now(), attempts = attempts - 1, worker = null, lease_until = null
    where id = $1 and worker = $2 and state = 'running'";
const FORGET: &str = "delete from ai.jobs where ended_at < now() - make_interval(days => $1)";

/// Why a job's work did not come to its end.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum JobError {
    /// It may do so another time.
    #[error("{0}")]
    Passing(String),
    /// It never will.
    #[error("{0}")]
    Final(String),
}

/// Does one kind of work.
#[async_trait]
pub trait Work: Send + Sync {
    /// Works. Dropped when the job is cancelled, or when the server stops: then another does it from the beginning.
    ///
    /// # Errors
    /// [`JobError`].
    async fn run(&self, job: &Job, progress: &Progress) -> Result<Value, JobError>;
}

/// How far a job is, for those who look.
#[derive(Debug)]
pub struct Progress(watch::Sender<(f32, String)>);

impl Progress {
    /// `done` from 0 to 1. Written to the database with the next renewal of the lease, so it may be called often.
    pub fn report(&self, done: f32, message: &str) {
        let done = if done.is_finite() { done.clamp(0.0, 1.0) } else { 0.0 };
        let message: String = message.chars().filter(|c| *c != '\0').take(MESSAGE).collect();
        self.0.send_replace((done, message));
    }
}

/// Bounds of the workers.
#[derive(Debug, Clone, Copy)]
pub struct WorkersOptions {
    /// Jobs at once. Default 4.
    pub at_once: usize,
    /// How long a server that says nothing is believed to work. Default 30 s.
    pub lease: Duration,
    /// Between renewals of a lease, which also carry progress and hear of cancellation. Default 1 s.
    pub renew: Duration,
    /// Between looks for jobs that others enqueued. Default 1 s.
    pub look: Duration,
}

impl Default for WorkersOptions {
    fn default() -> Self {
        let second = Duration::from_secs(1);
        Self { at_once: 4, lease: 30 * second, renew: second, look: second }
    }
}

/// The workers of a process.
#[derive(Debug)]
pub struct Workers {
    stop: CancellationToken,
    tasks: JoinSet<()>,
}

#[derive(Clone)]
struct Worker {
    jobs: Jobs,
    id: Uuid,
    works: Arc<HashMap<&'static str, Arc<dyn Work>>>,
    options: WorkersOptions,
    stop: CancellationToken,
}

impl Workers {
    /// Starts them.
    #[must_use]
    pub fn start(jobs: &Jobs, works: HashMap<&'static str, Arc<dyn Work>>, options: WorkersOptions) -> Self {
        let stop = CancellationToken::new();
        let works = Arc::new(works);
        let mut tasks = JoinSet::new();
        for _ in 0..options.at_once {
            let (jobs, works, stop) = (jobs.clone(), Arc::clone(&works), stop.clone());
            tasks.spawn(Worker { jobs, id: Uuid::now_v7(), works, options, stop }.work());
        }
        Self { stop, tasks }
    }

    /// Gives back what they work on, and ends.
    pub async fn close(mut self) {
        self.stop.cancel();
        while let Some(ended) = self.tasks.join_next().await {
            if let Err(error) = ended {
                tracing::error!(%error, "a worker failed");
            }
        }
    }
}

impl Worker {
    async fn work(self) {
        let kinds: Vec<&str> = self.works.keys().copied().collect();
        let mut tidied = None;
        loop {
            match self.claim(&kinds, &mut tidied).await {
                Ok(Some(job)) => {
                    // A task of its own, so that a panic ends one job and not the worker.
                    let (worker, id) = (self.clone(), job.id);
                    if let Err(error) = tokio::spawn(async move { Box::pin(worker.run(job)).await }).await {
                        tracing::error!(%error, job = %id, "a job panicked");
                        self.write(
                            END,
                            id,
                            &[&"failed", &None::<Value>, &Some("its work failed unexpectedly")],
                        )
                        .await;
                    }
                }
                Ok(None) => {
                    tokio::select! {
                        () = self.jobs.news.notified() => {}
                        () = tokio::time::sleep(self.options.look) => {}
                        () = self.stop.cancelled() => {}
                    }
                }
                Err(error) => {
                    tracing::warn!(%error, "the queue of jobs cannot be read; trying again");
                    tokio::select! {
                        () = tokio::time::sleep(self.options.look * 2) => {}
                        () = self.stop.cancelled() => {}
                    }
                }
            }
            if self.stop.is_cancelled() {
                return;
            }
        }
    }

    /// A job, if one is due. Now and then it looks after those that nobody works on any more.
    async fn claim(
        &self,
        kinds: &[&str],
        tidied: &mut Option<Instant>,
    ) -> Result<Option<Job>, longhouse_database::Error> {
        let acting = self.jobs.database.as_role(&self.jobs.claims);
        let lease = self.options.lease.as_secs_f64();
        if let Some(row) = acting.query_opt(CLAIM, &[&self.id, &lease, &kinds]).await? {
            return Ok(Some(Job::of(&row)));
        }
        if tidied.is_none_or(|at| at.elapsed() >= self.options.lease) {
            *tidied = Some(Instant::now());
            acting.execute(BURY, &[]).await?;
            acting.execute(FORGET, &[&KEPT_DAYS]).await?;
        }
        Ok(None)
    }

    async fn run(&self, job: Job) {
        let id = job.id;
        let Some(work) = self.works.get(job.kind.as_str()).cloned() else { return };
        let (sender, progress) = watch::channel((job.progress, job.message.clone()));
        let sender = Progress(sender);
        let outcome = tokio::select! {
            outcome = work.run(&job, &sender) => Some(outcome),
            ended = self.renew(id, progress) => {
                if ended == Ended::Cancelled {
                    self.write(END, id, &[&"cancelled", &None::<Value>, &None::<&str>]).await;
                }
                None
            }
            () = self.stop.cancelled() => {
                self.write(RELEASE, id, &[]).await;
                None
            }
        };
        let label = match &outcome {
            None => "interrupted",
            Some(Ok(_)) => "done",
            Some(Err(_)) => "failed",
        };
        metrics::counter!("gateway_jobs_total", "kind" => job.kind.clone(), "outcome" => label).increment(1);
        match outcome {
            None => {}
            Some(Ok(result)) => self.write(END, id, &[&"done", &Some(result), &None::<&str>]).await,
            Some(Err(JobError::Passing(reason))) if job.attempts < job.max_attempts => {
                let pause = (PAUSES.0 * f64::from(job.attempts.min(20)).exp2() / 2.0).min(PAUSES.1);
                tracing::info!(job = %id, reason, pause, "a job is tried again");
                self.write(AGAIN, id, &[&pause, &Some(reason)]).await;
            }
            Some(Err(error)) => {
                self.write(END, id, &[&"failed", &None::<Value>, &Some(error.to_string())]).await;
            }
        }
    }

    /// Keeps the lease until it is lost or the job cancelled.
    async fn renew(&self, id: Uuid, progress: watch::Receiver<(f32, String)>) -> Ended {
        let lease = self.options.lease.as_secs_f64();
        let mut kept = Instant::now();
        loop {
            tokio::time::sleep(self.options.renew).await;
            let (done, message) = progress.borrow().clone();
            let acting = self.jobs.database.as_role(&self.jobs.claims);
            match acting.query_opt(RENEW, &[&id, &self.id, &lease, &done, &message]).await {
                Ok(Some(row)) if row.get(0) => return Ended::Cancelled,
                Ok(Some(_)) => kept = Instant::now(),
                Ok(None) => return Ended::Lost,
                // Another server may have it by now.
                Err(_) if kept.elapsed() > self.options.lease => return Ended::Lost,
                Err(error) => tracing::warn!(%error, job = %id, "a lease could not be renewed; trying again"),
            }
        }
    }

    /// What the database does not take, the end of the lease tells.
    async fn write(&self, sql: &str, id: Uuid, more: &[&(dyn tokio_postgres::types::ToSql + Sync)]) {
        let mut parameters: Vec<&(dyn tokio_postgres::types::ToSql + Sync)> = vec![&id, &self.id];
        parameters.extend_from_slice(more);
        for attempt in 1..=3 {
            match self.jobs.database.as_role(&self.jobs.claims).execute(sql, &parameters).await {
                Ok(_) => return,
                Err(error) if error.is_transient() && attempt < 3 => {
                    tokio::time::sleep(self.options.renew).await;
                }
                Err(error) => {
                    tracing::error!(%error, job = %id, "what became of a job could not be written");
                    return;
                }
            }
        }
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Ended {
    /// Its owner does not want it any more.
    Cancelled,
    /// Another server has it.
    Lost,
}
