//! `POST /v1/messages`: judging the request.

use serde_json::{Value, json};

use super::super::mind::Thought;
use super::super::reply::{Asked, Reply};
use super::super::shape::{Field, Kind, Problem, is_name, object, unstrict};
use super::{refuse, worded, write};

const FIELDS: &[Field] = &[
    ("max_tokens", Kind::Whole(1, 200_000), true),
    ("messages", Kind::List, true),
    ("model", Kind::Text, true),
    ("cache_control", Kind::Object, false),
    ("container", Kind::Any, false),
    ("diagnostics", Kind::Object, false),
    ("inference_geo", Kind::Text, false),
    ("metadata", Kind::Object, false),
    ("output_config", Kind::Object, false),
    ("service_tier", Kind::OneOf(&["auto", "standard_only"]), false),
    ("speed", Kind::OneOf(&["standard", "fast"]), false),
    ("stop_sequences", Kind::List, false),
    ("stream", Kind::Flag, false),
    ("system", Kind::Any, false),
    ("thinking", Kind::Object, false),
    ("tool_choice", Kind::Object, false),
    ("tools", Kind::List, false),
];

const CACHE: Field = ("cache_control", Kind::Object, false);

pub(super) fn answer(body: &Value, asked: &Asked<'_>) -> Result<Reply, String> {
    object(body, "", FIELDS).map_err(worded)?;
    let model = body["model"].as_str().unwrap_or_default();
    if !model.starts_with("claude-") {
        return Ok(refuse("not_found_error", &format!("model: {model}")));
    }
    system(&body["system"])?;
    tools(body)?;
    messages(&body["messages"])?;
    output(&body["output_config"])?;
    if !body["metadata"].is_null() {
        object(&body["metadata"], "metadata", &[("user_id", Kind::Text, false)]).map_err(worded)?;
    }
    let stops = body["stop_sequences"].as_array();
    if stops.into_iter().flatten().any(|stop| stop.as_str().is_none_or(|stop| stop.trim().is_empty())) {
        return Err("stop_sequences: each stop sequence must contain non-whitespace".into());
    }
    let answer = asked.options.mind.answer(&thought(body));
    Ok(write::reply(body, model, answer))
}

fn system(system: &Value) -> Result<(), String> {
    match system {
        Value::Null | Value::String(_) => Ok(()),
        Value::Array(blocks) => blocks
            .iter()
            .enumerate()
            .try_for_each(|(index, block)| text_block(block, &format!("system[{index}]"))),
        _ => Err("system: Input should be a valid string or list".into()),
    }
}

fn text_block(block: &Value, path: &str) -> Result<(), String> {
    let fields: &[Field] = &[
        ("type", Kind::OneOf(&["text"]), true),
        ("text", Kind::Text, true),
        ("citations", Kind::Any, false),
        CACHE,
    ];
    object(block, path, fields).map_err(worded)?;
    if block["text"].as_str().is_some_and(str::is_empty) {
        return Err(format!(
            "{}: text content blocks must be non-empty",
            path.replace('[', ".").replace(']', "")
        ));
    }
    Ok(())
}

fn tools(body: &Value) -> Result<(), String> {
    for (index, tool) in body["tools"].as_array().into_iter().flatten().enumerate() {
        let path = format!("tools[{index}]");
        let fields: &[Field] = &[
            ("name", Kind::Text, true),
            ("input_schema", Kind::Object, true),
            ("type", Kind::OneOf(&["custom"]), false),
            ("description", Kind::Text, false),
            ("strict", Kind::Flag, false),
            ("input_examples", Kind::List, false),
            ("defer_loading", Kind::Flag, false),
            ("eager_input_streaming", Kind::Flag, false),
            ("allowed_callers", Kind::List, false),
            CACHE,
        ];
        object(tool, &path, fields).map_err(worded)?;
        if !is_name(tool["name"].as_str().unwrap_or_default(), 128) {
            let message = "String should match pattern '^[a-zA-Z0-9_-]{1,128}$'";
            return Err(worded(Problem::other(&format!("{path}.name"), message)));
        }
        if tool["input_schema"]["type"] != "object" {
            let message = "Input should be 'object'";
            return Err(worded(Problem::other(&format!("{path}.custom.input_schema.type"), message)));
        }
    }
    let choice = &body["tool_choice"];
    if choice.is_null() {
        return Ok(());
    }
    let fields: &[Field] = &[
        ("type", Kind::OneOf(&["auto", "any", "tool", "none"]), true),
        ("name", Kind::Text, false),
        ("disable_parallel_tool_use", Kind::Flag, false),
    ];
    object(choice, "tool_choice", fields).map_err(worded)?;
    let offered = body["tools"].as_array();
    if offered.is_none_or(Vec::is_empty) {
        return Err("tool_choice may only be specified while providing tools".into());
    }
    if choice["type"] == "tool" && !offered.into_iter().flatten().any(|tool| tool["name"] == choice["name"]) {
        return Err(format!("Tool {} not found in provided tools", choice["name"]));
    }
    Ok(())
}

fn messages(messages: &Value) -> Result<(), String> {
    let messages = messages.as_array().map(Vec::as_slice).unwrap_or_default();
    if messages.is_empty() {
        return Err("messages: at least one message is required".into());
    }
    if messages[0]["role"] != "user" {
        return Err("messages: first message must use the \"user\" role".into());
    }
    let mut open: Vec<&str> = Vec::new();
    for (index, message) in messages.iter().enumerate() {
        let path = format!("messages[{index}]");
        let role = ("role", Kind::OneOf(&["user", "assistant", "system"]), true);
        object(message, &path, &[role, ("content", Kind::Any, true)]).map_err(worded)?;
        let assistant = message["role"] == "assistant";
        let blocks = match &message["content"] {
            Value::String(text) if text.is_empty() => {
                return Err(format!("messages.{index}: all messages must have non-empty content"));
            }
            Value::String(_) => &[],
            Value::Array(blocks) if blocks.is_empty() => {
                return Err(format!("messages.{index}: all messages must have non-empty content"));
            }
            Value::Array(blocks) => blocks.as_slice(),
            _ => return Err(format!("messages.{index}.content: Input should be a valid list")),
        };
        let answered: Vec<&str> = blocks.iter().filter_map(|block| block["tool_use_id"].as_str()).collect();
        if let Some(missing) = open.iter().find(|id| !answered.contains(id)) {
            return Err(format!(
                "messages.{}: `tool_use` ids were found without `tool_result` blocks immediately after: {missing}. Each `tool_use` block must have a corresponding `tool_result` block in the next message.",
                index.saturating_sub(1)
            ));
        }
        if let Some(extra) = answered.iter().find(|id| !open.contains(id)) {
            return Err(format!(
                "messages.{index}.content: unexpected `tool_use_id` found in `tool_result` blocks: {extra}. Each `tool_result` block must have a corresponding `tool_use` block in the previous message."
            ));
        }
        open.clear();
        for (at, block) in blocks.iter().enumerate() {
            let path = format!("{path}.content[{at}]");
            self::block(block, &path, assistant)?;
            if block["type"] == "tool_use" {
                open.extend(block["id"].as_str());
            }
        }
    }
    match open.first() {
        None => Ok(()),
        Some(id) => Err(format!(
            "messages.{}: `tool_use` ids were found without `tool_result` blocks immediately after: {id}. Each `tool_use` block must have a corresponding `tool_result` block in the next message.",
            messages.len() - 1
        )),
    }
}

fn block(block: &Value, path: &str, assistant: bool) -> Result<(), String> {
    let kind = ("type", Kind::Text, true);
    let fields: &[Field] = match (block["type"].as_str().unwrap_or_default(), assistant) {
        ("text", _) => return text_block(block, path),
        ("image" | "document", false) => &[
            kind,
            ("source", Kind::Object, true),
            ("title", Kind::Text, false),
            ("context", Kind::Text, false),
            ("citations", Kind::Any, false),
            CACHE,
        ],
        ("tool_result", false) => &[
            kind,
            ("tool_use_id", Kind::Text, true),
            ("content", Kind::Any, false),
            ("is_error", Kind::Flag, false),
            CACHE,
        ],
        ("tool_use", true) => &[
            kind,
            ("id", Kind::Text, true),
            ("name", Kind::Text, true),
            ("input", Kind::Object, true),
            ("caller", Kind::Object, false),
            CACHE,
        ],
        ("thinking", true) => &[kind, ("thinking", Kind::Text, true), ("signature", Kind::Text, true)],
        ("redacted_thinking", true) => &[kind, ("data", Kind::Text, true)],
        (other, _) => {
            let message =
                format!("Input tag '{other}' found using 'type' does not match any of the expected tags");
            return Err(worded(Problem::other(path, message)));
        }
    };
    object(block, path, fields).map_err(worded)?;
    if block["type"] == "thinking" && !block["signature"].as_str().is_some_and(|s| s.starts_with("sig_")) {
        return Err(worded(Problem::other(path, "Invalid `signature` in `thinking` block")));
    }
    if block["type"] == "image" {
        let source = ("type", Kind::OneOf(&["base64", "url", "file"]), true);
        let media = Kind::OneOf(&["image/jpeg", "image/png", "image/gif", "image/webp"]);
        let fields: &[Field] =
            &[source, ("media_type", media, false), ("data", Kind::Text, false), ("url", Kind::Text, false)];
        object(&block["source"], &format!("{path}.source"), fields).map_err(worded)?;
    }
    Ok(())
}

fn output(config: &Value) -> Result<(), String> {
    if config.is_null() {
        return Ok(());
    }
    let effort = Kind::OneOf(&["low", "medium", "high", "xhigh", "max"]);
    let fields: &[Field] = &[("effort", effort, false), ("format", Kind::Object, false)];
    object(config, "output_config", fields).map_err(worded)?;
    let format = &config["format"];
    if format.is_null() {
        return Ok(());
    }
    let fields: &[Field] = &[("type", Kind::OneOf(&["json_schema"]), true), ("schema", Kind::Object, true)];
    object(format, "output_config.format", fields).map_err(worded)?;
    match unstrict(&format["schema"], "") {
        Some(problem) => Err(format!("output_config.format.schema: {problem}")),
        None => Ok(()),
    }
}

fn text_of(content: &Value) -> String {
    match content {
        Value::String(text) => text.clone(),
        Value::Array(blocks) => {
            blocks.iter().filter_map(|block| block["text"].as_str()).collect::<Vec<_>>().join("\n")
        }
        _ => String::new(),
    }
}

fn thought(body: &Value) -> Thought {
    let mut thought = Thought { system: text_of(&body["system"]), ..Thought::default() };
    for message in body["messages"].as_array().into_iter().flatten() {
        if message["role"] != "user" {
            continue;
        }
        let blocks = message["content"].as_array();
        let results: Vec<String> = blocks
            .into_iter()
            .flatten()
            .filter(|block| block["type"] == "tool_result")
            .map(|block| text_of(&block["content"]))
            .collect();
        if results.is_empty() {
            thought.user = text_of(&message["content"]);
        }
        thought.results = results;
    }
    for tool in body["tools"].as_array().into_iter().flatten() {
        let name = tool["name"].as_str().unwrap_or_default().to_owned();
        thought.tools.push((name, tool["input_schema"].clone()));
    }
    let choice = &body["tool_choice"];
    thought.may_call = choice["type"] != "none";
    thought.must_call = match choice["type"].as_str() {
        Some("any") => Some(None),
        Some("tool") => Some(choice["name"].as_str().map(str::to_owned)),
        _ => None,
    };
    thought.one_call = choice["disable_parallel_tool_use"] == true;
    let schema = &body["output_config"]["format"]["schema"];
    let asks_json = thought.system.contains("one JSON object");
    thought.schema = match schema {
        Value::Null if asks_json => Some(json!(null)),
        Value::Null => None,
        schema => Some(schema.clone()),
    };
    thought
}
