//! Settings of the transaction: who acts, and what the database may know of the request.

use std::borrow::Cow;

use longhouse_database::quote_ident;

use super::statement::call_without_arguments;
use super::{Param, Sql, Statement};
use crate::config::RestConfig;
use crate::plan::Plan;
use crate::request::ApiRequest;
use crate::schema::{QualifiedName, SchemaCache};

/// Sets everything in one statement. The settings of the role come before the role itself, so that the right to make
/// them is the connection's.
pub(crate) fn settings(
    request: &ApiRequest,
    plan: &Plan,
    role: &str,
    claims: &str,
    cache: &SchemaCache,
    config: &RestConfig,
) -> Statement {
    let mut sql = Sql::new();
    let mut search_path = quote_ident(&request.schema);
    for schema in &config.extra_search_path {
        search_path.push_str(", ");
        search_path.push_str(&quote_ident(schema));
    }
    sql.push("select ").set("search_path", search_path);
    if let Some(of_role) = cache.role_settings.get(role) {
        sql.set_all(&of_role.settings);
    }
    sql.push(", ").set("role", role).push(", ").set("request.jwt.claims", claims);
    let headers = object(&request.headers, |value| String::from_utf8_lossy(value.as_bytes()));
    let cookies = object(&request.cookies, |value| Cow::from(value));
    sql.push(", ").set("request.method", request.method.as_str());
    sql.push(", ").set("request.path", request.path.as_str());
    sql.push(", ").set("request.headers", headers);
    sql.push(", ").set("request.cookies", cookies);
    if let Some(timezone) = &request.preferences.timezone {
        sql.push(", ").set("timezone", timezone.as_str());
    }
    if let Plan::Call(call) = plan {
        sql.set_all(&call.routine.settings);
    }
    sql.set_all(&config.app_settings);
    sql.finish()
}

/// Calls the function that may refuse a request or prepare its transaction.
pub(crate) fn pre_request(function: &QualifiedName) -> Statement {
    call_without_arguments(function)
}

/// A JSON object; of pairs with the same name the last counts.
fn object<N: AsRef<str>, V>(pairs: &[(N, V)], value: impl Fn(&V) -> Cow<'_, str>) -> String {
    let mut text = String::with_capacity(1024);
    text.push('{');
    for (index, (name, held)) in pairs.iter().enumerate() {
        let name = name.as_ref();
        if pairs[index + 1..].iter().any(|(later, _)| later.as_ref() == name) {
            continue;
        }
        if text.len() > 1 {
            text.push(',');
        }
        push_json(&mut text, name);
        text.push(':');
        push_json(&mut text, &value(held));
    }
    text.push('}');
    text
}

/// Adds a JSON string.
fn push_json(into: &mut String, text: &str) {
    let special = |byte: u8| byte < b' ' || byte == b'"' || byte == b'\\';
    if text.bytes().any(special) {
        into.push_str(&serde_json::Value::from(text).to_string());
    } else {
        into.push('"');
        into.push_str(text);
        into.push('"');
    }
}

impl Sql {
    fn set(&mut self, name: &str, value: impl Into<Param>) -> &mut Self {
        self.push("set_config('").push(name).push("', ").bind(value).push(", true)")
    }

    fn set_all(&mut self, settings: &[(String, String)]) {
        for (name, value) in settings {
            self.push(", set_config(").bind(name.as_str()).push(", ").bind(value.as_str()).push(", true)");
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn objects_are_json_whatever_they_hold() {
        let pairs = [("a", "1"), ("b", "say \"\\\u{1}\""), ("a", "ü")];
        let text = object(&pairs, |value| Cow::from(*value));
        let read: serde_json::Value = serde_json::from_str(&text).expect("JSON");
        assert_eq!(read, serde_json::json!({"b": "say \"\\\u{1}\"", "a": "ü"}));
        assert_eq!(object(&pairs[..0], |value| Cow::from(*value)), "{}");
    }
}
