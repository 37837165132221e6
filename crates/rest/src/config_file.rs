//! Where options come from: PostgREST's configuration file, `PGRST_*` variables, settings in the database.

use std::collections::BTreeMap;
use std::path::PathBuf;

/// A configuration that cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum ConfigError {
    /// The file is not of the form `key = value`.
    #[error("line {line} of the configuration: {expected} expected")]
    Syntax {
        /// Line, from 1.
        line: usize,
        /// What should stand there.
        expected: &'static str,
    },
    /// An option has a value that it cannot have.
    #[error("{key} cannot be {value:?}: {expected}")]
    Value {
        /// Option.
        key: String,
        /// Its value.
        value: String,
        /// What it may be.
        expected: String,
    },
    /// An option of PostgREST that this server does not have.
    #[error("{key} is not supported: {instead}")]
    Unsupported {
        /// Option.
        key: &'static str,
        /// What to do.
        instead: &'static str,
    },
    /// A file that an option names with `@`, or the configuration itself, cannot be read.
    #[error("cannot read {}: {source}; correct the path or its permissions", path.display())]
    File {
        /// Its path.
        path: PathBuf,
        /// Why.
        source: std::io::Error,
    },
    /// `jwt-role-claim-key`
    #[error(transparent)]
    RolePath(#[from] crate::auth::PathError),
}

/// A value of the file, as written.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Value {
    Text(String),
    Number(String),
    Boolean(bool),
    List,
}

/// Options by name, from all sources: the database over the environment over the file. Unknown names are kept and
/// never asked for.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Settings {
    file: BTreeMap<String, Value>,
    environment: BTreeMap<String, String>,
    database: BTreeMap<String, String>,
}

impl Settings {
    /// Reads a configuration file.
    ///
    /// # Errors
    /// [`ConfigError::Syntax`] with the line.
    pub fn parse(text: &str) -> Result<Self, ConfigError> {
        let mut reader = Reader { text, line: 1, file: BTreeMap::new() };
        reader.pairs("", 0)?;
        Ok(Self { file: reader.file, ..Self::default() })
    }

    /// Adds environment variables; those that do not begin with `PG` are ignored.
    #[must_use]
    pub fn with_env(mut self, variables: impl IntoIterator<Item = (String, String)>) -> Self {
        self.environment.extend(variables.into_iter().filter(|(name, _)| name.starts_with("PG")));
        self
    }

    /// Replaces the settings of the database: names with underscores, without `pgrst.`.
    #[must_use]
    pub fn with_database(mut self, settings: impl IntoIterator<Item = (String, String)>) -> Self {
        self.database = settings.into_iter().collect();
        self
    }

    fn get(&self, key: &str) -> Option<Value> {
        let name = key.replace('-', "_");
        let given = self
            .database
            .get(&name)
            .or_else(|| self.environment.get(&format!("PGRST_{}", name.to_ascii_uppercase())));
        given.map(|text| Value::Text(text.clone())).or_else(|| self.file.get(key).cloned())
    }

    /// The first of `keys` (a name and its older forms) that is set, perhaps empty.
    pub(crate) fn raw_text(&self, keys: &[&str]) -> Option<String> {
        keys.iter().find_map(|key| match self.get(key)? {
            Value::Text(text) | Value::Number(text) => Some(text),
            Value::Boolean(value) => Some(value.to_string()),
            Value::List => None,
        })
    }

    /// As [`Self::raw_text`]; empty counts as not set.
    pub(crate) fn text(&self, keys: &[&str]) -> Option<String> {
        keys.iter().find_map(|key| self.raw_text(&[key]).filter(|text| !text.is_empty()))
    }

    /// Names separated by commas.
    pub(crate) fn list(&self, keys: &[&str]) -> Option<Vec<String>> {
        Some(split(&self.text(keys)?))
    }

    /// A whole number; PostgREST goes on with the default when it is something else, and so does this, with a
    /// warning.
    pub(crate) fn integer<T: std::str::FromStr>(&self, keys: &[&str]) -> Option<T> {
        keys.iter().find_map(|key| {
            let value = self.get(key)?;
            let parsed = match &value {
                Value::Text(text) if text.is_empty() => return None,
                Value::Text(text) | Value::Number(text) => text.trim().parse().ok(),
                _ => None,
            };
            if parsed.is_none() {
                tracing::warn!(option = key, "ignored: a whole number is expected");
            }
            parsed
        })
    }

    /// `true`, `"true"`, `"1"`, …
    pub(crate) fn boolean(&self, keys: &[&str]) -> Option<bool> {
        keys.iter().find_map(|key| {
            let value = self.get(key)?;
            let parsed = match &value {
                Value::Boolean(value) => Some(*value),
                Value::Text(text) if text.is_empty() => return None,
                Value::Text(text) => {
                    let letters: String = text.chars().filter(|c| c.is_alphabetic()).collect();
                    match letters.to_lowercase().as_str() {
                        "true" => Some(true),
                        "false" => Some(false),
                        _ => text.trim().parse::<i64>().ok().map(|number| number > 0),
                    }
                }
                _ => None,
            };
            if parsed.is_none() {
                tracing::warn!(option = key, "ignored: true or false is expected");
            }
            parsed
        })
    }

    /// `app.settings.*` by full name, from the file and `PGRST_APP_SETTINGS_*`.
    pub(crate) fn app_settings(&self) -> Vec<(String, String)> {
        let mut settings = BTreeMap::new();
        for key in self.file.keys().filter(|key| key.starts_with("app.settings.")) {
            if let Some(text) = self.raw_text(&[key]) {
                settings.insert(key.clone(), text);
            }
        }
        for (name, value) in &self.environment {
            if let Some(name) = name.strip_prefix("PGRST_APP_SETTINGS_") {
                settings.insert(format!("app.settings.{name}"), value.clone());
            }
        }
        settings.into_iter().collect()
    }

    /// A variable of the environment that is no option of PostgREST, such as `PGHOST`.
    pub(crate) fn variable(&self, name: &str) -> Option<&str> {
        self.environment.get(name).map(String::as_str).filter(|value| !value.is_empty())
    }
}

/// Names between commas, without the blanks around them.
pub(crate) fn split(text: &str) -> Vec<String> {
    text.split(',').map(|part| part.trim().to_owned()).collect()
}

/// Reads `key = value` lines, `#` comments and `group { … }` blocks.
struct Reader<'a> {
    text: &'a str,
    line: usize,
    file: BTreeMap<String, Value>,
}

/// Bound on nested groups and lists.
const DEEPEST: usize = 16;

impl Reader<'_> {
    fn expected(&self, expected: &'static str) -> ConfigError {
        ConfigError::Syntax { line: self.line, expected }
    }

    fn advance(&mut self, bytes: usize) {
        let (passed, rest) = self.text.split_at(bytes);
        self.line += passed.matches('\n').count();
        self.text = rest;
    }

    fn eat(&mut self, token: &str) -> bool {
        let found = self.text.starts_with(token);
        if found {
            self.advance(token.len());
        }
        found
    }

    fn take_while(&mut self, accepted: impl Fn(char) -> bool) -> String {
        let end = self.text.find(|c| !accepted(c)).unwrap_or(self.text.len());
        let taken = self.text[..end].to_owned();
        self.advance(end);
        taken
    }

    /// Passes blanks, line ends and comments.
    fn gap(&mut self) {
        loop {
            self.take_while(char::is_whitespace);
            if !self.text.starts_with('#') {
                break;
            }
            self.take_while(|c| c != '\n');
        }
    }

    fn pairs(&mut self, prefix: &str, depth: usize) -> Result<(), ConfigError> {
        if depth > DEEPEST {
            return Err(self.expected("less nesting"));
        }
        loop {
            self.gap();
            if self.text.is_empty() || self.text.starts_with('}') {
                break;
            }
            let key = self.take_while(|c| c.is_alphanumeric() || matches!(c, '-' | '_' | '.'));
            if key.is_empty() {
                return Err(self.expected("the name of an option"));
            }
            self.take_while(|c| matches!(c, ' ' | '\t'));
            if key == "import" && self.text.starts_with('"') {
                return Err(
                    self.expected("an option (import is not supported: put all options into one file)")
                );
            }
            let key = format!("{prefix}{key}");
            if self.eat("=") {
                self.gap();
                let value = self.value(0)?;
                self.file.insert(key, value);
                self.take_while(|c| matches!(c, ' ' | '\t' | '\r'));
                if !(self.text.is_empty() || self.text.starts_with(['\n', '#', '}'])) {
                    return Err(self.expected("the end of the line (texts stand in double quotes)"));
                }
            } else if self.eat("{") {
                self.pairs(&format!("{key}."), depth + 1)?;
                if !self.eat("}") {
                    return Err(self.expected("`}`"));
                }
            } else {
                return Err(self.expected("`=` after the name of an option"));
            }
        }
        if depth == 0 && !self.text.is_empty() {
            return Err(self.expected("the name of an option"));
        }
        Ok(())
    }

    fn value(&mut self, depth: usize) -> Result<Value, ConfigError> {
        if depth > DEEPEST {
            return Err(self.expected("less nesting"));
        }
        if self.text.starts_with('"') {
            return self.quoted().map(Value::Text);
        }
        if self.eat("[") {
            loop {
                self.gap();
                if self.eat("]") {
                    return Ok(Value::List);
                }
                self.value(depth + 1)?;
                self.gap();
                if !self.eat(",") && !self.text.starts_with(']') {
                    return Err(self.expected("`,` or `]`"));
                }
            }
        }
        let word = self.take_while(|c| c.is_ascii_alphanumeric() || matches!(c, '-' | '+' | '.'));
        match word.as_str() {
            "true" | "on" => Ok(Value::Boolean(true)),
            "false" | "off" => Ok(Value::Boolean(false)),
            number if number.parse::<f64>().is_ok_and(f64::is_finite) => Ok(Value::Number(word)),
            _ => Err(self.expected("a text in double quotes, a number, true or false")),
        }
    }

    fn quoted(&mut self) -> Result<String, ConfigError> {
        let mut text = String::new();
        let mut chars = self.text.char_indices().skip(1).peekable();
        while let Some((position, c)) = chars.next() {
            match c {
                '"' => {
                    self.advance(position + 1);
                    return Ok(text);
                }
                '\\' => match chars.next().map(|(_, escaped)| escaped) {
                    Some('n') => text.push('\n'),
                    Some('r') => text.push('\r'),
                    Some('t') => text.push('\t'),
                    Some('u') => {
                        let digits: String = chars.by_ref().take(4).map(|(_, digit)| digit).collect();
                        let code = u32::from_str_radix(&digits, 16).ok().and_then(char::from_u32);
                        text.push(code.ok_or_else(|| self.expected("four hexadecimal digits after \\u"))?);
                    }
                    Some(other) => text.push(other),
                    None => break,
                },
                // A lone dollar is kept: `"$.role"` is too common to refuse.
                '$' => match chars.peek().map(|(_, next)| *next) {
                    Some('$') => {
                        chars.next();
                        text.push('$');
                    }
                    Some('(') => {
                        return Err(
                            self.expected("a plain text ($(…) is not supported: set PGRST_… variables)")
                        );
                    }
                    _ => text.push('$'),
                },
                c => text.push(c),
            }
        }
        Err(self.expected("a closing quote"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_the_file_format() {
        let settings = Settings::parse(
            "# Commènt\n db-uri = \"a\\\"b\\\\c\\u0041\" # why\n\ndb-pool=1\nflag = off\nlist = [1, \"x\",\n2]\n\
             app.settings.one = \"1\"\napp { settings { two = \"$$2$x\" } }\nnot-existing = \"fine\"",
        )
        .expect("reads");
        assert_eq!(settings.text(&["db-uri"]).as_deref(), Some("a\"b\\cA"));
        assert_eq!(settings.integer(&["db-pool"]), Some(1));
        assert_eq!(settings.boolean(&["flag"]), Some(false));
        assert_eq!(
            settings.app_settings(),
            [("app.settings.one".into(), "1".into()), ("app.settings.two".into(), "$2$x".into())]
        );
    }

    #[test]
    fn says_where_the_file_is_wrong() {
        for (text, expected) in [
            ("a = \"1\"\nb", "line 2 of the configuration: `=` after the name of an option expected"),
            ("a = \"1", "line 1 of the configuration: a closing quote expected"),
            (
                "\n\na = word",
                "line 3 of the configuration: a text in double quotes, a number, true or false expected",
            ),
            (
                "a = 1 2",
                "line 1 of the configuration: the end of the line (texts stand in double quotes) expected",
            ),
            ("= 1", "line 1 of the configuration: the name of an option expected"),
            ("a {\n b = 1", "line 2 of the configuration: `}` expected"),
            ("}", "line 1 of the configuration: the name of an option expected"),
        ] {
            assert_eq!(Settings::parse(text).expect_err(text).to_string(), expected);
        }
        assert!(Settings::parse(&"a{".repeat(1000)).is_err());
        assert!(Settings::parse(&format!("a={}", "[".repeat(1000))).is_err());
    }

    #[test]
    fn the_database_wins_over_the_environment_over_the_file() {
        let settings = Settings::parse("db-max-rows = 1\ndb-pool = 1\ndb-anon-role = \"file\"")
            .expect("reads")
            .with_env([("PGRST_DB_MAX_ROWS".into(), "2".into()), ("PGRST_DB_POOL".into(), "2".into())])
            .with_database([("db_max_rows".into(), "3".into())]);
        assert_eq!(settings.integer(&["db-max-rows"]), Some(3));
        assert_eq!(settings.integer(&["db-pool"]), Some(2));
        assert_eq!(settings.text(&["db-anon-role"]).as_deref(), Some("file"));
    }

    #[test]
    fn booleans_come_in_many_forms() {
        for (value, expected) in [
            ("true", Some(true)),
            ("\"TRUE\"", Some(true)),
            ("\"\\\"true\\\"\"", Some(true)),
            ("\"2\"", Some(true)),
            ("\"0\"", Some(false)),
            ("\"False\"", Some(false)),
            ("13", None),
            ("\"\"", None),
        ] {
            let settings = Settings::parse(&format!("a = {value}")).expect("reads");
            assert_eq!(settings.boolean(&["a"]), expected, "{value}");
        }
    }

    #[test]
    fn older_names_count_when_the_name_is_not_set() {
        let settings =
            Settings::parse("max-rows = 5\npre-request = \"f\"\ndb-pre-request = \"\"").expect("reads");
        assert_eq!(settings.integer(&["db-max-rows", "max-rows"]), Some(5));
        assert_eq!(settings.text(&["db-pre-request", "pre-request"]).as_deref(), Some("f"));
    }
}
