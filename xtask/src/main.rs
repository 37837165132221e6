//! Every chore of the project, so that no shell lore is needed: `cargo xtask --help`.
#![allow(clippy::print_stdout, clippy::print_stderr)]

mod check;
mod documentation;
mod measure;
mod process;
mod run;
mod setup;
mod test_cluster;
mod web;
mod workspace;

use std::process::ExitCode;

use clap::{Parser, Subcommand};

/// Chores of the Longhouse project. Each does its own set-up.
#[derive(Parser)]
#[command(
    name = "xtask",
    bin_name = "cargo xtask",
    after_help = "Example:\n  cargo xtask dev\n  cargo xtask test"
)]
struct Arguments {
    #[command(subcommand)]
    chore: Chore,
}

#[derive(Subcommand)]
enum Chore {
    /// Build Longhouse and start it on embedded defaults
    #[command(after_help = "Example:\n  cargo xtask dev\n  cargo xtask dev -- --port 8000 --no-offline")]
    Dev {
        /// Arguments for `longhouse serve`
        #[arg(trailing_var_arg = true, allow_hyphen_values = true)]
        arguments: Vec<String>,
    },
    /// Run the test suite, or the tests that match
    #[command(
        after_help = "Example:\n  cargo xtask test\n  cargo xtask test drain\n  cargo xtask test -p longhouse-voice"
    )]
    Test {
        /// Filters and options for `cargo nextest run`
        #[arg(trailing_var_arg = true, allow_hyphen_values = true)]
        filters: Vec<String>,
    },
    /// Check format, lints, dependencies, licences, advisories and house rules
    #[command(after_help = "Example:\n  cargo xtask check\n  cargo xtask check layers rooms")]
    Check {
        /// Only these checks
        #[arg(value_enum)]
        only: Vec<check::Name>,
    },
    /// Install what `dev` and `test` need, or say what to install
    #[command(after_help = "Example:\n  cargo xtask setup")]
    Setup,
    /// Write the documents that are made from code
    #[command(after_help = "Example:\n  cargo xtask docs")]
    Docs,
    /// Measure one area against its limits and peers
    #[command(after_help = "Example:\n  cargo xtask bench calls\n  cargo xtask bench calls -- --calls 50")]
    Bench {
        /// The area, e.g. `calls`
        area: String,
        /// Arguments for the benchmark
        #[arg(trailing_var_arg = true, allow_hyphen_values = true)]
        arguments: Vec<String>,
    },
    /// Run one area for long, watching for leaks and drift
    #[command(after_help = "Example:\n  cargo xtask soak calls -- --hours 2")]
    Soak {
        /// The area, e.g. `calls`
        area: String,
        /// Arguments for the soak
        #[arg(trailing_var_arg = true, allow_hyphen_values = true)]
        arguments: Vec<String>,
    },
    /// Build the binary to ship and show its size
    #[command(after_help = "Example:\n  cargo xtask dist")]
    Dist,
}

/// What stops a chore; each message says what to do.
#[derive(Debug, thiserror::Error)]
enum Error {
    #[error("cannot run {program}: {source}; check that it is installed and on PATH")]
    Start { program: String, source: std::io::Error },
    #[error("`{command}` failed; correct what it reports above")]
    Failed { command: String },
    #[error("{0}")]
    Advice(String),
    #[error("cannot use {path}: {source}; check that it exists and may be read and written")]
    File { path: String, source: std::io::Error },
    #[error("cannot read what `{command}` printed: {source}; check the version of the tool")]
    Output { command: String, source: serde_json::Error },
}

fn main() -> ExitCode {
    let done = match Arguments::parse().chore {
        Chore::Dev { arguments } => run::dev(&arguments),
        Chore::Test { filters } => run::test(&filters),
        Chore::Check { only } => check::run(&only),
        Chore::Setup => run::setup(),
        Chore::Docs => documentation::write(),
        Chore::Bench { area, arguments } => measure::bench(&area, &arguments),
        Chore::Soak { area, arguments } => measure::soak(&area, &arguments),
        Chore::Dist => measure::dist(),
    };
    match done {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("xtask: {error}");
            ExitCode::FAILURE
        }
    }
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory;

    use super::Arguments;

    #[test]
    fn every_help_has_an_example() {
        let command = Arguments::command();
        command.clone().debug_assert();
        for chore in std::iter::once(&command).chain(command.get_subcommands()) {
            let help = chore.get_after_help().map(ToString::to_string).unwrap_or_default();
            assert!(help.contains("cargo xtask"), "{} has no example", chore.get_name());
        }
    }
}
