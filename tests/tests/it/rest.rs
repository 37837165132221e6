//! `/rest/v1` through official clients.

use std::net::TcpListener;

use crate::binary::Server;
use crate::clients::{Person, browse, python};

const NOTES: &str = include_str!("notes.sql");
const AN_HOUR: i64 = 3_600;

async fn slugs(server: &Server) -> Vec<(String, String, bool)> {
    let database = server.database().await;
    let rows = database.query("select slug, title, published from public.notes order by slug", &[]);
    rows.await.unwrap().iter().map(|row| (row.get(0), row.get(1), row.get(2))).collect()
}

fn note(slug: &str, title: &str) -> (String, String, bool) {
    (slug.to_owned(), title.to_owned(), true)
}

fn people(server: &Server) -> [(&'static str, String); 3] {
    [
        ("LONGHOUSE_TEST_ADA", Person::Ada.token(server, AN_HOUR)),
        ("LONGHOUSE_TEST_BOB", Person::Bob.token(server, AN_HOUR)),
        ("LONGHOUSE_TEST_EXPIRED", Person::Bob.token(server, -AN_HOUR)),
    ]
}

#[tokio::test]
async fn a_page_with_supabase_js_reads_writes_and_is_refused() {
    let server = Server::with_migration(NOTES, &[]).await;
    browse(&server, "notes", &people(&server)).await;
    // What the page showed is what is stored.
    let stored = slugs(&server).await;
    assert_eq!(stored, [note("draft", "A secret draft"), note("loom", "The loom"), note("mill", "The mill")]);
}

/// As the migrations of Supabase projects do it, since nothing else reaches every environment.
const OPTIONS: &str = "
    alter role authenticator set pgrst.db_schemas to 'public, private';
    alter role authenticator set pgrst.db_aggregates_enabled to 'true';
    notify pgrst, 'reload config';
    create schema private;
    grant usage on schema private to anon;
    create table private.ledger (amount integer);
    grant select on private.ledger to anon;
    insert into private.ledger values (40), (2);";

#[tokio::test]
async fn a_migration_sets_options_of_the_api() {
    let server = Server::with_migration(OPTIONS, &[]).await;
    let sum = reqwest::Client::new()
        .get(format!("{}/rest/v1/ledger?select=amount.sum()", server.fact("api_url")))
        .header("apikey", server.fact("anon_key"))
        .header("Accept-Profile", "private");
    assert_eq!(sum.send().await.unwrap().text().await.unwrap(), r#"[{"sum":42}]"#);
}

#[tokio::test]
async fn only_trusted_origins_may_read() {
    let port = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
    let trusted = format!("http://127.0.0.1:{port}");
    let server = Server::with_migration(NOTES, &[("LONGHOUSE_SERVER__CORS_ORIGINS", &trusted)]).await;
    browse(&server, "strangers", &[("LONGHOUSE_TEST_PAGES_PORT", port.to_string())]).await;
}

#[tokio::test]
async fn supabase_py_reads_writes_and_is_refused() {
    let server = Server::with_migration(NOTES, &[]).await;
    python(&server, "notes", &people(&server)).await;
    let stored = slugs(&server).await;
    let expected = [
        note("b", "Three"),
        note("draft", "A secret draft"),
        note("letter", "A letter to Ada"),
        note("mill", "The mill"),
    ];
    assert_eq!(stored, expected);
}
