//! Licences of dependencies, crates that must not be there, and versions that must not be twice.

use std::collections::BTreeMap;

use super::packages::Built;

/// Licences under which a dependency may be shipped in an Apache-2.0 program.
const ALLOWED: &[&str] = &[
    "0BSD",
    "Apache-2.0",
    "BSD-2-Clause",
    "BSD-3-Clause",
    "BSL-1.0",
    "CC0-1.0",
    "CDLA-Permissive-2.0",
    "ISC",
    "MIT",
    "MIT-0",
    "MPL-2.0",
    // As permissive as MIT; of libfuzzer-sys, which no build of ours contains.
    "NCSA",
    "OpenSSL",
    "PostgreSQL",
    "Unicode-3.0",
    "Zlib",
];

/// Crates that may not be built in, with the reason.
const BANNED: &[(&str, &str)] = &[
    ("native-tls", "TLS is rustls with aws-lc-rs everywhere: choose the crate's rustls feature"),
    ("openssl", "TLS is rustls with aws-lc-rs everywhere: choose the crate's rustls feature"),
    ("openssl-sys", "TLS is rustls with aws-lc-rs everywhere: choose the crate's rustls feature"),
    ("ring", "one TLS provider in the tree, aws-lc-rs: choose the crate's aws-lc-rs feature"),
];

/// Crates whose types cross our boundaries, or which are large: two versions do not fit together.
const ONCE: &[&str] = &["axum", "http", "hyper", "rustls", "tokio", "tokio-postgres", "tokio-tungstenite"];

/// One line for each package that may not stay.
pub(super) fn findings(packages: &[Built]) -> Vec<String> {
    let mut found = Vec::new();
    let mut versions: BTreeMap<&str, Vec<&str>> = BTreeMap::new();
    for package in packages.iter().filter(|package| !package.ours) {
        let Built { name, version, licence, .. } = package;
        match satisfied(licence) {
            Some(true) => {}
            Some(false) => found.push(format!(
                "{name} {version} is under `{licence}`: replace it, or add the licence after reading it"
            )),
            None => found.push(format!("{name} {version} has no readable licence (`{licence}`): replace it")),
        }
        if let Some((_, reason)) = BANNED.iter().find(|(banned, _)| banned == name) {
            found
                .push(format!("{name} {version}: {reason}; `cargo tree --invert {name}` shows who pulls it"));
        }
        if ONCE.contains(&name.as_str()) {
            versions.entry(name).or_default().push(version);
        }
    }
    for (name, versions) in versions.iter().filter(|(_, versions)| versions.len() > 1) {
        found.push(format!(
            "{name} is built in versions {}: bring those who pull them to one",
            versions.join(" and ")
        ));
    }
    found
}

/// Whether an SPDX expression can be met with allowed licences; `None` when it cannot be read.
fn satisfied(expression: &str) -> Option<bool> {
    // `MIT/Apache-2.0` is how manifests said OR before SPDX expressions.
    let spaced = expression.replace('/', " OR ").replace('(', " ( ").replace(')', " ) ");
    let words: Vec<&str> = spaced.split_whitespace().collect();
    let mut parser = Parser { words: &words };
    let answer = parser.any()?;
    parser.words.is_empty().then_some(answer)
}

/// Recursive descent: OR binds weaker than AND, AND weaker than WITH.
struct Parser<'a> {
    words: &'a [&'a str],
}

impl Parser<'_> {
    fn eat(&mut self, word: &str) -> bool {
        let here = self.words.first() == Some(&word);
        if here {
            self.words = &self.words[1..];
        }
        here
    }

    fn any(&mut self) -> Option<bool> {
        let mut answer = self.all()?;
        while self.eat("OR") {
            answer |= self.all()?;
        }
        Some(answer)
    }

    fn all(&mut self) -> Option<bool> {
        let mut answer = self.one()?;
        while self.eat("AND") {
            answer &= self.one()?;
        }
        Some(answer)
    }

    fn one(&mut self) -> Option<bool> {
        if self.eat("(") {
            let answer = self.any()?;
            return self.eat(")").then_some(answer);
        }
        let (licence, rest) = self.words.split_first()?;
        if ["OR", "AND", "WITH", ")"].contains(licence) {
            return None;
        }
        self.words = rest;
        if self.eat("WITH") {
            // An exception permits more than the licence alone.
            self.words = self.words.split_first()?.1;
        }
        Some(ALLOWED.contains(licence))
    }
}

#[cfg(test)]
mod tests {
    use rstest::rstest;

    use super::*;

    #[rstest]
    #[case("MIT", Some(true))]
    #[case("MIT OR Apache-2.0", Some(true))]
    #[case("MIT/Apache-2.0", Some(true))]
    #[case("Apache-2.0 / MIT", Some(true))]
    #[case("GPL-3.0-only", Some(false))]
    #[case("GPL-3.0-only OR MIT", Some(true))]
    #[case("GPL-3.0-only AND MIT", Some(false))]
    #[case("MIT OR GPL-3.0-only AND GPL-2.0-only", Some(true))]
    #[case("(MIT OR GPL-3.0-only) AND GPL-2.0-only", Some(false))]
    #[case("Apache-2.0 WITH LLVM-exception OR Apache-2.0 OR MIT", Some(true))]
    #[case("ISC AND (Apache-2.0 OR ISC) AND (Apache-2.0 OR ISC OR MIT-0)", Some(true))]
    #[case("AGPL-3.0", Some(false))]
    #[case("", None)]
    #[case("MIT OR", None)]
    #[case("(MIT", None)]
    #[case("MIT Apache-2.0", None)]
    #[case("MIT) OR ISC", None)]
    fn expressions(#[case] expression: &str, #[case] answer: Option<bool>) {
        assert_eq!(satisfied(expression), answer, "{expression}");
    }

    fn package(name: &str, version: &str, licence: &str) -> Built {
        Built { name: name.into(), version: version.into(), licence: licence.into(), ours: false }
    }

    #[test]
    fn findings_name_package_reason_and_way_out() {
        let packages = [
            package("axum", "0.7.9", "MIT"),
            package("axum", "0.8.1", "MIT"),
            package("gnu", "1.0.0", "GPL-3.0-only"),
            package("ring", "0.17.14", "Apache-2.0 AND ISC"),
            package("secretive", "1.0.0", ""),
            package("serde", "1.0.0", "MIT OR Apache-2.0"),
        ];
        let found = findings(&packages);
        let expected = [
            "gnu 1.0.0 is under",
            "ring 0.17.14: one TLS",
            "secretive 1.0.0 has no",
            "axum is built in versions 0.7.9 and 0.8.1",
        ];
        assert_eq!(found.len(), expected.len(), "{found:#?}");
        for (line, part) in found.iter().zip(expected) {
            assert!(line.contains(part), "{part:?} in {line:?}");
        }
    }

    #[test]
    fn our_own_packages_are_not_judged() {
        let ours = Built { ours: true, ..package("longhouse", "0.1.0", "") };
        assert!(findings(&[ours]).is_empty());
    }
}
