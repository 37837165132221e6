//! Answers by rules that use their context.

use serde_json::{Map, Value};

use super::story;
use super::words::{key_words, relevant, sentences, truncated, words};
use crate::chat::{ChatRequest, Content, Message, ResponseFormat, Tool, ToolChoice};

/// What is answered.
#[derive(Debug, Default, PartialEq)]
pub(super) struct Answer {
    pub(super) text: String,
    pub(super) calls: Vec<(String, Value)>,
}

/// Answers the last turn of a conversation. The same request is answered the same way every time.
pub(super) fn answer(request: &ChatRequest) -> Answer {
    let system = request.system.as_deref().unwrap_or_default();
    let user = request.last_user_text().unwrap_or_default();
    if let Some(Message::Tool(results)) = request.messages.last() {
        let found: Vec<String> = results.iter().map(|result| spoken(&result.output)).collect();
        let failed = results.iter().all(|result| result.is_error);
        let text = format_result(request, &user, &found.join(" "), failed);
        return Answer { text, calls: Vec::new() };
    }
    let calls = calls(request, &user);
    if !calls.is_empty() {
        return Answer { text: String::new(), calls };
    }
    let text = match &request.format {
        ResponseFormat::Text => prose(system, &user, request),
        ResponseFormat::Json => serde_json::json!({"answer": prose(system, &user, request)}).to_string(),
        ResponseFormat::Schema { schema, .. } => {
            filled(schema, "", &Context::new(system, &user), 0).to_string()
        }
    };
    Answer { text, calls: Vec::new() }
}

fn format_result(request: &ChatRequest, user: &str, found: &str, failed: bool) -> String {
    match &request.format {
        ResponseFormat::Schema { schema, .. } => {
            filled(schema, "", &Context::new(found, user), 0).to_string()
        }
        ResponseFormat::Json => serde_json::json!({"answer": found}).to_string(),
        ResponseFormat::Text if failed => format!("I am sorry, that did not work: {found}"),
        ResponseFormat::Text => format!("Here is what I found: {found}"),
    }
}

/// The tools whose names or descriptions fit the user's words.
fn calls(request: &ChatRequest, user: &str) -> Vec<(String, Value)> {
    let call = |tool: &Tool| (tool.name.clone(), arguments(tool, user));
    match &request.tool_choice {
        ToolChoice::None => Vec::new(),
        ToolChoice::Named(name) => request.tools.iter().filter(|tool| tool.name == *name).map(call).collect(),
        choice => {
            let wanted = key_words(user);
            let mut scored: Vec<(usize, &Tool)> = request
                .tools
                .iter()
                .map(|tool| {
                    let name = key_words(&tool.name.replace(['_', '-'], " "));
                    let description = key_words(&tool.description);
                    let score =
                        name.intersection(&wanted).count() * 2 + description.intersection(&wanted).count();
                    (score, tool)
                })
                .collect();
            scored.sort_by_key(|(score, _)| std::cmp::Reverse(*score));
            let least = if *choice == ToolChoice::Required { 0 } else { 2 };
            let best = scored.first().map_or(0, |(score, _)| *score);
            // Several at once only if they fit equally well.
            let fitting = scored
                .iter()
                .filter(|(score, _)| *score >= least && *score == best && (best > 0 || least == 0));
            let most = if request.single_tool_call || best == 0 { 1 } else { 4 };
            fitting.take(most).map(|(_, tool)| call(tool)).collect()
        }
    }
}

/// Arguments out of the user's words: quoted texts, numbers, dates, what comes after a preposition.
fn arguments(tool: &Tool, user: &str) -> Value {
    let context = Context::new("", user);
    let properties = tool.parameters["properties"].as_object();
    let required = tool.parameters["required"].as_array();
    let is_required = |name: &String| required.is_some_and(|r| r.iter().any(|r| r == name.as_str()));
    let filled = properties.into_iter().flatten().filter_map(|(name, schema)| {
        let found = extracted(name, schema, user);
        let value = match found {
            Some(value) => value,
            None if is_required(name) => filled(schema, name, &context, 1),
            None => return None,
        };
        Some((name.clone(), value))
    });
    filled.collect::<Map<_, _>>().into()
}

fn extracted(name: &str, schema: &Value, user: &str) -> Option<Value> {
    if let Some(choices) = schema["enum"].as_array() {
        let said = user.to_lowercase();
        return choices
            .iter()
            .find(|choice| choice.as_str().is_some_and(|choice| said.contains(&choice.to_lowercase())))
            .cloned();
    }
    let numbers = || user.split(|c: char| !c.is_ascii_digit() && c != '.').filter(|n| !n.is_empty());
    match schema["type"].as_str() {
        Some("integer") => numbers().find_map(|n| n.parse::<i64>().ok()).map(Value::from),
        Some("number") => numbers().find_map(|n| n.parse::<f64>().ok()).map(Value::from),
        Some("string") => {
            let quoted = user.split(['"', '“', '”', '«', '»']).nth(1).filter(|q| !q.trim().is_empty());
            let name = name.to_lowercase();
            let mail =
                || user.split_whitespace().find(|w| w.contains('@')).map(|w| w.trim_matches(['.', ',']));
            let found = if name.contains("mail") {
                mail()
            } else if name.contains("phone") || name.contains("number") {
                user.split_whitespace().find(|w| w.bytes().filter(u8::is_ascii_digit).count() >= 6)
            } else {
                quoted.or_else(|| after_preposition(user))
            };
            found.map(|text| text.trim().into())
        }
        _ => None,
    }
}

/// "weather in New York?" → "New York".
fn after_preposition(user: &str) -> Option<&str> {
    let at = [" in ", " for ", " about ", " at ", " to ", " nach ", " über ", " sobre ", " à ", " su "]
        .iter()
        .filter_map(|word| user.to_lowercase().rfind(word).map(|at| at + word.len()))
        .max()?;
    let rest = user.get(at..)?.trim_end_matches(['?', '!', '.', ' ']);
    let rest = rest.split([',', ';', '.']).next()?.trim();
    let rest = ["the ", "a ", "an "].iter().find_map(|article| rest.strip_prefix(article)).unwrap_or(rest);
    (!rest.is_empty()).then_some(rest)
}

/// What fields are filled from.
struct Context<'a> {
    system: &'a str,
    user: &'a str,
}

impl<'a> Context<'a> {
    fn new(system: &'a str, user: &'a str) -> Self {
        Self { system, user }
    }

    /// Something for a field of this name.
    fn text(&self, name: &str) -> String {
        let name = name.to_lowercase();
        let subject = || subject(self.user);
        let is = |parts: &[&str]| parts.iter().any(|part| name.contains(part));
        if is(&["title", "name", "headline", "subject"]) {
            title(&subject())
        } else if is(&["summary", "description", "reason"]) {
            let all = format!("{}\n{}", self.user, self.system);
            sentences(&all).first().map_or_else(subject, |sentence| (*sentence).to_owned())
        } else if is(&["language", "locale"]) {
            "en".to_owned()
        } else if is(&["story", "content", "body", "text", "message", "answer", "reply"]) {
            let knowledge = relevant(self.system, self.user, 3);
            if story::is_asked(self.system, self.user) {
                story::tell(self.system, self.user)
            } else if knowledge.is_empty() {
                self.user.to_owned()
            } else {
                knowledge.join(" ")
            }
        } else {
            truncated(&subject(), 200).0.to_owned()
        }
    }
}

fn subject(user: &str) -> String {
    let line = user.lines().find(|line| !line.trim().is_empty()).unwrap_or(user).trim();
    after_preposition(line).unwrap_or(line).trim_end_matches(['.', '?', '!']).to_owned()
}

fn title(text: &str) -> String {
    let short: Vec<&str> = text.split_whitespace().take(8).collect();
    let text = short.join(" ");
    let mut letters = text.chars();
    letters
        .next()
        .map_or_else(|| "Untitled".to_owned(), |first| first.to_uppercase().chain(letters).collect())
}

/// Something that fits a schema, out of the context.
fn filled(schema: &Value, name: &str, context: &Context<'_>, depth: usize) -> Value {
    if let Some(choices) = schema["enum"].as_array() {
        let said = context.user.to_lowercase();
        let chosen = choices.iter().find(|c| c.as_str().is_some_and(|c| said.contains(&c.to_lowercase())));
        return chosen.or(choices.first()).cloned().unwrap_or_default();
    }
    if let Some(value) = schema.get("const") {
        return value.clone();
    }
    if let Some(first) = schema["anyOf"].as_array().and_then(|options| options.first()) {
        return filled(first, name, context, depth + 1);
    }
    let kind = schema["type"].as_str().or(schema["type"][0].as_str());
    let number = |default: f64| {
        let least = schema["minimum"].as_f64();
        let most = schema["maximum"].as_f64();
        match (least, most) {
            (Some(least), Some(most)) => f64::midpoint(least, most).floor().max(least),
            (Some(least), None) => least.max(default),
            (None, Some(most)) => most.min(default),
            (None, None) => default,
        }
    };
    match kind {
        _ if depth > 12 => Value::Null,
        Some("string") => {
            let text = context.text(name);
            let most = schema["maxLength"].as_u64().map_or(usize::MAX, |most| most as usize);
            truncated(&text, most).0.into()
        }
        Some("integer") => (number(1.0) as i64).into(),
        Some("number") => number(1.0).into(),
        Some("boolean") => true.into(),
        Some("array") => {
            let parts = sentences(context.user);
            let least = schema["minItems"].as_u64().unwrap_or(1).min(64) as usize;
            let most = schema["maxItems"].as_u64().map_or(3, |most| most as usize).max(least);
            let count = parts.len().clamp(least.max(1), most.max(1));
            (0..count)
                .map(|index| {
                    let part = parts.get(index).copied().unwrap_or(context.user);
                    filled(&schema["items"], name, &Context::new(context.system, part), depth + 1)
                })
                .collect()
        }
        Some("object") | None => {
            let properties = schema["properties"].as_object();
            let filled = properties
                .into_iter()
                .flatten()
                .map(|(name, property)| (name.clone(), filled(property, name, context, depth + 1)));
            filled.collect::<Map<_, _>>().into()
        }
        Some(_) => Value::Null,
    }
}

/// A tool's output as a sentence: JSON is read out.
fn spoken(output: &str) -> String {
    fn read(value: &Value, out: &mut Vec<String>) {
        match value {
            Value::Object(fields) => {
                for (name, value) in fields {
                    let mut inner = Vec::new();
                    read(value, &mut inner);
                    out.push(format!("{}: {}", name.replace('_', " "), inner.join(", ")));
                }
            }
            Value::Array(items) => items.iter().take(8).for_each(|item| read(item, out)),
            Value::String(text) => out.push(text.clone()),
            Value::Null => {}
            plain => out.push(plain.to_string()),
        }
    }
    let Ok(value) = serde_json::from_str::<Value>(output) else { return output.trim().to_owned() };
    let mut parts = Vec::new();
    read(&value, &mut parts);
    parts.join("; ")
}

fn prose(system: &str, user: &str, request: &ChatRequest) -> String {
    let asked: Vec<String> = words(user).collect();
    let says = |list: &[&str]| asked.iter().any(|word| list.contains(&word.as_str()));
    let task = system.to_lowercase();
    if story::is_asked(system, user) {
        return story::tell(system, user);
    }
    if says(&["summarise", "summarize", "summary", "recap"]) || task.contains("summar") {
        return summary(user, request);
    }
    let knowledge = format!("{system}\n{}", history(request));
    let found = relevant(&knowledge, user, 3);
    if user.trim_end().ends_with('?') && !found.is_empty() {
        return found
            .into_iter()
            .map(|sentence| sentence.trim_start_matches(['-', '*', ' ']))
            .collect::<Vec<_>>()
            .join(" ");
    }
    let name = persona(system);
    if asked.len() <= 4 && says(&["hello", "hi", "hey", "hola", "bonjour", "hallo", "ciao", "good"]) {
        return match name {
            Some(name) => format!("Hello, I am {name}. How can I help you?"),
            None => "Hello! How can I help you?".to_owned(),
        };
    }
    if says(&["thanks", "thank", "bye", "goodbye"]) {
        return "You are welcome. Goodbye!".to_owned();
    }
    if let Some(sentence) = found.first() {
        return format!("You mention something I know about: {sentence}");
    }
    if user.trim_end().ends_with('?') {
        let subject = subject(user);
        return format!(
            "I do not know that about {subject}: I answer offline, from what I was told beforehand."
        );
    }
    format!("I understand: {}. Tell me more.", truncated(user.trim().trim_end_matches('.'), 200).0)
}

/// "You are Nora, …" → "Nora".
fn persona(system: &str) -> Option<&str> {
    let rest = ["You are ", "Your name is ", "I am "]
        .iter()
        .find_map(|start| system.find(start).map(|at| &system[at + start.len()..]))?;
    let name = rest.split(|c: char| !c.is_alphanumeric() && c != '-').next()?;
    let proper = name.chars().next().is_some_and(char::is_uppercase) && name.len() > 1;
    proper.then_some(name)
}

fn history(request: &ChatRequest) -> String {
    let before = request.messages.len().saturating_sub(1);
    let texts = request.messages[..before].iter().rev().take(20).flat_map(|message| match message {
        Message::User(content) => content.iter().filter_map(Content::text).map(str::to_owned).collect(),
        Message::Tool(results) => results.iter().map(|result| result.output.clone()).collect::<Vec<_>>(),
        Message::Assistant(_) => Vec::new(),
    });
    texts.collect::<Vec<_>>().join("\n")
}

/// The sentences whose words come up most.
fn summary(user: &str, request: &ChatRequest) -> String {
    let text = if user.len() > 200 { user.to_owned() } else { format!("{}\n{user}", history(request)) };
    let all = sentences(&text);
    let topic = key_words(&text);
    let mut scored: Vec<(usize, usize)> = all
        .iter()
        .enumerate()
        .map(|(index, sentence)| {
            let words = key_words(sentence);
            let shared = topic.iter().filter(|word| words.contains(*word)).count();
            // The first sentences of a text say what it is about.
            (shared * 10 / (words.len() + 4) + usize::from(index < 2) * 2 + shared.min(6), index)
        })
        .collect();
    scored.sort_by_key(|(score, index)| (std::cmp::Reverse(*score), *index));
    let mut chosen: Vec<usize> = scored.into_iter().take(3).map(|(_, index)| index).collect();
    chosen.sort_unstable();
    chosen.into_iter().map(|index| all[index]).collect::<Vec<_>>().join(" ")
}

#[cfg(test)]
mod tests {
    use rstest::rstest;
    use serde_json::json;

    use super::*;
    use crate::chat::ToolResult;

    const SHOP: &str = "You are Nora, the receptionist of Blue Bikes.\nKnowledge:\n- We open at nine on weekdays.\n- A repair costs forty euros.";

    #[rstest]
    #[case("Hello there", "Hello, I am Nora. How can I help you?")]
    #[case("When do you open on weekdays?", "We open at nine on weekdays.")]
    #[case("How much does a repair cost?", "A repair costs forty euros.")]
    fn the_prompt_is_used(#[case] user: &str, #[case] expected: &str) {
        assert_eq!(answer(&ChatRequest::new(SHOP, user)).text, expected);
    }

    #[test]
    fn what_is_not_known_is_said() {
        let text = answer(&ChatRequest::new(SHOP, "Who won the match in Lyon?")).text;
        assert!(text.contains("do not know") && text.contains("offline"), "{text}");
    }

    fn weather() -> Tool {
        Tool {
            name: "get_weather".into(),
            description: "Current weather of a city".into(),
            parameters: json!({"type": "object", "required": ["city"], "properties": {
                "city": {"type": "string"}, "days": {"type": "integer"},
                "unit": {"type": "string", "enum": ["celsius", "fahrenheit"]}}}),
            strict: false,
        }
    }

    #[test]
    fn tools_are_called_and_their_results_told() {
        let mut request = ChatRequest::new("", "What is the weather in New York?");
        request.tools.push(weather());
        let calls = answer(&request).calls;
        assert_eq!(calls, [("get_weather".to_owned(), json!({"city": "New York"}))]);
        request.messages.push(Message::Tool(vec![ToolResult {
            call_id: "1".into(),
            name: "get_weather".into(),
            output: json!({"sky": "clear", "temperature_c": 21}).to_string(),
            is_error: false,
        }]));
        assert_eq!(answer(&request).text, "Here is what I found: sky: clear; temperature c: 21");
        request.messages = vec![Message::user("I like cheese.")];
        assert!(answer(&request).calls.is_empty());
    }

    #[test]
    fn schemas_are_filled_from_the_context() {
        let schema = json!({"type": "object", "properties": {
            "title": {"type": "string"}, "mood": {"enum": ["wild", "calm"]},
            "scenes": {"type": "array", "minItems": 2, "items": {"type": "object", "properties": {
                "text": {"type": "string"}, "importance": {"type": "integer", "minimum": 1, "maximum": 10}}}}}});
        let mut request = ChatRequest::new("", "A calm walk. A fox sleeps.");
        request.format = ResponseFormat::Schema { name: "x".into(), schema };
        let value: Value = serde_json::from_str(&answer(&request).text).unwrap();
        assert_eq!(value["mood"], "calm");
        assert_eq!(value["scenes"].as_array().unwrap().len(), 2);
        assert_eq!(value["scenes"][0]["importance"], 5);
    }
}
