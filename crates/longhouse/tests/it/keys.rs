//! `longhouse keys` beside a running server.

use std::time::{Duration, Instant};

use serde_json::{Value, json};

use crate::project::Project;
use crate::{stderr, stdout};

const PATIENCE: Duration = Duration::from_secs(30);

#[tokio::test]
async fn keys_are_made_used_rotated_and_ended_while_the_server_runs() {
    let project = Project::new();
    let none = project.run(&["keys", "list"]);
    assert!(stderr(&none).contains("longhouse serve"), "{}", stderr(&none));
    let server = project.serve();
    let status: Value = serde_json::from_slice(&project.run(&["status", "--json"]).stdout).unwrap();
    let url = |path: &str| format!("{}/auth/v1{path}", status["API_URL"].as_str().unwrap());
    let client = reqwest::Client::builder().no_proxy().build().unwrap();
    let users = async |key: &str| {
        let request = client.get(url("/admin/users")).header("apikey", key).bearer_auth(key);
        request.send().await.unwrap().status().as_u16()
    };
    let run = |arguments: &[&str]| {
        let output = project.run(arguments);
        assert!(output.status.success(), "{arguments:?}: {}", stderr(&output));
        stdout(&output)
    };

    let key = run(&["keys", "create-api-key", "--kind", "secret", "--name", "nightly job"]).trim().to_owned();
    assert!(key.starts_with("sb_secret_") && !key.contains(char::is_whitespace), "alone on its stream");
    assert_eq!(users(&key).await, 200, "good at once");
    let list = run(&["keys", "list"]);
    assert!(list.contains("nightly job") && !list.contains(&key), "{list}");
    let list: Value = serde_json::from_str(&run(&["keys", "list", "--json"])).unwrap();
    let id = list["api_keys"][0]["id"].as_str().unwrap();
    run(&["keys", "revoke", &id[..8]]);
    let revoked = Instant::now();
    while users(&key).await == 200 {
        assert!(revoked.elapsed() < PATIENCE, "the server does not follow");
        tokio::time::sleep(Duration::from_millis(100)).await;
    }

    assert!(run(&["keys", "rotate"]).contains("published"));
    let early = project.run(&["keys", "rotate"]);
    assert!(!early.status.success() && stderr(&early).contains("--now"), "{}", stderr(&early));
    assert!(run(&["keys", "rotate", "--now"]).contains("signs from now on"));
    let list: Value = serde_json::from_str(&run(&["keys", "list", "--json"])).unwrap();
    let kid = list["signing_keys"][0]["id"].as_str().unwrap();
    assert_eq!(list["signing_keys"][0]["status"], "current");
    let published = Instant::now();
    loop {
        let jwks: Value =
            client.get(url("/.well-known/jwks.json")).send().await.unwrap().json().await.unwrap();
        if jwks["keys"][0]["kid"] == json!(kid) {
            break;
        }
        assert!(published.elapsed() < PATIENCE, "the key is not published");
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    let refused = project.run(&["keys", "revoke", kid, "--now"]);
    assert!(stderr(&refused).contains("the one that signs"), "{}", stderr(&refused));
    let unknown = project.run(&["keys", "revoke", "zz"]);
    assert!(stderr(&unknown).contains("longhouse keys list"), "{}", stderr(&unknown));

    let file = project.path("signing_keys.json");
    let secret = "c2VjcmV0IHNlY3JldCBzZWNyZXQgc2VjcmV0IHNlY3JldA";
    let id = "0190b1d0-5f0b-7a52-9d3b-3f6f0c6a1b11";
    std::fs::write(&file, json!([{ "kty": "oct", "k": secret, "kid": id }]).to_string()).unwrap();
    let file = file.to_str().unwrap();
    assert!(run(&["keys", "import", file]).contains("0190b1d0 (HS256) signs from now on"));
    let list: Value = serde_json::from_str(&run(&["keys", "list", "--json"])).unwrap();
    let current = list["signing_keys"].as_array().unwrap().iter().find(|key| key["status"] == "current");
    assert_eq!(current.unwrap()["id"], id);
    std::fs::write(file, "{}").unwrap();
    let refused = project.run(&["keys", "import", file]);
    assert!(stderr(&refused).contains("key 1 of the file"), "{}", stderr(&refused));

    project.run(&["stop"]);
    let (_, _, log) = server.wait();
    assert!(!log.contains(&key));
}
