//! What a person meets: precedence, mistakes, redaction, documentation.
#![allow(clippy::unwrap_used)]

mod documentation;
mod mistakes;
mod precedence;
mod secrets;

use std::path::PathBuf;

use longhouse_config::{Config, ConfigErrors, Sources};

/// A folder with a `longhouse.toml`; lives as long as the first part.
fn file(text: &str) -> (tempfile::TempDir, PathBuf) {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("longhouse.toml");
    std::fs::write(&path, text).unwrap();
    (folder, path)
}

fn errors(sources: &Sources) -> ConfigErrors {
    match Config::load(sources) {
        Ok(_) => panic!("accepted"),
        Err(errors) => errors,
    }
}
