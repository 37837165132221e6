//! The Twilio caller against a small customer application: TwiML over HTTP, streams over WebSocket.

// The application's own functions are test code too.
#![allow(clippy::unwrap_used)]

use std::collections::VecDeque;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use axum::Router;
use axum::body::Body;
use axum::extract::{Form, OriginalUri, Request, State};
use axum::http::{HeaderMap, Response, StatusCode, header};
use axum::routing::{any, post};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use futures_util::{FutureExt, SinkExt, StreamExt};
use hyper_util::rt::TokioIo;
use longhouse_emulators::g711::linear_to_mulaw;
use longhouse_emulators::speech::Speaker;
use longhouse_emulators::twilio::stream::{Received, Signature, StreamClient};
use longhouse_emulators::twilio::{
    CallEvent, CallOptions, CallReport, Caller, Error, Faults, Outcome, Step, sign,
};
use serde_json::{Value, json};
use tokio::net::{TcpListener, TcpSocket};
use tokio_tungstenite::WebSocketStream;
use tokio_tungstenite::tungstenite::Message;
use tokio_tungstenite::tungstenite::handshake::derive_accept_key;
use tokio_tungstenite::tungstenite::protocol::Role;
use url::Url;

const TOKEN: &str = "12345";

/// What the application does on a stream, by the time since `start`.
#[derive(Clone)]
enum Act {
    /// Sends this audio in one message, then this mark.
    Play(Vec<u8>, &'static str),
    /// Sends a `clear`.
    Clear,
    /// Sends this text with `SID` replaced.
    Raw(String),
    Binary,
    Wait(u64),
    /// Waits for a message of this event.
    Until(&'static str),
    /// Sends every caller frame back from now on, for ever.
    Echo,
    /// Reads nothing more.
    Deaf,
    /// Goes on after `stop`.
    IgnoreStop,
    Close,
}

#[derive(Default)]
struct Seen {
    /// Form parameters and whether the signature was right, per webhook request.
    webhooks: Vec<(Vec<(String, String)>, bool)>,
    /// Whether the signature was right, per upgrade.
    upgrades: Vec<bool>,
    /// Everything received on streams, with the time since the upgrade.
    messages: Vec<(u128, Value)>,
}

impl Seen {
    fn events(&self, kind: &str) -> Vec<(u128, Value)> {
        self.messages.iter().filter(|(_, m)| m["event"] == kind).cloned().collect()
    }
}

struct Application {
    base: Url,
    /// The origin that signatures are made for.
    public: String,
    twiml: Mutex<VecDeque<(u16, &'static str, String)>>,
    scripts: Mutex<VecDeque<Vec<Act>>>,
    seen: Mutex<Seen>,
}

impl Application {
    /// Answers webhooks with these documents in turn, streams with these scripts in turn.
    /// `{ws}` in a document is the origin for streams.
    async fn start(documents: &[&str], scripts: Vec<Vec<Act>>) -> Arc<Self> {
        Self::start_as(None, documents, scripts).await
    }

    async fn start_as(public: Option<&str>, documents: &[&str], scripts: Vec<Vec<Act>>) -> Arc<Self> {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        Self::serve(listener, public, documents, scripts)
    }

    fn serve(
        listener: TcpListener,
        public: Option<&str>,
        documents: &[&str],
        scripts: Vec<Vec<Act>>,
    ) -> Arc<Self> {
        let base = Url::parse(&format!("http://{}", listener.local_addr().unwrap())).unwrap();
        let public = public.map_or_else(|| base.as_str().trim_end_matches('/').to_owned(), str::to_owned);
        let sockets = public.replacen("http", "ws", 1);
        let twiml = documents
            .iter()
            .map(|body| {
                let body = body.replace("{ws}", &sockets);
                (
                    200,
                    "text/xml; charset=utf-8",
                    format!("<?xml version=\"1.0\"?><Response>{body}</Response>"),
                )
            })
            .collect();
        let app = Arc::new(Self {
            base,
            public,
            twiml: Mutex::new(twiml),
            scripts: Mutex::new(scripts.into()),
            seen: Mutex::default(),
        });
        let router = Router::new()
            .route("/voice", post(voice).get(voice_get))
            .route("/stream", any(upgrade))
            .with_state(Arc::clone(&app));
        tokio::spawn(async move { axum::serve(listener, router).await.unwrap() });
        app
    }

    fn options(&self, script: Vec<Step>) -> CallOptions {
        let mut options = CallOptions::new(self.base.join("/voice").unwrap(), TOKEN);
        options.script = script;
        options.speaker = Speaker::tone();
        options.max_duration = Duration::from_secs(20);
        options
    }

    async fn call(&self, script: Vec<Step>) -> CallReport {
        Caller::new(self.options(script)).run().await.unwrap()
    }

    fn next_twiml(&self) -> Response<Body> {
        let next = self.twiml.lock().unwrap().pop_front();
        let (status, kind, body) = next.unwrap_or((404, "text/plain", "no more documents".to_owned()));
        Response::builder().status(status).header(header::CONTENT_TYPE, kind).body(body.into()).unwrap()
    }
}

fn signed(headers: &HeaderMap, url: &str, params: &[(String, String)]) -> bool {
    headers.get("x-twilio-signature").is_some_and(|value| value == sign(url, params, TOKEN).as_str())
}

async fn voice(
    State(app): State<Arc<Application>>,
    OriginalUri(uri): OriginalUri,
    headers: HeaderMap,
    Form(params): Form<Vec<(String, String)>>,
) -> Response<Body> {
    let right = signed(&headers, &format!("{}{uri}", app.public), &params);
    app.seen.lock().unwrap().webhooks.push((params, right));
    app.next_twiml()
}

async fn voice_get(State(app): State<Arc<Application>>, request: Request) -> Response<Body> {
    let url = format!("{}{}", app.public, request.uri());
    let right = signed(request.headers(), &url, &[]);
    app.seen.lock().unwrap().webhooks.push((Vec::new(), right));
    app.next_twiml()
}

async fn upgrade(State(app): State<Arc<Application>>, mut request: Request) -> Response<Body> {
    let url =
        format!("{}/stream", app.public).replacen("https://", "wss://", 1).replacen("http://", "wss://", 1);
    let right = signed(request.headers(), &url, &[]);
    app.seen.lock().unwrap().upgrades.push(right);
    if !right {
        return Response::builder().status(StatusCode::FORBIDDEN).body("bad signature".into()).unwrap();
    }
    let accept = derive_accept_key(request.headers()["sec-websocket-key"].as_bytes());
    let upgraded = hyper::upgrade::on(&mut request);
    let script = app.scripts.lock().unwrap().pop_front().unwrap_or_default();
    tokio::spawn(async move {
        let io = TokioIo::new(upgraded.await.unwrap());
        serve_stream(&app, WebSocketStream::from_raw_socket(io, Role::Server, None).await, script).await;
    });
    Response::builder()
        .status(StatusCode::SWITCHING_PROTOCOLS)
        .header("connection", "upgrade")
        .header("upgrade", "websocket")
        .header("sec-websocket-accept", accept)
        .body(Body::empty())
        .unwrap()
}

type Socket = WebSocketStream<TokioIo<hyper::upgrade::Upgraded>>;

async fn serve_stream(app: &Application, mut socket: Socket, script: Vec<Act>) {
    let began = Instant::now();
    let mut sid = String::new();
    let (mut echo, mut ignore_stop) = (false, false);
    let mut script = VecDeque::from(script);
    let mut resume = None;
    let mut until = Some("start");
    loop {
        while until.is_none() && resume.is_none_or(|at| at <= Instant::now()) {
            resume = None;
            let Some(act) = script.pop_front() else { break };
            let text = match act {
                Act::Play(audio, mark) => {
                    let payload = STANDARD.encode(audio);
                    let media = json!({"event": "media", "streamSid": sid, "media": {"payload": payload}});
                    let _ = socket.send(Message::text(media.to_string())).await;
                    json!({"event": "mark", "streamSid": sid, "mark": {"name": mark}}).to_string()
                }
                Act::Clear => json!({"event": "clear", "streamSid": sid}).to_string(),
                Act::Raw(text) => text.replace("SID", &sid),
                Act::Binary => {
                    let _ = socket.send(Message::binary(vec![1, 2, 3])).await;
                    continue;
                }
                Act::Wait(ms) => {
                    resume = Some(Instant::now() + Duration::from_millis(ms));
                    continue;
                }
                Act::Until(event) => {
                    until = Some(event);
                    continue;
                }
                Act::Echo => {
                    echo = true;
                    continue;
                }
                Act::Deaf => {
                    tokio::time::sleep(Duration::from_secs(60)).await;
                    return;
                }
                Act::IgnoreStop => {
                    ignore_stop = true;
                    continue;
                }
                Act::Close => {
                    let _ = socket.close(None).await;
                    while let Some(Ok(_)) = socket.next().await {}
                    return;
                }
            };
            let _ = socket.send(Message::text(text)).await;
        }
        let pause = resume.map_or(Duration::from_secs(60), |at| at.saturating_duration_since(Instant::now()));
        let message = tokio::select! {
            message = socket.next() => message,
            () = tokio::time::sleep(pause) => continue,
        };
        let Some(Ok(message)) = message else { return };
        let Message::Text(text) = message else { continue };
        let value: Value = serde_json::from_str(&text).unwrap();
        let event = value["event"].as_str().unwrap().to_owned();
        app.seen.lock().unwrap().messages.push((began.elapsed().as_millis(), value.clone()));
        if event == "start" {
            sid = value["streamSid"].as_str().unwrap().to_owned();
        }
        if until.is_some_and(|awaited| awaited == event) {
            until = None;
        }
        if echo && event == "media" {
            let back =
                json!({"event": "media", "streamSid": sid, "media": {"payload": value["media"]["payload"]}});
            let _ = socket.send(Message::text(back.to_string())).await;
        }
        if event == "stop" && !ignore_stop {
            let _ = socket.close(None).await;
        }
    }
}

const STREAM: &str =
    "<Connect><Stream url=\"{ws}/stream\"><Parameter name=\"token\" value=\"a&amp;b\"/></Stream></Connect>";

/// A loud tone of `ms` milliseconds as mu-law.
fn tone(ms: usize) -> Vec<u8> {
    let samples: Vec<i16> = (0..ms * 8)
        .map(|n| (9000.0 * (n as f64 * 440.0 * std::f64::consts::TAU / 8000.0).sin()) as i16)
        .collect();
    linear_to_mulaw(&samples)
}

fn near(value: u32, expected: u32, tolerance: u32) -> bool {
    value.abs_diff(expected) <= tolerance
}

#[tokio::test]
async fn webhook_and_upgrade_are_signed_and_the_stream_follows_the_protocol() {
    let app = Application::start(&[STREAM], vec![vec![]]).await;
    let report = app.call(vec![Step::Wait(Duration::from_millis(300)), Step::Dtmf('5')]).await;
    assert_eq!(report.outcome, Outcome::HungUpByCaller);
    let seen = app.seen.lock().unwrap();
    let (params, right) = &seen.webhooks[0];
    assert!(right, "the webhook's signature");
    for (name, value) in [
        ("CallSid", report.call_sid.as_str()),
        ("From", "+15550199"),
        ("Caller", "+15550199"),
        ("To", "+15550100"),
        ("Called", "+15550100"),
        ("CallStatus", "ringing"),
        ("Direction", "inbound"),
        ("ApiVersion", "2010-04-01"),
    ] {
        assert!(params.contains(&(name.to_owned(), value.to_owned())), "{name}");
    }
    assert_eq!(report.call_sid.len(), 34);
    assert_eq!(seen.upgrades, [true]);
    assert_eq!(seen.messages[0].1, json!({"event": "connected", "protocol": "Call", "version": "1.0.0"}));
    let start = &seen.messages[1].1;
    assert_eq!(start["sequenceNumber"], "1");
    assert_eq!(start["start"]["callSid"], report.call_sid);
    assert_eq!(start["start"]["customParameters"], json!({"token": "a&b"}));
    assert_eq!(
        start["start"]["mediaFormat"],
        json!({"encoding": "audio/x-mulaw", "sampleRate": 8000, "channels": 1})
    );
    // Sequence numbers count every message after `start` without a gap.
    for (i, (_, message)) in seen.messages[1..].iter().enumerate() {
        assert_eq!(message["sequenceNumber"], (i + 1).to_string(), "{message}");
    }
    let first = &seen.events("media")[0].1["media"];
    assert_eq!((first["chunk"].as_str(), first["timestamp"].as_str()), (Some("1"), Some("0")));
    assert_eq!(STANDARD.decode(first["payload"].as_str().unwrap()).unwrap(), [0xFF; 160]);
    assert_eq!(seen.events("dtmf")[0].1["dtmf"], json!({"track": "inbound_track", "digit": "5"}));
    let stop = &seen.messages.last().unwrap().1;
    assert_eq!(stop["stop"]["callSid"], report.call_sid);
    assert_eq!(report.violations().count(), 0);
}

#[tokio::test]
async fn the_first_three_messages_come_at_once_and_audio_keeps_true_time() {
    let app = Application::start(&[STREAM], vec![vec![]]).await;
    let began = Instant::now();
    let report = app.call(vec![Step::Wait(Duration::from_secs(2))]).await;
    assert!(began.elapsed() < Duration::from_secs(4));
    let seen = app.seen.lock().unwrap();
    let media = seen.events("media");
    assert!(media[0].0 - seen.messages[0].0 < 15, "connected to first media: {} ms", media[0].0);
    assert!((99..=103).contains(&media.len()), "{} frames in two seconds", media.len());
    let last = media.last().unwrap();
    let stamp: u128 = last.1["media"]["timestamp"].as_str().unwrap().parse().unwrap();
    assert!(last.0.abs_diff(stamp) < 100, "{} ms after {stamp} ms of audio", last.0);
    assert_eq!(report.streams[0].frames_sent, media.len() as u64);
}

#[tokio::test]
async fn a_proxys_public_url_is_signed_and_the_local_address_called() {
    let app = Application::start_as(Some("https://phone.example"), &[STREAM], vec![vec![Act::Close]]).await;
    let mut options = app.options(vec![]);
    options.public_url = Some(Url::parse("https://phone.example/voice").unwrap());
    options.stay_on_line = true;
    let report = Caller::new(options).run().await.unwrap();
    assert_eq!(report.outcome, Outcome::EndedByServer);
    let seen = app.seen.lock().unwrap();
    assert!(seen.webhooks[0].1);
    assert_eq!(seen.upgrades, [true]);
    assert_eq!(report.streams[0].close_code, Some(1005));
}

#[tokio::test]
async fn marks_come_back_when_their_audio_has_played_and_at_once_on_clear() {
    let script = vec![
        Act::Play(tone(400), "first"),
        Act::Play(tone(5000), "second"),
        Act::Wait(1000),
        Act::Clear,
        Act::Wait(200),
    ];
    let app = Application::start(&[STREAM], vec![script]).await;
    let report = app.call(vec![Step::reply()]).await;
    let seen = app.seen.lock().unwrap();
    let start = seen.events("start")[0].0;
    let marks: Vec<(u128, String)> = seen
        .events("mark")
        .into_iter()
        .map(|(at, m)| (at - start, m["mark"]["name"].as_str().unwrap().to_owned()))
        .collect();
    assert_eq!(marks[0].1, "first");
    assert!((395..520).contains(&marks[0].0), "{marks:?}");
    assert_eq!(marks[1].1, "second");
    assert!((1000..1120).contains(&marks[1].0), "{marks:?}");
    let heard = report.heard();
    let loud = heard.iter().filter(|s| s.unsigned_abs() > 500).count() / 8;
    assert!((900..1150).contains(&loud), "the caller heard {loud} ms");
    assert_eq!(report.streams[0].messages_received.clear, 1);
}

#[tokio::test]
async fn latencies_and_barge_in_are_measured_from_the_audio() {
    let script = vec![
        Act::Wait(200),
        Act::Play(tone(300), "greeting"),
        // The question takes 500 ms and comes 700 ms after the greeting's end.
        Act::Wait(300 + 700 + 500 + 400),
        Act::Play(tone(4000), "answer"),
        Act::Wait(1000 + 200),
        Act::Clear,
    ];
    let question: Vec<i16> = tone(500).iter().map(|b| longhouse_emulators::g711::mulaw_decode(*b)).collect();
    let app = Application::start(&[STREAM], vec![script]).await;
    let patience = Duration::from_secs(5);
    let report = app
        .call(vec![
            Step::WaitForReply { quiet_ms: 700, timeout: patience },
            Step::Play(question.clone()),
            Step::InterruptAfter { heard_ms: 1000 },
            Step::Play(question),
            Step::Wait(Duration::from_millis(300)),
        ])
        .await;
    assert!(near(report.greeting_ms.unwrap(), 220, 80), "{:?}", report.greeting_ms);
    assert!(near(report.reply_latencies_ms[0], 400, 100), "{:?}", report.reply_latencies_ms);
    assert!(near(report.barge_in_stops_ms[0], 200, 100), "{:?}", report.barge_in_stops_ms);
    assert_eq!(report.unanswered, 0);
    assert_eq!(report.said.len(), 2);
}

#[tokio::test]
async fn spoken_words_are_heard_back_exactly_on_an_echoing_line() {
    let app = Application::start(&[STREAM], vec![vec![Act::Echo]]).await;
    let mut options = app.options(vec![
        Step::Say("What are your opening hours?".into()),
        Step::Wait(Duration::from_millis(500)),
    ]);
    options.keep_ulaw = true;
    let mut caller = Caller::new(options);
    let mut events = caller.events();
    let report = caller.run().await.unwrap();
    assert_eq!(report.heard_text(), "What are your opening hours?");
    assert_eq!(report.said[0].1, "What are your opening hours?");
    // Bit for bit: what came back is what was sent, as far as it came back.
    assert!(report.received_ulaw.len() > 8000);
    assert_eq!(report.received_ulaw, report.sent_ulaw[..report.received_ulaw.len()]);
    let mut words = Vec::new();
    let mut ended = None;
    while let Some(Some(event)) = events.recv().now_or_never() {
        match event {
            CallEvent::AgentWord { text, .. } => words.push(text),
            CallEvent::Ended { outcome, .. } => ended = Some(outcome),
            _ => {}
        }
    }
    assert_eq!(words.join(" "), "What are your opening hours?");
    assert_eq!(ended, Some(Outcome::HungUpByCaller));
}

#[tokio::test]
async fn a_redirect_hands_the_conversation_to_a_second_stream() {
    let first = format!("{STREAM}<Redirect>/voice?resume=1</Redirect>");
    let app = Application::start(
        &[&first, STREAM],
        vec![vec![Act::Play(tone(200), "a"), Act::Wait(600), Act::Close], vec![Act::Play(tone(200), "b")]],
    )
    .await;
    let report = app
        .call(vec![
            Step::WaitForReply { quiet_ms: 200, timeout: Duration::from_secs(3) },
            Step::WaitForReply { quiet_ms: 200, timeout: Duration::from_secs(3) },
        ])
        .await;
    assert_eq!(report.outcome, Outcome::HungUpByCaller);
    assert_eq!(report.streams.len(), 2);
    assert_eq!(report.unanswered, 0);
    assert!(report.streams[1].first_audio_ms.unwrap() >= report.streams[0].closed_at_ms.unwrap());
    assert_eq!(report.gaps_ms.len(), 1);
    assert!(report.gaps_ms[0] < 500, "{:?}", report.gaps_ms);
    assert_ne!(report.streams[0].stream_sid, report.streams[1].stream_sid);
    let seen = app.seen.lock().unwrap();
    assert!(seen.webhooks[1].1, "signed over the URL with its query");
    assert!(seen.webhooks[1].0.contains(&("CallStatus".into(), "in-progress".into())));
    assert_eq!(seen.events("stop").len(), 1, "a closed stream gets no stop");
}

#[tokio::test]
async fn everything_undocumented_is_a_violation() {
    let script = vec![
        Act::Binary,
        Act::Raw("{\"event\":\"hangup\"}".into()),
        Act::Raw("{\"event\":\"clear\",\"streamSid\":\"MZother\"}".into()),
        Act::Raw("{\"event\":\"media\",\"streamSid\":\"SID\",\"media\":{\"payload\":\"!\"}}".into()),
        Act::Raw("{\"event\":\"clear\",\"streamSid\":\"SID\"}".into()),
    ];
    let app = Application::start(&[STREAM], vec![script]).await;
    let report = app.call(vec![Step::Wait(Duration::from_millis(300))]).await;
    let codes: Vec<u32> = report.violations().map(|v| v.code).collect();
    assert_eq!(codes, [31924, 31924, 31951, 31951]);
    assert!(report.violations().all(|v| !v.sent_after_stop));
}

#[tokio::test]
async fn what_is_sent_after_stop_is_a_violation() {
    let clear = "{\"event\":\"clear\",\"streamSid\":\"SID\"}";
    let script = vec![Act::IgnoreStop, Act::Until("stop"), Act::Wait(250), Act::Raw(clear.into())];
    let app = Application::start(&[STREAM], vec![script]).await;
    let report = app.call(vec![Step::Wait(Duration::from_millis(100))]).await;
    let late: Vec<_> = report.violations().filter(|v| v.sent_after_stop).collect();
    assert_eq!(late.len(), 1, "{:?}", report.streams);
}

#[tokio::test]
async fn apologies_are_heard_and_forwards_are_reported() {
    let app = Application::start(&["<Say>Sorry, we are closed.</Say><Dial>+15550123</Dial>"], vec![]).await;
    let report = app.call(vec![Step::Wait(Duration::from_secs(15))]).await;
    assert_eq!(report.outcome, Outcome::Forwarded { to: "+15550123".into() });
    assert_eq!(report.heard_text(), "Sorry, we are closed.");
    assert_eq!(report.announced[0].1, "Sorry, we are closed.");
    assert!(report.greeting_ms.unwrap() < 1000);
}

#[tokio::test]
async fn a_stream_that_fails_is_followed_by_the_next_verb() {
    for (stream, code) in [
        ("<Connect><Stream url=\"{ws}/nowhere\"/></Connect>", 31920),
        ("<Connect><Stream url=\"{ws}/stream?tenant=1\"/></Connect>", 31920),
        ("<Connect><Stream url=\"ws://example.com/stream\"/></Connect>", 31922),
    ] {
        let document = format!("{stream}<Say>Sorry.</Say>");
        let app = Application::start(&[&document], vec![]).await;
        let report = app.call(vec![Step::Wait(Duration::from_secs(15))]).await;
        assert_eq!(report.outcome, Outcome::EndedByServer);
        assert_eq!(report.heard_text(), "Sorry.");
        assert_eq!(report.violations().map(|v| v.code).collect::<Vec<_>>(), [code]);
        assert_eq!(report.streams[0].opened_at_ms, None);
    }
}

#[tokio::test]
async fn wrong_webhook_answers_are_application_errors() {
    let cases: [(u16, &'static str, &str, u32); 4] = [
        (403, "text/xml", "<Response/>", 11200),
        (200, "application/json", "{}", 12300),
        (200, "text/xml", "<Response><Say>a & b</Say></Response>", 12100),
        (200, "text/xml", "<Response><Gather/></Response>", 12100),
    ];
    for (status, kind, body, expected) in cases {
        let app = Application::start(&[], vec![]).await;
        app.twiml.lock().unwrap().push_back((status, kind, body.to_owned()));
        let report = app.call(vec![]).await;
        let Outcome::ApplicationError { code, message } = report.outcome else {
            panic!("{:?}", report.outcome)
        };
        assert_eq!(code, expected, "{message}");
    }
}

#[tokio::test]
async fn redirect_loops_end() {
    let documents = ["<Redirect method=\"GET\">/voice</Redirect>"; 30];
    let app = Application::start(&documents, vec![]).await;
    let report = app.call(vec![Step::Wait(Duration::from_secs(15))]).await;
    assert!(matches!(report.outcome, Outcome::ApplicationError { .. }), "{:?}", report.outcome);
    let seen = app.seen.lock().unwrap();
    assert_eq!(seen.webhooks.len(), 21);
    assert!(seen.webhooks.iter().all(|(_, right)| *right), "every redirect is signed");
}

#[tokio::test]
async fn rejected_and_empty_and_unreachable_calls_say_so() {
    let app = Application::start(&["<Reject/>"], vec![]).await;
    assert_eq!(app.call(vec![]).await.outcome, Outcome::Rejected);
    let app = Application::start(&[""], vec![]).await;
    assert_eq!(app.call(vec![]).await.outcome, Outcome::EndedByServer);

    let mut options = app.options(vec![]);
    options.webhook = Url::parse("http://127.0.0.1:1/voice").unwrap();
    options.webhook_patience = Duration::from_millis(500);
    let began = Instant::now();
    let report = Caller::new(options).run().await.unwrap();
    assert!(began.elapsed() >= Duration::from_millis(250), "a refused connection is tried again");
    let Outcome::ApplicationError { code: 11205, message } = report.outcome else {
        panic!("{:?}", report.outcome)
    };
    assert!(message.contains("is the server running"), "{message}");
}

#[tokio::test]
async fn a_dropped_line_has_no_stop_and_a_patient_caller_times_out() {
    let app = Application::start(&[STREAM, STREAM], vec![]).await;
    let report = app.call(vec![Step::Wait(Duration::from_millis(200)), Step::AbruptDrop]).await;
    assert_eq!(report.outcome, Outcome::HungUpByCaller);
    tokio::time::sleep(Duration::from_millis(100)).await;
    assert!(app.seen.lock().unwrap().events("stop").is_empty());

    let mut options = app.options(vec![]);
    options.stay_on_line = true;
    options.max_duration = Duration::from_millis(400);
    let report = Caller::new(options).run().await.unwrap();
    assert_eq!(report.outcome, Outcome::Timeout);
    assert_eq!(app.seen.lock().unwrap().events("stop").len(), 1);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn many_calls_share_a_process_bit_for_bit_in_real_time() {
    const CALLS: usize = 60;
    let app = Application::start(&[STREAM; CALLS], vec![vec![Act::Echo]; CALLS]).await;
    let mut calls = tokio::task::JoinSet::new();
    for n in 0..CALLS {
        let bytes: Vec<u8> = (0..16_000).map(|i| ((i * 31 + n * 7) % 251) as u8).collect();
        let script = vec![Step::PlayUlaw(bytes.into()), Step::Wait(Duration::from_millis(500))];
        let mut options = app.options(script);
        options.captions = false;
        options.record_limit = Duration::ZERO;
        options.keep_ulaw = true;
        calls.spawn(Caller::new(options).run());
    }
    while let Some(report) = calls.join_next().await {
        let report = report.unwrap().unwrap();
        assert_eq!(report.outcome, Outcome::HungUpByCaller);
        assert_eq!(report.violations().count(), 0);
        assert!(report.recording.is_empty());
        assert!(report.received_ulaw.len() >= 16_000, "{} bytes came back", report.received_ulaw.len());
        assert_eq!(report.received_ulaw, report.sent_ulaw[..report.received_ulaw.len()]);
    }
}

#[tokio::test]
async fn network_faults_are_repeatable() {
    let mut stamps = Vec::new();
    for _ in 0..2 {
        let app = Application::start(&[STREAM], vec![]).await;
        let mut options = app.options(vec![Step::Wait(Duration::from_secs(1))]);
        options.faults = Faults { seed: 7, jitter_ms: 60, loss: 0.2 };
        Caller::new(options).run().await.unwrap();
        let seen = app.seen.lock().unwrap();
        let media = seen.events("media");
        assert!((30..48).contains(&media.len()), "{} of 50 frames", media.len());
        let at: Vec<u32> =
            media.iter().map(|(_, m)| m["media"]["timestamp"].as_str().unwrap().parse().unwrap()).collect();
        assert!(at.windows(2).all(|w| w[0] < w[1]), "order is kept");
        stamps.push(at[..30].to_vec());
    }
    assert_eq!(stamps[0], stamps[1]);
}

#[tokio::test]
async fn a_server_that_does_not_read_loses_audio() {
    // A small receive buffer, so that the kernel holds seconds rather than minutes.
    let socket = TcpSocket::new_v4().unwrap();
    socket.set_recv_buffer_size(2048).unwrap();
    socket.bind("127.0.0.1:0".parse().unwrap()).unwrap();
    // Each mark is echoed: 8 MB that the application does not read.
    let name = "x".repeat(1 << 17);
    let mark = format!("{{\"event\":\"mark\",\"streamSid\":\"SID\",\"mark\":{{\"name\":\"{name}\"}}}}");
    let mut script = vec![Act::Raw(mark); 64];
    script.push(Act::Deaf);
    let app = Application::serve(socket.listen(16).unwrap(), None, &[STREAM], vec![script]);
    let mut options = app.options(vec![]);
    options.stay_on_line = true;
    options.max_duration = Duration::from_secs(3);
    let report = Caller::new(options).run().await.unwrap();
    let stream = &report.streams[0];
    assert!(stream.frames_dropped > 0, "{} frames were taken", stream.frames_sent);
    assert_eq!(report.violations().map(|v| v.code).collect::<Vec<_>>(), [31930]);
}

#[tokio::test]
async fn hostile_tests_can_sign_wrongly_and_send_anything() {
    let app = Application::start(&[], vec![vec![Act::Wait(50)]]).await;
    let url = Url::parse(&app.public.replacen("http", "ws", 1)).unwrap().join("/stream").unwrap();
    for signature in [Signature::Missing, Signature::Exactly("AAAA".into()), Signature::Token("other".into())]
    {
        let refused = StreamClient::connect(&url, None, &signature).await.unwrap_err();
        assert!(matches!(refused, Error::Refused { status: 403, .. }), "{refused}");
    }
    let mut client = StreamClient::connect(&url, None, &Signature::Token(TOKEN.into())).await.unwrap();
    client.send_text("{\"event\":\"stop\"}").await.unwrap();
    assert_eq!(client.receive().await, Received::Close(None));
    let gone =
        StreamClient::connect(&Url::parse("ws://127.0.0.1:1/").unwrap(), None, &Signature::Missing).await;
    assert!(matches!(gone, Err(Error::Unreachable { .. })));
}
