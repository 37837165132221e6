//! What the agent is told, and the tools it has.

use longhouse_voice::session::Agent;
use longhouse_voice::upstreams::realtime::{SessionShape, ToolSpec};
use serde_json::json;

const TEMPLATE: &str = include_str!("../prompts/agent.txt");

/// Silence after which the upstream asks whether somebody is there.
const IDLE_TIMEOUT_MS: u32 = 15_000;

/// The tenant's configuration of its agent, from the database.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct AgentConfig {
    /// Name of the business.
    pub(crate) business: String,
    /// First words.
    pub(crate) greeting: Option<String>,
    /// The owner's own instructions.
    pub(crate) instructions: String,
    /// Voice of the speech model.
    pub(crate) voice: String,
    /// ISO 639-1 code.
    pub(crate) language: Option<String>,
    /// Where callers go who want a person.
    pub(crate) forward_number: Option<String>,
}

/// The agent that a session plays.
pub(crate) fn agent(config: &AgentConfig, transcription_model: &str) -> Agent {
    let language = match config.language.as_deref() {
        Some("en") | None => "Answer in the caller's language.".to_owned(),
        Some(code) => {
            format!("Begin in the language with the code \"{code}\"; follow the caller if they use another.")
        }
    };
    let transfer = if config.forward_number.is_some() {
        "When the caller asks for a person, or is upset, call transfer_call."
    } else {
        "Nobody can take over the call; offer to take a message instead."
    };
    let instructions = fill(&[
        ("{business}", &config.business),
        ("{language}", &language),
        ("{transfer}", transfer),
        ("{instructions}", &config.instructions),
    ]);
    Agent {
        shape: SessionShape {
            instructions,
            voice: config.voice.clone(),
            transcription_model: transcription_model.to_owned(),
            language: config.language.clone(),
            tools: tools(config.forward_number.is_some()),
            idle_timeout_ms: Some(IDLE_TIMEOUT_MS),
        },
        greeting: config.greeting.clone(),
    }
}

/// Fills the template in one pass, so that a value that looks like a placeholder stays as it is.
fn fill(values: &[(&str, &str)]) -> String {
    let mut text = String::with_capacity(TEMPLATE.len() + 512);
    let mut rest = TEMPLATE;
    while let Some(open) = rest.find('{') {
        text.push_str(&rest[..open]);
        rest = &rest[open..];
        match values.iter().find(|(name, _)| rest.starts_with(name)) {
            Some((name, value)) => {
                text.push_str(value);
                rest = &rest[name.len()..];
            }
            None => {
                text.push('{');
                rest = &rest[1..];
            }
        }
    }
    text.push_str(rest);
    text
}

fn tools(can_transfer: bool) -> Vec<ToolSpec> {
    let nothing = json!({ "type": "object", "properties": {}, "additionalProperties": false });
    let mut tools = vec![
        ToolSpec {
            name: "search_knowledge",
            description: "Looks up facts of this business: prices, services, opening hours, location, rules."
                .into(),
            parameters: json!({
                "type": "object",
                "properties": {
                    "query": { "type": "string", "description": "The caller's question in a few words" }
                },
                "required": ["query"],
                "additionalProperties": false,
            }),
        },
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
    tools
}

#[cfg(test)]
mod tests {
    use super::*;

    fn config() -> AgentConfig {
        AgentConfig {
            business: "A {instructions} & Co".into(),
            greeting: None,
            instructions: "Offer {business} tea.".into(),
            voice: "marin".into(),
            language: None,
            forward_number: None,
        }
    }

    #[test]
    fn values_are_not_read_as_placeholders() {
        let agent = agent(&config(), "gpt-transcribe");
        assert!(agent.shape.instructions.contains("the telephone for A {instructions} & Co."));
        assert!(agent.shape.instructions.trim_end().ends_with("Offer {business} tea."));
    }

    #[test]
    fn transfer_is_offered_only_where_somebody_can_take_it() {
        assert!(agent(&config(), "m").shape.tools.iter().all(|t| t.name != "transfer_call"));
        let with_person = AgentConfig { forward_number: Some("+15550100199".into()), ..config() };
        assert!(agent(&with_person, "m").shape.tools.iter().any(|t| t.name == "transfer_call"));
    }
}
