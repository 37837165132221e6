//! What the agent can do in a call besides speaking.

mod booking;
mod knowledge;

use longhouse_voice::session::{Ending, ToolAnswer, ToolCall};
use longhouse_voice::upstreams::realtime::ToolSpec;
use serde_json::{Value, json};

use crate::store::booking::Bookings;

/// What the tools of one call work on.
#[derive(Debug, Clone)]
pub(crate) struct Workplace {
    /// The tenant's appointments; its tenant and database serve the other tools too.
    pub(crate) bookings: Bookings,
    /// The number that calls, if it can be called back.
    pub(crate) from_number: Option<String>,
}

/// The tools that a tenant's agent has.
pub(crate) fn offered(can_transfer: bool, can_book: bool) -> Vec<ToolSpec> {
    let nothing = parameters(json!({}), &[]);
    let mut tools = vec![
        knowledge::spec(),
        ToolSpec {
            name: "end_call",
            description: "Ends the call. Only after the goodbye.".into(),
            parameters: nothing.clone(),
        },
    ];
    if can_transfer {
        tools.push(ToolSpec {
            name: "transfer_call",
            description: "Connects the caller to a person of the business.".into(),
            parameters: nothing,
        });
    }
    if can_book {
        tools.extend(booking::specs());
    }
    tools
}

/// Runs one tool. Whatever fails becomes words for the model, never silence.
pub(crate) async fn run(workplace: &Workplace, call: &ToolCall) -> ToolAnswer {
    match call.name.as_str() {
        "search_knowledge" => {
            answer(knowledge::search(&workplace.bookings.database, workplace.bookings.tenant, call).await)
        }
        "end_call" => ToolAnswer {
            output: json!({ "ok": true, "next": "Say a short goodbye if you have not." }),
            then: Some(Ending::AgentEnded),
        },
        "transfer_call" => ToolAnswer {
            output: json!({ "ok": true, "next": "Say that you are putting the caller through." }),
            then: Some(Ending::Transferred),
        },
        _ => match booking::run(workplace, call).await {
            Some(output) => answer(output),
            None => answer(json!({ "error": "there is no such tool" })),
        },
    }
}

fn answer(output: Value) -> ToolAnswer {
    ToolAnswer { output, then: None }
}

/// A JSON schema of an object that has these properties and no others.
fn parameters(properties: Value, required: &[&str]) -> Value {
    json!({
        "type": "object", "properties": properties, "required": required, "additionalProperties": false,
    })
}

/// An argument that says something.
fn text(call: &ToolCall, name: &str) -> Option<String> {
    // Postgres has no NUL in texts.
    let text = call.arguments.get(name).and_then(Value::as_str)?.replace('\0', " ");
    Some(text.trim().to_owned()).filter(|text| !text.is_empty())
}
