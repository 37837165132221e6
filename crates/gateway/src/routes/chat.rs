//! Chat by task, streamed as server-sent events or whole.

use std::convert::Infallible;
use std::sync::Arc;
use std::time::Duration;

use axum::Json;
use axum::extract::State;
use axum::http::{HeaderMap, StatusCode};
use axum::response::sse::{Event, KeepAlive, Sse};
use axum::response::{IntoResponse as _, Response};
use futures_util::{StreamExt as _, stream};
use longhouse_server::ApiError;
use serde::Deserialize;
use serde_json::{Value, json};
use utoipa::ToSchema;

use super::{Api, Body, Caller, OnBehalf, error};
use crate::Error;
use crate::chat::{ChatEvent, ChatRequest, Message, ResponseFormat, Tool, ToolChoice};
use crate::keys::Owner;
use crate::model::{Modality, Task};
use crate::routing::{Call, Report};

/// Between signs of life on a stream whose model is silent.
const ALIVE: Duration = Duration::from_secs(15);

/// What is asked.
#[derive(Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct ChatBody {
    /// A configured task that people may ask for. Default `chat`.
    #[serde(default = "usual_task")]
    task: String,
    /// Who the model is and what it must do.
    system: Option<String>,
    /// The conversation, ending with the turn to be answered: `{"role": "user" | "assistant", "content": "…"}`, or the
    /// gateway's own form with pictures and tool results.
    #[schema(value_type = Vec<Object>)]
    messages: Vec<WrittenMessage>,
    /// Functions that the model may call: `name`, `description`, `parameters` (JSON schema), `strict`.
    #[serde(default)]
    #[schema(value_type = Vec<Object>)]
    tools: Vec<Tool>,
    /// `auto`, `none`, `required`, or `{"named": "…"}`.
    #[serde(default)]
    #[schema(value_type = Object)]
    tool_choice: ToolChoice,
    /// `text`, `json`, or `{"schema": {"name": "…", "schema": {…}}}`.
    #[serde(default)]
    #[schema(value_type = Object)]
    format: ResponseFormat,
    /// Most tokens of the answer.
    max_output_tokens: Option<u32>,
    /// From 0 to 2.
    temperature: Option<f32>,
    /// Whether the answer comes as it is written, as server-sent events. Default true.
    #[serde(default = "yes")]
    stream: bool,
    /// For servers of the project: for whom they ask.
    on_behalf_of: Option<OnBehalf>,
}

/// What is asked, by whom, as the gateway takes it.
pub(super) struct Asked {
    pub(super) task: Task,
    pub(super) owner: Owner,
    pub(super) request: ChatRequest,
}

impl ChatBody {
    /// Whether the caller may ask it.
    pub(super) fn checked(self, api: &Api, caller: &Caller) -> Result<Asked, ApiError> {
        let task = Task::new(&self.task);
        let Some(settings) = api.options.gateway.configuration().tasks.get(&task) else {
            return Err(error::of(Error::UnknownTask(task)));
        };
        if !settings.api && caller.user.is_some() {
            let message = format!("the task `{task}` is not for people to ask for themselves");
            return Err(ApiError::new(StatusCode::FORBIDDEN, "task_not_public", message)
                .hint("GET /ai/v1/tasks lists those with `api`; the operator sets it in models.toml"));
        }
        if settings.modality != Modality::Chat {
            let (wanted, asked) = (settings.modality, Modality::Chat);
            return Err(error::of(Error::WrongModality { task, wanted, asked }));
        }
        let owner = caller.owner(self.on_behalf_of)?;
        let request = ChatRequest {
            system: self.system,
            messages: self.messages.into_iter().map(Message::from).collect(),
            tools: self.tools,
            tool_choice: self.tool_choice,
            format: self.format,
            max_output_tokens: self.max_output_tokens,
            temperature: self.temperature,
            ..ChatRequest::default()
        };
        Ok(Asked { task, owner, request })
    }
}

fn usual_task() -> String {
    "chat".into()
}

fn yes() -> bool {
    true
}

#[derive(Deserialize)]
#[serde(untagged)]
enum WrittenMessage {
    Plain { role: Role, content: String },
    Whole(Message),
}

#[derive(Deserialize)]
#[serde(rename_all = "snake_case")]
enum Role {
    User,
    Assistant,
}

impl From<WrittenMessage> for Message {
    fn from(written: WrittenMessage) -> Self {
        match written {
            WrittenMessage::Plain { role: Role::User, content } => Self::user(&content),
            WrittenMessage::Plain { role: Role::Assistant, content } => Self::assistant(&content),
            WrittenMessage::Whole(message) => message,
        }
    }
}

/// Answers a conversation by the models of a task, streamed as server-sent events: `started` (`call`, `model`,
/// `degraded`, `cached`), then `text`, `reasoning`, `refusal`, `tool_call` and, where the task allows it, `restarted`, and
/// at the end `finished` (`reason`, `usage`) or `error` (`code`, `message`).
#[utoipa::path(
    post, path = "/ai/v1/chat", tag = "ai", request_body = ChatBody,
    responses(
        (status = 200, description = "The answer: events, or with `stream: false` one object", content_type = "text/event-stream"),
        (status = 400, description = "The request is wrong, or too long for the model"),
        (status = 401, description = "No valid key or token"),
        (status = 403, description = "People may not ask for this task"),
        (status = 404, description = "No such task"),
        (status = 422, description = "The content is not allowed"),
        (status = 429, description = "A quota is used up; X-RateLimit-* and Retry-After say which and until when"),
        (status = 503, description = "No model can serve it now"),
    ),
)]
pub(super) async fn chat(
    State(api): State<Arc<Api>>,
    caller: Caller,
    headers: HeaderMap,
    Body(body): Body<ChatBody>,
) -> Result<Response, ApiError> {
    let stream = body.stream;
    let gateway = &api.options.gateway;
    let Asked { task, owner, request } = body.checked(&api, &caller)?;
    let idempotency_key = headers
        .get("idempotency-key")
        .and_then(|key| key.to_str().ok())
        // Of this caller's: nobody gets another's answer by guessing it.
        .map(|key| format!("{}-{key}", owner.user.map(|id| id.to_string()).unwrap_or_default()));
    let call = Call { idempotency_key, ..Call::new(task.as_str(), owner) };
    if stream {
        let served = gateway.chat(&call, request).await.map_err(error::of)?;
        let headers = error::standing_headers(served.report.quota.as_ref());
        let first = event("started", &told(&served.report));
        let rest = served.value.filter_map(|event| std::future::ready(told_event(event)));
        let events = stream::once(std::future::ready(first)).chain(rest).map(Ok::<Event, Infallible>);
        let answer = Sse::new(events).keep_alive(KeepAlive::new().interval(ALIVE));
        return Ok((headers, answer).into_response());
    }
    let served = gateway.complete(&call, request).await.map_err(error::of)?;
    let headers = error::standing_headers(served.report.quota.as_ref());
    let completion = served.value;
    let mut answer = told(&served.report);
    answer["text"] = completion.text().into();
    answer["tool_calls"] = json!(completion.tool_calls().collect::<Vec<_>>());
    answer["refusal"] = json!(completion.refusal);
    answer["reason"] = json!(completion.finish);
    answer["usage"] = json!(completion.usage);
    Ok((headers, Json(answer)).into_response())
}

fn told(report: &Report) -> Value {
    let tried: Vec<Value> = report
        .tried
        .iter()
        .map(|tried| json!({"model": tried.model, "fault": tried.fault.as_str()}))
        .collect();
    json!({
        "call": report.call,
        "model": report.model,
        "degraded": report.is_degraded(),
        "cached": report.cached,
        "tried": tried,
    })
}

fn event(name: &'static str, data: &Value) -> Event {
    Event::default().event(name).data(data.to_string())
}

/// What clients need of an event; pieces of a tool call's arguments are left out, the whole call follows.
fn told_event(event: Result<ChatEvent, Error>) -> Option<Event> {
    let (name, data) = match event {
        Ok(ChatEvent::Text(text)) => ("text", json!({"text": text})),
        Ok(ChatEvent::Reasoning(text)) => ("reasoning", json!({"text": text})),
        Ok(ChatEvent::Refusal(text)) => ("refusal", json!({"text": text})),
        Ok(ChatEvent::ToolCall { index, call }) => ("tool_call", json!({"index": index, "call": call})),
        Ok(ChatEvent::Restarted) => ("restarted", json!({})),
        Ok(ChatEvent::Finished { reason, usage }) => ("finished", json!({"reason": reason, "usage": usage})),
        Ok(_) => return None,
        Err(error) => {
            let error = error::of(error);
            ("error", serde_json::to_value(&error).unwrap_or_default())
        }
    };
    Some(self::event(name, &data))
}
