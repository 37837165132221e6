//! What operators see and do.

use reqwest::Method;
use serde_json::{Value, json};

use crate::harness::TestStudio;

const TABLES: &str = "
    create table public.notes (id int primary key, owner uuid references auth.users, text text);
    comment on table public.notes is 'Notes.';
    alter table public.notes enable row level security;
    create policy own on public.notes for select to authenticated using (auth.uid() = owner);
    create table public.open (a int);
    create table public.shut (a int);
    alter table public.shut enable row level security;
    create schema inner_life;
    create table inner_life.\"Odd \"\"name\"\"\" (\"a\"\"b\" text);
    insert into inner_life.\"Odd \"\"name\"\"\" values (repeat('é', 2000)), (null);
    grant usage on schema inner_life to service_role;
    grant select on all tables in schema inner_life to service_role";

#[tokio::test]
async fn tables_say_who_may_touch_them() {
    let studio = TestStudio::start().await;
    studio.run(TABLES).await;
    let olga = studio.operator().await;
    let tables = studio.get("/studio/v1/tables", &olga).await.body;
    let of =
        |name: &str| tables.as_array().unwrap().iter().find(|table| table["name"] == name).unwrap().clone();
    assert_eq!(of("notes")["warning"], Value::Null);
    assert_eq!((&of("notes")["policies"], &of("notes")["comment"]), (&json!(1), &json!("Notes.")));
    assert_eq!(of("open")["warning"], "open");
    assert_eq!(of("open")["readable_by"], json!(["anon", "authenticated", "service_role"]));
    assert_eq!(of("shut")["warning"], "no_policies");
    assert_eq!(of("users")["platform"], true);
    let odd = of("Odd \"name\"");
    assert_eq!((&odd["exposed"], &odd["warning"]), (&json!(false), &Value::Null));
    let overview = studio.get("/studio/v1/overview", &olga).await.body;
    assert_eq!(
        (&overview["database"]["tables"], &overview["database"]["tables_open"]),
        (&json!(4), &json!(1))
    );
    assert_eq!(overview["people"]["users"], 1);

    let notes = studio.get("/studio/v1/tables/public/notes", &olga).await.body;
    assert_eq!(notes["columns"][1]["refers_to"], "auth.users.id");
    assert_eq!(notes["columns"][0]["primary_key"], true);
    let policy = &notes["policies"][0];
    assert_eq!((&policy["command"], &policy["roles"]), (&json!("select"), &json!(["authenticated"])));
    assert_eq!(policy["using"], "(auth.uid() = owner)");
    assert_eq!(studio.get("/studio/v1/tables/public/nothing", &olga).await.status, 404);
}

#[tokio::test]
async fn rows_are_what_that_person_sees() {
    let studio = TestStudio::start().await;
    studio.run(TABLES).await;
    studio.sign_up("ada@example.com", json!({})).await;
    let olga = studio.operator().await;
    studio
        .run(
            "insert into public.notes select n, case when n % 2 = 0 then (select id from auth.users where email like 'ada%') end,
             'Note ' || n from generate_series(1, 60) n",
        )
        .await;
    let ada: uuid::Uuid =
        studio.sql.query_one("select id from auth.users where email like 'ada%'", &[]).await.unwrap().get(0);
    let rows =
        async |query: &str| studio.get(&format!("/studio/v1/tables/public/notes/rows?{query}"), &olga).await;
    let count = |answer: &Value| answer["rows"].as_array().unwrap().len();

    let all = rows("").await.body;
    assert_eq!(
        (count(&all), &all["more"], &all["columns"]),
        (50, &json!(true), &json!(["id", "owner", "text"]))
    );
    assert_eq!(all["rows"][0], json!(["1", null, "Note 1"]));
    let last = rows("offset=50").await.body;
    assert_eq!((count(&last), &last["more"]), (10, &json!(false)));
    assert_eq!(count(&rows(&format!("as=authenticated&user={ada}&limit=200")).await.body), 30);
    assert_eq!(count(&rows("as=anon").await.body), 0);
    assert_eq!(rows("search=nOTE%2033").await.body["rows"], json!([["33", null, "Note 33"]]));

    let studio_rows = rows("as=postgres").await;
    assert_eq!((studio_rows.status, &studio_rows.body["code"]), (400, &json!("invalid_parameter")));
    for wrong in ["limit=0", "limit=201", "offset=-1", "as=authenticated", "as=anon&user=x"] {
        assert_eq!(rows(wrong).await.status, 400, "{wrong}");
    }

    let odd = studio.get("/studio/v1/tables/inner_life/Odd%20%22name%22/rows", &olga).await.body;
    assert_eq!(odd["rows"], json!([[format!("{}…", "é".repeat(1000))], [null]]));
    let refused = studio.get("/studio/v1/tables/auth/users/rows?as=anon", &olga).await;
    assert_eq!(refused.status, 200);
    assert!(refused.body["refusal"].as_str().unwrap().contains("permission denied"), "{}", refused.body);
}

#[tokio::test]
async fn accounts_are_administered_by_the_ordinary_service_and_written_down() {
    let studio = TestStudio::start().await;
    let olga = studio.operator().await;
    let users = "/studio/v1/service/auth/v1/admin/users";
    let body = json!({ "email": "new@example.com", "password": "long enough", "email_confirm": true });
    let made = studio.send(Method::POST, users, Some(&olga), Some(body)).await;
    assert_eq!(made.status, 200, "{}", made.body);
    let one = format!("{users}/{}", made.body["id"].as_str().unwrap());
    assert_eq!(studio.get(&one, &olga).await.body["email"], "new@example.com");
    let found = studio.get(&format!("{users}?filter=new@"), &olga).await;
    assert_eq!((found.headers["x-total-count"].to_str().unwrap(), found.status), ("1", 200));
    assert_eq!(studio.send(Method::DELETE, &one, Some(&olga), Some(json!({}))).await.status, 200);
    assert_eq!(studio.get(&one, &olga).await.status, 404);

    let mut entries = studio.get("/studio/v1/audit", &olga).await.body.as_array().unwrap().clone();
    entries.reverse();
    let told: Vec<_> = entries
        .iter()
        .map(|entry| (entry["action"].as_str().unwrap(), entry["status"].as_i64().unwrap()))
        .collect();
    assert_eq!(told, [("POST", 200), ("GET", 200), ("GET", 200), ("DELETE", 200), ("GET", 404)]);
    assert_eq!(entries[3]["target"], one);
    assert_eq!(
        (&entries[0]["operator"], &entries[0]["client"]),
        (&json!("olga@example.com"), &json!("127.0.0.1"))
    );
    assert!(!format!("{entries:?}").contains("filter"), "queries of other services stay out");
}

#[tokio::test]
async fn without_the_audit_nothing_is_done() {
    let studio = TestStudio::start().await;
    let olga = studio.operator().await;
    studio.run("revoke insert on longhouse.studio_audit from service_role").await;
    let body = json!({ "email": "new@example.com", "password": "long enough" });
    let users = "/studio/v1/service/auth/v1/admin/users";
    assert_eq!(studio.send(Method::POST, users, Some(&olga), Some(body)).await.status, 503);
    let made: i64 = studio.sql.query_one("select count(*) from auth.users", &[]).await.unwrap().get(0);
    assert_eq!(made, 1);
}

#[tokio::test]
async fn nobody_changes_the_audit() {
    let studio = TestStudio::start().await;
    let olga = studio.operator().await;
    studio.get("/studio/v1/service/mailbox/messages", &olga).await;
    for statement in [
        "delete from longhouse.studio_audit",
        "update longhouse.studio_audit set operator_email = 'eve'",
        "truncate longhouse.studio_audit",
    ] {
        studio.run("begin; set local role service_role").await;
        let refused = studio.sql.batch_execute(statement).await.unwrap_err();
        assert_eq!(refused.code().unwrap().code(), "42501", "{statement}");
        studio.run("rollback").await;
    }
}

#[tokio::test]
async fn the_sign_in_page_learns_what_it_needs_and_no_secret() {
    let studio = TestStudio::start().await;
    let project = async || studio.send(Method::GET, "/studio/v1/project", None, None).await.body;
    assert_eq!(project().await["first_run"], true);
    studio.operator().await;
    let document = project().await;
    assert_eq!((&document["first_run"], &document["storage"]), (&json!(false), &json!(false)));
    let keys: Vec<_> = document.as_object().unwrap().keys().map(String::as_str).collect();
    assert_eq!(keys, ["first_run", "mailbox", "publishable_key", "storage", "version"]);
}

#[tokio::test]
async fn usage_is_empty_without_a_gateway_and_sums_its_ledger() {
    let studio = TestStudio::start().await;
    let olga = studio.operator().await;
    let usage = async |query: &str| studio.get(&format!("/studio/v1/usage{query}"), &olga).await;
    assert_eq!(usage("").await.body, json!({ "days": [], "models": [] }));
    // The gateway's own migration, as the server applies it.
    let ledger = include_str!("../../../gateway/migrations/0001_ledger.sql");
    studio
        .run(&format!("create schema ai; set search_path = ai, public; {ledger}; set search_path = public"))
        .await;
    studio
        .run(
            "insert into ai.calls (id, created_at, task, modality, app, provider, model, cost_nano_usd, status, latency_ms)
             select gen_random_uuid(), now() - n * interval '1 day', 'chat', 'chat', 'shop', 'openai', 'm', 2e9, 'done', 100
             from generate_series(0, 9) n;
             insert into ai.calls (id, task, modality, status, latency_ms) values (gen_random_uuid(), 'chat', 'chat', 'failed', 300)",
        )
        .await;
    let week = usage("?days=7").await.body;
    let days = week["days"].as_array().unwrap();
    assert_eq!(days.len(), 7);
    assert_eq!(
        (&days[6]["calls"], &days[6]["failed"], &days[6]["cost_usd"]),
        (&json!(2), &json!(1), &json!(2.0))
    );
    assert_eq!(days[0]["cost_usd"], 2.0);
    let models = week["models"].as_array().unwrap();
    assert_eq!(
        (&models[0]["model"], &models[0]["calls"], &models[0]["cost_usd"]),
        (&json!("m"), &json!(7), &json!(14.0))
    );
    assert_eq!((&models[1]["model"], &models[1]["unpriced"]), (&Value::Null, &json!(1)));
    for wrong in ["?days=0", "?days=367"] {
        assert_eq!(usage(wrong).await.status, 400, "{wrong}");
    }
}
