//! Pieces of `GenerateContentResponse` to events.

use std::collections::VecDeque;

use serde::Deserialize;
use serde_json::{Value, json};

use super::PROTOCOL;
use crate::chat::{ChatEvent, FinishReason, Opaque, ToolCall};
use crate::error::Fault;
use crate::providers::sse::Event;
use crate::providers::wire::{Broken, ChatReader};
use crate::usage::Usage;

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Piece {
    #[serde(default)]
    candidates: Vec<Candidate>,
    prompt_feedback: Option<PromptFeedback>,
    usage_metadata: Option<WrittenUsage>,
    model_version: Option<String>,
    response_id: Option<String>,
    error: Option<Value>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Candidate {
    content: Option<Content>,
    finish_reason: Option<String>,
    finish_message: Option<String>,
}

#[derive(Deserialize)]
struct Content {
    #[serde(default)]
    parts: Vec<Part>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Part {
    text: Option<String>,
    #[serde(default)]
    thought: bool,
    thought_signature: Option<String>,
    function_call: Option<FunctionCall>,
}

#[derive(Deserialize)]
struct FunctionCall {
    id: Option<String>,
    name: String,
    args: Option<Value>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct PromptFeedback {
    block_reason: Option<String>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct WrittenUsage {
    #[serde(default)]
    prompt_token_count: u64,
    #[serde(default)]
    candidates_token_count: u64,
    #[serde(default)]
    thoughts_token_count: u64,
    #[serde(default)]
    tool_use_prompt_token_count: u64,
    #[serde(default)]
    cached_content_token_count: u64,
}

impl From<&WrittenUsage> for Usage {
    fn from(written: &WrittenUsage) -> Self {
        Self {
            input_tokens: written.prompt_token_count + written.tool_use_prompt_token_count,
            cached_input_tokens: written.cached_content_token_count,
            // The vendor counts thoughts apart from what it shows.
            output_tokens: written.candidates_token_count + written.thoughts_token_count,
            reasoning_tokens: written.thoughts_token_count,
            ..Self::default()
        }
    }
}

/// Reads one answer.
#[derive(Default)]
pub(super) struct Reader {
    started: bool,
    calls: usize,
    usage: Option<Usage>,
    reason: Option<FinishReason>,
}

impl Reader {
    fn part(&mut self, part: Part, out: &mut VecDeque<ChatEvent>) {
        if let Some(function) = part.function_call {
            let index = self.calls;
            self.calls += 1;
            let id = function.id.unwrap_or_else(|| format!("local_{}", uuid::Uuid::new_v4().simple()));
            let arguments = function.args.filter(Value::is_object).unwrap_or_else(|| json!({})).to_string();
            let name = function.name;
            out.push_back(ChatEvent::ToolCallStarted { index, id: id.clone(), name: name.clone() });
            out.push_back(ChatEvent::ToolCallArguments { index, delta: arguments.clone() });
            let call = ToolCall { id, name, arguments, signature: part.thought_signature };
            out.push_back(ChatEvent::ToolCall { index, call });
            return;
        }
        if let Some(text) = part.text.filter(|text| !text.is_empty()) {
            out.push_back(if part.thought { ChatEvent::Reasoning(text) } else { ChatEvent::Text(text) });
        }
        if let Some(signature) = part.thought_signature {
            let value = json!({"text": "", "thoughtSignature": signature});
            out.push_back(ChatEvent::Opaque(Opaque { protocol: PROTOCOL.into(), value }));
        }
    }
}

impl ChatReader for Reader {
    fn event(&mut self, event: &Event, out: &mut VecDeque<ChatEvent>) -> Result<(), Broken> {
        let piece: Piece = serde_json::from_str(&event.data)?;
        if let Some(error) = piece.error {
            let fault = match error["status"].as_str() {
                Some("RESOURCE_EXHAUSTED") => Fault::RateLimited,
                Some("UNAVAILABLE") => Fault::Overloaded,
                _ => Fault::ServerError,
            };
            let message = error["message"].as_str().unwrap_or_default().to_owned();
            return Err(Broken::Failed { fault, message });
        }
        if !std::mem::replace(&mut self.started, true) {
            let model = piece.model_version.unwrap_or_default();
            out.push_back(ChatEvent::Started { id: piece.response_id, model });
        }
        if let Some(usage) = &piece.usage_metadata {
            self.usage = Some(usage.into());
        }
        if let Some(reason) = piece.prompt_feedback.and_then(|feedback| feedback.block_reason) {
            return Err(Broken::Failed {
                fault: Fault::ContentRefused,
                message: format!("the prompt was blocked: {reason}"),
            });
        }
        let Some(candidate) = piece.candidates.into_iter().next() else {
            return if self.usage.is_some() {
                Ok(())
            } else {
                Err(Broken::Malformed("neither an answer nor usage".into()))
            };
        };
        for part in candidate.content.map(|content| content.parts).unwrap_or_default() {
            self.part(part, out);
        }
        if let Some(reason) = candidate.finish_reason {
            self.reason = Some(match reason.as_str() {
                "STOP" => FinishReason::Stop,
                "MAX_TOKENS" => FinishReason::Length,
                "SAFETY" | "RECITATION" | "BLOCKLIST" | "PROHIBITED_CONTENT" | "SPII" => {
                    FinishReason::Refused
                }
                // The model wrote a call that nobody can read; asking again helps.
                "MALFORMED_FUNCTION_CALL" | "UNEXPECTED_TOOL_CALL" | "TOO_MANY_TOOL_CALLS" => {
                    let message = candidate.finish_message.unwrap_or(reason);
                    return Err(Broken::Failed { fault: Fault::Malformed, message });
                }
                _ => FinishReason::Other,
            });
        }
        Ok(())
    }

    /// The protocol has no last event: the answer is whole when a reason to stop has come.
    fn end(&mut self, out: &mut VecDeque<ChatEvent>) -> Result<(), Broken> {
        let Some(mut reason) = self.reason else { return Err(Broken::Incomplete) };
        if self.calls > 0 && reason == FinishReason::Stop {
            reason = FinishReason::ToolCalls;
        }
        let usage = self.usage.unwrap_or(Usage { estimated: true, ..Usage::default() });
        out.push_back(ChatEvent::Finished { reason, usage });
        Ok(())
    }
}
