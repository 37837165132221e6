//! What the emulated model answers: scripted rules first, then the manners of a helpful offline receptionist.

use std::sync::LazyLock;

use regex::Regex;
use serde_json::{Map, Value, json};

/// The transcript of speech that carries no captions.
pub(super) const UNINTELLIGIBLE: &str = "[unintelligible speech]";
/// Longest text taken from a tool's output.
const MAX_ANSWER: usize = 600;

/// When a [`Rule`] applies. Text is compared without case.
#[derive(Debug, Clone)]
pub enum Match {
    /// The user's words include any of these, as whole words or phrases.
    Words(Vec<String>),
    /// The user's words match.
    User(Regex),
    /// A tool's output, as sent by the client, matches.
    ToolOutput(Regex),
    /// The client asked for a response with its own instructions.
    Greeting,
    /// Always.
    Always,
}

/// A call of one of the session's tools.
#[derive(Debug, Clone, PartialEq)]
pub struct ToolCall {
    /// The tool's name; the call is left out where the session does not offer it.
    pub name: String,
    /// The arguments; `{{user}}` in any string becomes the user's words.
    pub arguments: Value,
}

/// What the model does. In texts `{{user}}` is the user's words and `{{tool}}` the best text in the tools' outputs.
#[derive(Debug, Clone)]
pub enum Then {
    /// Says a text.
    Say(String),
    /// Calls tools, all in one response.
    CallTools(Vec<ToolCall>),
    /// Says a text and calls tools in the same response.
    SayAndCall(String, Vec<ToolCall>),
}

/// One scripted answer. The first rule that matches wins.
#[derive(Debug, Clone)]
pub struct Rule {
    /// When it applies.
    pub when: Match,
    /// What happens then.
    pub then: Then,
}

impl Rule {
    /// Says `text` when the user's words include any of `words`.
    #[must_use]
    pub fn say(words: &[&str], text: &str) -> Self {
        let words = words.iter().map(|&w| w.to_owned()).collect();
        Self { when: Match::Words(words), then: Then::Say(text.to_owned()) }
    }

    /// Calls tools when the user's words include any of `words`.
    #[must_use]
    pub fn call(words: &[&str], calls: Vec<ToolCall>) -> Self {
        let words = words.iter().map(|&w| w.to_owned()).collect();
        Self { when: Match::Words(words), then: Then::CallTools(calls) }
    }
}

/// What there is to answer.
#[derive(Debug, Default)]
pub(super) struct Prompt {
    pub(super) user: String,
    /// Every message of the conversation: its role and text.
    pub(super) said: Vec<(String, String)>,
    /// The response's own instructions.
    pub(super) instructions: Option<String>,
    /// The outputs that the last tool calls brought: the tool's name and the text.
    pub(super) outputs: Vec<(String, String)>,
    /// The tools on offer; none when `tool_choice` forbids them.
    pub(super) tools: Vec<Value>,
    /// A tool that must be called.
    pub(super) forced: Option<String>,
    /// Nothing was said for the idle timeout.
    pub(super) idle: bool,
}

/// What the response will consist of.
#[derive(Debug, Clone, Default, PartialEq)]
pub(super) struct Answer {
    pub(super) say: Option<String>,
    pub(super) calls: Vec<ToolCall>,
}

impl Answer {
    fn say(text: impl Into<String>) -> Self {
        Self { say: Some(text.into()), calls: Vec::new() }
    }
}

/// Decides the answer.
pub(super) fn answer(rules: &[Rule], prompt: &Prompt) -> Answer {
    if let Some(name) = &prompt.forced {
        return Answer { say: None, calls: vec![prompt.call(name)] };
    }
    rules.iter().find_map(|rule| prompt.apply(rule)).unwrap_or_else(|| prompt.manners())
}

fn words(text: &str) -> String {
    let plain: String =
        text.to_lowercase().chars().map(|c| if c.is_alphanumeric() || c == '\'' { c } else { ' ' }).collect();
    format!(" {} ", plain.split_whitespace().collect::<Vec<_>>().join(" "))
}

impl Prompt {
    fn includes(&self, any: &[&str]) -> bool {
        let text = words(&self.user);
        any.iter().any(|phrase| text.contains(&words(phrase)))
    }

    /// Whether the user has spoken last, rather than a tool or the client's instructions.
    fn is_user_turn(&self) -> bool {
        self.outputs.is_empty() && self.instructions.is_none() && !self.idle && !self.user.is_empty()
    }

    fn apply(&self, rule: &Rule) -> Option<Answer> {
        let applies = match &rule.when {
            Match::Words(any) => {
                self.is_user_turn() && self.includes(&any.iter().map(String::as_str).collect::<Vec<_>>())
            }
            Match::User(pattern) => self.is_user_turn() && pattern.is_match(&self.user),
            Match::ToolOutput(pattern) => self.outputs.iter().any(|(_, output)| pattern.is_match(output)),
            Match::Greeting => self.instructions.is_some(),
            Match::Always => true,
        };
        if !applies {
            return None;
        }
        let (say, calls) = match &rule.then {
            Then::Say(text) => (Some(text), &[][..]),
            Then::CallTools(calls) => (None, &calls[..]),
            Then::SayAndCall(text, calls) => (Some(text), &calls[..]),
        };
        let say = say.map(|text| self.fill(text));
        let calls: Vec<ToolCall> = calls
            .iter()
            .filter(|call| self.offers(&call.name))
            .map(|call| ToolCall { name: call.name.clone(), arguments: self.fill_json(&call.arguments) })
            .collect();
        (say.is_some() || !calls.is_empty()).then_some(Answer { say, calls })
    }

    fn fill(&self, template: &str) -> String {
        let tool =
            if template.contains("{{tool}}") { self.best_text().unwrap_or_default() } else { String::new() };
        template.replace("{{user}}", &self.user).replace("{{tool}}", &tool)
    }

    fn fill_json(&self, value: &Value) -> Value {
        match value {
            Value::String(text) => Value::String(self.fill(text)),
            Value::Array(list) => list.iter().map(|v| self.fill_json(v)).collect(),
            Value::Object(fields) => fields.iter().map(|(k, v)| (k.clone(), self.fill_json(v))).collect(),
            other => other.clone(),
        }
    }

    fn offers(&self, name: &str) -> bool {
        self.tools.iter().any(|tool| tool["name"] == name)
    }

    /// A call with the arguments that the tool's schema asks for, filled as well as the user's words allow.
    fn call(&self, name: &str) -> ToolCall {
        let schema = self.tools.iter().find(|t| t["name"] == name).map_or(&Value::Null, |t| &t["parameters"]);
        let required: Vec<&str> =
            schema["required"].as_array().into_iter().flatten().filter_map(Value::as_str).collect();
        let mut arguments = Map::new();
        for (field, kind) in schema["properties"].as_object().into_iter().flatten() {
            let telling = matches!(field.as_str(), "query" | "question" | "reason" | "summary" | "message");
            if !telling && !required.contains(&field.as_str()) {
                continue;
            }
            let value = match (&kind["enum"][0], kind["type"].as_str()) {
                (Value::Null, Some("integer" | "number")) => json!(0),
                (Value::Null, Some("boolean")) => json!(false),
                (Value::Null, Some("array")) => json!([]),
                (Value::Null, Some("object")) => json!({}),
                (Value::Null, _) => json!(self.user),
                (first, _) => first.clone(),
            };
            arguments.insert(field.clone(), value);
        }
        if name == "search_knowledge" && arguments.is_empty() {
            arguments.insert("query".into(), json!(self.user));
        }
        ToolCall { name: name.to_owned(), arguments: Value::Object(arguments) }
    }

    /// What the emulator does when no rule matches.
    fn manners(&self) -> Answer {
        if let Some(instructions) = &self.instructions {
            return Answer::say(self.follow(instructions));
        }
        if let Some((name, _)) = self.outputs.last() {
            return Answer::say(match name.as_str() {
                "end_call" => "Goodbye.".to_owned(),
                "transfer_call" => "One moment, I am connecting you.".to_owned(),
                _ => self.best_text().unwrap_or_else(|| {
                    "I'm sorry, I could not find that. May I take a message, so that someone can call you back?".into()
                }),
            });
        }
        if self.idle {
            return Answer::say("Are you still there?");
        }
        if self.user.is_empty() {
            return Answer::say("Hello! How can I help you today?");
        }
        if self.user == UNINTELLIGIBLE {
            return Answer::say("I'm sorry, I could not understand that. Could you say it again?");
        }
        if self.offers("end_call") && self.includes(&["goodbye", "bye"]) {
            let say = Some("Thank you for calling. Goodbye!".to_owned());
            return Answer { say, calls: vec![self.call("end_call")] };
        }
        let people = ["human", "person", "transfer", "operator", "representative", "somebody", "someone"];
        if self.offers("transfer_call") && self.includes(&people) {
            return Answer { say: None, calls: vec![self.call("transfer_call")] };
        }
        if self.offers("search_knowledge") && self.is_question() {
            return Answer { say: None, calls: vec![self.call("search_knowledge")] };
        }
        Answer::say(format!("I am an offline emulator. I heard: {}", self.user))
    }

    /// Does what a response's own instructions ask for, as far as their words tell.
    fn follow(&self, instructions: &str) -> String {
        let asks = words(instructions);
        let asks_for = |any: &[&str]| any.iter().any(|phrase| asks.contains(&words(phrase)));
        if asks_for(&["summarise", "summarize", "summary"]) {
            return self.summary();
        }
        if let Some(text) = asked_text(instructions) {
            return text;
        }
        if asks_for(&["apologise", "apologize", "sorry"]) {
            return "Sorry about the interruption. Please go on.".into();
        }
        if asks_for(&["looking", "checking"]) {
            return "One moment, I am looking.".into();
        }
        if asks_for(&["goodbye"]) {
            return "Thank you for calling. Goodbye!".into();
        }
        if asks_for(&["cut off"]) {
            return "As I was saying.".into();
        }
        "Hello! How can I help you today?".into()
    }

    /// Every message in order; shortened from the front, as what was said last matters most.
    fn summary(&self) -> String {
        let lines = self.said.iter().map(|(role, text)| match role.as_str() {
            "user" => format!("The caller said: {text}"),
            "system" => format!("Before: {text}"),
            _ => format!("The agent said: {text}"),
        });
        let whole = lines.collect::<Vec<_>>().join(" ");
        let surplus = whole.chars().count().saturating_sub(MAX_ANSWER);
        whole.chars().skip(surplus).collect()
    }

    fn is_question(&self) -> bool {
        let asking = [
            "what",
            "when",
            "where",
            "who",
            "why",
            "how",
            "which",
            "do you",
            "does",
            "can",
            "could",
            "is there",
            "are you",
            "are there",
            "will",
            "would",
            "tell me",
            "need to know",
            "opening hours",
            "price",
        ];
        self.user.contains('?') || self.includes(&asking)
    }

    fn best_text(&self) -> Option<String> {
        let found: Vec<String> = self.outputs.iter().filter_map(|(_, output)| text_in(output)).collect();
        (!found.is_empty()).then(|| shortened(&found.join(" ")))
    }
}

/// The text that instructions such as `Greet the caller with: "Hello, …"` ask for.
fn asked_text(instructions: &str) -> Option<String> {
    static QUOTED: LazyLock<Regex> =
        LazyLock::new(|| Regex::new(r#"(?s)["“](.+?)["”]"#).expect("a valid pattern"));
    let quoted = QUOTED.captures(instructions);
    let colon = instructions.find(": ").or_else(|| instructions.find(":\n"));
    if let Some(quoted) = &quoted {
        let whole = quoted.get(0).expect("group 0 is the match");
        let between = colon.map(|at| instructions[(at + 1).min(whole.start())..whole.start()].trim());
        // A quotation inside a text that a colon has already announced is part of that text.
        if colon.is_none_or(|at| at > whole.start()) || between.is_some_and(str::is_empty) {
            return Some(quoted[1].trim().to_owned());
        }
    }
    let rest = instructions[colon? + 1..].trim();
    (!rest.is_empty()).then(|| rest.to_owned())
}

/// The first `content`, `answer` or `text` in a tool's JSON, within `results` or at its root; plain text is itself.
fn text_in(output: &str) -> Option<String> {
    let Ok(value) = serde_json::from_str::<Value>(output) else {
        let plain = output.trim();
        return (!plain.is_empty()).then(|| plain.to_owned());
    };
    if let Value::String(text) = &value {
        return (!text.trim().is_empty()).then(|| text.trim().to_owned());
    }
    let field = |value: &Value| {
        let names = ["content", "answer", "text"];
        names
            .iter()
            .find_map(|name| value[*name].as_str())
            .map(str::trim)
            .filter(|t| !t.is_empty())
            .map(str::to_owned)
    };
    let results = match &value["results"] {
        Value::Null => &value,
        results => results,
    };
    match results {
        Value::Array(list) => {
            list.iter().find_map(|entry| field(entry).or_else(|| entry.as_str().map(str::to_owned)))
        }
        other => field(other),
    }
    .or_else(|| field(&value))
}

fn shortened(text: &str) -> String {
    if text.len() <= MAX_ANSWER {
        return text.to_owned();
    }
    let mut end = MAX_ANSWER;
    while !text.is_char_boundary(end) {
        end -= 1;
    }
    let cut = &text[..end];
    match cut.rfind(['.', '!', '?']) {
        Some(stop) => cut[..=stop].to_owned(),
        None => cut.rsplit_once(' ').map_or(cut, |(head, _)| head).to_owned(),
    }
}

#[cfg(test)]
mod instruction_tests {
    use super::{Prompt, answer};

    #[test]
    fn instructions_are_followed_by_their_words() {
        let said =
            vec![("user".to_owned(), "How much?".to_owned()), ("assistant".to_owned(), "Ten.".to_owned())];
        for (instructions, expected) in [
            ("Greet the caller with exactly these words: \"Hi there.\"", "Hi there."),
            ("Summarise this call: who, what", "The caller said: How much? The agent said: Ten."),
            ("The line broke. Apologise in a few words.", "Sorry about the interruption. Please go on."),
            ("Say in at most six words that you are looking it up.", "One moment, I am looking."),
        ] {
            let prompt =
                Prompt { said: said.clone(), instructions: Some(instructions.into()), ..Prompt::default() };
            assert_eq!(answer(&[], &prompt).say.as_deref(), Some(expected), "{instructions}");
        }
    }
}

#[cfg(test)]
mod tests {
    use rstest::rstest;

    use super::*;

    #[rstest]
    #[case("Greet the caller with: Hello, this is Maria.", Some("Hello, this is Maria."))]
    #[case("Greet the caller with: \"Hello: it's us.\" Then wait.", Some("Hello: it's us."))]
    #[case("Say exactly \"Welcome: hello\" and nothing else.", Some("Welcome: hello"))]
    #[case("Say: we call it \"the house\" here.", Some("we call it \"the house\" here."))]
    #[case("Say “Guten Tag” now", Some("Guten Tag"))]
    #[case("Greet the caller.", None)]
    #[case("Greet:", None)]
    fn the_greeting_asked_for(#[case] instructions: &str, #[case] expected: Option<&str>) {
        assert_eq!(asked_text(instructions).as_deref(), expected);
    }

    #[rstest]
    #[case(r#"{"results":[{"title":"Hours","content":"Nine to five."}]}"#, Some("Nine to five."))]
    #[case(r#"{"results":[],"answer":"Ask at the desk."}"#, Some("Ask at the desk."))]
    #[case(r#"{"results":[]}"#, None)]
    #[case(r#"{"error":"timeout"}"#, None)]
    #[case("Plain words.", Some("Plain words."))]
    #[case(r#""Quoted""#, Some("Quoted"))]
    #[case("[{\"text\":\"A\"}]", Some("A"))]
    #[case("  ", None)]
    fn the_text_in_a_tool_output(#[case] output: &str, #[case] expected: Option<&str>) {
        assert_eq!(text_in(output).as_deref(), expected);
    }

    fn prompt(user: &str) -> Prompt {
        let tool = |name: &str, field: &str| {
            let schema =
                json!({"type": "object", "properties": {field: {"type": "string"}}, "required": [field]});
            json!({"type": "function", "name": name, "parameters": schema})
        };
        let tools = vec![
            tool("search_knowledge", "query"),
            tool("end_call", "reason"),
            tool("transfer_call", "reason"),
        ];
        Prompt { user: user.to_owned(), tools, ..Prompt::default() }
    }

    #[rstest]
    #[case("What time do you open?", "search_knowledge")]
    #[case("Okay, bye.", "end_call")]
    #[case("I want to speak to a person, please.", "transfer_call")]
    fn tools_are_called_when_the_words_ask_for_them(#[case] user: &str, #[case] tool: &str) {
        let answer = answer(&[], &prompt(user));
        assert_eq!(answer.calls.iter().map(|c| c.name.as_str()).collect::<Vec<_>>(), [tool]);
        assert!(answer.calls[0].arguments.as_object().expect("an object").values().all(|v| v == user));
    }

    #[test]
    fn without_tools_it_says_what_it_is() {
        let answer = answer(&[], &Prompt { tools: vec![], ..prompt("What time is it?") });
        assert_eq!(answer.say.as_deref(), Some("I am an offline emulator. I heard: What time is it?"));
    }

    #[test]
    fn rules_go_first_and_skip_tools_that_are_not_offered() {
        let call = |name: &str| ToolCall { name: name.into(), arguments: json!({"q": ["about {{user}}"]}) };
        let rules = [
            Rule::call(&["opening hours"], vec![call("missing")]),
            Rule::call(&["open"], vec![call("search_knowledge"), call("missing")]),
        ];
        let answer = answer(&rules, &prompt("Opening hours: are you open?"));
        assert_eq!(
            answer.calls,
            [ToolCall {
                name: "search_knowledge".into(),
                arguments: json!({"q": ["about Opening hours: are you open?"]})
            }]
        );
    }
}
