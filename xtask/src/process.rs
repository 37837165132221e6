//! Runs other programs.

use std::process::{Command, Output, Stdio};
use std::time::{Duration, Instant};

use crate::Error;

/// The Cargo that started this program.
pub(crate) fn cargo() -> Command {
    let mut command = Command::new(std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into()));
    command.current_dir(crate::workspace::root());
    // What `cargo run` sets for this program is not meant for the builds it starts: they would all be rebuilt.
    for (name, _) in std::env::vars_os() {
        if name
            .to_str()
            .is_some_and(|name| name.starts_with("CARGO_PKG_") || name.starts_with("CARGO_MANIFEST_"))
        {
            command.env_remove(name);
        }
    }
    command
}

/// Runs with this terminal; fails when the program does.
pub(crate) fn run(command: &mut Command) -> Result<(), Error> {
    let status = command.status().map_err(|source| start_error(command, source))?;
    if status.success() { Ok(()) } else { Err(Error::Failed { command: text(command) }) }
}

/// Runs quietly and returns what was printed.
pub(crate) fn output(command: &mut Command) -> Result<Output, Error> {
    command.stdin(Stdio::null()).output().map_err(|source| start_error(command, source))
}

/// Runs quietly; standard output when the program succeeded, else the end of its errors in the message.
pub(crate) fn read(command: &mut Command) -> Result<String, Error> {
    let output = output(command)?;
    if output.status.success() {
        return Ok(String::from_utf8_lossy(&output.stdout).into_owned());
    }
    let errors = String::from_utf8_lossy(&output.stderr);
    Err(Error::Advice(format!("`{}` failed:\n{}", text(command), last_lines(&errors, 15))))
}

/// Runs quietly for so long at most; false when it failed or was ended.
pub(crate) fn run_within(command: &mut Command, limit: Duration) -> Result<bool, Error> {
    command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
    let mut child = command.spawn().map_err(|source| start_error(command, source))?;
    let deadline = Instant::now() + limit;
    loop {
        match child.try_wait().map_err(|source| start_error(command, source))? {
            Some(status) => return Ok(status.success()),
            None if Instant::now() < deadline => std::thread::sleep(Duration::from_millis(50)),
            None => {
                // It may have ended meanwhile; either way it is waited for.
                let _ = child.kill();
                let _ = child.wait();
                return Ok(false);
            }
        }
    }
}

fn start_error(command: &Command, source: std::io::Error) -> Error {
    Error::Start { program: command.get_program().to_string_lossy().into_owned(), source }
}

/// The command as a person would type it.
pub(crate) fn text(command: &Command) -> String {
    let program = std::path::Path::new(command.get_program());
    let name = program.file_name().unwrap_or(command.get_program()).to_string_lossy();
    let words = command.get_args().map(|word| word.to_string_lossy());
    std::iter::once(name).chain(words).collect::<Vec<_>>().join(" ")
}

pub(crate) fn last_lines(text: &str, count: usize) -> String {
    let lines: Vec<&str> = text.trim_end().lines().collect();
    lines[lines.len().saturating_sub(count)..].join("\n")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_program_that_hangs_is_ended() {
        let begin = Instant::now();
        let done = run_within(Command::new("sleep").arg("30"), Duration::from_millis(100));
        assert!(!done.unwrap());
        assert!(begin.elapsed() < Duration::from_secs(10));
    }

    #[test]
    fn a_failure_quotes_the_end_of_the_errors() {
        let error = read(Command::new("sh").args(["-c", "echo reason >&2; exit 3"])).unwrap_err().to_string();
        assert!(error.contains("reason") && error.contains("sh -c"), "{error}");
        let missing = read(&mut Command::new("no-such-program")).unwrap_err().to_string();
        assert!(missing.contains("check that it is installed"), "{missing}");
    }

    #[test]
    fn last_lines_of_short_and_long_texts() {
        assert_eq!(last_lines("a\nb\nc\n", 2), "b\nc");
        assert_eq!(last_lines("a", 2), "a");
    }
}
