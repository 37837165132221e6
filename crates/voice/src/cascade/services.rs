//! What a conversation needs of the gateway.

use std::fmt;

use longhouse_gateway::Error;
use longhouse_gateway::chat::{
    AssistantPart, ChatRequest, ChatStream, Message, Tool, ToolCall as GatewayCall, ToolResult,
};
use longhouse_gateway::live::{Listening, Speaking};

use super::clock::Rate;
use super::events::Said;
use super::language::Language;
use crate::session::BoxFuture;

/// Recogniser, model and synthesiser of one conversation, each already chosen and paid for by somebody.
pub trait Services: Send + Sync + 'static {
    /// Opens a recogniser of 16-bit PCM at this rate.
    fn listen(&self, rate: Rate, language: Language) -> BoxFuture<'static, Result<Listening, Error>>;

    /// Opens a synthesiser of 16-bit PCM at this rate, in the voice for this language.
    fn speak(&self, rate: Rate, language: Language) -> BoxFuture<'static, Result<Speaking, Error>>;

    /// Asks the model.
    fn chat(&self, request: ChatRequest) -> BoxFuture<'static, Result<ChatStream, Error>>;
}

impl fmt::Debug for dyn Services {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Services")
    }
}

/// Stands for the person's first words where the agent has spoken first: models want the person to begin.
const BEGINNING: &str = "(The person is there.)";

/// The conversation as the gateway takes it: neighbours of one side are one message, calls and results are paired.
pub fn request(instructions: &str, tools: &[Tool], said: &[Said]) -> ChatRequest {
    let mut messages: Vec<Message> = Vec::with_capacity(said.len() + 1);
    let mut round = 0;
    for item in said {
        match item {
            Said::User(text) => match messages.last_mut() {
                Some(Message::User(content)) => {
                    content.push(longhouse_gateway::chat::Content::Text(text.clone()));
                }
                _ => messages.push(Message::user(text)),
            },
            Said::Agent { text, .. } => assistant(&mut messages, AssistantPart::Text(text.clone())),
            Said::Tools(calls) => {
                round += 1;
                // A vendor's ids may repeat within a conversation; pairs must not.
                let id = |call: &crate::session::ToolCall| format!("{}_{round}", call.call_id);
                for (call, _) in calls {
                    let arguments = serde_json::Value::Object(call.arguments.clone()).to_string();
                    let call =
                        GatewayCall { id: id(call), name: call.name.clone(), arguments, signature: None };
                    assistant(&mut messages, AssistantPart::ToolCall(call));
                }
                let results = calls.iter().map(|(call, output)| ToolResult {
                    call_id: id(call),
                    name: call.name.clone(),
                    output: output.to_string(),
                    is_error: output.get("error").is_some(),
                });
                messages.push(Message::Tool(results.collect()));
            }
        }
    }
    // What was said while tools ran stands before their results: the model answers those.
    if let [.., Message::Assistant(before), Message::Tool(_), Message::Assistant(_)] = &mut messages[..] {
        let calls = before.iter().position(|part| part.tool_call().is_some()).unwrap_or(before.len());
        let mut rest = before.split_off(calls);
        if let Some(Message::Assistant(parts)) = messages.pop() {
            let index = messages.len() - 2;
            if let Message::Assistant(before) = &mut messages[index] {
                before.extend(parts);
                before.append(&mut rest);
            }
        }
    }
    // A conversation that ends with the agent's own words asks it to go on.
    if matches!(messages.last(), Some(Message::Assistant(_)) | None) {
        messages.push(Message::user("(They are silent.)"));
    }
    ChatRequest {
        system: Some(instructions.to_owned()),
        messages,
        tools: tools.to_vec(),
        ..ChatRequest::default()
    }
}

fn assistant(messages: &mut Vec<Message>, part: AssistantPart) {
    if messages.is_empty() {
        messages.push(Message::user(BEGINNING));
    }
    match messages.last_mut() {
        Some(Message::Assistant(parts)) => parts.push(part),
        _ => messages.push(Message::Assistant(vec![part])),
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::session::ToolCall;

    #[test]
    fn every_conversation_is_one_that_providers_take() {
        let call = |id: &str| ToolCall {
            call_id: id.into(),
            name: "look".into(),
            arguments: serde_json::Map::new(),
        };
        let agent = |text: &str| Said::Agent { text: text.into(), interrupted: false };
        let said = [
            agent("Hello."),
            Said::User("Hi".into()),
            Said::User("Are you open?".into()),
            agent("Let me see."),
            Said::Tools(vec![(call("c"), json!({"open": true})), (call("d"), json!({"error": "no"}))]),
            Said::Tools(vec![(call("c"), json!({}))]),
            agent("One moment."),
        ];
        let whole = request("Be kind.", &[], &said);
        assert!(
            matches!(whole.messages.last(), Some(Message::Tool(_))),
            "the model does not see the results last"
        );
        for upto in 0..=said.len() {
            let request = request("Be kind.", &[], &said[..upto]);
            request.check().unwrap();
            assert!(matches!(request.messages[0], Message::User(_)));
            if matches!(said[upto.saturating_sub(1)], Said::Tools(_)) && upto > 0 {
                assert!(matches!(request.messages.last(), Some(Message::Tool(_))));
            }
            let mut last = None;
            for message in &request.messages {
                let kind = std::mem::discriminant(message);
                assert_ne!(last.replace(kind), Some(kind), "two messages of one side in a row");
            }
        }
    }
}
