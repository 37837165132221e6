//! Prints `docs/configuration.md`; `cargo xtask docs` writes it.
#![allow(clippy::print_stdout)]

fn main() {
    print!("{}", longhouse_config::reference());
}
