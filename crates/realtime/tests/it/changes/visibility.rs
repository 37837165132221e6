//! Row-level security: each row for those who may select it, when it was committed.

use longhouse_database::Claims;
use longhouse_realtime::changes::Source as _;
use serde_json::{Map, Value, json};

use super::harness::{ANN, BOB, TestProject};

fn user(id: uuid::Uuid, more: Value) -> Claims {
    let Value::Object(mut claims) = more else { panic!() };
    claims.insert("sub".into(), json!(id));
    Claims::new("authenticated", claims)
}

#[tokio::test]
async fn two_users_see_their_own_rows_and_visitors_none() {
    let project = TestProject::create().await;
    let server = project.server().await;
    let wanted = json!({"event": "*", "table": "secrets"});
    let ann = server.subscribe(&Claims::user(ANN), wanted.clone()).await;
    let ann_elsewhere =
        server.subscribe(&user(ANN, json!({"session_id": "2", "exp": 1})), wanted.clone()).await;
    let bob = server.subscribe(&Claims::user(BOB), wanted.clone()).await;
    let visitor = server.subscribe(&Claims::anon(), wanted).await;
    let all = server.follow("secrets").await;
    project
        .sql(&format!(
            "insert into secrets values (1, '{ANN}', 'of ann'), (2, '{BOB}', 'of bob'), (3, null, 'of nobody');
             update secrets set body = 'told' where id = 1; update secrets set owner = '{BOB}' where id = 1;
             insert into secrets values (9, '{ANN}', 'last'), (10, null, 'last of all')"
        ))
        .await;
    assert_eq!(server.ids_until(all, 10).await, [1, 2, 3, 1, 1, 9, 10]);
    assert_eq!(server.ids_until(ann, 9).await, [1, 1, 9]);
    assert_eq!(server.ids_until(ann_elsewhere, 9).await, [1, 1, 9]);
    assert_eq!(server.ids_until(bob, 1).await, [2, 1]);
    assert!(server.recorder.changes(visitor).is_empty());
    server.changes.stop().await;
}

#[tokio::test]
async fn of_old_rows_only_the_primary_key_is_told() {
    let project = TestProject::create().await;
    project.sql("alter table secrets replica identity full; alter table notes replica identity full").await;
    let server = project.server().await;
    let ann = server.subscribe(&Claims::user(ANN), json!({"event": "*", "table": "secrets"})).await;
    let all = server.follow("secrets").await;
    let notes = server.subscribe(&Claims::user(ANN), json!({"event": "*", "table": "notes"})).await;
    project
        .sql(&format!(
            "insert into secrets values (1, '{BOB}', 'of bob'); update secrets set owner = '{ANN}', body = 'now of ann';
             delete from secrets; insert into notes values (1, null, 'a'); delete from notes"
        ))
        .await;
    let changes = server.received(ann, 2).await;
    assert_eq!(changes[0]["old_record"], json!({"id": 1}), "what bob wrote is not for ann");
    assert_eq!(changes[0]["record"]["body"], "now of ann");
    assert_eq!((&changes[1]["type"], &changes[1]["old_record"]), (&json!("DELETE"), &json!({"id": 1})));
    // Whom row-level security does not concern, and where there is none, the old row comes whole.
    assert_eq!(server.received(all, 3).await[2]["old_record"]["body"], "now of ann");
    assert_eq!(
        server.received(notes, 2).await[1]["old_record"],
        json!({"id": 1, "owner": null, "body": "a"})
    );
    server.changes.stop().await;
}

#[tokio::test]
async fn policies_that_only_postgres_can_answer_are_asked_of_postgres() {
    let project = TestProject::create().await;
    project
        .sql(&format!(
            "create table members (room int, member uuid, primary key (room, member));
             create table posts (id int primary key, room int, body text, extra jsonb);
             alter table posts enable row level security;
             alter table members enable row level security;
             create policy mine on members for select to authenticated using (member = auth.uid());
             create policy \"in room\" on posts for select to authenticated
               using (exists (select from members m where m.room = posts.room and m.member = auth.uid()));
             create policy \"not hidden\" on posts as restrictive for select to public
               using (body !~ '^hidden' and not coalesce((extra ->> 'hidden')::boolean, false));
             create policy \"writers\" on posts for insert to anon with check (true);
             alter publication supabase_realtime add table posts;
             insert into members values (1, '{ANN}'), (2, '{BOB}'), (3, '{ANN}'), (3, '{BOB}');"
        ))
        .await;
    let server = project.server().await;
    let wanted = json!({"event": "*", "table": "posts"});
    let ann = server.subscribe(&Claims::user(ANN), wanted.clone()).await;
    let bob = server.subscribe(&Claims::user(BOB), wanted.clone()).await;
    let filtered = json!({"event": "INSERT", "table": "posts", "filter": "body=like.%c%,id=gt.1"});
    let filtered = server.subscribe(&Claims::user(ANN), filtered).await;
    // A token whose subject is no uuid: the policy fails for it, and for nobody else.
    let mut broken = Map::new();
    broken.insert("sub".into(), json!("not a uuid"));
    let broken = server.subscribe(&Claims::new("authenticated", broken), wanted.clone()).await;
    let visitor = server.subscribe(&Claims::anon(), wanted).await;
    let all = server.follow("posts").await;
    project
        .sql(
            r#"insert into posts values (1, 1, 'abc', null), (2, 2, 'abc', '{}'), (3, 3, 'acd', '{"hidden": false}'),
                 (4, 3, 'hidden', null), (5, 3, 'x', '{"hidden": true}'), (6, 4, 'x', null), (7, 3, 'b"''\', '["a"]');"#,
        )
        .await;
    server.ids_until(all, 7).await;
    project.sql("insert into posts values (8, 3, 'last c')").await;
    assert_eq!(server.ids_until(ann, 8).await, [1, 3, 7, 8]);
    assert_eq!(server.ids_until(bob, 8).await, [2, 3, 7, 8]);
    assert_eq!(server.ids_until(filtered, 8).await, [3, 8]);
    assert!(server.recorder.changes(broken).is_empty() && server.recorder.changes(visitor).is_empty());
    server.changes.stop().await;
}

#[tokio::test]
async fn what_was_visible_when_committed_counts_whatever_happens_to_the_row_since() {
    let project = TestProject::create().await;
    // One that is evaluated here, and one that Postgres is asked.
    project
        .sql(
            "create function is_mine(owner uuid) returns boolean stable language sql as $$ select owner = auth.uid() $$;
             create table asked (like secrets including all);
             alter table asked enable row level security;
             create policy own on asked for select to authenticated using (is_mine(owner));
             alter publication supabase_realtime add table asked;",
        )
        .await;
    for table in ["secrets", "asked"] {
        let server = project.server().await;
        let wanted = json!({"event": "*", "table": table});
        let ann = server.subscribe(&Claims::user(ANN), wanted.clone()).await;
        let bob = server.subscribe(&Claims::user(BOB), wanted).await;
        // All in one transaction: nobody can look in between.
        project
            .sql(&format!(
                "begin;
                 insert into {table} values (1, '{ANN}', 'for ann'); delete from {table};
                 insert into {table} values (2, '{ANN}', 'for ann'); update {table} set owner = '{BOB}', body = 'for bob';
                 insert into {table} values (3, '{ANN}', ''), (4, '{BOB}', '');
                 commit"
            ))
            .await;
        let ids = |changes: Vec<Value>| -> Vec<String> {
            changes
                .iter()
                .map(|c| {
                    format!("{} {} {}", c["type"], c["record"]["id"], c["record"]["body"]).replace('"', "")
                })
                .collect()
        };
        server.ids_until(ann, 3).await;
        server.ids_until(bob, 4).await;
        assert_eq!(
            ids(server.recorder.changes(ann)),
            ["INSERT 1 for ann", "DELETE null null", "INSERT 2 for ann", "INSERT 3 "]
        );
        assert_eq!(ids(server.recorder.changes(bob)), ["DELETE null null", "UPDATE 2 for bob", "INSERT 4 "]);
        server.changes.stop().await;
    }
}

#[tokio::test]
async fn changed_policies_claims_and_rights_count_from_the_next_change_on() {
    let project = TestProject::create().await;
    let server = project.server().await;
    let wanted = json!({"event": "INSERT", "table": "secrets"});
    let ann = server.subscribe(&Claims::user(ANN), wanted.clone()).await;
    let all = server.follow("secrets").await;
    let mut next = 0;
    let mut insert = async |before: &str| {
        next += 1;
        project.sql(&format!("{before}; insert into secrets values ({next}, '{BOB}', 'x')")).await;
        server.ids_until(all, next).await;
        server.recorder.changes(ann).len()
    };
    assert_eq!(insert("").await, 0);
    assert_eq!(insert("create policy everybody on secrets for select using (body = 'x')").await, 1);
    assert_eq!(insert("drop policy everybody on secrets").await, 1);
    assert_eq!(insert("alter table secrets disable row level security").await, 2);
    assert_eq!(insert("alter table secrets enable row level security").await, 2);
    server.changes.renew(&[ann], &Claims::user(BOB)).await;
    assert_eq!(insert("").await, 3);
    assert_eq!(insert("revoke usage on schema public from authenticated, public").await, 3);
    assert_eq!(insert("grant usage on schema public to authenticated").await, 4);
    // Somebody replaces auth.uid(): what is known of it holds no more.
    let superuser =
        longhouse_database::connect_client(&super::harness::options(&project.database.superuser_url)).await;
    superuser
        .unwrap()
        .batch_execute(&format!(
            "create or replace function auth.uid() returns uuid stable language sql as $$ select '{ANN}'::uuid $$"
        ))
        .await
        .unwrap();
    assert_eq!(insert("").await, 4);
    server.changes.unsubscribe(&[ann]);
    assert_eq!(insert("alter table secrets disable row level security").await, 4);
    server.changes.stop().await;
}

#[tokio::test]
async fn claims_of_sessions_count_where_a_policy_asks_for_them() {
    let project = TestProject::create().await;
    project
        .sql(
            "create function level() returns text stable language sql as $$ select auth.jwt() ->> 'aal' $$;
             create policy strong on secrets as restrictive for select to authenticated using (level() = 'aal2');",
        )
        .await;
    let server = project.server().await;
    let wanted = json!({"event": "*", "table": "secrets"});
    let weak = server.subscribe(&user(ANN, json!({"aal": "aal1"})), wanted.clone()).await;
    let strong = server.subscribe(&user(ANN, json!({"aal": "aal2"})), wanted).await;
    let all = server.follow("secrets").await;
    project.sql(&format!("insert into secrets values (1, '{ANN}', 'x'), (2, '{ANN}', 'x')")).await;
    assert_eq!(server.ids_until(strong, 2).await, [1, 2]);
    server.ids_until(all, 2).await;
    assert!(server.recorder.changes(weak).is_empty());
    server.changes.stop().await;
}

#[tokio::test]
async fn policies_hold_for_rows_of_which_not_all_was_logged_and_whose_table_changes_in_between() {
    let project = TestProject::create().await;
    project
        .sql(
            "create function is_mine(owner uuid) returns boolean stable language sql as $$ select owner = auth.uid() $$;
             create table wide (id int primary key, owner uuid, n int, body text, words text);
             alter table wide alter column body set storage external, alter column words set storage external;
             alter table wide enable row level security;
             create policy own on wide for select to authenticated using (is_mine(owner));
             create policy kind on wide as restrictive for select to authenticated using (words is distinct from 'no');
             alter publication supabase_realtime add table wide;",
        )
        .await;
    let server = project.server().await;
    let ann = server.subscribe(&Claims::user(ANN), json!({"table": "wide"})).await;
    let bob = server.subscribe(&Claims::user(BOB), json!({"table": "wide"})).await;
    let all = server.follow("wide").await;
    project
        .sql(&format!(
            "insert into wide values (1, '{ANN}', 1, repeat('x', 5000), 'yes'), (2, '{ANN}', 1, 'x', repeat('y', 5000));
             update wide set n = 2;
             begin; insert into wide values (3, '{BOB}', 1); alter table wide add column owner_name text;
             alter table wide drop column n; insert into wide values (4, '{ANN}'); commit;
             insert into wide values (9, null)"
        ))
        .await;
    server.ids_until(all, 9).await;
    let changes = server.recorder.changes(ann);
    let ids: Vec<_> = changes.iter().map(super::harness::row_id).collect();
    // The second row's update: what the policy asks for was not logged, so nobody can say.
    assert_eq!(ids, [1, 2, 1, 4]);
    assert!(changes[2]["record"].get("body").is_none() && changes[2]["record"]["n"].is_null());
    assert_eq!(server.ids_until(bob, 3).await, [3]);
    server.changes.stop().await;
}
