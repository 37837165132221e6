//! Builds again when the pages were built again: what is embedded does not say by itself that files came or went.

fn main() {
    // The folder is in the repository, its content is not: it holds `site` once `cargo xtask` has built the pages.
    println!("cargo::rerun-if-changed=../../web/build");
}
