//! `response.*` events to ours.

use std::collections::{BTreeMap, VecDeque};

use serde::Deserialize;
use serde_json::Value;

use super::fault_of_code;
use super::responses::PROTOCOL;
use crate::chat::{ChatEvent, FinishReason, Opaque, ToolCall};
use crate::error::Fault;
use crate::providers::sse::Event;
use crate::providers::wire::{Broken, ChatReader};
use crate::usage::Usage;

#[derive(Deserialize)]
#[serde(tag = "type")]
enum Incoming {
    #[serde(rename = "response.created")]
    Created { response: Response },
    #[serde(rename = "response.output_item.added")]
    ItemAdded { output_index: usize, item: Value },
    #[serde(rename = "response.output_item.done")]
    ItemDone { output_index: usize, item: Value },
    #[serde(rename = "response.output_text.delta")]
    Text { delta: String },
    #[serde(rename = "response.refusal.delta")]
    Refusal { delta: String },
    #[serde(rename = "response.reasoning_summary_text.delta", alias = "response.reasoning_text.delta")]
    Reasoning { delta: String },
    #[serde(rename = "response.function_call_arguments.delta")]
    Arguments { output_index: usize, delta: String },
    #[serde(rename = "response.completed")]
    Completed { response: Response },
    #[serde(rename = "response.incomplete")]
    Incomplete { response: Response },
    #[serde(rename = "response.failed")]
    Failed { response: Response },
    #[serde(rename = "error")]
    Error { code: Option<String>, message: String },
    #[serde(other)]
    Other,
}

#[derive(Deserialize)]
struct Response {
    id: String,
    model: String,
    usage: Option<WrittenUsage>,
    error: Option<WrittenError>,
    incomplete_details: Option<IncompleteDetails>,
}

#[derive(Deserialize)]
struct WrittenError {
    code: Option<String>,
    message: String,
}

#[derive(Deserialize)]
struct IncompleteDetails {
    reason: Option<String>,
}

#[derive(Deserialize)]
struct WrittenUsage {
    input_tokens: u64,
    output_tokens: u64,
    #[serde(default)]
    input_tokens_details: Details,
    #[serde(default)]
    output_tokens_details: Details,
}

#[derive(Default, Deserialize)]
struct Details {
    #[serde(default)]
    cached_tokens: u64,
    #[serde(default)]
    cache_write_tokens: u64,
    #[serde(default)]
    reasoning_tokens: u64,
}

/// Reads one answer.
#[derive(Default)]
pub(super) struct Reader {
    /// Which call an output item is.
    calls: BTreeMap<usize, usize>,
    refused: bool,
}

impl Reader {
    fn finished(&self, response: &Response, reason: FinishReason) -> ChatEvent {
        let usage = response.usage.as_ref().map_or_else(
            || Usage { estimated: true, ..Usage::default() },
            |usage| Usage {
                input_tokens: usage.input_tokens,
                cached_input_tokens: usage.input_tokens_details.cached_tokens,
                cache_write_tokens: usage.input_tokens_details.cache_write_tokens,
                output_tokens: usage.output_tokens,
                reasoning_tokens: usage.output_tokens_details.reasoning_tokens,
                ..Usage::default()
            },
        );
        ChatEvent::Finished { reason, usage }
    }
}

fn text(item: &Value, name: &str) -> Result<String, Broken> {
    let text = item[name].as_str().filter(|text| !text.is_empty());
    text.map(str::to_owned).ok_or_else(|| Broken::Malformed(format!("an output item without `{name}`")))
}

impl ChatReader for Reader {
    fn event(&mut self, event: &Event, out: &mut VecDeque<ChatEvent>) -> Result<(), Broken> {
        match serde_json::from_str(&event.data)? {
            Incoming::Created { response } => {
                out.push_back(ChatEvent::Started { id: Some(response.id), model: response.model });
            }
            Incoming::ItemAdded { output_index, item } if item["type"] == "function_call" => {
                let index = self.calls.len();
                self.calls.insert(output_index, index);
                let (id, name) = (text(&item, "call_id")?, text(&item, "name")?);
                out.push_back(ChatEvent::ToolCallStarted { index, id, name });
            }
            Incoming::Arguments { output_index, delta } => {
                let Some(&index) = self.calls.get(&output_index) else {
                    return Err(Broken::Malformed("arguments of a call that did not begin".into()));
                };
                out.push_back(ChatEvent::ToolCallArguments { index, delta });
            }
            Incoming::ItemDone { output_index, item } if item["type"] == "function_call" => {
                let Some(&index) = self.calls.get(&output_index) else {
                    return Err(Broken::Malformed("the end of a call that did not begin".into()));
                };
                let call = ToolCall {
                    id: text(&item, "call_id")?,
                    name: text(&item, "name")?,
                    arguments: item["arguments"].as_str().unwrap_or("{}").to_owned(),
                    signature: None,
                };
                out.push_back(ChatEvent::ToolCall { index, call });
            }
            Incoming::ItemDone { item, .. } if item["type"] == "reasoning" => {
                // Without its encrypted content the vendor, who stores nothing for us, could not use it.
                if item["encrypted_content"].is_string() {
                    let opaque = Opaque { protocol: PROTOCOL.to_owned(), value: item };
                    out.push_back(ChatEvent::Opaque(opaque));
                }
            }
            Incoming::Text { delta } => out.push_back(ChatEvent::Text(delta)),
            Incoming::Reasoning { delta } => out.push_back(ChatEvent::Reasoning(delta)),
            Incoming::Refusal { delta } => {
                self.refused = true;
                out.push_back(ChatEvent::Refusal(delta));
            }
            Incoming::Completed { response } => {
                let reason = match (self.refused, self.calls.is_empty()) {
                    (true, _) => FinishReason::Refused,
                    (_, false) => FinishReason::ToolCalls,
                    _ => FinishReason::Stop,
                };
                out.push_back(self.finished(&response, reason));
            }
            Incoming::Incomplete { response } => {
                let why = response.incomplete_details.as_ref().and_then(|details| details.reason.as_deref());
                let reason = match why {
                    Some("max_output_tokens") => FinishReason::Length,
                    Some("content_filter") => FinishReason::Refused,
                    _ => FinishReason::Other,
                };
                out.push_back(self.finished(&response, reason));
            }
            Incoming::Failed { response } => {
                let error = response.error;
                let (code, message) = error.map(|e| (e.code, e.message)).unwrap_or_default();
                return Err(failed(code.as_deref(), message));
            }
            Incoming::Error { code, message } => return Err(failed(code.as_deref(), message)),
            Incoming::ItemAdded { .. } | Incoming::ItemDone { .. } | Incoming::Other => {}
        }
        Ok(())
    }

    fn end(&mut self, _: &mut VecDeque<ChatEvent>) -> Result<(), Broken> {
        Err(Broken::Incomplete)
    }
}

fn failed(code: Option<&str>, message: String) -> Broken {
    let fault = code.and_then(fault_of_code).unwrap_or(Fault::ServerError);
    Broken::Failed { fault, message }
}
