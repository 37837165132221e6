//! Documents that are made from code.

use crate::{Error, process, workspace};

/// The page of every setting, as the table of keys has it now.
pub(crate) fn configuration() -> Result<String, Error> {
    printed("longhouse-config", "reference")
}

/// What an example program of a package prints.
fn printed(package: &str, example: &str) -> Result<String, Error> {
    process::read(process::cargo().args(["run", "--quiet", "--package", package, "--example", example]))
}

/// Where the page lies.
pub(crate) const CONFIGURATION: &str = "docs/configuration.md";
/// Where the description of the Studio's API lies, of which its pages' client is made.
const STUDIO_API: &str = "web/openapi.json";

/// Writes all of them.
pub(crate) fn write() -> Result<(), Error> {
    for (file, text) in
        [(CONFIGURATION, configuration()?), (STUDIO_API, printed("longhouse-studio", "openapi")?)]
    {
        let path = workspace::root().join(file);
        std::fs::write(&path, text)
            .map_err(|source| Error::File { path: path.display().to_string(), source })?;
        println!("wrote {file}");
    }
    Ok(())
}
