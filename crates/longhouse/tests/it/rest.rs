//! `/rest/v1` of a served project: a migration is pushed and its tables answer, under policies.

use std::fs;
use std::time::{Duration, Instant};

use serde_json::{Value, json};

use crate::project::Project;
use crate::stderr;

const MIGRATION: &str = "
    create table public.authors (id int primary key, name text not null);
    create table public.notes (
      id int generated always as identity primary key,
      author_id int not null references public.authors,
      published boolean not null default false,
      text text not null
    );
    alter table public.authors enable row level security;
    alter table public.notes enable row level security;
    create policy everybody_reads on public.authors for select using (true);
    create policy published_is_public on public.notes for select using (published);
    insert into public.authors values (1, 'Ann'), (2, 'Bob');
    insert into public.notes (author_id, published, text) values (1, true, 'out'), (1, false, 'draft');
    create function public.add(a int, b int) returns int language sql immutable as 'select a + b';
";

#[tokio::test]
async fn pushed_tables_answer_at_once_and_under_their_policies() {
    let project = Project::new();
    let server = project.serve();
    fs::create_dir_all(project.path("supabase/migrations")).unwrap();
    fs::write(project.path("supabase/migrations/20260101000000_notes.sql"), MIGRATION).unwrap();
    let status: Value = serde_json::from_slice(&project.run(&["status", "--json"]).stdout).unwrap();
    let key = |name: &str| status[name].as_str().unwrap().to_owned();
    let base = format!("{}/rest/v1", key("API_URL"));
    let client = reqwest::Client::builder().no_proxy().build().unwrap();
    let get = async |path: &str, apikey: Option<&str>| {
        let mut request = client.get(format!("{base}{path}"));
        if let Some(apikey) = apikey {
            request = request.header("apikey", apikey);
        }
        let response = request.send().await.unwrap();
        (response.status().as_u16(), response.json::<Value>().await.unwrap_or_default())
    };
    let (anon, service) = (key("PUBLISHABLE_KEY"), key("SERVICE_ROLE_KEY"));
    assert_eq!(get("/authors", Some(&anon)).await.0, 404, "nothing is there yet");

    let pushed = project.run(&["db", "push"]);
    assert!(pushed.status.success(), "{}", stderr(&pushed));
    // The database itself says that its schema has changed.
    let started = Instant::now();
    while get("/authors", Some(&anon)).await.0 != 200 {
        assert!(started.elapsed() < Duration::from_secs(5), "the schema cache was not reloaded");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }

    let embedded = get("/authors?select=name,notes(text)&order=id", Some(&anon)).await.1;
    let published = json!([{ "name": "Ann", "notes": [{ "text": "out" }] }, { "name": "Bob", "notes": [] }]);
    assert_eq!(embedded, published, "drafts are hidden");
    let all = get("/notes?select=text&order=id", Some(&service)).await.1;
    assert_eq!(all, json!([{ "text": "out" }, { "text": "draft" }]), "the service role sees everything");
    assert_eq!(get("/rpc/add?a=2&b=3", Some(&anon)).await, (200, json!(5)));

    let refused = client
        .post(format!("{base}/notes"))
        .header("apikey", &anon)
        .json(&json!({ "author_id": 1, "text": "intruder" }))
        .send()
        .await
        .unwrap();
    assert_eq!(refused.status(), 401);
    assert_eq!(refused.json::<Value>().await.unwrap()["code"], "42501");
    assert_eq!(get("/authors", None).await.0, 401, "without a key");
    assert_eq!(get("/authors", Some("sb_publishable_forged")).await.0, 401);
    let stopped = project.run(&["stop"]);
    assert!(stopped.status.success(), "{}", stderr(&stopped));
    assert_eq!(server.wait().0, Some(0));
}
