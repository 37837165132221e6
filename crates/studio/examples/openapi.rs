//! Prints `web/openapi.json`, from which the pages' client is made; `cargo xtask docs` writes it.
#![allow(clippy::print_stdout)]

fn main() {
    println!("{}", longhouse_studio::openapi().to_pretty_json().expect("an OpenAPI document is JSON"));
}
