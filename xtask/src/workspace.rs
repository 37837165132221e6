//! What Cargo knows of the workspace.

use std::path::{Path, PathBuf};

use serde::Deserialize;

use crate::{Error, process};

/// Folder of the workspace.
pub(crate) fn root() -> &'static Path {
    // This package is a folder of the workspace's root.
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().expect("xtask lies in the workspace")
}

/// `cargo metadata --no-deps`, as far as it is used.
#[derive(Deserialize)]
pub(crate) struct Metadata {
    pub(crate) packages: Vec<Package>,
    pub(crate) target_directory: PathBuf,
}

/// A package of the workspace.
#[derive(Deserialize)]
pub(crate) struct Package {
    pub(crate) name: String,
    pub(crate) dependencies: Vec<Dependency>,
    pub(crate) targets: Vec<Target>,
}

/// A dependency as the manifest declares it.
#[derive(Deserialize)]
pub(crate) struct Dependency {
    pub(crate) name: String,
    /// `dev`, `build`, or none for an ordinary one.
    pub(crate) kind: Option<String>,
    /// Folder, for those of this workspace.
    pub(crate) path: Option<PathBuf>,
}

/// A program, library or test of a package.
#[derive(Deserialize)]
pub(crate) struct Target {
    pub(crate) name: String,
    pub(crate) kind: Vec<String>,
}

impl Metadata {
    /// Asks Cargo; reads manifests only, so it is quick and needs no network.
    pub(crate) fn read() -> Result<Self, Error> {
        let mut command = process::cargo();
        command.args(["metadata", "--no-deps", "--format-version", "1"]);
        let json = process::read(&mut command)?;
        serde_json::from_str(&json)
            .map_err(|source| Error::Output { command: process::text(&command), source })
    }
}
