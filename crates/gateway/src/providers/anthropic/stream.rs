//! Message events to ours.

use std::collections::VecDeque;

use serde::Deserialize;
use serde_json::{Value, json};

use super::{PROTOCOL, fault_of_type};
use crate::chat::{ChatEvent, FinishReason, Opaque, ToolCall};
use crate::error::Fault;
use crate::providers::sse::Event;
use crate::providers::wire::{Broken, ChatReader};
use crate::usage::Usage;

#[derive(Deserialize)]
#[serde(tag = "type", rename_all = "snake_case")]
enum Incoming {
    MessageStart {
        message: Message,
    },
    ContentBlockStart {
        index: usize,
        content_block: Value,
    },
    ContentBlockDelta {
        index: usize,
        delta: Delta,
    },
    ContentBlockStop {
        index: usize,
    },
    MessageDelta {
        delta: MessageDelta,
        usage: WrittenUsage,
    },
    MessageStop,
    Error {
        error: WrittenError,
    },
    /// `ping`, and what is yet to come.
    #[serde(other)]
    Other,
}

#[derive(Deserialize)]
struct Message {
    id: String,
    model: String,
    usage: WrittenUsage,
}

#[derive(Default, Deserialize)]
struct WrittenUsage {
    input_tokens: Option<u64>,
    cache_creation_input_tokens: Option<u64>,
    cache_read_input_tokens: Option<u64>,
    output_tokens: Option<u64>,
    output_tokens_details: Option<OutputDetails>,
}

#[derive(Deserialize)]
struct OutputDetails {
    #[serde(default)]
    thinking_tokens: u64,
}

#[derive(Deserialize)]
#[serde(tag = "type")]
enum Delta {
    #[serde(rename = "text_delta")]
    Text { text: String },
    #[serde(rename = "input_json_delta")]
    InputJson { partial_json: String },
    #[serde(rename = "thinking_delta")]
    Thinking { thinking: String },
    #[serde(rename = "signature_delta")]
    Signature { signature: String },
    #[serde(other)]
    Other,
}

#[derive(Deserialize)]
struct MessageDelta {
    stop_reason: Option<String>,
}

#[derive(Deserialize)]
struct WrittenError {
    #[serde(rename = "type")]
    kind: String,
    message: String,
}

/// The block that is being written; the protocol writes one at a time.
enum Block {
    Text,
    Tool { call: usize, whole: ToolCall },
    Thinking { thinking: String, signature: String },
    Other,
}

/// Reads one answer.
#[derive(Default)]
pub(super) struct Reader {
    open: Option<(usize, Block)>,
    calls: usize,
    usage: Usage,
    reason: Option<FinishReason>,
}

impl Reader {
    fn count(&mut self, written: &WrittenUsage) {
        let usage = &mut self.usage;
        if let Some(read) = written.cache_read_input_tokens {
            usage.cached_input_tokens = read;
        }
        if let Some(created) = written.cache_creation_input_tokens {
            usage.cache_write_tokens = created;
        }
        if let Some(fresh) = written.input_tokens {
            // The vendor counts cached tokens apart; we count them among the input.
            usage.input_tokens = fresh + usage.cached_input_tokens + usage.cache_write_tokens;
        }
        if let Some(output) = written.output_tokens {
            usage.output_tokens = output;
        }
        if let Some(details) = &written.output_tokens_details {
            usage.reasoning_tokens = details.thinking_tokens;
        }
    }

    fn start(&mut self, index: usize, block: &Value, out: &mut VecDeque<ChatEvent>) -> Result<(), Broken> {
        if self.open.is_some() {
            return Err(Broken::Malformed(format!("block {index} begins within another")));
        }
        let opened = match block["type"].as_str() {
            Some("text") => {
                if let Some(text) = block["text"].as_str().filter(|text| !text.is_empty()) {
                    out.push_back(ChatEvent::Text(text.to_owned()));
                }
                Block::Text
            }
            Some("tool_use") => {
                let text = |name: &str| block[name].as_str().map(str::to_owned);
                let (Some(id), Some(name)) = (text("id"), text("name")) else {
                    return Err(Broken::Malformed("a tool call without id or name".into()));
                };
                let call = self.calls;
                self.calls += 1;
                out.push_back(ChatEvent::ToolCallStarted { index: call, id: id.clone(), name: name.clone() });
                let whole = ToolCall { id, name, arguments: String::new(), signature: None };
                Block::Tool { call, whole }
            }
            Some("thinking") => Block::Thinking { thinking: String::new(), signature: String::new() },
            Some("redacted_thinking") => {
                out.push_back(ChatEvent::Opaque(Opaque { protocol: PROTOCOL.into(), value: block.clone() }));
                Block::Other
            }
            Some(_) => Block::Other,
            None => return Err(Broken::Malformed("a block without a type".into())),
        };
        self.open = Some((index, opened));
        Ok(())
    }

    fn delta(&mut self, index: usize, delta: Delta, out: &mut VecDeque<ChatEvent>) -> Result<(), Broken> {
        let Some((_, block)) = self.open.as_mut().filter(|(open, _)| *open == index) else {
            return Err(Broken::Malformed(format!("a piece of block {index}, which is not open")));
        };
        match (block, delta) {
            (Block::Text, Delta::Text { text }) => out.push_back(ChatEvent::Text(text)),
            (Block::Tool { call, whole }, Delta::InputJson { partial_json }) => {
                if !partial_json.is_empty() {
                    whole.arguments.push_str(&partial_json);
                    out.push_back(ChatEvent::ToolCallArguments { index: *call, delta: partial_json });
                }
            }
            (Block::Thinking { thinking, .. }, Delta::Thinking { thinking: piece }) => {
                thinking.push_str(&piece);
                out.push_back(ChatEvent::Reasoning(piece));
            }
            (Block::Thinking { signature, .. }, Delta::Signature { signature: piece }) => {
                signature.push_str(&piece);
            }
            (_, Delta::Other) | (Block::Other, _) => {}
            _ => return Err(Broken::Malformed(format!("a piece that does not fit block {index}"))),
        }
        Ok(())
    }

    fn stop(&mut self, index: usize, out: &mut VecDeque<ChatEvent>) -> Result<(), Broken> {
        match self.open.take().filter(|(open, _)| *open == index) {
            None => return Err(Broken::Malformed(format!("the end of block {index}, which is not open"))),
            Some((_, Block::Tool { call, mut whole })) => {
                if whole.arguments.is_empty() {
                    whole.arguments.push_str("{}");
                }
                out.push_back(ChatEvent::ToolCall { index: call, call: whole });
            }
            Some((_, Block::Thinking { thinking, signature })) if !signature.is_empty() => {
                let value = json!({"type": "thinking", "thinking": thinking, "signature": signature});
                out.push_back(ChatEvent::Opaque(Opaque { protocol: PROTOCOL.into(), value }));
            }
            Some(_) => {}
        }
        Ok(())
    }
}

impl ChatReader for Reader {
    fn event(&mut self, event: &Event, out: &mut VecDeque<ChatEvent>) -> Result<(), Broken> {
        match serde_json::from_str(&event.data)? {
            Incoming::MessageStart { message } => {
                self.count(&message.usage);
                out.push_back(ChatEvent::Started { id: Some(message.id), model: message.model });
            }
            Incoming::ContentBlockStart { index, content_block } => self.start(index, &content_block, out)?,
            Incoming::ContentBlockDelta { index, delta } => self.delta(index, delta, out)?,
            Incoming::ContentBlockStop { index } => self.stop(index, out)?,
            Incoming::MessageDelta { delta, usage } => {
                self.count(&usage);
                self.reason = delta.stop_reason.map(|reason| match reason.as_str() {
                    "end_turn" | "stop_sequence" => FinishReason::Stop,
                    "tool_use" => FinishReason::ToolCalls,
                    "max_tokens" | "model_context_window_exceeded" => FinishReason::Length,
                    "refusal" => FinishReason::Refused,
                    _ => FinishReason::Other,
                });
            }
            Incoming::MessageStop => {
                let Some(reason) = self.reason else { return Err(Broken::Incomplete) };
                out.push_back(ChatEvent::Finished { reason, usage: self.usage });
            }
            Incoming::Error { error } => {
                let fault = fault_of_type(&error.kind, &error.message).unwrap_or(Fault::ServerError);
                return Err(Broken::Failed { fault, message: error.message });
            }
            Incoming::Other => {}
        }
        Ok(())
    }

    fn end(&mut self, _: &mut VecDeque<ChatEvent>) -> Result<(), Broken> {
        Err(Broken::Incomplete)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(lines: &[&str]) -> Result<Vec<ChatEvent>, String> {
        let mut reader = Reader::default();
        let mut out = VecDeque::new();
        for line in lines {
            let event = Event { kind: String::new(), data: (*line).to_owned() };
            reader.event(&event, &mut out).map_err(|broken| format!("{broken:?}"))?;
        }
        Ok(out.into())
    }

    #[test]
    fn signed_thinking_is_kept() {
        let events = read(&[
            r#"{"type":"content_block_start","index":0,"content_block":{"type":"thinking","thinking":"","signature":""}}"#,
            r#"{"type":"content_block_delta","index":0,"delta":{"type":"thinking_delta","thinking":"Hm"}}"#,
            r#"{"type":"content_block_delta","index":0,"delta":{"type":"signature_delta","signature":"abc"}}"#,
            r#"{"type":"content_block_stop","index":0}"#,
            r#"{"type":"ping"}"#,
        ])
        .unwrap();
        let value = json!({"type": "thinking", "thinking": "Hm", "signature": "abc"});
        let opaque = Opaque { protocol: PROTOCOL.into(), value };
        assert_eq!(events, [ChatEvent::Reasoning("Hm".into()), ChatEvent::Opaque(opaque)]);
    }

    #[test]
    fn pieces_of_blocks_that_are_not_open_are_refused() {
        let delta = r#"{"type":"content_block_delta","index":1,"delta":{"type":"text_delta","text":"x"}}"#;
        assert!(read(&[delta]).unwrap_err().contains("not open"));
        let error = r#"{"type":"error","error":{"type":"overloaded_error","message":"Overloaded"}}"#;
        assert!(read(&[error]).unwrap_err().contains("Overloaded"));
    }
}
