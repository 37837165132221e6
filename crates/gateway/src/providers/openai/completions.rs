//! Requests to `POST /chat/completions`.

use std::borrow::Cow;

use serde_json::{Map, Value, json};

use crate::capability::reasons;
use crate::chat::{AssistantPart, ChatRequest, Content, Effort, Message, ResponseFormat, Tool, ToolChoice};
use crate::media::{Media, Picture};

/// What stands in for a schema.
pub(super) const JSON_ONLY: &str = "Answer with one JSON object and nothing else.";

/// The body. `vendor`: with what only the vendor itself understands.
pub(super) fn body(request: &ChatRequest, model: &str, vendor: bool) -> Value {
    let reasoning = reasons(model);
    let mut messages = Vec::new();
    if let Some(system) = system(request) {
        messages.push(json!({"role": if reasoning { "developer" } else { "system" }, "content": system}));
    }
    for one in &request.messages {
        message(one, &mut messages);
    }
    let mut body = Map::new();
    body.insert("model".into(), model.into());
    body.insert("messages".into(), messages.into());
    body.insert("stream".into(), true.into());
    body.insert("stream_options".into(), json!({"include_usage": true}));
    if !request.tools.is_empty() {
        body.insert("tools".into(), request.tools.iter().map(tool).collect());
        body.insert("tool_choice".into(), tool_choice(&request.tool_choice));
        if request.single_tool_call {
            body.insert("parallel_tool_calls".into(), false.into());
        }
    }
    match &request.format {
        ResponseFormat::Text => {}
        ResponseFormat::Json => {
            body.insert("response_format".into(), json!({"type": "json_object"}));
        }
        ResponseFormat::Schema { name, schema } => {
            let format = json!({"name": name, "schema": schema, "strict": true});
            body.insert("response_format".into(), json!({"type": "json_schema", "json_schema": format}));
        }
    }
    if let Some(limit) = request.max_output_tokens {
        let name = if vendor || reasoning { "max_completion_tokens" } else { "max_tokens" };
        body.insert(name.into(), limit.into());
    }
    if reasoning {
        if let Some(effort) = request.effort {
            body.insert("reasoning_effort".into(), effort_name(effort).into());
        }
    } else {
        if let Some(temperature) = request.temperature {
            body.insert("temperature".into(), number(temperature));
        }
        if let Some(top_p) = request.top_p {
            body.insert("top_p".into(), number(top_p));
        }
    }
    if !request.stop.is_empty() {
        body.insert("stop".into(), json!(request.stop));
    }
    if let Some(user) = &request.user {
        body.insert(if vendor { "safety_identifier" } else { "user" }.into(), user.as_str().into());
    }
    body.into()
}

/// The system prompt; with the word that the vendor's JSON mode demands, where nobody has said it.
fn system(request: &ChatRequest) -> Option<Cow<'_, str>> {
    let system = request.system.as_deref().map(Cow::Borrowed);
    let said = system.iter().any(|text| text.to_lowercase().contains("json"));
    if request.format != ResponseFormat::Json || said {
        return system;
    }
    Some(system.map_or(JSON_ONLY.into(), |system| format!("{system}\n\n{JSON_ONLY}").into()))
}

fn message(message: &Message, out: &mut Vec<Value>) {
    match message {
        Message::User(content) => {
            let content = match content.as_slice() {
                [Content::Text(text)] => text.as_str().into(),
                parts => parts.iter().map(part).collect::<Value>(),
            };
            out.push(json!({"role": "user", "content": content}));
        }
        Message::Assistant(parts) => {
            let mut text = String::new();
            let mut calls = Vec::new();
            for part in parts {
                match part {
                    AssistantPart::Text(piece) => text.push_str(piece),
                    AssistantPart::ToolCall(call) => calls.push(json!({
                        "id": call.id,
                        "type": "function",
                        "function": {"name": call.name, "arguments": call.arguments},
                    })),
                    // The protocol has no place for state.
                    AssistantPart::Opaque(_) => {}
                }
            }
            let mut message = json!({"role": "assistant", "content": text});
            if !calls.is_empty() {
                if text.is_empty() {
                    message["content"] = Value::Null;
                }
                message["tool_calls"] = calls.into();
            }
            out.push(message);
        }
        Message::Tool(results) => {
            for result in results {
                let content = &result.output;
                out.push(json!({"role": "tool", "tool_call_id": result.call_id, "content": content}));
            }
        }
    }
}

fn part(content: &Content) -> Value {
    match content {
        Content::Text(text) => json!({"type": "text", "text": text}),
        Content::Picture(picture) => json!({"type": "image_url", "image_url": {"url": picture_url(picture)}}),
        Content::Audio(media) => {
            let format = if is_mp3(media) { "mp3" } else { "wav" };
            json!({"type": "input_audio", "input_audio": {"data": media.base64(), "format": format}})
        }
        Content::Document(media) => {
            json!({"type": "file", "file": {"filename": media.file_name(), "file_data": media.data_url()}})
        }
    }
}

pub(super) fn picture_url(picture: &Picture) -> String {
    match picture {
        Picture::Media(media) => media.data_url(),
        Picture::Url(url) => url.to_string(),
    }
}

fn is_mp3(media: &Media) -> bool {
    matches!(media.mime.as_str(), "audio/mpeg" | "audio/mp3")
}

fn tool(tool: &Tool) -> Value {
    let mut function =
        json!({"name": tool.name, "description": tool.description, "parameters": tool.parameters});
    if tool.strict {
        function["strict"] = true.into();
    }
    json!({"type": "function", "function": function})
}

fn tool_choice(choice: &ToolChoice) -> Value {
    match choice {
        ToolChoice::Auto => "auto".into(),
        ToolChoice::None => "none".into(),
        ToolChoice::Required => "required".into(),
        ToolChoice::Named(name) => json!({"type": "function", "function": {"name": name}}),
    }
}

pub(super) fn effort_name(effort: Effort) -> &'static str {
    match effort {
        Effort::Minimal => "minimal",
        Effort::Low => "low",
        Effort::Medium => "medium",
        Effort::High => "high",
    }
}

/// As people write it: 0.7, not the nearest binary fraction of 32 bits.
pub(in crate::providers) fn number(value: f32) -> Value {
    value.to_string().parse::<f64>().map_or(Value::Null, Value::from)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::chat::{ToolCall, ToolResult};

    #[test]
    fn a_conversation_with_tools() {
        let mut request = ChatRequest::new("Be brief.", "Weather in Rome?");
        request.messages.push(Message::Assistant(vec![AssistantPart::ToolCall(ToolCall {
            id: "call_1".into(),
            name: "weather".into(),
            arguments: r#"{"city":"Rome"}"#.into(),
            signature: None,
        })]));
        request.messages.push(Message::Tool(vec![ToolResult {
            call_id: "call_1".into(),
            name: "weather".into(),
            output: "sunny".into(),
            is_error: false,
        }]));
        request.temperature = Some(0.7);
        request.max_output_tokens = Some(100);
        let expected: Value = serde_json::from_str(
            r#"
        {
          "model": "llama3.2",
          "messages": [
            {
              "role": "system",
              "content": "Be brief."
            },
            {
              "role": "user",
              "content": "Weather in Rome?"
            },
            {
              "role": "assistant",
              "content": null,
              "tool_calls": [
                {
                  "id": "call_1",
                  "type": "function",
                  "function": {
                    "name": "weather",
                    "arguments": "{\"city\":\"Rome\"}"
                  }
                }
              ]
            },
            {
              "role": "tool",
              "tool_call_id": "call_1",
              "content": "sunny"
            }
          ],
          "stream": true,
          "stream_options": {
            "include_usage": true
          },
          "max_tokens": 100,
          "temperature": 0.7
        }
        "#,
        )
        .unwrap();
        assert_eq!(body(&request, "llama3.2", false), expected);
    }

    #[test]
    fn reasoning_models_get_no_temperature() {
        let mut request = ChatRequest::new("Be brief.", "Hi");
        request.temperature = Some(0.7);
        request.max_output_tokens = Some(100);
        request.effort = Some(Effort::Low);
        let body = body(&request, "gpt-5-mini", true);
        assert!(body.get("temperature").is_none());
        assert_eq!(body["max_completion_tokens"], 100);
        assert_eq!(body["reasoning_effort"], "low");
        assert_eq!(body["messages"][0]["role"], "developer");
    }
}
