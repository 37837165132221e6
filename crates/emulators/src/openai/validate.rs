//! What the vendor accepts: each client event is checked in full before it has any effect.

use serde_json::{Map, Value};

/// An `error` event's content.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct ApiError {
    pub(super) kind: &'static str,
    pub(super) code: &'static str,
    pub(super) message: String,
    pub(super) param: Option<String>,
}

impl ApiError {
    pub(super) fn new(code: &'static str, message: impl Into<String>, param: Option<&str>) -> Self {
        Self { kind: "invalid_request_error", code, message: message.into(), param: param.map(str::to_owned) }
    }

    pub(super) fn value(param: &str, message: impl Into<String>) -> Self {
        Self::new("invalid_value", message, Some(param))
    }
}

type Checked = Result<(), ApiError>;

/// What a field may hold.
enum Kind {
    Any,
    Text,
    Flag,
    Integer(i64, i64),
    Number(f64, f64),
    OneOf(&'static [&'static str]),
    Object(&'static [Field]),
    Nullable(&'static Kind),
    Custom(fn(&Value, &str) -> Checked),
}

struct Field {
    name: &'static str,
    kind: Kind,
    required: bool,
}

const fn may(name: &'static str, kind: Kind) -> Field {
    Field { name, kind, required: false }
}

const fn must(name: &'static str, kind: Kind) -> Field {
    Field { name, kind, required: true }
}

const EVENT_ID: Field = may("event_id", Kind::Text);

/// Every client event of a WebSocket session.
static EVENTS: &[(&str, &[Field])] = &[
    ("session.update", &[TYPE, EVENT_ID, must("session", Kind::Custom(session))]),
    ("input_audio_buffer.append", &[TYPE, EVENT_ID, must("audio", Kind::Text)]),
    ("input_audio_buffer.commit", &[TYPE, EVENT_ID]),
    ("input_audio_buffer.clear", &[TYPE, EVENT_ID]),
    (
        "conversation.item.create",
        &[
            TYPE,
            EVENT_ID,
            may("previous_item_id", Kind::Nullable(&Kind::Text)),
            must("item", Kind::Custom(item)),
        ],
    ),
    (
        "conversation.item.truncate",
        &[
            TYPE,
            EVENT_ID,
            must("item_id", Kind::Text),
            must("content_index", Kind::Integer(0, 0)),
            must("audio_end_ms", Kind::Integer(0, i64::MAX)),
        ],
    ),
    ("conversation.item.delete", &[TYPE, EVENT_ID, must("item_id", Kind::Text)]),
    ("conversation.item.retrieve", &[TYPE, EVENT_ID, must("item_id", Kind::Text)]),
    ("response.create", &[TYPE, EVENT_ID, may("response", Kind::Nullable(&Kind::Custom(response)))]),
    ("response.cancel", &[TYPE, EVENT_ID, may("response_id", Kind::Text)]),
];

const TYPE: Field = must("type", Kind::Text);

/// Fields of the beta's session and response; the GA interface names none of them so.
const BETA: &[&str] = &[
    "modalities",
    "voice",
    "input_audio_format",
    "output_audio_format",
    "input_audio_transcription",
    "input_audio_noise_reduction",
    "turn_detection",
    "temperature",
    "max_response_output_tokens",
    "speed",
];

static SESSION: &[Field] = &[
    must("type", Kind::OneOf(&["realtime"])),
    may("model", Kind::Text),
    may("output_modalities", Kind::Custom(modalities)),
    may("instructions", Kind::Text),
    may("audio", Kind::Object(AUDIO)),
    may("tools", Kind::Custom(tools)),
    may("tool_choice", Kind::Custom(tool_choice)),
    may("parallel_tool_calls", Kind::Flag),
    may("max_output_tokens", Kind::Custom(max_tokens)),
    may(
        "reasoning",
        Kind::Nullable(&Kind::Object(&[may(
            "effort",
            Kind::OneOf(&["minimal", "low", "medium", "high", "xhigh"]),
        )])),
    ),
    may("truncation", Kind::Custom(truncation)),
    may("prompt", Kind::Any),
    may("tracing", Kind::Any),
    may("include", Kind::Any),
];

static TRANSCRIPTION: &[Field] = &[
    must("type", Kind::OneOf(&["transcription"])),
    may("audio", Kind::Object(&[may("input", Kind::Object(AUDIO_INPUT))])),
    may("include", Kind::Any),
];

const AUDIO: &[Field] = &[may("input", Kind::Object(AUDIO_INPUT)), may("output", Kind::Object(AUDIO_OUTPUT))];

const AUDIO_INPUT: &[Field] = &[
    may("format", Kind::Custom(format)),
    may(
        "transcription",
        Kind::Nullable(&Kind::Object(&[
            may("model", Kind::OneOf(TRANSCRIBERS)),
            may("language", Kind::Text),
            may("prompt", Kind::Text),
        ])),
    ),
    may(
        "noise_reduction",
        Kind::Nullable(&Kind::Object(&[must("type", Kind::OneOf(&["near_field", "far_field"]))])),
    ),
    may("turn_detection", Kind::Nullable(&Kind::Custom(turn_detection))),
];

const TRANSCRIBERS: &[&str] = &[
    "whisper-1",
    "gpt-4o-mini-transcribe",
    "gpt-4o-transcribe",
    "gpt-4o-transcribe-diarize",
    "gpt-transcribe",
    "gpt-live-transcribe",
    "gpt-realtime-whisper",
];

const VOICES: &[&str] =
    &["alloy", "ash", "ballad", "coral", "echo", "sage", "shimmer", "verse", "marin", "cedar"];

const AUDIO_OUTPUT: &[Field] = &[
    may("format", Kind::Custom(format)),
    may("voice", Kind::Custom(voice)),
    may("speed", Kind::Number(0.25, 1.5)),
];

static RESPONSE: &[Field] = &[
    may("conversation", Kind::OneOf(&["auto", "none"])),
    may("input", Kind::Custom(items)),
    may("instructions", Kind::Text),
    may("output_modalities", Kind::Custom(modalities)),
    may(
        "audio",
        Kind::Object(&[may(
            "output",
            Kind::Object(&[may("format", Kind::Custom(format)), may("voice", Kind::Custom(voice))]),
        )]),
    ),
    may("tools", Kind::Custom(tools)),
    may("tool_choice", Kind::Custom(tool_choice)),
    may("parallel_tool_calls", Kind::Flag),
    may("max_output_tokens", Kind::Custom(max_tokens)),
    may("metadata", Kind::Any),
    may("prompt", Kind::Any),
    may("reasoning", Kind::Any),
];

const TURN_TYPE: Field = must("type", Kind::OneOf(&["server_vad", "semantic_vad"]));
const CREATE_RESPONSE: Field = may("create_response", Kind::Flag);
const INTERRUPT_RESPONSE: Field = may("interrupt_response", Kind::Flag);

static SERVER_VAD: &[Field] = &[
    TURN_TYPE,
    CREATE_RESPONSE,
    INTERRUPT_RESPONSE,
    may("threshold", Kind::Number(0.0, 1.0)),
    may("prefix_padding_ms", Kind::Integer(0, 5_000)),
    may("silence_duration_ms", Kind::Integer(0, 10_000)),
    may("idle_timeout_ms", Kind::Nullable(&Kind::Integer(5_000, 30_000))),
];

static SEMANTIC_VAD: &[Field] = &[
    TURN_TYPE,
    CREATE_RESPONSE,
    INTERRUPT_RESPONSE,
    may("eagerness", Kind::OneOf(&["low", "medium", "high", "auto"])),
];

/// Checks one client event; returns its type.
pub(super) fn event(event: &Value) -> Result<&'static str, ApiError> {
    let Some(object) = event.as_object() else {
        return Err(ApiError::new("invalid_event", "An event must be a JSON object.", None));
    };
    let Some(kind) = object.get("type") else {
        return Err(missing("type"));
    };
    let kind = kind.as_str().ok_or_else(|| wrong_type("type", "a string", kind))?;
    if kind == "output_audio_buffer.clear" {
        return Err(ApiError::value(
            "type",
            "'output_audio_buffer.clear' works on WebRTC and SIP sessions only.",
        ));
    }
    let Some((name, fields)) = EVENTS.iter().find(|(name, _)| *name == kind) else {
        let names: Vec<&str> = EVENTS.iter().map(|(name, _)| *name).collect();
        return Err(unsupported("type", kind, &names));
    };
    check_fields(object, fields, "")?;
    Ok(name)
}

fn check_fields(object: &Map<String, Value>, fields: &[Field], path: &str) -> Checked {
    let join = |name: &str| if path.is_empty() { name.to_owned() } else { format!("{path}.{name}") };
    if let Some(name) = object.keys().find(|name| !fields.iter().any(|f| f.name == name.as_str())) {
        let path = join(name);
        return Err(ApiError::new("unknown_parameter", format!("Unknown parameter: '{path}'."), Some(&path)));
    }
    for field in fields {
        match object.get(field.name) {
            Some(value) => check(value, &field.kind, &join(field.name))?,
            None if field.required => return Err(missing(&join(field.name))),
            None => {}
        }
    }
    Ok(())
}

fn check(value: &Value, kind: &Kind, path: &str) -> Checked {
    match kind {
        Kind::Any => Ok(()),
        Kind::Text if value.is_string() => Ok(()),
        Kind::Text => Err(wrong_type(path, "a string", value)),
        Kind::Flag if value.is_boolean() => Ok(()),
        Kind::Flag => Err(wrong_type(path, "a boolean", value)),
        Kind::Integer(low, high) => {
            let number = value.as_i64().ok_or_else(|| wrong_type(path, "an integer", value))?;
            range(path, "integer", number as f64, *low as f64, *high as f64)
        }
        Kind::Number(low, high) => {
            let number = value.as_f64().ok_or_else(|| wrong_type(path, "a decimal", value))?;
            range(path, "decimal", number, *low, *high)
        }
        Kind::OneOf(allowed) => {
            let text = value.as_str().ok_or_else(|| wrong_type(path, "a string", value))?;
            if allowed.contains(&text) { Ok(()) } else { Err(unsupported(path, text, allowed)) }
        }
        Kind::Object(fields) => {
            check_fields(value.as_object().ok_or_else(|| wrong_type(path, "an object", value))?, fields, path)
        }
        Kind::Nullable(_) if value.is_null() => Ok(()),
        Kind::Nullable(kind) => check(value, kind, path),
        Kind::Custom(rule) => rule(value, path),
    }
}

fn range(path: &str, noun: &str, number: f64, low: f64, high: f64) -> Checked {
    let (code, side, bound) = match () {
        () if number < low && noun == "integer" => ("integer_below_min_value", "below minimum", low),
        () if number > high && noun == "integer" => ("integer_above_max_value", "above maximum", high),
        () if number < low => ("decimal_below_min_value", "below minimum", low),
        () if number > high => ("decimal_above_max_value", "above maximum", high),
        () => return Ok(()),
    };
    let message = format!(
        "Invalid '{path}': {noun} {side} value. Expected a value of {bound}, but got {number} instead."
    );
    Err(ApiError::new(code, message, Some(path)))
}

fn missing(path: &str) -> ApiError {
    ApiError::new("missing_required_parameter", format!("Missing required parameter: '{path}'."), Some(path))
}

fn wrong_type(path: &str, expected: &str, got: &Value) -> ApiError {
    let got = match got {
        Value::Null => "null",
        Value::Bool(_) => "a boolean",
        Value::Number(_) => "a number",
        Value::String(_) => "a string",
        Value::Array(_) => "an array",
        Value::Object(_) => "an object",
    };
    let message = format!("Invalid type for '{path}': expected {expected}, but got {got} instead.");
    ApiError::new("invalid_type", message, Some(path))
}

fn unsupported(path: &str, got: &str, allowed: &[&str]) -> ApiError {
    let list = allowed.iter().map(|a| format!("'{a}'")).collect::<Vec<_>>().join(", ");
    ApiError::value(path, format!("Invalid value: '{got}'. Supported values are: {list}."))
}

/// The error that anything in the beta's shape gets.
pub(super) fn beta(param: Option<&str>) -> ApiError {
    let message =
        "The Realtime Beta API is no longer supported. Please use /v1/realtime with the GA session shape.";
    ApiError::new("beta_api_shape_disabled", message, param)
}

fn refuse_beta(object: &Map<String, Value>, path: &str) -> Checked {
    match BETA.iter().find(|name| object.contains_key(**name)) {
        Some(name) => Err(beta(Some(&format!("{path}.{name}")))),
        None => Ok(()),
    }
}

fn object<'a>(value: &'a Value, path: &str) -> Result<&'a Map<String, Value>, ApiError> {
    value.as_object().ok_or_else(|| wrong_type(path, "an object", value))
}

fn array<'a>(value: &'a Value, path: &str) -> Result<&'a Vec<Value>, ApiError> {
    value.as_array().ok_or_else(|| wrong_type(path, "an array", value))
}

fn session(value: &Value, path: &str) -> Checked {
    let fields = object(value, path)?;
    refuse_beta(fields, path)?;
    let transcription = fields.get("type").is_some_and(|kind| kind == "transcription");
    check_fields(fields, if transcription { TRANSCRIPTION } else { SESSION }, path)
}

fn response(value: &Value, path: &str) -> Checked {
    let fields = object(value, path)?;
    refuse_beta(fields, path)?;
    check_fields(fields, RESPONSE, path)
}

fn format(value: &Value, path: &str) -> Checked {
    if value.is_string() {
        return Err(beta(Some(path)));
    }
    let fields = object(value, path)?;
    let kind = fields.get("type").ok_or_else(|| missing(&format!("{path}.type")))?;
    let kind_path = format!("{path}.type");
    check(kind, &Kind::OneOf(&["audio/pcm", "audio/pcmu", "audio/pcma"]), &kind_path)?;
    if kind == "audio/pcm" {
        const PCM: &[Field] = &[TYPE, must("rate", Kind::Integer(24_000, 24_000))];
        check_fields(fields, PCM, path)
    } else {
        check_fields(fields, &[TYPE], path)
    }
}

fn turn_detection(value: &Value, path: &str) -> Checked {
    let fields = object(value, path)?;
    let semantic = fields.get("type").is_some_and(|t| t == "semantic_vad");
    check_fields(fields, if semantic { SEMANTIC_VAD } else { SERVER_VAD }, path)
}

fn voice(value: &Value, path: &str) -> Checked {
    match value {
        Value::Object(fields) => {
            const CUSTOM: &[Field] = &[must("id", Kind::Text)];
            check_fields(fields, CUSTOM, path)
        }
        _ => check(value, &Kind::OneOf(VOICES), path),
    }
}

fn modalities(value: &Value, path: &str) -> Checked {
    let list = array(value, path)?;
    match list.as_slice() {
        [one] if one == "audio" || one == "text" => Ok(()),
        _ => {
            let message =
                format!("Invalid modalities: {value}. Supported combinations are: ['text'] and ['audio'].");
            Err(ApiError::value(path, message))
        }
    }
}

fn max_tokens(value: &Value, path: &str) -> Checked {
    if value == "inf" { Ok(()) } else { check(value, &Kind::Integer(1, 4_096), path) }
}

fn truncation(value: &Value, path: &str) -> Checked {
    if value.is_string() {
        return check(value, &Kind::OneOf(&["auto", "disabled"]), path);
    }
    static RATIO: &[Field] = &[
        must("type", Kind::OneOf(&["retention_ratio"])),
        must("retention_ratio", Kind::Number(0.0, 1.0)),
        may("token_limits", Kind::Object(&[may("post_instructions", Kind::Integer(0, i64::MAX))])),
    ];
    check(value, &Kind::Object(RATIO), path)
}

fn tools(value: &Value, path: &str) -> Checked {
    static FUNCTION: &[Field] =
        &[must("type", Kind::OneOf(&["function"])), must("name", Kind::Text), may("description", Kind::Text)];
    let list = array(value, path)?;
    if list.len() > 128 {
        return Err(ApiError::new(
            "array_above_max_length",
            format!("Invalid '{path}': more than 128 tools."),
            Some(path),
        ));
    }
    for (index, tool) in list.iter().enumerate() {
        let path = format!("{path}[{index}]");
        let mut fields = object(tool, &path)?.clone();
        // The keys of a schema are its author's.
        if let Some(parameters) = fields.remove("parameters") {
            object(&parameters, &format!("{path}.parameters"))?;
        }
        check_fields(&fields, FUNCTION, &path)?;
        let name = fields["name"].as_str().unwrap_or_default();
        let legal = |c: char| c.is_ascii_alphanumeric() || c == '_' || c == '-';
        if name.is_empty() || name.len() > 64 || !name.chars().all(legal) {
            let path = format!("{path}.name");
            let message =
                format!("Invalid '{path}': expected 1 to 64 characters of a-z, A-Z, 0-9, '_' and '-'.");
            return Err(ApiError::value(&path, message));
        }
    }
    Ok(())
}

fn tool_choice(value: &Value, path: &str) -> Checked {
    match value {
        Value::Object(fields) => {
            const CHOSEN: &[Field] = &[must("type", Kind::OneOf(&["function"])), must("name", Kind::Text)];
            check_fields(fields, CHOSEN, path)
        }
        _ => check(value, &Kind::OneOf(&["auto", "none", "required"]), path),
    }
}

fn items(value: &Value, path: &str) -> Checked {
    for (index, entry) in array(value, path)?.iter().enumerate() {
        let path = format!("{path}[{index}]");
        if entry["type"] == "item_reference" {
            const REFERENCE: &[Field] = &[TYPE, must("id", Kind::Text)];
            check_fields(object(entry, &path)?, REFERENCE, &path)?;
        } else {
            item(entry, &path)?;
        }
    }
    Ok(())
}

const ITEM_ID: Field = may("id", Kind::Text);
const ITEM_OBJECT: Field = may("object", Kind::OneOf(&["realtime.item"]));
const ITEM_STATUS: Field = may("status", Kind::OneOf(&["completed", "incomplete", "in_progress"]));

fn item(value: &Value, path: &str) -> Checked {
    let fields = object(value, path)?;
    let kind = fields.get("type").ok_or_else(|| missing(&format!("{path}.type")))?;
    check(
        kind,
        &Kind::OneOf(&["message", "function_call", "function_call_output"]),
        &format!("{path}.type"),
    )?;
    if let Some(id) = fields.get("id").and_then(Value::as_str)
        && (id.is_empty() || id.len() > 32)
    {
        let path = format!("{path}.id");
        let message = format!("Invalid '{path}': expected 1 to 32 characters, but got {} instead.", id.len());
        return Err(ApiError::new("string_above_max_length", message, Some(&path)));
    }
    const MESSAGE: &[Field] = &[
        must("role", Kind::OneOf(&["user", "assistant", "system"])),
        must("content", Kind::Any),
        TYPE,
        ITEM_ID,
        ITEM_OBJECT,
        ITEM_STATUS,
    ];
    const CALL: &[Field] = &[
        must("name", Kind::Text),
        must("arguments", Kind::Text),
        may("call_id", Kind::Text),
        TYPE,
        ITEM_ID,
        ITEM_OBJECT,
        ITEM_STATUS,
    ];
    const OUTPUT: &[Field] =
        &[must("call_id", Kind::Text), must("output", Kind::Text), TYPE, ITEM_ID, ITEM_OBJECT, ITEM_STATUS];
    match kind.as_str().unwrap_or_default() {
        "message" => {
            check_fields(fields, MESSAGE, path)?;
            content(fields, path)
        }
        "function_call" => check_fields(fields, CALL, path),
        _ => check_fields(fields, OUTPUT, path),
    }
}

fn content(message: &Map<String, Value>, path: &str) -> Checked {
    let path = format!("{path}.content");
    let allowed: &[&str] = match message["role"].as_str().unwrap_or_default() {
        "assistant" => &["output_text", "output_audio"],
        "system" => &["input_text"],
        _ => &["input_text", "input_audio", "input_image"],
    };
    for (index, part) in array(&message["content"], &path)?.iter().enumerate() {
        let path = format!("{path}[{index}]");
        let fields = object(part, &path)?;
        let kind = fields.get("type").ok_or_else(|| missing(&format!("{path}.type")))?;
        check(kind, &Kind::OneOf(allowed), &format!("{path}.type"))?;
        const TRANSCRIPT: Field = may("transcript", Kind::Nullable(&Kind::Text));
        const INPUT_AUDIO: &[Field] = &[TYPE, must("audio", Kind::Text), TRANSCRIPT];
        const OUTPUT_AUDIO: &[Field] = &[TYPE, may("audio", Kind::Text), TRANSCRIPT];
        const IMAGE: &[Field] =
            &[TYPE, must("image_url", Kind::Text), may("detail", Kind::OneOf(&["auto", "low", "high"]))];
        const TEXT: &[Field] = &[TYPE, must("text", Kind::Text)];
        let own = match kind.as_str().unwrap_or_default() {
            "input_audio" => INPUT_AUDIO,
            "output_audio" => OUTPUT_AUDIO,
            "input_image" => IMAGE,
            _ => TEXT,
        };
        check_fields(fields, own, &path)?;
    }
    Ok(())
}
