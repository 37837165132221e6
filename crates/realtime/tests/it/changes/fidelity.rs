//! What a change looks like to a client.

use longhouse_database::Claims;
use serde_json::json;

use super::harness::{TestProject, row_id, service};

#[tokio::test]
async fn inserts_updates_and_deletes_arrive_as_the_client_library_expects_them() {
    let project = TestProject::create().await;
    let server = project.server().await;
    let all = server.follow("notes").await;
    let deletes = server.subscribe(&service(), json!({"event": "DELETE", "table": "notes"})).await;
    let schema = server.subscribe(&service(), json!({"event": "INSERT", "schema": "public"})).await;
    project.sql("insert into notes values (1, null, 'a \"quote\"')").await;
    project.sql("update notes set body = 'b'").await;
    project.sql("truncate secrets; delete from notes; insert into silent values (1)").await;
    let changes = server.received(all, 3).await;
    let columns = json!([
        {"name": "id", "type": "int4"}, {"name": "owner", "type": "uuid"}, {"name": "body", "type": "text"}
    ]);
    let mut insert = changes[0].clone();
    let at = insert["commit_timestamp"].take();
    let at = at.as_str().unwrap();
    assert!(at.len() == 24 && at.ends_with('Z') && at.contains('T'), "{at}");
    assert_eq!(
        insert,
        json!({
            "schema": "public", "table": "notes", "type": "INSERT", "commit_timestamp": null, "columns": columns,
            "record": {"id": 1, "owner": null, "body": "a \"quote\""}, "errors": null
        })
    );
    assert_eq!(changes[1]["record"], json!({"id": 1, "owner": null, "body": "b"}));
    assert_eq!(changes[1]["old_record"], json!({"id": 1}));
    assert_eq!((&changes[2]["type"], &changes[2]["old_record"]), (&json!("DELETE"), &json!({"id": 1})));
    assert!(changes[2].get("record").is_none());
    assert_eq!(server.received(deletes, 1).await.len(), 1);
    assert_eq!(server.received(schema, 1).await.len(), 1);
    server.changes.stop().await;
}

#[tokio::test]
async fn values_have_the_types_that_json_has() {
    let project = TestProject::create().await;
    project
        .sql(
            "create type mood as enum ('good', 'bad');
             create type point2 as (x int, label text);
             create domain positive as int check (value > 0);
             create table kinds (id int8 primary key, n numeric, f float8, b bool, j jsonb, js json, a int[], ta text[],
               at timestamptz, ts timestamp, d date, bin bytea, m mood, p point2, dom positive, iv interval, r int4range,
               vc varchar(5), mm mood[]);
             alter publication supabase_realtime add table kinds;",
        )
        .await;
    let server = project.server().await;
    let kinds = server.follow("kinds").await;
    let values = "9007199254740993, 1.50, 'NaN', true, '{\"a\": [1, null]}', '[1]', '{{1,2},{3,null}}',
        '{\"a,b\",\"NULL\",null}', '2026-01-02 03:04:05.6+02', '2026-01-02 03:04:05', '2026-01-02', '\\x00ff', 'bad',
        '(1,\"a b\")', 5, '1 day 02:00:00', '[1,5)', 'abc', '{good}'";
    project.sql(&format!("insert into kinds values ({values})")).await;
    let record = &server.received(kinds, 1).await[0]["record"];
    // What Postgres itself makes of the same row.
    project.sql("set timezone = 'UTC'").await;
    let expected = project.text("select to_jsonb(k)::text from kinds k").await;
    assert_eq!(*record, serde_json::from_str::<serde_json::Value>(&expected).unwrap());
    project.sql("insert into kinds (id) values (2)").await;
    let record = &server.received(kinds, 2).await[1]["record"];
    assert!(record["j"].is_null() && record.get("n").is_some());
    server.changes.stop().await;
}

#[tokio::test]
async fn values_that_are_stored_apart_and_unchanged_are_left_out_unless_the_old_row_is_logged() {
    let project = TestProject::create().await;
    project
        .sql(
            "create table wide (id int primary key, n int, body text);
             alter table wide alter column body set storage external;
             create table whole (like wide including all);
             alter table whole alter column body set storage external;
             alter table whole replica identity full;
             alter publication supabase_realtime add table wide, whole;
             insert into wide values (1, 1, repeat('x', 5000)); insert into whole table wide;",
        )
        .await;
    let server = project.server().await;
    let (wide, whole) = (server.follow("wide").await, server.follow("whole").await);
    project.sql("update wide set n = 2; update whole set n = 2; update wide set id = 3").await;
    let changes = server.received(wide, 2).await;
    assert_eq!(changes[0]["record"], json!({"id": 1, "n": 2}));
    assert_eq!(changes[1]["old_record"], json!({"id": 1}));
    let change = &server.received(whole, 1).await[0];
    assert_eq!(change["record"]["body"].as_str().unwrap().len(), 5000);
    assert_eq!((&change["old_record"]["n"], &change["record"]["n"]), (&json!(1), &json!(2)));
    server.changes.stop().await;
}

#[tokio::test]
async fn a_row_of_more_than_a_megabyte_is_told_without_its_large_values() {
    let project = TestProject::create().await;
    let server = project.server().await;
    let notes = server.follow("notes").await;
    project.sql("insert into notes select 1, null, repeat('x', 1100000)").await;
    project.sql("insert into notes select 2, null, repeat('x', 900000)").await;
    // Larger than what is kept of one message of the log.
    project.sql("insert into notes select 3, null, repeat('x', 40000000)").await;
    let changes = server.received(notes, 3).await;
    assert_eq!(changes[0]["errors"], json!(["Error 413: Payload Too Large"]));
    assert_eq!(changes[0]["record"], json!({"id": 1, "owner": null}));
    assert_eq!(
        (changes[1]["errors"].is_null(), changes[1]["record"]["body"].as_str().unwrap().len()),
        (true, 900_000)
    );
    assert_eq!((row_id(&changes[2]), &changes[2]["errors"]), (3, &changes[0]["errors"]));
    server.changes.stop().await;
}

#[tokio::test]
async fn columns_that_a_role_may_not_select_are_left_out() {
    let project = TestProject::create().await;
    project
        .sql("revoke select on notes from authenticated; grant select (id, body) on notes to authenticated")
        .await;
    let server = project.server().await;
    let table = json!({"event": "*", "table": "notes"});
    let user = server.subscribe(&Claims::user(super::harness::ANN), table.clone()).await;
    let all = server.follow("notes").await;
    let some =
        server.subscribe(&service(), json!({"event": "*", "table": "notes", "select": ["owner"]})).await;
    project.sql("insert into notes values (1, gen_random_uuid(), 'a')").await;
    let change = &server.received(user, 1).await[0];
    assert_eq!(change["record"], json!({"id": 1, "body": "a"}));
    assert_eq!(change["columns"].as_array().unwrap().len(), 2);
    assert_eq!(server.received(all, 1).await[0]["record"].as_object().unwrap().len(), 3);
    let chosen = server.received(some, 1).await;
    let chosen: Vec<_> = chosen[0]["record"].as_object().unwrap().keys().collect();
    assert_eq!(chosen, ["id", "owner"], "the primary key is always there");

    // Rights that are taken away count from the next change on.
    project.sql("revoke select on notes from authenticated; insert into notes values (2), (3)").await;
    server.ids_until(all, 3).await;
    assert_eq!(server.recorder.changes(user).len(), 1);
    project.sql("revoke select on secrets from authenticated").await;
    let table = json!({"event": "*", "table": "secrets"});
    let refused = server.try_subscribe(&Claims::user(super::harness::ANN), table).await.unwrap_err();
    assert!(refused.to_string().contains("permission denied for table secrets"), "{refused}");
    server.changes.stop().await;
}

#[tokio::test]
async fn tables_are_picked_up_and_dropped_live_and_columns_come_and_go() {
    let project = TestProject::create().await;
    let server = project.server().await;
    let wanted = json!({"event": "*", "table": "silent"});
    let refused = server.try_subscribe(&service(), wanted.clone()).await.unwrap_err();
    assert!(refused.to_string().contains("Please check Realtime is enabled"), "{refused}");
    let everything = server.subscribe(&service(), json!({"event": "*", "schema": "*"})).await;
    project.sql("insert into silent values (1)").await;
    project.sql("alter publication supabase_realtime add table silent").await;
    let silent = server.subscribe(&service(), wanted).await;
    project.sql("insert into silent values (2)").await;
    assert_eq!(server.ids_until(silent, 2).await, [2]);
    project.sql("alter table silent add column extra text default 'x'; insert into silent values (3)").await;
    let changes = server.received(silent, 2).await;
    assert_eq!(changes[1]["record"], json!({"id": 3, "extra": "x"}));
    project.sql("alter table silent drop column extra; insert into silent values (4)").await;
    assert_eq!(server.received(silent, 3).await[2]["record"], json!({"id": 4}));
    project.sql("alter publication supabase_realtime drop table silent; insert into silent values (5)").await;
    project.sql("insert into notes values (6)").await;
    assert_eq!(server.ids_until(everything, 6).await, [2, 3, 4, 6]);
    server.changes.stop().await;
}
