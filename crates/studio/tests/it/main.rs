//! The operators' API on a real database, behind the real auth service.
#![allow(clippy::unwrap_used)] // a failed unwrap is a failed test, also in the tests' own functions

mod api;
mod guard;
mod harness;
mod pages;

#[test]
fn the_description_that_the_pages_client_is_made_of_is_current() {
    let path = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("../../web/openapi.json");
    let kept = std::fs::read_to_string(path).unwrap();
    let now = longhouse_studio::openapi().to_pretty_json().unwrap();
    assert!(kept.trim() == now.trim(), "web/openapi.json is out of date: run `cargo xtask docs`");
}
