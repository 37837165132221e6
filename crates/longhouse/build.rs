//! Finds out which commit is built, for `longhouse version` and the health documents.

use std::process::Command;

fn main() {
    println!("cargo::rerun-if-env-changed=LONGHOUSE_BUILD_ID");
    println!("cargo::rustc-env=LONGHOUSE_BUILD_ID={}", build_id());
}

/// What the environment says (a container build has no `.git`), else the commit. A debug build is `dev`: it is
/// seldom of a commit, and would have to be linked again after each.
fn build_id() -> String {
    let given = std::env::var("LONGHOUSE_BUILD_ID").ok().filter(|id| !id.is_empty());
    if let Some(id) = given {
        return id;
    }
    if std::env::var("PROFILE").as_deref() == Ok("debug") {
        return "dev".to_owned();
    }
    println!("cargo::rerun-if-changed=../../.git/logs/HEAD");
    Command::new("git")
        .args(["rev-parse", "--short=12", "HEAD"])
        .output()
        .ok()
        .filter(|output| output.status.success())
        .and_then(|output| String::from_utf8(output.stdout).ok())
        .map_or_else(|| "unknown".to_owned(), |commit| commit.trim().to_owned())
}
