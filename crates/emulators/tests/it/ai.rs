//! What the emulated vendors refuse, in their words.

use longhouse_emulators::ai::{Options, Server};
use rstest::rstest;
use serde_json::{Value, json};

fn tool(name: &str) -> Value {
    json!({"type": "function", "function": {"name": name, "parameters": {"type": "object", "properties": {}}}})
}

fn call(id: &str) -> Value {
    json!({"role": "assistant", "content": null, "tool_calls": [
        {"id": id, "type": "function", "function": {"name": "look", "arguments": "{}"}}]})
}

fn user(text: &str) -> Value {
    json!({"role": "user", "content": text})
}

async fn refused(url: String, headers: &[(&str, &str)], body: &Value) -> (u16, String) {
    let client = reqwest::Client::builder().no_proxy().build().unwrap();
    let mut request = client.post(url).json(body);
    for (name, value) in headers {
        request = request.header(*name, *value);
    }
    let response = request.send().await.unwrap();
    let status = response.status().as_u16();
    let body: Value = response.json().await.unwrap();
    (status, body["error"]["message"].as_str().unwrap_or_default().to_owned())
}

#[rstest]
#[case(json!({"colour": "red"}), "Unknown parameter: 'colour'.")]
#[case(json!({"temperature": 3}), "<= 2, but got 3")]
#[case(json!({"temperature": "hot"}), "expected a decimal, but got a string")]
#[case(json!({"max_tokens": 10}), "Use 'max_completion_tokens' instead.")]
#[case(json!({"temperature": 0.5}), "Only the default (1) value is supported.")]
#[case(json!({"messages": []}), "empty array")]
#[case(json!({"messages": [{"role": "robot", "content": "hi"}]}), "Invalid value: 'robot'.")]
#[case(json!({"messages": [user("hi"), call("a")]}), "did not have response messages: a")]
#[case(json!({"messages": [user("hi"), call("a"), user("and?")]}), "did not have response messages: a")]
#[case(json!({"messages": [user("hi"), {"role": "tool", "tool_call_id": "a", "content": "x"}]}), "must be a response to a preceding message")]
#[case(json!({"messages": [{"role": "user", "content": [{"type": "video"}]}]}), "'video' for a content part")]
#[case(json!({"tools": []}), "1 to 128 tools")]
#[case(json!({"tools": [tool("no spaces")]}), "does not match pattern")]
#[case(json!({"tool_choice": "auto"}), "only allowed when 'tools' are specified")]
#[case(json!({"tools": [tool("look")], "tool_choice": {"type": "function", "function": {"name": "hide"}}}), "not found in 'tools'")]
#[case(json!({"response_format": {"type": "json_object"}}), "must contain the word 'json'")]
#[case(json!({"response_format": {"type": "json_schema", "json_schema": {"name": "x", "strict": true, "schema": {"type": "object", "properties": {}}}}}), "'additionalProperties' is required")]
#[case(json!({"stream_options": {"include_usage": true}}), "only allowed when 'stream' is enabled")]
#[case(json!({"stop": ["a", "b", "c", "d", "e"]}), "'stop' is not supported with this model")]
#[case(json!({"model": "llama"}), "does not exist")]
#[tokio::test]
async fn chat_completions(#[case] change: Value, #[case] message: &str) {
    let server = Server::start(Options::default()).await.unwrap();
    let mut body = json!({"model": "gpt-5-mini", "messages": [user("hi")]});
    for (name, value) in change.as_object().unwrap() {
        body[name] = value.clone();
    }
    let url = format!("{}/chat/completions", server.openai());
    let (status, said) = refused(url, &[("authorization", "Bearer k")], &body).await;
    assert!(said.contains(message), "{said}");
    assert_eq!(status, if message == "does not exist" { 404 } else { 400 });
}

#[rstest]
#[case(json!({"temperature": 0.5}), "temperature: Extra inputs are not permitted")]
#[case(json!({"max_tokens": null}), "max_tokens: Field required")]
#[case(json!({"max_tokens": 0}), "max_tokens: Input should be >= 1")]
#[case(json!({"messages": [{"role": "assistant", "content": "hi"}]}), "first message must use the \"user\" role")]
#[case(json!({"messages": [{"role": "user", "content": ""}]}), "non-empty content")]
#[case(json!({"messages": [{"role": "user", "content": [{"type": "text", "text": ""}]}]}), "text content blocks must be non-empty")]
#[case(json!({"messages": [user("hi"), {"role": "assistant", "content": [{"type": "tool_use", "id": "a", "name": "x", "input": {}}]}, user("and?")]}), "without `tool_result` blocks immediately after: a")]
#[case(json!({"messages": [{"role": "user", "content": [{"type": "tool_result", "tool_use_id": "a"}]}]}), "unexpected `tool_use_id`")]
#[case(json!({"messages": [user("hi"), {"role": "assistant", "content": [{"type": "thinking", "thinking": "x", "signature": "forged"}]}]}), "Invalid `signature`")]
#[case(json!({"tool_choice": {"type": "any"}}), "only be specified while providing tools")]
#[case(json!({"output_config": {"effort": "some"}}), "output_config.effort: Input should be 'low'")]
#[tokio::test]
async fn messages(#[case] change: Value, #[case] message: &str) {
    let server = Server::start(Options::default()).await.unwrap();
    let mut body = json!({"model": "claude-haiku-5-5", "max_tokens": 10, "messages": [user("hi")]});
    for (name, value) in change.as_object().unwrap() {
        body[name] = value.clone();
    }
    let url = format!("{}/v1/messages", server.anthropic());
    let headers = [("x-api-key", "k"), ("anthropic-version", "2023-06-01")];
    let (status, said) = refused(url.clone(), &headers, &body).await;
    assert!(said.contains(message), "{said}");
    assert_eq!(status, 400);
    let (status, said) = refused(url.clone(), &headers[..1], &body).await;
    assert_eq!((status, said.contains("anthropic-version")), (400, true), "{said}");
    let (status, _) = refused(url, &headers[1..], &body).await;
    assert_eq!(status, 401);
}

#[rstest]
#[case(json!({"colour": "red"}), "Unknown name \"colour\": Cannot find field.")]
#[case(json!({"contents": []}), "contents is not specified")]
#[case(json!({"contents": [{"role": "assistant", "parts": [{"text": "x"}]}]}), "Please use a valid role: user, model.")]
#[case(json!({"contents": [{"role": "user", "parts": [{}]}]}), "must have one initialized field")]
#[case(json!({"contents": [{"role": "user", "parts": [{"functionResponse": {"name": "x", "response": {}}}]}]}), "immediately after a function call")]
#[case(json!({"generationConfig": {"responseJsonSchema": {}}}), "requires response_mime_type")]
#[case(json!({"generationConfig": {"thinkingConfig": {"thinkingLevel": "LOW"}}}), "Thinking level is not supported")]
#[tokio::test]
async fn generate_content(#[case] change: Value, #[case] message: &str) {
    let server = Server::start(Options::default()).await.unwrap();
    let mut body = json!({"contents": [{"role": "user", "parts": [{"text": "hi"}]}]});
    for (name, value) in change.as_object().unwrap() {
        body[name] = value.clone();
    }
    let url = format!("{}/models/gemini-2.5-flash:generateContent", server.gemini());
    let (status, said) = refused(url.clone(), &[("x-goog-api-key", "k")], &body).await;
    assert!(said.contains(message), "{said}");
    assert_eq!(status, 400);
    let (status, _) = refused(url, &[], &body).await;
    assert_eq!(status, 403);
}
