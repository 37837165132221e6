use std::collections::BTreeMap;

use super::*;

fn name(name: &str) -> QualifiedName {
    QualifiedName::new("test", name)
}

fn table(table: &str, primary_key: &[&str]) -> (QualifiedName, Table) {
    let made = Table {
        name: name(table),
        description: None,
        is_view: primary_key.is_empty(),
        insertable: true,
        updatable: true,
        deletable: true,
        primary_key: primary_key.iter().map(ToString::to_string).collect(),
        columns: Vec::new(),
    };
    (made.name.clone(), made)
}

fn columns(names: &[(i16, &str)]) -> Vec<(i16, String)> {
    names.iter().map(|(number, name)| (*number, (*name).to_owned())).collect()
}

/// 1 films (id), 2 actors (id), 3 roles (film_id, actor_id) with a key of both, 4 posters (film_id) unique.
fn keys() -> Vec<Key> {
    let primary = |oid, table: &str, key: &[(i16, &str)]| Key {
        name: format!("{table}_pkey"),
        relation: (oid, name(table)),
        columns: columns(key),
        references: None,
    };
    let foreign = |oid, table: &str, column: (i16, &str), to: (u32, &str), is_unique| Key {
        name: format!("{table}_{}_fkey", column.1),
        relation: (oid, name(table)),
        columns: columns(&[column]),
        references: Some(Reference {
            relation: (to.0, name(to.1)),
            columns: columns(&[(1, "id")]),
            is_unique,
        }),
    };
    vec![
        primary(1, "films", &[(1, "id")]),
        primary(2, "actors", &[(1, "id")]),
        primary(3, "roles", &[(1, "film_id"), (2, "actor_id")]),
        foreign(3, "roles", (1, "film_id"), (1, "films"), false),
        foreign(3, "roles", (2, "actor_id"), (2, "actors"), false),
        foreign(4, "posters", (1, "film_id"), (1, "films"), true),
    ]
}

fn tables() -> HashMap<QualifiedName, Table> {
    HashMap::from([
        table("films", &["id"]),
        table("actors", &["id"]),
        table("roles", &["actor_id", "film_id"]),
        table("posters", &["film_id"]),
        table("film_view", &[]),
    ])
}

/// Shows films.id twice.
fn film_view() -> TracedView {
    TracedView {
        name: name("film_view"),
        columns: HashMap::from([(1, "id".to_owned()), (2, "same_id".to_owned())]),
        origins: BTreeMap::from([((1, 1), vec![1, 2])]),
    }
}

fn described(
    relationships: &HashMap<(QualifiedName, String), Vec<Relationship>>,
    table: &str,
) -> Vec<String> {
    let members = relationships.get(&(name(table), "test".to_owned())).cloned().unwrap_or_default();
    members
        .iter()
        .map(|relationship| {
            let to = &relationship.foreign_table.name;
            match &relationship.kind {
                RelationshipKind::OneToMany(key) => format!("{to} o2m {:?}", key.columns),
                RelationshipKind::ManyToOne(key) => format!("{to} m2o {:?}", key.columns),
                RelationshipKind::OneToOne { key, is_parent } => {
                    format!("{to} o2o {:?} {is_parent}", key.columns)
                }
                RelationshipKind::ManyToMany(junction) => format!(
                    "{to} m2m {} {:?} {:?}",
                    junction.table.name, junction.source_columns, junction.target_columns
                ),
                RelationshipKind::Computed { function, .. } => format!("{to} computed {}", function.name),
            }
        })
        .collect()
}

#[test]
fn follows_keys_both_ways_and_through_junctions() {
    let found = relate(&tables(), &keys(), &[], Vec::new(), &["test".to_owned()]);
    assert_eq!(
        described(&found, "films"),
        [
            r#"actors m2m roles [("id", "film_id")] [("id", "actor_id")]"#,
            r#"posters o2o [("id", "film_id")] true"#,
            r#"roles o2m [("id", "film_id")]"#,
        ]
    );
    assert_eq!(
        described(&found, "roles"),
        [r#"actors m2o [("actor_id", "id")]"#, r#"films m2o [("film_id", "id")]"#]
    );
    assert_eq!(described(&found, "posters"), [r#"films o2o [("film_id", "id")] false"#]);
}

#[test]
fn views_take_part_by_each_column_that_shows_the_key() {
    let found = relate(&tables(), &keys(), &[film_view()], Vec::new(), &["test".to_owned()]);
    assert_eq!(
        described(&found, "posters"),
        [
            r#"film_view o2o [("film_id", "id")] false"#,
            r#"film_view o2o [("film_id", "same_id")] false"#,
            r#"films o2o [("film_id", "id")] false"#,
        ]
    );
    assert_eq!(described(&found, "film_view").iter().filter(|text| text.contains("m2m")).count(), 2);
}

#[test]
fn views_have_the_keys_of_their_tables_once() {
    let mut tables = tables();
    add_view_keys(&mut tables, &keys(), &[film_view()]);
    assert_eq!(tables[&name("film_view")].primary_key, ["id"]);
}

#[test]
fn other_schemas_stay_hidden() {
    let found = relate(&tables(), &keys(), &[], Vec::new(), &["public".to_owned()]);
    assert!(found.is_empty());
}

#[test]
fn computed_relationships_replace_those_of_their_name() {
    let computed = Relationship {
        table: name("films"),
        foreign_table: name("actors"),
        is_self: false,
        table_is_view: false,
        foreign_is_view: false,
        kind: RelationshipKind::Computed { function: name("roles"), argument: name("films"), to_one: false },
    };
    let found = relate(&tables(), &keys(), &[], vec![computed], &["test".to_owned()]);
    let films = described(&found, "films");
    assert_eq!(films.last().map(String::as_str), Some("actors computed roles"));
    assert!(!films.iter().any(|text| text.starts_with("roles o2m")), "{films:?}");
}

#[test]
fn a_junction_needs_both_keys_in_its_primary_key() {
    let mut tables = tables();
    tables.extend([table("roles", &["film_id"])]);
    let found = relate(&tables, &keys(), &[], Vec::new(), &["test".to_owned()]);
    assert!(!described(&found, "films").iter().any(|text| text.contains("m2m")));
}
