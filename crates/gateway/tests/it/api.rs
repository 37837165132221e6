//! `/ai/v1` over a real socket and a real database.

use std::sync::Arc;
use std::time::{SystemTime, UNIX_EPOCH};

use longhouse_emulators::ai::{Options, Server};
use longhouse_gateway::configuration::Standard;
use longhouse_gateway::jobs::Jobs;
use longhouse_gateway::keys::envelope::MasterKeys;
use longhouse_gateway::keys::{PostgresKeys, StaticKeys};
use longhouse_gateway::ledger::{LedgerOptions, PostgresLedger};
use longhouse_gateway::prices::{PriceTable, Prices};
use longhouse_gateway::quotas::PostgresQuotas;
use longhouse_gateway::{Configuration, Gateway, routes};
use longhouse_identity::{ProjectKeys, Verifier};
use reqwest::{Method, Response, StatusCode};
use secrecy::{ExposeSecret as _, SecretString};
use serde_json::{Value, json};
use uuid::Uuid;

use crate::database::{ANN, BOB, Store};
use crate::harness::{KEY, soon};

pub(crate) struct Api {
    pub(crate) store: Store,
    pub(crate) gateway: Gateway,
    pub(crate) jobs: Jobs,
    ledger: Arc<PostgresLedger>,
    keys: ProjectKeys,
    address: std::net::SocketAddr,
    client: reqwest::Client,
}

/// Who asks.
#[derive(Clone, Copy)]
pub(crate) enum As {
    Nobody,
    Anon,
    User(Uuid),
    Service,
}

impl Api {
    /// `text` is TOML; the standard tasks are there as on a server without keys.
    pub(crate) async fn new(text: &str) -> Self {
        let store = Store::new().await;
        let configuration =
            Configuration::parse(text).unwrap().with_standard_tasks(Standard::Offline, |_| false);
        let database = store.database.clone();
        let prices = Prices::new(PriceTable::known());
        let keys = PostgresKeys::new(
            database.clone(),
            MasterKeys::new(&"master".into(), None),
            StaticKeys::default(),
        );
        let quotas = PostgresQuotas::new(database.clone(), configuration.clone(), prices.clone());
        let ledger = Arc::new(PostgresLedger::start(database.clone(), prices, LedgerOptions::default()));
        let gateway = Gateway::new(
            configuration,
            Arc::new(keys.clone()),
            Arc::new(quotas.clone()),
            Arc::clone(&ledger) as _,
            true,
        )
        .unwrap();
        let project = ProjectKeys::generate();
        let options = routes::Options {
            gateway: gateway.clone(),
            keys,
            quotas,
            jobs: Jobs::new(database.clone()),
            database,
            verifier: Verifier::new(&project),
            body_limit: 100_000,
        };
        let jobs = options.jobs.clone();
        let (router, _) = routes::router(options).split_for_parts();
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        tokio::spawn(async move { axum::serve(listener, router).await });
        Self { store, gateway, jobs, ledger, keys: project, address, client: reqwest::Client::new() }
    }

    fn token(&self, who: As) -> Option<SecretString> {
        match who {
            As::Nobody => None,
            As::Anon => Some(self.keys.anon_key.clone()),
            As::Service => Some(self.keys.service_role_key.clone()),
            As::User(id) => {
                let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_secs();
                let claims =
                    json!({"sub": id, "role": "authenticated", "exp": now + 600, "aud": "authenticated"});
                Some(self.keys.sign(claims.as_object().unwrap()))
            }
        }
    }

    pub(crate) async fn ask(&self, who: As, method: Method, path: &str, body: Option<Value>) -> Response {
        let mut request = self.client.request(method, format!("http://{}/ai/v1{path}", self.address));
        if let Some(token) = self.token(who) {
            request = request.bearer_auth(token.expose_secret());
        }
        if let Some(body) = body {
            request = request.json(&body);
        }
        soon(request.send()).await.unwrap()
    }

    pub(crate) async fn get(&self, who: As, path: &str) -> Value {
        let answer = self.ask(who, Method::GET, path, None).await;
        assert_eq!(answer.status(), StatusCode::OK, "{path}");
        answer.json().await.unwrap()
    }

    pub(crate) async fn post(&self, who: As, path: &str, body: Value) -> (StatusCode, Value) {
        let answer = self.ask(who, Method::POST, path, Some(body)).await;
        let status = answer.status();
        (status, answer.json().await.unwrap_or_default())
    }

    /// Everything that was recorded is in the table.
    pub(crate) async fn settled(&self) {
        self.gateway.close().await;
        self.ledger.close().await;
    }
}

pub(crate) fn hello() -> Value {
    json!({"messages": [{"role": "user", "content": "Tell me a story of a fox called Mira."}]})
}

/// Events of a stream: names with their data.
pub(crate) async fn events(answer: Response) -> Vec<(String, Value)> {
    let text = soon(answer.text()).await.unwrap();
    let blocks = text.split("\n\n").filter(|block| block.contains("data: "));
    blocks
        .map(|block| {
            let field =
                |name: &str| block.lines().find_map(|line| line.strip_prefix(name)).unwrap_or_default();
            (field("event: ").to_owned(), serde_json::from_str(field("data: ")).unwrap())
        })
        .collect()
}

#[tokio::test]
async fn a_server_without_keys_answers_at_once_and_writes_it_down() {
    let api = Api::new("[[limits]]\nname = \"hourly\"\nper = \"user\"\nperiod = \"hour\"\ncalls = 5\n").await;
    let answer = api.ask(As::User(ANN), Method::POST, "/chat", Some(hello())).await;
    assert_eq!(answer.status(), StatusCode::OK);
    assert_eq!(answer.headers()["content-type"], "text/event-stream");
    assert_eq!(answer.headers()["x-ratelimit-limit"], "5");
    assert_eq!(answer.headers()["x-ratelimit-remaining"], "4");
    assert_eq!(answer.headers()["x-ratelimit-resource"], "hourly");
    let events = events(answer).await;
    let (first, last) = (events.first().unwrap(), events.last().unwrap());
    assert_eq!((first.0.as_str(), &first.1["model"]), ("started", &json!("offline/rules")));
    assert_eq!((last.0.as_str(), &last.1["reason"]), ("finished", &json!("stop")));
    let text: String = events
        .iter()
        .filter(|(name, _)| name == "text")
        .map(|(_, data)| data["text"].as_str().unwrap())
        .collect();
    assert!(text.contains("Mira"), "{text}");

    let (status, whole) =
        api.post(As::User(ANN), "/chat", json!({"messages": hello()["messages"], "stream": false})).await;
    assert_eq!((status, whole["model"].as_str()), (StatusCode::OK, Some("offline/rules")));
    assert!(whole["text"].as_str().unwrap().contains("Mira"));
    let quotas = api.get(As::User(ANN), "/quotas").await;
    assert_eq!((&quotas[0]["used"], &quotas[0]["allowed"]), (&json!(2), &json!(5)));
    assert_eq!(api.get(As::User(BOB), "/quotas").await[0]["used"], json!(0));

    api.settled().await;
    let usage = api.get(As::User(ANN), "/usage?days=1").await;
    assert_eq!(
        (&usage[0]["calls"], &usage[0]["cost_usd"], &usage[0]["unpriced"]),
        (&json!(2), &json!(0.0), &json!(false))
    );
    assert_eq!(api.get(As::User(BOB), "/usage").await, json!([]));
    assert_eq!(api.get(As::Service, "/usage").await[0]["calls"], json!(2));
    let sql = "select count(*) from ai.calls where status = 'done' and task = 'chat' and app = 'api' and output_tokens > 0";
    assert_eq!(api.store.number(sql).await, 2);
}

#[tokio::test]
async fn a_quota_that_is_used_up_is_a_429_that_says_when() {
    let api = Api::new("[[limits]]\nname = \"daily\"\nper = \"user\"\nperiod = \"day\"\ncalls = 1\n").await;
    assert_eq!(
        events(api.ask(As::User(ANN), Method::POST, "/chat", Some(hello())).await).await[0].0,
        "started"
    );
    let refused = api.ask(As::User(ANN), Method::POST, "/chat", Some(hello())).await;
    assert_eq!(refused.status(), StatusCode::TOO_MANY_REQUESTS);
    let header = |name: &str| refused.headers()[name].to_str().unwrap().parse::<i64>().unwrap();
    assert_eq!((header("x-ratelimit-limit"), header("x-ratelimit-remaining")), (1, 0));
    assert!((1..=86_400).contains(&header("retry-after")));
    assert!(header("x-ratelimit-reset") > chrono::Utc::now().timestamp() - 2);
    let body: Value = refused.json().await.unwrap();
    assert_eq!(body["code"], json!("quota_exceeded"));
    assert!(body["message"].as_str().unwrap().contains("daily"), "{body}");
    // Others go on.
    assert_eq!(api.ask(As::User(BOB), Method::POST, "/chat", Some(hello())).await.status(), StatusCode::OK);
}

#[tokio::test]
async fn every_route_wants_somebody() {
    let api = Api::new("").await;
    let id = Uuid::nil();
    for (method, path) in [
        (Method::GET, "/tasks".to_owned()),
        (Method::GET, "/models".to_owned()),
        (Method::GET, "/models/openai".to_owned()),
        (Method::GET, "/keys".to_owned()),
        (Method::POST, "/keys".to_owned()),
        (Method::POST, "/keys/test".to_owned()),
        (Method::DELETE, format!("/keys/{id}")),
        (Method::POST, format!("/keys/{id}/test")),
        (Method::GET, "/usage".to_owned()),
        (Method::GET, "/quotas".to_owned()),
        (Method::POST, "/chat".to_owned()),
        (Method::POST, "/jobs/chat".to_owned()),
        (Method::GET, "/jobs".to_owned()),
        (Method::GET, format!("/jobs/{id}")),
        (Method::DELETE, format!("/jobs/{id}")),
        (Method::POST, format!("/jobs/{id}/retry")),
        (Method::GET, format!("/jobs/{id}/events")),
    ] {
        for who in [As::Nobody, As::Anon] {
            let answer = api.ask(who, method.clone(), &path, Some(json!({}))).await;
            assert_eq!(answer.status(), StatusCode::UNAUTHORIZED, "{method} {path}");
        }
    }
}

#[tokio::test]
async fn tasks_of_applications_are_not_for_people() {
    let text = "[tasks.call_summary]\nmodality = \"chat\"\nmodels = [\"offline/rules\"]\n";
    let api = Api::new(text).await;
    let ask = |task: &str| json!({"task": task, "messages": hello()["messages"], "stream": false});
    let (status, body) = api.post(As::User(ANN), "/chat", ask("call_summary")).await;
    assert_eq!((status, &body["code"]), (StatusCode::FORBIDDEN, &json!("task_not_public")));
    let mut on_behalf = ask("call_summary");
    on_behalf["on_behalf_of"] = json!({"app": "receptionist", "user": ANN});
    assert_eq!(api.post(As::Service, "/chat", on_behalf.clone()).await.0, StatusCode::OK);
    on_behalf["task"] = json!("chat");
    assert_eq!(api.post(As::User(BOB), "/chat", on_behalf).await.0, StatusCode::FORBIDDEN);
    assert_eq!(api.post(As::User(ANN), "/chat", ask("unheard_of")).await.0, StatusCode::NOT_FOUND);
    assert_eq!(api.post(As::User(ANN), "/chat", ask("images")).await.0, StatusCode::BAD_REQUEST);
    api.settled().await;
    let usage = api.get(As::User(ANN), "/usage").await;
    assert_eq!((&usage[0]["app"], &usage[0]["task"]), (&json!("receptionist"), &json!("call_summary")));
}

#[tokio::test]
async fn bad_requests_are_told_and_change_nothing() {
    let api = Api::new("").await;
    for body in [
        json!({}),
        json!({"messages": []}),
        json!({"messages": [{"role": "system", "content": "x"}]}),
        json!({"messages": hello()["messages"], "surprise": 1}),
        json!({"messages": hello()["messages"], "tool_choice": "required"}),
    ] {
        let (status, answer) = api.post(As::User(ANN), "/chat", body.clone()).await;
        assert_eq!((status, &answer["code"]), (StatusCode::BAD_REQUEST, &json!("invalid_request")), "{body}");
    }
    let large = json!({"messages": [{"role": "user", "content": "x".repeat(100_001)}]});
    assert_eq!(api.post(As::User(ANN), "/chat", large).await.0, StatusCode::PAYLOAD_TOO_LARGE);
    for path in ["/usage?days=0", "/usage?days=400"] {
        assert_eq!(api.ask(As::User(ANN), Method::GET, path, None).await.status(), StatusCode::BAD_REQUEST);
    }
    for body in [
        json!({"provider": "nobody", "key": "sk-abcdefghijkl"}),
        json!({"provider": "openai", "key": "two words"}),
        json!({"provider": "openai", "key": "sk-abcdefghijkl", "base_url": "ftp://example.com"}),
    ] {
        assert_eq!(api.post(As::User(ANN), "/keys", body.clone()).await.0, StatusCode::BAD_REQUEST, "{body}");
    }
    assert_eq!(api.store.number("select count(*) from ai.keys").await, 0);
    api.settled().await;
    assert_eq!(api.store.number("select count(*) from ai.calls").await, 0);
}

#[tokio::test]
async fn a_key_is_brought_tested_used_and_taken_back() {
    let server =
        Server::start(Options { api_key: Some(KEY.to_owned()), ..Options::default() }).await.unwrap();
    let text = format!(
        "[providers.openai]\nbase_url = \"{}\"\n\
         [tasks.mine]\nmodality = \"chat\"\nmodels = [\"openai/gpt-5-mini\", \"offline/rules\"]\napi = true\n",
        server.openai()
    );
    let api = Api::new(&text).await;
    let listed = |tasks: &Value| {
        let mine = tasks.as_array().unwrap().iter().find(|task| task["task"] == "mine").unwrap();
        mine["models"][0].clone()
    };
    let before = listed(&api.get(As::User(ANN), "/tasks").await);
    assert_eq!((&before["available"], &before["reason"]), (&json!(false), &json!("no_key")));

    let wrong = json!({"provider": "openai", "key": "sk-this-is-not-the-key"});
    let (status, tested) = api.post(As::User(ANN), "/keys/test", wrong).await;
    assert_eq!(
        (status, &tested["ok"], &tested["reason"]),
        (StatusCode::OK, &json!(false), &json!("unauthorized"))
    );
    let right = json!({"provider": "openai", "key": KEY, "name": "my own"});
    let (_, tested) = api.post(As::User(ANN), "/keys/test", right.clone()).await;
    assert_eq!(tested["ok"], json!(true), "{tested}");

    let (status, stored) = api.post(As::User(ANN), "/keys", right).await;
    assert_eq!(status, StatusCode::CREATED);
    assert!(!stored.to_string().contains("planted"), "{stored}");
    assert_eq!((&stored["masked"], &stored["user_id"]), (&json!("***6789"), &json!(ANN)));
    let path = format!("/keys/{}", stored["id"].as_str().unwrap());
    let (_, tested) = api.post(As::User(ANN), &format!("{path}/test"), json!({})).await;
    assert_eq!(tested["ok"], json!(true), "{tested}");
    let keys = api.get(As::User(ANN), "/keys").await;
    assert_eq!((keys.as_array().unwrap().len(), &keys[0]["test_result"]), (1, &json!("ok")));
    assert!(!keys.to_string().contains("planted"));
    assert_eq!(listed(&api.get(As::User(ANN), "/tasks").await)["available"], json!(true));

    // It is hers alone.
    assert_eq!(api.get(As::User(BOB), "/keys").await, json!([]));
    assert_eq!(api.post(As::User(BOB), &format!("{path}/test"), json!({})).await.0, StatusCode::NOT_FOUND);
    assert_eq!(api.ask(As::User(BOB), Method::DELETE, &path, None).await.status(), StatusCode::NOT_FOUND);
    let ask = json!({"task": "mine", "messages": hello()["messages"], "stream": false});
    let (_, hers) = api.post(As::User(ANN), "/chat", ask.clone()).await;
    assert_eq!((&hers["model"], &hers["degraded"]), (&json!("openai/gpt-5-mini"), &json!(false)), "{hers}");
    let (_, his) = api.post(As::User(BOB), "/chat", ask.clone()).await;
    assert_eq!((&his["model"], &his["degraded"]), (&json!("offline/rules"), &json!(true)), "{his}");

    assert_eq!(api.ask(As::User(ANN), Method::DELETE, &path, None).await.status(), StatusCode::NO_CONTENT);
    let (_, again) = api.post(As::User(ANN), "/chat", ask).await;
    assert_eq!(again["model"], json!("offline/rules"));
    api.settled().await;
    assert_eq!(
        api.store.number("select count(*) from ai.calls where own_key and provider = 'openai'").await,
        1
    );
}
