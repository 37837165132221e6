//! `POST /v1/messages`: writing the answer.

use serde_json::{Value, json};

use super::super::mind::Answer;
use super::super::reply::{Reply, id, named, pieces, tokens};

/// The answer, as a stream if it was asked for.
pub(super) fn reply(body: &Value, model: &str, answer: Answer) -> Reply {
    let limit =
        body["max_tokens"].as_u64().and_then(|limit| usize::try_from(limit).ok()).unwrap_or(usize::MAX);
    let mut text: Vec<String> = pieces(&answer.text).into_iter().map(str::to_owned).collect();
    let mut reason = if answer.calls.is_empty() { "end_turn" } else { "tool_use" };
    if text.len() > limit {
        text.truncate(limit);
        reason = "max_tokens";
    }
    let mut blocks = Vec::new();
    if !answer.reasoning.is_empty() {
        let signature = id("sig_");
        blocks.push(json!({"type": "thinking", "thinking": answer.reasoning, "signature": signature}));
    }
    if !text.is_empty() {
        blocks.push(json!({"type": "text", "text": text.concat(), "citations": null}));
    }
    for (name, input) in &answer.calls {
        blocks.push(json!({"type": "tool_use", "id": id("toolu_"), "name": name, "input": input,
            "caller": {"type": "direct"}}));
    }
    let input = tokens(&body["messages"].to_string()) + tokens(&body["system"].to_string());
    let output = tokens(&Value::from(blocks.clone()).to_string());
    let usage = |output: usize| {
        json!({
            "input_tokens": input, "output_tokens": output, "cache_creation_input_tokens": 0,
            "cache_read_input_tokens": 0, "cache_creation": null, "inference_geo": null,
            "output_tokens_details": null, "server_tool_use": null, "service_tier": "standard", "speed": null,
        })
    };
    let mut message = json!({
        "id": id("msg_"), "type": "message", "role": "assistant", "model": model, "content": blocks,
        "stop_reason": reason, "stop_sequence": null, "stop_details": null, "container": null,
        "diagnostics": null, "usage": usage(output),
    });
    if body["stream"] != true {
        return Reply::ok(message);
    }
    message["content"] = json!([]);
    message["stop_reason"] = Value::Null;
    message["usage"] = usage(1);
    let mut events = vec![named(&json!({"type": "message_start", "message": message}))];
    for (index, block) in blocks.iter().enumerate() {
        write_block(index, block, &mut events);
        if index == 0 {
            events.push(named(&json!({"type": "ping"})));
        }
    }
    let delta =
        json!({"stop_reason": reason, "stop_sequence": null, "stop_details": null, "container": null});
    let usage = json!({"output_tokens": output, "input_tokens": input, "cache_creation_input_tokens": 0,
        "cache_read_input_tokens": 0, "output_tokens_details": null, "server_tool_use": null});
    events.push(named(&json!({"type": "message_delta", "delta": delta, "usage": usage})));
    events.push(named(&json!({"type": "message_stop"})));
    Reply::Events(events)
}

fn write_block(index: usize, block: &Value, events: &mut Vec<String>) {
    let mut begun = block.clone();
    let deltas: Vec<Value> = match block["type"].as_str() {
        Some("text") => {
            begun["text"] = "".into();
            let text = block["text"].as_str().unwrap_or_default();
            pieces(text).into_iter().map(|piece| json!({"type": "text_delta", "text": piece})).collect()
        }
        Some("thinking") => {
            begun["thinking"] = "".into();
            begun["signature"] = "".into();
            let text = block["thinking"].as_str().unwrap_or_default();
            let thoughts = pieces(text).into_iter().map(|p| json!({"type": "thinking_delta", "thinking": p}));
            thoughts.chain([json!({"type": "signature_delta", "signature": block["signature"]})]).collect()
        }
        _ => {
            begun["input"] = json!({});
            let text = block["input"].to_string();
            let partial = |piece: &str| json!({"type": "input_json_delta", "partial_json": piece});
            [""].into_iter().chain(pieces(&text)).map(partial).collect()
        }
    };
    events.push(named(&json!({"type": "content_block_start", "index": index, "content_block": begun})));
    for delta in deltas {
        events.push(named(&json!({"type": "content_block_delta", "index": index, "delta": delta})));
    }
    events.push(named(&json!({"type": "content_block_stop", "index": index})));
}
