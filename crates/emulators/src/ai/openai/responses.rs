//! `POST /responses`.

use serde_json::{Value, json};

use super::super::mind::Thought;
use super::super::reply::{Asked, Reply, id, named, now, pieces, tokens};
use super::super::shape::{Field, Kind, is_name, object, unstrict};
use super::chat::check_schema;
use super::{Refusal, is_chat_model, reasons, text_of};

const FIELDS: &[Field] = &[
    ("background", Kind::Flag, false),
    ("context_management", Kind::List, false),
    ("conversation", Kind::Any, false),
    ("include", Kind::List, false),
    ("input", Kind::Any, true),
    ("instructions", Kind::Text, false),
    ("max_output_tokens", Kind::Whole(16, i64::MAX), false),
    ("max_tool_calls", Kind::Whole(1, i64::MAX), false),
    ("metadata", Kind::Object, false),
    ("model", Kind::Text, true),
    ("moderation", Kind::Object, false),
    ("parallel_tool_calls", Kind::Flag, false),
    ("previous_response_id", Kind::Text, false),
    ("prompt", Kind::Object, false),
    ("prompt_cache_key", Kind::Text, false),
    ("prompt_cache_options", Kind::Object, false),
    ("prompt_cache_retention", Kind::OneOf(&["in_memory", "24h"]), false),
    ("reasoning", Kind::Object, false),
    ("safety_identifier", Kind::Text, false),
    ("service_tier", Kind::OneOf(&["auto", "default", "flex", "scale", "priority"]), false),
    ("store", Kind::Flag, false),
    ("stream", Kind::Flag, false),
    ("stream_options", Kind::Object, false),
    ("temperature", Kind::Number(0.0, 2.0), false),
    ("text", Kind::Object, false),
    ("tool_choice", Kind::Any, false),
    ("tools", Kind::List, false),
    ("top_logprobs", Kind::Whole(0, 20), false),
    ("top_p", Kind::Number(0.0, 1.0), false),
    ("truncation", Kind::OneOf(&["auto", "disabled"]), false),
    ("user", Kind::Text, false),
];

pub(super) fn answer(body: &Value, asked: &Asked<'_>) -> Result<Reply, Refusal> {
    object(body, "", FIELDS)?;
    let model = body["model"].as_str().unwrap_or_default();
    if !is_chat_model(model) {
        return Err(Refusal::no_model(model));
    }
    if reasons(model) {
        for name in ["temperature", "top_p"] {
            if !body[name].is_null() {
                let message = format!("Unsupported parameter: '{name}' is not supported with this model.");
                return Err(Refusal::new(400, message, Some(name), Some("unsupported_parameter")));
            }
        }
    } else if !body["reasoning"].is_null() {
        let message = "Unsupported parameter: 'reasoning.effort' is not supported with this model.";
        return Err(Refusal::new(400, message, Some("reasoning.effort"), Some("unsupported_parameter")));
    }
    tools(body)?;
    input(&body["input"])?;
    format(body)?;
    let thought = thought(body);
    let answer = asked.options.mind.answer(&thought);
    let writing = Writing::new(body, model);
    let limit = body["max_output_tokens"].as_u64().and_then(|limit| usize::try_from(limit).ok());
    let (events, whole) = writing.write(&answer, reasons(model), limit);
    Ok(if body["stream"] == true { Reply::Events(events) } else { Reply::ok(whole) })
}

fn tools(body: &Value) -> Result<(), Refusal> {
    for (index, tool) in body["tools"].as_array().into_iter().flatten().enumerate() {
        let path = format!("tools[{index}]");
        if tool["type"] != "function" {
            let message = format!("Invalid value: {}. Supported values here are: 'function'.", tool["type"]);
            return Err(Refusal::invalid(&format!("{path}.type"), message));
        }
        let fields: &[Field] = &[
            ("type", Kind::Text, true),
            ("name", Kind::Text, true),
            ("description", Kind::Text, false),
            ("parameters", Kind::Object, false),
            ("strict", Kind::Flag, false),
            ("defer_loading", Kind::Flag, false),
        ];
        object(tool, &path, fields)?;
        let name = tool["name"].as_str().unwrap_or_default();
        if !is_name(name, 64) {
            let message = format!("Invalid '{path}.name': string does not match pattern '^[a-zA-Z0-9_-]+$'.");
            return Err(Refusal::invalid(&format!("{path}.name"), message));
        }
        // Strict is the default here.
        if tool["strict"] != false
            && let Some(problem) = unstrict(&tool["parameters"], "")
        {
            let message = format!("Invalid schema for function '{name}': {problem}");
            return Err(Refusal::new(400, message, Some(&path), Some("invalid_function_parameters")));
        }
    }
    match &body["tool_choice"] {
        Value::Object(choice) => {
            let name = choice.get("name").unwrap_or(&Value::Null);
            if body["tools"].as_array().into_iter().flatten().any(|tool| tool["name"] == *name) {
                return Ok(());
            }
            let message = format!("Tool choice {name} not found in 'tools' parameter.");
            Err(Refusal::invalid("tool_choice", message))
        }
        Value::Null => Ok(()),
        Value::String(choice) if ["auto", "none", "required"].contains(&choice.as_str()) => Ok(()),
        _ => Err(Refusal::invalid("tool_choice", "Invalid value for 'tool_choice'.")),
    }
}

fn input(input: &Value) -> Result<(), Refusal> {
    let items = match input {
        Value::String(_) => return Ok(()),
        Value::Array(items) if !items.is_empty() => items,
        _ => {
            return Err(Refusal::invalid(
                "input",
                "Invalid 'input': expected a string or a non-empty array.",
            ));
        }
    };
    let mut open: Vec<&str> = Vec::new();
    for (index, item) in items.iter().enumerate() {
        let path = format!("input[{index}]");
        match item["type"].as_str() {
            None | Some("message") => message(item, &path)?,
            Some("function_call") => {
                let fields: &[Field] = &[
                    ("type", Kind::Text, true),
                    ("call_id", Kind::Text, true),
                    ("name", Kind::Text, true),
                    ("arguments", Kind::Text, true),
                    ("id", Kind::Text, false),
                    ("status", Kind::Text, false),
                ];
                object(item, &path, fields)?;
                open.extend(item["call_id"].as_str());
            }
            Some("function_call_output") => {
                let fields: &[Field] = &[
                    ("type", Kind::Text, true),
                    ("call_id", Kind::Text, true),
                    ("output", Kind::Any, true),
                    ("id", Kind::Text, false),
                    ("status", Kind::Text, false),
                ];
                object(item, &path, fields)?;
                let id = item["call_id"].as_str().unwrap_or_default();
                let Some(at) = open.iter().position(|open| *open == id) else {
                    let message = format!("No tool call found for function call output with call_id {id}.");
                    return Err(Refusal::new(400, message, Some("input"), None));
                };
                open.swap_remove(at);
            }
            Some("reasoning") => {
                let fields: &[Field] = &[
                    ("type", Kind::Text, true),
                    ("id", Kind::Text, true),
                    ("summary", Kind::List, true),
                    ("content", Kind::List, false),
                    ("encrypted_content", Kind::Text, false),
                    ("status", Kind::Text, false),
                ];
                object(item, &path, fields)?;
                // Nothing is stored: a bare id leads nowhere.
                if item["encrypted_content"].is_null() {
                    let message = format!("Item with id {} not found.", item["id"]);
                    return Err(Refusal::new(404, message, Some("input"), None));
                }
            }
            Some(other) => {
                let message = format!("Invalid value: '{other}'.");
                return Err(Refusal::invalid(&format!("{path}.type"), message));
            }
        }
    }
    match open.first() {
        None => Ok(()),
        Some(id) => {
            let message = format!("No tool output found for function call {id}.");
            Err(Refusal::new(400, message, Some("input"), None))
        }
    }
}

fn message(item: &Value, path: &str) -> Result<(), Refusal> {
    let fields: &[Field] = &[
        ("type", Kind::Text, false),
        ("role", Kind::OneOf(&["user", "assistant", "system", "developer"]), true),
        ("content", Kind::Any, true),
        ("id", Kind::Text, false),
        ("status", Kind::Text, false),
        ("phase", Kind::Text, false),
    ];
    object(item, path, fields)?;
    let Value::Array(parts) = &item["content"] else {
        if item["content"].is_string() {
            return Ok(());
        }
        return Err(Refusal::invalid(&format!("{path}.content"), "Invalid 'content'."));
    };
    let assistant = item["role"] == "assistant";
    for (index, part) in parts.iter().enumerate() {
        let path = format!("{path}.content[{index}]");
        let kind = ("type", Kind::Text, true);
        let text = ("text", Kind::Text, true);
        match part["type"].as_str().unwrap_or_default() {
            "input_text" if !assistant => object(part, &path, &[kind, text])?,
            "input_image" if !assistant => {
                let url = ("image_url", Kind::Text, false);
                let file = ("file_id", Kind::Text, false);
                object(part, &path, &[kind, url, file, ("detail", Kind::Text, true)])?
            }
            "input_file" if !assistant => {
                let name = ("filename", Kind::Text, false);
                let url = ("file_url", Kind::Text, false);
                let id = ("file_id", Kind::Text, false);
                object(part, &path, &[kind, name, url, id, ("file_data", Kind::Text, false)])?
            }
            "output_text" if assistant => {
                let annotations = ("annotations", Kind::List, false);
                object(part, &path, &[kind, text, annotations, ("logprobs", Kind::List, false)])?
            }
            "refusal" if assistant => object(part, &path, &[kind, ("refusal", Kind::Text, true)])?,
            other => {
                let message = format!("Invalid value: '{other}' for a message of this role.");
                return Err(Refusal::invalid(&path, message));
            }
        };
    }
    Ok(())
}

fn format(body: &Value) -> Result<(), Refusal> {
    if body["text"].is_null() {
        return Ok(());
    }
    object(&body["text"], "text", &[("format", Kind::Object, false), ("verbosity", Kind::Text, false)])?;
    let format = &body["text"]["format"];
    match format["type"].as_str() {
        None | Some("text") => Ok(()),
        Some("json_object") if body["input"].to_string().to_lowercase().contains("json") => Ok(()),
        Some("json_object") => {
            let message = "Response input messages must contain the word 'json' in some form to use 'text.format' of type 'json_object'.";
            Err(Refusal::new(400, message, Some("input"), None))
        }
        Some("json_schema") => {
            let fields: &[Field] = &[
                ("type", Kind::Text, true),
                ("name", Kind::Text, true),
                ("description", Kind::Text, false),
                ("schema", Kind::Object, true),
                ("strict", Kind::Flag, false),
            ];
            object(format, "text.format", fields)?;
            check_schema(format["name"].as_str().unwrap_or_default(), format, "text.format")
        }
        Some(other) => Err(Refusal::invalid("text.format.type", format!("Invalid value: '{other}'."))),
    }
}

fn thought(body: &Value) -> Thought {
    let mut thought =
        Thought { system: body["instructions"].as_str().unwrap_or_default().into(), ..Thought::default() };
    if let Some(text) = body["input"].as_str() {
        text.clone_into(&mut thought.user);
    }
    for item in body["input"].as_array().into_iter().flatten() {
        if item["role"] == "user" {
            thought.user = text_of(&item["content"], &["input_text"]);
            thought.results.clear();
        } else if item["type"] == "function_call_output" {
            thought.results.push(text_of(&item["output"], &["input_text"]));
        }
    }
    for tool in body["tools"].as_array().into_iter().flatten() {
        let name = tool["name"].as_str().unwrap_or_default().to_owned();
        thought.tools.push((name, tool["parameters"].clone()));
    }
    thought.may_call = body["tool_choice"] != "none";
    thought.must_call = match &body["tool_choice"] {
        Value::String(choice) if choice == "required" => Some(None),
        Value::Object(choice) => Some(choice.get("name").and_then(Value::as_str).map(str::to_owned)),
        _ => None,
    };
    thought.one_call = body["parallel_tool_calls"] == false;
    thought.schema = match body["text"]["format"]["type"].as_str() {
        Some("json_object") => Some(Value::Null),
        Some("json_schema") => Some(body["text"]["format"]["schema"].clone()),
        _ => None,
    };
    thought
}

/// Writes an answer, event by event.
struct Writing {
    response: Value,
    events: Vec<String>,
    output: Vec<Value>,
}

impl Writing {
    fn new(body: &Value, model: &str) -> Self {
        let kept = |name: &str, default: Value| match &body[name] {
            Value::Null => default,
            given => given.clone(),
        };
        let response = json!({
            "id": id("resp_"), "object": "response", "created_at": now(), "status": "in_progress",
            "background": false, "error": null, "incomplete_details": null, "model": model,
            "instructions": kept("instructions", Value::Null),
            "max_output_tokens": kept("max_output_tokens", Value::Null),
            "metadata": kept("metadata", json!({})), "output": [],
            "parallel_tool_calls": kept("parallel_tool_calls", json!(true)), "previous_response_id": null,
            "reasoning": kept("reasoning", json!({"effort": null, "summary": null})),
            "store": kept("store", json!(true)), "temperature": kept("temperature", json!(1.0)),
            "text": kept("text", json!({"format": {"type": "text"}})),
            "tool_choice": kept("tool_choice", json!("auto")), "tools": kept("tools", json!([])),
            "top_p": kept("top_p", json!(1.0)), "truncation": "disabled", "usage": null,
            "input_tokens": tokens(&body["input"].to_string()),
        });
        Self { response, events: Vec::new(), output: Vec::new() }
    }

    fn emit(&mut self, mut event: Value) {
        event["sequence_number"] = self.events.len().into();
        self.events.push(named(&event));
    }

    fn write(
        mut self,
        answer: &super::super::mind::Answer,
        reasoning: bool,
        limit: Option<usize>,
    ) -> (Vec<String>, Value) {
        let input_tokens = self.response["input_tokens"].take();
        if let Some(fields) = self.response.as_object_mut() {
            fields.remove("input_tokens");
        }
        for kind in ["response.created", "response.in_progress"] {
            let response = self.response.clone();
            self.emit(json!({"type": kind, "response": response}));
        }
        if reasoning {
            let item =
                json!({"id": id("rs_"), "type": "reasoning", "summary": [], "encrypted_content": id("enc_")});
            self.item(&item, &item);
        }
        for (name, arguments) in &answer.calls {
            self.call(name, &arguments.to_string());
        }
        let mut cut = false;
        if answer.calls.is_empty() || !answer.text.is_empty() {
            cut = self.text(&answer.text, limit);
        }
        let output_tokens = tokens(&Value::from(self.output.clone()).to_string());
        self.response["output"] = self.output.clone().into();
        self.response["status"] = if cut { "incomplete" } else { "completed" }.into();
        if cut {
            self.response["incomplete_details"] = json!({"reason": "max_output_tokens"});
        }
        let total = input_tokens.as_u64().unwrap_or_default() + output_tokens as u64;
        self.response["usage"] = json!({
            "input_tokens": input_tokens, "input_tokens_details": {"cached_tokens": 0, "cache_write_tokens": 0},
            "output_tokens": output_tokens, "output_tokens_details": {"reasoning_tokens": 0},
            "total_tokens": total,
        });
        let response = self.response.clone();
        self.emit(json!({"type": if cut { "response.incomplete" } else { "response.completed" },
            "response": response}));
        (self.events, self.response)
    }

    fn item(&mut self, begun: &Value, done: &Value) {
        let index = self.output.len();
        self.emit(json!({"type": "response.output_item.added", "output_index": index, "item": begun}));
        self.emit(json!({"type": "response.output_item.done", "output_index": index, "item": done}));
        self.output.push(done.clone());
    }

    fn call(&mut self, name: &str, arguments: &str) {
        let (index, item_id) = (self.output.len(), id("fc_"));
        let mut item = json!({"id": item_id, "type": "function_call", "status": "in_progress",
            "call_id": id("call_"), "name": name, "arguments": ""});
        self.emit(json!({"type": "response.output_item.added", "output_index": index, "item": item}));
        for piece in pieces(arguments) {
            self.emit(json!({"type": "response.function_call_arguments.delta", "item_id": item_id,
                "output_index": index, "delta": piece}));
        }
        self.emit(json!({"type": "response.function_call_arguments.done", "item_id": item_id, "name": name,
            "output_index": index, "arguments": arguments}));
        item["arguments"] = arguments.into();
        item["status"] = "completed".into();
        self.emit(json!({"type": "response.output_item.done", "output_index": index, "item": item}));
        self.output.push(item);
    }

    /// Whether the limit cut it.
    fn text(&mut self, text: &str, limit: Option<usize>) -> bool {
        let (index, item_id) = (self.output.len(), id("msg_"));
        let mut item = json!({"id": item_id, "type": "message", "status": "in_progress", "role": "assistant", "content": []});
        self.emit(json!({"type": "response.output_item.added", "output_index": index, "item": item}));
        let part =
            |text: &str| json!({"type": "output_text", "text": text, "annotations": [], "logprobs": []});
        let at = json!({"item_id": item_id, "output_index": index, "content_index": 0});
        let with = |kind: &str, name: &str, value: Value| {
            let mut event = at.clone();
            event["type"] = kind.into();
            event[name] = value;
            event
        };
        self.emit(with("response.content_part.added", "part", part("")));
        let mut pieces = pieces(text);
        let cut = limit.is_some_and(|limit| pieces.len() > limit);
        pieces.truncate(limit.unwrap_or(usize::MAX));
        let text = pieces.concat();
        for piece in pieces {
            let mut event = with("response.output_text.delta", "delta", piece.into());
            event["logprobs"] = json!([]);
            self.emit(event);
        }
        let mut done = with("response.output_text.done", "text", text.as_str().into());
        done["logprobs"] = json!([]);
        self.emit(done);
        self.emit(with("response.content_part.done", "part", part(&text)));
        item["status"] = if cut { "incomplete" } else { "completed" }.into();
        item["content"] = json!([part(&text)]);
        self.emit(json!({"type": "response.output_item.done", "output_index": index, "item": item}));
        self.output.push(item);
        cut
    }
}
