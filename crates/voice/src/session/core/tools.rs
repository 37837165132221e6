//! Tools: collected until their response is done, run with a deadline, answered once, followed by one response.

use serde_json::{Map, Value, json};

use super::{Command, Core, Effect, Entry, Millis, Settings, ToolAnswer, ToolCall};
use crate::upstreams::realtime::HistoryItem;

/// Calls taken from one response; more than these are answered with an error.
const CALLS_PER_RESPONSE: usize = 8;
/// Longest output given to the model, in characters.
const OUTPUT_CHARS: usize = 8_000;

#[derive(Debug, Clone)]
pub(super) struct Collected {
    response_id: String,
    call_id: String,
    name: String,
    arguments: String,
}

#[derive(Debug)]
struct Running {
    call_id: String,
    name: String,
    arguments: String,
    generation: u32,
    since: Millis,
    /// The agent spoke in the response that made the call.
    after_speech: bool,
}

/// Calls that are collected or running.
#[derive(Debug, Default)]
pub(super) struct Tools {
    collected: Vec<Collected>,
    running: Vec<Running>,
    filler_said: bool,
}

impl Tools {
    pub(super) fn is_empty(&self) -> bool {
        self.running.is_empty()
    }

    pub(super) fn collect(&mut self, response_id: &str, call_id: &str, name: &str, arguments: &str) {
        if self.collected.len() < 4 * CALLS_PER_RESPONSE
            && !self.collected.iter().any(|c| c.call_id == call_id)
        {
            self.collected.push(Collected {
                response_id: response_id.to_owned(),
                call_id: call_id.to_owned(),
                name: name.to_owned(),
                arguments: arguments.to_owned(),
            });
        }
    }

    /// The session that would have finished these responses is gone.
    pub(super) fn forget_collected(&mut self) {
        self.collected.clear();
    }

    pub(super) fn take_collected(&mut self, response_id: &str) -> Vec<Collected> {
        let (taken, left) =
            std::mem::take(&mut self.collected).into_iter().partition(|c| c.response_id == response_id);
        self.collected = left;
        taken
    }

    pub(super) fn deadline(&self, settings: &Settings) -> Option<Millis> {
        let first = self.running.iter().map(|r| r.since).min()?;
        let wait = if self.filler_said {
            settings.tool_timeout
        } else {
            settings.filler_after.min(settings.tool_timeout)
        };
        Some(first + wait)
    }
}

impl Core {
    pub(super) fn run_tools(&mut self, now: Millis, calls: Vec<Collected>, out: &mut Vec<Effect>) {
        if calls.is_empty() {
            return;
        }
        self.tools.filler_said = false;
        let generation = self.active.as_ref().map_or(0, |leg| leg.generation);
        let mut refused = Vec::new();
        for (index, call) in calls.into_iter().enumerate() {
            if self.tools.running.iter().any(|r| r.call_id == call.call_id) {
                continue; // an id stands for one run
            }
            self.transcript.tool(HistoryItem::ToolCall {
                call_id: call.call_id.clone(),
                name: call.name.clone(),
                arguments: call.arguments.clone(),
            });
            let arguments = match parse_arguments(&call.arguments) {
                _ if index >= CALLS_PER_RESPONSE => Err("too many calls at once; call again"),
                arguments => arguments,
            };
            let running = Running {
                call_id: call.call_id.clone(),
                name: call.name.clone(),
                arguments: call.arguments,
                generation,
                since: now,
                after_speech: self.response.spoke,
            };
            self.tools.running.push(running);
            match arguments {
                Ok(arguments) => {
                    out.push(Effect::RunTool(ToolCall { call_id: call.call_id, name: call.name, arguments }));
                }
                Err(problem) => refused.push((call.call_id, problem)),
            }
        }
        for (call_id, problem) in refused {
            let answer = ToolAnswer { output: json!({ "error": problem }), then: None };
            self.tool_answered(now, &call_id, answer, out);
        }
    }

    pub(super) fn tool_answered(
        &mut self,
        now: Millis,
        call_id: &str,
        answer: ToolAnswer,
        out: &mut Vec<Effect>,
    ) {
        // Not running (any more): timed out before, so the model has its answer.
        let Some(index) = self.tools.running.iter().position(|r| r.call_id == call_id) else { return };
        let running = self.tools.running.remove(index);
        // Names that the model makes up must not become labels.
        let known =
            self.shape().and_then(|s| s.tools.iter().map(|tool| tool.name).find(|n| *n == running.name));
        metrics::histogram!("longhouse_voice_tool_seconds", "tool" => known.unwrap_or("unknown"))
            .record((now - running.since).as_secs_f64());
        let output: String = answer.output.to_string().chars().take(OUTPUT_CHARS).collect();
        out.push(Effect::Record(Entry::Tool {
            after: self.transcript.last_ordinal(),
            name: running.name.clone(),
            arguments: running.arguments.clone(),
            output: output.clone(),
            took: now - running.since,
        }));
        let output_item = HistoryItem::ToolOutput { call_id: running.call_id.clone(), output };
        if self.is_connected() {
            // A session that took over has the call in its history only if it began before; else give it both.
            if self.active.as_ref().is_some_and(|leg| leg.generation != running.generation)
                && !self.transcript.handed_over(&running.call_id)
            {
                let call = HistoryItem::ToolCall {
                    call_id: running.call_id.clone(),
                    name: running.name.clone(),
                    arguments: running.arguments.clone(),
                };
                self.command(&Command::History(&call), out);
            }
            self.command(&Command::History(&output_item), out);
        }
        self.transcript.tool(output_item);
        let said_goodbye = answer.then.is_some() && running.after_speech;
        if let Some(ending) = answer.then {
            self.end_after_speech(now, ending);
        }
        if self.tools.running.is_empty() && !said_goodbye {
            self.respond_or_follow_up(now, out);
        }
    }

    pub(super) fn check_tools(&mut self, now: Millis, out: &mut Vec<Effect>) {
        let overdue: Vec<String> = self
            .tools
            .running
            .iter()
            .filter(|r| now >= r.since + self.settings.tool_timeout)
            .map(|r| r.call_id.clone())
            .collect();
        for call_id in overdue {
            let output = json!({ "error": "this took too long; apologise and offer to take a message" });
            self.tool_answered(now, &call_id, ToolAnswer { output, then: None }, out);
        }
        let slow = self.tools.running.iter().any(|r| now >= r.since + self.settings.filler_after);
        if slow && !self.tools.filler_said {
            self.tools.filler_said = true;
            if !self.caller_speaking && self.playback.is_idle(now) {
                self.say(now, "Say in at most six words that you are looking it up.", out);
            }
        }
    }
}

fn parse_arguments(text: &str) -> Result<Map<String, Value>, &'static str> {
    match serde_json::from_str(if text.trim().is_empty() { "{}" } else { text }) {
        Ok(Value::Object(map)) => Ok(map),
        _ => Err("the arguments were not a JSON object; call again with valid JSON"),
    }
}
