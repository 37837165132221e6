//! Functions.

use serde_json::{Map, Value, json};

use super::{set, summary, types};
use crate::schema::{Parameter, Routine, Volatility};

/// The ways to call a function.
pub(super) fn path(routine: &Routine) -> Value {
    let (first, rest) = summary(routine.description.as_deref());
    let operation = |parameters: Vec<Value>| {
        let mut operation = Map::new();
        operation.insert("tags".to_owned(), json!([format!("(rpc) {}", routine.name.name)]));
        set(&mut operation, "summary", first);
        set(&mut operation, "description", rest);
        operation.insert(
            "produces".to_owned(),
            json!([
                "application/json",
                "application/vnd.pgrst.object+json;nulls=stripped",
                "application/vnd.pgrst.object+json",
            ]),
        );
        if !parameters.is_empty() {
            operation.insert("parameters".to_owned(), parameters.into());
        }
        operation.insert("responses".to_owned(), json!({"200": {"description": "OK"}}));
        Value::Object(operation)
    };
    let mut path = Map::new();
    if routine.volatility != Volatility::Volatile {
        path.insert("get".to_owned(), operation(routine.parameters.iter().map(query_parameter).collect()));
    }
    let arguments = json!({"name": "args", "required": true, "in": "body", "schema": arguments(routine)});
    path.insert("post".to_owned(), operation(vec![arguments, json!({"$ref": "#/parameters/preferParams"})]));
    Value::Object(path)
}

/// The body of a call.
fn arguments(routine: &Routine) -> Value {
    let mut schema = Map::new();
    schema.insert("type".to_owned(), "object".into());
    set(&mut schema, "description", routine.description.as_deref());
    let properties: Map<String, Value> = routine
        .parameters
        .iter()
        .map(|parameter| (parameter.name.clone(), types::property(&parameter.type_name).into()))
        .collect();
    if !properties.is_empty() {
        schema.insert("properties".to_owned(), properties.into());
    }
    let required = routine.parameters.iter().filter(|parameter| parameter.required);
    let required: Vec<&str> = required.map(|parameter| parameter.name.as_str()).collect();
    if !required.is_empty() {
        schema.insert("required".to_owned(), required.into());
    }
    Value::Object(schema)
}

/// A parameter in the query: arrays are written as text there, except that a variadic one is repeated.
fn query_parameter(parameter: &Parameter) -> Value {
    let kind = types::kind(&parameter.type_name);
    if parameter.variadic {
        let element = types::element(&parameter.type_name);
        let mut items = Map::new();
        items.insert("format".to_owned(), types::format(element).into());
        set(&mut items, "type", types::kind(element));
        return json!({
            "name": parameter.name,
            "required": parameter.required,
            "in": "query",
            "type": kind.unwrap_or("string"),
            "collectionFormat": "multi",
            "items": items,
        });
    }
    json!({
        "name": parameter.name,
        "required": parameter.required,
        "in": "query",
        "format": types::format(&parameter.type_name),
        "type": kind.filter(|kind| *kind != "array").unwrap_or("string"),
    })
}
