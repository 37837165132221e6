//! Where migrations come from: a project's folder, or the files embedded in an application.

use std::borrow::Cow;
use std::io::Read as _;
use std::path::{Path, PathBuf};
use std::time::SystemTime;

use chrono::{DateTime, Utc};
use sha2::{Digest, Sha256};

use super::error::MigrationError;

/// Largest migration or seed file.
const MAX_FILE: u64 = 256 * 1024 * 1024;

/// Most files in a folder of migrations.
const MAX_FILES: usize = 10_000;

/// A migration that is part of the binary.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Embedded {
    /// Orders the migrations by its text: `0001`, or `20260101000000`.
    pub version: &'static str,
    /// What it does, e.g. `calls_and_turns`.
    pub name: &'static str,
    /// The whole file, by `include_str!`.
    pub sql: &'static str,
}

/// Where a set of migrations comes from.
#[derive(Debug, Clone)]
pub enum Source {
    /// `<version>_<name>.sql` files, as in `supabase/migrations`. Folders inside are ignored.
    Folder(PathBuf),
    /// Files embedded in the binary.
    Embedded(&'static [Embedded]),
}

/// A migration in hand.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Migration {
    /// Digits that order it.
    pub version: String,
    /// What it does.
    pub name: String,
    /// Path to show in messages.
    pub file: String,
    /// The text.
    pub sql: Cow<'static, str>,
}

impl Migration {
    /// Content hash, the same whether lines end as on Unix or on Windows.
    pub fn sha256(&self) -> String {
        hash(&self.sql)
    }
}

/// What a source holds, in order of versions.
#[derive(Debug, Clone, Default)]
pub struct Loaded {
    /// The migrations.
    pub migrations: Vec<Migration>,
    /// `.sql` files that are not migrations by their name.
    pub ignored: Vec<String>,
}

impl Source {
    /// Reads all migrations.
    ///
    /// # Errors
    /// When the folder or a file cannot be read, or two files have one version.
    pub fn load(&self) -> Result<Loaded, MigrationError> {
        let mut loaded = match self {
            Self::Folder(folder) => load_folder(folder)?,
            Self::Embedded(migrations) => Loaded {
                migrations: migrations.iter().map(|migration| migration.load("")).collect(),
                ignored: Vec::new(),
            },
        };
        loaded.migrations.sort_by(|a, b| a.version.cmp(&b.version));
        for pair in loaded.migrations.windows(2) {
            if pair[0].version == pair[1].version {
                return Err(MigrationError::DuplicateVersion {
                    version: pair[0].version.clone(),
                    first: pair[0].file.clone(),
                    second: pair[1].file.clone(),
                });
            }
        }
        Ok(loaded)
    }
}

impl Embedded {
    pub(super) fn load(&self, folder: &str) -> Migration {
        let slash = if folder.is_empty() { "" } else { "/" };
        Migration {
            version: self.version.into(),
            name: self.name.into(),
            file: format!("{folder}{slash}{}_{}.sql", self.version, self.name),
            sql: Cow::Borrowed(self.sql),
        }
    }
}

fn load_folder(folder: &Path) -> Result<Loaded, MigrationError> {
    let fail = |source| MigrationError::Folder { folder: folder.to_owned(), source };
    let mut loaded = Loaded::default();
    for entry in std::fs::read_dir(folder).map_err(fail)? {
        let path = entry.map_err(fail)?.path();
        let Some(file_name) = path.file_name().and_then(|name| name.to_str()) else { continue };
        if !file_name.ends_with(".sql") || !path.is_file() {
            continue;
        }
        match parse_name(file_name) {
            Some((version, name)) => loaded.migrations.push(Migration {
                version: version.into(),
                name: name.into(),
                file: path.display().to_string(),
                sql: read_sql(&path)?.into(),
            }),
            None => loaded.ignored.push(path.display().to_string()),
        }
        if loaded.migrations.len() > MAX_FILES {
            return Err(MigrationError::TooManyFiles { folder: folder.to_owned(), limit: MAX_FILES });
        }
    }
    loaded.ignored.sort();
    Ok(loaded)
}

/// `20260101120000_name.sql`, and any other number of digits as older tools wrote.
fn parse_name(file_name: &str) -> Option<(&str, &str)> {
    let (version, name) = file_name.strip_suffix(".sql")?.split_once('_')?;
    let digits = !version.is_empty() && version.bytes().all(|byte| byte.is_ascii_digit());
    digits.then_some((version, name))
}

/// Reads a file of SQL: UTF-8, without its byte order mark, bounded in size.
pub(super) fn read_sql(path: &Path) -> Result<String, MigrationError> {
    let fail = |source| MigrationError::File { file: path.to_owned(), source };
    let file = std::fs::File::open(path).map_err(fail)?;
    let mut text = String::new();
    file.take(MAX_FILE + 1).read_to_string(&mut text).map_err(fail)?;
    if text.len() as u64 > MAX_FILE {
        return Err(MigrationError::FileTooLarge { file: path.to_owned(), limit: MAX_FILE });
    }
    if let Some(rest) = text.strip_prefix('\u{feff}') {
        text = rest.to_owned();
    }
    Ok(text)
}

pub(super) fn hash(sql: &str) -> String {
    let unix = if sql.contains("\r\n") { Cow::Owned(sql.replace("\r\n", "\n")) } else { Cow::Borrowed(sql) };
    hex::encode(Sha256::digest(unix.as_bytes()))
}

/// Creates an empty migration `<UTC time>_<name>.sql` in a folder, and the folder where it is missing.
///
/// # Errors
/// When the name has no letters or digits, or the file cannot be written.
pub fn new(folder: &Path, name: &str, now: SystemTime) -> Result<PathBuf, MigrationError> {
    let kept = |c: char| if c.is_ascii_alphanumeric() || c == '-' { c } else { '_' };
    let slug: String = name.trim().chars().map(kept).collect();
    if !slug.chars().any(|c| c.is_ascii_alphanumeric()) || slug.len() > 200 {
        return Err(MigrationError::BadName(name.to_owned()));
    }
    let fail = |source| MigrationError::Folder { folder: folder.to_owned(), source };
    std::fs::create_dir_all(folder).map_err(fail)?;
    let taken: Vec<String> = std::fs::read_dir(folder)
        .map_err(fail)?
        .filter_map(|entry| Some(parse_name(entry.ok()?.file_name().to_str()?)?.0.to_owned()))
        .collect();
    let mut time = DateTime::<Utc>::from(now);
    let mut version = time.format("%Y%m%d%H%M%S").to_string();
    while taken.contains(&version) {
        time += chrono::TimeDelta::seconds(1);
        version = time.format("%Y%m%d%H%M%S").to_string();
    }
    let path = folder.join(format!("{version}_{slug}.sql"));
    std::fs::File::create_new(&path).map_err(|source| MigrationError::File { file: path.clone(), source })?;
    Ok(path)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_versions_and_words() {
        let table = [
            ("20260101120000_init.sql", Some(("20260101120000", "init"))),
            ("001_old_style.sql", Some(("001", "old_style"))),
            ("20260101120000_.sql", Some(("20260101120000", ""))),
            ("init.sql", None),
            ("v1_init.sql", None),
            ("20260101120000.sql", None),
            ("_x.sql", None),
        ];
        for (name, expected) in table {
            assert_eq!(parse_name(name), expected, "{name}");
        }
    }

    #[test]
    fn hashes_do_not_depend_on_line_ends() {
        assert_eq!(hash("select 1;\r\nselect 2;"), hash("select 1;\nselect 2;"));
        assert_ne!(hash("select 1;"), hash("select 2;"));
    }

    #[test]
    fn a_folder_is_read_in_order_and_odd_files_are_named() {
        let folder = tempfile::tempdir().unwrap();
        let write = |name: &str, text: &str| std::fs::write(folder.path().join(name), text).unwrap();
        write("20260102000000_b.sql", "\u{feff}select 2");
        write("20260101000000_a.sql", "select 1");
        write("notes.sql", "");
        write("README.md", "");
        std::fs::create_dir(folder.path().join("20250101000000_old.sql")).unwrap();
        let loaded = Source::Folder(folder.path().into()).load().unwrap();
        let names: Vec<_> = loaded.migrations.iter().map(|m| (m.name.as_str(), &*m.sql)).collect();
        assert_eq!(names, [("a", "select 1"), ("b", "select 2")]);
        assert_eq!(loaded.ignored.len(), 1);
        assert!(loaded.ignored[0].ends_with("notes.sql"));

        write("20260101000000_again.sql", "");
        let error = Source::Folder(folder.path().into()).load().unwrap_err();
        assert!(matches!(error, MigrationError::DuplicateVersion { .. }), "{error}");
    }

    #[test]
    fn new_files_carry_the_time_and_never_collide() {
        let folder = tempfile::tempdir().unwrap();
        let now = "2026-11-21T10:20:30Z".parse::<DateTime<Utc>>().unwrap().into();
        let name = |path: PathBuf| path.file_name().unwrap().to_str().unwrap().to_owned();
        let folder = folder.path().join("supabase/migrations");
        assert_eq!(name(new(&folder, "add calls", now).unwrap()), "20261121102030_add_calls.sql");
        assert_eq!(name(new(&folder, "../etc", now).unwrap()), "20261121102031____etc.sql");
        assert!(matches!(new(&folder, " / ", now), Err(MigrationError::BadName(_))));
    }
}
