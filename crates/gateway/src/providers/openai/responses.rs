//! Requests to `POST /responses`.

use serde_json::{Map, Value, json};

use super::completions::{JSON_ONLY, effort_name, number, picture_url};
use crate::capability::reasons;
use crate::chat::{AssistantPart, ChatRequest, Content, Message, ResponseFormat, Tool, ToolChoice};

/// What [`crate::chat::Opaque`] says of state that only this interface understands.
pub(super) const PROTOCOL: &str = "openai-responses";

/// The body. Nothing is stored at the vendor's: the conversation travels with each request.
pub(super) fn body(request: &ChatRequest, model: &str) -> Value {
    let reasoning = reasons(model);
    let mut input = Vec::new();
    if request.format == ResponseFormat::Json {
        // The JSON mode demands the word among the input, and does not look at the instructions.
        input.push(json!({"type": "message", "role": "developer", "content": JSON_ONLY}));
    }
    for one in &request.messages {
        message(one, &mut input);
    }
    let mut body = Map::new();
    body.insert("model".into(), model.into());
    body.insert("input".into(), input.into());
    body.insert("stream".into(), true.into());
    body.insert("store".into(), false.into());
    if let Some(system) = &request.system {
        body.insert("instructions".into(), system.as_str().into());
    }
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
            body.insert("text".into(), json!({"format": {"type": "json_object"}}));
        }
        ResponseFormat::Schema { name, schema } => {
            let format = json!({"type": "json_schema", "name": name, "schema": schema, "strict": true});
            body.insert("text".into(), json!({"format": format}));
        }
    }
    if let Some(limit) = request.max_output_tokens {
        // The vendor's least.
        body.insert("max_output_tokens".into(), limit.max(16).into());
    }
    if reasoning {
        body.insert("include".into(), json!(["reasoning.encrypted_content"]));
        if let Some(effort) = request.effort {
            body.insert("reasoning".into(), json!({"effort": effort_name(effort)}));
        }
    } else {
        if let Some(temperature) = request.temperature {
            body.insert("temperature".into(), number(temperature));
        }
        if let Some(top_p) = request.top_p {
            body.insert("top_p".into(), number(top_p));
        }
    }
    if let Some(user) = &request.user {
        body.insert("safety_identifier".into(), user.as_str().into());
    }
    body.into()
}

fn message(message: &Message, out: &mut Vec<Value>) {
    match message {
        Message::User(content) => {
            let parts: Value = content.iter().map(part).collect();
            out.push(json!({"type": "message", "role": "user", "content": parts}));
        }
        Message::Assistant(parts) => {
            for part in parts {
                match part {
                    AssistantPart::Text(text) => {
                        out.push(json!({"type": "message", "role": "assistant", "content": text}));
                    }
                    AssistantPart::ToolCall(call) => out.push(json!({
                        "type": "function_call",
                        "call_id": call.id,
                        "name": call.name,
                        "arguments": call.arguments,
                    })),
                    AssistantPart::Opaque(state) if state.protocol == PROTOCOL => {
                        out.push(state.value.clone());
                    }
                    AssistantPart::Opaque(_) => {}
                }
            }
        }
        Message::Tool(results) => {
            for result in results {
                out.push(json!({
                    "type": "function_call_output",
                    "call_id": result.call_id,
                    "output": result.output,
                }));
            }
        }
    }
}

fn part(content: &Content) -> Value {
    match content {
        Content::Text(text) => json!({"type": "input_text", "text": text}),
        Content::Picture(picture) => {
            json!({"type": "input_image", "detail": "auto", "image_url": picture_url(picture)})
        }
        // Requests with audio go the other way; see `OpenAi::by_responses`.
        Content::Audio(media) | Content::Document(media) => {
            json!({"type": "input_file", "filename": media.file_name(), "file_data": media.data_url()})
        }
    }
}

fn tool(tool: &Tool) -> Value {
    json!({
        "type": "function",
        "name": tool.name,
        "description": tool.description,
        "parameters": tool.parameters,
        "strict": tool.strict,
    })
}

fn tool_choice(choice: &ToolChoice) -> Value {
    match choice {
        ToolChoice::Auto => "auto".into(),
        ToolChoice::None => "none".into(),
        ToolChoice::Required => "required".into(),
        ToolChoice::Named(name) => json!({"type": "function", "name": name}),
    }
}
