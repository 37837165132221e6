//! Answers that may be given again: what makes two requests the same.

mod answers;

use std::fmt;

use serde::Serialize;
use serde_json::Value;
use sha2::{Digest as _, Sha256};

use crate::keys::Owner;
use crate::model::{ModelRef, Task};

pub(crate) use answers::{Answer, Answers, Found, Leader};

/// Who may be given a cached answer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Scope<'a> {
    /// Only the owner whose request made it.
    Owner(&'a Owner),
    /// Anybody: the request holds nothing personal.
    Public,
}

/// The hash of a request in its canonical form, under a scope.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct CacheKey([u8; 32]);

impl CacheKey {
    /// The key of a request to a chain of models for a task.
    ///
    /// Two requests have the same key if and only if they are equal: objects are written with sorted names, and every
    /// field is set off from the next. `models` is the whole chain, so that a changed configuration asks anew.
    pub fn new(scope: Scope<'_>, task: &Task, models: &[ModelRef], request: &impl Serialize) -> Self {
        let owner = match scope {
            Scope::Public => Value::Null,
            Scope::Owner(owner) => serde_json::json!([owner.app, owner.user, owner.tenant, owner.project]),
        };
        let request = serde_json::to_value(request).unwrap_or(Value::Null);
        let models: Vec<String> = models.iter().map(ToString::to_string).collect();
        let whole = serde_json::json!([owner, task.as_str(), models, request]);
        let mut text = String::new();
        write_canonical(&whole, &mut text);
        Self(Sha256::digest(text.as_bytes()).into())
    }

    /// Its bytes.
    #[must_use]
    pub fn as_bytes(&self) -> &[u8; 32] {
        &self.0
    }
}

impl fmt::Display for CacheKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&hex::encode(self.0))
    }
}

/// JSON with sorted names and no spaces.
fn write_canonical(value: &Value, out: &mut String) {
    match value {
        Value::Object(fields) => {
            let mut names: Vec<&String> = fields.keys().collect();
            names.sort_unstable();
            out.push('{');
            for (index, name) in names.into_iter().enumerate() {
                if index > 0 {
                    out.push(',');
                }
                out.push_str(&Value::from(name.as_str()).to_string());
                out.push(':');
                write_canonical(&fields[name], out);
            }
            out.push('}');
        }
        Value::Array(items) => {
            out.push('[');
            for (index, item) in items.iter().enumerate() {
                if index > 0 {
                    out.push(',');
                }
                write_canonical(item, out);
            }
            out.push(']');
        }
        plain => out.push_str(&plain.to_string()),
    }
}

#[cfg(test)]
mod tests {
    use uuid::Uuid;

    use super::*;
    use crate::chat::ChatRequest;

    #[test]
    fn equal_requests_and_only_those_share_a_key() {
        let task = Task::new("story_text");
        let models = [ModelRef::new("openai", "gpt-5-mini")];
        let ann = Owner { app: "stories".into(), user: Some(Uuid::from_u128(1)), ..Owner::default() };
        let bob = Owner { app: "stories".into(), user: Some(Uuid::from_u128(2)), ..Owner::default() };
        let request = ChatRequest::new("Tell stories.", "Of a fox.");
        let key = |scope, request: &ChatRequest| CacheKey::new(scope, &task, &models, request);
        assert_eq!(key(Scope::Owner(&ann), &request), key(Scope::Owner(&ann), &request.clone()));
        assert_ne!(key(Scope::Owner(&ann), &request), key(Scope::Owner(&bob), &request));
        assert_ne!(key(Scope::Owner(&ann), &request), key(Scope::Public, &request));
        let other = ChatRequest { temperature: Some(0.5), ..request.clone() };
        assert_ne!(key(Scope::Public, &request), key(Scope::Public, &other));
    }

    #[test]
    fn the_order_of_names_does_not_matter() {
        let one: Value = serde_json::from_str(r#"{"b": 1, "a": {"d": [1, "x"], "c": null}}"#).unwrap();
        let mut text = String::new();
        write_canonical(&one, &mut text);
        assert_eq!(text, r#"{"a":{"c":null,"d":[1,"x"]},"b":1}"#);
    }
}
