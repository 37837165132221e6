//! An application that notes what it is told, an upstream that does as it is told, and a caller.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use futures_util::{SinkExt as _, StreamExt as _};
use longhouse_voice::callers::twilio::frames::Start;
use longhouse_voice::session::driver::{Engine, run};
use longhouse_voice::session::{
    Admission, Agent, BoxFuture, Call, Ending, Entry, Host, Millis, Settings, ToolAnswer, ToolCall,
};
use longhouse_voice::upstreams::realtime::{Connector, SessionShape};
use serde_json::{Value, json};
use tokio::io::DuplexStream;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{Notify, mpsc, watch};
use tokio::task::JoinHandle;
use tokio_tungstenite::WebSocketStream;
use tokio_tungstenite::tungstenite::Message;
use tokio_tungstenite::tungstenite::protocol::Role;

/// Longest wait for anything.
pub(crate) const PATIENCE: Duration = Duration::from_secs(10);

/// An application with one tool, which behaves as its name says.
#[derive(Default)]
pub(crate) struct Desk {
    pub(crate) finished: Mutex<Vec<Ending>>,
    /// Tools that are running now.
    pub(crate) running: Arc<AtomicUsize>,
    /// Told when a tool begins or ends.
    pub(crate) tools: Arc<Notify>,
    /// Admission waits for this, when set.
    pub(crate) gate: Option<Arc<Notify>>,
}

struct Running(Arc<AtomicUsize>, Arc<Notify>);

impl Drop for Running {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::SeqCst);
        self.1.notify_one();
    }
}

pub(crate) struct Reception(pub(crate) Arc<Desk>);

impl Host for Reception {
    fn admit(&self, _: Start) -> BoxFuture<'static, Result<Admission, String>> {
        let desk = Arc::clone(&self.0);
        Box::pin(async move {
            if let Some(gate) = &desk.gate {
                gate.notified().await;
            }
            let shape = SessionShape {
                instructions: "Be kind.".into(),
                voice: "marin".into(),
                transcription_model: "gpt-transcribe".into(),
                language: None,
                tools: Vec::new(),
                idle_timeout_ms: None,
            };
            let agent = Agent { shape, greeting: Some("Hello.".into()) };
            Ok(Admission { agent, call: Arc::new(OneCall(desk)), resumed: None })
        })
    }
}

struct OneCall(Arc<Desk>);

impl Call for OneCall {
    fn run_tool(&self, call: ToolCall) -> BoxFuture<'static, ToolAnswer> {
        self.0.running.fetch_add(1, Ordering::SeqCst);
        let running = Running(Arc::clone(&self.0.running), Arc::clone(&self.0.tools));
        self.0.tools.notify_one();
        Box::pin(async move {
            let _running = running;
            assert!(call.name != "panics", "as its name says");
            std::future::pending().await
        })
    }

    fn record(&self, _: Entry) {}

    fn finish(&self, ending: Ending, _: Millis) -> BoxFuture<'static, ()> {
        self.0.finished.lock().unwrap().push(ending);
        Box::pin(async {})
    }
}

/// A session with a caller of ours and upstream sessions that are handed to the test as they are opened.
pub(crate) struct Scene {
    pub(crate) desk: Arc<Desk>,
    pub(crate) caller: WebSocketStream<DuplexStream>,
    pub(crate) upstreams: mpsc::Receiver<WebSocketStream<TcpStream>>,
    pub(crate) session: JoinHandle<Ending>,
    _handover: watch::Sender<Option<tokio::time::Instant>>,
}

impl Scene {
    pub(crate) async fn new(desk: Desk, settings: Settings) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("ws://{}/v1/realtime", listener.local_addr().unwrap()).parse().unwrap();
        let (opened, upstreams) = mpsc::channel(16);
        tokio::spawn(async move {
            while let Ok((socket, _)) = listener.accept().await {
                let Ok(socket) = tokio_tungstenite::accept_async(socket).await else { continue };
                if opened.send(socket).await.is_err() {
                    break;
                }
            }
        });
        let connector = Connector::new(&url, "m", "key".to_owned().into(), PATIENCE).unwrap();
        let desk = Arc::new(desk);
        let (handover, stopping) = watch::channel(None);
        let host = Arc::new(Reception(Arc::clone(&desk)));
        let engine = Engine { settings, connector, host, handover: stopping };
        let (near, far) = tokio::io::duplex(16 * 1024);
        let near = WebSocketStream::from_raw_socket(near, Role::Server, None).await;
        let caller = WebSocketStream::from_raw_socket(far, Role::Client, None).await;
        let session = tokio::spawn(run(near, engine));
        Self { desk, caller, upstreams, session, _handover: handover }
    }

    pub(crate) async fn call(&mut self) {
        let start = json!({"event":"start","streamSid":"MZ1","start":{"streamSid":"MZ1","callSid":"CA1","accountSid":"AC1"}});
        self.caller.send(Message::text(start.to_string())).await.unwrap();
    }

    /// The next upstream session, configured.
    pub(crate) async fn upstream(&mut self) -> WebSocketStream<TcpStream> {
        let opened = tokio::time::timeout(PATIENCE, self.upstreams.recv()).await;
        let mut upstream = opened.expect("no upstream session was opened").unwrap();
        say(&mut upstream, json!({"type":"session.created","session":{}})).await;
        hear(&mut upstream, "session.update").await;
        say(&mut upstream, json!({"type":"session.updated","session":{}})).await;
        upstream
    }

    pub(crate) async fn ending(self) -> Ending {
        tokio::time::timeout(PATIENCE, self.session).await.expect("the session goes on").unwrap()
    }
}

pub(crate) async fn say(upstream: &mut WebSocketStream<TcpStream>, event: Value) {
    upstream.send(Message::text(event.to_string())).await.unwrap();
}

/// The next event of a kind; others are passed over.
pub(crate) async fn hear(upstream: &mut WebSocketStream<TcpStream>, kind: &str) -> Value {
    let find = async {
        loop {
            if let Message::Text(text) = upstream.next().await.expect("closed").unwrap() {
                let event: Value = serde_json::from_str(&text).unwrap();
                if event["type"] == kind {
                    return event;
                }
            }
        }
    };
    tokio::time::timeout(PATIENCE, find).await.unwrap_or_else(|_| panic!("no {kind}"))
}

/// A response that calls a function.
pub(crate) async fn call_function(upstream: &mut WebSocketStream<TcpStream>, name: &str) {
    say(upstream, json!({"type":"response.created","response":{"id":"r"}})).await;
    say(
        upstream,
        json!({"type":"response.function_call_arguments.done","response_id":"r","call_id":"c","name":name,"arguments":"{}"}),
    )
    .await;
    say(upstream, json!({"type":"response.done","response":{"id":"r","status":"completed"}})).await;
}
