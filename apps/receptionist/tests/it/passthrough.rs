//! T5: audio goes through byte for byte, in both directions, for one call and for many.

use std::sync::Arc;
use std::time::Duration;

use base64::Engine as _;
use base64::prelude::BASE64_STANDARD as BASE64;
use bytes::Bytes;
use futures_util::{SinkExt as _, StreamExt as _};
use longhouse_emulators::openai::{Rule, SessionRecord};
use longhouse_emulators::twilio::frames::{self, Start};
use longhouse_emulators::twilio::stream::{Received, Signature, StreamClient};
use longhouse_emulators::twilio::{CallReport, Caller, Step, sign};
use serde_json::{Value, json};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{Semaphore, mpsc};
use tokio_tungstenite::WebSocketStream;
use tokio_tungstenite::tungstenite::Message;
use tokio_util::sync::CancellationToken;
use url::{Url, form_urlencoded};

use crate::harness::{AUTH_TOKEN, NUMBER, Setup, TestApp, launch, reply, say};

/// Bytes in 20 ms.
const FRAME: usize = 160;

/// Every byte value and the number of the call, in clicks too short to be taken for speech.
fn every_byte(call: usize) -> Bytes {
    let values: Vec<u8> = (call as u16).to_be_bytes().into_iter().chain(0..=255).collect();
    let mut ulaw = Vec::new();
    for click in values.chunks(64) {
        ulaw.extend(click);
        ulaw.resize(ulaw.len().next_multiple_of(FRAME) + 8 * FRAME, 0xFF);
    }
    ulaw.into()
}

fn setup() -> Setup {
    let mut setup = Setup::quick();
    setup.upstream.record_audio = true;
    let answer =
        "You said {{user}} and I say so too, because it is my task to talk for a while about nothing at all.";
    setup.upstream.rules = vec![Rule::say(&["number"], answer)];
    setup
}

/// The caller's bytes reached the model from the first one on, and the model's reached the caller.
fn assert_bit_exact(report: &CallReport, session: &SessionRecord) {
    let (sent, got) = (&report.sent_ulaw, &session.audio_in);
    assert_eq!(sent.iter().zip(got).position(|(a, b)| a != b), None, "the caller's audio was changed");
    // What was under way when the caller hung up is all that may be missing.
    assert!(
        got.len() <= sent.len() && sent.len() - got.len() <= 25 * FRAME,
        "{} of {}",
        got.len(),
        sent.len()
    );
    assert!(session.audio_out.len() > 2 * 8_000);
    let (said, heard) = (&session.audio_out, &report.received_ulaw);
    let differs = said.iter().zip(heard).position(|(a, b)| a != b);
    assert_eq!((differs, heard.len()), (None, said.len()), "the agent's audio was changed");
    assert_eq!(session.errors, []);
    assert_eq!(report.violations().count(), 0, "{:?}", report.streams);
}

#[tokio::test(flavor = "multi_thread")]
async fn every_byte_passes_unchanged_from_the_first_on() {
    let app = TestApp::with(setup()).await;
    // No wait first: this goes on while the session is being opened and while the greeting plays.
    let mut call = app.quick_call(vec![
        Step::PlayUlaw(every_byte(0)),
        reply(),
        say("number one"),
        reply(),
        Step::PlayUlaw(every_byte(0)),
        Step::Hangup,
    ]);
    call.keep_ulaw = true;
    let report = Caller::new(call).run().await.unwrap();

    let sessions = app.upstream.sessions();
    assert_eq!(sessions.len(), 1);
    assert_bit_exact(&report, &sessions[0]);
    for value in 0..=255_u8 {
        assert!(sessions[0].audio_in.contains(&value), "{value} was not tried");
    }
    assert!(report.heard_text().contains("You said number one"), "{}", report.heard_text());
}

/// A speech service that only keeps what it hears and says random bytes: two hundred of the real emulator, which
/// listens, need more than two cores in a debug build.
struct Parrot {
    url: Url,
    /// What each session heard and said.
    sessions: mpsc::UnboundedReceiver<(Vec<u8>, Vec<u8>)>,
}

impl Parrot {
    async fn start() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = Url::parse(&format!("ws://{}/v1/realtime", listener.local_addr().unwrap())).unwrap();
        let (done, sessions) = mpsc::unbounded_channel();
        tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                let done = done.clone();
                stream.set_nodelay(true).unwrap();
                tokio::spawn(async move {
                    let socket = tokio_tungstenite::accept_async(stream).await.unwrap();
                    let _ = done.send(Self::session(socket).await);
                });
            }
        });
        Self { url, sessions }
    }

    async fn session(mut socket: WebSocketStream<TcpStream>) -> (Vec<u8>, Vec<u8>) {
        let (mut heard, mut said) = (Vec::new(), Vec::new());
        let mut speaks = false;
        let mut ticks = tokio::time::interval(Duration::from_millis(400));
        socket.send(Message::text(r#"{"type":"session.created","session":{}}"#)).await.unwrap();
        loop {
            let answer = tokio::select! {
                _ = ticks.tick(), if speaks => {
                    let bytes: Vec<u8> = std::iter::repeat_with(uuid::Uuid::new_v4).take(200).flat_map(|u| *u.as_bytes()).collect();
                    let delta = BASE64.encode(&bytes);
                    said.extend(bytes);
                    json!({"type": "response.output_audio.delta", "response_id": "r", "item_id": "i", "delta": delta})
                }
                message = socket.next() => {
                    let text = match message {
                        Some(Ok(Message::Text(text))) => text,
                        Some(Ok(Message::Ping(_))) => continue,
                        _ => return (heard, said),
                    };
                    let event: Value = serde_json::from_str(&text).unwrap();
                    match event["type"].as_str().unwrap() {
                        "input_audio_buffer.append" => {
                            heard.extend(BASE64.decode(event["audio"].as_str().unwrap()).unwrap());
                            continue;
                        }
                        "session.update" => json!({"type": "session.updated", "session": {}}),
                        "response.create" => {
                            speaks = true;
                            json!({"type": "response.created", "response": {"id": "r"}})
                        }
                        other => panic!("unexpected {other}"),
                    }
                }
            };
            if socket.send(Message::text(answer.to_string())).await.is_err() {
                return (heard, said);
            }
        }
    }
}

/// What all callers share.
struct Crowd {
    client: reqwest::Client,
    webhook: Url,
    /// So many are being connected at once: people do not call in the same millisecond.
    ringing: Semaphore,
    /// Callers who hear the agent.
    talking: mpsc::Sender<()>,
    /// Cancelled when everybody is to hang up.
    over: CancellationToken,
}

impl Crowd {
    /// Asks the webhook: the stream's URL and its token.
    async fn dial(&self, call_sid: &str) -> (Url, String) {
        let form = [("CallSid", call_sid), ("To", NUMBER), ("From", "+12025550199")]
            .map(|(name, value)| (name.to_owned(), value.to_owned()));
        let request = self
            .client
            .post(self.webhook.clone())
            .header("X-Twilio-Signature", sign(self.webhook.as_str(), &form, AUTH_TOKEN))
            .header("Content-Type", "application/x-www-form-urlencoded")
            .body(form_urlencoded::Serializer::new(String::new()).extend_pairs(&form).finish());
        let twiml = request.send().await.unwrap().text().await.unwrap();
        let find = |before: &str| {
            let rest = twiml.split(before).nth(1).unwrap_or_else(|| panic!("{twiml}"));
            rest.split('"').next().unwrap().to_owned()
        };
        (Url::parse(&find("Stream url=\"")).unwrap(), find("name=\"token\" value=\""))
    }

    /// One of many, with five packets' audio in each message. Returns what was sent and what was received.
    async fn call(&self, index: usize) -> (Vec<u8>, Vec<u8>) {
        const CHUNK: usize = 5 * FRAME;
        let mut ringing = Some(self.ringing.acquire().await.unwrap());
        let call_sid = format!("CA{index:032x}");
        let (url, token) = self.dial(&call_sid).await;
        let start = Start {
            stream_sid: format!("MZ{index:032x}"),
            call_sid,
            account_sid: format!("AC{:032x}", 1),
            parameters: vec![("token".into(), token)],
        };
        let signature = Signature::Token(AUTH_TOKEN.into());
        let mut stream = StreamClient::connect(&url, None, &signature).await.unwrap();
        stream.send_together([frames::connected(), frames::start(&start)]).await.unwrap();

        let words = every_byte(index);
        let (mut sent, mut received) = (Vec::new(), Vec::new());
        let mut ticks = tokio::time::interval(Duration::from_millis(100));
        let mut chunks = 0;
        loop {
            tokio::select! {
                () = self.over.cancelled() => break,
                _ = ticks.tick() => {
                    let at = sent.len() % words.len();
                    let chunk: Vec<u8> = words.iter().copied().cycle().skip(at).take(CHUNK).collect();
                    let text = frames::media(&start.stream_sid, chunks + 2, chunks + 1, chunks * 100, &chunk);
                    stream.send_text(text).await.unwrap();
                    sent.extend(chunk);
                    chunks += 1;
                }
                message = stream.receive() => {
                    let Received::Text(text) = message else { panic!("call {index}: {message:?}") };
                    let message: Value = serde_json::from_str(&text).unwrap();
                    assert_eq!(message["streamSid"], start.stream_sid);
                    match message["event"].as_str() {
                        Some("media") => {
                            let audio = message["media"]["payload"].as_str().unwrap();
                            received.extend(BASE64.decode(audio).unwrap());
                            if ringing.take().is_some() {
                                self.talking.send(()).await.unwrap();
                            }
                        }
                        Some("mark") => {}
                        _ => panic!("call {index}: {text}"),
                    }
                }
            }
        }
        let stop = frames::stop(&start.stream_sid, chunks + 2, &start.account_sid, &start.call_sid);
        stream.send_text(stop).await.unwrap();
        while let Received::Text(_) = stream.receive().await {}
        (sent, received)
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn two_hundred_calls_at_once_pass_unchanged_in_bounded_memory() {
    const CALLS: usize = 200;
    let app = TestApp::start().await;
    let mut parrot = Parrot::start().await;
    let (address, _drain, receptionist) = launch(&Setup::quick(), app.database.clone(), &parrot.url).await;
    let (talking, mut talkers) = mpsc::channel(CALLS);
    let crowd = Arc::new(Crowd {
        client: reqwest::Client::builder().no_proxy().build().unwrap(),
        webhook: Url::parse(&format!("http://{address}/functions/v1/twilio-router")).unwrap(),
        ringing: Semaphore::new(6),
        talking,
        over: CancellationToken::new(),
    });
    let before = resident_bytes();
    let calls: Vec<_> = (0..CALLS)
        .map(|index| {
            let crowd = Arc::clone(&crowd);
            tokio::spawn(async move { crowd.call(index).await })
        })
        .collect();
    for call in 0..CALLS {
        let talks = tokio::time::timeout(Duration::from_secs(20), talkers.recv()).await;
        talks.unwrap_or_else(|_| panic!("only {call} callers hear the agent")).unwrap();
    }
    let halfway = resident_bytes();
    // All of them at once, for a while.
    tokio::time::sleep(Duration::from_secs(8)).await;
    assert_eq!(receptionist.capacity().0, CALLS);
    let (grown, late) = (resident_bytes().saturating_sub(before), resident_bytes().saturating_sub(halfway));
    crowd.over.cancel();

    let mut sessions = Vec::new();
    let mut kept = 0;
    for (index, call) in futures_util::future::join_all(calls).await.into_iter().enumerate() {
        let (sent, received) = call.unwrap();
        kept += 2 * (sent.len() + received.len());
        // Sessions end in any order.
        let mine =
            |(heard, _): &(Vec<u8>, Vec<u8>)| sent.starts_with(heard) && heard.len() + 8_000 > sent.len();
        let (heard, said) = loop {
            if let Some(at) = sessions.iter().position(mine) {
                break sessions.swap_remove(at);
            }
            let next = tokio::time::timeout(Duration::from_secs(5), parrot.sessions.recv()).await;
            sessions
                .push(next.unwrap_or_else(|_| panic!("no session heard call {index} as it was")).unwrap());
        };
        assert!(
            heard.len() > 8 * 8_000 && received.len() > 8 * 8_000,
            "call {index}: {} bytes",
            received.len()
        );
        // What was under way when the caller hung up is all that may be missing.
        assert!(said.starts_with(&received), "call {index}: the agent's audio was changed");
        assert!(
            said.len() - received.len() <= 2 * 8_000,
            "call {index}: {} of {}",
            received.len(),
            said.len()
        );
    }
    // Callers and model are in this process too; what they keep for this test may take twice its size in vectors.
    let each = grown.saturating_sub(2 * kept) / CALLS;
    assert!(each < 400 << 10, "{} KiB a call", each >> 10);
    // 32 kB a second are kept, in vectors that double; the server's own share does not grow.
    assert!(late / CALLS < 600 << 10, "{} KiB a call more within 8 s", (late / CALLS) >> 10);
}

fn resident_bytes() -> usize {
    let statm = std::fs::read_to_string("/proc/self/statm").unwrap();
    statm.split(' ').nth(1).unwrap().parse::<usize>().unwrap() * 4_096
}
