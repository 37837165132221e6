//! `generateContent` and `streamGenerateContent`.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde_json::{Value, json};

use super::super::mind::Thought;
use super::super::reply::{Asked, PIXEL, Reply, data, id, pieces, tokens};
use super::super::shape::{Field, Kind, Problem, is_name, object};
use super::worded;

const FIELDS: &[Field] = &[
    ("contents", Kind::List, true),
    ("systemInstruction", Kind::Object, false),
    ("tools", Kind::List, false),
    ("toolConfig", Kind::Object, false),
    ("safetySettings", Kind::List, false),
    ("generationConfig", Kind::Object, false),
    ("cachedContent", Kind::Text, false),
    ("store", Kind::Flag, false),
    ("serviceTier", Kind::Text, false),
];

const CONFIG: &[Field] = &[
    ("temperature", Kind::Number(0.0, 2.0), false),
    ("topP", Kind::Number(0.0, 1.0), false),
    ("topK", Kind::Whole(1, 1_000), false),
    ("candidateCount", Kind::Whole(1, 8), false),
    ("maxOutputTokens", Kind::Whole(1, 1 << 20), false),
    ("stopSequences", Kind::List, false),
    ("presencePenalty", Kind::Number(-2.0, 2.0), false),
    ("frequencyPenalty", Kind::Number(-2.0, 2.0), false),
    ("seed", Kind::Whole(i64::MIN, i64::MAX), false),
    ("responseMimeType", Kind::OneOf(&["text/plain", "application/json", "text/x.enum"]), false),
    ("responseSchema", Kind::Object, false),
    ("responseJsonSchema", Kind::Any, false),
    ("responseModalities", Kind::List, false),
    ("mediaResolution", Kind::Text, false),
    ("speechConfig", Kind::Object, false),
    ("thinkingConfig", Kind::Object, false),
    ("imageConfig", Kind::Object, false),
    ("responseLogprobs", Kind::Flag, false),
    ("logprobs", Kind::Whole(0, 20), false),
];

pub(super) fn answer(body: &Value, model: &str, stream: bool, asked: &Asked<'_>) -> Result<Reply, String> {
    object(body, "", FIELDS).map_err(worded)?;
    contents(&body["contents"])?;
    if !body["systemInstruction"].is_null() {
        let fields: &[Field] = &[("parts", Kind::List, true), ("role", Kind::Text, false)];
        object(&body["systemInstruction"], "system_instruction", fields).map_err(worded)?;
    }
    tools(body)?;
    config(&body["generationConfig"], model)?;
    let usage = |output: usize| {
        let input = tokens(&body["contents"].to_string());
        json!({"promptTokenCount": input, "candidatesTokenCount": output, "totalTokenCount": input + output,
            "promptTokensDetails": [{"modality": "TEXT", "tokenCount": input}]})
    };
    let response_id = id("");
    let piece = |parts: Value, finish: Option<&str>, output: usize| {
        let mut candidate = json!({"content": {"parts": parts, "role": "model"}, "index": 0});
        if let Some(finish) = finish {
            candidate["finishReason"] = finish.into();
        }
        json!({"candidates": [candidate], "usageMetadata": usage(output), "modelVersion": model,
            "responseId": response_id})
    };
    if body["generationConfig"]["responseModalities"].as_array().is_some_and(|m| m.contains(&"IMAGE".into()))
    {
        let part = json!([{"inlineData": {"mimeType": "image/png", "data": PIXEL}}]);
        return Ok(Reply::ok(piece(part, Some("STOP"), 1_290)));
    }
    let thought = thought(body);
    let answer = asked.options.mind.answer(&thought);
    let limit = body["generationConfig"]["maxOutputTokens"].as_u64().unwrap_or(u64::MAX);
    let mut texts = pieces(&answer.text);
    let cut = texts.len() as u64 > limit;
    texts.truncate(usize::try_from(limit).unwrap_or(usize::MAX));
    let finish = if cut { "MAX_TOKENS" } else { "STOP" };
    let thinks = model.starts_with("gemini-3");
    let calls: Vec<Value> = answer
        .calls
        .iter()
        .enumerate()
        .map(|(index, (name, args))| {
            let mut part = json!({"functionCall": {"name": name, "args": args}});
            // Signed when it thinks; ids only from version 3 on.
            if thinks {
                part["functionCall"]["id"] = id("").into();
                if index == 0 {
                    part["thoughtSignature"] = STANDARD.encode(id("sig_")).into();
                }
            }
            part
        })
        .collect();
    let output = tokens(&texts.concat()) + calls.iter().map(|call| tokens(&call.to_string())).sum::<usize>();
    if !stream {
        let mut parts = calls;
        if !texts.is_empty() {
            parts.insert(0, json!({"text": texts.concat()}));
        }
        return Ok(Reply::ok(piece(parts.into(), Some(finish), output)));
    }
    let mut events: Vec<String> =
        texts.iter().map(|text| data(&piece(json!([{"text": text}]), None, output))).collect();
    if !calls.is_empty() {
        events.push(data(&piece(calls.into(), None, output)));
    }
    events.push(data(&piece(json!([{"text": ""}]), Some(finish), output)));
    Ok(Reply::Events(events))
}

fn contents(contents: &Value) -> Result<(), String> {
    let contents = contents.as_array().map(Vec::as_slice).unwrap_or_default();
    if contents.is_empty() {
        return Err("* GenerateContentRequest.contents: contents is not specified".into());
    }
    // Calls of the turn before, by name.
    let mut open: Vec<&Value> = Vec::new();
    for (index, content) in contents.iter().enumerate() {
        let path = format!("contents[{index}]");
        let role = ("role", Kind::OneOf(&["user", "model"]), false);
        object(content, &path, &[role, ("parts", Kind::List, true)]).map_err(|problem| {
            match problem.path {
                path if path.ends_with(".role") => "Please use a valid role: user, model.".to_owned(),
                path => worded(Problem { path, ..problem }),
            }
        })?;
        let parts = content["parts"].as_array().map(Vec::as_slice).unwrap_or_default();
        if parts.is_empty() {
            return Err(worded(Problem::other(&path, "contents.parts must not be empty.")));
        }
        let mut answered = 0;
        let mut calls = Vec::new();
        for (at, part) in parts.iter().enumerate() {
            let path = format!("{path}.parts[{at}]");
            self::part(part, &path)?;
            if !part["functionResponse"].is_null() {
                answered += 1;
                if !open.contains(&&part["functionResponse"]["name"]) {
                    return Err("Please ensure that function response turn comes immediately after a function call turn.".into());
                }
            }
            if !part["functionCall"].is_null() {
                calls.push(&part["functionCall"]["name"]);
            }
        }
        if answered != open.len() {
            return Err("Please ensure that the number of function response parts is equal to the number of function call parts of the function call turn.".into());
        }
        open = calls;
    }
    if open.is_empty() {
        Ok(())
    } else {
        Err("Please ensure that function call turn is followed by a function response turn.".into())
    }
}

fn part(part: &Value, path: &str) -> Result<(), String> {
    const DATA: &[&str] = &["text", "inlineData", "fileData", "functionCall", "functionResponse"];
    let fields: &[Field] = &[
        ("text", Kind::Text, false),
        ("inlineData", Kind::Object, false),
        ("fileData", Kind::Object, false),
        ("functionCall", Kind::Object, false),
        ("functionResponse", Kind::Object, false),
        ("thought", Kind::Flag, false),
        ("thoughtSignature", Kind::Text, false),
        ("videoMetadata", Kind::Object, false),
        ("mediaResolution", Kind::Object, false),
    ];
    object(part, path, fields).map_err(worded)?;
    let given = DATA.iter().filter(|name| !part[**name].is_null()).count();
    if given != 1 {
        return Err(format!("* {path}.data: required oneof field 'data' must have one initialized field"));
    }
    let inner: (&str, &[Field]) = if !part["inlineData"].is_null() {
        ("inlineData", &[("mimeType", Kind::Text, true), ("data", Kind::Text, true)])
    } else if !part["fileData"].is_null() {
        ("fileData", &[("mimeType", Kind::Text, false), ("fileUri", Kind::Text, true)])
    } else if !part["functionCall"].is_null() {
        (
            "functionCall",
            &[("name", Kind::Text, true), ("args", Kind::Object, false), ("id", Kind::Text, false)],
        )
    } else if !part["functionResponse"].is_null() {
        (
            "functionResponse",
            &[
                ("name", Kind::Text, true),
                ("response", Kind::Object, true),
                ("id", Kind::Text, false),
                ("scheduling", Kind::Text, false),
                ("willContinue", Kind::Flag, false),
            ],
        )
    } else {
        return Ok(());
    };
    object(&part[inner.0], &format!("{path}.{}", inner.0), inner.1).map_err(worded).map(|_| ())
}

fn tools(body: &Value) -> Result<(), String> {
    let mut names = Vec::new();
    for (index, tool) in body["tools"].as_array().into_iter().flatten().enumerate() {
        let path = format!("tools[{index}]");
        let fields: &[Field] = &[
            ("functionDeclarations", Kind::List, false),
            ("googleSearch", Kind::Object, false),
            ("codeExecution", Kind::Object, false),
            ("urlContext", Kind::Object, false),
        ];
        object(tool, &path, fields).map_err(worded)?;
        for (at, function) in tool["functionDeclarations"].as_array().into_iter().flatten().enumerate() {
            let path = format!("{path}.function_declarations[{at}]");
            let fields: &[Field] = &[
                ("name", Kind::Text, true),
                ("description", Kind::Text, true),
                ("parameters", Kind::Object, false),
                ("parametersJsonSchema", Kind::Any, false),
                ("response", Kind::Object, false),
                ("responseJsonSchema", Kind::Any, false),
                ("behavior", Kind::Text, false),
            ];
            object(function, &path, fields).map_err(worded)?;
            let name = function["name"].as_str().unwrap_or_default();
            if !is_name(name, 64) {
                return Err(format!(
                    "Invalid function name at {path}: must start with a letter or an underscore."
                ));
            }
            names.push(name);
        }
    }
    let config = &body["toolConfig"];
    if config.is_null() {
        return Ok(());
    }
    object(config, "tool_config", &[("functionCallingConfig", Kind::Object, false)]).map_err(worded)?;
    let calling = &config["functionCallingConfig"];
    let fields: &[Field] = &[
        ("mode", Kind::OneOf(&["AUTO", "ANY", "NONE", "VALIDATED"]), false),
        ("allowedFunctionNames", Kind::List, false),
    ];
    object(calling, "tool_config.function_calling_config", fields).map_err(worded)?;
    for allowed in calling["allowedFunctionNames"].as_array().into_iter().flatten() {
        if !names.iter().any(|name| allowed == name) {
            return Err(format!("allowed_function_names: {allowed} is not declared."));
        }
    }
    Ok(())
}

fn config(config: &Value, model: &str) -> Result<(), String> {
    if config.is_null() {
        return Ok(());
    }
    object(config, "generation_config", CONFIG).map_err(worded)?;
    if config["stopSequences"].as_array().is_some_and(|stops| stops.len() > 5) {
        return Err("stop_sequences: at most 5 are supported.".into());
    }
    let json = config["responseMimeType"] == "application/json";
    if (!config["responseSchema"].is_null() || !config["responseJsonSchema"].is_null()) && !json {
        return Err("response_schema requires response_mime_type to be application/json.".into());
    }
    let thinking = &config["thinkingConfig"];
    if thinking.is_null() {
        return Ok(());
    }
    let fields: &[Field] = &[
        ("includeThoughts", Kind::Flag, false),
        ("thinkingBudget", Kind::Whole(-1, 32_768), false),
        ("thinkingLevel", Kind::OneOf(&["MINIMAL", "LOW", "MEDIUM", "HIGH"]), false),
    ];
    object(thinking, "generation_config.thinking_config", fields).map_err(worded)?;
    if !thinking["thinkingLevel"].is_null() && model.starts_with("gemini-2") {
        return Err("Thinking level is not supported for this model.".into());
    }
    Ok(())
}

fn text_of(parts: &Value) -> String {
    let texts = parts.as_array().into_iter().flatten().filter_map(|part| part["text"].as_str());
    texts.collect::<Vec<_>>().join("\n")
}

fn thought(body: &Value) -> Thought {
    let system = text_of(&body["systemInstruction"]["parts"]);
    let mut thought = Thought { system, ..Thought::default() };
    for content in body["contents"].as_array().into_iter().flatten() {
        if content["role"] == "model" {
            continue;
        }
        let parts = content["parts"].as_array();
        let results: Vec<String> = parts
            .into_iter()
            .flatten()
            .filter(|part| !part["functionResponse"].is_null())
            .map(|part| {
                let response = &part["functionResponse"]["response"];
                let output = if response["output"].is_null() { response } else { &response["output"] };
                output.as_str().map_or_else(|| output.to_string(), str::to_owned)
            })
            .collect();
        if results.is_empty() {
            thought.user = text_of(&content["parts"]);
        }
        thought.results = results;
    }
    for tool in body["tools"].as_array().into_iter().flatten() {
        for function in tool["functionDeclarations"].as_array().into_iter().flatten() {
            let name = function["name"].as_str().unwrap_or_default().to_owned();
            let schema = match &function["parametersJsonSchema"] {
                Value::Null => &function["parameters"],
                schema => schema,
            };
            thought.tools.push((name, schema.clone()));
        }
    }
    let calling = &body["toolConfig"]["functionCallingConfig"];
    thought.may_call = calling["mode"] != "NONE";
    thought.must_call =
        (calling["mode"] == "ANY").then(|| calling["allowedFunctionNames"][0].as_str().map(str::to_owned));
    let config = &body["generationConfig"];
    thought.schema = (config["responseMimeType"] == "application/json").then(|| {
        match (&config["responseJsonSchema"], &config["responseSchema"]) {
            (Value::Null, schema) => schema.clone(),
            (schema, _) => schema.clone(),
        }
    });
    thought
}
