//! Parser of both notations.

use regex::Regex;
use serde_json::Value;

use super::{Comparison, Condition, Operand, PathError, Segment, Selector};

/// Bound on nested filters, so that no configuration can exhaust the stack.
const DEEPEST: usize = 16;

type Parsed<T> = Result<T, &'static str>;

struct Parser<'a> {
    rest: &'a str,
    depth: usize,
}

pub(super) fn path(text: &str) -> Result<Vec<Segment>, PathError> {
    let mut parser = Parser { rest: text, depth: 0 };
    let parsed = if parser.eat("$") { parser.segments() } else { parser.older() };
    let parsed = parsed.and_then(|segments| match (parser.rest.is_empty(), segments.is_empty()) {
        (true, false) => Ok(segments),
        (true, true) => Err("a name"),
        (false, _) => Err("the end or `.` or `[`"),
    });
    parsed.map_err(|expected| PathError {
        path: text.to_owned(),
        at: text[..text.len() - parser.rest.len()].chars().count() + 1,
        expected,
    })
}

impl Parser<'_> {
    fn eat(&mut self, token: &str) -> bool {
        let Some(rest) = self.rest.strip_prefix(token) else { return false };
        self.rest = rest;
        true
    }

    fn need(&mut self, token: &str, expected: &'static str) -> Parsed<()> {
        if self.eat(token) { Ok(()) } else { Err(expected) }
    }

    fn blanks(&mut self) {
        self.rest = self.rest.trim_start_matches([' ', '\t', '\n', '\r']);
    }

    fn take_while(&mut self, accepted: impl Fn(char) -> bool) -> &str {
        let end = self.rest.find(|c| !accepted(c)).unwrap_or(self.rest.len());
        let (taken, rest) = self.rest.split_at(end);
        self.rest = rest;
        taken
    }

    fn segments(&mut self) -> Parsed<Vec<Segment>> {
        let mut segments = Vec::new();
        loop {
            if self.eat("..") {
                let selectors = if self.rest.starts_with('[') { self.bracket()? } else { self.dotted()? };
                segments.push(Segment::Descendants(selectors));
            } else if self.eat(".") {
                segments.push(Segment::Children(self.dotted()?));
            } else if self.rest.starts_with('[') {
                segments.push(Segment::Children(self.bracket()?));
            } else {
                return Ok(segments);
            }
        }
    }

    fn dotted(&mut self) -> Parsed<Vec<Selector>> {
        if self.eat("*") {
            return Ok(vec![Selector::All]);
        }
        if self.rest.starts_with(|c: char| c.is_ascii_digit()) {
            return Err("a name");
        }
        match self.take_while(|c| c.is_ascii_alphanumeric() || c == '_' || !c.is_ascii()) {
            "" => Err("a name"),
            name => Ok(vec![Selector::Name(name.to_owned())]),
        }
    }

    fn bracket(&mut self) -> Parsed<Vec<Selector>> {
        self.need("[", "`[`")?;
        let mut selectors = Vec::new();
        loop {
            self.blanks();
            selectors.push(self.selector()?);
            self.blanks();
            if self.eat("]") {
                return Ok(selectors);
            }
            self.need(",", "`]`")?;
        }
    }

    fn selector(&mut self) -> Parsed<Selector> {
        if self.eat("*") {
            return Ok(Selector::All);
        }
        if self.rest.starts_with(['\'', '"']) {
            return Ok(Selector::Name(self.quoted()?));
        }
        if self.eat("?") {
            self.blanks();
            return Ok(Selector::Filter(self.any()?));
        }
        let start = self.integer()?;
        self.blanks();
        if !self.eat(":") {
            return start.map(Selector::Index).ok_or("a name in quotes, an index, `*` or `?`");
        }
        self.blanks();
        let end = self.integer()?;
        self.blanks();
        let step = if self.eat(":") {
            self.blanks();
            self.integer()?
        } else {
            None
        };
        Ok(Selector::Slice { start, end, step: step.unwrap_or(1) })
    }

    fn integer(&mut self) -> Parsed<Option<i64>> {
        match self.take_while(|c| c.is_ascii_digit() || c == '-') {
            "" => Ok(None),
            digits => digits.parse().map(Some).map_err(|_| "an integer"),
        }
    }

    fn quoted(&mut self) -> Parsed<String> {
        let mut chars = self.rest.char_indices();
        let Some((_, quote @ ('\'' | '"'))) = chars.next() else { return Err("a quoted string") };
        let mut text = String::new();
        while let Some((position, c)) = chars.next() {
            match c {
                '\\' => match chars.next().ok_or("the rest of an escape")?.1 {
                    'n' => text.push('\n'),
                    't' => text.push('\t'),
                    'r' => text.push('\r'),
                    'b' => text.push('\u{8}'),
                    'f' => text.push('\u{c}'),
                    'u' => {
                        let digits: String = chars.by_ref().take(4).map(|(_, c)| c).collect();
                        let code = u32::from_str_radix(&digits, 16).ok().and_then(char::from_u32);
                        text.push(code.ok_or("four hexadecimal digits")?);
                    }
                    other => text.push(other),
                },
                c if c == quote => {
                    self.rest = &self.rest[position + 1..];
                    return Ok(text);
                }
                c => text.push(c),
            }
        }
        Err("a closing quote")
    }

    fn any(&mut self) -> Parsed<Condition> {
        self.depth += 1;
        if self.depth > DEEPEST {
            return Err("less nesting");
        }
        let mut members = vec![self.all()?];
        while self.eat("||") {
            self.blanks();
            members.push(self.all()?);
        }
        self.depth -= 1;
        Ok(if members.len() == 1 { members.remove(0) } else { Condition::Any(members) })
    }

    fn all(&mut self) -> Parsed<Condition> {
        let mut members = vec![self.basic()?];
        while self.eat("&&") {
            self.blanks();
            members.push(self.basic()?);
        }
        Ok(if members.len() == 1 { members.remove(0) } else { Condition::All(members) })
    }

    fn basic(&mut self) -> Parsed<Condition> {
        let negated = self.eat("!");
        self.blanks();
        let condition = if self.eat("(") {
            self.blanks();
            let inner = self.any()?;
            self.need(")", "`)`")?;
            inner
        } else if self.eat("search(") {
            self.search()?
        } else {
            let left = self.operand()?;
            self.blanks();
            match self.comparison(false) {
                Some(comparison) => {
                    self.blanks();
                    Condition::Compare(left, comparison, self.operand()?)
                }
                None if matches!(left, Operand::Literal(_)) => return Err("a comparison"),
                None => Condition::Exists(left),
            }
        };
        self.blanks();
        Ok(if negated { Condition::Not(Box::new(condition)) } else { condition })
    }

    fn search(&mut self) -> Parsed<Condition> {
        self.blanks();
        let operand = self.operand()?;
        self.blanks();
        self.need(",", "`,`")?;
        self.blanks();
        let pattern = Regex::new(&self.quoted()?).map_err(|_| "a regular expression")?;
        self.blanks();
        self.need(")", "`)`")?;
        Ok(Condition::Search(operand, pattern))
    }

    fn operand(&mut self) -> Parsed<Operand> {
        let from_root = self.rest.starts_with('$');
        if self.eat("@") || self.eat("$") {
            return Ok(Operand::Path { from_root, segments: self.segments()? });
        }
        if self.rest.starts_with(['\'', '"']) {
            return Ok(Operand::Literal(Value::String(self.quoted()?)));
        }
        let word = self.take_while(|c| c.is_ascii_alphanumeric() || matches!(c, '-' | '+' | '.'));
        serde_json::from_str(word).map(Operand::Literal).map_err(|_| "`@`, `$` or a literal")
    }

    fn comparison(&mut self, older: bool) -> Option<Comparison> {
        const RFC: &[(&str, Comparison)] = &[
            ("==", Comparison::Equal),
            ("!=", Comparison::NotEqual),
            ("<=", Comparison::LessOrEqual),
            (">=", Comparison::GreaterOrEqual),
            ("<", Comparison::Less),
            (">", Comparison::Greater),
        ];
        const OLDER: &[(&str, Comparison)] = &[
            ("==^", Comparison::EndsWith),
            ("==", Comparison::Equal),
            ("!=", Comparison::StringNotEqual),
            ("^==", Comparison::StartsWith),
            ("*==", Comparison::Contains),
        ];
        let known = if older { OLDER } else { RFC };
        known.iter().find_map(|(token, comparison)| self.eat(token).then_some(*comparison))
    }

    /// The notation before JSONPath: a filter may only end it.
    fn older(&mut self) -> Parsed<Vec<Segment>> {
        let mut segments = Vec::new();
        loop {
            let selector = if self.eat(".") {
                if self.eat("\"") {
                    Selector::Name(self.until_quote()?)
                } else {
                    match self.take_while(|c| c.is_alphanumeric() || matches!(c, '_' | '$' | '@')) {
                        "" => return Err("a name"),
                        name => Selector::Name(name.to_owned()),
                    }
                }
            } else if self.eat("[?(@") {
                self.blanks();
                let comparison = self.comparison(true).ok_or("==, !=, ^==, ==^ or *==")?;
                self.blanks();
                self.need("\"", "a string in double quotes")?;
                let wanted = Operand::Literal(Value::String(self.until_quote()?));
                self.need(")]", "`)]`")?;
                let member = Operand::Path { from_root: false, segments: Vec::new() };
                segments.push(Segment::Children(vec![Selector::Filter(Condition::Compare(
                    member, comparison, wanted,
                ))]));
                return Ok(segments);
            } else if self.eat("[") {
                let index = self.take_while(|c| c.is_ascii_digit()).parse().map_err(|_| "an index")?;
                self.need("]", "`]`")?;
                Selector::Index(index)
            } else {
                return Ok(segments);
            };
            segments.push(Segment::Children(vec![selector]));
        }
    }

    fn until_quote(&mut self) -> Parsed<String> {
        let text = self.take_while(|c| c != '"').to_owned();
        self.need("\"", "a closing quote")?;
        Ok(text)
    }
}
