//! `POST /chat/completions`.

use serde_json::{Value, json};

use super::super::mind::{Answer, Thought};
use super::super::reply::{Asked, Reply, data, id, now, pieces, tokens};
use super::super::shape::{Field, Kind, Problem, is_name, object, unstrict};
use super::{Refusal, is_chat_model, reasons, text_of};

const FIELDS: &[Field] = &[
    ("messages", Kind::List, true),
    ("model", Kind::Text, true),
    ("audio", Kind::Object, false),
    ("frequency_penalty", Kind::Number(-2.0, 2.0), false),
    ("function_call", Kind::Any, false),
    ("functions", Kind::List, false),
    ("logit_bias", Kind::Object, false),
    ("logprobs", Kind::Flag, false),
    ("max_completion_tokens", Kind::Whole(1, i64::MAX), false),
    ("max_tokens", Kind::Whole(1, i64::MAX), false),
    ("metadata", Kind::Object, false),
    ("modalities", Kind::List, false),
    ("moderation", Kind::Object, false),
    ("n", Kind::Whole(1, 128), false),
    ("parallel_tool_calls", Kind::Flag, false),
    ("prediction", Kind::Object, false),
    ("presence_penalty", Kind::Number(-2.0, 2.0), false),
    ("prompt_cache_key", Kind::Text, false),
    ("prompt_cache_options", Kind::Object, false),
    ("prompt_cache_retention", Kind::OneOf(&["in_memory", "24h"]), false),
    ("reasoning_effort", Kind::OneOf(&["none", "minimal", "low", "medium", "high", "xhigh"]), false),
    ("response_format", Kind::Object, false),
    ("safety_identifier", Kind::Text, false),
    ("seed", Kind::Whole(i64::MIN, i64::MAX), false),
    ("service_tier", Kind::OneOf(&["auto", "default", "flex", "scale", "priority"]), false),
    ("stop", Kind::Any, false),
    ("store", Kind::Flag, false),
    ("stream", Kind::Flag, false),
    ("stream_options", Kind::Object, false),
    ("temperature", Kind::Number(0.0, 2.0), false),
    ("tool_choice", Kind::Any, false),
    ("tools", Kind::List, false),
    ("top_logprobs", Kind::Whole(0, 20), false),
    ("top_p", Kind::Number(0.0, 1.0), false),
    ("user", Kind::Text, false),
    ("verbosity", Kind::OneOf(&["low", "medium", "high"]), false),
    ("web_search_options", Kind::Object, false),
];

pub(super) fn answer(body: &Value, asked: &Asked<'_>) -> Result<Reply, Refusal> {
    object(body, "", FIELDS)?;
    let model = body["model"].as_str().unwrap_or_default();
    if !is_chat_model(model) {
        return Err(Refusal::no_model(model));
    }
    parameters(body, model)?;
    tools(body)?;
    messages(&body["messages"])?;
    format(body)?;
    let thought = thought(body);
    let answer = asked.options.mind.answer(&thought);
    let limit = body["max_completion_tokens"].as_u64().or(body["max_tokens"].as_u64());
    let whole = Whole::new(body, model, answer, limit);
    if body["stream"] == true {
        let usage = body["stream_options"]["include_usage"] == true;
        return Ok(Reply::Events(whole.chunks(usage)));
    }
    Ok(Reply::ok(whole.object()))
}

fn parameters(body: &Value, model: &str) -> Result<(), Refusal> {
    if reasons(model) {
        if !body["max_tokens"].is_null() {
            let message = "Unsupported parameter: 'max_tokens' is not supported with this model. Use 'max_completion_tokens' instead.";
            return Err(Refusal::new(400, message, Some("max_tokens"), Some("unsupported_parameter")));
        }
        for name in ["temperature", "top_p"] {
            if let Some(value) = body[name].as_f64().filter(|value| (value - 1.0).abs() > f64::EPSILON) {
                let message = format!(
                    "Unsupported value: '{name}' does not support {value} with this model. Only the default (1) value is supported."
                );
                return Err(Refusal::new(400, message, Some(name), Some("unsupported_value")));
            }
        }
        if !body["stop"].is_null() {
            let message = "Unsupported parameter: 'stop' is not supported with this model.";
            return Err(Refusal::new(400, message, Some("stop"), Some("unsupported_parameter")));
        }
    } else if !body["reasoning_effort"].is_null() {
        let message = "Unrecognized request argument supplied: reasoning_effort";
        return Err(Refusal::new(400, message, None, None));
    }
    if !body["stream_options"].is_null() {
        if body["stream"] != true {
            let message = "The 'stream_options' parameter is only allowed when 'stream' is enabled.";
            return Err(Refusal::invalid("stream_options", message));
        }
        let fields: &[Field] =
            &[("include_usage", Kind::Flag, false), ("include_obfuscation", Kind::Flag, false)];
        object(&body["stream_options"], "stream_options", fields)?;
    }
    if let Some(stops) = body["stop"].as_array()
        && stops.len() > 4
    {
        return Err(Refusal::invalid("stop", "Invalid 'stop': array too long. Expected at most 4."));
    }
    Ok(())
}

fn tools(body: &Value) -> Result<(), Refusal> {
    let tools = body["tools"].as_array();
    if tools.is_some_and(|tools| tools.is_empty() || tools.len() > 128) {
        return Err(Refusal::invalid("tools", "Invalid 'tools': expected an array of 1 to 128 tools."));
    }
    for (index, tool) in tools.into_iter().flatten().enumerate() {
        let path = format!("tools[{index}]");
        object(
            tool,
            &path,
            &[("type", Kind::OneOf(&["function", "custom"]), true), ("function", Kind::Object, true)],
        )?;
        let fields: &[Field] = &[
            ("name", Kind::Text, true),
            ("description", Kind::Text, false),
            ("parameters", Kind::Object, false),
            ("strict", Kind::Flag, false),
        ];
        let path = format!("{path}.function");
        let function = object(&tool["function"], &path, fields)?;
        let name = function["name"].as_str().unwrap_or_default();
        if !is_name(name, 64) {
            let message = format!(
                "Invalid '{path}.name': string does not match pattern. Expected a string that matches the pattern '^[a-zA-Z0-9_-]+$'."
            );
            return Err(Refusal::invalid(&format!("{path}.name"), message));
        }
        if let Some(parameters) = function.get("parameters")
            && parameters["type"] != "object"
        {
            let message = format!(
                "Invalid schema for function '{name}': schema must be a JSON Schema of 'type: \"object\"'."
            );
            return Err(Refusal::new(400, message, Some(&path), Some("invalid_function_parameters")));
        }
        if function.get("strict") == Some(&Value::Bool(true))
            && let Some(problem) = unstrict(&tool["function"]["parameters"], "")
        {
            let message = format!("Invalid schema for function '{name}': {problem}");
            return Err(Refusal::new(400, message, Some(&path), Some("invalid_function_parameters")));
        }
    }
    if tools.is_none() {
        for name in ["tool_choice", "parallel_tool_calls"] {
            if !body[name].is_null() {
                let message = format!("'{name}' is only allowed when 'tools' are specified.");
                return Err(Refusal::new(400, message, Some(name), None));
            }
        }
    }
    match &body["tool_choice"] {
        Value::Null => Ok(()),
        Value::String(choice) if ["auto", "none", "required"].contains(&choice.as_str()) => Ok(()),
        Value::Object(choice) => {
            let name = choice.get("function").map_or(&Value::Null, |function| &function["name"]);
            if tools.into_iter().flatten().any(|tool| tool["function"]["name"] == *name) {
                return Ok(());
            }
            let message = format!("Tool choice {name} not found in 'tools' parameter.");
            Err(Refusal::invalid("tool_choice", message))
        }
        _ => Err(Refusal::invalid("tool_choice", "Invalid value for 'tool_choice'.")),
    }
}

fn messages(messages: &Value) -> Result<(), Refusal> {
    let messages = messages.as_array().map(Vec::as_slice).unwrap_or_default();
    if messages.is_empty() {
        let message = "Invalid 'messages': empty array. Expected an array with minimum length 1.";
        return Err(Refusal::new(400, message, Some("messages"), Some("empty_array")));
    }
    let mut open: Vec<&str> = Vec::new();
    for (index, message) in messages.iter().enumerate() {
        let path = format!("messages[{index}]");
        let role = message["role"].as_str().unwrap_or_default();
        if role != "tool" && !open.is_empty() {
            return Err(unanswered(&open));
        }
        match role {
            "system" | "developer" | "user" => {
                let fields: &[Field] =
                    &[("role", Kind::Text, true), ("content", Kind::Any, true), ("name", Kind::Text, false)];
                object(message, &path, fields)?;
                content(&message["content"], &path, role)?;
            }
            "assistant" => open = assistant(message, &path)?,
            "tool" => {
                let fields: &[Field] = &[
                    ("role", Kind::Text, true),
                    ("content", Kind::Any, true),
                    ("tool_call_id", Kind::Text, true),
                ];
                object(message, &path, fields)?;
                let id = message["tool_call_id"].as_str().unwrap_or_default();
                let Some(at) = open.iter().position(|open| *open == id) else {
                    let message = "Invalid parameter: messages with role 'tool' must be a response to a preceding message with 'tool_calls'.";
                    return Err(Refusal::new(400, message, Some(&format!("{path}.role")), None));
                };
                open.swap_remove(at);
            }
            "" => return Err(Problem::new(&format!("{path}.role"), super::What::Missing).into()),
            other => {
                let message = format!(
                    "Invalid value: '{other}'. Supported values are: 'system', 'assistant', 'user', 'function', 'tool', and 'developer'."
                );
                return Err(Refusal::invalid(&format!("{path}.role"), message));
            }
        }
    }
    if open.is_empty() { Ok(()) } else { Err(unanswered(&open)) }
}

fn unanswered(open: &[&str]) -> Refusal {
    let message = format!(
        "An assistant message with 'tool_calls' must be followed by tool messages responding to each 'tool_call_id'. The following tool_call_ids did not have response messages: {}",
        open.join(", ")
    );
    Refusal::new(400, message, Some("messages"), None)
}

fn assistant<'a>(message: &'a Value, path: &str) -> Result<Vec<&'a str>, Refusal> {
    let fields: &[Field] = &[
        ("role", Kind::Text, true),
        ("content", Kind::Any, false),
        ("name", Kind::Text, false),
        ("refusal", Kind::Text, false),
        ("audio", Kind::Object, false),
        ("tool_calls", Kind::List, false),
        ("function_call", Kind::Object, false),
        // What the vendor's own messages carry, so that they can be sent back as they came.
        ("annotations", Kind::List, false),
    ];
    object(message, path, fields)?;
    let calls = message["tool_calls"].as_array();
    if calls.is_none() && message["content"].is_null() {
        let text = format!("Invalid value for '{path}.content': expected a string, got null.");
        return Err(Refusal::new(400, text, Some(&format!("{path}.content")), None));
    }
    let mut open = Vec::new();
    for (index, call) in calls.into_iter().flatten().enumerate() {
        let path = format!("{path}.tool_calls[{index}]");
        let fields: &[Field] = &[
            ("id", Kind::Text, true),
            ("type", Kind::OneOf(&["function", "custom"]), true),
            ("function", Kind::Object, true),
        ];
        object(call, &path, fields)?;
        let fields: &[Field] = &[("name", Kind::Text, true), ("arguments", Kind::Text, true)];
        object(&call["function"], &format!("{path}.function"), fields)?;
        open.extend(call["id"].as_str());
    }
    Ok(open)
}

fn content(content: &Value, path: &str, role: &str) -> Result<(), Refusal> {
    let path = format!("{path}.content");
    match content {
        Value::String(_) => Ok(()),
        Value::Array(parts) if !parts.is_empty() => {
            for (index, part) in parts.iter().enumerate() {
                let path = format!("{path}[{index}]");
                let kind = part["type"].as_str().unwrap_or_default();
                let field = match kind {
                    "text" => ("text", Kind::Text, true),
                    "image_url" if role == "user" => ("image_url", Kind::Object, true),
                    "input_audio" if role == "user" => ("input_audio", Kind::Object, true),
                    "file" if role == "user" => ("file", Kind::Object, true),
                    other => {
                        let message =
                            format!("Invalid value: '{other}' for a content part of role '{role}'.");
                        return Err(Refusal::invalid(&path, message));
                    }
                };
                object(part, &path, &[("type", Kind::Text, true), field])?;
                if kind == "image_url" {
                    let url = part["image_url"]["url"].as_str().unwrap_or_default();
                    if !(url.starts_with("https://") || url.starts_with("data:image/")) {
                        return Err(Refusal::new(
                            400,
                            "Invalid image URL.",
                            Some(&path),
                            Some("invalid_image_url"),
                        ));
                    }
                }
            }
            Ok(())
        }
        _ => {
            let message = format!("Invalid type for '{path}': expected a string or an array of parts.");
            Err(Refusal::new(400, message, Some(&path), Some("invalid_type")))
        }
    }
}

fn format(body: &Value) -> Result<(), Refusal> {
    let format = &body["response_format"];
    match format["type"].as_str() {
        None if format.is_null() => Ok(()),
        Some("text") => Ok(()),
        Some("json_object") => {
            if body["messages"].to_string().to_lowercase().contains("json") {
                return Ok(());
            }
            let message = "'messages' must contain the word 'json' in some form, to use 'response_format' of type 'json_object'.";
            Err(Refusal::new(400, message, Some("messages"), None))
        }
        Some("json_schema") => {
            let path = "response_format.json_schema";
            let fields: &[Field] = &[
                ("name", Kind::Text, true),
                ("description", Kind::Text, false),
                ("schema", Kind::Object, true),
                ("strict", Kind::Flag, false),
            ];
            let schema = object(&format["json_schema"], path, fields)?;
            check_schema(schema["name"].as_str().unwrap_or_default(), &format["json_schema"], path)
        }
        _ => Err(Refusal::invalid("response_format.type", "Invalid 'response_format.type'.")),
    }
}

/// A named schema, which may be strict.
pub(super) fn check_schema(name: &str, format: &Value, path: &str) -> Result<(), Refusal> {
    if !is_name(name, 64) {
        return Err(Refusal::invalid(&format!("{path}.name"), format!("Invalid '{path}.name'.")));
    }
    if format["strict"] == true
        && let Some(problem) = unstrict(&format["schema"], "")
    {
        let message = format!("Invalid schema for response_format '{name}': {problem}");
        return Err(Refusal::new(400, message, Some("response_format"), None));
    }
    Ok(())
}

fn thought(body: &Value) -> Thought {
    let mut thought = Thought::default();
    for message in body["messages"].as_array().into_iter().flatten() {
        let text = text_of(&message["content"], &["text"]);
        match message["role"].as_str() {
            Some("system" | "developer") => thought.system = text,
            Some("user") => {
                thought.user = text;
                thought.results.clear();
            }
            Some("tool") => thought.results.push(text),
            _ => {}
        }
    }
    for tool in body["tools"].as_array().into_iter().flatten() {
        let function = &tool["function"];
        let name = function["name"].as_str().unwrap_or_default().to_owned();
        thought.tools.push((name, function["parameters"].clone()));
    }
    thought.may_call = body["tool_choice"] != "none";
    thought.must_call = match &body["tool_choice"] {
        Value::String(choice) if choice == "required" => Some(None),
        Value::Object(choice) => {
            Some(choice.get("function").and_then(|f| f["name"].as_str()).map(str::to_owned))
        }
        _ => None,
    };
    thought.one_call = body["parallel_tool_calls"] == false;
    thought.schema = match body["response_format"]["type"].as_str() {
        Some("json_object") => Some(Value::Null),
        Some("json_schema") => Some(body["response_format"]["json_schema"]["schema"].clone()),
        _ => None,
    };
    thought
}

/// A whole answer, before it is cut into chunks.
struct Whole {
    id: String,
    model: String,
    text: Vec<String>,
    calls: Vec<(String, String, String)>,
    finish: &'static str,
    usage: Value,
}

impl Whole {
    fn new(body: &Value, model: &str, answer: Answer, limit: Option<u64>) -> Self {
        let mut text: Vec<String> = pieces(&answer.text).into_iter().map(str::to_owned).collect();
        let mut finish = if answer.calls.is_empty() { "stop" } else { "tool_calls" };
        if let Some(limit) = limit.and_then(|limit| usize::try_from(limit).ok())
            && text.len() > limit
        {
            text.truncate(limit);
            finish = "length";
        }
        let calls: Vec<_> =
            answer.calls.into_iter().map(|(name, args)| (id("call_"), name, args.to_string())).collect();
        let written =
            text.concat().len() + calls.iter().map(|(_, name, args)| name.len() + args.len()).sum::<usize>();
        let (prompt, completion) = (tokens(&body["messages"].to_string()), written.div_ceil(4));
        let usage = json!({
            "prompt_tokens": prompt, "completion_tokens": completion, "total_tokens": prompt + completion,
            "prompt_tokens_details": {"cached_tokens": 0, "audio_tokens": 0},
            "completion_tokens_details": {"reasoning_tokens": 0, "audio_tokens": 0,
                "accepted_prediction_tokens": 0, "rejected_prediction_tokens": 0},
        });
        Self { id: id("chatcmpl-"), model: model.to_owned(), text, calls, finish, usage }
    }

    fn object(&self) -> Value {
        let text = self.text.concat();
        let mut message = json!({"role": "assistant", "content": text, "refusal": null, "annotations": []});
        if !self.calls.is_empty() {
            message["content"] = Value::Null;
            let call = |(id, name, arguments): &(String, String, String)| json!({"id": id, "type": "function", "function": {"name": name, "arguments": arguments}});
            message["tool_calls"] = self.calls.iter().map(call).collect();
        }
        json!({
            "id": self.id, "object": "chat.completion", "created": now(), "model": self.model,
            "choices": [{"index": 0, "message": message, "logprobs": null, "finish_reason": self.finish}],
            "usage": self.usage, "service_tier": "default", "system_fingerprint": "fp_emulated",
        })
    }

    fn chunks(&self, with_usage: bool) -> Vec<String> {
        let created = now();
        let chunk = |choices: Value, usage: Value| {
            let mut chunk = json!({
                "id": self.id, "object": "chat.completion.chunk", "created": created, "model": self.model,
                "service_tier": "default", "system_fingerprint": "fp_emulated", "choices": choices,
            });
            if with_usage {
                chunk["usage"] = usage;
            }
            data(&chunk)
        };
        let choice = |delta: Value, finish: Value| {
            let choices = json!([{"index": 0, "delta": delta, "logprobs": null, "finish_reason": finish}]);
            chunk(choices, Value::Null)
        };
        let content = if self.calls.is_empty() { json!("") } else { Value::Null };
        let role = json!({"role": "assistant", "content": content, "refusal": null});
        let mut events = vec![choice(role, Value::Null)];
        events.extend(self.text.iter().map(|piece| choice(json!({"content": piece}), Value::Null)));
        for (index, (id, name, arguments)) in self.calls.iter().enumerate() {
            let function = json!({"name": name, "arguments": ""});
            let call = json!({"index": index, "id": id, "type": "function", "function": function});
            events.push(choice(json!({"tool_calls": [call]}), Value::Null));
            for piece in super::super::reply::pieces(arguments) {
                let call = json!({"index": index, "function": {"arguments": piece}});
                events.push(choice(json!({"tool_calls": [call]}), Value::Null));
            }
        }
        events.push(choice(json!({}), self.finish.into()));
        if with_usage {
            events.push(chunk(json!([]), self.usage.clone()));
        }
        events.push("data: [DONE]\n\n".to_owned());
        events
    }
}
