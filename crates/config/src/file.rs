//! Reads `longhouse.toml`: keys with their lines, syntax errors with theirs.

use std::io::Read;
use std::path::Path;

use toml::de::{DeTable, DeValue};

use crate::error::{Mistake, Problem};
use crate::forms::Raw;
use crate::keys::{self, KEYS, Key, SECTIONS};
use crate::load::Origin;

/// No configuration is larger; something else is being read.
const LARGEST: u64 = 1024 * 1024;

/// What a file says: values of known keys, and mistakes in names.
pub(crate) struct Contents {
    pub(crate) values: Vec<(&'static Key, Raw, Origin)>,
    pub(crate) mistakes: Vec<Mistake>,
}

/// Reads the file. `Err`: it cannot be read or parsed, so nothing in it can be judged.
pub(crate) fn read(path: &Path) -> Result<Contents, Vec<Mistake>> {
    let text =
        read_text(path).map_err(|problem| vec![problem.at(&path.display().to_string(), Origin::Default)])?;
    parse(path, &text)
}

fn read_text(path: &Path) -> Result<String, Problem> {
    let failed = |error: &std::io::Error| {
        let remedy = match error.kind() {
            std::io::ErrorKind::NotFound => {
                "Check the path, or leave it out to run on defaults and the environment."
            }
            std::io::ErrorKind::PermissionDenied => "Let the user that runs Longhouse read it.",
            _ => "Check that it is a readable text file.",
        };
        Problem::new(format!("cannot be read: {error}"), remedy)
    };
    let file = std::fs::File::open(path).map_err(|error| failed(&error))?;
    let mut bytes = Vec::new();
    file.take(LARGEST + 1).read_to_end(&mut bytes).map_err(|error| failed(&error))?;
    if bytes.len() as u64 > LARGEST {
        return Err(Problem::new("is larger than 1 MiB", "Check that this is the configuration file."));
    }
    String::from_utf8(bytes).map_err(|_| Problem::new("is not UTF-8 text", "Save it as UTF-8."))
}

fn parse(path: &Path, text: &str) -> Result<Contents, Vec<Mistake>> {
    let origin = |offset: usize| Origin::File { path: path.to_owned(), line: line_of(text, offset) };
    let (table, errors) = DeTable::parse_recoverable(text);
    if !errors.is_empty() {
        let mistakes = errors.iter().map(|error| {
            // The message alone: the error's own rendering quotes the line, which may hold a secret.
            let what = format!("syntax error: {}", error.message());
            Problem::new(what, "Correct the line; text needs quotes: `key = \"value\"`.")
                .at(&path.display().to_string(), origin(error.span().map_or(0, |span| span.start)))
        });
        return Err(mistakes.collect());
    }
    let mut contents = Contents { values: Vec::new(), mistakes: Vec::new() };
    for (name, value) in table.get_ref() {
        let place = origin(name.span().start);
        let name = name.get_ref().as_ref();
        let is_section = SECTIONS.iter().any(|(section, _)| !section.is_empty() && *section == name);
        match (value.get_ref(), is_section) {
            (DeValue::Table(section), true) => {
                for (inner, value) in section {
                    let full = format!("{name}.{}", inner.get_ref());
                    contents.add(&full, value.get_ref(), origin(inner.span().start));
                }
            }
            (_, true) => contents.mistakes.push(
                Problem::new(
                    "is a section, not a key",
                    format!("Write its keys below `[{name}]`, each on a line of its own."),
                )
                .at(name, place),
            ),
            (value, false) => contents.add(name, value, place),
        }
    }
    // The table is sorted by name; people read files from the top.
    contents.values.sort_by_key(|(_, _, origin)| origin.line());
    contents.mistakes.sort_by_key(|mistake| mistake.origin.line());
    Ok(contents)
}

impl Contents {
    fn add(&mut self, name: &str, value: &DeValue<'_>, origin: Origin) {
        match keys::find(name) {
            Some(key) => match raw(value) {
                Raw::Text(text) if text.trim().is_empty() => {} // empty = unset, as in the environment
                value => self.values.push((key, value, origin)),
            },
            None => self.mistakes.push(unknown(name, matches!(value, DeValue::Table(_))).at(name, origin)),
        }
    }
}

fn unknown(name: &str, is_table: bool) -> Problem {
    let sections = SECTIONS.iter().map(|(section, _)| *section).filter(|section| !section.is_empty());
    if is_table && !name.contains('.') {
        let remedy = match keys::nearest(name, sections.clone()) {
            Some(section) => format!("Did you mean `[{section}]`?"),
            None => format!("Sections are {}.", sections.collect::<Vec<_>>().join(", ")),
        };
        return Problem::new("unknown section", remedy);
    }
    // `port = 1` above every section is a common slip: the name is right, the place is not.
    let misplaced = KEYS
        .iter()
        .find(|key| !name.contains('.') && key.name.split_once('.').is_some_and(|(_, inner)| inner == name));
    let remedy = match (keys::nearest(name, KEYS.iter().map(|key| key.name)), misplaced) {
        (Some(key), None) => format!("Did you mean `{key}`?"),
        (_, Some(key)) => format!("Did you mean `{}`? Write it below `[{}]`.", key.name, key.section()),
        (None, None) => "Remove it, or look the name up in docs/configuration.md.".to_owned(),
    };
    Problem::new("unknown key", remedy)
}

fn raw(value: &DeValue<'_>) -> Raw {
    match value {
        DeValue::String(text) => Raw::Text(text.to_string()),
        DeValue::Integer(number) => i64::from_str_radix(number.as_str(), number.radix())
            .map_or(Raw::Other("a number out of every range"), Raw::Integer),
        DeValue::Boolean(value) => Raw::Boolean(*value),
        DeValue::Array(items) => Raw::List(items.iter().map(|item| raw(item.get_ref())).collect()),
        DeValue::Float(_) => Raw::Other("a number with a fraction"),
        DeValue::Datetime(_) => Raw::Other("a date"),
        DeValue::Table(_) => Raw::Other("a table"),
    }
}

/// Line of a byte offset, from 1.
fn line_of(text: &str, offset: usize) -> usize {
    1 + text.bytes().take(offset).filter(|byte| *byte == b'\n').count()
}
