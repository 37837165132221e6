//! What a model is asked.

use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::Error;
use crate::media::{Media, Picture};

/// Most messages of one conversation.
const MOST_MESSAGES: usize = 2_000;
/// Most tools of one request, as the strictest vendor allows.
const MOST_TOOLS: usize = 128;
/// Most bytes of text in one request.
const MOST_TEXT: usize = 8 << 20;

/// One turn to be answered.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct ChatRequest {
    /// Who the model is and what it must do; our own words, never a user's.
    pub system: Option<String>,
    /// The conversation so far; ends with the turn to be answered.
    pub messages: Vec<Message>,
    /// Functions that the model may call.
    pub tools: Vec<Tool>,
    /// Whether it must.
    pub tool_choice: ToolChoice,
    /// Whether it may call several at once. Default: yes.
    pub single_tool_call: bool,
    /// The shape of the answer.
    pub format: ResponseFormat,
    /// Most tokens of the answer, reasoning included.
    pub max_output_tokens: Option<u32>,
    /// From 0 (the same every time) to 2; left out for models that do not take it.
    pub temperature: Option<f32>,
    /// Nucleus sampling; left out for models that do not take it.
    pub top_p: Option<f32>,
    /// Texts that end the answer, at most four.
    pub stop: Vec<String>,
    /// How much reasoning, for models that reason.
    pub effort: Option<Effort>,
    /// An opaque id of the person behind the request, for the provider's abuse control.
    pub user: Option<String>,
}

impl ChatRequest {
    /// One user message under a system prompt.
    #[must_use]
    pub fn new(system: &str, user: &str) -> Self {
        Self { system: Some(system.to_owned()), messages: vec![Message::user(user)], ..Self::default() }
    }

    /// Checks what no provider accepts, so that the caller hears it once and in our words.
    ///
    /// # Errors
    /// [`Error::InvalidRequest`].
    pub fn check(&self) -> Result<(), Error> {
        let invalid = |message: String| Err(Error::InvalidRequest(message));
        if self.messages.is_empty() {
            return invalid("there are no messages: add what the user says".into());
        }
        if self.messages.len() > MOST_MESSAGES {
            return invalid(format!("more than {MOST_MESSAGES} messages: summarise the older ones"));
        }
        if self.tools.len() > MOST_TOOLS {
            return invalid(format!("more than {MOST_TOOLS} tools: offer fewer"));
        }
        if self.stop.len() > 4 || self.stop.iter().any(String::is_empty) {
            return invalid("stop texts must be at most four, and not empty".into());
        }
        if self.text_len() > MOST_TEXT {
            return invalid(format!("more than {MOST_TEXT} bytes of text: shorten the conversation"));
        }
        for tool in &self.tools {
            let fits = !tool.name.is_empty()
                && tool.name.len() <= 64
                && tool.name.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'_' || b == b'-');
            if !fits {
                return invalid(format!(
                    "`{}` is no tool name: use 1 to 64 letters, digits, _ and -",
                    tool.name
                ));
            }
        }
        if let ToolChoice::Named(name) = &self.tool_choice
            && !self.tools.iter().any(|tool| tool.name == *name)
        {
            return invalid(format!("the tool `{name}` is demanded but not offered: add it to the tools"));
        }
        if self.tool_choice == ToolChoice::Required && self.tools.is_empty() {
            return invalid("a tool call is required but no tool is offered: add one".into());
        }
        self.check_pairs()
    }

    /// Every call is answered by the very next message, and nothing else is.
    fn check_pairs(&self) -> Result<(), Error> {
        let mut open: Vec<&str> = Vec::new();
        for message in &self.messages {
            match message {
                Message::Tool(results) => {
                    for result in results {
                        let Some(at) = open.iter().position(|id| *id == result.call_id) else {
                            return Err(Error::InvalidRequest(format!(
                                "a tool result answers `{}`, which the message before did not call",
                                result.call_id
                            )));
                        };
                        open.swap_remove(at);
                    }
                }
                _ if !open.is_empty() => break,
                Message::Assistant(parts) => {
                    open = parts.iter().filter_map(AssistantPart::tool_call).map(|c| c.id.as_str()).collect();
                }
                Message::User(_) => {}
            }
        }
        match open.first() {
            None => Ok(()),
            Some(id) => Err(Error::InvalidRequest(format!(
                "the tool call `{id}` has no result: answer every call in the message after it"
            ))),
        }
    }

    /// Bytes of text in system prompt, messages and tools.
    #[must_use]
    pub fn text_len(&self) -> usize {
        let messages = self.messages.iter().map(Message::text_len).sum::<usize>();
        let tools = self.tools.iter().map(|t| t.description.len() + t.parameters.to_string().len());
        self.system.as_ref().map_or(0, String::len) + messages + tools.sum::<usize>()
    }

    /// The text of the last user message, where it has any.
    #[must_use]
    pub fn last_user_text(&self) -> Option<String> {
        self.messages.iter().rev().find_map(|message| match message {
            Message::User(content) => {
                let texts: Vec<&str> = content.iter().filter_map(Content::text).collect();
                (!texts.is_empty()).then(|| texts.join("\n"))
            }
            _ => None,
        })
    }
}

/// One message.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Message {
    /// From the user.
    User(Vec<Content>),
    /// From the model.
    Assistant(Vec<AssistantPart>),
    /// Results of all tool calls of the message before.
    Tool(Vec<ToolResult>),
}

impl Message {
    /// A user's text.
    #[must_use]
    pub fn user(text: &str) -> Self {
        Self::User(vec![Content::Text(text.to_owned())])
    }

    /// A model's text.
    #[must_use]
    pub fn assistant(text: &str) -> Self {
        Self::Assistant(vec![AssistantPart::Text(text.to_owned())])
    }

    fn text_len(&self) -> usize {
        match self {
            Self::User(content) => content.iter().filter_map(Content::text).map(str::len).sum(),
            Self::Assistant(parts) => parts
                .iter()
                .map(|part| match part {
                    AssistantPart::Text(text) => text.len(),
                    AssistantPart::ToolCall(call) => call.name.len() + call.arguments.len(),
                    AssistantPart::Opaque(_) => 0,
                })
                .sum(),
            Self::Tool(results) => results.iter().map(|result| result.output.len()).sum(),
        }
    }
}

/// A part of a user's message.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Content {
    /// Text.
    Text(String),
    /// A picture.
    Picture(Picture),
    /// Audio, WAV or MP3.
    Audio(Media),
    /// A PDF document.
    Document(Media),
}

impl Content {
    /// Its text, if it is one.
    #[must_use]
    pub fn text(&self) -> Option<&str> {
        match self {
            Self::Text(text) => Some(text),
            _ => None,
        }
    }
}

/// A part of a model's message.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum AssistantPart {
    /// Text.
    Text(String),
    /// A call of a tool.
    ToolCall(ToolCall),
    /// What a provider wants to see again unchanged; other providers do not get it.
    Opaque(Opaque),
}

impl AssistantPart {
    /// The call, if it is one.
    #[must_use]
    pub fn tool_call(&self) -> Option<&ToolCall> {
        match self {
            Self::ToolCall(call) => Some(call),
            _ => None,
        }
    }
}

/// A provider's own state within a conversation: signed reasoning, for example.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Opaque {
    /// The wire protocol that understands it.
    pub protocol: String,
    /// The state.
    pub value: Value,
}

/// A call of a tool.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ToolCall {
    /// The provider's id, or ours where it gives none.
    pub id: String,
    /// Which tool.
    pub name: String,
    /// Arguments: a JSON object as text. Models may write what does not parse; callers check.
    pub arguments: String,
    /// A provider's signature that must come back with the call.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub signature: Option<String>,
}

/// What a tool returned.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ToolResult {
    /// The call's id.
    pub call_id: String,
    /// The tool's name: some protocols pair by it.
    pub name: String,
    /// The result, text or JSON as text.
    pub output: String,
    /// Whether it failed.
    #[serde(default)]
    pub is_error: bool,
}

/// A function that the model may call.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Tool {
    /// 1 to 64 letters, digits, `_` and `-`.
    pub name: String,
    /// What it does and when to call it.
    pub description: String,
    /// JSON schema of the arguments, an object.
    pub parameters: Value,
    /// Whether arguments must match the schema, where the provider can promise that.
    #[serde(default)]
    pub strict: bool,
}

/// Whether the model must call a tool.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ToolChoice {
    /// As it sees fit.
    #[default]
    Auto,
    /// No tool.
    None,
    /// Some tool.
    Required,
    /// This one.
    Named(String),
}

/// The shape of the answer.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ResponseFormat {
    /// Prose.
    #[default]
    Text,
    /// Some JSON object.
    Json,
    /// JSON that matches a schema.
    Schema {
        /// Its name: letters, digits, `_` and `-`.
        name: String,
        /// The schema; for strict providers every object says `additionalProperties: false` and requires all.
        schema: Value,
    },
}

/// How much reasoning.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Effort {
    /// None or as little as possible.
    Minimal,
    /// Little.
    Low,
    /// Some.
    Medium,
    /// Much.
    High,
}

#[cfg(test)]
mod tests {
    use rstest::rstest;
    use serde_json::json;

    use super::*;

    fn call(id: &str) -> AssistantPart {
        AssistantPart::ToolCall(ToolCall {
            id: id.into(),
            name: "look".into(),
            arguments: "{}".into(),
            signature: None,
        })
    }

    fn result(id: &str) -> ToolResult {
        ToolResult { call_id: id.into(), name: "look".into(), output: "ok".into(), is_error: false }
    }

    #[rstest]
    #[case(vec![Message::user("hi")], true)]
    #[case(vec![], false)]
    #[case(vec![Message::user("hi"), Message::Assistant(vec![call("a"), call("b")]), Message::Tool(vec![result("b"), result("a")])], true)]
    #[case(vec![Message::user("hi"), Message::Assistant(vec![call("a"), call("b")]), Message::Tool(vec![result("a")])], false)]
    #[case(vec![Message::user("hi"), Message::Assistant(vec![call("a")]), Message::user("and?")], false)]
    #[case(vec![Message::user("hi"), Message::Tool(vec![result("a")])], false)]
    #[case(vec![Message::user("hi"), Message::Assistant(vec![call("a")])], false)]
    fn calls_and_results_are_paired(#[case] messages: Vec<Message>, #[case] fine: bool) {
        let request = ChatRequest { messages, ..ChatRequest::default() };
        assert_eq!(request.check().is_ok(), fine, "{:?}", request.check());
    }

    #[test]
    fn a_demanded_tool_must_be_offered() {
        let mut request = ChatRequest::new("You are kind.", "hi");
        request.tool_choice = ToolChoice::Named("look".into());
        assert!(request.check().unwrap_err().to_string().contains("not offered"));
        request.tools.push(Tool {
            name: "look".into(),
            description: "Looks.".into(),
            parameters: json!({"type": "object"}),
            strict: false,
        });
        request.check().unwrap();
    }
}
