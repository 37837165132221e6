//! Dependencies between our crates point down (`ARCHITECTURE.md`).

use crate::workspace::Package;

/// What a package may use of the others.
#[derive(Clone, Copy, PartialEq)]
enum Place {
    /// Only packages of lower layers.
    Layer(u8),
    /// None at all: strict stand-ins share no code with what they test.
    Apart,
    /// Anything: nothing is built on them.
    Outside,
}

use Place::{Apart, Layer, Outside};

const PLACES: &[(&str, Place)] = &[
    ("longhouse-config", Layer(0)),
    ("longhouse-database", Layer(1)),
    ("longhouse-outbound", Layer(1)),
    ("longhouse-server", Layer(1)),
    ("longhouse-identity", Layer(2)),
    ("longhouse-operations", Layer(2)),
    ("longhouse-rest", Layer(2)),
    ("longhouse-storage", Layer(2)),
    ("longhouse-realtime", Layer(2)),
    ("longhouse-gateway", Layer(3)),
    ("longhouse-studio", Layer(3)),
    ("longhouse-voice", Layer(4)),
    ("longhouse-npc", Layer(5)),
    ("longhouse-stories", Layer(5)),
    ("longhouse-receptionist", Layer(5)),
    ("longhouse-interviews", Layer(5)),
    ("longhouse-worlds", Layer(5)),
    ("longhouse", Layer(6)),
    ("longhouse-emulators", Apart),
    ("xtask", Apart),
    ("longhouse-tests", Outside),
    ("longhouse-benches", Outside),
];

/// The layer whose package composes all others, emulators included.
const TOP: u8 = 6;

fn place(name: &str) -> Option<Place> {
    PLACES.iter().find(|(known, _)| *known == name).map(|(_, place)| *place)
}

/// One line for each dependency that points up or sideways.
pub(super) fn violations(packages: &[Package]) -> Vec<String> {
    let mut found = Vec::new();
    for package in packages {
        let Some(from) = place(&package.name) else {
            found.push(format!("{} has no layer: give it one in xtask/src/check/layers.rs", package.name));
            continue;
        };
        for dependency in package.dependencies.iter().filter(|dependency| dependency.path.is_some()) {
            let dev = dependency.kind.as_deref() == Some("dev");
            // A package may name itself to switch its own test features on.
            let itself = dev && dependency.name == package.name;
            if !itself && !allowed(from, place(&dependency.name), dev) {
                let (name, other) = (&package.name, &dependency.name);
                found.push(format!(
                    "{name} uses {other}, which is not below it: move what it needs down, or pass it in"
                ));
            }
        }
    }
    found
}

fn allowed(from: Place, to: Option<Place>, dev: bool) -> bool {
    match (from, to) {
        (Outside, Some(_)) => true,
        (Layer(_), Some(Apart)) if dev => true,
        (Layer(TOP), Some(Apart)) => true,
        (Layer(upper), Some(Layer(lower))) => upper > lower,
        _ => false,
    }
}

#[cfg(test)]
mod tests {
    use rstest::rstest;

    use super::*;
    use crate::workspace::{Dependency, Metadata};

    #[test]
    fn this_workspace_points_down() {
        let found = violations(&Metadata::read().unwrap().packages);
        assert!(found.is_empty(), "{found:#?}");
    }

    #[rstest]
    #[case("longhouse-voice", "longhouse-database", None, true)]
    #[case("longhouse", "longhouse-receptionist", None, true)]
    #[case("longhouse", "longhouse-emulators", None, true)]
    #[case("longhouse-operations", "longhouse-database", None, true)]
    #[case("longhouse-voice", "longhouse-emulators", Some("dev"), true)]
    #[case("longhouse-tests", "longhouse", None, true)]
    #[case("longhouse-database", "longhouse-database", Some("dev"), true)]
    #[case("longhouse-voice", "longhouse-emulators", None, false)]
    #[case("longhouse-database", "longhouse-voice", None, false)]
    #[case("longhouse-database", "longhouse-voice", Some("dev"), false)]
    #[case("longhouse-database", "longhouse-server", None, false)]
    #[case("longhouse-npc", "longhouse-receptionist", None, false)]
    #[case("longhouse-emulators", "longhouse-config", None, false)]
    #[case("longhouse-voice", "longhouse-tests", Some("dev"), false)]
    #[case("xtask", "longhouse-config", None, false)]
    #[case("longhouse-voice", "longhouse-unknown", None, false)]
    fn directions(#[case] from: &str, #[case] to: &str, #[case] kind: Option<&str>, #[case] fine: bool) {
        let dependency = Dependency { name: to.into(), kind: kind.map(Into::into), path: Some("x".into()) };
        let package = Package { name: from.into(), dependencies: vec![dependency], targets: Vec::new() };
        assert_eq!(violations(&[package]).is_empty(), fine, "{from} -> {to}");
    }

    #[test]
    fn a_package_without_a_layer_is_noticed_and_crates_of_others_are_not() {
        let dependency = Dependency { name: "serde".into(), kind: None, path: None };
        let known = Package { name: "xtask".into(), dependencies: vec![dependency], targets: Vec::new() };
        assert!(violations(&[known]).is_empty());
        let unknown =
            Package { name: "longhouse-attic".into(), dependencies: Vec::new(), targets: Vec::new() };
        assert!(violations(&[unknown])[0].contains("has no layer"));
    }
}
