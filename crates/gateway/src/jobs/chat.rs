//! Chats as jobs: the answer is a row, whoever waits for it or not.

use async_trait::async_trait;
use futures_util::StreamExt as _;
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use super::{Job, JobError, Progress, Work};
use crate::Gateway;
use crate::chat::{ChatEvent, ChatRequest, Completion};
use crate::routing::Call;

/// What such a job asks.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct ChatInput {
    /// The task.
    pub task: String,
    /// The request.
    pub request: ChatRequest,
}

/// Answers chats by the gateway.
#[derive(Debug, Clone)]
pub struct ChatWork(pub Gateway);

#[async_trait]
impl Work for ChatWork {
    async fn run(&self, job: &Job, progress: &Progress) -> Result<Value, JobError> {
        let input: ChatInput = serde_json::from_value(job.input.clone())
            .map_err(|error| JobError::Final(format!("the job asks for nothing that is known: {error}")))?;
        let call = Call {
            // A repetition is the same request to the provider, where it recognises one.
            idempotency_key: Some(job.id.to_string()),
            restart: Some(true),
            ..Call::new(&input.task, job.owner())
        };
        let failed = |error: crate::Error| match error.is_retryable() {
            true => JobError::Passing(error.to_string()),
            false => JobError::Final(error.to_string()),
        };
        let most = input.request.max_output_tokens.map_or(8_192.0, |tokens| tokens as f32) * 4.0;
        let mut served = self.0.chat(&call, input.request).await.map_err(failed)?;
        let mut completion = Completion::default();
        let mut written = 0;
        while let Some(event) = served.value.next().await {
            let event = event.map_err(failed)?;
            if let ChatEvent::Text(text) = &event {
                written += text.len();
                progress.report((written as f32 / most).min(0.95), &format!("{written} characters written"));
            }
            completion.push(event);
        }
        Ok(json!({
            "call": served.report.call,
            "model": served.report.model,
            "cached": served.report.cached,
            "text": completion.text(),
            "tool_calls": completion.tool_calls().collect::<Vec<_>>(),
            "refusal": completion.refusal,
            "reason": completion.finish,
            "usage": completion.usage,
        }))
    }
}
