//! Policies that are evaluated here let through exactly what Postgres lets through.

use std::collections::BTreeSet;

use longhouse_database::{Claims, Database};
use proptest::prelude::*;
use proptest::strategy::ValueTree as _;
use proptest::test_runner::TestRunner;
use serde_json::{Map, Value, json};

use super::harness::{ANN, BOB, TestProject, options, row_id};

/// Expressions of policies, made of what common ones are made of.
fn expression() -> impl Strategy<Value = String> {
    let texts = prop::sample::select(vec![
        "name",
        "(auth.jwt() ->> 'org')",
        "((select auth.jwt()) -> 'app_metadata' ->> 'team')",
        "(select auth.jwt() -> 'app_metadata' ->> 'team')",
        "auth.role()",
        "auth.email()",
        "owner::text",
        "'red'",
        "''",
        "(auth.jwt() ->> 'gone')",
        "short",
    ]);
    let uuids = prop::sample::select(vec![
        "owner",
        "auth.uid()",
        "(select auth.uid())",
        "(auth.jwt() ->> 'sub')::uuid",
        "'00000000-0000-0000-0000-000000000a11'::uuid",
    ]);
    let ints = prop::sample::select(vec!["id", "big", "3", "(auth.jwt() ->> 'level')::int", "null::int"]);
    let leaf = prop_oneof![
        (texts.clone(), prop::sample::select(vec!["=", "<>"]), texts.clone())
            .prop_map(|(a, o, b)| format!("({a} {o} {b})")),
        (uuids.clone(), prop::sample::select(vec!["=", "<>"]), uuids.clone())
            .prop_map(|(a, o, b)| format!("({a} {o} {b})")),
        (ints.clone(), prop::sample::select(vec!["=", "<>", "<", ">="]), ints)
            .prop_map(|(a, o, b)| format!("({a} {o} {b})")),
        texts.clone().prop_map(|a| format!("({a} in ('red', 'blue', null))")),
        texts.prop_map(|a| format!("({a} is null)")),
        uuids.prop_map(|a| format!("({a} is not null)")),
        prop::sample::select(vec!["true", "open", "not open", "(auth.jwt() ->> 'admin')::boolean"])
            .prop_map(|a| format!("({a})")),
    ];
    leaf.prop_recursive(3, 8, 3, |inner| {
        prop_oneof![
            (inner.clone(), inner.clone()).prop_map(|(a, b)| format!("({a} and {b})")),
            (inner.clone(), inner.clone()).prop_map(|(a, b)| format!("({a} or {b})")),
            inner.prop_map(|a| format!("(not {a})")),
        ]
    })
}

fn identities() -> Vec<Claims> {
    let of = |value: Value| -> Map<String, Value> { value.as_object().unwrap().clone() };
    let team = |team: &str| json!({"team": team});
    vec![
        Claims::user(ANN),
        Claims::new(
            "authenticated",
            of(json!({"sub": BOB, "org": "red", "app_metadata": team("blue"), "level": 3})),
        ),
        Claims::new(
            "authenticated",
            of(json!({"sub": ANN, "org": 5, "email": "red", "admin": true, "level": "x"})),
        ),
        Claims::new("authenticated", of(json!({"org": "blue", "admin": "f", "app_metadata": team("")}))),
        Claims::new("authenticated", of(json!({"sub": "nobody", "org": null, "app_metadata": []}))),
        Claims::anon(),
    ]
}

#[tokio::test]
async fn simple_policies_agree_with_postgres() {
    let project = TestProject::create().await;
    project
        .sql(
            "create table checked (id int primary key, big int8, owner uuid, name text, short varchar(5), open bool);
             alter table checked enable row level security;
             alter publication supabase_realtime add table checked;",
        )
        .await;
    let server = project.server().await;
    let all = server.follow("checked").await;
    let identities = identities();
    let mut subscribed = Vec::new();
    for claims in &identities {
        subscribed.push(server.subscribe(claims, json!({"event": "INSERT", "table": "checked"})).await);
    }
    let asking = Database::connect(&options(&project.database.authenticator_url)).await.unwrap();
    let mut runner = TestRunner::deterministic();
    let strategy = expression();
    let (mut id, mut compared) = (0, 0);
    for _ in 0..150 {
        let policy = strategy.new_tree(&mut runner).unwrap().current();
        let restrictive = strategy.new_tree(&mut runner).unwrap().current();
        project
            .sql(&format!(
                "truncate checked; drop policy if exists one on checked; drop policy if exists two on checked;
                 create policy one on checked for select using ({policy});
                 create policy two on checked as restrictive for select to authenticated using ({restrictive});"
            ))
            .await;
        let first = id + 1;
        for (big, owner, name, open) in [
            ("3", format!("'{ANN}'"), "'red'", "true"),
            ("-1", format!("'{BOB}'"), "'blue'", "false"),
            ("null", "null".into(), "null", "null"),
            ("3000000000", format!("'{ANN}'"), "''", "true"),
        ] {
            id += 1;
            let short = if name == "''" { "'red'" } else { name };
            project
                .sql(&format!("insert into checked values ({id}, {big}, {owner}, {name}, {short}, {open})"))
                .await;
        }
        server.ids_until(all, id).await;
        for (claims, subscription) in identities.iter().zip(&subscribed) {
            // Planned anew: a plan that another identity caused may hide an error that this one would cause.
            let all = format!("select id from checked -- {id} {}", claims.json());
            let rows = asking.as_role(claims).query(&all, &[]).await;
            let failed = rows.is_err();
            let mut expected = BTreeSet::new();
            if let Ok(rows) = rows {
                expected.extend(rows.iter().map(|row| i64::from(row.get::<_, i32>(0))));
            } else {
                // A policy that fails for one row hides all from whoever asks for all; here each row counts.
                for one in first..=id {
                    let sql = format!("select id from checked where id = $1 -- {}", claims.json());
                    let one = i32::try_from(one).unwrap();
                    if let Ok(rows) = asking.as_role(claims).query(&sql, &[&one]).await {
                        expected.extend(rows.iter().map(|row| i64::from(row.get::<_, i32>(0))));
                    }
                }
            }
            let got = server.recorder.changes(*subscription);
            let got: BTreeSet<i64> = got.iter().map(row_id).filter(|id| *id >= first).collect();
            let case = format!("{policy} / {restrictive}, {}", claims.json());
            if failed {
                assert!(got.is_subset(&expected), "{case}: {got:?}, {expected:?}");
            } else {
                assert_eq!(got, expected, "{case}");
                compared += 1;
            }
        }
    }
    assert!(compared > 400, "{compared}");
    server.changes.stop().await;
}
