//! `chat.completion.chunk`s to events.

use std::collections::VecDeque;

use serde::Deserialize;
use serde_json::Value;

use super::fault_of_code;
use crate::chat::{ChatEvent, ChatRequest, FinishReason, ToolCall};
use crate::error::Fault;
use crate::providers::sse::Event;
use crate::providers::wire::{Broken, ChatReader};
use crate::usage::Usage;

/// Most calls of one answer.
const MOST_CALLS: usize = 128;

#[derive(Deserialize)]
struct Chunk {
    id: Option<String>,
    model: Option<String>,
    #[serde(default)]
    choices: Vec<Choice>,
    usage: Option<WrittenUsage>,
    error: Option<Value>,
}

#[derive(Deserialize)]
struct Choice {
    #[serde(default)]
    delta: Delta,
    finish_reason: Option<String>,
}

#[derive(Default, Deserialize)]
struct Delta {
    content: Option<String>,
    refusal: Option<String>,
    /// DeepSeek, vLLM and llama.cpp; OpenRouter and Ollama say `reasoning`.
    #[serde(alias = "reasoning")]
    reasoning_content: Option<String>,
    #[serde(default)]
    tool_calls: Option<Vec<CallDelta>>,
}

#[derive(Deserialize)]
struct CallDelta {
    /// Some servers leave it out when there is one call.
    #[serde(default)]
    index: usize,
    id: Option<String>,
    #[serde(default)]
    function: FunctionDelta,
}

#[derive(Default, Deserialize)]
struct FunctionDelta {
    name: Option<String>,
    arguments: Option<String>,
}

#[derive(Deserialize)]
struct WrittenUsage {
    #[serde(default)]
    prompt_tokens: u64,
    #[serde(default)]
    completion_tokens: u64,
    prompt_tokens_details: Option<PromptDetails>,
    completion_tokens_details: Option<CompletionDetails>,
}

#[derive(Deserialize)]
struct PromptDetails {
    #[serde(default)]
    cached_tokens: Option<u64>,
    #[serde(default)]
    audio_tokens: Option<u64>,
}

#[derive(Deserialize)]
struct CompletionDetails {
    #[serde(default)]
    reasoning_tokens: Option<u64>,
}

/// Reads one answer.
pub(super) struct Reader {
    started: bool,
    calls: Vec<ToolCall>,
    reason: Option<FinishReason>,
    usage: Option<Usage>,
    /// What usage is estimated from, where the server does not say: bytes asked and answered.
    asked: usize,
    answered: usize,
}

impl Reader {
    pub(super) fn new(request: &ChatRequest) -> Self {
        let asked = request.text_len();
        Self { started: false, calls: Vec::new(), reason: None, usage: None, asked, answered: 0 }
    }

    fn call(&mut self, delta: CallDelta, out: &mut VecDeque<ChatEvent>) -> Result<(), Broken> {
        let index = delta.index;
        if index > self.calls.len() || index >= MOST_CALLS {
            return Err(Broken::Malformed(format!("tool call {index} comes before the one in front of it")));
        }
        if index == self.calls.len() {
            let Some(name) = delta.function.name.clone().filter(|name| !name.is_empty()) else {
                return Err(Broken::Malformed("a tool call begins without a name".into()));
            };
            // Some servers give no ids; results must be paired all the same.
            let id = delta
                .id
                .clone()
                .filter(|id| !id.is_empty())
                .unwrap_or_else(|| format!("call_{}", uuid::Uuid::new_v4().simple()));
            out.push_back(ChatEvent::ToolCallStarted { index, id: id.clone(), name: name.clone() });
            self.calls.push(ToolCall { id, name, arguments: String::new(), signature: None });
        }
        if let Some(arguments) = delta.function.arguments.filter(|arguments| !arguments.is_empty()) {
            self.calls[index].arguments.push_str(&arguments);
            out.push_back(ChatEvent::ToolCallArguments { index, delta: arguments });
        }
        Ok(())
    }

    fn finish(&mut self, out: &mut VecDeque<ChatEvent>) -> Result<(), Broken> {
        let Some(mut reason) = self.reason else { return Err(Broken::Incomplete) };
        // Some servers say `stop` after tool calls.
        if !self.calls.is_empty() && reason == FinishReason::Stop {
            reason = FinishReason::ToolCalls;
        }
        for (index, mut call) in self.calls.drain(..).enumerate() {
            if call.arguments.is_empty() {
                call.arguments.push_str("{}");
            }
            out.push_back(ChatEvent::ToolCall { index, call });
        }
        let usage = self.usage.unwrap_or_else(|| Usage {
            input_tokens: (self.asked as u64).div_ceil(4),
            output_tokens: (self.answered as u64).div_ceil(4),
            estimated: true,
            ..Usage::default()
        });
        out.push_back(ChatEvent::Finished { reason, usage });
        Ok(())
    }
}

impl ChatReader for Reader {
    fn event(&mut self, event: &Event, out: &mut VecDeque<ChatEvent>) -> Result<(), Broken> {
        if event.data == "[DONE]" {
            return self.finish(out);
        }
        let chunk: Chunk = serde_json::from_str(&event.data)?;
        if let Some(error) = chunk.error {
            let code = error["code"].as_str().or(error["type"].as_str()).unwrap_or_default();
            let message = error["message"].as_str().unwrap_or_default().to_owned();
            return Err(Broken::Failed { fault: fault_of_code(code).unwrap_or(Fault::ServerError), message });
        }
        if !std::mem::replace(&mut self.started, true) {
            out.push_back(ChatEvent::Started { id: chunk.id, model: chunk.model.unwrap_or_default() });
        }
        if let Some(usage) = chunk.usage {
            self.usage = Some(usage.into());
        }
        // We ask for one choice; the last chunk has none, only usage.
        let Some(choice) = chunk.choices.into_iter().next() else { return Ok(()) };
        let nonempty = |text: Option<String>| text.filter(|text| !text.is_empty());
        if let Some(text) = nonempty(choice.delta.reasoning_content) {
            self.answered += text.len();
            out.push_back(ChatEvent::Reasoning(text));
        }
        if let Some(text) = nonempty(choice.delta.content) {
            self.answered += text.len();
            out.push_back(ChatEvent::Text(text));
        }
        if let Some(text) = nonempty(choice.delta.refusal) {
            out.push_back(ChatEvent::Refusal(text));
        }
        for call in choice.delta.tool_calls.unwrap_or_default() {
            self.call(call, out)?;
        }
        if let Some(reason) = choice.finish_reason {
            self.reason = Some(match reason.as_str() {
                "stop" => FinishReason::Stop,
                "tool_calls" | "function_call" => FinishReason::ToolCalls,
                "length" => FinishReason::Length,
                "content_filter" => FinishReason::Refused,
                _ => FinishReason::Other,
            });
        }
        Ok(())
    }

    fn end(&mut self, out: &mut VecDeque<ChatEvent>) -> Result<(), Broken> {
        // Some servers close instead of saying [DONE].
        self.finish(out)
    }
}

impl From<WrittenUsage> for Usage {
    fn from(written: WrittenUsage) -> Self {
        let prompt = written.prompt_tokens_details.as_ref();
        let completion = written.completion_tokens_details.as_ref();
        Self {
            input_tokens: written.prompt_tokens,
            cached_input_tokens: prompt.and_then(|details| details.cached_tokens).unwrap_or_default(),
            input_audio_tokens: prompt.and_then(|details| details.audio_tokens).unwrap_or_default(),
            output_tokens: written.completion_tokens,
            reasoning_tokens: completion.and_then(|details| details.reasoning_tokens).unwrap_or_default(),
            ..Self::default()
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::chat::Completion;

    fn read(lines: &[&str]) -> Result<Completion, String> {
        let mut reader = Reader::new(&ChatRequest::new("Be brief.", "hello"));
        let mut out = VecDeque::new();
        for line in lines {
            let event = Event { kind: String::new(), data: (*line).to_owned() };
            reader.event(&event, &mut out).map_err(|broken| format!("{broken:?}"))?;
        }
        if !out.iter().any(|event| matches!(event, ChatEvent::Finished { .. })) {
            reader.end(&mut out).map_err(|broken| format!("{broken:?}"))?;
        }
        let mut completion = Completion::default();
        out.into_iter().for_each(|event| completion.push(event));
        Ok(completion)
    }

    #[test]
    fn two_calls_whose_arguments_interleave() {
        let completion = read(&[
            r#"{"id":"c","model":"m","choices":[{"delta":{"role":"assistant","content":null,"tool_calls":[{"index":0,"id":"a","type":"function","function":{"name":"x","arguments":""}}]},"finish_reason":null}]}"#,
            r#"{"id":"c","model":"m","choices":[{"delta":{"tool_calls":[{"index":1,"id":"b","function":{"name":"y","arguments":"{"}}]}}]}"#,
            r#"{"id":"c","model":"m","choices":[{"delta":{"tool_calls":[{"index":0,"function":{"arguments":"{\"q\":1}"}},{"index":1,"function":{"arguments":"}"}}]}}]}"#,
            r#"{"id":"c","model":"m","choices":[{"delta":{},"finish_reason":"stop"}]}"#,
            r#"{"id":"c","model":"m","choices":[],"usage":{"prompt_tokens":9,"completion_tokens":4,"prompt_tokens_details":{"cached_tokens":3}}}"#,
            "[DONE]",
        ])
        .unwrap();
        let calls: Vec<_> = completion.tool_calls().map(|c| (c.id.as_str(), c.arguments.as_str())).collect();
        assert_eq!(calls, [("a", "{\"q\":1}"), ("b", "{}")]);
        assert_eq!(completion.finish, Some(FinishReason::ToolCalls));
        assert_eq!((completion.usage.input_tokens, completion.usage.cached_input_tokens), (9, 3));
    }

    #[test]
    fn usage_is_estimated_where_it_is_missing() {
        let chunk = r#"{"choices":[{"delta":{"content":"Hello there"},"finish_reason":"stop"}]}"#;
        let usage = read(&[chunk]).unwrap().usage;
        assert!(usage.estimated && usage.output_tokens == 3 && usage.input_tokens > 2, "{usage:?}");
    }

    #[test]
    fn an_answer_without_a_reason_to_stop_is_incomplete() {
        let chunk = r#"{"choices":[{"delta":{"content":"Hel"},"finish_reason":null}]}"#;
        assert!(read(&[chunk]).unwrap_err().contains("Incomplete"));
        assert!(read(&[chunk, "[DONE]"]).unwrap_err().contains("Incomplete"));
    }

    #[test]
    fn an_error_in_the_middle_is_reported() {
        let error = r#"{"error":{"message":"overloaded","type":"server_error","code":null}}"#;
        assert!(read(&[error]).unwrap_err().contains("ServerError"));
    }
}
