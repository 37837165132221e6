//! A small parser with backtracking whose failures read like those of PostgREST, which clients show to people.
//!
//! Errors follow the rules of Haskell's Parsec: what was expected is collected at the furthest position reached, a
//! parser that consumed input commits to its branch, and `attempt` takes that commitment back. Nothing is recorded
//! while input is well formed, positions included; a failed parse runs once more to explain itself.

use crate::error::Error;

/// Trees (embeds, `and`/`or`) deeper than this are refused, so that hostile input cannot exhaust the stack.
const MAX_DEPTH: u32 = 64;

/// A parser failed; why is in the parser's error.
#[derive(Debug)]
pub(crate) struct Failed;

/// Result of a parser.
pub(crate) type Parsed<T> = Result<T, Failed>;

#[derive(Debug, Clone, Copy, PartialEq)]
enum Message {
    /// The parser met this, or the end of the input.
    Met(Option<char>),
    /// A rule refused this.
    Refused(char),
    /// A literal or description that would have fitted.
    Expected(Expected),
    /// Free text.
    Plain(&'static str),
}

#[derive(Debug, Clone, Copy, PartialEq)]
enum Expected {
    Label(&'static str),
    Literal(&'static str),
    Char(char),
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
struct Position {
    line: u32,
    column: u32,
}

#[derive(Debug, Clone)]
struct ParseError {
    position: Position,
    messages: Vec<Message>,
}

impl ParseError {
    fn unknown(position: Position) -> Self {
        Self { position, messages: Vec::new() }
    }

    fn merge(mut self, other: Self) -> Self {
        if other.messages.is_empty() && !self.messages.is_empty() {
            return self;
        }
        if self.messages.is_empty() && !other.messages.is_empty() {
            return other;
        }
        match self.position.cmp(&other.position) {
            std::cmp::Ordering::Greater => self,
            std::cmp::Ordering::Less => other,
            std::cmp::Ordering::Equal => {
                self.messages.extend(other.messages);
                self
            }
        }
    }

    /// The text after the position: what was met, and what would have fitted.
    fn describe(&self) -> String {
        let mut parts = Vec::new();
        let refused: Vec<String> = self.texts(|message| match message {
            Message::Refused(c) => Some(show_char(*c)),
            _ => None,
        });
        let met = self.messages.iter().find_map(|message| match message {
            Message::Met(met) => Some(*met),
            _ => None,
        });
        if !refused.is_empty() {
            parts.push(format!("unexpected {}", join_or(&refused)));
        } else if let Some(met) = met {
            parts.push(format!("unexpected {}", met.map_or_else(|| "end of input".to_owned(), show_string)));
        }
        let expected = self.texts(|message| match message {
            Message::Expected(Expected::Label(label)) => Some((*label).to_owned()),
            Message::Expected(Expected::Literal(literal)) => Some(format!("\"{literal}\"")),
            Message::Expected(Expected::Char(c)) => Some(show_string(*c)),
            _ => None,
        });
        if !expected.is_empty() {
            parts.push(format!("expecting {}", join_or(&expected)));
        }
        parts.extend(self.texts(|message| match message {
            Message::Plain(text) => Some((*text).to_owned()),
            _ => None,
        }));
        if parts.is_empty() { "unknown parse error".to_owned() } else { parts.join(" ") }
    }

    fn texts(&self, pick: impl Fn(&Message) -> Option<String>) -> Vec<String> {
        let mut texts = Vec::new();
        for text in self.messages.iter().filter_map(pick) {
            if !texts.contains(&text) {
                texts.push(text);
            }
        }
        texts
    }
}

fn join_or(texts: &[String]) -> String {
    match texts {
        [] => String::new(),
        [one] => one.clone(),
        [init @ .., last] => format!("{} or {last}", init.join(", ")),
    }
}

/// A string of one character as Haskell shows it.
fn show_string(c: char) -> String {
    match c {
        '"' => "\"\\\"\"".to_owned(),
        '\'' => "\"'\"".to_owned(),
        _ => format!("\"{}\"", escape(c)),
    }
}

/// A character as Haskell shows it.
fn show_char(c: char) -> String {
    match c {
        '"' => "'\"'".to_owned(),
        '\'' => "'\\''".to_owned(),
        _ => format!("'{}'", escape(c)),
    }
}

fn escape(c: char) -> String {
    const CONTROL: [&str; 32] = [
        "NUL", "SOH", "STX", "ETX", "EOT", "ENQ", "ACK", "a", "b", "t", "n", "v", "f", "r", "SO", "SI",
        "DLE", "DC1", "DC2", "DC3", "DC4", "NAK", "SYN", "ETB", "CAN", "EM", "SUB", "ESC", "FS", "GS", "RS",
        "US",
    ];
    match c as u32 {
        code @ 0..32 => format!("\\{}", CONTROL[code as usize]),
        0x5c => "\\\\".to_owned(),
        0x7f => "\\DEL".to_owned(),
        code @ 0x80.. => format!("\\{code}"),
        _ => c.to_string(),
    }
}

#[derive(Clone, Copy)]
struct Mark<'a> {
    rest: &'a str,
    position: Position,
}

/// Input being parsed.
pub(crate) struct Parser<'a> {
    rest: &'a str,
    position: Position,
    depth: u32,
    /// Whether the current scope has consumed input.
    consumed: bool,
    /// Whether to record why parsers fail.
    explain: bool,
    /// What the current scope knows of failures at its position.
    error: ParseError,
}

/// Runs a grammar over a whole parameter; `subject` says what failed to parse.
pub(crate) fn parse<T>(
    input: &str,
    subject: impl FnOnce() -> String,
    grammar: impl Fn(&mut Parser<'_>) -> Parsed<T>,
) -> Result<T, Error> {
    if let Ok(value) = grammar(&mut Parser::new(input, false)) {
        return Ok(value);
    }
    let mut parser = Parser::new(input, true);
    match grammar(&mut parser) {
        Ok(value) => Ok(value),
        Err(Failed) => Err(Error::QueryParameter {
            message: format!(
                "\"{}\" (line {}, column {})",
                subject(),
                parser.error.position.line,
                parser.error.position.column
            ),
            details: parser.error.describe(),
        }),
    }
}

impl<'a> Parser<'a> {
    fn new(input: &'a str, explain: bool) -> Self {
        let position = Position { line: 1, column: 1 };
        Self {
            rest: input,
            position,
            depth: 0,
            consumed: false,
            explain,
            error: ParseError::unknown(position),
        }
    }

    fn mark(&self) -> Mark<'a> {
        Mark { rest: self.rest, position: self.position }
    }

    fn reset(&mut self, mark: Mark<'a>) {
        self.rest = mark.rest;
        self.position = mark.position;
    }

    fn step(position: Position, c: char) -> Position {
        match c {
            '\n' => Position { line: position.line + 1, column: 1 },
            '\t' => Position { column: position.column + 8 - ((position.column - 1) % 8), ..position },
            _ => Position { column: position.column + 1, ..position },
        }
    }

    fn advance(&mut self, c: char) {
        self.rest = &self.rest[c.len_utf8()..];
        self.consumed = true;
        if self.explain {
            self.position = Self::step(self.position, c);
            self.error = ParseError::unknown(self.position);
        }
    }

    fn peek(&self) -> Option<char> {
        self.rest.chars().next()
    }

    /// Records a failure at a position without consuming.
    fn note(&mut self, position: Position, messages: &[Message]) {
        if self.explain {
            let error = ParseError { position, messages: messages.to_vec() };
            self.absorb(false, error);
        }
    }

    /// Runs a parser with fresh bookkeeping and hands that back beside its result.
    fn scope<T>(&mut self, parser: impl FnOnce(&mut Self) -> Parsed<T>) -> (Parsed<T>, bool, ParseError) {
        let outer_consumed = std::mem::replace(&mut self.consumed, false);
        if !self.explain {
            let result = parser(self);
            let consumed = std::mem::replace(&mut self.consumed, outer_consumed);
            return (result, consumed, ParseError::unknown(self.position));
        }
        let outer_error = std::mem::replace(&mut self.error, ParseError::unknown(self.position));
        let result = parser(self);
        let consumed = std::mem::replace(&mut self.consumed, outer_consumed);
        let error = std::mem::replace(&mut self.error, outer_error);
        (result, consumed, error)
    }

    fn absorb(&mut self, consumed: bool, error: ParseError) {
        if !self.explain {
            self.consumed |= consumed;
        } else if consumed {
            self.consumed = true;
            self.error = error;
        } else {
            let known = std::mem::replace(&mut self.error, ParseError::unknown(self.position));
            self.error = known.merge(error);
        }
    }

    /// One character that the predicate accepts; `expected` names what that is.
    pub(crate) fn satisfy(
        &mut self,
        accepts: impl Fn(char) -> bool,
        expected: &[&'static str],
    ) -> Parsed<char> {
        match self.peek() {
            Some(c) if accepts(c) => {
                self.advance(c);
                Ok(c)
            }
            met => {
                if self.explain {
                    let labels = expected.iter().map(|label| Message::Expected(Expected::Label(label)));
                    let messages: Vec<Message> = std::iter::once(Message::Met(met)).chain(labels).collect();
                    self.note(self.position, &messages);
                }
                Err(Failed)
            }
        }
    }

    /// This character.
    pub(crate) fn char(&mut self, wanted: char) -> Parsed<char> {
        match self.peek() {
            Some(c) if c == wanted => {
                self.advance(c);
                Ok(c)
            }
            met => {
                self.note(self.position, &[Message::Met(met), Message::Expected(Expected::Char(wanted))]);
                Err(Failed)
            }
        }
    }

    /// This text; a partial match consumes.
    pub(crate) fn string(&mut self, wanted: &'static str) -> Parsed<()> {
        let start = self.position;
        let mut rest = self.rest.chars();
        for (index, c) in wanted.chars().enumerate() {
            let met = rest.next();
            if met != Some(c) {
                let messages = [Message::Met(met), Message::Expected(Expected::Literal(wanted))];
                if index > 0 {
                    self.absorb(true, ParseError::unknown(start));
                }
                self.note(start, &messages);
                return Err(Failed);
            }
        }
        wanted.chars().for_each(|c| self.advance(c));
        Ok(())
    }

    /// The first of these words that the input begins with.
    pub(crate) fn keywords<V: Copy>(&mut self, table: &[(&'static str, V)]) -> Parsed<V> {
        for (word, value) in table {
            if self.rest.starts_with(word) {
                self.string(word)?;
                return Ok(*value);
            }
            if self.explain {
                let word = *word;
                let _ = self.attempt(|p| p.string(word));
            }
        }
        Err(Failed)
    }

    /// All following characters that the predicate accepts, perhaps none.
    pub(crate) fn take_while(
        &mut self,
        accepts: impl Fn(char) -> bool,
        expected: &[&'static str],
    ) -> &'a str {
        let start = self.rest;
        if self.explain {
            while self.satisfy(&accepts, expected).is_ok() {}
        } else {
            self.rest = start.trim_start_matches(accepts);
            self.consumed |= self.rest.len() < start.len();
        }
        &start[..start.len() - self.rest.len()]
    }

    /// The word of ASCII letters, digits and `_` that comes next, if `ends` accepts what follows it (none: the input
    /// ends). A short cut for what grammars would read in the same way with several attempts; there is none while
    /// reasons are collected.
    pub(crate) fn word_before(&mut self, ends: impl Fn(Option<u8>) -> bool) -> Option<&'a str> {
        if self.explain {
            return None;
        }
        let is_word = |byte: &u8| byte.is_ascii_alphanumeric() || *byte == b'_';
        let length = self.rest.bytes().take_while(|byte| is_word(byte)).count();
        let (word, rest) = self.rest.split_at(length);
        if word.is_empty() || !ends(rest.bytes().next()) {
            return None;
        }
        self.rest = rest;
        self.consumed = true;
        Some(word)
    }

    /// Takes this text if it comes next; another short cut.
    pub(crate) fn takes(&mut self, text: &str) -> bool {
        let rest = self.rest.strip_prefix(text).filter(|_| !self.explain);
        if let Some(rest) = rest {
            self.rest = rest;
            self.consumed = true;
        }
        rest.is_some()
    }

    /// At least one character that the predicate accepts.
    pub(crate) fn take_while1(
        &mut self,
        accepts: impl Fn(char) -> bool,
        expected: &[&'static str],
    ) -> Parsed<&'a str> {
        let start = self.rest;
        self.satisfy(&accepts, expected)?;
        self.take_while(&accepts, expected);
        Ok(&start[..start.len() - self.rest.len()])
    }

    /// Blanks.
    pub(crate) fn blanks(&mut self) {
        self.take_while(|c| c == ' ' || c == '\t', &[]);
    }

    /// Something with blanks around it.
    pub(crate) fn lexeme<T>(&mut self, parser: impl FnOnce(&mut Self) -> Parsed<T>) -> Parsed<T> {
        self.blanks();
        let value = parser(self)?;
        self.blanks();
        Ok(value)
    }

    /// A parser that takes back what it consumed when it fails.
    pub(crate) fn attempt<T>(&mut self, parser: impl FnOnce(&mut Self) -> Parsed<T>) -> Parsed<T> {
        let start = self.mark();
        let (result, consumed, error) = self.scope(parser);
        if result.is_err() {
            self.reset(start);
        }
        self.absorb(consumed && result.is_ok(), error);
        result
    }

    /// The second parser when the first fails without having consumed.
    pub(crate) fn either<T>(
        &mut self,
        first: impl FnOnce(&mut Self) -> Parsed<T>,
        second: impl FnOnce(&mut Self) -> Parsed<T>,
    ) -> Parsed<T> {
        let start = self.mark();
        let (result, consumed, error) = self.scope(first);
        if result.is_ok() || consumed {
            self.absorb(consumed, error);
            return result;
        }
        self.reset(start);
        let (result, consumed, second_error) = self.scope(second);
        self.absorb(consumed, if consumed { second_error } else { error.merge(second_error) });
        result
    }

    /// The parser's value, or nothing when it fails without having consumed.
    pub(crate) fn optional<T>(&mut self, parser: impl FnOnce(&mut Self) -> Parsed<T>) -> Parsed<Option<T>> {
        self.either(|p| parser(p).map(Some), |_| Ok(None))
    }

    /// Repeats a parser until it fails without having consumed.
    pub(crate) fn many<T>(&mut self, mut parser: impl FnMut(&mut Self) -> Parsed<T>) -> Parsed<Vec<T>> {
        let mut values = Vec::new();
        loop {
            let start = self.mark();
            let (result, consumed, error) = self.scope(&mut parser);
            match result {
                Ok(value) => {
                    values.push(value);
                    self.absorb(consumed, error);
                    if !consumed {
                        return Ok(values);
                    }
                }
                Err(Failed) if consumed => {
                    self.absorb(true, error);
                    return Err(Failed);
                }
                Err(Failed) => {
                    self.reset(start);
                    self.absorb(!values.is_empty(), error);
                    return Ok(values);
                }
            }
        }
    }

    /// At least one item, separated.
    pub(crate) fn separated1<T>(
        &mut self,
        mut item: impl FnMut(&mut Self) -> Parsed<T>,
        mut separator: impl FnMut(&mut Self) -> Parsed<()>,
    ) -> Parsed<Vec<T>> {
        let first = item(self)?;
        let mut values = vec![first];
        let rest = self.many(|p| {
            separator(p)?;
            item(p)
        })?;
        values.extend(rest);
        Ok(values)
    }

    /// Names what a parser expects, in place of its own expectations.
    pub(crate) fn label<T>(
        &mut self,
        label: &'static str,
        parser: impl FnOnce(&mut Self) -> Parsed<T>,
    ) -> Parsed<T> {
        let (result, consumed, mut error) = self.scope(parser);
        if self.explain && !consumed && (result.is_err() || !error.messages.is_empty()) {
            error.messages.retain(|message| !matches!(message, Message::Expected(_)));
            error.messages.insert(0, Message::Expected(Expected::Label(label)));
        }
        self.absorb(consumed, error);
        result
    }

    /// Succeeds where the parser would, without consuming.
    pub(crate) fn look_ahead<T>(&mut self, parser: impl FnOnce(&mut Self) -> Parsed<T>) -> Parsed<T> {
        let start = self.mark();
        let (result, consumed, error) = self.scope(parser);
        if result.is_ok() {
            self.reset(start);
        } else {
            self.absorb(consumed, error);
        }
        result
    }

    /// Fails where the next character is one that the parser accepts.
    pub(crate) fn not_followed_by(&mut self, parser: impl FnOnce(&mut Self) -> Parsed<char>) -> Parsed<()> {
        self.attempt(|p| {
            p.either(
                |p| {
                    let c = p.attempt(parser)?;
                    p.note(p.position, &[Message::Refused(c)]);
                    Err(Failed)
                },
                |_| Ok(()),
            )
        })
    }

    /// The end of the input.
    pub(crate) fn end(&mut self) -> Parsed<()> {
        self.label("end of input", |p| match p.peek() {
            None => {
                p.note(p.position, &[Message::Met(None)]);
                Ok(())
            }
            Some(c) => {
                p.note(p.position, &[Message::Refused(c)]);
                Err(Failed)
            }
        })
    }

    /// Fails without a word of its own.
    pub(crate) fn refuse<T>(&mut self) -> Parsed<T> {
        Err(Failed)
    }

    /// The parser one level further down.
    pub(crate) fn nested<T>(&mut self, parser: impl FnOnce(&mut Self) -> Parsed<T>) -> Parsed<T> {
        if self.depth == MAX_DEPTH {
            let error =
                ParseError { position: self.position, messages: vec![Message::Plain("nested too deeply")] };
            self.absorb(true, error);
            return Err(Failed);
        }
        self.depth += 1;
        let result = parser(self);
        self.depth -= 1;
        result
    }
}
