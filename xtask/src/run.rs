//! `dev` and `test`: the two commands of the README.

use std::os::unix::process::CommandExt;
use std::process::Command;

use crate::setup::{self, Purpose};
use crate::workspace::Metadata;
use crate::{Error, process, test_cluster};

/// Builds Longhouse and becomes it.
pub(crate) fn dev(arguments: &[String]) -> Result<(), Error> {
    setup::ensure(Purpose::Dev)?;
    process::run(process::cargo().args(["build", "--package", "longhouse"]))?;
    let binary = Metadata::read()?.target_directory.join("debug/longhouse");
    // This process becomes the server, as Cargo became this one: signals reach it and its exit code is ours,
    // with nobody in between to forward either.
    let source = Command::new(&binary).arg("serve").args(arguments).exec();
    Err(Error::Start { program: binary.display().to_string(), source })
}

/// Runs the test suite; the last lines printed are those of the test runner.
pub(crate) fn test(filters: &[String]) -> Result<(), Error> {
    setup::ensure(Purpose::Test)?;
    let target = Metadata::read()?.target_directory;
    // Examples in the documentation first, so that the runner's summary of all other tests closes the output.
    let examples = if filters.is_empty() {
        process::run(process::cargo().args(["test", "--workspace", "--doc", "--quiet"]))
    } else {
        Ok(())
    };
    let tests = process::run(process::cargo().args(nextest_arguments(filters)));
    if let Err(error) = test_cluster::stop(&test_cluster::folder(&target)) {
        eprintln!("note: {error}");
    }
    // A failure of both is told once, by the later.
    tests.and(examples)
}

fn nextest_arguments(filters: &[String]) -> Vec<String> {
    let mut words = vec!["nextest".to_owned(), "run".to_owned()];
    let chooses_package = filters.iter().any(|word| {
        word == "-p" || word == "--package" || word.starts_with("--package=") || word == "--workspace"
    });
    if !chooses_package {
        words.push("--workspace".to_owned());
    }
    if filters.is_empty() {
        // CI wants every failure of a run, not the first alone.
        words.push("--no-fail-fast".to_owned());
    }
    words.extend_from_slice(filters);
    words
}

#[cfg(test)]
mod tests {
    use rstest::rstest;

    use super::nextest_arguments;

    #[rstest]
    #[case(&[], "nextest run --workspace --no-fail-fast")]
    #[case(&["drain"], "nextest run --workspace drain")]
    #[case(&["-p", "xtask", "layers"], "nextest run -p xtask layers")]
    fn filters_narrow_the_run(#[case] filters: &[&str], #[case] expected: &str) {
        let filters: Vec<String> = filters.iter().map(|&word| word.to_owned()).collect();
        assert_eq!(nextest_arguments(&filters).join(" "), expected);
    }
}
