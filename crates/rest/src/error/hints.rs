//! "Perhaps you meant …": names that resemble what was asked for.

use std::collections::HashMap;

use strsim::normalized_levenshtein;

use crate::schema::{QualifiedName, Relationship, SchemaCache};

/// How alike tables and functions must be, so that guessing does not reveal what the role may not see.
pub(super) const CAUTIOUS: f64 = 0.75;

/// How alike parameters and related tables must be.
const GENEROUS: f64 = 0.33;

/// Longer names are compared with nothing: comparing takes the product of the lengths, and the client chooses one.
const LONGEST: usize = 512;

/// The most similar of the names; the first by name when several are.
pub(super) fn closest<'a>(
    name: &str,
    names: impl IntoIterator<Item = &'a str>,
    least: f64,
) -> Option<&'a str> {
    if name.len() > LONGEST {
        return None;
    }
    let wanted = name.to_lowercase();
    let mut best: Option<(f64, &str)> = None;
    for candidate in names {
        let score = normalized_levenshtein(&wanted, &candidate.to_lowercase());
        let better = best.is_none_or(|(best_score, best_name)| {
            score > best_score || (score == best_score && candidate < best_name)
        });
        if score >= least && better {
            best = Some((score, candidate));
        }
    }
    best.map(|(_, name)| name)
}

/// A relation to use in place of the parent when that has no relationships, else in place of the child.
pub(super) fn relationship(
    parent: &str,
    child: &str,
    schema: &str,
    relationships: &HashMap<(QualifiedName, String), Vec<Relationship>>,
) -> Option<String> {
    let key = (QualifiedName::new(schema, parent), schema.to_owned());
    let (meant, given) = match relationships.get(&key) {
        Some(of_parent) => {
            let children = of_parent.iter().map(|relationship| relationship.foreign_table.name.as_str());
            // An exact match means that not the name but the embed's hint is wrong.
            (closest(child, children, GENEROUS).filter(|name| !name.eq_ignore_ascii_case(child)), child)
        }
        None => {
            let parents =
                relationships.keys().filter(|(_, of)| of == schema).map(|(table, _)| table.name.as_str());
            (closest(parent, parents, GENEROUS), parent)
        }
    };
    meant.map(|meant| format!("Perhaps you meant '{meant}' instead of '{given}'."))
}

/// Another overload when the name is known, else another name.
pub(super) fn function(function: &QualifiedName, arguments: &[&str], cache: &SchemaCache) -> Option<String> {
    let overloads = cache.routines.get(function).map_or(&[][..], Vec::as_slice);
    let meant = if overloads.is_empty() {
        let names = cache
            .routines
            .keys()
            .filter(|name| name.schema == function.schema)
            .map(|name| name.name.as_str());
        closest(&function.name, names, CAUTIOUS)?.to_owned()
    } else {
        let given = parameter_list(arguments.to_vec());
        let lists: Vec<String> = overloads
            .iter()
            .map(|routine| parameter_list(routine.parameters.iter().map(|p| p.name.as_str()).collect()))
            .collect();
        format!("{}{}", function.name, closest(&given, lists.iter().map(String::as_str), GENEROUS)?)
    };
    Some(format!("Perhaps you meant to call the function {}.{meant}", function.schema))
}

fn parameter_list(mut names: Vec<&str>) -> String {
    names.sort_unstable();
    format!("({})", names.join(", "))
}
