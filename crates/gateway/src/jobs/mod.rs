//! Jobs: long work that outlives its request, in Postgres.
//!
//! A job is a row. Whoever enqueues it has it for sure; any server of the project leases it, renews the lease while it
//! works, and writes down what became of it. A server that dies lets the lease run out, and another goes on. Work is
//! done at least once: what it does to others should bear being done twice.

mod chat;
mod worker;

use chrono::{DateTime, Utc};
use longhouse_database::{Claims, Database};
use serde::Serialize;
use serde_json::Value;
use std::sync::Arc;
use tokio::sync::Notify;
use tokio_postgres::Row;
use utoipa::ToSchema;
use uuid::Uuid;

use crate::keys::Owner;
use crate::{Error, schema};

pub use chat::{ChatInput, ChatWork};
pub use worker::{JobError, Progress, Work, Workers, WorkersOptions};

/// Most jobs of one person that are not over.
const MOST_OPEN: i64 = 100;

const COLUMNS: &str =
    "id, kind, app, user_id, tenant_id, project_id, input, state, progress, message, result, error,
    attempts, max_attempts, created_at, started_at, ended_at";
const ENQUEUE: &str = const_format::formatcp!(
    "insert into ai.jobs (id, kind, app, user_id, tenant_id, project_id, input, max_attempts, idempotency_key)
     values ($1, $2, $3, $4, $5, $6, $7, $8, $9)
     on conflict (app, coalesce(user_id, '00000000-0000-0000-0000-000000000000'), kind, idempotency_key)
       where idempotency_key is not null
     do update set idempotency_key = excluded.idempotency_key
     returning {COLUMNS}"
);
const OPEN: &str = "select count(*) from ai.jobs where user_id = $1 and state in ('queued', 'running')";
const FIND: &str = const_format::formatcp!("select {COLUMNS} from ai.jobs where id = $1");
const LIST: &str =
    const_format::formatcp!("select {COLUMNS} from ai.jobs order by created_at desc, id limit 100");
// One that nobody works on ends at once; another when its worker hears of it.
const CANCEL: &str = "
    update ai.jobs set cancel_requested = true,
      state = case state when 'queued' then 'cancelled' else state end,
      ended_at = case state when 'queued' then now() else ended_at end
    where id = $1 and state in ('queued', 'running')";
const RETRY: &str = "
    update ai.jobs set state = 'queued', attempts = 0, run_at = now(), cancel_requested = false, error = null,
      progress = 0, message = '', ended_at = null, worker = null, lease_until = null
    where id = $1 and state in ('failed', 'cancelled')";

/// A job, as its owner sees it.
#[derive(Debug, Clone, PartialEq, Serialize, ToSchema)]
pub struct Job {
    /// Its id.
    pub id: Uuid,
    /// What kind of work.
    pub kind: String,
    /// The application.
    pub app: String,
    /// The person.
    pub user_id: Option<Uuid>,
    /// The tenant.
    pub tenant_id: Option<Uuid>,
    /// The project.
    pub project_id: Option<Uuid>,
    /// What was asked.
    #[schema(value_type = Object)]
    pub input: Value,
    /// `queued`, `running`, `done`, `failed`, `cancelled`.
    pub state: String,
    /// From 0 to 1.
    pub progress: f32,
    /// What is being done.
    pub message: String,
    /// What came of it.
    #[schema(value_type = Object)]
    pub result: Option<Value>,
    /// Why it failed, the last time.
    pub error: Option<String>,
    /// How often it was begun.
    pub attempts: i32,
    /// How often it may be.
    pub max_attempts: i32,
    /// When it was enqueued.
    pub created_at: DateTime<Utc>,
    /// When it was first begun.
    pub started_at: Option<DateTime<Utc>>,
    /// When it was over.
    pub ended_at: Option<DateTime<Utc>>,
}

impl Job {
    fn of(row: &Row) -> Self {
        Self {
            id: row.get("id"),
            kind: row.get("kind"),
            app: row.get("app"),
            user_id: row.get("user_id"),
            tenant_id: row.get("tenant_id"),
            project_id: row.get("project_id"),
            input: row.get("input"),
            state: row.get("state"),
            progress: row.get("progress"),
            message: row.get("message"),
            result: row.get("result"),
            error: row.get("error"),
            attempts: row.get("attempts"),
            max_attempts: row.get("max_attempts"),
            created_at: row.get("created_at"),
            started_at: row.get("started_at"),
            ended_at: row.get("ended_at"),
        }
    }

    /// Whether nothing more happens to it by itself.
    #[must_use]
    pub fn is_over(&self) -> bool {
        matches!(self.state.as_str(), "done" | "failed" | "cancelled")
    }

    /// On whose behalf it works.
    #[must_use]
    pub fn owner(&self) -> Owner {
        Owner { app: self.app.clone(), user: self.user_id, tenant: self.tenant_id, project: self.project_id }
    }
}

/// A job to be.
#[derive(Debug, Clone)]
pub struct NewJob {
    /// What kind of work.
    pub kind: &'static str,
    /// On whose behalf.
    pub owner: Owner,
    /// What is asked.
    pub input: Value,
    /// How often it may be begun, 1 to 20.
    pub max_attempts: i32,
    /// The same for every repetition of this request: there is then one job.
    pub idempotency_key: Option<String>,
}

/// The queue. Clones share it.
#[derive(Debug, Clone)]
pub struct Jobs {
    database: Database,
    claims: Arc<Claims>,
    /// Wakes this process's workers before they look by themselves.
    news: Arc<Notify>,
}

impl Jobs {
    /// The queue of a database with the gateway's schema.
    #[must_use]
    pub fn new(database: Database) -> Self {
        Self { database, claims: Arc::new(schema::claims()), news: Arc::new(Notify::new()) }
    }

    /// Adds a job; with an idempotency key that was used before, gives that job.
    ///
    /// # Errors
    /// [`Error::InvalidRequest`] where somebody has too many open, [`Error::Records`].
    pub async fn enqueue(&self, new: NewJob) -> Result<Job, Error> {
        let acting = self.database.as_role(&self.claims);
        if let Some(user) = new.owner.user {
            let open = acting.query_opt(OPEN, &[&user]).await.map_err(schema::records)?;
            if open.is_some_and(|row| row.get::<_, i64>(0) >= MOST_OPEN) {
                let message = "there are 100 jobs that are not over: wait for some, or cancel them";
                return Err(Error::InvalidRequest(message.into()));
            }
        }
        let owner = &new.owner;
        let parameters: [&(dyn tokio_postgres::types::ToSql + Sync); 9] = [
            &Uuid::now_v7(),
            &new.kind,
            &owner.app,
            &owner.user,
            &owner.tenant,
            &owner.project,
            &new.input,
            &new.max_attempts,
            &new.idempotency_key,
        ];
        let row = acting.query_opt(ENQUEUE, &parameters).await.map_err(schema::records)?;
        self.news.notify_one();
        row.map(|row| Job::of(&row)).ok_or_else(|| Error::Records("the job was not stored".into()))
    }

    /// A job that `claims` may see.
    ///
    /// # Errors
    /// [`Error::Records`].
    pub async fn find(&self, claims: &Claims, id: Uuid) -> Result<Option<Job>, Error> {
        let row = self.database.as_role(claims).query_opt(FIND, &[&id]).await.map_err(schema::records)?;
        Ok(row.map(|row| Job::of(&row)))
    }

    /// The newest that `claims` may see, at most 100.
    ///
    /// # Errors
    /// [`Error::Records`].
    pub async fn list(&self, claims: &Claims) -> Result<Vec<Job>, Error> {
        let rows = self.database.as_role(claims).query(LIST, &[]).await.map_err(schema::records)?;
        Ok(rows.iter().map(Job::of).collect())
    }

    /// Cancels a job that `claims` may see: at once where nobody works on it, else within seconds. `None` where there is
    /// no such job.
    ///
    /// # Errors
    /// [`Error::Records`].
    pub async fn cancel(&self, claims: &Claims, id: Uuid) -> Result<Option<Job>, Error> {
        self.change(claims, id, CANCEL).await
    }

    /// Begins a failed or cancelled job anew.
    ///
    /// # Errors
    /// [`Error::Records`].
    pub async fn retry(&self, claims: &Claims, id: Uuid) -> Result<Option<Job>, Error> {
        let job = self.change(claims, id, RETRY).await?;
        self.news.notify_one();
        Ok(job)
    }

    async fn change(&self, claims: &Claims, id: Uuid, sql: &str) -> Result<Option<Job>, Error> {
        // As the caller: row-level security says whether it is theirs.
        if self.find(claims, id).await?.is_none() {
            return Ok(None);
        }
        self.database.as_role(&self.claims).execute(sql, &[&id]).await.map_err(schema::records)?;
        self.find(claims, id).await
    }
}
