//! Puts the sources together: file, then environment, then flags.

use std::collections::BTreeMap;
use std::fmt;
use std::path::{Path, PathBuf};

use crate::consistency;
use crate::error::{ConfigErrors, Mistake, Problem};
use crate::file;
use crate::forms::Raw;
use crate::keys::{self, KEYS, Key};
use crate::settings::Config;

/// Read when no file is named and it exists in the working folder.
const DEFAULT_FILE: &str = "longhouse.toml";

/// Names the file when no flag does.
const FILE_VARIABLE: &str = "LONGHOUSE_CONFIG";

/// Of the test suite, not of the configuration.
const TEST_PREFIX: &str = "LONGHOUSE_TEST_";

/// Where settings come from. Later ones win: file, environment, flags.
#[derive(Clone, Default)]
pub struct Sources {
    /// The file; it must exist. `None`: `LONGHOUSE_CONFIG`, else `longhouse.toml` of [`folder`](Self::folder) if there is one.
    pub file: Option<PathBuf>,
    /// Folder in which `longhouse.toml` is looked for; `None`: it is not looked for.
    pub folder: Option<PathBuf>,
    /// Environment variables. Empty ones count as unset.
    pub env: Vec<(String, String)>,
    /// Flags as (key, value), e.g. `("server.port", "8080")`.
    pub flags: Vec<(String, String)>,
}

impl Sources {
    /// This process: its environment and `longhouse.toml` of its working folder.
    #[must_use]
    pub fn process() -> Self {
        // `vars` panics, with the value in its message, on what is not UTF-8; a replaced character is refused later.
        let env = std::env::vars_os()
            .map(|(name, value)| (name.to_string_lossy().into_owned(), value.to_string_lossy().into_owned()));
        Self { folder: Some(".".into()), ..Self::default() }.env(env)
    }

    /// Names the file.
    #[must_use]
    pub fn file(mut self, path: impl Into<PathBuf>) -> Self {
        self.file = Some(path.into());
        self
    }

    /// Adds environment variables.
    #[must_use]
    pub fn env<N: Into<String>, V: Into<String>>(
        mut self,
        variables: impl IntoIterator<Item = (N, V)>,
    ) -> Self {
        self.env.extend(variables.into_iter().map(|(name, value)| (name.into(), value.into())));
        self
    }

    /// Adds a flag by its key.
    #[must_use]
    pub fn flag(mut self, key: impl Into<String>, value: impl Into<String>) -> Self {
        self.flags.push((key.into(), value.into()));
        self
    }

    fn variable(&self, name: &str) -> Option<&str> {
        let (_, value) = self.env.iter().rev().find(|(given, _)| given == name)?;
        Some(value.trim()).filter(|value| !value.is_empty())
    }

    fn file_to_read(&self) -> Option<PathBuf> {
        let named = self.file.clone().or_else(|| self.variable(FILE_VARIABLE).map(PathBuf::from));
        named.or_else(|| {
            let folder = self.folder.as_deref()?;
            let path = if folder == Path::new(".") { DEFAULT_FILE.into() } else { folder.join(DEFAULT_FILE) };
            path.exists().then_some(path)
        })
    }
}

/// Shows names, never values.
impl fmt::Debug for Sources {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let names =
            |pairs: &[(String, String)]| pairs.iter().map(|(name, _)| name.clone()).collect::<Vec<_>>();
        f.debug_struct("Sources")
            .field("file", &self.file)
            .field("folder", &self.folder)
            .field("env", &names(&self.env))
            .field("flags", &names(&self.flags))
            .finish()
    }
}

/// Where a value comes from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Origin {
    /// Nobody set it.
    Default,
    /// The configuration file.
    File {
        /// As it was named.
        path: PathBuf,
        /// From 1.
        line: usize,
    },
    /// The environment variable of this name.
    Environment(String),
    /// The command line: the flag.
    Flag(String),
}

impl Origin {
    pub(crate) fn line(&self) -> usize {
        match self {
            Self::File { line, .. } => *line,
            _ => 0,
        }
    }
}

impl fmt::Display for Origin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Default => write!(f, "default"),
            Self::File { path, line } => write!(f, "{}:{line}", path.display()),
            Self::Environment(name) => write!(f, "environment {name}"),
            Self::Flag(name) => write!(f, "flag {name}"),
        }
    }
}

/// Where each key's value comes from.
#[derive(Debug, Clone, Default)]
pub struct Origins(BTreeMap<&'static str, Origin>);

impl Origins {
    /// The origin of a key, e.g. `server.port`; [`Origin::Default`] for one that nobody set.
    #[must_use]
    pub fn get(&self, key: &str) -> &Origin {
        self.0.get(key).unwrap_or(&Origin::Default)
    }
}

/// A configuration that passed every check.
#[derive(Debug, Clone)]
pub struct Loaded {
    /// The settings.
    pub config: Config,
    /// Where each came from.
    pub origins: Origins,
    /// The file that was read.
    pub file: Option<PathBuf>,
}

impl Config {
    /// Reads and checks every setting.
    ///
    /// # Errors
    /// All mistakes at once. A file with a syntax error is reported alone, since nothing else in it can be judged.
    pub fn load(sources: &Sources) -> Result<Loaded, ConfigErrors> {
        let file = sources.file_to_read();
        let mut given = BTreeMap::new();
        let mut mistakes = Vec::new();
        if let Some(path) = &file {
            let contents = file::read(path).map_err(|mistakes| ConfigErrors { mistakes })?;
            mistakes = contents.mistakes;
            given.extend(contents.values.into_iter().map(|(key, raw, origin)| (key.name, (raw, origin))));
        }
        for key in KEYS {
            let own = key.own_variable();
            let names = std::iter::once(own.as_str()).chain(key.env.iter().copied());
            if let Some((name, value)) = names.filter_map(|name| Some((name, sources.variable(name)?))).next()
            {
                given.insert(key.name, (Raw::Text(value.to_owned()), Origin::Environment(name.to_owned())));
            }
        }
        mistakes.extend(unknown_variables(sources));
        for (name, value) in &sources.flags {
            match keys::find(name) {
                Some(key) => {
                    let origin = Origin::Flag(flag_name(key));
                    given.insert(key.name, (Raw::Text(value.clone()), origin));
                }
                None => mistakes.push(unknown_flag(name)),
            }
        }

        let (mut config, mut origins) = (Config::default(), Origins::default());
        let mut refused = Vec::new();
        for key in KEYS {
            let Some((raw, origin)) = given.remove(key.name) else { continue };
            if let Err(problem) = (key.set)(&mut config, &raw) {
                refused.push(key.name);
                mistakes.push(problem.at(key.name, origin.clone()));
            }
            origins.0.insert(key.name, origin);
        }
        mistakes.extend(consistency::check(&config, &origins, &refused));
        if mistakes.is_empty() {
            Ok(Loaded { config, origins, file })
        } else {
            Err(ConfigErrors { mistakes })
        }
    }
}

fn flag_name(key: &Key) -> String {
    key.flag().map_or_else(|| format!("--set {}", key.name), str::to_owned)
}

fn unknown_flag(name: &str) -> Mistake {
    let remedy = match keys::nearest(name, KEYS.iter().map(|key| key.name)) {
        Some(key) => format!("Did you mean `{key}`?"),
        None => "Look the name up in docs/configuration.md.".to_owned(),
    };
    Problem::new("unknown key", remedy).at(name, Origin::Flag(format!("--set {name}")))
}

/// A misspelt `LONGHOUSE_…` would otherwise be ignored in silence.
fn unknown_variables(sources: &Sources) -> Vec<Mistake> {
    let known: Vec<String> = KEYS
        .iter()
        .flat_map(|key| {
            std::iter::once(key.own_variable()).chain(key.env.iter().map(|&name| name.to_owned()))
        })
        .chain([FILE_VARIABLE.to_owned()])
        .filter(|name| name.starts_with("LONGHOUSE_"))
        .collect();
    let mut mistakes = Vec::new();
    for (name, value) in &sources.env {
        let ours = name.starts_with("LONGHOUSE_") && !name.starts_with(TEST_PREFIX);
        if !ours || value.trim().is_empty() || known.contains(name) {
            continue;
        }
        let remedy = match keys::nearest(name, known.iter().map(String::as_str)) {
            Some(variable) => format!("Did you mean `{variable}`?"),
            None => {
                "Variables are named LONGHOUSE_<SECTION>__<KEY>; look the key up in docs/configuration.md."
                    .into()
            }
        };
        mistakes.push(Problem::new("unknown variable", remedy).at(name, Origin::Environment(name.clone())));
    }
    mistakes
}
