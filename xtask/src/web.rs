//! The Studio's pages: `web/`, made by Node.js into `web/build/site`, which the binary embeds.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use sha2::{Digest, Sha256};

use crate::setup::npm;
use crate::{Error, process, workspace};

/// Folder of the sources, below the workspace.
const WEB: &str = "web";
/// What is made, or of others: not part of the sources.
const MADE: &[&str] = &[".svelte-kit", "build", "node_modules", "schema.d.ts"];

/// Makes the pages, unless they were made of exactly these sources.
///
/// # Errors
/// [`Error::Advice`] with the end of what npm reported, or that the build failed.
pub(crate) fn build() -> Result<(), Error> {
    let web = workspace::root().join(WEB);
    let modules = npm::install(&web, "the Studio's pages")?;
    let sources = fingerprint(&web)?;
    let (site, stamp) = (web.join("build/site/index.html"), web.join("build/stamp"));
    if site.exists() && fs::read_to_string(&stamp).is_ok_and(|built| built == sources) {
        return Ok(());
    }
    eprintln!("Making the Studio's pages …");
    process::run(
        Command::new(npm::node(&modules)?)
            .arg("build.mjs")
            .env("LONGHOUSE_WEB_VERSION", &sources[..16])
            .current_dir(&web),
    )?;
    // Last, so that an interrupted build starts anew.
    fs::write(&stamp, &sources).map_err(|source| npm::file_error(&stamp, source))
}

/// SHA-256 over the names and contents of all sources, in hexadecimal.
fn fingerprint(web: &Path) -> Result<String, Error> {
    let mut files = Vec::new();
    collect(web, &mut files).map_err(|source| npm::file_error(web, source))?;
    files.sort();
    let mut hash = Sha256::new();
    for file in files {
        let name = file.strip_prefix(web).unwrap_or(&file).to_string_lossy().into_owned();
        let content = fs::read(&file).map_err(|source| npm::file_error(&file, source))?;
        hash.update(format!("{name}\0{}\0", content.len()));
        hash.update(content);
    }
    Ok(hash.finalize().iter().map(|byte| format!("{byte:02x}")).collect())
}

fn collect(folder: &Path, files: &mut Vec<PathBuf>) -> std::io::Result<()> {
    for entry in fs::read_dir(folder)? {
        let entry = entry?;
        if MADE.iter().any(|made| entry.file_name() == *made) {
            continue;
        }
        match entry.file_type()?.is_dir() {
            true => collect(&entry.path(), files)?,
            false => files.push(entry.path()),
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_made_does_not_count_as_a_source() {
        let web = tempfile::tempdir().unwrap();
        let write = |name: &str, text: &str| {
            let path = web.path().join(name);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(path, text).unwrap();
        };
        write("src/app.html", "a");
        let first = fingerprint(web.path()).unwrap();
        write("build/site/index.html", "made");
        write("node_modules/x/index.js", "of others");
        assert_eq!(fingerprint(web.path()).unwrap(), first);
        write("src/app.html", "b");
        let second = fingerprint(web.path()).unwrap();
        assert_ne!(second, first);
        fs::rename(web.path().join("src/app.html"), web.path().join("src/other.html")).unwrap();
        assert_ne!(fingerprint(web.path()).unwrap(), second);
    }
}
