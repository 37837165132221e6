//! T9: however a call ends, it ends once, and a call that can go on does.

use std::net::SocketAddr;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use longhouse_emulators::openai::{Rule, SessionRecord};
use longhouse_emulators::twilio::{CallEvent, CallOptions, CallReport, Caller, Outcome, Step};
use tokio::net::{TcpListener, TcpStream};
use tokio_util::sync::CancellationToken;
use url::Url;

use crate::harness::{Setup, TestApp, reply, say};

const HELLO: &str = "Marigold here, hello!";
const PRICE: &str = "Forty-five dollars.";
const LONG: &str = "We can cut and colour and curl and braid and wash and dry and trim and shape your hair, and we can \
                    also do beards and brows and nails and make up and much more on any day that suits you well.";

fn setup() -> Setup {
    let mut setup = Setup::quick();
    setup.upstream.rules = vec![
        Rule::say(&["services"], LONG),
        Rule::say(&["price"], PRICE),
        Rule::say(&["name"], "Nice to meet you."),
    ];
    setup
}

async fn app(setup: Setup) -> TestApp {
    let app = TestApp::with(setup).await;
    app.set_agent(Some(HELLO), None).await;
    app
}

/// What the load balancer in front of several servers does: new connections go to the current one.
struct Switch {
    address: SocketAddr,
    target: Arc<Mutex<Option<SocketAddr>>>,
    cables: Arc<Mutex<CancellationToken>>,
}

impl Switch {
    async fn start() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let target = Arc::new(Mutex::new(None));
        let cables = Arc::new(Mutex::new(CancellationToken::new()));
        let (to, connected) = (Arc::clone(&target), Arc::clone(&cables));
        tokio::spawn(async move {
            while let Ok((mut near, _)) = listener.accept().await {
                let cable = connected.lock().unwrap().clone();
                let to: SocketAddr = to.lock().unwrap().expect("the switch has a target");
                tokio::spawn(async move {
                    let mut far = TcpStream::connect(to).await.unwrap();
                    near.set_nodelay(true).unwrap();
                    far.set_nodelay(true).unwrap();
                    tokio::select! {
                        _ = tokio::io::copy_bidirectional(&mut near, &mut far) => {}
                        () = cable.cancelled() => {
                            // Neither side hears a goodbye.
                            near.set_zero_linger().unwrap();
                            far.set_zero_linger().unwrap();
                        }
                    }
                });
            }
        });
        Self { address, target, cables }
    }

    fn to(&self, server: SocketAddr) {
        *self.target.lock().unwrap() = Some(server);
    }

    /// Cuts every connection there is.
    fn cut(&self) {
        std::mem::take(&mut *self.cables.lock().unwrap()).cancel();
    }

    fn url(&self) -> Url {
        Url::parse(&format!("http://{}", self.address)).unwrap()
    }

    fn route(&self, mut call: CallOptions) -> CallOptions {
        call.webhook = self.url().join("/functions/v1/twilio-router").unwrap();
        call
    }
}

/// The upstream sessions are closed as soon as the call is over, since they cost money.
async fn assert_upstream_released(app: &TestApp) {
    for _ in 0..60 {
        if app.upstream.open_sessions() == 0 {
            return;
        }
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    panic!("{} upstream sessions are still open", app.upstream.open_sessions());
}

fn given(session: &SessionRecord, role: &str) -> Vec<String> {
    let items = session.client_events.iter().filter(|event| event.body["item"]["role"] == role);
    items.map(|event| event.body["item"]["content"][0]["text"].as_str().unwrap().to_owned()).collect()
}

fn times(report: &CallReport, part: &str) -> usize {
    report.heard_text().matches(part).count()
}

#[tokio::test(flavor = "multi_thread")]
async fn hanging_up_is_final_in_the_middle_of_a_sentence_and_of_a_tool() {
    let app = app(setup()).await;
    let in_sentence = app.quick_call(vec![
        reply(),
        say("Your services?"),
        Step::InterruptAfter { heard_ms: 1_500 },
        Step::Hangup,
    ]);
    let report = Caller::new(in_sentence).run().await.unwrap();
    assert_eq!(report.violations().count(), 0, "{:?}", report.streams);
    app.wait_for_outcome(&report.call_sid, "caller_hung_up").await;
    let turns = app.turns(&report.call_sid).await;
    let (_, said, interrupted) = turns.last().unwrap();
    assert!(
        *interrupted && said.len() > 5 && said.len() < LONG.len() && LONG.starts_with(said.as_str()),
        "{turns:?}"
    );

    app.owner
        .batch_execute("begin; lock table receptionist.knowledge in access exclusive mode")
        .await
        .unwrap();
    let in_tool = app.quick_call(vec![
        reply(),
        say("What is parking?"),
        Step::Wait(Duration::from_millis(1_100)),
        Step::Hangup,
    ]);
    let report = Caller::new(in_tool).run().await.unwrap();
    assert_eq!(report.violations().count(), 0, "{:?}", report.streams);
    app.wait_for_outcome(&report.call_sid, "caller_hung_up").await;
    assert_eq!(app.call_row(&report.call_sid).await.0, "completed");
    app.owner.batch_execute("rollback").await.unwrap();
    let session = app.upstream.sessions().pop().unwrap();
    let called = |(_, kind): &(u64, String)| kind == "response.function_call_arguments.done";
    assert!(session.server_events.iter().any(called), "the tool was running");
    assert_upstream_released(&app).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_call_whose_connection_breaks_is_left_open_for_its_return() {
    let app = app(setup()).await;
    let call = app.quick_call(vec![reply(), say("My name is Ada"), reply(), Step::AbruptDrop]);
    let report = Caller::new(call).run().await.unwrap();
    app.wait_for_outcome(&report.call_sid, "connection_lost").await;
    assert_eq!(app.call_row(&report.call_sid).await.0, "interrupted");
    assert_eq!(app.turns(&report.call_sid).await.len(), 3);
    assert_upstream_released(&app).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_call_that_comes_back_goes_on_where_it_stopped() {
    let switch = Switch::start().await;
    let app = app(Setup { public_url: Some(switch.url()), ..setup() }).await;
    switch.to(app.address);
    let mut caller = Caller::new(switch.route(app.quick_call(vec![
        reply(),
        say("My name is Ada"),
        reply(),
        say("Your services?"),
        Step::InterruptAfter { heard_ms: 1_000 },
        reply(), // the broken sentence, then what is said after the break
        say("Price please"),
        reply(),
        Step::Hangup,
    ])));
    let mut events = caller.events();
    let call = tokio::spawn(caller.run());
    while !matches!(events.recv().await.unwrap(), CallEvent::AgentWord { text, .. } if text == "wash") {}
    switch.cut();
    let report = call.await.unwrap().unwrap();

    assert_eq!(report.outcome, Outcome::HungUpByCaller, "{:?}", report.warnings);
    assert_eq!(report.streams.len(), 2);
    assert!(report.gaps_ms[0] < 1_000, "back after {:?} ms", report.gaps_ms);
    assert_eq!(times(&report, HELLO), 1, "{}", report.heard_text());
    assert!(report.heard_text().ends_with(PRICE), "{}", report.heard_text());
    app.wait_for_outcome(&report.call_sid, "caller_hung_up").await;

    let sessions = app.upstream.sessions();
    assert_eq!(sessions.len(), 2);
    assert_eq!(given(&sessions[1], "user"), ["My name is Ada", "Your services?"]);
    let said = given(&sessions[1], "assistant");
    assert_eq!(said[..2], [HELLO, "Nice to meet you."]);
    assert!(said[2].len() > 10 && LONG.starts_with(&said[2]), "what was heard of it: {said:?}");
    let turns = app.turns(&report.call_sid).await;
    assert_eq!(turns.last().unwrap().1, PRICE);
    assert_eq!(turns.iter().filter(|(_, text, _)| text == "Price please").count(), 1, "{turns:?}");
    assert_upstream_released(&app).await;
}

/// SIGTERM with calls in progress, in different states: a second server goes on with every one of them.
#[tokio::test(flavor = "multi_thread")]
async fn calls_in_progress_are_handed_to_another_server() {
    let switch = Switch::start().await;
    let with_url = || Setup { public_url: Some(switch.url()), ..setup() };
    let app = app(with_url()).await;
    switch.to(app.address);
    let (second, _second_drain, second_app) = app.second(with_url()).await;

    // At the end of a short answer; in the middle of a long one; when the caller has just said more.
    let asks = ["My name is Ada", "Your services?", "My name is Bob"];
    let states = [vec![], vec![], vec![Step::InterruptAfter { heard_ms: 400 }, say("I was wondering")]];
    let mut reached = Vec::new();
    let mut calls = Vec::new();
    for (ask, then) in asks.iter().zip(states) {
        let mut script = vec![reply(), say(ask)];
        script.extend(then);
        // What is being said and the announcement that follows it at once; then the agent on the other server.
        script.extend([reply(), reply(), say("Price please"), reply(), Step::Hangup]);
        let mut caller = Caller::new(switch.route(app.quick_call(script)));
        let mut events = caller.events();
        calls.push(tokio::spawn(caller.run()));
        let ask = (*ask).to_owned();
        reached.push(async move {
            let (mut asked, mut announced) = (false, false);
            while !announced && let Some(event) = events.recv().await {
                asked |= matches!(&event, CallEvent::CallerSays { text, .. } if *text == ask);
                announced = matches!(event, CallEvent::Announced { .. });
                if asked && matches!(event, CallEvent::AgentWord { .. }) {
                    return events;
                }
            }
            panic!("the call ended before it was answered");
        });
    }
    let events = futures_util::future::join_all(reached).await;
    app.drain.begin(Duration::from_secs(6));
    // The first server still answers the webhook, and asks for a moment's patience.
    let announcements = events.into_iter().map(|mut events| async move {
        while !matches!(events.recv().await, Some(CallEvent::Announced { .. }) | None) {}
    });
    futures_util::future::join_all(announcements).await;
    assert_eq!(app.receptionist.capacity().0, 0, "the first server has let every call go");
    switch.to(second);

    for (ask, call) in asks.iter().zip(calls) {
        let report = call.await.unwrap().unwrap();
        let heard = report.heard_text();
        assert_eq!(report.outcome, Outcome::HungUpByCaller, "{ask}: {:?}", report.warnings);
        assert_eq!(report.violations().count(), 0, "{ask}: {:?}", report.streams);
        assert_eq!(report.streams.len(), 2, "{ask}");
        assert_eq!(times(&report, HELLO), 1, "{ask}: {heard}");
        assert!(heard.contains("One moment, please."), "{ask}: {heard}");
        assert!(heard.ends_with(PRICE), "{ask}: {heard}");

        app.wait_for_outcome(&report.call_sid, "caller_hung_up").await;
        assert_eq!(app.call_row(&report.call_sid).await.0, "completed");
        let turns = app.turns(&report.call_sid).await;
        assert_eq!(turns.iter().filter(|(_, text, _)| text == ask).count(), 1, "{turns:?}");
        assert_eq!(turns.iter().filter(|(_, text, _)| text == PRICE).count(), 1, "{turns:?}");
        assert_eq!((turns[0].1.as_str(), turns.last().unwrap().1.as_str()), (HELLO, PRICE));
        // Exactly one session knows what this caller said on the first server.
        let told = app.upstream.sessions();
        let told = told.iter().filter(|session| given(session, "user").iter().any(|text| text == ask));
        assert_eq!(told.count(), 1, "{ask}");
    }
    assert_eq!(second_app.capacity().0, 0);
    assert_eq!(app.upstream.sessions().len(), 2 * asks.len());
    assert_upstream_released(&app).await;
}
