//! What the emulated models say.

use serde_json::{Map, Value, json};

/// Scripted answers, tried in order before the mind's own manners.
#[derive(Debug, Clone, Default)]
pub struct Mind {
    /// The rules.
    pub rules: Vec<Rule>,
}

/// What to answer to what.
#[derive(Debug, Clone)]
pub struct Rule {
    /// Applies when the user's last words contain this.
    pub when: String,
    /// The answer.
    pub then: Answer,
}

/// What a model answers.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Answer {
    /// Text.
    pub text: String,
    /// Tools to call, with their arguments.
    pub calls: Vec<(String, Value)>,
    /// Reasoning before it.
    pub reasoning: String,
}

/// What the mind knows of a request.
#[derive(Debug, Default)]
pub(super) struct Thought {
    pub(super) system: String,
    /// The user's last words.
    pub(super) user: String,
    /// Results of tools that came after them.
    pub(super) results: Vec<String>,
    /// Tools on offer: name and schema.
    pub(super) tools: Vec<(String, Value)>,
    /// Whether one must be called, and which.
    pub(super) must_call: Option<Option<String>>,
    pub(super) may_call: bool,
    pub(super) one_call: bool,
    /// The schema of the answer; `Some(Null)` for any JSON.
    pub(super) schema: Option<Value>,
}

impl Mind {
    pub(super) fn answer(&self, thought: &Thought) -> Answer {
        if thought.results.is_empty()
            && let Some(rule) = self.rules.iter().find(|rule| thought.user.contains(&rule.when))
        {
            return rule.then.clone();
        }
        let mut answer = Answer::default();
        if thought.results.is_empty() && thought.may_call {
            answer.calls = calls(thought);
        }
        if !answer.calls.is_empty() {
            return answer;
        }
        answer.text = match &thought.schema {
            Some(Value::Null) => json!({"answer": thought.user}).to_string(),
            Some(schema) => filled(schema, &thought.user, 0).to_string(),
            None if !thought.results.is_empty() => format!("I looked: {}", thought.results.join("; ")),
            None => format!("You said: {}", thought.user),
        };
        answer
    }
}

/// Tools that the user names, one call for each; or the one that must be called.
fn calls(thought: &Thought) -> Vec<(String, Value)> {
    let call = |(name, schema): &(String, Value)| (name.clone(), filled(schema, &thought.user, 0));
    let named = |wanted: &str| thought.tools.iter().find(|(name, _)| name == wanted);
    let mut calls: Vec<_> = match &thought.must_call {
        Some(Some(name)) => named(name).map(call).into_iter().collect(),
        _ => {
            thought.tools.iter().filter(|(name, _)| thought.user.contains(name.as_str())).map(call).collect()
        }
    };
    if calls.is_empty() && thought.must_call.is_some() {
        calls.extend(thought.tools.first().map(call));
    }
    calls.truncate(if thought.one_call { 1 } else { 16 });
    calls
}

/// Something that fits a schema.
fn filled(schema: &Value, words: &str, depth: usize) -> Value {
    if let Some(choice) = schema["enum"].as_array().and_then(|choices| choices.first()) {
        return choice.clone();
    }
    let kind = schema["type"].as_str().or(schema["type"][0].as_str());
    match kind {
        _ if depth > 16 => Value::Null,
        Some("string") => words.into(),
        Some("integer") => schema["minimum"].as_i64().unwrap_or(1).into(),
        Some("number") => schema["minimum"].as_f64().unwrap_or(1.0).into(),
        Some("boolean") => true.into(),
        Some("array") => {
            let least = schema["minItems"].as_u64().unwrap_or(1).clamp(1, 64);
            (0..least).map(|_| filled(&schema["items"], words, depth + 1)).collect()
        }
        Some("object") | None => {
            let properties = schema["properties"].as_object();
            let filled = properties
                .into_iter()
                .flatten()
                .map(|(name, property)| (name.clone(), filled(property, words, depth + 1)));
            filled.collect::<Map<_, _>>().into()
        }
        Some(_) => Value::Null,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn named_tools_are_called_side_by_side() {
        let schema = json!({"type": "object", "properties": {"city": {"type": "string"}}});
        let thought = Thought {
            user: "weather and time in Rome".into(),
            tools: vec![
                ("weather".into(), schema.clone()),
                ("time".into(), schema),
                ("mail".into(), json!({})),
            ],
            may_call: true,
            ..Thought::default()
        };
        let names: Vec<_> =
            Mind::default().answer(&thought).calls.into_iter().map(|(name, _)| name).collect();
        assert_eq!(names, ["weather", "time"]);
    }

    #[test]
    fn schemas_are_filled() {
        let schema = json!({"type": "object", "properties": {
            "title": {"type": "string"},
            "mood": {"enum": ["calm", "wild"]},
            "pages": {"type": "array", "items": {"type": "integer", "minimum": 3}, "minItems": 2},
        }});
        assert_eq!(filled(&schema, "x", 0), json!({"title": "x", "mood": "calm", "pages": [3, 3]}));
    }
}
