//! RustSec advisories against Cargo.lock.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, SystemTime};

use semver::{Version, VersionReq};
use serde::Deserialize;

use super::Verdict;
use crate::workspace::{self, Metadata};
use crate::{Error, process};

const DATABASE: &str = "https://github.com/rustsec/advisory-db.git";
const CLONE_LIMIT: Duration = Duration::from_secs(20);
/// Our own copy is fetched anew after this long.
const FRESH: Duration = Duration::from_secs(24 * 60 * 60);

/// Advisories that do not touch us, each with the reason.
const IGNORED: &[(&str, &str)] = &[];

#[derive(Deserialize)]
struct Lock {
    package: Vec<Locked>,
}

#[derive(Deserialize)]
struct Locked {
    name: String,
    version: Version,
    /// None for packages of this workspace.
    source: Option<String>,
}

/// Front matter of an advisory.
#[derive(Deserialize)]
struct Document {
    advisory: Advisory,
    #[serde(default)]
    versions: Versions,
}

#[derive(Deserialize)]
struct Advisory {
    id: String,
    package: String,
    /// `unmaintained`, `unsound`, `notice`; none for a vulnerability.
    informational: Option<String>,
    withdrawn: Option<toml::Value>,
}

#[derive(Deserialize, Default)]
struct Versions {
    #[serde(default)]
    patched: Vec<VersionReq>,
    #[serde(default)]
    unaffected: Vec<VersionReq>,
}

impl Document {
    fn touches(&self, package: &Locked) -> bool {
        let safe = self.versions.patched.iter().chain(&self.versions.unaffected);
        self.advisory.withdrawn.is_none()
            && self.advisory.package == package.name
            && !safe.into_iter().any(|range| range.matches(&package.version))
    }

    /// Whether it is about risk, not about care.
    fn fails(&self) -> bool {
        !matches!(self.advisory.informational.as_deref(), Some("unmaintained" | "notice"))
    }
}

/// What was found.
#[derive(Default, Debug, PartialEq)]
struct Findings {
    failures: Vec<String>,
    warnings: Vec<String>,
    read: usize,
}

pub(super) fn check() -> Result<Verdict, Error> {
    let Some(database) = database()? else {
        return Ok(Verdict::Warned(
            "NOT CHECKED: the advisory database cannot be had (no network?). \
             Clone github.com/rustsec/advisory-db and set RUSTSEC_ADVISORY_DB to its folder"
                .into(),
        ));
    };
    let path = workspace::root().join("Cargo.lock");
    let lock = read_file(&path)?;
    let lock: Lock = toml::from_str(&lock).map_err(|error| {
        Error::Advice(format!(
            "Cargo.lock cannot be read: {}; run `cargo update --workspace`",
            error.message()
        ))
    })?;
    let findings = examine(&database, &lock)?;
    let summary = format!("{} advisories against {} packages", findings.read, lock.package.len());
    if !findings.failures.is_empty() {
        return Ok(Verdict::Failed(findings.failures));
    }
    if findings.warnings.is_empty() {
        return Ok(Verdict::Passed(summary));
    }
    Ok(Verdict::Warned(format!("{summary}\n           {}", findings.warnings.join("\n           "))))
}

/// Reads the advisories of the locked packages.
fn examine(database: &Path, lock: &Lock) -> Result<Findings, Error> {
    let mut findings = Findings::default();
    for package in lock.package.iter().filter(|package| package.source.is_some()) {
        let Ok(entries) = fs::read_dir(database.join("crates").join(&package.name)) else { continue };
        let mut paths: Vec<PathBuf> = entries.flatten().map(|entry| entry.path()).collect();
        paths.sort();
        for path in paths.iter().filter(|path| path.extension().is_some_and(|kind| kind == "md")) {
            findings.read += 1;
            let Some(document) = parse(&read_file(path)?) else {
                findings.warnings.push(format!("{} cannot be read: look at it by hand", path.display()));
                continue;
            };
            let id = &document.advisory.id;
            if !document.touches(package) || IGNORED.iter().any(|(ignored, _)| ignored == id) {
                continue;
            }
            let line = finding(&document, package);
            if document.fails() { findings.failures.push(line) } else { findings.warnings.push(line) }
        }
    }
    Ok(findings)
}

fn finding(document: &Document, package: &Locked) -> String {
    let Advisory { id, informational, .. } = &document.advisory;
    let kind = informational.as_deref().unwrap_or("vulnerability");
    let remedy = match document.versions.patched.as_slice() {
        [] => "replace it".to_owned(),
        ranges => {
            let ranges: Vec<String> = ranges.iter().map(ToString::to_string).collect();
            format!("update to {}: `cargo update -p {}`", ranges.join(" or "), package.name)
        }
    };
    format!(
        "{} {}: {kind} {id} (https://rustsec.org/advisories/{id}); {remedy}",
        package.name, package.version
    )
}

/// The TOML between the first fences.
fn parse(text: &str) -> Option<Document> {
    let after = text.split_once("```toml\n")?.1;
    toml::from_str(after.split_once("\n```")?.0).ok()
}

/// Folder of the database: named, of Cargo's home, or our own copy; `None` when there is none to be had.
fn database() -> Result<Option<PathBuf>, Error> {
    if let Some(named) = std::env::var_os("RUSTSEC_ADVISORY_DB").map(PathBuf::from) {
        if named.join("crates").is_dir() {
            return Ok(Some(named));
        }
        let advice = format!(
            "RUSTSEC_ADVISORY_DB names {}, which has no folder `crates`: correct or unset it",
            named.display()
        );
        return Err(Error::Advice(advice));
    }
    let home = std::env::var_os("CARGO_HOME").map(PathBuf::from);
    let home = home.or_else(|| Some(std::env::home_dir()?.join(".cargo")));
    if let Some(kept) = home.map(|home| home.join("advisory-db")).filter(|kept| kept.join("crates").is_dir())
    {
        return Ok(Some(kept));
    }
    let target = Metadata::read()?.target_directory;
    let own = target.join("advisory-db");
    let age = own
        .metadata()
        .and_then(|m| m.modified())
        .ok()
        .and_then(|at| SystemTime::now().duration_since(at).ok());
    if age.is_some_and(|age| age < FRESH) && own.join("crates").is_dir() {
        return Ok(Some(own));
    }
    let arriving = target.join("advisory-db.arriving");
    let _ = fs::remove_dir_all(&arriving); // of a clone that was cut short
    let mut git = Command::new("git");
    // Without a prompt: a mirror that asks for a password has no database for us.
    git.env("GIT_TERMINAL_PROMPT", "0").args(["clone", "--quiet", "--depth", "1", DATABASE]).arg(&arriving);
    if !process::run_within(&mut git, CLONE_LIMIT).unwrap_or(false) {
        let _ = fs::remove_dir_all(&arriving);
        // An old copy is better than none.
        return Ok(own.join("crates").is_dir().then_some(own));
    }
    let _ = fs::remove_dir_all(&own);
    fs::rename(&arriving, &own).map_err(|source| Error::File { path: own.display().to_string(), source })?;
    Ok(Some(own))
}

fn read_file(path: &Path) -> Result<String, Error> {
    fs::read_to_string(path).map_err(|source| Error::File { path: path.display().to_string(), source })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn advisory(id: &str, extra: &str, versions: &str) -> String {
        format!(
            "```toml\n[advisory]\nid = \"{id}\"\npackage = \"leaky\"\ndate = \"2026-01-01\"\n{extra}\n[versions]\n{versions}\n```\n\n# Title\n"
        )
    }

    fn locked(version: &str) -> Lock {
        let text = format!(
            "version = 4\n[[package]]\nname = \"leaky\"\nversion = \"{version}\"\nsource = \"registry+x\"\n\
             [[package]]\nname = \"ours\"\nversion = \"0.1.0\"\n"
        );
        toml::from_str(&text).unwrap()
    }

    fn examined(documents: &[String], version: &str) -> Findings {
        let folder = tempfile::tempdir().unwrap();
        let package = folder.path().join("crates/leaky");
        fs::create_dir_all(&package).unwrap();
        for (i, document) in documents.iter().enumerate() {
            fs::write(package.join(format!("{i}.md")), document).unwrap();
        }
        examine(folder.path(), &locked(version)).unwrap()
    }

    #[test]
    fn a_vulnerable_version_fails_and_names_the_update() {
        let document = advisory(
            "RUSTSEC-2026-0001",
            "",
            "patched = [\">= 1.4.2\", \"^1.2.9\"]\nunaffected = [\"< 1.1.0\"]",
        );
        let failures = |version| examined(std::slice::from_ref(&document), version).failures;
        let line = &failures("1.4.1")[..];
        // ^1.2.9 covers 1.4.1: any one patched range will do.
        assert!(line.is_empty(), "{line:?}");
        let line = failures("1.2.8").remove(0);
        assert!(
            line.contains("leaky 1.2.8")
                && line.contains("RUSTSEC-2026-0001")
                && line.contains("cargo update -p leaky"),
            "{line}"
        );
        assert!(failures("1.0.9").is_empty());
        assert!(failures("1.4.2").is_empty());
    }

    #[test]
    fn care_warns_and_risk_fails() {
        let documents = [
            advisory("RUSTSEC-2026-0001", "informational = \"unmaintained\"", "patched = []"),
            advisory("RUSTSEC-2026-0002", "informational = \"unsound\"", "patched = []"),
            advisory("RUSTSEC-2026-0003", "withdrawn = \"2026-02-01\"", "patched = []"),
            "no front matter".to_owned(),
        ];
        let found = examined(&documents, "1.0.0");
        assert_eq!(found.read, 4);
        assert_eq!(found.failures.len(), 1);
        assert!(
            found.failures[0].contains("unsound RUSTSEC-2026-0002")
                && found.failures[0].ends_with("replace it")
        );
        assert_eq!(found.warnings.len(), 2, "{:?}", found.warnings);
    }
}
