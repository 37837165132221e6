//! Splits SQL text into statements, as the server and `psql` would, without touching a byte of it.
//!
//! The pieces are contiguous: put together again they are the text. A `;` ends a statement unless it stands in a
//! string, a quoted name, a dollar quote, a comment, parentheses or a `begin atomic … end` body.

use std::ops::Range;

/// One statement with everything around it: leading blanks and comments, and the closing `;`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Statement<'a> {
    /// The piece of text, from the end of the previous statement to the end of this one.
    pub text: &'a str,
    /// Bytes of `text` in the whole.
    pub span: Range<usize>,
    /// Bytes of the statement proper: from its first word to before its `;`. Empty if there is only white space.
    pub code: Range<usize>,
    /// Line of the first word, from 1.
    pub line: usize,
    /// The first words and symbols in lower case, enough to tell what kind of statement it is.
    pub words: Vec<String>,
}

impl Statement<'_> {
    /// Whether there is nothing to execute: blanks, comments, a lone `;`.
    pub fn is_empty(&self) -> bool {
        self.code.is_empty()
    }
}

/// Text that cannot be split, or that only `psql` understands.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum LexError {
    /// Something is opened and never closed.
    #[error("line {line}: this {what} is never closed; add the closing `{close}`")]
    Unterminated {
        /// What was opened, in words.
        what: &'static str,
        /// What would close it.
        close: String,
        /// Line of the opening, from 1.
        line: usize,
        /// Byte of the opening.
        offset: usize,
    },
    /// A command of `psql`, which is not SQL.
    #[error(
        "line {line}: `{command}` is a command of psql, not SQL; remove it, or apply this file with psql and record it \
         with `longhouse db repair --status applied`"
    )]
    MetaCommand {
        /// The command as written.
        command: String,
        /// Line, from 1.
        line: usize,
        /// Byte of the backslash.
        offset: usize,
    },
    /// `copy … from stdin`, with its data in the file, or `copy … to stdout`.
    #[error(
        "line {line}: `copy … from stdin` and `to stdout` need psql; write the rows as `insert` statements \
         (`pg_dump --inserts` does so)"
    )]
    CopyStream {
        /// Line of the statement, from 1.
        line: usize,
        /// Byte of the statement.
        offset: usize,
    },
}

impl LexError {
    /// Byte of the text that the error is about.
    pub fn offset(&self) -> usize {
        match self {
            Self::Unterminated { offset, .. }
            | Self::MetaCommand { offset, .. }
            | Self::CopyStream { offset, .. } => *offset,
        }
    }
}

/// How many leading words are kept: `create unique index concurrently if not exists …` needs four.
const KEPT_WORDS: usize = 12;

/// Splits a text into its statements. Their spans are contiguous and cover all of it.
///
/// # Errors
/// See [`LexError`]; each names the line.
pub fn split(text: &str) -> Result<Vec<Statement<'_>>, LexError> {
    let mut lexer = Lexer { text, bytes: text.as_bytes(), at: 0, counted: (0, 1) };
    let mut statements = Vec::new();
    while lexer.at < text.len() {
        statements.push(lexer.statement()?);
    }
    Ok(statements)
}

/// Line of a byte, from 1.
pub fn line_of(text: &str, offset: usize) -> usize {
    text.as_bytes()[..offset].iter().filter(|byte| **byte == b'\n').count() + 1
}

struct Lexer<'a> {
    text: &'a str,
    bytes: &'a [u8],
    at: usize,
    /// A byte and its line: lines are counted on from here, so that long files stay linear.
    counted: (usize, usize),
}

/// What is known of the statement that is being read.
#[derive(Default)]
struct Shape {
    first: Option<usize>,
    end: usize,
    words: Vec<String>,
    previous: String,
    parentheses: usize,
    /// Open `begin atomic` and `case` blocks in a function's body.
    blocks: usize,
    streams: bool,
}

impl Shape {
    /// Notes a token that is not a word.
    fn symbol(&mut self, at: Range<usize>, symbol: &str) {
        self.first.get_or_insert(at.start);
        self.end = at.end;
        self.previous.clear();
        if self.words.len() < KEPT_WORDS {
            self.words.push(symbol.to_owned());
        }
    }

    fn word(&mut self, at: Range<usize>, word: &str) {
        self.first.get_or_insert(at.start);
        self.end = at.end;
        let word = word.to_ascii_lowercase();
        if self.blocks > 0 {
            match word.as_str() {
                "case" => self.blocks += 1,
                "end" => self.blocks -= 1,
                _ => {}
            }
        } else if word == "atomic" && self.previous == "begin" && self.is_routine() {
            self.blocks = 1;
        }
        if matches!((self.previous.as_str(), word.as_str()), ("from", "stdin") | ("to", "stdout")) {
            self.streams = true;
        }
        if self.words.len() < KEPT_WORDS {
            self.words.push(word.clone());
        }
        self.previous = word;
    }

    fn is_routine(&self) -> bool {
        let words: Vec<&str> = self.words.iter().map(String::as_str).collect();
        matches!(
            words.as_slice(),
            ["create", "function" | "procedure", ..]
                | ["create", "or", "replace", "function" | "procedure", ..]
        )
    }
}

impl<'a> Lexer<'a> {
    fn statement(&mut self) -> Result<Statement<'a>, LexError> {
        let start = self.at;
        let mut shape = Shape::default();
        while let Some(byte) = self.peek(0) {
            let from = self.at;
            match byte {
                b'-' if self.peek(1) == Some(b'-') => self.line_comment(),
                b'/' if self.peek(1) == Some(b'*') => self.block_comment()?,
                b'\'' => {
                    self.string(false)?;
                    shape.symbol(from..self.at, "'");
                }
                b'"' => {
                    self.quoted(b'"', false, "quoted name")?;
                    shape.symbol(from..self.at, "\"");
                }
                b'$' => {
                    self.dollar()?;
                    shape.symbol(from..self.at, "$");
                }
                b'\\' => return Err(self.meta_command()),
                b';' => {
                    self.at += 1;
                    if shape.parentheses == 0 && shape.blocks == 0 {
                        return self.finish(start, shape);
                    }
                }
                byte if is_word_start(byte) => {
                    self.take_word();
                    let word = &self.text[from..self.at];
                    // E'…' is the one prefix that changes where a string ends.
                    if word.eq_ignore_ascii_case("e") && self.peek(0) == Some(b'\'') {
                        self.string(true)?;
                        shape.symbol(from..self.at, "'");
                    } else {
                        shape.word(from..self.at, word);
                    }
                }
                byte if byte.is_ascii_whitespace() || byte == 0x0b => self.at += 1,
                _ => {
                    match byte {
                        b'(' => shape.parentheses += 1,
                        b')' => shape.parentheses = shape.parentheses.saturating_sub(1),
                        _ => {}
                    }
                    self.at += 1;
                    shape.symbol(from..self.at, &self.text[from..self.at]);
                }
            }
        }
        self.finish(start, shape)
    }

    fn finish(&mut self, start: usize, shape: Shape) -> Result<Statement<'a>, LexError> {
        let code = shape.first.map_or(self.at..self.at, |first| first..shape.end);
        let line = self.counted.1 + line_of(&self.text[self.counted.0..], code.start - self.counted.0) - 1;
        self.counted = (code.start, line);
        if shape.streams && shape.words.first().is_some_and(|word| word == "copy") {
            return Err(LexError::CopyStream { line, offset: code.start });
        }
        Ok(Statement {
            text: &self.text[start..self.at],
            span: start..self.at,
            code,
            line,
            words: shape.words,
        })
    }

    fn peek(&self, ahead: usize) -> Option<u8> {
        self.bytes.get(self.at + ahead).copied()
    }

    fn take_word(&mut self) {
        while self.peek(0).is_some_and(|byte| is_word_start(byte) || byte.is_ascii_digit() || byte == b'$') {
            self.at += 1;
        }
    }

    fn line_comment(&mut self) {
        while self.peek(0).is_some_and(|byte| byte != b'\n' && byte != b'\r') {
            self.at += 1;
        }
    }

    /// Postgres nests block comments.
    fn block_comment(&mut self) -> Result<(), LexError> {
        let start = self.at;
        let mut depth = 0usize;
        loop {
            match (self.peek(0), self.peek(1)) {
                (Some(b'/'), Some(b'*')) => {
                    depth += 1;
                    self.at += 2;
                }
                (Some(b'*'), Some(b'/')) => {
                    depth -= 1;
                    self.at += 2;
                    if depth == 0 {
                        return Ok(());
                    }
                }
                (Some(_), _) => self.at += 1,
                (None, _) => return Err(self.unterminated(start, "comment", "*/")),
            }
        }
    }

    /// A string and its continuations: after a line break the next quote goes on in the same mode, which matters
    /// for the backslashes of `E'…'`.
    fn string(&mut self, backslashes: bool) -> Result<(), LexError> {
        loop {
            self.quoted(b'\'', backslashes, "string")?;
            if !backslashes {
                return Ok(());
            }
            let mut ahead = 0;
            let mut line_break = false;
            while let Some(byte) = self.peek(ahead) {
                match byte {
                    b'\n' | b'\r' => line_break = true,
                    b'-' if line_break && self.peek(ahead + 1) == Some(b'-') => {
                        while self.peek(ahead + 1).is_some_and(|byte| byte != b'\n' && byte != b'\r') {
                            ahead += 1;
                        }
                    }
                    byte if byte.is_ascii_whitespace() || byte == 0x0b => {}
                    _ => break,
                }
                ahead += 1;
            }
            if !line_break || self.peek(ahead) != Some(b'\'') {
                return Ok(());
            }
            self.at += ahead;
        }
    }

    /// From an opening quote to after its closing one; a doubled quote stands for itself.
    fn quoted(&mut self, quote: u8, backslashes: bool, what: &'static str) -> Result<(), LexError> {
        let start = self.at;
        self.at += 1;
        while let Some(byte) = self.peek(0) {
            self.at += 1;
            if byte == b'\\' && backslashes {
                self.at += usize::from(self.peek(0).is_some());
            } else if byte == quote {
                if self.peek(0) != Some(quote) {
                    return Ok(());
                }
                self.at += 1;
            }
        }
        Err(self.unterminated(start, what, if quote == b'"' { "\"" } else { "'" }))
    }

    /// `$$…$$`, `$tag$…$tag$`, or a lone `$` as in the parameter `$1`.
    fn dollar(&mut self) -> Result<(), LexError> {
        let start = self.at;
        let mut ahead = 1;
        if self.peek(ahead).is_some_and(is_word_start) {
            while self.peek(ahead).is_some_and(|byte| is_word_start(byte) || byte.is_ascii_digit()) {
                ahead += 1;
            }
        }
        if self.peek(ahead) != Some(b'$') {
            self.at += 1;
            return Ok(());
        }
        let tag = &self.text[start..=start + ahead];
        let body = start + tag.len();
        match self.text[body..].find(tag) {
            Some(length) => {
                self.at = body + length + tag.len();
                Ok(())
            }
            None => Err(self.unterminated(start, "dollar quote", tag)),
        }
    }

    fn meta_command(&self) -> LexError {
        let rest = &self.text[self.at..];
        let command = rest.split(['\n', '\r', ' ', '\t']).next().unwrap_or(rest);
        LexError::MetaCommand {
            command: command.chars().take(40).collect(),
            line: line_of(self.text, self.at),
            offset: self.at,
        }
    }

    fn unterminated(&self, offset: usize, what: &'static str, close: &str) -> LexError {
        LexError::Unterminated { what, close: close.to_owned(), line: line_of(self.text, offset), offset }
    }
}

/// Letters, underscore, and every byte of a character beyond ASCII, as Postgres has it.
fn is_word_start(byte: u8) -> bool {
    byte.is_ascii_alphabetic() || byte == b'_' || byte >= 0x80
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn code(text: &str) -> Vec<&str> {
        let statements = split(text).unwrap();
        statements.iter().filter(|s| !s.is_empty()).map(|s| &text[s.code.clone()]).collect()
    }

    #[test]
    fn splits_where_postgres_does() {
        let table: &[(&str, &[&str])] = &[
            ("", &[]),
            ("  -- nothing\n;;", &[]),
            ("select 1", &["select 1"]),
            ("select 1; select 2;", &["select 1", "select 2"]),
            ("select ';', 'it''s; fine'; select 2", &["select ';', 'it''s; fine'", "select 2"]),
            (r"select E'a\';b'; select 2", &[r"select E'a\';b'", "select 2"]),
            (r"select e'\\'; select 2", &[r"select e'\\'", "select 2"]),
            (r"select '\'; select 2", &[r"select '\'", "select 2"]),
            (r"select type'\'; select 2", &[r"select type'\'", "select 2"]),
            ("select E'a'\n 'b\\';c'; select 2", &["select E'a'\n 'b\\';c'", "select 2"]),
            ("select E'a'\n-- note\n 'b\\';c'; select 2", &["select E'a'\n-- note\n 'b\\';c'", "select 2"]),
            (r#"select "a;""b;" from t; x"#, &[r#"select "a;""b;" from t"#, "x"]),
            ("do $$ begin; end $$; x", &["do $$ begin; end $$", "x"]),
            ("do $a$ ; $$ ; $b$ $a$; x", &["do $a$ ; $$ ; $b$ $a$", "x"]),
            ("select $ä1$;$ä1$; x", &["select $ä1$;$ä1$", "x"]),
            ("select a$b$; select c$b$ from t", &["select a$b$", "select c$b$ from t"]),
            ("prepare p as select $1; select $2", &["prepare p as select $1", "select $2"]),
            ("select 1 -- a; b\n, 2; x", &["select 1 -- a; b\n, 2", "x"]),
            ("select /* a; /* b; */ c; */ 1; x", &["select /* a; /* b; */ c; */ 1", "x"]),
            ("select 1 /* tail */; -- end", &["select 1"]),
            (
                "create rule r as on insert to t do (select 1; select 2); x",
                &["create rule r as on insert to t do (select 1; select 2)", "x"],
            ),
            (
                "create function f() returns int begin atomic select case when true then 1 end; select 2; end; x",
                &[
                    "create function f() returns int begin atomic select case when true then 1 end; select 2; end",
                    "x",
                ],
            ),
            (
                "create or replace procedure p() BEGIN ATOMIC insert into t values (1); END; x",
                &["create or replace procedure p() BEGIN ATOMIC insert into t values (1); END", "x"],
            ),
            ("begin; select 1; end; x", &["begin", "select 1", "end", "x"]),
            ("create table begin_atomic (atomic int); x", &["create table begin_atomic (atomic int)", "x"]),
            ("copy t from '/tmp/x'; x", &["copy t from '/tmp/x'", "x"]),
            ("select 'naïve; — ü' as \"ß;\"; x", &["select 'naïve; — ü' as \"ß;\"", "x"]),
            ("select 1\r\n;\r\nselect 2", &["select 1", "select 2"]),
        ];
        for (text, expected) in table {
            assert_eq!(&code(text), expected, "in {text}");
        }
    }

    #[test]
    fn says_what_is_wrong_and_where() {
        let table = [
            ("select 1;\nselect 'abc", "line 2: this string is never closed; add the closing `'`"),
            ("\n\nselect \"abc", "line 3: this quoted name is never closed; add the closing `\"`"),
            ("/* /* */", "line 1: this comment is never closed; add the closing `*/`"),
            ("do $x$ begin $$ end", "line 1: this dollar quote is never closed; add the closing `$x$`"),
        ];
        for (text, message) in table {
            assert_eq!(split(text).unwrap_err().to_string(), message);
        }
        let copy = "select 1;\n\ncopy t (a) from stdin;\n1\n\\.\n";
        assert_eq!(split(copy), Err(LexError::CopyStream { line: 3, offset: 11 }));
        assert_eq!(split("copy t to stdout"), Err(LexError::CopyStream { line: 1, offset: 0 }));
        let meta = "select 1;\n\\restrict abc\n";
        let Err(LexError::MetaCommand { command, line: 2, .. }) = split(meta) else { panic!() };
        assert_eq!(command, "\\restrict");
    }

    #[test]
    fn tells_the_kind_and_place_of_a_statement() {
        let text = "-- why\n\ncreate UNIQUE index Concurrently i on t (a);\n  vacuum";
        let statements = split(text).unwrap();
        assert_eq!(statements[0].words[..4], ["create", "unique", "index", "concurrently"]);
        assert_eq!((statements[0].line, statements[1].line), (3, 4));
        assert_eq!(&text[statements[1].code.clone()], "vacuum");
    }

    /// Pieces in which a `;` must not split.
    fn quoting() -> impl Strategy<Value = String> {
        let body = "[a-z;$ \\\\\n\"/*-]{0,12}";
        prop_oneof![
            body.prop_map(|b| format!("'{b}'")),
            body.prop_map(|b| format!("E'{}'", b.replace('\\', "\\\\"))),
            body.prop_map(|b| format!("\"{}\"", b.replace('"', "\"\""))),
            "[a-z;' \\\\\n\"/*-]{0,12}".prop_map(|b| format!("$t${b}$t$")),
            "[a-z;' \"]{0,12}".prop_map(|b| format!("/*{b}*/")),
            "[a-z;' \"]{0,12}".prop_map(|b| format!("--{b}\n")),
            "[a-z; ]{0,12}".prop_map(|b| format!("({b})")),
        ]
    }

    proptest! {
        #[test]
        fn pieces_put_together_are_the_text(text in "[a-zE;$'\"()*/\\\\\n -ü]{0,80}") {
            if let Ok(statements) = split(&text) {
                let joined: String = statements.iter().map(|s| s.text).collect();
                prop_assert_eq!(&joined, &text);
                for statement in statements {
                    prop_assert_eq!(&text[statement.span.clone()], statement.text);
                    prop_assert!(statement.code.is_empty() || statement.span.contains(&statement.code.start));
                    prop_assert!(statement.code.end <= statement.span.end);
                }
            }
        }

        #[test]
        fn nothing_inside_quoting_splits(parts in prop::collection::vec(quoting(), 1..6)) {
            let statement = format!("select {}", parts.join(" , "));
            let text = format!("{statement} ; {statement} ;");
            let pieces = split(&text).unwrap();
            prop_assert_eq!(pieces.len(), 2, "{:?}", pieces);
            prop_assert!(pieces.iter().all(|piece| piece.text.trim().starts_with("select")));
        }
    }
}
