//! `bench`, `soak` and `dist`: optimised builds and what they measure.

use std::ffi::OsString;
use std::path::{Path, PathBuf};

use crate::setup::{self, Purpose};
use crate::workspace::Metadata;
use crate::{Error, process, web};

const PACKAGE: &str = "longhouse-benches";
/// Names the program to measure, for every benchmark.
const SERVER: &str = "--server";

/// Measures one area; the program writes `target/bench/<area>.json`.
pub(crate) fn bench(area: &str, arguments: &[String]) -> Result<(), Error> {
    let target = run_program("bench", area, arguments)?;
    let json = target.join("bench").join(format!("{area}.json"));
    if json.exists() {
        println!("figures: {}", json.display());
    }
    Ok(())
}

/// Runs one area for long.
pub(crate) fn soak(area: &str, arguments: &[String]) -> Result<(), Error> {
    run_program("soak", area, arguments).map(drop)
}

fn run_program(kind: &str, area: &str, arguments: &[String]) -> Result<PathBuf, Error> {
    let metadata = Metadata::read()?;
    let program = format!("{kind}-{area}");
    let areas = areas(&metadata, kind);
    if !areas.iter().any(|known| known == area) {
        let list = if areas.is_empty() { "there is none yet".to_owned() } else { areas.join(", ") };
        return Err(Error::Advice(format!("no {kind} of `{area}`; choose one of: {list}")));
    }
    setup::ensure(Purpose::Dev)?;
    let results = metadata.target_directory.join("bench");
    std::fs::create_dir_all(&results)
        .map_err(|source| Error::File { path: results.display().to_string(), source })?;
    let named = arguments.iter().any(|argument| argument == SERVER || argument.starts_with("--server="));
    let mut server: Vec<OsString> = Vec::new();
    if !named {
        // What people run is measured: whole-program optimisation takes an eighth off a request.
        server = vec![SERVER.into(), build(&metadata)?.into()];
    }
    let words = ["run", "--release", "--package", PACKAGE, "--bin", &program, "--"];
    process::run(process::cargo().args(words).args(server).args(arguments))?;
    Ok(metadata.target_directory)
}

/// Builds what is shipped, and says where it is.
fn build(metadata: &Metadata) -> Result<PathBuf, Error> {
    setup::ensure(Purpose::Dev)?;
    web::build()?;
    let words = ["build", "--profile", "dist", "--locked", "--package", "longhouse"];
    process::run(process::cargo().args(words))?;
    Ok(metadata.target_directory.join("dist/longhouse"))
}

/// What there is to measure: programs named `bench-<area>` or `soak-<area>`.
fn areas(metadata: &Metadata, kind: &str) -> Vec<String> {
    let programs =
        metadata.packages.iter().filter(|package| package.name == PACKAGE).flat_map(|p| &p.targets);
    let prefix = format!("{kind}-");
    programs
        .filter(|target| target.kind.iter().any(|kind| kind == "bin"))
        .filter_map(|target| target.name.strip_prefix(&prefix).map(str::to_owned))
        .collect()
}

/// Builds what is shipped.
pub(crate) fn dist() -> Result<(), Error> {
    let binary = build(&Metadata::read()?)?;
    println!("{}: {}", binary.display(), size(&binary)?);
    Ok(())
}

fn size(path: &Path) -> Result<String, Error> {
    let metadata =
        path.metadata().map_err(|source| Error::File { path: path.display().to_string(), source })?;
    Ok(format!("{:.1} MB", metadata.len() as f64 / 1e6))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::workspace::{Package, Target};

    #[test]
    fn areas_are_the_programs_of_the_benchmark_package() {
        let target = |name: &str, kind: &str| Target { name: name.into(), kind: vec![kind.into()] };
        let targets =
            vec![target("bench-calls", "bin"), target("soak-calls", "bin"), target("bench-lib", "lib")];
        let package = Package { name: PACKAGE.into(), dependencies: Vec::new(), targets };
        let metadata = Metadata { packages: vec![package], target_directory: "target".into() };
        assert_eq!(areas(&metadata, "bench"), ["calls"]);
        assert_eq!(areas(&metadata, "soak"), ["calls"]);
    }
}
