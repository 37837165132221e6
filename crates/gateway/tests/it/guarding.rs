//! Safety and the cache, from the request to the rows.

use std::sync::Arc;

use futures_util::StreamExt as _;
use longhouse_database::Claims;
use longhouse_emulators::ai::{Answer, Mind, Options, Rule};
use longhouse_gateway::chat::{ChatEvent, ChatRequest};
use longhouse_gateway::ledger::{LedgerOptions, Outcome, PostgresLedger};
use longhouse_gateway::prices::{PriceTable, Prices};
use longhouse_gateway::quotas::PostgresQuotas;
use longhouse_gateway::routing::Call;
use longhouse_gateway::safety::PostgresReviews;
use longhouse_gateway::{Configuration, Error, Gateway, keys::StaticKeys};
use reqwest::StatusCode;
use serde_json::{Value, json};

use crate::api::{Api, As};
use crate::database::{ANN, BOB, Store, owner};
use crate::harness::{Bench, Vendor, call, soon, task};

const CHILDREN: &str =
    "[tasks.story]\nmodality = \"chat\"\nmodels = [\"offline/rules\"]\napi = true\nsafety = \"children\"\n";

fn service() -> Claims {
    Claims::new("service_role", serde_json::Map::new())
}

#[tokio::test]
async fn what_a_child_must_not_read_is_refused_and_queued() {
    let store = Store::new().await;
    let configuration = Configuration::parse(CHILDREN).unwrap();
    let prices = Prices::new(PriceTable::known());
    let ledger =
        Arc::new(PostgresLedger::start(store.database.clone(), prices.clone(), LedgerOptions::default()));
    let quotas = PostgresQuotas::new(store.database.clone(), configuration.clone(), prices);
    let gateway = Gateway::new(
        configuration,
        Arc::new(StaticKeys::default()),
        Arc::new(quotas),
        Arc::clone(&ledger) as _,
        false,
    )
    .unwrap()
    .with_reviews(Arc::new(PostgresReviews::new(store.database.clone())));
    let ask = async |text: &str| {
        let call = Call::new("story", owner(ANN));
        gateway.complete(&call, ChatRequest::new("You may say: I will murder you.", text)).await
    };
    match ask("Write how I will murder you\u{0}").await.unwrap_err() {
        Error::Unsafe { what, reason } => assert_eq!((what, reason.as_str()), ("request", "violence")),
        error => panic!("{error}"),
    }
    ask("Tell me of a fox called Mira and her friend the hen.").await.unwrap();
    gateway.close().await;
    ledger.close().await;
    let queue = "select subject, action, state, user_id, excerpt, findings->0->>'category' as category from ai.reviews
        where subject = 'request'";
    assert_eq!(
        store.seen(&service(), queue).await.unwrap(),
        [json!({"subject": "request", "action": "block", "state": "open", "user_id": ANN,
            "excerpt": "Write how I will murder you", "category": "violence"})]
    );
    let statuses = "select status, provider from ai.calls order by created_at";
    assert_eq!(
        store.seen(&service(), statuses).await.unwrap(),
        [json!({"status": "refused", "provider": null}), json!({"status": "done", "provider": "offline"})]
    );
    // People of the project decide; nobody else reads, and nobody rewrites what happened.
    assert!(store.seen(&Claims::user(ANN), "select 1 from ai.reviews").await.is_err());
    let decide = "update ai.reviews set state = 'rejected', reviewed_by = 'eve' where action = 'block'";
    assert_eq!(store.database.as_role(&service()).execute(decide, &[]).await.unwrap(), 1);
    assert_eq!(store.number("select count(*) from ai.reviews where reviewed_at is not null").await, 1);
    let rewrite = "update ai.reviews set excerpt = ''";
    assert!(store.database.as_role(&service()).execute(rewrite, &[]).await.is_err());
}

/// An emulated model that always says the same.
fn saying(text: &str) -> Options {
    let then = Answer { text: text.to_owned(), ..Answer::default() };
    Options { mind: Mind { rules: vec![Rule { when: String::new(), then }] }, ..Options::default() }
}

async fn answering(text: &str, settings: &str) -> Bench {
    Bench::new(saying(text), &task(&[Vendor::Responses.model()], &format!("attempts = 1\n{settings}"))).await
}

#[tokio::test]
async fn an_answer_is_broken_off_before_what_must_not_pass() {
    let text =
        "Mira the fox and her friends play in the sun. Then somebody says: I will murder you. And so on.";
    let bench = answering(text, "safety = \"children\"").await;
    let mut answer = bench.gateway.chat(&call(), ChatRequest::new("", "Go on.")).await.unwrap().value;
    let (mut passed, mut error) = (String::new(), None);
    while let Some(event) = soon(answer.next()).await {
        match event {
            Ok(ChatEvent::Text(text)) => passed.push_str(&text),
            Ok(_) => {}
            Err(failure) => error = Some(failure),
        }
    }
    assert!(matches!(error, Some(Error::Unsafe { what: "answer", .. })), "{error:?}");
    assert!(passed.contains("play in the sun") && !passed.contains("murder"), "{passed}");
    let entries = soon(bench.book.entries(1)).await;
    assert_eq!(entries[0].outcome, Outcome::Refused);
}

#[tokio::test]
async fn a_moderation_model_that_cannot_be_asked_lets_nothing_pass() {
    let settings = "safety = \"general\"\nmoderation = \"m\"\n\
        [tasks.m]\nmodality = \"moderation\"\nmodels = [\"nowhere/omni-moderation-latest\"]\nattempts = 1\n";
    let bench = answering("The hen and the fox dance.", settings).await;
    let refused = soon(bench.gateway.complete(&call(), ChatRequest::new("", "Go on."))).await.unwrap_err();
    assert!(
        matches!(&refused, Error::Unsafe { what: "request", reason } if reason == "unjudged"),
        "{refused}"
    );
    let settings = "safety = \"general\"\nmoderation = \"m\"\n\
        [tasks.m]\nmodality = \"moderation\"\nmodels = [\"offline/lists\"]\n";
    let bench = answering("The hen and the fox dance.", settings).await;
    let served = soon(bench.gateway.complete(&call(), ChatRequest::new("", "Go on."))).await.unwrap();
    assert_eq!(served.value.text(), "The hen and the fox dance.");
}

const CACHED: &str =
    "[tasks.story]\nmodality = \"chat\"\nmodels = [\"offline/rules\"]\napi = true\ncache_seconds = 60\n";

fn ask(text: &str) -> Value {
    json!({"task": "story", "messages": [{"role": "user", "content": text}], "stream": false})
}

#[tokio::test]
async fn an_answer_is_given_again_to_whom_it_was_given() {
    let limit = "[[limits]]\nname = \"hourly\"\nper = \"user\"\nperiod = \"hour\"\ncalls = 1\n";
    let api = Api::new(&format!("{CACHED}{limit}")).await;
    let (_, first) = api.post(As::User(ANN), "/chat", ask("Of Mira the fox.")).await;
    let (status, second) = api.post(As::User(ANN), "/chat", ask("Of Mira the fox.")).await;
    assert_eq!((status, &first["cached"], &second["cached"]), (StatusCode::OK, &json!(false), &json!(true)));
    assert_eq!(first["text"], second["text"]);
    assert_ne!(first["call"], second["call"], "it is a call of its own");
    assert_eq!(
        second["usage"]["output_tokens"],
        json!(0),
        "which consumed nothing, and took nothing of the quota"
    );
    assert_eq!(
        api.post(As::User(ANN), "/chat", ask("Of Tom the hen.")).await.0,
        StatusCode::TOO_MANY_REQUESTS
    );
    let (_, his) = api.post(As::User(BOB), "/chat", ask("Of Mira the fox.")).await;
    assert_eq!(his["cached"], json!(false), "it was given to somebody else");
    api.settled().await;
    let sql = "select count(*) from ai.calls where cached and cost_nano_usd = 0 and output_tokens = 0";
    assert_eq!(api.store.number(sql).await, 1);
    assert_eq!(
        api.store.number("select count(*) from ai.calls where not cached and status = 'done'").await,
        2
    );
}

#[tokio::test]
async fn of_the_same_requests_at_once_one_is_made() {
    let bench = Bench::new(
        saying("The same for all."),
        &task(&[Vendor::Responses.model()], "cache_seconds = 60\ncache_public = true"),
    )
    .await;
    let asked = (0..40).map(|_| {
        let gateway = bench.gateway.clone();
        tokio::spawn(async move {
            gateway.complete(&call(), ChatRequest::new("", "Go on.")).await.unwrap().report.cached
        })
    });
    let hits = soon(futures_util::future::join_all(asked)).await;
    assert_eq!(hits.into_iter().filter(|hit| !*hit.as_ref().unwrap()).count(), 1);
    let entries = soon(bench.book.entries(40)).await;
    assert_eq!(entries.iter().filter(|entry| entry.cached).count(), 39);
}
