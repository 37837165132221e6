//! Tests of the table of keys.

use std::collections::BTreeSet;

use super::*;

/// Reads the names off the source of the structs, so that a new field without a key is noticed.
fn fields_of_settings() -> BTreeSet<String> {
    let (mut section, mut names) = (None, BTreeSet::new());
    for line in include_str!("../settings.rs").lines() {
        if let Some(name) = line.strip_prefix("pub struct ") {
            section = Some(name.trim_end_matches(" {").to_ascii_lowercase());
        } else if line == "}" {
            section = None;
        } else if let (Some(section), Some(field)) = (&section, line.strip_prefix("    pub ")) {
            let (field, kind) = field.split_once(": ").unwrap();
            match section.as_str() {
                "config" if SECTIONS.iter().any(|(name, _)| *name == field) => {}
                "config" => _ = names.insert(field.to_owned()),
                section => _ = names.insert(format!("{section}.{field}")),
            }
            assert!(!kind.is_empty());
        }
    }
    names
}

#[test]
fn every_setting_has_exactly_one_key() {
    let keys: BTreeSet<_> = KEYS.iter().map(|key| key.name.to_owned()).collect();
    assert_eq!(keys.len(), KEYS.len(), "a key is listed twice");
    assert_eq!(keys, fields_of_settings());
}

#[test]
fn no_variable_means_two_keys() {
    let mut seen = BTreeSet::new();
    for key in KEYS {
        assert!(seen.insert(key.own_variable()), "{}", key.name);
        for name in key.env {
            assert!(seen.insert((*name).to_owned()), "{name}");
        }
    }
}

#[test]
fn a_key_without_default_says_what_happens() {
    let defaults = Config::default();
    for key in KEYS {
        assert!((key.show)(&defaults).is_some() == key.unset.is_empty(), "{}", key.name);
        assert!(SECTIONS.iter().any(|(name, _)| *name == key.section()), "{}", key.name);
    }
}

#[test]
fn defaults_satisfy_their_own_forms() {
    let defaults = Config::default();
    for key in KEYS {
        if let Some(shown) = (key.show)(&defaults) {
            let mut config = Config::default();
            assert!((key.set)(&mut config, &Raw::Text(shown.clone())).is_ok(), "{} = {shown}", key.name);
            assert_eq!((key.show)(&config), Some(shown), "{}", key.name);
        }
    }
}

#[test]
fn suggestions_are_close_or_none() {
    let names = || KEYS.iter().map(|key| key.name);
    assert_eq!(nearest("server.prot", names()), Some("server.port"));
    assert_eq!(nearest("database.pool-size", names()), Some("database.pool_size"));
    assert_eq!(nearest("frobnicate", names()), None);
}
