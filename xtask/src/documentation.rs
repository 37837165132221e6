//! Documents that are made from code.

use crate::{Error, process, workspace};

/// The page of every setting, as the table of keys has it now.
pub(crate) fn configuration() -> Result<String, Error> {
    process::read(process::cargo().args([
        "run",
        "--quiet",
        "--package",
        "longhouse-config",
        "--example",
        "reference",
    ]))
}

/// Where the page lies.
pub(crate) const CONFIGURATION: &str = "docs/configuration.md";

/// Writes all of them.
pub(crate) fn write() -> Result<(), Error> {
    let path = workspace::root().join(CONFIGURATION);
    std::fs::write(&path, configuration()?)
        .map_err(|source| Error::File { path: path.display().to_string(), source })?;
    println!("wrote {CONFIGURATION}");
    Ok(())
}
