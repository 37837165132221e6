//! Filters: the same rows that Postgres would find.

use longhouse_database::Claims;
use serde_json::{Value, json};

use super::harness::{ANN, TestProject, TestServer, service};

async fn refused(server: &TestServer, wanted: Value) -> String {
    server.try_subscribe(&service(), wanted).await.unwrap_err().to_string()
}

#[tokio::test]
async fn filters_find_what_postgres_finds() {
    let project = TestProject::create().await;
    project
        .sql(
            "create type size as enum ('small', 'medium', 'large');
             create table things (id int primary key, i int, big int8, n numeric, f float8, b bool, u uuid, t text,
               c char(4), at timestamptz, d date, s size, j jsonb, iv interval, ip inet, tags text[]);
             alter publication supabase_realtime add table things;",
        )
        .await;
    let server = project.server().await;
    // Filter, and the same in SQL.
    let filters = [
        ("i=eq.5", "i = 5"),
        ("i=neq.5", "i <> 5"),
        ("i=not.eq.5", "not i = 5"),
        ("big=gt.9007199254740992", "big > 9007199254740992"),
        ("n=eq.1.5", "n = 1.5"),
        ("n=lte.-1.50", "n <= -1.50"),
        ("f=lt.NaN", "f < 'NaN'"),
        ("f=eq.1e3", "f = 1000"),
        ("b=eq.true", "b"),
        ("b=eq.on", "b"),
        ("b=is.false", "b is false"),
        ("b=not.is.true", "b is not true"),
        ("u=eq.{00000000000000000000000000000001}", "u = '00000000-0000-0000-0000-000000000001'"),
        ("u=gt.00000000-0000-0000-0000-000000000001", "u > '00000000-0000-0000-0000-000000000001'"),
        ("t=eq.a,b", "false"),
        ("t=eq.\"a,b\"", "t = 'a,b'"),
        ("t=lt.b", "t < 'b'"),
        ("t=gte.Ä", "t >= 'Ä'"),
        ("t=like.a%", "t like 'a%'"),
        ("t=not.ilike.A%", "not t ilike 'A%'"),
        ("t=match.^a.b$", "t ~ '^a.b$'"),
        ("t=is.null", "t is null"),
        ("t=isdistinct.ab", "t is distinct from 'ab'"),
        ("t=in.(ab,\"a,b\",\"q\\\"\")", "t in ('ab', 'a,b', 'q\"')"),
        ("i=in.(1,5,7)", "i in (1, 5, 7)"),
        ("i=not.in.(1,5,7)", "i not in (1, 5, 7)"),
        ("c=eq.ab", "c = 'ab'"),
        ("at=gte.2026-01-01T12:00:00+02:00", "at >= '2026-01-01T12:00:00+02:00'"),
        ("at=lt.infinity", "at < 'infinity'"),
        ("d=lte.2025-12-31", "d <= '2025-12-31'"),
        ("s=gt.small", "s > 'small'"),
        ("s=eq.medium", "s = 'medium'"),
        ("j=eq.\"{\\\"b\\\": 1, \\\"a\\\": 2}\"", "j = '{\"a\": 2, \"b\": 1}'"),
        ("iv=eq.24:00:00", "iv = '1 day'"),
        ("ip=eq.10.0.0.1", "ip = '10.0.0.1/32'"),
        ("i=gt.0,i=lt.7,t=neq.ab", "i > 0 and i < 7 and t <> 'ab'"),
    ];
    let mut subscribed = Vec::new();
    for (filter, sql) in filters {
        // The one with a comma in its value is two conditions, the second of which is none.
        let wanted = json!({"event": "*", "table": "things", "filter": filter});
        match server.try_subscribe(&service(), wanted).await {
            Ok(id) => subscribed.push((filter, sql, id)),
            Err(error) if sql == "false" => assert!(error.to_string().contains("`filter`"), "{error}"),
            Err(error) => panic!("{filter}: {error}"),
        }
    }
    let all = server.follow("things").await;
    project
        .sql(
            r#"insert into things values
                 (1, 1, 9007199254740993, 1.50, 1000, true, '00000000-0000-0000-0000-000000000001', 'ab', 'ab',
                  '2026-01-01 10:00:00+00', '2025-12-31', 'small', '{"a": 2, "b": 1}', '1 day', '10.0.0.1', '{a}'),
                 (2, 5, 9007199254740992, -1.5, 'NaN', false, '00000000-0000-0000-0000-000000000002', 'a,b', 'abc',
                  '2026-01-01 09:59:59.999+00', '2026-01-01', 'medium', '{"a": 2}', '25 hours', '10.0.0.0/8', '{}'),
                 (3, 7, -1, 'NaN', '-Infinity', null, null, 'Äb', 'b', 'infinity', 'infinity', 'large', 'null', null, null, null),
                 (4, null, null, null, null, null, null, null, null, null, null, null, null, null, null, null),
                 (5, 6, 0, 0, 0, true, '00000000-0000-0000-0000-000000000001', 'q"', 'ab  ', '0044-03-15 12:00:00+00 BC',
                  '0044-03-15 BC', 'small', '1', '24:00:00', '10.0.0.1', '{}'),
                 (6, 5, 5, 5, 5, false, null, 'axb', '', '-infinity', '-infinity', 'large', '{}', '0', '::1', '{}');
               insert into things (id) values (100);"#,
        )
        .await;
    server.ids_until(all, 100).await;
    for (filter, sql, id) in subscribed {
        let expected = project
            .text(&format!(
                "select coalesce(string_agg(id::text, ',' order by id), '') from things where {sql}"
            ))
            .await;
        let got: Vec<_> = server.recorder.changes(id).iter().map(super::harness::row_id).collect();
        let got: Vec<_> = got.iter().map(ToString::to_string).collect();
        assert_eq!(got.join(","), expected, "{filter}");
    }
    server.changes.stop().await;
}

#[tokio::test]
async fn mistakes_are_answered_when_subscribing() {
    let project = TestProject::create().await;
    project.sql("alter table notes add column j json").await;
    let server = project.server().await;
    let cases = [
        ("nothere=eq.1", "invalid column for filter nothere"),
        ("id=eq.abc", "invalid input syntax for type integer"),
        ("id=eq.99999999999", "out of range"),
        ("id=foo.1", "no such operator"),
        ("id=in.1,2", "parentheses"),
        ("id=like.1%", "operator does not exist"),
        ("id=is.true", "requires a boolean column"),
        ("body=match.(", "parentheses () not balanced"),
        ("j=eq.{}", "operator does not exist"),
        ("owner=eq.x' or true --", "invalid input syntax for type uuid"),
        ("id;drop table notes=eq.1", "invalid column for filter"),
    ];
    for (filter, expected) in cases {
        let message = refused(&server, json!({"event": "*", "table": "notes", "filter": filter})).await;
        assert!(message.contains(expected), "{filter}: {message}");
    }
    let many: Vec<_> = (0..101).map(|n| n.to_string()).collect();
    let filter = format!("id=in.({})", many.join(","));
    let message = refused(&server, json!({"table": "notes", "filter": filter})).await;
    assert!(message.contains("Maximum 100"), "{message}");
    let message = refused(&server, json!({"table": "gone"})).await;
    assert!(
        message.contains("Please check Realtime is enabled") && message.contains("table: gone"),
        "{message}"
    );
    assert!(refused(&server, json!({"event": "*"})).await.contains("at least a `schema` or `table`"));
    assert!(
        refused(&server, json!({"table": "notes", "select": ["nope"]}))
            .await
            .contains("invalid column for select nope")
    );
    assert_eq!(project.text("select count(*)::text from notes").await, "0", "nothing was dropped");
    server.changes.stop().await;
}

#[tokio::test]
async fn hostile_filters_are_values_and_nothing_else() {
    let project = TestProject::create().await;
    let server = project.server().await;
    let hostile = ["'; drop table notes; --", "$1", "\\'; select pg_sleep(9)", "a\") or true --", "{}", "%s"];
    let mut subscribed = Vec::new();
    for body in hostile {
        for operator in ["eq", "gt", "like", "isdistinct"] {
            let quoted = format!("\"{}\"", body.replace('\\', "\\\\").replace('"', "\\\""));
            let wanted = json!({"table": "notes", "filter": format!("body={operator}.{quoted}")});
            match server.try_subscribe(&service(), wanted).await {
                Ok(id) => subscribed.push((body, operator, id)),
                Err(error) => assert_eq!(operator, "like", "{body}: {error}"),
            }
        }
    }
    let all = server.follow("notes").await;
    for (number, body) in hostile.iter().enumerate() {
        let id = i32::try_from(number).unwrap();
        project.owner.execute("insert into notes (id, body) values ($1, $2)", &[&id, body]).await.unwrap();
    }
    server.ids_until(all, 5).await;
    for (body, operator, id) in subscribed {
        let got: Vec<_> = server.recorder.changes(id).iter().map(|c| c["record"]["body"].clone()).collect();
        match operator {
            "eq" => assert_eq!(got, [body]),
            "isdistinct" => assert_eq!(got.len(), hostile.len() - 1),
            _ => {}
        }
    }
    server.changes.stop().await;
}

#[tokio::test]
async fn a_filter_may_only_look_at_what_its_holder_may_read() {
    let project = TestProject::create().await;
    project
        .sql("revoke select on notes from authenticated; grant select (id) on notes to authenticated")
        .await;
    project.sql("alter table secrets replica identity full").await;
    let server = project.server().await;
    let user = Claims::user(ANN);
    let wanted = json!({"table": "notes", "filter": "body=eq.a"});
    let error = server.try_subscribe(&user, wanted).await.unwrap_err().to_string();
    assert!(error.contains("invalid column for filter body"), "{error}");
    // Of deleted rows only the key is told, so the others cannot be guessed by filters either.
    let guess = json!({"event": "DELETE", "table": "secrets", "filter": "body=eq.a"});
    let guess = server.subscribe(&user, guess).await;
    let key = json!({"event": "DELETE", "table": "secrets", "filter": "id=eq.1"});
    let key = server.subscribe(&user, key).await;
    project.sql("insert into secrets values (1, null, 'a'); delete from secrets").await;
    assert_eq!(server.received(key, 1).await[0]["old_record"], json!({"id": 1}));
    assert!(server.recorder.changes(guess).is_empty());
    server.changes.stop().await;
}

#[tokio::test]
async fn a_filter_that_takes_too_long_ends_and_nobody_else_waits() {
    let project = TestProject::create().await;
    project
        .sql(
            "create type slow as (x int);
             create function slow_eq(a slow, b slow) returns boolean strict language plpgsql
               as $$ begin perform pg_sleep(60); return true; end $$;
             create operator = (leftarg = slow, rightarg = slow, function = slow_eq);
             create table sleepy (id int primary key, s slow);
             alter publication supabase_realtime add table sleepy;",
        )
        .await;
    let server = project.server().await;
    let slow = json!({"table": "sleepy", "filter": "s=eq.(1)"});
    let slow = server.subscribe(&service(), slow).await;
    let all = server.follow("sleepy").await;
    project.sql("insert into sleepy values (1, '(1)')").await;
    assert_eq!(server.ids_until(all, 1).await, [1]);
    let told = server.recorder.until("the slow one to be told", |recorder| recorder.system().pop()).await;
    assert!(told.0 == slow && told.2.contains("takes too long"), "{told:?}");
    project.sql("insert into sleepy values (2, '(1)')").await;
    assert_eq!(server.ids_until(all, 2).await, [1, 2]);
    assert!(server.recorder.changes(slow).is_empty() && server.recorder.system().len() == 1);
    server.changes.stop().await;
}
