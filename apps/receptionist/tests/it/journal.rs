//! The transcript: in the order of speech, whole through an outage, and written by one stream at a time.

use std::time::Duration;

use longhouse_emulators::openai::{Rule, ToolCall};
use longhouse_emulators::twilio::{Caller, Step, frames};
use serde_json::json;

use crate::handshake::{
    ACCOUNT_SID, CALL_SID, PATIENCE, STREAM_SID, greeting, open, ring, start, until_closed,
};
use crate::harness::{GREETING, Setup, TestApp, reply, say};
use crate::outage::Road;
use crate::webhook::parameter;

/// Waits until a query of the owner's says true.
async fn until(app: &TestApp, what: &str, query: &str) {
    tokio::time::timeout(PATIENCE, async {
        while !app.owner.query_one(query, &[]).await.unwrap().get::<_, bool>(0) {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    })
    .await
    .unwrap_or_else(|_| panic!("{what}: not within {PATIENCE:?}"));
}

fn conversation() -> Setup {
    let mut setup = Setup::quick();
    setup.upstream.rules = vec![
        Rule::say(&["one"], "The answer to the first question is this."),
        Rule::say(&["two"], "The answer to the second question is that."),
        Rule::say(&["three"], "The answer to the third question is none."),
    ];
    setup
}

const CONVERSATION: [(&str, &str); 7] = [
    ("agent", GREETING),
    ("caller", "Question one"),
    ("agent", "The answer to the first question is this."),
    ("caller", "Question two"),
    ("agent", "The answer to the second question is that."),
    ("caller", "Question three"),
    ("agent", "The answer to the third question is none."),
];

fn script() -> Vec<Step> {
    let mut script = vec![reply()];
    for (who, text) in CONVERSATION {
        if who == "caller" {
            script.extend([say(text), reply()]);
        }
    }
    script.push(Step::Hangup);
    script
}

async fn assert_whole(app: &TestApp, call_sid: &str) {
    let turns = app.turns(call_sid).await;
    let said: Vec<(&str, &str)> = turns.iter().map(|(who, text, _)| (who.as_str(), text.as_str())).collect();
    assert_eq!(said, CONVERSATION);
    let ordered: bool = app
        .owner
        .query_one(
            "select coalesce(bool_and(started_ms >= before), true) and count(*) = max(ordinal) + 1 from
               (select ordinal, started_ms, lag(started_ms, 1, 0::bigint) over (order by ordinal) as before
                from receptionist.turns t join receptionist.calls c on c.id = t.call_id where call_sid = $1) t",
            &[&call_sid],
        )
        .await
        .unwrap()
        .get(0);
    assert!(ordered, "ordinals without gaps, in the order of time");
}

/// What the caller said is known only after the agent has begun to answer it.
#[tokio::test(flavor = "multi_thread")]
async fn late_transcripts_keep_their_place() {
    let mut setup = conversation();
    setup.upstream.transcription_delay = Duration::from_millis(1_200);
    let app = TestApp::with(setup).await;
    let mut script = script();
    script.insert(script.len() - 1, Step::Wait(Duration::from_millis(1_500)));
    let report = Caller::new(app.quick_call(script)).run().await.unwrap();
    app.wait_for_outcome(&report.call_sid, "caller_hung_up").await;
    assert_whole(&app, &report.call_sid).await;
}

/// Two seconds without a database in the middle of a call: the caller notices nothing, the record is whole.
#[tokio::test(flavor = "multi_thread")]
async fn an_outage_in_mid_call_loses_nothing() {
    let app = TestApp::with(conversation()).await;
    let call = tokio::spawn(Caller::new(app.quick_call(script())).run());
    until(&app, "the greeting", "select exists (select from receptionist.turns)").await;
    app.outage.set(Road::Gone);
    // The outage itself: the call goes on meanwhile.
    tokio::time::sleep(Duration::from_secs(2)).await;
    app.outage.set(Road::Open);
    let report = call.await.unwrap().unwrap();
    assert_eq!(report.violations().count(), 0);
    assert_eq!(report.unanswered, 0, "the caller waited for a database");
    app.wait_for_outcome(&report.call_sid, "caller_hung_up").await;
    assert_whole(&app, &report.call_sid).await;
}

/// The same when the call ends meanwhile: its end is stored when the database is back.
#[tokio::test(flavor = "multi_thread")]
async fn a_call_that_ends_in_an_outage_is_finished_afterwards() {
    let app = TestApp::with(conversation()).await;
    let stream = ring(&app, CALL_SID).await;
    let mut client = open(&app).await;
    client.send_text(start(CALL_SID, parameter(&stream, "token"))).await.unwrap();
    greeting(&mut client).await;
    app.outage.set(Road::Gone);
    client.send_text(frames::stop(STREAM_SID, 9, ACCOUNT_SID, CALL_SID)).await.unwrap();
    tokio::time::sleep(Duration::from_secs(2)).await;
    assert_eq!(app.call_row(CALL_SID).await.0, "in_progress", "the outage did not happen");
    app.outage.set(Road::Open);
    app.wait_for_outcome(CALL_SID, "caller_hung_up").await;
}

/// A server that lost a call to another one, and does not know it yet, writes nothing more into it.
#[tokio::test(flavor = "multi_thread")]
async fn an_overtaken_stream_writes_nothing() {
    let search = |query: &str| {
        vec![ToolCall { name: "search_knowledge".into(), arguments: json!({ "query": query }) }]
    };
    let mut setup = Setup::quick();
    setup.upstream.rules = vec![
        Rule::call(&["pressed the 5 key"], search("old")),
        Rule::call(&["pressed the 7 key"], search("new")),
    ];
    let app = TestApp::with(setup).await;
    let first = ring(&app, CALL_SID).await;
    let mut old = open(&app).await;
    old.send_text(start(CALL_SID, parameter(&first, "token"))).await.unwrap();
    greeting(&mut old).await;

    let second = ring(&app, CALL_SID).await;
    let mut new = open(&app).await;
    new.send_text(start(CALL_SID, parameter(&second, "token"))).await.unwrap();
    until(&app, "the takeover", "select opened_epoch = 2 from receptionist.calls").await;

    old.send_text(frames::dtmf(STREAM_SID, 5, '5')).await.unwrap();
    let tools_answered = |session: usize| {
        app.upstream
            .sessions()
            .get(session)
            .is_some_and(|s| s.client_events.iter().any(|e| e.body["item"]["type"] == "function_call_output"))
    };
    wait_until("the old stream's tool", || tools_answered(0)).await;
    old.send_text(frames::stop(STREAM_SID, 6, ACCOUNT_SID, CALL_SID)).await.unwrap();
    // Closed means that everything it wanted to write has been tried.
    until_closed(&mut old).await;
    assert_eq!(app.call_row(CALL_SID).await, ("in_progress".into(), None), "the old stream ended the call");

    wait_until("the new stream's session", || app.upstream.sessions().len() == 2).await;
    new.send_text(frames::dtmf(STREAM_SID, 5, '7')).await.unwrap();
    wait_until("the new stream's tool", || tools_answered(1)).await;
    new.send_text(frames::stop(STREAM_SID, 6, ACCOUNT_SID, CALL_SID)).await.unwrap();
    app.wait_for_outcome(CALL_SID, "caller_hung_up").await;

    let transcript = app.transcript(CALL_SID).await;
    assert!(transcript.contains("pressed the 7 key"), "{transcript}");
    assert!(!transcript.contains("pressed the 5 key"), "{transcript}");
    let tools: Vec<String> = app
        .owner
        .query("select arguments from receptionist.tool_runs", &[])
        .await
        .unwrap()
        .iter()
        .map(|row| row.get(0))
        .collect();
    assert!(tools.len() == 1 && tools[0].contains("new"), "{tools:?}");
}

async fn wait_until(what: &str, mut done: impl FnMut() -> bool) {
    tokio::time::timeout(PATIENCE, async {
        while !done() {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    })
    .await
    .unwrap_or_else(|_| panic!("{what}: not within {PATIENCE:?}"));
}
