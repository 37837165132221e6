//! `dev` and `test`: the two commands of the README.

use std::os::unix::process::CommandExt;
use std::process::Command;

use crate::setup::{self, Purpose};
use crate::workspace::Metadata;
use crate::{Error, process, test_cluster, web};

/// Has a server of this machine alone make somebody who can sign in to the Studio.
const LOCAL_OPERATOR: &str = "LONGHOUSE_STUDIO__LOCAL_OPERATOR";

/// Builds Longhouse and becomes it.
pub(crate) fn dev(arguments: &[String]) -> Result<(), Error> {
    setup::ensure(Purpose::Dev)?;
    web::build()?;
    process::run(process::cargo().args(["build", "--package", "longhouse"]))?;
    let binary = Metadata::read()?.target_directory.join("debug/longhouse");
    // This process becomes the server, as Cargo became this one: signals reach it and its exit code is ours,
    // with nobody in between to forward either.
    let mut command = Command::new(&binary);
    if std::env::var_os(LOCAL_OPERATOR).is_none() {
        command.env(LOCAL_OPERATOR, "true");
    }
    let source = command.arg("serve").args(arguments).exec();
    Err(Error::Start { program: binary.display().to_string(), source })
}

/// Installs everything that the two commands need.
pub(crate) fn setup() -> Result<(), Error> {
    setup::ensure(Purpose::Test)?;
    setup::clients::install(&Metadata::read()?.target_directory)
}

/// Runs the test suite; the last lines printed are those of the test runner.
pub(crate) fn test(filters: &[String]) -> Result<(), Error> {
    setup::ensure(Purpose::Test)?;
    let target = Metadata::read()?.target_directory;
    if needs_binary(filters) {
        web::build()?;
        // The end-to-end tests start the binary, which their package cannot depend on.
        process::run(process::cargo().args(["build", "--package", "longhouse"]))?;
        setup::clients::install(&target)?;
    }
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
    if !chooses_package(filters) {
        words.push("--workspace".to_owned());
    }
    if filters.is_empty() {
        // CI wants every failure of a run, not the first alone.
        words.push("--no-fail-fast".to_owned());
    }
    words.extend_from_slice(filters);
    words
}

fn chooses_package(filters: &[String]) -> bool {
    let names = |word: &String| word == "-p" || word.starts_with("--package") || word == "--workspace";
    filters.iter().any(names)
}

fn needs_binary(filters: &[String]) -> bool {
    !chooses_package(filters)
        || filters.iter().any(|word| word.ends_with("longhouse-tests") || word == "--workspace")
}

#[cfg(test)]
mod tests {
    use rstest::rstest;

    use super::{needs_binary, nextest_arguments};

    #[rstest]
    #[case(&[], "nextest run --workspace --no-fail-fast", true)]
    #[case(&["drain"], "nextest run --workspace drain", true)]
    #[case(&["-p", "xtask", "layers"], "nextest run -p xtask layers", false)]
    #[case(&["--package=longhouse-tests"], "nextest run --package=longhouse-tests", true)]
    fn filters_narrow_the_run(#[case] filters: &[&str], #[case] expected: &str, #[case] binary: bool) {
        let filters: Vec<String> = filters.iter().map(|&word| word.to_owned()).collect();
        assert_eq!(nextest_arguments(&filters).join(" "), expected);
        assert_eq!(needs_binary(&filters), binary);
    }
}
