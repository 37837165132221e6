//! Requests.

use serde_json::{Map, Value, json};

use super::PROTOCOL;
use crate::chat::{AssistantPart, ChatRequest, Content, Effort, Message, ResponseFormat, Tool, ToolChoice};
use crate::media::{Media, Picture};
use crate::providers::openai::number;

/// The body.
pub(super) fn body(request: &ChatRequest, model: &str) -> Value {
    let mut body = Map::new();
    body.insert("contents".into(), request.messages.iter().filter_map(message).collect());
    if let Some(system) = request.system.as_ref().filter(|system| !system.is_empty()) {
        body.insert("systemInstruction".into(), json!({"parts": [{"text": system}]}));
    }
    if !request.tools.is_empty() {
        let declarations: Value = request.tools.iter().map(tool).collect();
        body.insert("tools".into(), json!([{"functionDeclarations": declarations}]));
        let calling = match &request.tool_choice {
            ToolChoice::Auto => json!({"mode": "AUTO"}),
            ToolChoice::None => json!({"mode": "NONE"}),
            ToolChoice::Required => json!({"mode": "ANY"}),
            ToolChoice::Named(name) => json!({"mode": "ANY", "allowedFunctionNames": [name]}),
        };
        body.insert("toolConfig".into(), json!({"functionCallingConfig": calling}));
    }
    let mut config = Map::new();
    match &request.format {
        ResponseFormat::Text => {}
        ResponseFormat::Json => {
            config.insert("responseMimeType".into(), "application/json".into());
        }
        ResponseFormat::Schema { schema, .. } => {
            config.insert("responseMimeType".into(), "application/json".into());
            config.insert("responseJsonSchema".into(), schema.clone());
        }
    }
    if let Some(limit) = request.max_output_tokens {
        config.insert("maxOutputTokens".into(), limit.into());
    }
    if let Some(temperature) = request.temperature {
        config.insert("temperature".into(), number(temperature));
    }
    if let Some(top_p) = request.top_p {
        config.insert("topP".into(), number(top_p));
    }
    if !request.stop.is_empty() {
        config.insert("stopSequences".into(), json!(request.stop));
    }
    if let Some(thinking) = request.effort.and_then(|effort| thinking(effort, model)) {
        config.insert("thinkingConfig".into(), thinking);
    }
    if !config.is_empty() {
        body.insert("generationConfig".into(), config.into());
    }
    body.into()
}

/// Version 3 takes a level, version 2.5 a budget of tokens; those before do not think.
fn thinking(effort: Effort, model: &str) -> Option<Value> {
    if model.contains("gemini-2.5") {
        let budget = match effort {
            // The larger model cannot do without.
            Effort::Minimal if model.contains("pro") => 128,
            Effort::Minimal => 0,
            Effort::Low => 1_024,
            Effort::Medium => 8_192,
            Effort::High => 24_576,
        };
        return Some(json!({"thinkingBudget": budget}));
    }
    let old = ["gemini-1", "gemini-2.0"].iter().any(|version| model.contains(version));
    (!old && model.contains("gemini")).then(|| {
        let level = match effort {
            Effort::Minimal => "MINIMAL",
            Effort::Low => "LOW",
            Effort::Medium => "MEDIUM",
            Effort::High => "HIGH",
        };
        json!({"thinkingLevel": level})
    })
}

fn message(message: &Message) -> Option<Value> {
    let (role, parts): (&str, Vec<Value>) = match message {
        Message::User(content) => ("user", content.iter().map(part).collect()),
        Message::Assistant(parts) => ("model", parts.iter().filter_map(assistant_part).collect()),
        Message::Tool(results) => {
            let responses = results.iter().map(|result| {
                let field = if result.is_error { "error" } else { "output" };
                let output = serde_json::from_str(&result.output)
                    .unwrap_or_else(|_| Value::from(result.output.as_str()));
                let mut response = json!({"name": result.name, "response": {field: output}});
                if !is_ours(&result.call_id) {
                    response["id"] = result.call_id.as_str().into();
                }
                json!({"functionResponse": response})
            });
            ("user", responses.collect())
        }
    };
    (!parts.is_empty()).then(|| json!({"role": role, "parts": parts}))
}

/// Ids that the adapter made up because the provider gave none: it must not see them.
pub(super) fn is_ours(id: &str) -> bool {
    id.starts_with("local_")
}

fn inline(media: &Media) -> Value {
    json!({"inlineData": {"mimeType": media.mime, "data": media.base64()}})
}

pub(super) fn part(content: &Content) -> Value {
    match content {
        Content::Text(text) => json!({"text": text}),
        Content::Picture(Picture::Url(url)) => json!({"fileData": {"fileUri": url}}),
        Content::Picture(Picture::Media(media)) | Content::Audio(media) | Content::Document(media) => {
            inline(media)
        }
    }
}

fn assistant_part(part: &AssistantPart) -> Option<Value> {
    Some(match part {
        AssistantPart::Text(text) if text.is_empty() => return None,
        AssistantPart::Text(text) => json!({"text": text}),
        AssistantPart::ToolCall(call) => {
            let args = serde_json::from_str(&call.arguments).ok().filter(Value::is_object);
            let mut function = json!({"name": call.name, "args": args.unwrap_or_else(|| json!({}))});
            if !is_ours(&call.id) {
                function["id"] = call.id.as_str().into();
            }
            let mut part = json!({"functionCall": function});
            if let Some(signature) = &call.signature {
                part["thoughtSignature"] = signature.as_str().into();
            }
            part
        }
        AssistantPart::Opaque(state) if state.protocol == PROTOCOL => state.value.clone(),
        AssistantPart::Opaque(_) => return None,
    })
}

fn tool(tool: &Tool) -> Value {
    json!({
        "name": tool.name,
        "description": tool.description,
        "parametersJsonSchema": tool.parameters,
    })
}

#[cfg(test)]
mod tests {
    use rstest::rstest;

    use super::*;

    #[rstest]
    #[case("gemini-2.5-flash", json!({"thinkingBudget": 0}))]
    #[case("gemini-2.5-pro", json!({"thinkingBudget": 128}))]
    #[case("gemini-3-flash-preview", json!({"thinkingLevel": "MINIMAL"}))]
    #[case("gemini-2.0-flash", Value::Null)]
    #[case("gemma-3", Value::Null)]
    fn thinking_by_version(#[case] model: &str, #[case] expected: Value) {
        assert_eq!(thinking(Effort::Minimal, model).unwrap_or_default(), expected);
    }
}
