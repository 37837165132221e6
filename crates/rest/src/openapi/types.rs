//! Types of Postgres in OpenAPI's words.

use serde_json::{Map, Value, json};

/// OpenAPI's type; none for JSON, which may be anything.
pub(super) fn kind(postgres: &str) -> Option<&'static str> {
    match postgres {
        "json" | "jsonb" => None,
        "boolean" => Some("boolean"),
        "smallint" | "integer" | "bigint" => Some("integer"),
        "numeric" | "real" | "double precision" => Some("number"),
        other if other.ends_with("[]") => Some("array"),
        _ => Some("string"),
    }
}

/// OpenAPI's format: the width of integers, else Postgres's name.
pub(super) fn format(postgres: &str) -> &str {
    match postgres {
        "smallint" | "integer" => "int32",
        "bigint" => "int64",
        other => other,
    }
}

/// Type of an array's elements.
pub(super) fn element(postgres: &str) -> &str {
    postgres.strip_suffix("[]").unwrap_or(postgres)
}

/// `format`, `type` and `items` of a property.
pub(super) fn property(postgres: &str) -> Map<String, Value> {
    let mut property = Map::new();
    super::set(&mut property, "format", Some(format(postgres)));
    let kind = kind(postgres);
    super::set(&mut property, "type", kind);
    if kind == Some("array") {
        let items = match self::kind(element(postgres)) {
            Some(kind) => json!({"type": kind}),
            None => json!({}),
        };
        property.insert("items".to_owned(), items);
    }
    property
}

/// The value of a default expression, when it is a plain constant.
pub(super) fn default(postgres: &str, expression: &str) -> Option<Value> {
    if kind(postgres) != Some("string") {
        return serde_json::from_str(expression).ok();
    }
    let cast = format!("::{postgres}");
    let text = match expression.strip_suffix(&cast) {
        Some(text) => text.trim_matches('\''),
        None => expression,
    };
    // Escapes and quotes within make it no constant.
    serde_json::from_str(&format!("\"{text}\"")).ok()
}
