//! Answers that are given again, for tasks that allow it.

use futures_util::{StreamExt as _, stream};
use tokio::time::timeout_at;
use uuid::Uuid;

use super::meter::blank;
use super::{Call, Gateway, Report, Served};
use crate::cache::{Answer, CacheKey, Found, Leader, Scope};
use crate::chat::{AssistantPart, ChatEvent, ChatRequest, ChatStream, Completion, FinishReason};
use crate::configuration::TaskSettings;
use crate::error::Error;
use crate::ledger::Outcome;
use crate::model::{Modality, ModelRef};
use crate::usage::Usage;

/// What is known of a request that may have been answered before.
pub(super) enum Before {
    /// It was.
    Answered(Served<ChatStream>),
    /// It was not; with `Some`, others wait for this one's answer.
    Ask(Option<Leader>),
}

impl Gateway {
    /// Looks for an answer to the same request, or waits for one that is on its way.
    pub(super) async fn before(
        &self,
        call: &Call,
        id: Uuid,
        settings: &TaskSettings,
        request: &ChatRequest,
        deadline: tokio::time::Instant,
    ) -> Result<Before, Error> {
        // An answer that calls tools belongs to its conversation.
        if settings.cache.is_zero() || !request.tools.is_empty() {
            return Ok(Before::Ask(None));
        }
        let scope = if settings.cache_public { Scope::Public } else { Scope::Owner(&call.owner) };
        let key = CacheKey::new(scope, &call.task, &settings.models, request);
        let begun = tokio::time::Instant::now();
        let found = timeout_at(deadline, self.inner.answers.find(key)).await.map_err(|_| {
            Error::Deadline { task: call.task.clone(), deadline: deadline.duration_since(begun) }
        })?;
        let outcome = match &found {
            Found::Answer(_) => "hit",
            Found::Make(_) => "miss",
        };
        metrics::counter!("gateway_cache_total", "task" => call.task.to_string(), "outcome" => outcome)
            .increment(1);
        let answer = match found {
            Found::Make(leader) => return Ok(Before::Ask(Some(leader))),
            Found::Answer(answer) => answer,
        };
        let mut entry = blank(call, id, Modality::Chat);
        entry.model = Some(answer.model.clone());
        entry.outcome = Outcome::Done;
        entry.cached = true;
        entry.latency = begun.elapsed();
        entry.first_content = Some(entry.latency);
        if let Err(error) = self.inner.ledger.record(entry).await {
            metrics::counter!("gateway_records_lost_total").increment(1);
            tracing::error!(%error, call = %id, "a call could not be recorded");
        }
        let report =
            Report { call: id, model: answer.model.clone(), tried: Vec::new(), quota: None, cached: true };
        Ok(Before::Answered(Served { value: told_again(&answer), report }))
    }
}

/// An answer as the events it was once made of. It consumes nothing.
fn told_again(answer: &Answer) -> ChatStream {
    let Completion { id, model, parts, reasoning, refusal, finish, .. } = answer.completion.clone();
    let mut events = vec![ChatEvent::Started { id, model }];
    if !reasoning.is_empty() {
        events.push(ChatEvent::Reasoning(reasoning));
    }
    events.extend(refusal.map(ChatEvent::Refusal));
    events.extend(parts.into_iter().filter_map(|part| match part {
        AssistantPart::Text(text) => Some(ChatEvent::Text(text)),
        AssistantPart::Opaque(opaque) => Some(ChatEvent::Opaque(opaque)),
        AssistantPart::ToolCall(_) => None,
    }));
    let reason = finish.unwrap_or(FinishReason::Stop);
    events.push(ChatEvent::Finished { reason, usage: Usage::default() });
    ChatStream::new(stream::iter(events.into_iter().map(Ok)))
}

/// Keeps an answer while it is handed on, if it comes to a good end.
pub(super) fn kept(
    leader: Option<Leader>,
    model: ModelRef,
    settings: &TaskSettings,
    answer: ChatStream,
) -> ChatStream {
    let Some(leader) = leader else { return answer };
    let lasts = settings.cache;
    let keeping = (answer, Some((leader, Completion::default())));
    ChatStream::new(stream::unfold(keeping, move |(mut answer, mut keeping)| {
        let model = model.clone();
        async move {
            let event = answer.next().await?;
            match &event {
                Ok(event) => {
                    if let Some((_, completion)) = &mut keeping {
                        completion.push(event.clone());
                    }
                    if let ChatEvent::Finished { reason, .. } = event
                        && let Some((leader, completion)) = keeping.take()
                        // An answer that was cut off or refused may do better next time.
                        && *reason == FinishReason::Stop
                    {
                        leader.answered(completion, model, lasts);
                    }
                }
                Err(_) => keeping = None,
            }
            Some((event, (answer, keeping)))
        }
    }))
}
