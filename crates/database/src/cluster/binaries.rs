//! Finds the Postgres programs: configured folder, `PATH`, then where distributions put them.

use std::env;
use std::fmt;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use super::error::ClusterError;

/// Oldest and newest major version that Longhouse supports.
const SUPPORTED: std::ops::RangeInclusive<u16> = 14..=18;

/// Folders of the usual distributions; one `*` in the last-but-one or last part is a version.
const USUAL: &[&str] = &[
    "/usr/lib/postgresql/*/bin",
    "/usr/pgsql-*/bin",
    "/usr/libexec/postgresql*",
    "/usr/lib64/pgsql/bin",
    "/opt/homebrew/opt/postgresql*/bin",
    "/usr/local/opt/postgresql*/bin",
    "/Applications/Postgres.app/Contents/Versions/*/bin",
    "/usr/local/pgsql/bin",
    "/opt/postgresql/bin",
    "/usr/bin",
    "/usr/local/bin",
];

/// Version of a Postgres server, such as 15.8.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct ServerVersion {
    /// Major version: 15 of 15.8.
    pub major: u16,
    /// Minor version: 8 of 15.8.
    pub minor: u16,
}

impl fmt::Display for ServerVersion {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}.{}", self.major, self.minor)
    }
}

impl ServerVersion {
    /// From `postgres (PostgreSQL) 15.8 (Debian …)`.
    fn parse(output: &str) -> Option<Self> {
        let number = output.split_once("(PostgreSQL) ")?.1.split_whitespace().next()?;
        let (major, rest) =
            number.split_at(number.find(|c: char| !c.is_ascii_digit()).unwrap_or(number.len()));
        let minor = rest.strip_prefix('.').and_then(|minor| minor.parse().ok()).unwrap_or(0);
        Some(Self { major: major.parse().ok()?, minor })
    }
}

/// A folder with the programs of one version.
#[derive(Debug, Clone)]
pub(super) struct Binaries {
    pub(super) dir: PathBuf,
    pub(super) version: ServerVersion,
}

impl Binaries {
    /// Picks the programs: those of the data's own major version, else the highest. `downloaded` is the
    /// cluster's own folder of programs.
    pub(super) fn find(
        configured: Option<&Path>,
        downloaded: &Path,
        data_major: Option<&str>,
        data: &Path,
    ) -> Result<Self, ClusterError> {
        let found: Vec<Self> = match configured {
            Some(dir) => vec![Self::configured(dir)?],
            None => {
                let mut found = Vec::new();
                for dir in candidates(downloaded) {
                    let Ok(binaries) = Self::probe(&dir) else { continue };
                    if data_major.is_some_and(|major| major == binaries.version.major.to_string()) {
                        return Ok(binaries);
                    }
                    found.push(binaries);
                }
                found
            }
        };
        let Some(major) = data_major else {
            // The first of equals wins: `PATH` comes before the usual folders.
            let best =
                found.into_iter().reduce(|best, next| if next.version > best.version { next } else { best });
            return best.ok_or_else(|| ClusterError::NoBinaries {
                searched: format!("looked in PATH, {}", USUAL[..USUAL.len() - 2].join(", ")),
                install: install_hint(&fs::read_to_string("/etc/os-release").unwrap_or_default()),
            });
        };
        if let Some(own) = found.iter().find(|binaries| binaries.version.major.to_string() == major) {
            return Ok(own.clone());
        }
        let mut majors: Vec<_> = found.iter().map(|binaries| binaries.version.major).collect();
        majors.sort_unstable();
        majors.dedup();
        Err(ClusterError::OtherMajor { path: data.to_owned(), data: major.to_owned(), found: majors })
    }

    fn configured(dir: &Path) -> Result<Self, ClusterError> {
        Self::probe(dir).map_err(|reason| ClusterError::BinDir { path: dir.to_owned(), reason })
    }

    fn probe(dir: &Path) -> Result<Self, String> {
        for program in ["initdb", "postgres"] {
            if !dir.join(program).is_file() {
                return Err(format!("has no `{program}`"));
            }
        }
        let output = Command::new(dir.join("postgres"))
            .arg("--version")
            .output()
            .map_err(|error| format!("cannot be run: {error}"))?;
        let text = String::from_utf8_lossy(&output.stdout);
        let version = ServerVersion::parse(&text)
            .ok_or_else(|| format!("holds an unknown version ({})", text.trim()))?;
        if !SUPPORTED.contains(&version.major) {
            return Err(format!("holds Postgres {version}, which is not supported"));
        }
        Ok(Self { dir: dir.to_owned(), version })
    }

    pub(super) fn program(&self, name: &str) -> PathBuf {
        self.dir.join(name)
    }
}

/// Folders to look in, `PATH` first, without repetition.
fn candidates(downloaded: &Path) -> Vec<PathBuf> {
    let path = env::var_os("PATH").unwrap_or_default();
    let mut dirs: Vec<PathBuf> = env::split_paths(&path).filter(|dir| dir.is_absolute()).collect();
    dirs.extend(USUAL.iter().flat_map(|pattern| expand(pattern)));
    dirs.extend(expand(&format!("{}/*/bin", downloaded.display())));
    let mut seen = Vec::with_capacity(dirs.len());
    dirs.retain(|dir| {
        let new = !seen.contains(dir);
        if new {
            seen.push(dir.clone());
        }
        new && dir.join("initdb").is_file()
    });
    dirs
}

/// Expands the one `*` of a pattern.
fn expand(pattern: &str) -> Vec<PathBuf> {
    let Some((before, after)) = pattern.split_once('*') else {
        return vec![PathBuf::from(pattern)];
    };
    let (parent, prefix) = before.rsplit_once('/').unwrap_or(("", before));
    let Ok(entries) = fs::read_dir(parent) else { return Vec::new() };
    let names = entries.flatten().filter_map(|entry| entry.file_name().into_string().ok());
    let mut names: Vec<_> = names.filter(|name| name.starts_with(prefix)).collect();
    names.sort();
    names.iter().map(|name| PathBuf::from(format!("{parent}/{name}{after}"))).collect()
}

/// The exact command that installs Postgres on the system that `/etc/os-release` describes.
pub(super) fn install_hint(os_release: &str) -> String {
    let value = |key: &str| {
        os_release.lines().find_map(|line| Some(line.strip_prefix(key)?.strip_prefix('=')?.trim_matches('"')))
    };
    let family = format!(" {} {} ", value("ID").unwrap_or(""), value("ID_LIKE").unwrap_or(""));
    let is = |name: &str| family.contains(&format!(" {name} "));
    let debian = "`sudo apt-get install postgresql` (Debian, Ubuntu)";
    let fedora = "`sudo dnf install postgresql-server postgresql-contrib` (Fedora, RHEL)";
    let alpine = "`sudo apk add postgresql postgresql-contrib` (Alpine)";
    let mac = "`brew install postgresql@17` (macOS)";
    if is("debian") || is("ubuntu") {
        return format!("install it with {debian}");
    }
    if is("fedora") || is("rhel") {
        return format!("install it with {fedora}");
    }
    if is("alpine") {
        return format!("install it with {alpine}");
    }
    if cfg!(target_os = "macos") {
        return format!("install it with {mac}");
    }
    format!("install it with {debian}, {fedora}, {alpine} or {mac}")
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;

    use super::*;

    #[rstest::rstest]
    #[case("postgres (PostgreSQL) 15.8 (Debian 15.8-0+deb12u1)\n", Some((15, 8)))]
    #[case("postgres (PostgreSQL) 18beta1", Some((18, 0)))]
    #[case("postgres (PostgreSQL) 17.0", Some((17, 0)))]
    #[case("something else 3", None)]
    fn versions(#[case] output: &str, #[case] expected: Option<(u16, u16)>) {
        let expected = expected.map(|(major, minor)| ServerVersion { major, minor });
        assert_eq!(ServerVersion::parse(output), expected);
    }

    #[rstest::rstest]
    #[case("ID=debian\n", "apt-get install postgresql")]
    #[case("ID=pop\nID_LIKE=\"ubuntu debian\"\n", "apt-get")]
    #[case("ID=rocky\nID_LIKE=\"rhel centos fedora\"", "dnf install")]
    #[case("ID=alpine", "apk add")]
    #[case("ID=plan9", "brew install postgresql@17")]
    fn hints(#[case] os_release: &str, #[case] expected: &str) {
        assert!(install_hint(os_release).contains(expected), "{}", install_hint(os_release));
    }

    fn fake(dir: &Path, version: &str) -> PathBuf {
        fs::create_dir_all(dir).unwrap();
        for program in ["initdb", "postgres"] {
            let file = dir.join(program);
            fs::write(&file, format!("#!/bin/sh\necho 'postgres (PostgreSQL) {version}'\n")).unwrap();
            fs::set_permissions(&file, fs::Permissions::from_mode(0o755)).unwrap();
        }
        dir.to_owned()
    }

    #[test]
    fn a_configured_folder_is_the_only_one_used() {
        let root = tempfile::tempdir().unwrap();
        let (data, none) = (Path::new("/data"), Path::new("/nowhere"));
        let sixteen = fake(&root.path().join("16"), "16.3");
        assert_eq!(Binaries::find(Some(&sixteen), none, None, data).unwrap().version.to_string(), "16.3");
        let error = Binaries::find(Some(&sixteen), none, Some("13"), data).unwrap_err().to_string();
        assert!(error.contains("written by Postgres 13, but only Postgres 16 is available"), "{error}");
        let old = fake(&root.path().join("9"), "9.6");
        let error = Binaries::find(Some(&old), none, None, data).unwrap_err().to_string();
        assert!(error.contains("Postgres 9.6, which is not supported"), "{error}");
        let error = Binaries::find(Some(root.path()), none, None, data).unwrap_err().to_string();
        assert!(error.contains("has no `initdb`"), "{error}");
    }

    #[test]
    fn patterns_expand_to_what_exists() {
        let root = tempfile::tempdir().unwrap();
        for major in ["16", "17"] {
            fs::create_dir_all(root.path().join(format!("pg-{major}"))).unwrap();
        }
        let found = expand(&format!("{}/pg-*/bin", root.path().display()));
        assert_eq!(found, [root.path().join("pg-16/bin"), root.path().join("pg-17/bin")]);
        assert!(expand("/nowhere/at/all-*/bin").is_empty());
    }
}
