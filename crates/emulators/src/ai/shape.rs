//! Checking JSON against what a vendor accepts: every field is known, and of its kind.

use serde_json::{Map, Value};

/// What a field may be.
#[derive(Debug, Clone, Copy)]
pub(super) enum Kind {
    Text,
    Flag,
    /// Between these, inclusively.
    Whole(i64, i64),
    Number(f64, f64),
    Object,
    List,
    OneOf(&'static [&'static str]),
    /// Checked elsewhere, or not at all.
    Any,
}

/// One field: its name, kind, and whether it must be there.
pub(super) type Field = (&'static str, Kind, bool);

/// What is wrong, and where.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Problem {
    /// `messages[0].content`
    pub(super) path: String,
    pub(super) what: What,
}

#[derive(Debug, Clone, PartialEq)]
pub(super) enum What {
    Unknown,
    Missing,
    /// Expected kind and found kind.
    Kind(&'static str, &'static str),
    /// A number outside of its bounds.
    Bounds(String),
    /// Not one of these.
    Choice(&'static [&'static str], String),
    /// Anything else.
    Other(String),
}

impl Problem {
    pub(super) fn new(path: &str, what: What) -> Self {
        Self { path: path.to_owned(), what }
    }

    pub(super) fn other(path: &str, message: impl Into<String>) -> Self {
        Self::new(path, What::Other(message.into()))
    }
}

fn join(path: &str, name: &str) -> String {
    if path.is_empty() { name.to_owned() } else { format!("{path}.{name}") }
}

pub(super) fn kind_name(value: &Value) -> &'static str {
    match value {
        Value::Null => "null",
        Value::Bool(_) => "a boolean",
        Value::Number(number) if number.is_f64() => "a decimal",
        Value::Number(_) => "an integer",
        Value::String(_) => "a string",
        Value::Array(_) => "an array",
        Value::Object(_) => "an object",
    }
}

/// An object with these fields and no others. `null` counts as absent.
pub(super) fn object<'a>(
    value: &'a Value,
    path: &str,
    fields: &[Field],
) -> Result<&'a Map<String, Value>, Problem> {
    let Some(map) = value.as_object() else {
        return Err(Problem::new(path, What::Kind("an object", kind_name(value))));
    };
    if let Some(unknown) = map.keys().find(|name| !fields.iter().any(|(known, ..)| known == name)) {
        return Err(Problem::new(&join(path, unknown), What::Unknown));
    }
    for (name, kind, required) in fields {
        match map.get(*name).filter(|value| !value.is_null()) {
            None if *required => return Err(Problem::new(&join(path, name), What::Missing)),
            None => {}
            Some(value) => check(value, &join(path, name), *kind)?,
        }
    }
    Ok(map)
}

fn check(value: &Value, path: &str, kind: Kind) -> Result<(), Problem> {
    let wrong = |expected| Err(Problem::new(path, What::Kind(expected, kind_name(value))));
    match kind {
        Kind::Text if !value.is_string() => wrong("a string"),
        Kind::Flag if !value.is_boolean() => wrong("a boolean"),
        Kind::Object if !value.is_object() => wrong("an object"),
        Kind::List if !value.is_array() => wrong("an array"),
        Kind::Whole(low, high) => match value.as_i64() {
            None => wrong("an integer"),
            Some(number) if number < low => {
                Err(Problem::new(path, What::Bounds(format!(">= {low}, but got {number}"))))
            }
            Some(number) if number > high => {
                Err(Problem::new(path, What::Bounds(format!("<= {high}, but got {number}"))))
            }
            Some(_) => Ok(()),
        },
        Kind::Number(low, high) => match value.as_f64() {
            None => wrong("a decimal"),
            Some(number) if number < low => {
                Err(Problem::new(path, What::Bounds(format!(">= {low}, but got {number}"))))
            }
            Some(number) if number > high => {
                Err(Problem::new(path, What::Bounds(format!("<= {high}, but got {number}"))))
            }
            Some(_) => Ok(()),
        },
        Kind::OneOf(choices) => match value.as_str() {
            None => wrong("a string"),
            Some(text) if !choices.contains(&text) => {
                Err(Problem::new(path, What::Choice(choices, text.to_owned())))
            }
            Some(_) => Ok(()),
        },
        _ => Ok(()),
    }
}

/// Whether a name fits `^[a-zA-Z0-9_-]{1,most}$`.
pub(super) fn is_name(name: &str, most: usize) -> bool {
    !name.is_empty()
        && name.len() <= most
        && name.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'_' || byte == b'-')
}

/// The first place where a schema breaks the rules of strict output: every object closed and every property required.
pub(super) fn unstrict(schema: &Value, path: &str) -> Option<String> {
    if schema["type"] == "object" || schema.get("properties").is_some() {
        if schema["additionalProperties"] != Value::Bool(false) {
            let context = if path.is_empty() { "()".to_owned() } else { format!("('{path}')") };
            return Some(format!(
                "In context={context}, 'additionalProperties' is required to be supplied and to be false."
            ));
        }
        let properties = schema["properties"].as_object();
        for (name, property) in properties.into_iter().flatten() {
            let required = schema["required"].as_array();
            if !required.is_some_and(|required| required.iter().any(|r| r == name.as_str())) {
                return Some(format!(
                    "In context=(), 'required' is required to be supplied and to be an array including every key in properties. Missing '{name}'."
                ));
            }
            let found = unstrict(property, &join(path, name));
            if found.is_some() {
                return found;
            }
        }
    }
    schema.get("items").and_then(|items| unstrict(items, &join(path, "items")))
}

#[cfg(test)]
mod tests {
    use rstest::rstest;
    use serde_json::json;

    use super::*;

    const FIELDS: &[Field] = &[
        ("name", Kind::Text, true),
        ("count", Kind::Whole(1, 5), false),
        ("mode", Kind::OneOf(&["a", "b"]), false),
    ];

    #[rstest]
    #[case(json!({"name": "x"}), None)]
    #[case(json!({"name": "x", "count": null}), None)]
    #[case(json!({}), Some(("name", What::Missing)))]
    #[case(json!({"name": 1}), Some(("name", What::Kind("a string", "an integer"))))]
    #[case(json!({"name": "x", "size": 1}), Some(("size", What::Unknown)))]
    #[case(json!({"name": "x", "count": 9}), Some(("count", What::Bounds("<= 5, but got 9".into()))))]
    #[case(json!({"name": "x", "mode": "c"}), Some(("mode", What::Choice(&["a", "b"], "c".into()))))]
    fn fields_are_judged(#[case] value: Value, #[case] problem: Option<(&str, What)>) {
        let expected = problem.map(|(path, what)| Problem::new(path, what));
        assert_eq!(object(&value, "", FIELDS).err(), expected);
    }

    #[test]
    fn strict_schemas_are_closed() {
        let open = json!({"type": "object", "properties": {}});
        assert!(unstrict(&open, "").unwrap().contains("additionalProperties"));
        let closed = json!({"type": "object", "properties": {"a": {"type": "string"}},
            "required": ["a"], "additionalProperties": false});
        assert_eq!(unstrict(&closed, ""), None);
    }
}
