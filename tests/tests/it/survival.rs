//! Calls in progress survive what happens to servers.

use std::time::Duration;

use longhouse_emulators::twilio::{CallEvent, CallReport, Caller, Outcome, Step};
use tokio::sync::mpsc;
use tokio_postgres::Client;

use crate::binary::Server;

const LONG_ANSWER: &str = "What are your opening hours?";

async fn turns(database: &Client, call_sid: &str) -> Vec<(String, String)> {
    database
        .query(
            "select t.speaker::text, t.text from receptionist.turns t
             join receptionist.calls c on c.id = t.call_id where c.call_sid = $1 order by t.ordinal",
            &[&call_sid],
        )
        .await
        .unwrap()
        .iter()
        .map(|row| (row.get(0), row.get(1)))
        .collect()
}

/// Waits until the caller has heard a word.
async fn heard(events: &mut mpsc::Receiver<CallEvent>, word: &str) {
    let listening = async {
        while let Some(event) = events.recv().await {
            if matches!(&event, CallEvent::AgentWord { text, .. } if text.contains(word)) {
                return;
            }
        }
        panic!("the call ended before \"{word}\" was heard");
    };
    tokio::time::timeout(Duration::from_secs(60), listening).await.expect("the word is said within a minute");
}

fn conversation() -> Vec<Step> {
    vec![
        Step::reply(),
        Step::Say(LONG_ANSWER.into()),
        Step::reply(),
        Step::Say("How much is a beard trim?".into()),
        Step::reply(),
        Step::Hangup,
    ]
}

/// What was said and heard as stored rows, joined.
fn stored_text(turns: &[(String, String)], speaker: &str) -> String {
    turns
        .iter()
        .filter(|(who, _)| who == speaker)
        .map(|(_, text)| text.as_str())
        .collect::<Vec<_>>()
        .join(" ")
}

fn assert_whole(report: &CallReport) {
    assert_eq!(report.outcome, Outcome::HungUpByCaller, "{:?}", report.warnings);
    assert!(
        report.heard_text().contains("twenty dollars"),
        "{} {:?} {:?} {:?}",
        report.heard_text(),
        report.said,
        report.gaps_ms,
        report.streams
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn kill_minus_nine_loses_at_most_the_sentence_being_spoken() {
    let mut server = Server::start().await;
    let mut caller = Caller::new(server.call(conversation()));
    let mut events = caller.events();
    let call = tokio::spawn(caller.run());

    // In the middle of the second sentence of the second reply.
    heard(&mut events, "closed").await;
    server.kill();
    server.start_again().await;

    // The call went on by itself: its TwiML's redirect found the new server.
    let report = call.await.unwrap().unwrap();
    assert_whole(&report);
    assert_eq!(report.streams.len(), 2, "{:?}", report.streams);

    let database = server.database().await;
    let turns = turns(&database, &report.call_sid).await;
    let agent = stored_text(&turns, "agent");
    assert!(agent.starts_with("Hello, this is Marigold Hair Studio. How can I help you? "), "{agent}");
    // The first sentence of the interrupted reply had been heard in full, so it is stored.
    assert!(
        agent.contains("We are open Tuesday to Saturday from nine in the morning to six in the evening."),
        "{agent}"
    );
    assert!(agent.contains("twenty dollars"), "{agent}");
    assert_eq!(stored_text(&turns, "caller"), format!("{LONG_ANSWER} How much is a beard trim?"));
    let calls: i64 = database.query_one("select count(*) from receptionist.calls", &[]).await.unwrap().get(0);
    assert_eq!(calls, 1, "one call, however many servers answered it");
}

/// With time for a restart between the questions.
fn patient_conversation() -> Vec<Step> {
    let mut script = conversation();
    script.insert(3, Step::Wait(Duration::from_secs(12)));
    script
}

#[tokio::test(flavor = "multi_thread")]
async fn sigterm_drops_no_call() {
    let mut server = Server::start().await;
    let mut calls = Vec::new();
    let mut first_events = None;
    for delay_ms in [0u64, 700, 1_900] {
        let mut caller = Caller::new(server.call(patient_conversation()));
        first_events.get_or_insert(caller.events());
        calls.push(tokio::spawn(async move {
            tokio::time::sleep(Duration::from_millis(delay_ms)).await;
            caller.run().await.unwrap()
        }));
    }
    heard(&mut first_events.unwrap(), "Tuesday").await;
    let (code, took) = server.terminate().await;
    assert_eq!(code, Some(0), "{}", server.log());
    assert!(took < Duration::from_secs(20), "drained after {took:?}");
    server.start_again().await;

    let database = server.database().await;
    for call in calls {
        let report = call.await.unwrap();
        assert_whole(&report);
        assert_eq!(report.violations().count(), 0, "{:?}", report.violations().collect::<Vec<_>>());
        let turns = turns(&database, &report.call_sid).await;
        assert_eq!(stored_text(&turns, "caller"), format!("{LONG_ANSWER} How much is a beard trim?"));
        // Nobody was cut off: what had been said before the handover was heard to its end.
        assert!(stored_text(&turns, "agent").contains("closed on Sunday and Monday."), "{turns:?}");
    }
}
