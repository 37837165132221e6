//! `/storage/v1` of a served project: files under its policies, across a restart, and what `storage check` says.

use std::fs;

use reqwest::Method;
use serde_json::{Value, json};

use crate::project::Project;
use crate::{stderr, stdout};

const MIGRATION: &str = "
    insert into storage.buckets (id, name, public) values ('agent.portraits', 'agent.portraits', true), ('notes', 'notes', false);
    create policy anyone_adds_notes on storage.objects for insert to anon with check (bucket_id = 'notes');
";

/// The addresses and keys of a running server.
struct Api {
    base: String,
    anon: String,
    service: String,
    client: reqwest::Client,
}

impl Api {
    fn of(project: &Project) -> Self {
        let status: Value = serde_json::from_slice(&project.run(&["status", "--json"]).stdout).unwrap();
        let key = |name: &str| status[name].as_str().unwrap().to_owned();
        Self {
            base: format!("{}/storage/v1", key("API_URL")),
            anon: key("PUBLISHABLE_KEY"),
            service: key("SERVICE_ROLE_KEY"),
            client: reqwest::Client::builder().no_proxy().build().unwrap(),
        }
    }

    async fn send(&self, key: &str, method: Method, path: &str, body: Vec<u8>) -> (u16, Vec<u8>) {
        let mut request = self.client.request(method, format!("{}{path}", self.base)).body(body);
        if !key.is_empty() {
            request = request.header("apikey", key);
        }
        let response = request.send().await.unwrap();
        (response.status().as_u16(), response.bytes().await.unwrap().to_vec())
    }
}

#[tokio::test]
async fn files_outlive_the_server_and_answer_to_policies() {
    let project = Project::new();
    fs::create_dir_all(project.path("supabase/migrations")).unwrap();
    fs::write(project.path("supabase/migrations/20260101000000_buckets.sql"), MIGRATION).unwrap();
    let server = project.serve();
    let pushed = project.run(&["db", "push"]);
    assert!(pushed.status.success(), "{}", stderr(&pushed));
    let api = Api::of(&project);
    // More than any other route takes as a body.
    let large = vec![7; 3_000_000];
    let portrait = "/object/agent.portraits/a/b.webp";
    assert_eq!(api.send(&api.service, Method::POST, portrait, large.clone()).await.0, 200);
    assert_eq!(
        api.send(&api.anon, Method::POST, portrait, large.clone()).await.0,
        400,
        "no policy lets them"
    );
    assert_eq!(api.send(&api.anon, Method::POST, "/object/notes/n.txt", b"note".to_vec()).await.0, 200);
    assert_eq!(
        api.send(&api.anon, Method::GET, "/object/notes/n.txt", Vec::new()).await.0,
        400,
        "nor read them"
    );
    assert_eq!(api.send("", Method::GET, "/object/notes/n.txt", Vec::new()).await.0, 400);
    assert_eq!(api.send("sb_publishable_forged", Method::POST, "/object/notes/f", Vec::new()).await.0, 400);
    let asked = json!({"expiresIn": 600}).to_string().into_bytes();
    let (_, signed) = api.send(&api.service, Method::POST, "/object/sign/notes/n.txt", asked).await;
    let signed: Value = serde_json::from_slice(&signed).unwrap();
    let signed = signed["signedURL"].as_str().unwrap().to_owned();

    let stopped = project.run(&["stop"]);
    assert!(stopped.status.success(), "{}", stderr(&stopped));
    assert_eq!(server.wait().0, Some(0));

    let server = project.serve();
    let api = Api::of(&project);
    let public = "/object/public/agent.portraits/a/b.webp";
    assert_eq!(api.send("", Method::GET, public, Vec::new()).await, (200, large));
    assert_eq!(
        api.send("", Method::GET, &signed, Vec::new()).await,
        (200, b"note".to_vec()),
        "the key is kept"
    );

    let sound = project.run(&["storage", "check", "--verify"]);
    assert!(sound.status.success(), "{}", stderr(&sound));
    assert!(stdout(&sound).contains("2 objects, 2 stored files: 0 rows without bytes"), "{}", stdout(&sound));
    for folder in fs::read_dir(project.path(".longhouse/storage/blobs")).unwrap() {
        for file in fs::read_dir(folder.unwrap().path()).unwrap() {
            let file = file.unwrap().path();
            if fs::metadata(&file).unwrap().len() == 4 {
                fs::remove_file(&file).unwrap();
            }
        }
    }
    let found = project.run(&["storage", "check"]);
    assert_eq!(found.status.code(), Some(1));
    assert!(stdout(&found).contains("row without bytes  notes/n.txt"), "{}", stdout(&found));
    let pruned = project.run(&["storage", "check", "--prune"]);
    assert!(pruned.status.success() && stdout(&pruned).contains("removed 1 rows"), "{}", stdout(&pruned));
    drop(server);
}
