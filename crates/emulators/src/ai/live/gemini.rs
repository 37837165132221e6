//! Gemini Live: `BidiGenerateContent`. Its JSON goes out in binary messages.

use std::collections::VecDeque;

use base64::Engine as _;
use base64::engine::general_purpose::{STANDARD, URL_SAFE};
use serde_json::{Value, json};
use tokio::time::Instant;

use super::Asked;
use super::ears::{Ears, Format};
use super::line::{Line, Next};
use super::studio::speak;
use crate::ai::mind::Thought;
use crate::ai::reply::{id, tokens};
use crate::ai::shape::{Field, Kind, object};
use crate::speech::VadEvent;

/// Whether a path is this service's, of any version of the interface.
pub(super) fn is_path(path: &str) -> bool {
    let version = path
        .strip_prefix("/gemini/ws/google.ai.generativelanguage.")
        .and_then(|rest| rest.strip_suffix(".GenerativeService.BidiGenerateContent"));
    version.is_some_and(|version| matches!(version, "v1" | "v1beta" | "v1alpha"))
}

/// The life of a connection, in seconds, and how long before its end the vendor says so.
const LIFE: f64 = 600.0;
const WARNING: f64 = 60.0;
const PIECE_MS: u32 = 40;

const SETUP: &[Field] = &[
    ("model", Kind::Text, true),
    ("generationConfig", Kind::Object, false),
    ("systemInstruction", Kind::Object, false),
    ("tools", Kind::List, false),
    ("realtimeInputConfig", Kind::Object, false),
    ("sessionResumption", Kind::Object, false),
    ("contextWindowCompression", Kind::Object, false),
    ("inputAudioTranscription", Kind::Object, false),
    ("outputAudioTranscription", Kind::Object, false),
    ("proactivity", Kind::Object, false),
    ("historyConfig", Kind::Object, false),
];
const GENERATION: &[Field] = &[
    ("responseModalities", Kind::List, false),
    ("speechConfig", Kind::Object, false),
    ("temperature", Kind::Number(0.0, 2.0), false),
    ("topP", Kind::Number(0.0, 1.0), false),
    ("topK", Kind::Any, false),
    ("maxOutputTokens", Kind::Whole(1, 1 << 20), false),
    ("mediaResolution", Kind::Text, false),
    ("seed", Kind::Any, false),
    ("thinkingConfig", Kind::Object, false),
    ("enableAffectiveDialog", Kind::Flag, false),
];
const INPUT: &[Field] = &[
    ("automaticActivityDetection", Kind::Object, false),
    (
        "activityHandling",
        Kind::OneOf(&["START_OF_ACTIVITY_INTERRUPTS", "NO_INTERRUPTION", "ACTIVITY_HANDLING_UNSPECIFIED"]),
        false,
    ),
    ("turnCoverage", Kind::Text, false),
];
const DETECTION: &[Field] = &[
    ("disabled", Kind::Flag, false),
    ("startOfSpeechSensitivity", Kind::Text, false),
    ("endOfSpeechSensitivity", Kind::Text, false),
    ("prefixPaddingMs", Kind::Whole(0, 10_000), false),
    ("silenceDurationMs", Kind::Whole(0, 10_000), false),
];
const REALTIME: &[Field] = &[
    ("audio", Kind::Object, false),
    ("audioStreamEnd", Kind::Flag, false),
    ("text", Kind::Text, false),
    ("activityStart", Kind::Object, false),
    ("activityEnd", Kind::Object, false),
    ("mediaChunks", Kind::List, false),
];

struct State {
    setup: Value,
    ears: Ears,
    rate: u32,
    manual: bool,
    said: Vec<String>,
    /// Messages to come, with the words in each.
    out: VecDeque<Value>,
    speaking: bool,
    calls: Vec<Value>,
    results: Vec<String>,
    user: String,
    handle: u64,
}

fn unknown(path: &str, what: &str) -> String {
    format!("Invalid JSON payload received. Unknown name or invalid value at '{path}': {what}")
}

fn check(value: &Value, path: &str, fields: &'static [Field]) -> Result<(), String> {
    if value.is_null() {
        return Ok(());
    }
    object(value, path, fields)
        .map(drop)
        .map_err(|problem| unknown(&problem.path, &format!("{:?}", problem.what)))
}

fn judge(setup: &Value) -> Result<(), String> {
    check(setup, "setup", SETUP)?;
    let model = setup["model"].as_str().unwrap_or_default();
    if !model.starts_with("models/") || !model.contains("live") {
        return Err(format!(
            "{model} is not found for API version v1beta, or is not supported for bidiGenerateContent."
        ));
    }
    check(&setup["generationConfig"], "setup.generation_config", GENERATION)?;
    check(&setup["realtimeInputConfig"], "setup.realtime_input_config", INPUT)?;
    check(
        &setup["realtimeInputConfig"]["automaticActivityDetection"],
        "setup.realtime_input_config.automatic_activity_detection",
        DETECTION,
    )?;
    let modalities = &setup["generationConfig"]["responseModalities"];
    if !modalities.is_null() && *modalities != json!(["AUDIO"]) {
        return Err("Request contains an invalid argument: this model answers in AUDIO only.".into());
    }
    for tool in setup["tools"].as_array().into_iter().flatten() {
        for function in tool["functionDeclarations"].as_array().into_iter().flatten() {
            let name = function["name"].as_str().unwrap_or_default();
            if name.is_empty() || !name.chars().all(|c| c.is_ascii_alphanumeric() || "_-.:".contains(c)) {
                return Err(unknown("setup.tools", "an invalid function name"));
            }
        }
    }
    Ok(())
}

impl State {
    fn new(setup: Value) -> Self {
        let detection = &setup["realtimeInputConfig"]["automaticActivityDetection"];
        let silence = detection["silenceDurationMs"].as_u64().unwrap_or(500).clamp(100, 5_000) as u32;
        Self {
            manual: detection["disabled"] == true,
            ears: Ears::new(Format::Pcm(16_000), &[silence]),
            rate: 16_000,
            said: Vec::new(),
            out: VecDeque::new(),
            speaking: false,
            calls: Vec::new(),
            results: Vec::new(),
            user: String::new(),
            handle: 0,
            setup,
        }
    }

    fn content(content: Value) -> Value {
        json!({"serverContent": content})
    }

    /// What is being said stops; calls that wait are taken back.
    async fn interrupt(&mut self, line: &mut Line) {
        if self.speaking {
            self.speaking = false;
            self.out.clear();
            line.send(Self::content(json!({"interrupted": true}))).await;
            line.send(Self::content(json!({"turnComplete": true}))).await;
        }
        if !self.calls.is_empty() {
            let ids: Vec<Value> = self.calls.drain(..).map(|call| call["id"].clone()).collect();
            self.results.clear();
            line.send(json!({"toolCallCancellation": {"ids": ids}})).await;
        }
    }

    async fn respond(&mut self, line: &mut Line) {
        let mut thought = Thought { user: self.user.clone(), may_call: true, ..Thought::default() };
        thought.results = std::mem::take(&mut self.results);
        let parts = self.setup["systemInstruction"]["parts"].as_array();
        thought.system = parts.into_iter().flatten().filter_map(|part| part["text"].as_str()).collect();
        for tool in self.setup["tools"].as_array().into_iter().flatten() {
            for function in tool["functionDeclarations"].as_array().into_iter().flatten() {
                let schema = match &function["parametersJsonSchema"] {
                    Value::Null => &function["parameters"],
                    schema => schema,
                };
                thought.tools.push((function["name"].as_str().unwrap_or_default().into(), schema.clone()));
            }
        }
        let answer = line.shared.options.mind.answer(&thought);
        if !answer.calls.is_empty() {
            let call = |(name, args): (String, Value)| json!({"id": id("function-call-"), "name": name, "args": args});
            self.calls = answer.calls.into_iter().map(call).collect();
            line.send(json!({"toolCall": {"functionCalls": self.calls}})).await;
            return;
        }
        let pieces = speak(&line.shared.options.speaker, &answer.text, Format::Pcm(24_000), PIECE_MS).await;
        line.spoke(pieces.iter().flat_map(|piece| &piece.words).map(|word| word.text.clone()));
        let transcribes = !self.setup["outputAudioTranscription"].is_null();
        for (index, piece) in pieces.into_iter().enumerate() {
            let blob = json!({"mimeType": "audio/pcm;rate=24000", "data": STANDARD.encode(&piece.audio)});
            self.out.push_back(Self::content(json!({"modelTurn": {"parts": [{"inlineData": blob}]}})));
            let words: Vec<&str> = piece.words.iter().map(|word| word.text.as_str()).collect();
            if transcribes && !words.is_empty() {
                let space = if index == 0 { "" } else { " " };
                let text = format!("{space}{}", words.join(" "));
                self.out.push_back(Self::content(json!({"outputTranscription": {"text": text}})));
            }
        }
        self.out.push_back(Self::content(json!({"generationComplete": true})));
        let (asked, told) = (tokens(&self.user), tokens(&answer.text));
        self.out.push_back(json!({"serverContent": {"turnComplete": true}, "usageMetadata":
            {"promptTokenCount": asked, "responseTokenCount": told, "totalTokenCount": asked + told}}));
        if !self.setup["sessionResumption"].is_null() {
            self.handle += 1;
            let handle = format!("handle-{}-{}", id(""), self.handle);
            self.out.push_back(json!({"sessionResumptionUpdate": {"newHandle": handle, "resumable": true}}));
        }
        self.speaking = true;
    }

    async fn end_turn(&mut self, line: &mut Line) {
        if self.said.is_empty() {
            return;
        }
        self.user = std::mem::take(&mut self.said).join(" ");
        self.respond(line).await;
    }

    async fn audio(&mut self, blob: &Value, line: &mut Line) -> Result<(), String> {
        let mime = blob["mimeType"].as_str().unwrap_or_default();
        let rate = match mime.split_once(";rate=") {
            Some(("audio/pcm", rate)) => rate.parse().unwrap_or(0),
            _ if mime == "audio/pcm" => 16_000,
            _ => 0,
        };
        if !(8_000..=48_000).contains(&rate) {
            return Err(format!("Unsupported audio type '{mime}': send audio/pcm;rate=16000."));
        }
        if rate != self.rate {
            self.rate = rate;
            self.ears = Ears::new(Format::Pcm(rate), &[500]);
        }
        let data = blob["data"].as_str().unwrap_or_default();
        // Both alphabets, as Google's JSON of bytes has it.
        let bytes = STANDARD.decode(data).or_else(|_| URL_SAFE.decode(data));
        let bytes = bytes.map_err(|_| unknown("realtime_input.audio.data", "Base64 decoding failed"))?;
        let noticed = self.ears.notice(&bytes);
        for event in &noticed.turns {
            if matches!(event, VadEvent::SpeechStarted { .. }) && !self.manual {
                self.interrupt(line).await;
            }
        }
        for word in noticed.words {
            line.heard(&word.text);
            if !self.setup["inputAudioTranscription"].is_null() {
                let text = if self.said.is_empty() { word.text.clone() } else { format!(" {}", word.text) };
                line.send(Self::content(json!({"inputTranscription": {"text": text}}))).await;
            }
            self.said.push(word.text);
        }
        let stopped = noticed.turns.iter().any(|event| matches!(event, VadEvent::SpeechStopped { .. }));
        if stopped && !self.manual {
            self.end_turn(line).await;
        }
        Ok(())
    }

    async fn message(&mut self, message: &Value, line: &mut Line) -> Result<(), String> {
        let Some((name, body)) = message.as_object().filter(|o| o.len() == 1).and_then(|o| o.iter().next())
        else {
            return Err(unknown("", "exactly one message type must be set"));
        };
        match name.as_str() {
            "realtimeInput" => {
                check(body, "realtime_input", REALTIME)?;
                if !body["audio"].is_null() {
                    self.audio(&body["audio"], line).await?;
                }
                if let Some(text) = body["text"].as_str() {
                    self.interrupt(line).await;
                    self.user = text.to_owned();
                    self.respond(line).await;
                }
                if !body["activityStart"].is_null() || !body["activityEnd"].is_null() {
                    if !self.manual {
                        return Err("Explicit activity control is not supported when automatic activity detection is enabled.".into());
                    }
                    if !body["activityStart"].is_null() {
                        self.interrupt(line).await;
                    } else {
                        self.end_turn(line).await;
                    }
                }
                if body["audioStreamEnd"] == true {
                    self.end_turn(line).await;
                }
            }
            "clientContent" => {
                let fields: &[Field] = &[("turns", Kind::List, false), ("turnComplete", Kind::Flag, false)];
                object(body, "client_content", fields)
                    .map_err(|problem| unknown(&problem.path, &format!("{:?}", problem.what)))?;
                for turn in body["turns"].as_array().into_iter().flatten() {
                    if turn["role"] == "user" {
                        let texts = turn["parts"].as_array().into_iter().flatten();
                        self.user =
                            texts.filter_map(|part| part["text"].as_str()).collect::<Vec<_>>().join("\n");
                    } else if turn["role"] != "model" {
                        return Err(unknown("client_content.turns.role", "use user or model"));
                    }
                }
                if body["turnComplete"] == true {
                    self.interrupt(line).await;
                    self.respond(line).await;
                }
            }
            "toolResponse" => {
                for response in body["functionResponses"].as_array().into_iter().flatten() {
                    let Some(index) = self.calls.iter().position(|call| call["id"] == response["id"]) else {
                        return Err("Request contains an invalid argument: no such function call.".into());
                    };
                    if self.calls[index]["name"] != response["name"] || !response["response"].is_object() {
                        return Err(
                            "Request contains an invalid argument: the response does not match its call."
                                .into(),
                        );
                    }
                    self.calls.remove(index);
                    let output = &response["response"]["output"];
                    let output = if output.is_null() { &response["response"] } else { output };
                    self.results.push(output.as_str().map_or_else(|| output.to_string(), str::to_owned));
                }
                if self.calls.is_empty() {
                    self.respond(line).await;
                }
            }
            "setup" => return Err("Setup message must be the first and only one.".into()),
            other => return Err(unknown(other, "Cannot find field.")),
        }
        Ok(())
    }
}

pub(super) async fn serve(line: &mut Line, asked: &Asked) {
    line.binary = true;
    line.trouble = (
        json!({"error": {"code": 500, "message": "Internal error encountered.", "status": "INTERNAL"}}),
        1011,
    );
    let query = asked.query("key");
    let admitted = asked.admits(asked.header("x-goog-api-key").or(query.as_deref()));
    let Next::Text(first) = as_text(line.next(Some(Instant::now() + line.vendor_time(10.0))).await) else {
        return line.close(1007, "Setup message must be the first message.").await;
    };
    // A wrong key is found out when the socket is open.
    if !admitted {
        line.complain("wrong key");
        return line.close(1007, "API key not valid. Please pass a valid API key.").await;
    }
    let first = camel(serde_json::from_str(&first).unwrap_or_default());
    let setup = first["setup"].clone();
    let judged = if setup.is_object() {
        judge(&setup)
    } else {
        Err("Setup message must be the first message.".into())
    };
    if let Err(reason) = judged {
        line.complain(reason.clone());
        let code = if reason.contains("not found") { 1008 } else { 1007 };
        return line.close(code, &reason).await;
    }
    line.send(json!({"setupComplete": {"sessionId": id("")}})).await;
    let mut state = State::new(setup);
    let begun = Instant::now();
    let (warn_at, end_at) = (begun + line.vendor_time(LIFE - WARNING), begun + line.vendor_time(LIFE));
    let (mut at, mut warned) = (begun, false);
    loop {
        let life = if warned { end_at } else { warn_at };
        let due = if state.out.is_empty() { life } else { at.min(life) };
        let next = as_text(line.next(Some(due)).await);
        let now = Instant::now();
        if now >= end_at {
            return line.close(1011, "The connection has reached its longest duration.").await;
        }
        if now >= warn_at && !warned {
            warned = true;
            let left = line.vendor_time(WARNING).as_secs_f64();
            line.send(json!({"goAway": {"timeLeft": format!("{left}s")}})).await;
        }
        match next {
            Next::Gone => return,
            Next::Due => {
                if let Some(message) = state.out.pop_front() {
                    at = now + line.options().gap;
                    line.send(message).await;
                }
                state.speaking &= !state.out.is_empty();
            }
            Next::Binary(_) => {}
            Next::Text(text) => {
                let message = camel(serde_json::from_str(&text).unwrap_or_default());
                if state.out.is_empty() {
                    at = now + line.options().latency;
                }
                if let Err(reason) = state.message(&message, line).await {
                    line.complain(reason.clone());
                    return line.close(1007, &reason).await;
                }
            }
        }
    }
}

/// Names of fields may be written in both ways; what is inside of schemas, arguments and answers is their author's.
fn camel(value: Value) -> Value {
    match value {
        Value::Array(items) => items.into_iter().map(camel).collect(),
        Value::Object(fields) => {
            let field = |(name, value): (String, Value)| {
                let mut parts = name.split('_');
                let mut whole = parts.next().unwrap_or_default().to_owned();
                for part in parts {
                    let mut characters = part.chars();
                    whole.extend(characters.next().map(|c| c.to_ascii_uppercase()));
                    whole.extend(characters);
                }
                let theirs =
                    matches!(whole.as_str(), "parameters" | "parametersJsonSchema" | "args" | "response");
                (whole, if theirs { value } else { camel(value) })
            };
            Value::Object(fields.into_iter().map(field).collect())
        }
        other => other,
    }
}

/// The vendor takes JSON in both kinds of messages.
fn as_text(next: Next) -> Next {
    match next {
        Next::Binary(bytes) => Next::Text(String::from_utf8_lossy(&bytes).into_owned()),
        other => other,
    }
}
