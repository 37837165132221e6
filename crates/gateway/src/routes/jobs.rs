//! Jobs: long work whose answer is fetched later, or followed while it is done.

use std::convert::Infallible;
use std::sync::Arc;
use std::time::Duration;

use axum::Json;
use axum::extract::{Path, State};
use axum::http::{HeaderMap, StatusCode};
use axum::response::sse::{Event, KeepAlive, Sse};
use axum::response::{IntoResponse as _, Response};
use futures_util::stream;
use longhouse_server::ApiError;
use uuid::Uuid;

use super::chat::ChatBody;
use super::{Api, Body, Caller, error};
use crate::jobs::{ChatInput, Job, NewJob};

/// Between two looks at a job that is followed.
const LOOK: Duration = Duration::from_millis(500);
/// Looks before a follower is asked to come again: an hour.
const LOOKS: u32 = 7_200;
/// How often a job may be begun.
const ATTEMPTS: i32 = 3;

fn unknown() -> ApiError {
    ApiError::new(StatusCode::NOT_FOUND, "unknown_job", "there is no such job")
        .hint("GET /ai/v1/jobs lists yours")
}

/// Enqueues a chat. With an `Idempotency-Key` that was used before, it gives that job.
#[utoipa::path(
    post, path = "/ai/v1/jobs/chat", tag = "ai", request_body = ChatBody,
    responses(
        (status = 202, body = Job),
        (status = 400, description = "The request is wrong, or 100 jobs are not over"),
        (status = 401, description = "No valid key or token"),
        (status = 403, description = "People may not ask for this task"),
        (status = 404, description = "No such task"),
    ),
)]
pub(super) async fn chat(
    State(api): State<Arc<Api>>,
    caller: Caller,
    headers: HeaderMap,
    Body(body): Body<ChatBody>,
) -> Result<(StatusCode, Json<Job>), ApiError> {
    let asked = body.checked(&api, &caller)?;
    asked.request.check().map_err(error::of)?;
    let input = ChatInput { task: asked.task.to_string(), request: asked.request };
    let idempotency_key = match headers.get("idempotency-key") {
        None => None,
        Some(key) => match key.to_str() {
            Ok(key) if (1..=200).contains(&key.len()) => Some(key.to_owned()),
            _ => return Err(error::invalid("`Idempotency-Key` has 1 to 200 characters of ASCII")),
        },
    };
    let input = serde_json::to_value(&input).map_err(|error| error::invalid(error.to_string()))?;
    let new = NewJob { kind: "chat", owner: asked.owner, input, max_attempts: ATTEMPTS, idempotency_key };
    let job = api.options.jobs.enqueue(new).await.map_err(error::of)?;
    Ok((StatusCode::ACCEPTED, Json(job)))
}

/// Lists the caller's newest jobs, at most 100.
#[utoipa::path(
    get, path = "/ai/v1/jobs", tag = "ai",
    responses((status = 200, body = Vec<Job>), (status = 401, description = "No valid key or token")),
)]
pub(super) async fn list(State(api): State<Arc<Api>>, caller: Caller) -> Result<Json<Vec<Job>>, ApiError> {
    api.options.jobs.list(&caller.claims).await.map(Json).map_err(error::of)
}

/// Tells how far a job is, or what became of it.
#[utoipa::path(
    get, path = "/ai/v1/jobs/{id}", tag = "ai", params(("id" = Uuid, Path, description = "The job's id")),
    responses(
        (status = 200, body = Job),
        (status = 401, description = "No valid key or token"),
        (status = 404, description = "The caller has no such job"),
    ),
)]
pub(super) async fn find(
    State(api): State<Arc<Api>>,
    caller: Caller,
    Path(id): Path<Uuid>,
) -> Result<Json<Job>, ApiError> {
    let job = api.options.jobs.find(&caller.claims, id).await.map_err(error::of)?;
    job.map(Json).ok_or_else(unknown)
}

/// Cancels a job: at once where nobody works on it yet, else within seconds.
#[utoipa::path(
    delete, path = "/ai/v1/jobs/{id}", tag = "ai", params(("id" = Uuid, Path, description = "The job's id")),
    responses(
        (status = 200, body = Job, description = "As it is now"),
        (status = 401, description = "No valid key or token"),
        (status = 404, description = "The caller has no such job"),
    ),
)]
pub(super) async fn cancel(
    State(api): State<Arc<Api>>,
    caller: Caller,
    Path(id): Path<Uuid>,
) -> Result<Json<Job>, ApiError> {
    let job = api.options.jobs.cancel(&caller.claims, id).await.map_err(error::of)?;
    job.map(Json).ok_or_else(unknown)
}

/// Begins a failed or cancelled job anew.
#[utoipa::path(
    post, path = "/ai/v1/jobs/{id}/retry", tag = "ai", params(("id" = Uuid, Path, description = "The job's id")),
    responses(
        (status = 200, body = Job, description = "As it is now"),
        (status = 401, description = "No valid key or token"),
        (status = 404, description = "The caller has no such job"),
    ),
)]
pub(super) async fn retry(
    State(api): State<Arc<Api>>,
    caller: Caller,
    Path(id): Path<Uuid>,
) -> Result<Json<Job>, ApiError> {
    let job = api.options.jobs.retry(&caller.claims, id).await.map_err(error::of)?;
    job.map(Json).ok_or_else(unknown)
}

/// Follows a job by server-sent events: `progress` whenever something changed, and at last `ended`, each with the job.
#[utoipa::path(
    get, path = "/ai/v1/jobs/{id}/events", tag = "ai", params(("id" = Uuid, Path, description = "The job's id")),
    responses(
        (status = 200, description = "Events", content_type = "text/event-stream"),
        (status = 401, description = "No valid key or token"),
        (status = 404, description = "The caller has no such job"),
    ),
)]
pub(super) async fn follow(
    State(api): State<Arc<Api>>,
    caller: Caller,
    Path(id): Path<Uuid>,
) -> Result<Response, ApiError> {
    let first = api.options.jobs.find(&caller.claims, id).await.map_err(error::of)?.ok_or_else(unknown)?;
    let following = Following { api, caller, id, next: Some(first), told: None, looks: 0 };
    let events = stream::unfold(Some(following), async |following| {
        let mut following = following?;
        let event = following.next_event().await?;
        let over = following.told.as_ref().is_none_or(Job::is_over);
        Some((Ok::<Event, Infallible>(event), (!over).then_some(following)))
    });
    Ok(Sse::new(events).keep_alive(KeepAlive::new()).into_response())
}

struct Following {
    api: Arc<Api>,
    caller: Caller,
    id: Uuid,
    next: Option<Job>,
    told: Option<Job>,
    looks: u32,
}

impl Following {
    /// The next change. `None` when the follower is to come again: after an hour, or when the job or the database is
    /// away.
    async fn next_event(&mut self) -> Option<Event> {
        loop {
            let job = match self.next.take() {
                Some(job) => job,
                None => {
                    self.looks += 1;
                    if self.looks > LOOKS {
                        return None;
                    }
                    tokio::time::sleep(LOOK).await;
                    // As the caller, each time: what they may see may change.
                    self.api.options.jobs.find(&self.caller.claims, self.id).await.ok()??
                }
            };
            if self.told.as_ref() == Some(&job) {
                continue;
            }
            let name = if job.is_over() { "ended" } else { "progress" };
            let event = Event::default().event(name).json_data(&job).ok()?;
            self.told = Some(job);
            return Some(event);
        }
    }
}
