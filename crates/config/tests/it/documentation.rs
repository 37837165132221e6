use std::path::Path;

#[test]
fn the_page_of_every_key_is_current() {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../docs/configuration.md");
    let page = std::fs::read_to_string(path).unwrap();
    assert!(
        page == longhouse_config::reference(),
        "docs/configuration.md is out of date: run `cargo xtask docs`"
    );
}

#[test]
fn the_example_in_the_page_loads() {
    let page = longhouse_config::reference();
    let example = page.split("```toml\n").nth(1).unwrap().split("```").next().unwrap();
    let (_folder, path) = crate::file(example);
    let loaded = longhouse_config::Config::load(&longhouse_config::Sources::default().file(path)).unwrap();
    assert_eq!(loaded.config.receptionist.max_calls, 200);
}
