//! The packages that are really built, with features resolved.

use crate::{Error, process};

/// A package of the dependency tree.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Built {
    pub(super) name: String,
    pub(super) version: String,
    /// SPDX expression; empty where the manifest has none.
    pub(super) licence: String,
    /// Whether it lies in this workspace.
    pub(super) ours: bool,
}

/// Asks `cargo tree`: unlike `cargo metadata` and Cargo.lock it leaves out optional packages that nobody switches on.
pub(super) fn built() -> Result<Vec<Built>, Error> {
    let words = ["tree", "--workspace", "--all-features", "--target", "all", "--edges", "all"];
    let form = ["--prefix", "none", "--format", "{p}|{l}"];
    let printed = process::read(process::cargo().args(words).args(form))?;
    let mut packages: Vec<_> = printed.lines().filter_map(parse).collect();
    packages.sort();
    packages.dedup();
    Ok(packages)
}

/// A line such as `serde v1.0.2 (proc-macro)|MIT OR Apache-2.0 (*)`.
fn parse(line: &str) -> Option<Built> {
    let line = line.trim_end().trim_end_matches(" (*)");
    let (package, licence) = line.split_once('|')?;
    let mut words = package.split_whitespace();
    let (name, version) = (words.next()?, words.next()?.strip_prefix('v')?);
    let ours = words.any(|word| word.starts_with("(/"));
    Some(Built { name: name.into(), version: version.into(), licence: licence.trim().into(), ours })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_of_the_tree() {
        let parsed = parse("serde_derive v1.0.2 (proc-macro)|MIT OR Apache-2.0 (*)").unwrap();
        assert_eq!((parsed.name.as_str(), parsed.version.as_str()), ("serde_derive", "1.0.2"));
        assert_eq!((parsed.licence.as_str(), parsed.ours), ("MIT OR Apache-2.0", false));
        assert!(parse("longhouse v0.1.0 (/somewhere/crates/longhouse)|Apache-2.0").unwrap().ours);
        assert_eq!(parse("nameless v1.0.0|").unwrap().licence, "");
        assert_eq!(parse(""), None);
    }
}
