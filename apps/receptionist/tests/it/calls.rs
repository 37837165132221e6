//! A whole call, as its caller hears it.

use longhouse_emulators::twilio::{Caller, Outcome, Step};

use crate::harness::{GREETING, TestApp};

#[tokio::test(flavor = "multi_thread")]
async fn a_call_is_greeted_answered_from_knowledge_and_stored() {
    let app = TestApp::start().await;
    let options = app.call(vec![
        Step::reply(),
        Step::Say("How much is a haircut?".into()),
        Step::reply(),
        Step::Hangup,
    ]);
    let report = Caller::new(options).run().await.unwrap();

    assert_eq!(report.outcome, Outcome::HungUpByCaller, "{:?}", report.warnings);
    assert!(report.greeting_ms.unwrap() < 1_000, "greeted after {:?} ms", report.greeting_ms);
    let heard = report.heard_text();
    assert!(heard.starts_with(GREETING), "{heard}");
    assert!(heard.contains("forty-five dollars"), "{heard}");
    assert_eq!(report.violations().count(), 0, "{:?}", report.violations().collect::<Vec<_>>());

    app.wait_for_outcome(&report.call_sid, "caller_hung_up").await;
    let turns = app.turns(&report.call_sid).await;
    let speakers: Vec<&str> = turns.iter().map(|(speaker, _, _)| speaker.as_str()).collect();
    assert_eq!(speakers, ["agent", "caller", "agent"], "{turns:?}");
    assert_eq!(turns[0].1, GREETING);
    assert_eq!(turns[1].1, "How much is a haircut?");
    assert_eq!(format!("{GREETING} {}", turns[2].1), heard, "stored is what was heard");
    let tools: i64 = app
        .owner
        .query_one("select count(*) from receptionist.tool_runs where name = 'search_knowledge'", &[])
        .await
        .unwrap()
        .get(0);
    assert_eq!(tools, 1);
}
