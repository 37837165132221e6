//! T4 and T8: the speech service is slow, odd, gone for a moment, gone for good, or simply at the end of its hour.

use std::time::Duration;

use longhouse_emulators::openai::{Action, After, Fault, Faults, Rule, SessionRecord};
use longhouse_emulators::twilio::{CallReport, Caller, Outcome, Step};
use serde_json::Value;

use crate::harness::{Setup, TestApp, reply, say};

const HELLO: &str = "Marigold here, hello!";
const HOURS: &str =
    "We open at nine in the morning and we close at six in the evening on every day but Sunday.";
const PRICE: &str = "Forty-five dollars.";

fn setup() -> Setup {
    let mut setup = Setup::quick();
    setup.upstream.rules = vec![Rule::say(&["hours"], HOURS), Rule::say(&["price"], PRICE)];
    setup
}

async fn app(setup: Setup) -> TestApp {
    let app = TestApp::with(setup).await;
    app.set_agent(Some(HELLO), None).await;
    app
}

/// Texts of the messages of a role that the session was given when it took over.
fn given(session: &SessionRecord, role: &str) -> Vec<String> {
    let items = session.client_events.iter().filter(|event| event.body["item"]["role"] == role);
    items.map(|event| event.body["item"]["content"][0]["text"].as_str().unwrap().to_owned()).collect()
}

fn asked_for_summary(session: &SessionRecord) -> usize {
    let is_summary = |body: &Value| body["response"]["metadata"]["purpose"] == "handover-summary";
    session.client_events.iter().filter(|event| is_summary(&event.body)).count()
}

fn times(text: &str, part: &str) -> usize {
    text.matches(part).count()
}

/// The transcript holds what was heard, word for word but for one at each place where the audio broke off.
async fn assert_stored_as_heard(app: &TestApp, report: &CallReport, breaks: usize) {
    let (heard, stored) = (report.heard_text(), app.agent_text(&report.call_sid).await);
    let count = |text: &str| text.split_whitespace().count();
    assert!(count(&heard).abs_diff(count(&stored)) <= breaks, "heard  {heard}\nstored {stored}");
    if breaks == 0 {
        assert_eq!(heard, stored);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn words_said_before_the_model_is_ready_are_heard_and_the_greeting_comes_once() {
    let mut setup = setup();
    let broken =
        Fault { error_before_ready: Some(("server_error".into(), "Not yet.".into())), ..Fault::default() };
    let slow = Fault {
        created_delay: Duration::from_millis(300),
        updated_delay: Duration::from_millis(1_600),
        unknown_events: true,
        ..Fault::default()
    };
    setup.upstream.faults = Faults { sequence: vec![broken], rest: slow };
    let app = app(setup).await;
    // Everything is said before the model listens.
    let call =
        app.quick_call(vec![say("Price please"), reply(), Step::Wait(Duration::from_secs(1)), Step::Hangup]);
    let report = Caller::new(call).run().await.unwrap();

    let heard = report.heard_text();
    assert_eq!(times(&heard, HELLO), 1, "{heard}");
    assert_eq!(times(&heard, PRICE), 1, "{heard}");
    assert_eq!(report.violations().count(), 0, "{:?}", report.streams);
    let sessions = app.upstream.sessions();
    assert_eq!(sessions.len(), 2);
    let words: Vec<&str> = sessions[1].heard.iter().map(|word| word.text.as_str()).collect();
    assert_eq!(words, ["Price", "please"]);
    assert_ne!(sessions[1].closed.as_ref().unwrap().code, 4_000, "the shape of the beta was not used");
    let odd = sessions[1].server_events.iter().filter(|(_, kind)| kind == "emulator.unheard_of").count();
    assert!(odd >= 2, "events that nobody knows were sent");
    let configured: Vec<&Value> = sessions[1]
        .client_events
        .iter()
        .filter(|e| e.kind == "session.update")
        .map(|e| &e.body["session"])
        .collect();
    assert_eq!(configured.len(), 1);
    assert_eq!(configured[0]["audio"]["input"]["format"]["type"], "audio/pcmu");
    assert_eq!(configured[0]["audio"]["output"]["format"]["type"], "audio/pcmu");

    app.wait_for_outcome(&report.call_sid, "caller_hung_up").await;
    let turns = app.turns(&report.call_sid).await;
    assert!(turns.iter().any(|(who, text, _)| who == "caller" && text == "Price please"), "{turns:?}");
    assert_stored_as_heard(&app, &report, 0).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_ordinary_call_causes_no_upstream_error() {
    let app = app(setup()).await;
    let call = app.quick_call(vec![reply(), say("Price please"), reply(), Step::Hangup]);
    let report = Caller::new(call).run().await.unwrap();
    assert_eq!(report.heard_text(), format!("{HELLO} {PRICE}"));
    let session = &app.upstream.sessions()[0];
    assert_eq!(session.errors, []);
    // B11: with server VAD the client neither commits nor asks for the answer. The one response is the greeting.
    let sent = |kind: &str| session.client_events.iter().filter(|event| event.kind == kind).count();
    assert_eq!((sent("input_audio_buffer.commit"), sent("response.create")), (0, 1));
}

/// One call during which the speech service fails in the middle of a sentence.
async fn broken_call(fault: Fault) {
    let what = format!("{fault:?}");
    let mut setup = setup();
    setup.session.stall_timeout = Duration::from_millis(1_000);
    setup.upstream.faults = Faults::first(1, fault);
    // Slower than usual, so that the sentence has not been sent when the service fails.
    setup.upstream.delta_gap = Duration::from_millis(150);
    let app = app(setup).await;
    let call = app.quick_call(vec![
        reply(),
        say("Your hours?"),
        reply(),
        say("Price please"),
        reply(),
        Step::Hangup,
    ]);
    let report = Caller::new(call).run().await.unwrap();

    let heard = report.heard_text();
    assert_eq!(report.outcome, Outcome::HungUpByCaller, "{what}");
    assert_eq!(times(&heard, HELLO), 1, "{what}: {heard}");
    assert_eq!(times(&heard, "We open at"), 1, "{what}: {heard}");
    assert!(heard.ends_with(PRICE), "{what}: {heard}");
    assert_eq!(report.unanswered, 0, "{what}");
    let sessions = app.upstream.sessions();
    assert_eq!(sessions.len(), 2, "{what}");
    assert_eq!(given(&sessions[1], "user"), ["Your hours?"], "{what}");
    let told = given(&sessions[1], "assistant");
    assert_eq!(told[0], HELLO, "{what}");
    assert!(told[1].len() > 10 && HOURS.starts_with(told[1].as_str()), "{what}: {told:?}");
    assert_eq!(sessions[1].errors, [], "{what}");
    app.wait_for_outcome(&report.call_sid, "caller_hung_up").await;
    assert_stored_as_heard(&app, &report, 1).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_call_goes_on_when_the_speech_service_breaks_off_in_a_sentence() {
    // The greeting lasts about a second; this is in the middle of the next sentence.
    let after = After::AudioOut(Duration::from_secs(3));
    tokio::join!(
        broken_call(Fault::close(after, 1011, "internal error")),
        broken_call(Fault::action(after, Action::Drop)),
        broken_call(Fault::action(after, Action::Expire)),
        broken_call(Fault::action(after, Action::Silence)),
    );
}

/// The service fails while the caller is in mid-sentence: the next session hears the sentence whole.
#[tokio::test(flavor = "multi_thread")]
async fn a_caller_is_heard_whole_when_the_speech_service_breaks_off() {
    let mut setup = setup();
    setup.upstream.faults =
        Faults::first(1, Fault::close(After::AudioIn(Duration::from_millis(3_400)), 1011, ""));
    let app = app(setup).await;
    let sentence = "I would like to know the price of a haircut for my old dog";
    let call = app.quick_call(vec![reply(), say(sentence), reply(), Step::Hangup]);
    let report = Caller::new(call).run().await.unwrap();

    assert_eq!(report.heard_text(), format!("{HELLO} {PRICE}"));
    app.wait_for_outcome(&report.call_sid, "caller_hung_up").await;
    let sessions = app.upstream.sessions();
    assert_eq!(sessions.len(), 2);
    assert!(!sessions[0].heard.is_empty(), "it failed in mid-sentence");
    let turns = app.turns(&report.call_sid).await;
    let said: Vec<&str> = turns.iter().filter(|t| t.0 == "caller").map(|t| t.1.as_str()).collect();
    assert_eq!(said, [sentence]);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_service_that_is_overloaded_for_a_moment_is_tried_again() {
    let mut setup = setup();
    setup.upstream.faults = Faults::first(2, Fault::refuse(503));
    let app = app(setup).await;
    let call = app.quick_call(vec![reply(), say("Price please"), reply(), Step::Hangup]);
    let report = Caller::new(call).run().await.unwrap();
    assert_eq!(report.heard_text(), format!("{HELLO} {PRICE}"));
    assert!(report.greeting_ms.unwrap() < 2_000, "{:?}", report.greeting_ms);
    assert_eq!((app.upstream.refused(), app.upstream.sessions().len()), (2, 1));
}

/// A call that nobody can answer, by the TwiML that follows the stream.
async fn hopeless_call(fault: Faults, forward: Option<&str>, most_ms: u32) -> CallReport {
    let mut setup = setup();
    setup.session.outage_budget = Duration::from_millis(1_500);
    setup.upstream.faults = fault;
    let app = TestApp::with(setup).await;
    app.set_agent(Some(HELLO), forward).await;
    let mut call = app.quick_call(vec![]);
    call.stay_on_line = true;
    let report = Caller::new(call).run().await.unwrap();

    assert_eq!(app.call_row(&report.call_sid).await, ("completed".into(), Some("upstream_failed".into())));
    assert_eq!(report.announced.len(), 1, "{:?}", report.twiml);
    assert!(report.announced[0].0 < most_ms, "announced after {} ms", report.announced[0].0);
    assert_eq!(report.violations().count(), 0);
    report
}

#[tokio::test(flavor = "multi_thread")]
async fn a_caller_whom_no_model_can_answer_gets_an_apology_or_a_person() {
    let mid_call = Faults {
        sequence: vec![Fault::close(After::AudioIn(Duration::from_secs(2)), 1011, "")],
        rest: Fault::refuse(503),
    };
    let (unauthorised, forwarded, broken) = tokio::join!(
        // A wrong key does not get better by waiting.
        hopeless_call(Faults::all(Fault::refuse(401)), None, 600),
        hopeless_call(Faults::all(Fault::refuse(503)), Some("+12025550177"), 3_500),
        hopeless_call(mid_call, None, 5_500),
    );
    assert_eq!(unauthorised.outcome, Outcome::EndedByServer);
    assert!(unauthorised.announced[0].1.contains("cannot take your call"), "{:?}", unauthorised.announced);
    assert_eq!(forwarded.outcome, Outcome::Forwarded { to: "+12025550177".into() });
    assert_eq!(broken.outcome, Outcome::EndedByServer);
}

/// The cap is 5 s: several sessions serve one call, and the caller cannot tell.
#[tokio::test(flavor = "multi_thread")]
async fn sessions_take_over_from_each_other_before_their_cap() {
    const STORY: &str =
        "Listen, my hair is long and grey and my sister says it looks like hay, so what is the price";
    const LONG: &str =
        "One two three four five six seven eight nine ten eleven twelve thirteen fourteen fifteen sixteen.";
    let mut setup = setup();
    setup.session.session_cap = Duration::from_secs(5);
    // A session that has been relieved stays a moment for late words; the vendor must not end it meanwhile.
    setup.upstream.session_cap = Duration::from_secs(8);
    setup.upstream.rules.insert(0, Rule::say(&["count"], LONG));
    let app = app(setup).await;
    let call = app.quick_call(vec![
        reply(),
        say("Price please"),
        reply(),
        // Longer than what is left of any session: some takeover happens during each of these.
        say("Please count"),
        reply(),
        say(STORY),
        reply(),
        say("Your hours?"),
        reply(),
        Step::Hangup,
    ]);
    let report = Caller::new(call).run().await.unwrap();

    let heard = report.heard_text();
    assert_eq!(heard, [HELLO, PRICE, LONG, PRICE, HOURS].join(" "), "nothing lost, nothing twice");
    assert_eq!(report.unanswered, 0);
    assert!(report.duration_ms > 20_000);
    assert_eq!(report.streams.len(), 1, "the caller's stream was never touched");
    assert!(report.reply_latencies_ms.iter().all(|ms| *ms < 2_000), "{:?}", report.reply_latencies_ms);

    app.wait_for_outcome(&report.call_sid, "caller_hung_up").await;
    let turns = app.turns(&report.call_sid).await;
    let spoken: Vec<&str> = turns.iter().map(|(_, text, _)| text.as_str()).collect();
    assert_eq!(
        spoken,
        [HELLO, "Price please", PRICE, "Please count", LONG, STORY, PRICE, "Your hours?", HOURS]
    );

    let sessions = app.upstream.sessions();
    assert!(sessions.len() >= 4, "{} sessions", sessions.len());
    for (index, session) in sessions.iter().enumerate() {
        assert_eq!(session.errors, [], "session {index}");
        assert!(asked_for_summary(session) <= 1, "session {index}");
        // The last one may have been opened but not used.
        if index > 0 && session.appends > 0 {
            assert_eq!(asked_for_summary(&sessions[index - 1]), 1, "session {}", index - 1);
            assert_eq!(given(session, "system").len(), 1, "session {index}: one summary");
            assert_eq!(
                given(session, "assistant")[0],
                HELLO,
                "session {index} knows the call from its start"
            );
        }
    }
    // At every moment some session heard the caller: together at least as much as the caller's side sent.
    let sent = f64::from(u32::try_from(report.streams[0].frames_sent).unwrap()) * 0.02;
    let received: f64 = sessions.iter().map(|session| session.audio_in_seconds).sum();
    assert!(received > sent - 0.5, "of {sent:.1} s the model got {received:.1} s");
}
