//! A whole answer.

use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};

use super::{AssistantPart, FinishReason, Message, ToolCall};
use crate::Error;
use crate::usage::Usage;

/// A whole answer.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct Completion {
    /// The provider's id, where it has one.
    pub id: Option<String>,
    /// The model that answered.
    pub model: String,
    /// Text, calls and state, in order.
    pub parts: Vec<AssistantPart>,
    /// Reasoning, where it was shown.
    pub reasoning: String,
    /// Why the model refused, if it did.
    pub refusal: Option<String>,
    /// Why it stopped.
    pub finish: Option<FinishReason>,
    /// What it consumed.
    pub usage: Usage,
}

impl Completion {
    /// All text.
    #[must_use]
    pub fn text(&self) -> String {
        let texts = self.parts.iter().filter_map(|part| match part {
            AssistantPart::Text(text) => Some(text.as_str()),
            _ => None,
        });
        texts.collect()
    }

    /// All tool calls.
    pub fn tool_calls(&self) -> impl Iterator<Item = &ToolCall> {
        self.parts.iter().filter_map(AssistantPart::tool_call)
    }

    /// As the message to put into the conversation before tool results or the user's next words.
    #[must_use]
    pub fn into_message(self) -> Message {
        Message::Assistant(self.parts)
    }

    /// The answer to a request for JSON. Models without schema support may fence it; the fence is taken off.
    ///
    /// # Errors
    /// [`Error::InvalidRequest`] when it is refused, cut off, or no such JSON.
    pub fn json<T: DeserializeOwned>(&self) -> Result<T, Error> {
        if let Some(refusal) = &self.refusal {
            return Err(Error::InvalidRequest(format!("the model refused: {refusal}")));
        }
        if self.finish == Some(FinishReason::Length) {
            return Err(Error::InvalidRequest(
                "the answer was cut off: allow more output tokens, or ask for less".into(),
            ));
        }
        let text = self.text();
        serde_json::from_str(unfenced(&text)).map_err(|error| {
            Error::InvalidRequest(format!(
                "the model's answer is not the JSON asked for ({error}): try again"
            ))
        })
    }
}

fn unfenced(text: &str) -> &str {
    let text = text.trim();
    let Some(inner) = text.strip_prefix("```").and_then(|rest| rest.strip_suffix("```")) else { return text };
    inner.split_once('\n').map_or(inner, |(_, body)| body).trim()
}

#[cfg(test)]
mod tests {
    use rstest::rstest;
    use serde_json::{Value, json};

    use super::*;
    use crate::chat::ChatEvent;

    #[rstest]
    #[case("{\"a\": 1}", true)]
    #[case("```json\n{\"a\": 1}\n```", true)]
    #[case(" ```\n{\"a\": 1}```\n", true)]
    #[case("Here it is: {\"a\": 1}", false)]
    fn json_may_be_fenced(#[case] text: &str, #[case] fine: bool) {
        let completion =
            Completion { parts: vec![AssistantPart::Text(text.into())], ..Completion::default() };
        assert_eq!(completion.json::<Value>().ok(), fine.then(|| json!({"a": 1})));
    }

    #[test]
    fn a_restart_forgets_what_came_before() {
        let mut completion = Completion::default();
        completion.push(ChatEvent::Text("Once up".into()));
        completion.push(ChatEvent::Restarted);
        completion.push(ChatEvent::Text("There ".into()));
        completion.push(ChatEvent::Text("was".into()));
        assert_eq!(completion.text(), "There was");
    }
}
