//! `check`: what CI and reviewers would otherwise have to look for.

mod advisories;
mod layers;
mod licences;
mod packages;
mod rooms;

use clap::ValueEnum;

use crate::workspace::Metadata;
use crate::{Error, documentation, process, workspace};

/// One check.
#[derive(Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum Name {
    /// `cargo fmt --check`
    Format,
    /// `cargo clippy` with warnings denied
    Lints,
    /// Dependencies between our crates point down
    Layers,
    /// Licences of dependencies, banned crates, duplicates
    Licences,
    /// RustSec advisories against Cargo.lock
    Advisories,
    /// Length and names of files
    Rooms,
    /// Documents made from code are current
    Docs,
}

/// What a check found.
pub(crate) enum Verdict {
    Passed(String),
    /// Passed in part or not checked at all: said loudly, and no failure.
    Warned(String),
    /// One line a finding, each with what to do.
    Failed(Vec<String>),
}

impl Verdict {
    fn of(findings: Vec<String>, passed: impl Into<String>) -> Self {
        if findings.is_empty() { Self::Passed(passed.into()) } else { Self::Failed(findings) }
    }
}

/// Runs the checks, all unless some are named, and reports each.
pub(crate) fn run(only: &[Name]) -> Result<(), Error> {
    let mut failed = Vec::new();
    for name in Name::value_variants().iter().filter(|name| only.is_empty() || only.contains(name)) {
        let title = name.to_possible_value().map(|value| value.get_name().to_owned()).unwrap_or_default();
        let verdict = run_one(*name).unwrap_or_else(|error| Verdict::Failed(vec![error.to_string()]));
        match verdict {
            Verdict::Passed(summary) => println!("ok       {title}: {summary}"),
            Verdict::Warned(summary) => println!("WARNING  {title}: {summary}"),
            Verdict::Failed(findings) => {
                println!("FAILED   {title}:");
                for finding in findings {
                    println!("           {}", finding.replace('\n', "\n           "));
                }
                failed.push(title);
            }
        }
    }
    if failed.is_empty() {
        Ok(())
    } else {
        Err(Error::Advice(format!("correct the findings of: {}", failed.join(", "))))
    }
}

fn run_one(name: Name) -> Result<Verdict, Error> {
    match name {
        Name::Format => {
            process::run(process::cargo().args(["fmt", "--all", "--check"]))?;
            Ok(Verdict::Passed("every file is formatted".into()))
        }
        Name::Lints => {
            let words = ["clippy", "--quiet", "--workspace", "--all-targets", "--", "-D", "warnings"];
            process::run(process::cargo().args(words))?;
            Ok(Verdict::Passed("no warnings".into()))
        }
        Name::Layers => {
            let packages = Metadata::read()?.packages;
            Ok(Verdict::of(layers::violations(&packages), format!("{} packages point down", packages.len())))
        }
        Name::Licences => {
            let packages = packages::built()?;
            let findings = licences::findings(&packages);
            Ok(Verdict::of(findings, format!("{} packages may be shipped", packages.len())))
        }
        Name::Advisories => advisories::check(),
        Name::Rooms => rooms::check(workspace::root()),
        Name::Docs => {
            let path = workspace::root().join(documentation::CONFIGURATION);
            let current = std::fs::read_to_string(&path)
                .is_ok_and(|page| documentation::configuration().is_ok_and(|now| now == page));
            let stale = format!("{} is out of date: run `cargo xtask docs`", documentation::CONFIGURATION);
            Ok(Verdict::of(if current { Vec::new() } else { vec![stale] }, "current"))
        }
    }
}
