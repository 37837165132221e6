//! `jwt-role-claim-key`: where in the claims the role stands.
//!
//! Two notations: JSONPath (RFC 9535; of its functions `search`), which begins with `$`, and PostgREST's older
//! one, which begins with a dot: `.realm.roles[0]`, `."a key"`, `.roles[?(@ ^== "prefix")]`.

use std::cmp::Ordering;
use std::fmt;
use std::str::FromStr;

use regex::Regex;
use serde_json::Value;

#[path = "jspath_parse.rs"]
mod parse;

/// A parsed path into the claims of a token.
#[derive(Clone)]
pub struct RolePath {
    text: String,
    segments: Vec<Segment>,
}

/// A path that cannot be read.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error(
    "failed to parse jwt-role-claim-key ({path}) at character {at}: {expected} expected; an example: $.role"
)]
pub struct PathError {
    pub(super) path: String,
    pub(super) at: usize,
    pub(super) expected: &'static str,
}

#[derive(Debug, Clone)]
enum Segment {
    Children(Vec<Selector>),
    Descendants(Vec<Selector>),
}

#[derive(Debug, Clone)]
enum Selector {
    Name(String),
    Index(i64),
    Slice { start: Option<i64>, end: Option<i64>, step: i64 },
    All,
    Filter(Condition),
}

#[derive(Debug, Clone)]
enum Condition {
    Any(Vec<Condition>),
    All(Vec<Condition>),
    Not(Box<Condition>),
    Exists(Operand),
    Compare(Operand, Comparison, Operand),
    Search(Operand, Regex),
}

#[derive(Debug, Clone)]
enum Operand {
    Literal(Value),
    /// From the member under test, or from the root.
    Path {
        from_root: bool,
        segments: Vec<Segment>,
    },
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Comparison {
    Equal,
    NotEqual,
    Less,
    LessOrEqual,
    Greater,
    GreaterOrEqual,
    /// Of the older notation: these only hold for strings.
    StringNotEqual,
    StartsWith,
    EndsWith,
    Contains,
}

impl RolePath {
    /// The first value that the path leads to.
    pub fn find<'a>(&'a self, claims: &'a Value) -> Option<&'a Value> {
        walk(vec![claims], &self.segments, claims).first().copied()
    }
}

fn members(value: &Value) -> Vec<&Value> {
    match value {
        Value::Array(items) => items.iter().collect(),
        Value::Object(members) => members.values().collect(),
        _ => Vec::new(),
    }
}

fn walk<'a>(mut values: Vec<&'a Value>, segments: &[Segment], root: &'a Value) -> Vec<&'a Value> {
    for segment in segments {
        let (selectors, from) = match segment {
            Segment::Children(selectors) => (selectors, values),
            Segment::Descendants(selectors) => {
                let mut all = Vec::new();
                let mut open: Vec<&Value> = values.into_iter().rev().collect();
                while let Some(value) = open.pop() {
                    all.push(value);
                    open.extend(members(value).into_iter().rev());
                }
                (selectors, all)
            }
        };
        values = from
            .into_iter()
            .flat_map(|value| selectors.iter().flat_map(move |selector| select(value, selector, root)))
            .collect();
    }
    values
}

fn select<'a>(value: &'a Value, selector: &Selector, root: &'a Value) -> Vec<&'a Value> {
    match (selector, value) {
        (Selector::Name(name), Value::Object(members)) => members.get(name).into_iter().collect(),
        (Selector::Index(index), Value::Array(items)) => {
            resolve(*index, items.len()).and_then(|index| items.get(index)).into_iter().collect()
        }
        (Selector::Slice { start, end, step }, Value::Array(items)) => slice(items, *start, *end, *step),
        (Selector::All, value) => members(value),
        (Selector::Filter(condition), value) => {
            members(value).into_iter().filter(|member| holds(condition, member, root)).collect()
        }
        _ => Vec::new(),
    }
}

/// A position from the start, or from the end when negative.
fn resolve(index: i64, length: usize) -> Option<usize> {
    let length = i64::try_from(length).ok()?;
    usize::try_from(if index < 0 { index.checked_add(length)? } else { index }).ok()
}

fn slice(items: &[Value], start: Option<i64>, end: Option<i64>, step: i64) -> Vec<&Value> {
    let Ok(length) = i64::try_from(items.len()) else { return Vec::new() };
    let clamp = |index: i64, low: i64, high: i64| {
        (if index < 0 { index.saturating_add(length) } else { index }).clamp(low, high)
    };
    let mut chosen = Vec::new();
    let (mut position, end) = match step {
        0 => return chosen,
        1.. => (start.map_or(0, |at| clamp(at, 0, length)), end.map_or(length, |at| clamp(at, 0, length))),
        _ => (
            start.map_or(length - 1, |at| clamp(at, -1, length - 1)),
            end.map_or(-1, |at| clamp(at, -1, length - 1)),
        ),
    };
    while if step > 0 { position < end } else { position > end } {
        chosen.extend(usize::try_from(position).ok().and_then(|position| items.get(position)));
        position = position.saturating_add(step);
    }
    chosen
}

fn holds(condition: &Condition, member: &Value, root: &Value) -> bool {
    match condition {
        Condition::Any(members) => members.iter().any(|inner| holds(inner, member, root)),
        Condition::All(members) => members.iter().all(|inner| holds(inner, member, root)),
        Condition::Not(inner) => !holds(inner, member, root),
        Condition::Exists(operand) => evaluate(operand, member, root).is_some(),
        Condition::Search(operand, pattern) => {
            matches!(evaluate(operand, member, root), Some(Value::String(text)) if pattern.is_match(text))
        }
        Condition::Compare(left, comparison, right) => {
            compare(evaluate(left, member, root), *comparison, evaluate(right, member, root))
        }
    }
}

fn evaluate<'a>(operand: &'a Operand, member: &'a Value, root: &'a Value) -> Option<&'a Value> {
    match operand {
        Operand::Literal(value) => Some(value),
        Operand::Path { from_root, segments } => {
            walk(vec![if *from_root { root } else { member }], segments, root).first().copied()
        }
    }
}

fn compare(left: Option<&Value>, comparison: Comparison, right: Option<&Value>) -> bool {
    let equal = || match (left, right) {
        (Some(Value::Number(a)), Some(Value::Number(b))) => a.as_f64() == b.as_f64(),
        (a, b) => a == b,
    };
    let ordered = |wanted: Ordering| {
        let ordering = match (left, right) {
            (Some(Value::Number(a)), Some(Value::Number(b))) => {
                a.as_f64().zip(b.as_f64()).and_then(|(a, b)| a.partial_cmp(&b))
            }
            (Some(Value::String(a)), Some(Value::String(b))) => Some(a.cmp(b)),
            _ => None,
        };
        ordering == Some(wanted)
    };
    let strings = |test: fn(&str, &str) -> bool| match (left, right) {
        (Some(Value::String(a)), Some(Value::String(b))) => test(a, b),
        _ => false,
    };
    match comparison {
        Comparison::Equal => equal(),
        Comparison::NotEqual => !equal(),
        Comparison::Less => ordered(Ordering::Less),
        Comparison::LessOrEqual => ordered(Ordering::Less) || equal(),
        Comparison::Greater => ordered(Ordering::Greater),
        Comparison::GreaterOrEqual => ordered(Ordering::Greater) || equal(),
        Comparison::StringNotEqual => strings(|a, b| a != b),
        Comparison::StartsWith => strings(|a, b| a.starts_with(b)),
        Comparison::EndsWith => strings(|a, b| a.ends_with(b)),
        Comparison::Contains => strings(|a, b| a.contains(b)),
    }
}

impl Default for RolePath {
    /// `$.role`
    fn default() -> Self {
        Self {
            text: "$.role".to_owned(),
            segments: vec![Segment::Children(vec![Selector::Name("role".to_owned())])],
        }
    }
}

impl FromStr for RolePath {
    type Err = PathError;

    fn from_str(text: &str) -> Result<Self, PathError> {
        Ok(Self { text: text.to_owned(), segments: parse::path(text)? })
    }
}

impl fmt::Display for RolePath {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(&self.text)
    }
}

impl fmt::Debug for RolePath {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "RolePath({})", self.text)
    }
}

impl PartialEq for RolePath {
    fn eq(&self, other: &Self) -> bool {
        self.text == other.text
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn finds_what_the_notations_say() {
        let claims = json!({
            "role": "author",
            "postgrest": {"roles": ["other", "author"], "n": [1, {"deep": "x"}]},
            "https://www.example.com/role": {"key": "editor"},
            "user": [{"real-role": "admin"}],
            "list": ["zero", 1, "one-two", "two"],
            "wanted": "author",
        });
        for (path, expected) in [
            ("$.role", json!("author")),
            ("$.postgrest.roles[1]", json!("author")),
            ("$.postgrest.roles[-1]", json!("author")),
            ("$['https://www.example.com/role'].key", json!("editor")),
            ("$.postgrest.roles[?(@ == 'author')]", json!("author")),
            ("$.postgrest.roles[?search(@, '^au')]", json!("author")),
            ("$.postgrest.roles[?@ != 'other']", json!("author")),
            ("$.postgrest.roles[? @ == $.wanted || @ == 'x' && !(@ == 'y')]", json!("author")),
            ("$..deep", json!("x")),
            ("$.user[*]['real-role']", json!("admin")),
            ("$.user[?@['real-role']]", json!({"real-role": "admin"})),
            ("$.list[1:3]", json!(1)),
            ("$.list[::-1]", json!("two")),
            ("$.list[?@ >= 1]", json!(1)),
            ("$['absent','role']", json!("author")),
            (".role", json!("author")),
            (".user[0].\"real-role\"", json!("admin")),
            (".list[?(@ ^== \"one\")]", json!("one-two")),
            (".list[?(@ ==^ \"two\")]", json!("one-two")),
            (".list[?(@ *== \"-\")]", json!("one-two")),
            (".list[?(@ != \"zero\")]", json!("one-two")),
            (".list[?(@ == \"two\")]", json!("two")),
        ] {
            let found = path.parse::<RolePath>().unwrap_or_else(|error| panic!("{error}"));
            assert_eq!(found.find(&claims), Some(&expected), "{path}");
        }
        for path in
            ["$.absent", "$.role.deeper", "$.list[9]", ".role[0]", "$.postgrest.roles[?@ == 'nobody']"]
        {
            assert_eq!(path.parse::<RolePath>().expect(path).find(&claims), None, "{path}");
        }
    }

    #[test]
    fn refuses_what_is_no_path() {
        for path in
            ["", "role", "$", "$.", "$[", ".", ".a[", ".a[?(@ == \"x\")].b", "$.a[?search(@, '(')]", "$.a b"]
        {
            let error = path.parse::<RolePath>().expect_err(path);
            assert!(error.to_string().starts_with("failed to parse jwt-role-claim-key"), "{error}");
        }
    }
}
