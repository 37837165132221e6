//! What can go wrong with migrations, told so that the reader can go and fix it.

use std::fmt;
use std::path::PathBuf;
use std::time::Duration;

use tokio_postgres::error::{ErrorPosition, SqlState};

use super::lexer::{LexError, Statement, line_of};
use super::plan::Unbalanced;

/// Why migrations could not be listed, applied or recorded.
#[derive(Debug, thiserror::Error)]
pub enum MigrationError {
    /// The folder cannot be read or made.
    #[error("cannot use the migrations folder {}: {source}; create it with `longhouse db new <name>` or pass --migrations DIR", .folder.display())]
    Folder {
        /// The folder.
        folder: PathBuf,
        /// What the system said.
        source: std::io::Error,
    },
    /// A file cannot be read or written.
    #[error("cannot use the file {}: {source}; it must be a readable file of UTF-8 text", .file.display())]
    File {
        /// The file.
        file: PathBuf,
        /// What the system said.
        source: std::io::Error,
    },
    /// A file is larger than any migration should be.
    #[error("{} is larger than {limit} bytes; split it into several files", .file.display())]
    FileTooLarge {
        /// The file.
        file: PathBuf,
        /// The bound in bytes.
        limit: u64,
    },
    /// A folder holds more than any project should.
    #[error("{} holds more than {limit} migrations; squash old ones into one file", .folder.display())]
    TooManyFiles {
        /// The folder.
        folder: PathBuf,
        /// The bound.
        limit: usize,
    },
    /// Two files have the same version.
    #[error("{first} and {second} both have version {version}; rename one to a version of its own")]
    DuplicateVersion {
        /// The version.
        version: String,
        /// One file.
        first: String,
        /// The other.
        second: String,
    },
    /// A name for a new migration without any letter.
    #[error("`{0}` cannot name a migration; use up to 200 letters, digits, `-` and `_`, e.g. `add_calls`")]
    BadName(String),
    /// A file cannot be split into statements.
    #[error("{file}: {source}")]
    Lex {
        /// Path of the file.
        file: String,
        /// What is wrong, with its line.
        source: LexError,
    },
    /// A file opens a transaction that it does not close.
    #[error("{file}: {source}")]
    Unbalanced {
        /// Path of the file.
        file: String,
        /// What is wrong, with its line.
        source: Unbalanced,
    },
    /// A statement failed.
    #[error("{0}")]
    Failed(Box<Failure>),
    /// Pending migrations are older than applied ones.
    #[error(
        "these migrations are older than {newest}, the newest one that is applied: {}. If they are independent of it, \
         run again with --include-all; else rename them to a newer version",
        .versions.join(", ")
    )]
    OutOfOrder {
        /// Pending versions.
        versions: Vec<String>,
        /// Newest applied version.
        newest: String,
    },
    /// The database has migrations that the folder has not.
    #[error(
        "the database has migrations that are not in {place}: {0}. Get their files (git pull), or if they are gone for \
         good run `longhouse db repair --status reverted {1}`",
        .versions.join(", "),
        .versions.join(" ")
    )]
    MissingLocally {
        /// Versions in the ledger only.
        versions: Vec<String>,
        /// Where we looked.
        place: String,
    },
    /// A version given by hand is not among the files.
    #[error("there is no migration file with version {0}; see `longhouse db list` for the versions")]
    UnknownVersion(String),
    /// An application's migration was changed after it was applied.
    #[error(
        "migration {version}_{name} of the application `{app}` was changed after it was applied here; restore its text \
         and put the change into a new migration"
    )]
    AppEdited {
        /// Application.
        app: String,
        /// Version of the changed migration.
        version: String,
        /// Name of the changed migration.
        name: String,
    },
    /// An application's name is not one.
    #[error(
        "`{0}` cannot name an application's schema; use lower-case letters, digits and `_`, and no platform schema's name"
    )]
    BadApp(String),
    /// Another process holds the lock.
    #[error("another migration run has held the lock for over {0:?}{1}; wait for it to end and run again")]
    Locked(Duration, String),
    /// The ledger tables are missing.
    #[error(
        "this database has no Longhouse schema yet; run `longhouse serve` or `longhouse db push` against it first"
    )]
    NotBootstrapped,
    /// The connection or one of our own queries failed.
    #[error("the database refused while {doing}: {}", describe(.source))]
    Database {
        /// What we were doing.
        doing: &'static str,
        /// What happened.
        source: tokio_postgres::Error,
    },
}

impl MigrationError {
    pub(super) fn database(doing: &'static str) -> impl Fn(tokio_postgres::Error) -> Self {
        move |source| match source.code() {
            Some(&SqlState::UNDEFINED_TABLE | &SqlState::INVALID_SCHEMA_NAME) => Self::NotBootstrapped,
            _ => Self::Database { doing, source },
        }
    }
}

fn describe(error: &tokio_postgres::Error) -> String {
    match error.as_db_error() {
        Some(db) => {
            let hint = db.hint().map(|hint| format!(" ({hint})")).unwrap_or_default();
            format!("{} [{}]{hint}", db.message(), db.code().code())
        }
        None => format!("{error}; check that the database is up and reachable"),
    }
}

/// What is left behind by a file that failed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Aftermath {
    /// Nothing: the transaction was rolled back.
    Nothing,
    /// Statements outside of a transaction stay.
    Partial {
        /// Version of the migration; `None` for a seed.
        version: Option<String>,
        /// Statements that had run.
        done: usize,
        /// Statements of the file.
        total: usize,
    },
}

/// A statement that failed, with its place in the file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Failure {
    /// Path of the file.
    pub file: String,
    /// Line, from 1.
    pub line: usize,
    /// Column in characters, from 1.
    pub column: usize,
    /// The line's text, shortened around the column.
    pub snippet: String,
    /// Characters before the caret in `snippet`.
    pub caret: usize,
    /// SQLSTATE, e.g. `42P01`; empty when the connection broke.
    pub sqlstate: String,
    /// What Postgres said.
    pub message: String,
    /// Its detail.
    pub detail: Option<String>,
    /// Its hint.
    pub hint: Option<String>,
    /// Where inside of a function or `do` block it happened.
    pub context: Option<String>,
    /// What the file leaves behind.
    pub aftermath: Aftermath,
}

/// Most characters of a line that are shown.
const SNIPPET: usize = 120;

impl Failure {
    /// Finds the place: the server's position in the text that was sent from byte `base` on, else the statement
    /// after the `done` ones that had finished.
    pub(super) fn locate(
        file: &str,
        sql: &str,
        sent: std::ops::Range<usize>,
        statement: Option<&Statement<'_>>,
        error: &tokio_postgres::Error,
        aftermath: Aftermath,
    ) -> Box<Self> {
        let db = error.as_db_error();
        let exact = match db.and_then(|db| db.position()) {
            Some(ErrorPosition::Original(position)) => {
                let text = &sql[sent.clone()];
                let skip = (*position as usize).saturating_sub(1);
                let byte = text.char_indices().nth(skip).map_or(text.trim_end().len(), |(byte, _)| byte);
                Some(sent.start + byte)
            }
            _ => None,
        };
        let offset = exact.or(statement.map(|s| s.code.start)).unwrap_or(sent.start).min(sql.len());
        let line_start = sql[..offset].rfind('\n').map_or(0, |at| at + 1);
        let text = sql[line_start..].lines().next().unwrap_or_default();
        let before = sql[line_start..offset].chars().count();
        let first = if text.chars().count() > SNIPPET { before.saturating_sub(SNIPPET / 2) } else { 0 };

        let inner = match db.and_then(|db| db.position()) {
            Some(ErrorPosition::Internal { query, .. }) => Some(format!("in {}", query.trim())),
            _ => None,
        };
        let context = [inner.as_deref(), db.and_then(|db| db.where_())];
        let context: Vec<&str> =
            context.into_iter().flatten().flat_map(str::lines).take(6).map(str::trim_end).collect();
        let own_hint = match db.map(|db| db.code().code()) {
            Some("55P04") => {
                Some("put `alter type … add value` into a migration of its own, before this one")
            }
            Some("25001" | "2D000") => Some(
                "this cannot run inside a transaction: run it by hand and record the file with \
                 `longhouse db repair --status applied`",
            ),
            Some("42501") => Some("migrations run as the login of the database URL, which is no superuser"),
            _ => None,
        };
        Box::new(Self {
            file: file.to_owned(),
            line: line_of(sql, offset),
            column: before + 1,
            snippet: text.chars().skip(first).take(SNIPPET).collect(),
            caret: before - first,
            sqlstate: db.map(|db| db.code().code().to_owned()).unwrap_or_default(),
            message: db
                .map_or_else(|| format!("the connection broke: {error}"), |db| db.message().to_owned()),
            detail: db.and_then(|db| db.detail()).map(str::to_owned),
            hint: db.and_then(|db| db.hint()).or(own_hint).map(str::to_owned),
            context: (!context.is_empty()).then(|| context.join("\n           ")),
            aftermath,
        })
    }
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { file, line, column, snippet, caret, sqlstate, message, .. } = self;
        let gutter = line.to_string();
        let pad = " ".repeat(gutter.len());
        // Tabs stay tabs, so that the caret stands below its character.
        let indent: String = snippet.chars().take(*caret).map(|c| if c == '\t' { c } else { ' ' }).collect();
        write!(f, "{file}:{line}:{column}: {message}")?;
        if !sqlstate.is_empty() {
            write!(f, " [{sqlstate}]")?;
        }
        write!(f, "\n {pad} |\n {gutter} | {snippet}\n {pad} | {indent}^")?;
        for (label, text) in [("detail", &self.detail), ("hint", &self.hint), ("context", &self.context)] {
            if let Some(text) = text {
                write!(f, "\n{label}: {text}")?;
            }
        }
        match &self.aftermath {
            Aftermath::Nothing => {
                write!(f, "\nNothing of this file was applied. Correct it and run the command again.")
            }
            Aftermath::Partial { version, done, total } => {
                write!(
                    f,
                    "\nThis file cannot run in one transaction: {done} of its {total} statements have run and stay, \
                     the rest has not run."
                )?;
                match version {
                    Some(version) => write!(
                        f,
                        " It is not recorded as applied. Undo those statements by hand and run the command again, or \
                         run the rest by hand and then `longhouse db repair --status applied {version}`."
                    ),
                    None => write!(f, " Correct the file and run the command again."),
                }
            }
        }
    }
}
