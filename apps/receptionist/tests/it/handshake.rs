//! T3: what a media stream must prove before anything is done for it.

use std::time::{Duration, Instant};

use base64::Engine as _;
use base64::engine::general_purpose::{STANDARD, URL_SAFE_NO_PAD};
use hmac::{Hmac, KeyInit as _, Mac as _};
use longhouse_emulators::twilio::stream::{Received, Signature, StreamClient};
use longhouse_emulators::twilio::{Error, frames, twiml};
use serde_json::{Value, json};
use sha2::Sha256;
use url::Url;
use uuid::Uuid;

use crate::harness::{AUTH_TOKEN, JWT_SECRET, Setup, TestApp};
use crate::outage::Road;
use crate::webhook::{Ask, parameter};

pub(crate) const CALL_SID: &str = "CAabcdefabcdefabcdefabcdefabcdefab";
pub(crate) const STREAM_SID: &str = "MZ0123456789abcdef0123456789abcdef";
pub(crate) const ACCOUNT_SID: &str = "AC0123456789abcdef0123456789abcdef";
pub(crate) const PATIENCE: Duration = Duration::from_secs(10);

async fn app() -> TestApp {
    let mut setup = Setup::quick();
    setup.session.start_timeout = Duration::from_millis(700);
    setup.session.admit_timeout = Duration::from_secs(2);
    setup.upstream.record_audio = true;
    TestApp::with(setup).await
}

/// Rings, and returns the announced stream.
pub(crate) async fn ring(app: &TestApp, call_sid: &str) -> twiml::Stream {
    Ask::new(app).with("CallSid", call_sid).stream().await
}

pub(crate) async fn open(app: &TestApp) -> StreamClient {
    let url = app.url("/functions/v1/twilio-voice-realtime");
    StreamClient::connect(&socket(&url), None, &Signature::Token(AUTH_TOKEN.into())).await.unwrap()
}

fn socket(url: &Url) -> Url {
    Url::parse(&url.as_str().replacen("http", "ws", 1)).unwrap()
}

pub(crate) fn start(call_sid: &str, token: Option<&str>) -> String {
    frames::start(&frames::Start {
        stream_sid: STREAM_SID.into(),
        call_sid: call_sid.into(),
        account_sid: ACCOUNT_SID.into(),
        parameters: token.map(|token| ("token".to_owned(), token.to_owned())).into_iter().collect(),
    })
}

fn media(index: u32, ulaw: &[u8]) -> String {
    frames::media(STREAM_SID, index + 2, index + 1, index * 20, ulaw)
}

/// Everything received until the server closes; fails if it does not.
pub(crate) async fn until_closed(client: &mut StreamClient) -> Vec<String> {
    let mut texts = Vec::new();
    tokio::time::timeout(PATIENCE, async {
        loop {
            match client.receive().await {
                Received::Text(text) => texts.push(text),
                Received::Close(_) | Received::Ended => return,
                other => panic!("{other:?}"),
            }
        }
    })
    .await
    .expect("the server does not close the stream");
    texts
}

/// The first audio, which is the greeting.
pub(crate) async fn greeting(client: &mut StreamClient) -> Value {
    tokio::time::timeout(PATIENCE, async {
        loop {
            match client.receive().await {
                Received::Text(text) => {
                    let message: Value = serde_json::from_str(&text).unwrap();
                    if message["event"] == "media" {
                        return message;
                    }
                }
                other => panic!("no greeting but {other:?}"),
            }
        }
    })
    .await
    .expect("no greeting")
}

fn assert_untouched(app: &TestApp, what: &str) {
    assert!(app.upstream.sessions().is_empty(), "{what}: an upstream session was opened");
    assert_eq!(app.upstream.refused(), 0, "{what}: the upstream was dialled");
}

/// A stream token, written down anew from its specification.
fn token(jwt_secret: &str, call_sid: &str, tenant: Uuid, epoch: i32, expires: u64) -> String {
    let mac = |key: &[u8]| Hmac::<Sha256>::new_from_slice(key).unwrap();
    let mut derived = mac(jwt_secret.as_bytes());
    derived.update(b"longhouse receptionist stream tokens");
    let secret = hex::encode(derived.finalize().into_bytes());
    let body = format!("{}.{epoch}.{expires}", tenant.simple());
    let mut signature = mac(secret.as_bytes());
    signature.update(&(call_sid.len() as u64).to_be_bytes());
    signature.update(call_sid.as_bytes());
    signature.update(body.as_bytes());
    format!("{body}.{}", URL_SAFE_NO_PAD.encode(signature.finalize().into_bytes()))
}

fn now() -> u64 {
    std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap().as_secs()
}

#[tokio::test(flavor = "multi_thread")]
async fn only_twilio_may_open_a_stream() {
    let app = app().await;
    let url = app.url("/functions/v1/twilio-voice-realtime");
    for (what, signature) in [
        ("no signature", Signature::Missing),
        ("another token", Signature::Token("other-token".into())),
        ("empty", Signature::Exactly(String::new())),
        ("junk", Signature::Exactly("AAAA".into())),
        // The webhook's own signature is for another URL.
        (
            "the webhook's",
            Signature::Exactly(longhouse_emulators::twilio::sign(app.webhook().as_str(), &[], AUTH_TOKEN)),
        ),
    ] {
        match StreamClient::connect(&socket(&url), None, &signature).await {
            Err(Error::Refused { status: 403, body, .. }) => {
                assert!(body.contains("invalid_signature"), "{what}: {body}");
            }
            other => panic!("{what}: {other:?}"),
        }
    }
    let plain = reqwest::Client::builder().no_proxy().build().unwrap().get(url).send().await.unwrap();
    assert!(plain.status().is_client_error(), "{}", plain.status());
    assert_eq!(app.receptionist.capacity().0, 0);
    assert_untouched(&app, "refused upgrades");

    // Both paths, with and without the slash that some versions of Twilio's client sign.
    for path in ["/functions/v1/twilio-voice-realtime", "/twilio/stream"] {
        let url = socket(&app.url(path));
        let slashed = format!("{}/", url.as_str().replacen("ws://", "wss://", 1));
        let signature = longhouse_emulators::twilio::sign(&slashed, &[], AUTH_TOKEN);
        StreamClient::connect(&url, None, &Signature::Token(AUTH_TOKEN.into())).await.unwrap();
        StreamClient::connect(&url, None, &Signature::Exactly(signature)).await.unwrap();
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_stream_without_a_good_token_is_closed() {
    let app = app().await;
    let stream = ring(&app, CALL_SID).await;
    let good = parameter(&stream, "token").unwrap();
    let tenant: Uuid = parameter(&stream, "tenantId").unwrap().parse().unwrap();
    let other_call = "CA00000000000000000000000000000002";
    let others = ring(&app, other_call).await;
    let others = parameter(&others, "token").unwrap();
    let tampered = good.replacen(".1.", ".2.", 1);
    assert_ne!(tampered, good);
    let foreign = token(JWT_SECRET, CALL_SID, Uuid::new_v4(), 1, now() + 30);
    for (what, call_sid, token) in [
        ("no token", CALL_SID, None),
        ("empty token", CALL_SID, Some("")),
        ("junk", CALL_SID, Some("a.b.c.d")),
        ("tampered", CALL_SID, Some(tampered.as_str())),
        (
            "forged",
            CALL_SID,
            Some(token("another-secret-of-32-characters!", CALL_SID, tenant, 1, now() + 30).as_str()),
        ),
        ("expired", CALL_SID, Some(token(JWT_SECRET, CALL_SID, tenant, 1, now() - 1).as_str())),
        ("another call's", CALL_SID, Some(others)),
        ("for another call", other_call, Some(good)),
        (
            "a stream that was not announced",
            CALL_SID,
            Some(token(JWT_SECRET, CALL_SID, tenant, 7, now() + 30).as_str()),
        ),
        ("another tenant", CALL_SID, Some(foreign.as_str())),
        ("no such call", "CA9", Some(token(JWT_SECRET, "CA9", tenant, 1, now() + 30).as_str())),
    ] {
        let mut client = open(&app).await;
        client.send_together([frames::connected(), start(call_sid, token)]).await.unwrap();
        let received = until_closed(&mut client).await;
        assert!(received.is_empty(), "{what}: {received:?}");
        assert_untouched(&app, what);
    }
    assert_eq!(app.call_row(CALL_SID).await, ("ringing".into(), None));

    // The copy made here is right in all else: with the right values it opens the stream.
    let mut client = open(&app).await;
    let mine = token(JWT_SECRET, CALL_SID, tenant, 1, now() + 30);
    client.send_together([frames::connected(), start(CALL_SID, Some(&mine))]).await.unwrap();
    greeting(&mut client).await;
    assert_eq!(app.upstream.sessions().len(), 1);

    // Once: neither that token nor the webhook's, which is for the same stream, opens another.
    for used in [mine.as_str(), good] {
        let mut again = open(&app).await;
        again.send_together([frames::connected(), start(CALL_SID, Some(used))]).await.unwrap();
        until_closed(&mut again).await;
    }
    assert_eq!(app.upstream.sessions().len(), 1, "a replayed token opened a session");
    // And the stream that has it goes on.
    assert_eq!(app.call_row(CALL_SID).await.0, "in_progress");
    client.send_text(frames::stop(STREAM_SID, 9, ACCOUNT_SID, CALL_SID)).await.unwrap();
    app.wait_for_outcome(CALL_SID, "caller_hung_up").await;
}

/// A stream that was overtaken by a newer one of its call is out, even if it was never used.
#[tokio::test(flavor = "multi_thread")]
async fn a_newer_announcement_makes_the_older_token_worthless() {
    let app = app().await;
    let older = ring(&app, CALL_SID).await;
    let newer = ring(&app, CALL_SID).await;
    let mut client = open(&app).await;
    client.send_text(start(CALL_SID, parameter(&older, "token"))).await.unwrap();
    until_closed(&mut client).await;
    assert_untouched(&app, "overtaken");
    let mut client = open(&app).await;
    client.send_text(start(CALL_SID, parameter(&newer, "token"))).await.unwrap();
    greeting(&mut client).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_stream_that_does_not_start_is_closed_in_time() {
    let app = app().await;
    let began = Instant::now();
    let mut silent = open(&app).await;
    let mut chatty = open(&app).await;
    chatty.send_text(frames::connected()).await.unwrap();
    for index in 0..20 {
        chatty.send_text(media(index, &[0xff; 160])).await.unwrap();
    }
    until_closed(&mut silent).await;
    until_closed(&mut chatty).await;
    let took = began.elapsed();
    assert!(Duration::from_millis(600) < took && took < Duration::from_secs(5), "{took:?}");

    // `stop` instead of `start`.
    let mut stopped = open(&app).await;
    stopped.send_text(frames::stop(STREAM_SID, 1, ACCOUNT_SID, CALL_SID)).await.unwrap();
    until_closed(&mut stopped).await;
    assert_untouched(&app, "no start");
    wait_for_no_calls(&app).await;
}

/// Seats are given back, or a few broken streams would block the line.
async fn wait_for_no_calls(app: &TestApp) {
    tokio::time::timeout(PATIENCE, async {
        while app.receptionist.capacity().0 > 0 {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    })
    .await
    .expect("a seat is not given back");
}

/// B7: `start` and the first words in the packet that opens the stream are not lost.
#[tokio::test(flavor = "multi_thread")]
async fn a_start_with_media_behind_it_in_one_packet_is_heard_in_order() {
    let app = app().await;
    let stream = ring(&app, CALL_SID).await;
    let mut client = open(&app).await;
    // 20 frames of 20 ms, each of its own byte, so that order and completeness show.
    let spoken: Vec<u8> = (0..20u8).flat_map(|n| [n; 160]).collect();
    let mut packet = vec![frames::connected(), start(CALL_SID, parameter(&stream, "token"))];
    packet.extend((0..20u32).map(|n| media(n, &spoken[n as usize * 160..][..160])));
    client.send_together(packet).await.unwrap();
    let greeting = greeting(&mut client).await;
    assert_eq!(greeting["streamSid"], STREAM_SID, "B8: no audio without the stream's name");
    let sessions = app.upstream.sessions();
    assert_eq!(sessions.len(), 1);
    assert!(
        sessions[0].audio_in.starts_with(&spoken),
        "{} bytes arrived: {:?}",
        sessions[0].audio_in.len(),
        sessions[0].audio_in.chunks(160).map(|c| c[0]).collect::<Vec<_>>()
    );
}

/// What Twilio never sends changes nothing: the call goes on as if it had not come.
#[tokio::test(flavor = "multi_thread")]
async fn nonsense_does_not_end_a_call() {
    let app = app().await;
    let stream = ring(&app, CALL_SID).await;
    let mut client = open(&app).await;
    let nonsense = [
        "",
        "nonsense",
        "[]",
        "null",
        "{}",
        "{\"event\":7}",
        "{\"event\":\"start\"}",
        "{\"event\":\"media\"}",
        "{\"event\":\"media\",\"media\":{\"payload\":\"***\"}}",
        "{\"event\":\"mark\",\"mark\":{\"name\":\"99\"}}",
        "{\"event\":\"from the future\"}",
        "\u{0}",
        "{\"event\":\"dtmf\",\"dtmf\":{\"digit\":\"\"}}",
    ];
    for text in nonsense {
        client.send_text(text).await.unwrap();
    }
    client.send_binary(vec![0xff; 2_000]).await.unwrap();
    client.send_text(start(CALL_SID, parameter(&stream, "token"))).await.unwrap();
    for text in nonsense {
        client.send_text(text).await.unwrap();
    }
    client.send_binary(vec![0xff; 2_000]).await.unwrap();
    greeting(&mut client).await;

    // A second `start`, be it of the same call, does not take the stream over.
    let second = ring(&app, "CA00000000000000000000000000000002").await;
    let hijack = start("CA00000000000000000000000000000002", parameter(&second, "token"))
        .replace(STREAM_SID, "MZffffffffffffffffffffffffffffffff");
    client.send_text(hijack).await.unwrap();
    client.ping().await.unwrap();
    tokio::time::timeout(PATIENCE, async {
        loop {
            match client.receive().await {
                Received::Pong => return,
                Received::Text(text) => {
                    let message: Value = serde_json::from_str(&text).unwrap();
                    assert_eq!(message["streamSid"], STREAM_SID);
                }
                other => panic!("{other:?}"),
            }
        }
    })
    .await
    .expect("no pong");
    assert_eq!(app.upstream.sessions().len(), 1);
    assert_eq!(app.call_row("CA00000000000000000000000000000002").await.0, "ringing");
    assert_eq!(app.call_row(CALL_SID).await.0, "in_progress");
    assert_eq!(app.upstream.sessions()[0].errors.len(), 0, "{:?}", app.upstream.sessions()[0].errors);
}

#[tokio::test(flavor = "multi_thread")]
async fn audio_of_another_format_is_refused() {
    let app = app().await;
    for format in [
        json!({"encoding": "audio/x-alaw", "sampleRate": 8000, "channels": 1}),
        json!({"encoding": "audio/x-mulaw", "sampleRate": 16000, "channels": 1}),
        json!({"encoding": "audio/x-mulaw", "sampleRate": 8000, "channels": 2}),
    ] {
        let stream = ring(&app, &format!("CA{}", Uuid::new_v4().simple())).await;
        let mut message: Value = serde_json::from_str(&start(CALL_SID, parameter(&stream, "token"))).unwrap();
        message["start"]["mediaFormat"] = format.clone();
        let mut client = open(&app).await;
        client.send_text(message.to_string()).await.unwrap();
        until_closed(&mut client).await;
        assert_untouched(&app, &format.to_string());
    }
}

/// A message above 64 KiB ends the stream, and only that one.
#[tokio::test(flavor = "multi_thread")]
async fn oversized_messages_end_the_stream() {
    let app = app().await;
    let stream = ring(&app, CALL_SID).await;
    let huge = media(0, &vec![0xff; 49 * 1024]);
    assert!(huge.len() > 65 * 1024 && huge.len() < 70 * 1024);

    let mut early = open(&app).await;
    // The server may close while it is still being written.
    let _ = early.send_text(huge.clone()).await;
    until_closed(&mut early).await;
    assert_untouched(&app, "before start");

    let mut client = open(&app).await;
    client.send_text(start(CALL_SID, parameter(&stream, "token"))).await.unwrap();
    greeting(&mut client).await;
    // Below the bound is accepted.
    client.send_text(media(0, &vec![0xff; 40 * 1024])).await.unwrap();
    client.ping().await.unwrap();
    tokio::time::timeout(PATIENCE, async { while !matches!(client.receive().await, Received::Pong) {} })
        .await
        .expect("no pong");
    let _ = client.send_text(huge).await;
    until_closed(&mut client).await;
    app.wait_for_outcome(CALL_SID, "connection_lost").await;
    wait_for_no_calls(&app).await;
}

/// Media that comes before `start` is kept within a bound, and the call is answered all the same.
#[tokio::test(flavor = "multi_thread")]
async fn a_flood_before_start_is_bounded() {
    let mut setup = Setup::quick();
    setup.session.start_timeout = Duration::from_secs(20);
    setup.upstream.record_audio = true;
    let app = TestApp::with(setup).await;
    let stream = ring(&app, CALL_SID).await;
    let mut client = open(&app).await;
    for batch in 0..100u32 {
        let frames = (0..100u32).map(|n| media(batch * 100 + n, &STANDARD.decode("f39/f39/f38=").unwrap()));
        client.send_together(frames).await.unwrap();
    }
    client.send_text(start(CALL_SID, parameter(&stream, "token"))).await.unwrap();
    greeting(&mut client).await;
    let sessions = app.upstream.sessions();
    // 10,000 frames are 10 s of audio here; at most 5 s of it may have been kept.
    assert!(sessions[0].audio_in_seconds <= 5.0, "{} s", sessions[0].audio_in_seconds);
}

/// A database that does not answer: the stream is closed so that the webhook can tell the caller, and no
/// upstream session is paid for.
#[tokio::test(flavor = "multi_thread")]
async fn a_stream_that_cannot_be_admitted_is_closed() {
    let app = app().await;
    let stream = ring(&app, CALL_SID).await;
    app.outage.set(Road::Stalled);
    let mut client = open(&app).await;
    client.send_text(start(CALL_SID, parameter(&stream, "token"))).await.unwrap();
    until_closed(&mut client).await;
    assert_untouched(&app, "no database");
    app.outage.set(Road::Open);
    // The call comes back by the webhook's redirect.
    let stream = ring(&app, CALL_SID).await;
    let mut client = open(&app).await;
    client.send_text(start(CALL_SID, parameter(&stream, "token"))).await.unwrap();
    greeting(&mut client).await;
}

/// All lines busy: the upgrade itself is refused, which Twilio answers with what follows in the TwiML.
#[tokio::test(flavor = "multi_thread")]
async fn a_stream_beyond_capacity_is_refused() {
    let app = TestApp::with(Setup { max_calls: 1, ..Setup::quick() }).await;
    let _first = open(&app).await;
    let url = socket(&app.url("/twilio/stream"));
    match StreamClient::connect(&url, None, &Signature::Token(AUTH_TOKEN.into())).await {
        Err(Error::Refused { status: 503, .. }) => {}
        other => panic!("{other:?}"),
    }
}
