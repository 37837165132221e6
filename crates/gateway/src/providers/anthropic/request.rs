//! Requests.

use serde_json::{Map, Value, json};

use super::PROTOCOL;
use crate::chat::{AssistantPart, ChatRequest, Content, Effort, Message, ResponseFormat, Tool, ToolChoice};
use crate::media::Picture;

/// The protocol demands a limit; this is ours where the caller names none.
const MAX_TOKENS: u32 = 8_192;

/// The body.
pub(super) fn body(request: &ChatRequest, model: &str) -> Value {
    let mut body = Map::new();
    body.insert("model".into(), model.into());
    body.insert("max_tokens".into(), request.max_output_tokens.unwrap_or(MAX_TOKENS).into());
    body.insert("stream".into(), true.into());
    body.insert("messages".into(), request.messages.iter().filter_map(message).collect());
    let json_only = "Answer with one JSON object and nothing else.";
    let system = match (&request.system, &request.format) {
        (Some(system), ResponseFormat::Json) => Some(format!("{system}\n\n{json_only}")),
        (None, ResponseFormat::Json) => Some(json_only.to_owned()),
        (system, _) => system.clone(),
    };
    if let Some(system) = system.filter(|system| !system.is_empty()) {
        // The prefix that conversations share is worth keeping at the vendor's.
        let block = json!({"type": "text", "text": system, "cache_control": {"type": "ephemeral"}});
        body.insert("system".into(), json!([block]));
    }
    if !request.tools.is_empty() {
        body.insert("tools".into(), request.tools.iter().map(tool).collect());
        body.insert("tool_choice".into(), tool_choice(request));
    }
    let mut output = Map::new();
    if let ResponseFormat::Schema { schema, .. } = &request.format {
        output.insert("format".into(), json!({"type": "json_schema", "schema": schema}));
    }
    if let Some(effort) = request.effort {
        let effort = match effort {
            Effort::Minimal | Effort::Low => "low",
            Effort::Medium => "medium",
            Effort::High => "high",
        };
        output.insert("effort".into(), effort.into());
    }
    if !output.is_empty() {
        body.insert("output_config".into(), output.into());
    }
    if !request.stop.is_empty() {
        body.insert("stop_sequences".into(), json!(request.stop));
    }
    if let Some(user) = &request.user {
        body.insert("metadata".into(), json!({"user_id": user}));
    }
    // Temperature and top_p are no longer part of the protocol: current models refuse them.
    body.into()
}

fn message(message: &Message) -> Option<Value> {
    let (role, content): (&str, Vec<Value>) = match message {
        Message::User(content) => ("user", content.iter().filter_map(part).collect()),
        Message::Assistant(parts) => ("assistant", parts.iter().filter_map(assistant_part).collect()),
        Message::Tool(results) => {
            let results = results.iter().map(|result| {
                let mut block = json!({"type": "tool_result", "tool_use_id": result.call_id});
                if !result.output.is_empty() {
                    block["content"] = result.output.as_str().into();
                }
                if result.is_error {
                    block["is_error"] = true.into();
                }
                block
            });
            ("user", results.collect())
        }
    };
    // The protocol refuses messages without content; two of one role in a row it joins.
    (!content.is_empty()).then(|| json!({"role": role, "content": content}))
}

fn part(content: &Content) -> Option<Value> {
    Some(match content {
        // Empty texts are refused too.
        Content::Text(text) if text.is_empty() => return None,
        Content::Text(text) => json!({"type": "text", "text": text}),
        Content::Picture(Picture::Url(url)) => {
            json!({"type": "image", "source": {"type": "url", "url": url}})
        }
        Content::Picture(Picture::Media(media)) => json!({
            "type": "image",
            "source": {"type": "base64", "media_type": media.mime, "data": media.base64()},
        }),
        Content::Document(media) => json!({
            "type": "document",
            "source": {"type": "base64", "media_type": media.mime, "data": media.base64()},
        }),
        // Requests with audio do not get here: the capability table says so.
        Content::Audio(_) => return None,
    })
}

fn assistant_part(part: &AssistantPart) -> Option<Value> {
    Some(match part {
        AssistantPart::Text(text) if text.trim().is_empty() => return None,
        AssistantPart::Text(text) => json!({"type": "text", "text": text}),
        AssistantPart::ToolCall(call) => {
            let input = serde_json::from_str(&call.arguments).ok().filter(Value::is_object);
            json!({
                "type": "tool_use",
                "id": call.id,
                "name": call.name,
                "input": input.unwrap_or_else(|| json!({})),
            })
        }
        AssistantPart::Opaque(state) if state.protocol == PROTOCOL => state.value.clone(),
        AssistantPart::Opaque(_) => return None,
    })
}

fn tool(tool: &Tool) -> Value {
    let mut written =
        json!({"name": tool.name, "description": tool.description, "input_schema": tool.parameters});
    if tool.strict {
        written["strict"] = true.into();
    }
    written
}

fn tool_choice(request: &ChatRequest) -> Value {
    let mut choice = match &request.tool_choice {
        ToolChoice::Auto => json!({"type": "auto"}),
        ToolChoice::None => return json!({"type": "none"}),
        ToolChoice::Required => json!({"type": "any"}),
        ToolChoice::Named(name) => json!({"type": "tool", "name": name}),
    };
    if request.single_tool_call {
        choice["disable_parallel_tool_use"] = true.into();
    }
    choice
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::chat::{Opaque, ToolCall, ToolResult};

    #[test]
    fn state_goes_back_to_its_own_protocol_only() {
        let mut request = ChatRequest::new("Be brief.", "Weather?");
        let opaque = |protocol: &str| {
            let value = json!({"type": "thinking", "thinking": "…", "signature": protocol});
            AssistantPart::Opaque(Opaque { protocol: protocol.into(), value })
        };
        request.messages.push(Message::Assistant(vec![
            opaque(PROTOCOL),
            opaque("gemini"),
            AssistantPart::ToolCall(ToolCall {
                id: "toolu_1".into(),
                name: "weather".into(),
                arguments: "{\"city\":".into(),
                signature: None,
            }),
        ]));
        request.messages.push(Message::Tool(vec![ToolResult {
            call_id: "toolu_1".into(),
            name: "weather".into(),
            output: "no such city".into(),
            is_error: true,
        }]));
        let expected: Value = serde_json::from_str(
            r#"
        [
          {
            "role": "user",
            "content": [
              {
                "type": "text",
                "text": "Weather?"
              }
            ]
          },
          {
            "role": "assistant",
            "content": [
              {
                "type": "thinking",
                "thinking": "…",
                "signature": "anthropic"
              },
              {
                "type": "tool_use",
                "id": "toolu_1",
                "name": "weather",
                "input": {}
              }
            ]
          },
          {
            "role": "user",
            "content": [
              {
                "type": "tool_result",
                "tool_use_id": "toolu_1",
                "content": "no such city",
                "is_error": true
              }
            ]
          }
        ]
        "#,
        )
        .unwrap();
        assert_eq!(body(&request, "claude-haiku-5-5")["messages"], expected);
    }
}
