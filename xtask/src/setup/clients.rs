//! Official clients that the end-to-end tests run unmodified: `tests/clients/` from npm, and a Python environment.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use crate::{Error, process, workspace};

/// Folder of what is pinned, below the workspace.
const CLIENTS: &str = "tests/clients";
/// Written last, so that an interrupted installation starts anew.
const STAMP: &str = ".installed";

/// Installs what the lock files name, unless it is there already.
///
/// # Errors
/// [`Error::Advice`] with the end of what npm or pip reported.
pub(crate) fn install(target: &Path) -> Result<(), Error> {
    let clients = workspace::root().join(CLIENTS);
    let pinned = read(&clients.join("package-lock.json"))?;
    let modules = clients.join("node_modules");
    if !is_installed(&modules, &pinned) {
        eprintln!("Installing the JavaScript clients of the end-to-end tests …");
        // No script of a package runs; none of these needs any.
        let words = ["ci", "--ignore-scripts", "--no-audit", "--no-fund", "--prefer-offline"];
        process::read(Command::new("npm").args(words).current_dir(&clients))?;
        stamp(&modules, &pinned)?;
    }
    let requirements = clients.join("requirements.txt");
    let pinned = read(&requirements)?;
    let environment = target.join("clients-python");
    if !is_installed(&environment, &pinned) {
        eprintln!("Installing the Python clients of the end-to-end tests …");
        process::read(Command::new("python3").args(["-m", "venv", "--clear"]).arg(&environment))?;
        let words = ["-m", "pip", "install", "--quiet", "--disable-pip-version-check", "--requirement"];
        process::read(Command::new(environment.join("bin/python")).args(words).arg(&requirements))?;
        stamp(&environment, &pinned)?;
    }
    Ok(())
}

/// The stamp is what was installed, and lies inside of it: whoever removes one removes both.
fn is_installed(folder: &Path, pinned: &str) -> bool {
    fs::read_to_string(folder.join(STAMP)).is_ok_and(|stamp| stamp == pinned)
}

fn stamp(folder: &Path, pinned: &str) -> Result<(), Error> {
    let path = folder.join(STAMP);
    fs::write(&path, pinned).map_err(|source| file_error(&path, source))
}

fn read(path: &Path) -> Result<String, Error> {
    fs::read_to_string(path).map_err(|source| file_error(path, source))
}

fn file_error(path: &Path, source: std::io::Error) -> Error {
    Error::File { path: PathBuf::from(path).display().to_string(), source }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn another_lock_file_installs_again() {
        let folder = tempfile::tempdir().unwrap();
        assert!(!is_installed(folder.path(), "a"));
        stamp(folder.path(), "a").unwrap();
        assert!(is_installed(folder.path(), "a"));
        assert!(!is_installed(folder.path(), "b"));
    }

    #[test]
    fn every_client_is_pinned_exactly() {
        let clients = workspace::root().join(CLIENTS);
        let package: serde_json::Value =
            serde_json::from_str(&read(&clients.join("package.json")).unwrap()).unwrap();
        for group in ["dependencies", "optionalDependencies"] {
            for (name, version) in package[group].as_object().unwrap() {
                assert!(
                    semver::Version::parse(version.as_str().unwrap()).is_ok(),
                    "{name} {version} is no exact version"
                );
            }
        }
        for line in read(&clients.join("requirements.txt")).unwrap().lines() {
            assert!(line.is_empty() || line.starts_with('#') || line.contains("=="), "{line}");
        }
    }
}
