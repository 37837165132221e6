//! The binary as people and scripts use it.
#![allow(clippy::unwrap_used)] // a failed unwrap is a failed test, also in the tests' own functions

mod commands;
mod keys;
mod lifecycle;
mod project;
mod rest;
mod storage;

use std::process::{Command, Output};

/// The binary in an empty environment: no key or URL of the developer's leaks into a test.
fn longhouse(arguments: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_longhouse"));
    command.args(arguments).env_clear().env("PATH", std::env::var_os("PATH").unwrap());
    command.env("NO_COLOR", "1").env("COLUMNS", "200");
    command
}

fn stdout(output: &Output) -> String {
    String::from_utf8_lossy(&output.stdout).into_owned()
}

/// Errors wrap at the terminal's width: compare them without their line breaks.
fn stderr(output: &Output) -> String {
    let text = String::from_utf8_lossy(&output.stderr);
    text.split_whitespace().filter(|word| *word != "│").collect::<Vec<_>>().join(" ")
}
