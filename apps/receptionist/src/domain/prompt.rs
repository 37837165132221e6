//! What the agent is told, and the tools it has.

use chrono::NaiveDateTime;
use longhouse_voice::session::Agent;
use longhouse_voice::upstreams::realtime::SessionShape;

use super::spoken::spoken;
use crate::tools;

const APPOINTMENTS: &str = include_str!("../prompts/appointments.txt");
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
    /// By the clock on the business's wall, when the call began.
    pub(crate) now: NaiveDateTime,
    /// Where appointments are made.
    pub(crate) booking: Booking,
}

/// Where appointments of a business are made.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Booking {
    /// Nothing can be booked.
    No,
    /// By the agent.
    Here,
    /// At this address.
    Elsewhere(String),
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
    let booking = match &config.booking {
        Booking::No => "You cannot make appointments; offer to take a message instead.".to_owned(),
        Booking::Here => APPOINTMENTS.trim_end().to_owned(),
        Booking::Elsewhere(url) => {
            format!(
                "Appointments are made online, not by you. Callers who want one are told the address: {url}"
            )
        }
    };
    let instructions = fill(&[
        ("{now}", &spoken(config.now)),
        ("{date}", &config.now.format("%Y-%m-%d").to_string()),
        ("{booking}", &booking),
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
            tools: tools::offered(config.forward_number.is_some(), config.booking == Booking::Here),
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
            now: "2026-03-05T15:30:00".parse().unwrap(),
            booking: Booking::No,
        }
    }

    #[test]
    fn appointments_are_the_agents_only_where_it_can_make_them() {
        let names = |booking: Booking| -> Vec<&str> {
            agent(&AgentConfig { booking, ..config() }, "m")
                .shape
                .tools
                .iter()
                .map(|tool| tool.name)
                .collect()
        };
        assert!(names(Booking::Here).contains(&"book_appointment"));
        assert!(!names(Booking::No).contains(&"book_appointment"));
        let elsewhere = Booking::Elsewhere("https://book.example/marigold".into());
        assert!(!names(elsewhere.clone()).contains(&"book_appointment"));
        let told = agent(&AgentConfig { booking: elsewhere, ..config() }, "m").shape.instructions;
        assert!(told.contains("https://book.example/marigold"), "{told}");
        assert!(told.contains("Thursday, March 5th at 3:30 PM (2026-03-05)"), "{told}");
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
