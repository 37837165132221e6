//! Official clients that the end-to-end tests run unmodified: `tests/clients/` from npm, and a Python environment.

use std::path::Path;
use std::process::Command;

use super::npm::{self, is_installed, read, stamp};
use crate::{Error, process, workspace};

/// Folder of what is pinned, below the workspace.
const CLIENTS: &str = "tests/clients";

/// Installs what the lock files name, unless it is there already.
///
/// # Errors
/// [`Error::Advice`] with the end of what npm or pip reported.
pub(crate) fn install(target: &Path) -> Result<(), Error> {
    let clients = workspace::root().join(CLIENTS);
    npm::install(&clients, "the end-to-end tests")?;
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_client_and_package_is_pinned_exactly() {
        let clients = workspace::root().join(CLIENTS);
        for folder in [&clients, &workspace::root().join("web")] {
            let package: serde_json::Value =
                serde_json::from_str(&read(&folder.join("package.json")).unwrap()).unwrap();
            for group in ["dependencies", "devDependencies", "optionalDependencies"] {
                for (name, version) in package[group].as_object().into_iter().flatten() {
                    assert!(
                        semver::Version::parse(version.as_str().unwrap()).is_ok(),
                        "{name} {version} is no exact version"
                    );
                }
            }
        }
        for line in read(&clients.join("requirements.txt")).unwrap().lines() {
            assert!(line.is_empty() || line.starts_with('#') || line.contains("=="), "{line}");
        }
    }
}
