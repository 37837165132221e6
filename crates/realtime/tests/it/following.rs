//! Changes and messages of the database, through sockets.

use serde_json::{Value, json};

use crate::harness::{Client, NOTHING, Server};

const TABLE: &str = "
    create table public.notes (id bigint primary key, name text not null, text text);
    alter table public.notes enable row level security;
    create policy own on public.notes for select to authenticated using (name = auth.jwt() ->> 'name');
    grant select on public.notes to authenticated;
    alter publication supabase_realtime add table public.notes;";

async fn follow(client: &mut Client, token: &str, bindings: Value) -> Vec<Value> {
    let payload = json!({ "config": { "postgres_changes": bindings }, "access_token": token });
    let (status, response, _) = client.try_join("realtime:notes", payload).await;
    assert_eq!(status, "ok");
    let system = client.event("system").await.payload;
    assert_eq!((&system["status"], &system["message"]), (&json!("ok"), &json!("Subscribed to PostgreSQL")));
    let answers = response["postgres_changes"].as_array().unwrap();
    answers.iter().map(|binding| binding["id"].clone()).collect()
}

#[tokio::test]
async fn each_hears_of_rows_that_it_may_see_once_for_all_bindings() {
    let server = Server::following().await;
    server.owner.batch_execute(TABLE).await.unwrap();
    let both = json!([
        { "event": "*", "schema": "public", "table": "notes" },
        { "event": "INSERT", "schema": "public", "table": "notes", "filter": "id=gt.1" }
    ]);
    let mut ann = server.client().await;
    let ids = follow(&mut ann, "ann", both.clone()).await;
    let mut bob = server.client_of("1.0.0").await;
    follow(&mut bob, "bob", both).await;
    let insert =
        "insert into public.notes values (1, 'ann', 'first'), (2, 'bob', 'his'), (3, 'ann', 'second')";
    server.owner.batch_execute(insert).await.unwrap();

    let first = ann.event("postgres_changes").await.payload;
    assert_eq!(first["ids"], json!([ids[0]]));
    let data = &first["data"];
    assert_eq!(
        (&data["type"], &data["table"], &data["record"]["text"]),
        (&json!("INSERT"), &json!("notes"), &json!("first"))
    );
    let second = ann.event("postgres_changes").await.payload;
    assert_eq!((&second["ids"], &second["data"]["record"]["id"]), (&json!(ids), &json!(3)));
    let his = bob.event("postgres_changes").await.payload;
    assert_eq!(his["data"]["record"]["text"], "his");
    server.owner.batch_execute("update public.notes set text = 'changed' where id = 2").await.unwrap();
    let changed = bob.event("postgres_changes").await.payload;
    assert_eq!(
        (&changed["data"]["type"], &changed["data"]["record"]["text"]),
        (&json!("UPDATE"), &json!("changed"))
    );
    ann.heard_no("postgres_changes").await;

    // Another token, other rows.
    ann.send(&Value::Null, "realtime:notes", "access_token", json!({ "access_token": "bob" })).await;
    ann.heard_no("system").await;
    drop(bob);
    let mut number = 10;
    let heard = loop {
        let insert = format!("insert into public.notes values ({number}, 'bob', 'for the new token')");
        server.owner.batch_execute(&insert).await.unwrap();
        number += 1;
        let wait =
            tokio::time::timeout(std::time::Duration::from_millis(500), ann.event("postgres_changes")).await;
        if let Ok(heard) = wait {
            break heard;
        }
        assert!(number < 30, "the new token never decides");
    };
    assert_eq!(heard.payload["data"]["record"]["name"], "bob");
    drop(ann);
    server.settles(NOTHING).await;
    server.stop().await;
}

#[tokio::test]
async fn what_cannot_be_followed_is_told() {
    let server = Server::following().await;
    let mut client = server.client().await;
    let payload = json!({ "config": { "postgres_changes": [{ "event": "*", "schema": "public", "table": "nowhere" }] } });
    client.try_join("realtime:a", payload).await;
    let system = client.event("system").await.payload;
    assert_eq!((&system["extension"], &system["status"]), (&json!("postgres_changes"), &json!("error")));
    assert!(system["message"].as_str().unwrap().starts_with("Unable to subscribe to changes"), "{system}");
    server.stop().await;
}

#[tokio::test]
async fn the_database_sends_messages_to_channels() {
    let server = Server::following().await;
    let mut private = server.client().await;
    let ready = json!({ "private": true, "broadcast": { "replication_ready": true } });
    private.join_as("realtime:room-1", ready, Some("ann")).await;
    let system = private.event("system").await.payload;
    assert_eq!(system["message"], "Replication connection established");
    let mut public = server.client().await;
    public.join("realtime:room-1", json!({})).await;
    for (private, text) in [(true, "secret"), (false, "open")] {
        let send = "select realtime.send(jsonb_build_object('text', $1::text), 'told', 'room-1', $2)";
        server.owner.execute(send, &[&text, &private]).await.unwrap();
    }
    let told = private.event("broadcast").await.payload;
    assert_eq!((&told["event"], &told["payload"]["text"]), (&json!("told"), &json!("secret")));
    assert!(told["meta"]["id"].is_string());
    assert_eq!(public.event("broadcast").await.payload["payload"]["text"], "open");
    private.heard_no("broadcast").await;
    server.stop().await;
}
