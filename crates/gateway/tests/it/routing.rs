//! Chains, restarts, deadlines, breakers, addresses.

use std::sync::Arc;
use std::time::{Duration, Instant};

use futures_util::StreamExt as _;
use longhouse_emulators::ai::{Fault as Trouble, Faults, Options};
use longhouse_gateway::chat::{ChatEvent, ChatRequest, Content, Message};
use longhouse_gateway::keys::{ApiKey, KeySource, Owner};
use longhouse_gateway::ledger::Outcome;
use longhouse_gateway::media::Media;
use longhouse_gateway::quotas::Unlimited;
use longhouse_gateway::routing::Call;
use longhouse_gateway::{Configuration, Error, Fault, Gateway, ProviderName};

use crate::harness::{Bench, Book, Vendor, call, soon, task};

fn request() -> ChatRequest {
    ChatRequest::new("You are kind.", "one two three four five six")
}

const TWO: [&str; 2] = ["openai/gpt-5-mini", "anthropic/claude-haiku-5-5"];

#[tokio::test]
async fn a_begun_answer_is_not_replaced_unasked() {
    let bench = Bench::new(Options::default(), &task(&TWO, "attempts = 1")).await;
    bench.server.set_faults(Faults::first(1, Trouble::cut(4_000)));
    let served = soon(bench.gateway.chat(&call(), request())).await.unwrap();
    let events: Vec<_> = soon(futures_util::StreamExt::collect::<Vec<_>>(served.value)).await;
    let error = events.last().unwrap().as_ref().unwrap_err();
    assert!(error.delivered() && error.failure().unwrap().fault == Fault::Interrupted, "{error}");
    assert!(events.len() > 2 && bench.server.records().len() == 1);
    let entry = soon(bench.book.entries(1)).await.remove(0);
    assert_eq!(entry.outcome, Outcome::Failed(Fault::Interrupted));
    assert!(entry.usage.output_tokens > 0, "what was delivered is counted");
}

#[tokio::test]
async fn a_restart_is_announced_where_it_is_allowed() {
    let bench = Bench::new(Options::default(), &task(&TWO, "attempts = 1\nrestart = true")).await;
    bench.server.set_faults(Faults::first(1, Trouble::cut(4_000)));
    let served = soon(bench.gateway.chat(&call(), request())).await.unwrap();
    let events: Vec<ChatEvent> = soon(served.value.map(Result::unwrap).collect()).await;
    let restart = events.iter().position(|event| *event == ChatEvent::Restarted).unwrap();
    assert!(events[..restart].iter().any(|event| matches!(event, ChatEvent::Text(_))));
    assert!(matches!(&events[restart + 1], ChatEvent::Started { model, .. } if model == "claude-haiku-5-5"));
    let mut completion = longhouse_gateway::chat::Completion::default();
    events.into_iter().for_each(|event| completion.push(event));
    assert_eq!(completion.text(), "You said: one two three four five six");
}

#[tokio::test]
async fn a_model_that_fails_before_it_says_anything_leaves_no_trace() {
    let bench = Bench::new(Options::default(), &task(&TWO, "attempts = 1")).await;
    // Long enough for the head of the answer, too short for a word.
    bench.server.set_faults(Faults::first(1, Trouble::cut(600)));
    let served = soon(bench.gateway.chat(&call(), request())).await.unwrap();
    assert_eq!(served.report.model.to_string(), TWO[1]);
    let events: Vec<ChatEvent> = soon(served.value.map(Result::unwrap).collect()).await;
    let starts = events.iter().filter(|event| matches!(event, ChatEvent::Started { .. })).count();
    assert_eq!((starts, events.contains(&ChatEvent::Restarted)), (1, false));
}

#[tokio::test]
async fn the_deadline_covers_all_attempts() {
    let bench = Bench::new(Options::default(), &task(&TWO, "attempts = 3\nfirst_byte_ms = 60000")).await;
    bench.server.set_faults(Faults::all(Trouble { delay: Duration::from_secs(60), ..Trouble::default() }));
    let begun = Instant::now();
    let hurried = Call { deadline: Some(Duration::from_millis(300)), ..call() };
    let error = soon(bench.gateway.chat(&hurried, request())).await.unwrap_err();
    assert!(matches!(error, Error::Deadline { .. }), "{error:?}");
    assert!(begun.elapsed() < Duration::from_secs(2));
    soon(bench.server.idle()).await;
    assert_eq!(soon(bench.book.entries(1)).await[0].outcome, Outcome::Refused);
}

#[tokio::test]
async fn an_ill_provider_is_left_alone() {
    let models = ["openai/gpt-5-mini", "offline/rules"];
    let bench = Bench::new(Options::default(), &task(&models, "attempts = 1")).await;
    bench.server.set_faults(Faults::all(Trouble::status(500)));
    for _ in 0..8 {
        let served = soon(bench.gateway.complete(&call(), request())).await.unwrap();
        assert_eq!(served.report.model.to_string(), "offline/rules");
    }
    assert_eq!(bench.server.records().len(), 5, "the breaker opened after five failures");
    let served = soon(bench.gateway.complete(&call(), request())).await.unwrap();
    assert_eq!((served.report.tried[0].fault, served.report.tried[0].requests), (Fault::BreakerOpen, 0));
}

#[tokio::test]
async fn everything_that_was_tried_is_named() {
    let models = ["nowhere/x", "openai/gpt-5-mini", "anthropic/claude-haiku-5-5"];
    let bench = Bench::new(Options::default(), &task(&models, "attempts = 1")).await;
    bench.server.set_faults(Faults::all(Trouble::status(503)));
    let error = soon(bench.gateway.chat(&call(), request())).await.unwrap_err();
    let Error::Exhausted { tried, .. } = &error else { panic!("{error:?}") };
    let faults: Vec<Fault> = tried.iter().map(|tried| tried.fault).collect();
    assert_eq!(faults, [Fault::Unreachable, Fault::Overloaded, Fault::Overloaded]);
    assert!(error.is_retryable());
}

#[tokio::test]
async fn a_bad_request_is_not_passed_around() {
    let bench = Bench::new(Options::default(), &task(&TWO, "attempts = 3")).await;
    let mut bad = request();
    bad.tools.push(longhouse_gateway::chat::Tool {
        name: "look".into(),
        description: "Looks.".into(),
        parameters: serde_json::json!({"type": "object", "properties": {"a": {"type": "string"}}}),
        strict: true,
    });
    let error = soon(bench.gateway.chat(&call(), bad)).await.unwrap_err();
    assert_eq!(error.failure().unwrap().fault, Fault::InvalidRequest, "{error}");
    assert!(error.to_string().contains("additionalProperties"), "{error}");
    assert_eq!(bench.server.records().len(), 1);
}

#[tokio::test]
async fn a_model_that_cannot_hear_is_skipped() {
    let models = ["anthropic/claude-haiku-5-5", "gemini/gemini-3-flash-preview"];
    let bench = Bench::new(Options::default(), &task(&models, "attempts = 1")).await;
    let audio = Content::Audio(Media::new("audio/wav", vec![0; 64]));
    let mut spoken = request();
    spoken.messages = vec![Message::User(vec![Content::Text("What is this?".into()), audio])];
    let served = soon(bench.gateway.complete(&call(), spoken)).await.unwrap();
    assert_eq!(served.report.model.to_string(), models[1]);
    assert_eq!(served.report.tried[0].fault, Fault::Unsupported);
}

#[tokio::test]
async fn unknown_tasks_and_wrong_kinds_are_refused() {
    let bench = Bench::one(Vendor::Responses, Options::default()).await;
    let other = Call::new("unheard_of", Owner::default());
    let error = soon(bench.gateway.chat(&other, request())).await.unwrap_err();
    assert!(matches!(error, Error::UnknownTask(_)), "{error}");
    let images = longhouse_gateway::images::ImageRequest::new("a fox");
    let error = soon(bench.gateway.make_images(&call(), images)).await.unwrap_err();
    assert!(matches!(error, Error::WrongModality { .. }), "{error}");
}

/// Keys that people bring with servers of their own.
struct Own(&'static str);

#[async_trait::async_trait]
impl KeySource for Own {
    async fn key(&self, _: &Owner, _: &ProviderName) -> Result<Option<ApiKey>, Error> {
        let url = self.0.parse().unwrap();
        Ok(Some(ApiKey::new("sk-planted-own-key".into()).with_base_url(url).owned()))
    }
}

#[rstest::rstest]
#[case("http://127.0.0.1:9/v1")]
#[case("https://127.0.0.1:9/v1")]
#[case("https://localhost:9/v1")]
#[case("https://169.254.169.254/latest")]
#[case("https://[::ffff:10.0.0.1]/v1")]
#[case("https://user:pass@127.0.0.1/v1")]
#[tokio::test]
async fn peoples_own_servers_must_be_public(#[case] url: &'static str) {
    let text = task(&["openai/gpt-5-mini"], "attempts = 1");
    let configuration = Configuration::parse(&text).unwrap();
    let book = Arc::new(Book::default());
    let gateway = Gateway::new(configuration, Arc::new(Own(url)), Arc::new(Unlimited), book, false).unwrap();
    let error = soon(gateway.chat(&call(), request())).await.unwrap_err();
    assert_eq!(error.failure().unwrap().fault, Fault::ForbiddenAddress, "{error}");
    assert!(!error.to_string().contains("planted") && !error.to_string().contains("pass@"), "{error}");
}

#[tokio::test]
async fn places_are_limited_and_the_rest_waits() {
    let tasks = task(&["openai/gpt-5-mini"], "attempts = 1");
    let options = Options { event_gap: Duration::from_millis(10), ..Options::default() };
    let bench = Bench::new(options, &tasks).await;
    let calls = (0..100).map(|_| {
        let gateway = bench.gateway.clone();
        async move { gateway.complete(&call(), request()).await.map(|served| served.value.text()) }
    });
    let answers = soon(futures_util::future::join_all(calls)).await;
    assert!(
        answers
            .iter()
            .all(|answer| answer.as_ref().is_ok_and(|text| text == "You said: one two three four five six"))
    );
    assert_eq!(soon(bench.book.entries(100)).await.len(), 100);
}

/// The first is slow and the second quick; both are the same emulator, which counts requests.
async fn hedged(first: Duration, more: &str) -> (Bench, &'static str) {
    let models = ["openai/gpt-5-mini", "anthropic/claude-haiku-5-5"];
    let bench = Bench::new(Options::default(), &task(&models, &format!("attempts = 1\n{more}"))).await;
    let slow = Trouble { delay: first, ..Trouble::default() };
    bench.server.set_faults(Faults { sequence: vec![slow], rest: Trouble::default() });
    (bench, "anthropic")
}

#[tokio::test]
async fn a_slow_model_is_raced_by_the_next() {
    let (bench, faster) = hedged(Duration::from_secs(15), "hedge_ms = 150").await;
    let begun = Instant::now();
    let served = soon(bench.gateway.complete(&call(), ChatRequest::new("", "hello"))).await.unwrap();
    assert!(begun.elapsed() < Duration::from_secs(5), "{:?}", begun.elapsed());
    assert_eq!(served.report.model.provider.as_str(), faster);
    assert_eq!(served.value.text(), "You said: hello");
    assert!(served.report.is_degraded());
    // The slower one is freed at once, and what it was asked for is counted.
    soon(bench.server.idle()).await;
    let entries = soon(bench.book.entries(1)).await;
    assert_eq!(entries[0].outcome, Outcome::Done);
    assert!(entries[0].usage.estimated, "{:?}", entries[0].usage);
    assert_eq!(entries[0].model.as_ref().unwrap().provider.as_str(), faster);
}

#[tokio::test]
async fn a_quick_model_is_not_raced_and_hedging_is_off_by_default() {
    let (bench, _) = hedged(Duration::ZERO, "hedge_ms = 2000").await;
    let served = soon(bench.gateway.complete(&call(), ChatRequest::new("", "hello"))).await.unwrap();
    assert_eq!(served.report.model.provider.as_str(), "openai");
    assert_eq!(bench.server.records().len(), 1);
    let (bench, _) = hedged(Duration::from_millis(600), "").await;
    let served = soon(bench.gateway.complete(&call(), ChatRequest::new("", "hello"))).await.unwrap();
    assert_eq!(served.report.model.provider.as_str(), "openai");
    assert_eq!(bench.server.records().len(), 1);
}

#[tokio::test]
async fn when_the_racing_model_fails_the_first_still_serves() {
    let models = ["openai/gpt-5-mini", "anthropic/claude-haiku-5-5"];
    let bench = Bench::new(Options::default(), &task(&models, "attempts = 1\nhedge_ms = 100")).await;
    let slow = Trouble { delay: Duration::from_millis(700), ..Trouble::default() };
    bench.server.set_faults(Faults { sequence: vec![slow, Trouble::status(500)], rest: Trouble::default() });
    let served = soon(bench.gateway.complete(&call(), ChatRequest::new("", "hello"))).await.unwrap();
    assert_eq!(served.report.model.provider.as_str(), "openai");
    assert_eq!(bench.server.records().len(), 2);
}
