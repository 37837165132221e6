//! T7: what the agent's tools do to a call, and what the caller hears meanwhile.

use std::time::Duration;

use longhouse_emulators::openai::{Fault, Faults, Match, Rule, SessionRecord, Then, ToolCall};
use longhouse_emulators::twilio::{Caller, Outcome, Step};
use regex::Regex;
use serde_json::{Value, json};

use crate::harness::{Setup, TestApp, reply, say};

const FILLER: &str = "Let me look.";

fn search(query: impl Into<Value>) -> ToolCall {
    ToolCall { name: "search_knowledge".into(), arguments: json!({ "query": query.into() }) }
}

/// A rule for the model after a tool has answered.
fn after(output: &str, text: &str) -> Rule {
    Rule { when: Match::ToolOutput(Regex::new(output).unwrap()), then: Then::Say(text.into()) }
}

/// What the model says when it is told what to say. (These tests have no greeting.)
fn filler() -> Rule {
    Rule { when: Match::Greeting, then: Then::Say(FILLER.into()) }
}

fn count(session: &SessionRecord, kind: &str, item: Option<&str>) -> usize {
    let of = |body: &Value| item.is_none_or(|item| body["item"]["type"] == item);
    session.client_events.iter().filter(|event| event.kind == kind && of(&event.body)).count()
}

/// (name, output) of the tools run.
async fn tool_runs(app: &TestApp) -> Vec<(String, String)> {
    let rows =
        app.owner.query("select name, output::text from receptionist.tool_runs order by id", &[]).await;
    rows.unwrap().iter().map(|row| (row.get(0), row.get(1))).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn two_tools_in_one_response_are_answered_by_one() {
    let mut setup = Setup::quick();
    setup.upstream.rules = vec![
        after("Prices", "Forty-five dollars, and we open at nine."),
        Rule::call(&["both"], vec![search("price of a haircut"), search("opening hours")]),
    ];
    let app = TestApp::with(setup).await;
    app.set_agent(None, None).await;
    let call = app.quick_call(vec![say("Both please"), reply(), Step::Hangup]);
    let report = Caller::new(call).run().await.unwrap();

    assert_eq!(report.heard_text(), "Forty-five dollars, and we open at nine.");
    let session = &app.upstream.sessions()[0];
    assert_eq!(session.errors, [], "no second response while one is active (defect 32)");
    assert_eq!(count(session, "conversation.item.create", Some("function_call_output")), 2);
    assert_eq!(count(session, "response.create", None), 1, "one follow-up for both");
    app.wait_for_outcome(&report.call_sid, "caller_hung_up").await;
    assert_eq!(tool_runs(&app).await.len(), 2);
}

/// The knowledge table is locked by somebody: the caller hears that the agent is looking, then an apology.
#[tokio::test(flavor = "multi_thread")]
async fn a_slow_tool_is_filled_with_speech_and_ends_in_an_apology() {
    let mut setup = Setup::quick();
    setup.session.filler_after = Duration::from_millis(400);
    setup.session.tool_timeout = Duration::from_millis(3_000);
    setup.upstream.rules = vec![after("too long", "Sorry, I cannot look that up."), filler()];
    let app = TestApp::with(setup).await;
    app.set_agent(None, None).await;
    app.owner
        .batch_execute("begin; lock table receptionist.knowledge in access exclusive mode")
        .await
        .unwrap();
    let call = app.quick_call(vec![say("What is the price?"), reply(), reply(), Step::Hangup]);
    let report = Caller::new(call).run().await.unwrap();
    app.owner.batch_execute("rollback").await.unwrap();

    assert_eq!(report.heard_text(), format!("{FILLER} Sorry, I cannot look that up."));
    assert_eq!(report.unanswered, 0);
    assert!(report.reply_latencies_ms[0] < 1_800, "the silence was filled: {:?}", report.reply_latencies_ms);
    assert_eq!(app.upstream.sessions()[0].errors, []);
    app.wait_for_outcome(&report.call_sid, "caller_hung_up").await;
    assert_eq!(tool_runs(&app).await.len(), 1, "the answer that came too late is not a second one");
}

#[tokio::test(flavor = "multi_thread")]
async fn tools_that_fail_and_arguments_that_are_none_are_explained_to_the_model() {
    let mut setup = Setup::quick();
    setup.upstream.rules = vec![
        after("not a JSON object", "I said that wrong."),
        after("is missing", "I forgot the question."),
        after("search failed", "The search is broken."),
        Rule::call(
            &["garbage"],
            vec![ToolCall { name: "search_knowledge".into(), arguments: json!("oops") }],
        ),
        Rule::call(&["empty"], vec![search(" ")]),
    ];
    let app = TestApp::with(setup).await;
    app.set_agent(None, None).await;
    let call =
        app.quick_call(vec![say("Garbage please"), reply(), say("Empty please"), reply(), Step::Hangup]);
    let report = Caller::new(call).run().await.unwrap();
    assert_eq!(report.heard_text(), "I said that wrong. I forgot the question.");

    // An error is not "nothing found" (B13): the model must not say that the business does not know.
    app.owner.batch_execute("alter table receptionist.knowledge rename to mislaid").await.unwrap();
    let call = app.quick_call(vec![say("What is the price?"), reply(), Step::Hangup]);
    let report = Caller::new(call).run().await.unwrap();
    assert_eq!(report.heard_text(), "The search is broken.");
    for session in app.upstream.sessions() {
        assert_eq!(session.errors, []);
    }
}

/// The caller goes on speaking while the model is half-way through a call: that call never happened.
#[tokio::test(flavor = "multi_thread")]
async fn a_cancelled_call_is_not_run() {
    let mut setup = Setup::quick();
    setup.upstream.rules = vec![Rule::say(&["hello"], "Yes?")];
    setup.upstream.faults = Faults::first(1, Fault { cancel_mid_tool: true, ..Fault::default() });
    let app = TestApp::with(setup).await;
    app.set_agent(None, None).await;
    let call = app.quick_call(vec![
        say("What is the price?"),
        Step::Wait(Duration::from_millis(1_500)),
        say("Hello?"),
        reply(),
        Step::Hangup,
    ]);
    let report = Caller::new(call).run().await.unwrap();

    assert_eq!(report.heard_text(), "Yes?");
    app.wait_for_outcome(&report.call_sid, "caller_hung_up").await;
    assert_eq!(tool_runs(&app).await, []);
    let session = &app.upstream.sessions()[0];
    assert_eq!(count(session, "conversation.item.create", None), 0, "no output for a call that was not made");
    assert_eq!(session.errors, []);
}

#[tokio::test(flavor = "multi_thread")]
async fn the_agent_ends_a_call_when_its_goodbye_has_been_heard() {
    let app = TestApp::with(Setup::quick()).await;
    app.set_agent(None, None).await;
    let mut call = app.quick_call(vec![say("Goodbye then")]);
    call.stay_on_line = true;
    let report = Caller::new(call).run().await.unwrap();

    assert_eq!(report.heard_text(), "Thank you for calling. Goodbye!");
    assert_eq!(report.outcome, Outcome::EndedByServer);
    assert!(report.twiml.last().unwrap().contains("<Hangup"), "{:?}", report.twiml);
    assert_eq!(report.violations().count(), 0);
    assert_eq!(app.call_row(&report.call_sid).await, ("completed".into(), Some("agent_ended".into())));
    let turns = app.turns(&report.call_sid).await;
    assert_eq!(turns[1], ("agent".into(), "Thank you for calling. Goodbye!".into(), false));
    assert!(report.announced.is_empty());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_caller_who_wants_a_person_is_put_through() {
    let app = TestApp::with(Setup::quick()).await;
    app.set_agent(None, Some("+12025550177")).await;
    let mut call = app.quick_call(vec![say("Give me a person")]);
    call.stay_on_line = true;
    let report = Caller::new(call).run().await.unwrap();

    assert_eq!(report.heard_text(), "One moment, I am connecting you.");
    assert_eq!(report.outcome, Outcome::Forwarded { to: "+12025550177".into() });
    assert_eq!(app.call_row(&report.call_sid).await, ("completed".into(), Some("transferred".into())));
}
