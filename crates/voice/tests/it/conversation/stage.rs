//! Vendors, an application and a person, for conversations in real time.

use std::collections::{BTreeMap, VecDeque};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use futures_util::{SinkExt as _, StreamExt as _};
use longhouse_emulators::ai::{Answer, Mind, Options, Rule, Server};
use longhouse_emulators::speech::{CaptionDecoder, Speaker};
use longhouse_gateway::chat::{ChatRequest, ChatStream, Tool};
use longhouse_gateway::keys::{ApiKey, Owner, StaticKeys};
use longhouse_gateway::ledger::{Entry as LedgerEntry, Ledger};
use longhouse_gateway::live::cartesia::CartesiaLive;
use longhouse_gateway::live::deepgram::DeepgramLive;
use longhouse_gateway::live::{
    Dialer, Encoding, Listening, ListeningRequest, Speaking, SpeakingRequest, SpeechToText as _,
    TextToSpeech as _,
};
use longhouse_gateway::providers::Attempt;
use longhouse_gateway::quotas::Unlimited;
use longhouse_gateway::routing::Call as GatewayCall;
use longhouse_gateway::{Configuration, Error, Gateway, ProviderName};
use longhouse_voice::audio::activity::Sensitivity;
use longhouse_voice::callers::browser::Framing;
use longhouse_voice::callers::browser::connection::{Browser, Introduction, Link};
use longhouse_voice::callers::browser::lobby::Lobby;
use longhouse_voice::callers::browser::messages::Mode;
use longhouse_voice::cascade::core::Before;
use longhouse_voice::cascade::driver::{Agent, SpeechCache, run};
use longhouse_voice::cascade::services::Services;
use longhouse_voice::cascade::{Language, Rate, Settings, Turns};
use longhouse_voice::session::{
    BoxFuture, Call, Ending, Entry, Millis, Speaker as Side, ToolAnswer, ToolCall, Turn,
};
use serde_json::{Value, json};
use tokio::io::DuplexStream;
use tokio::sync::watch;
use tokio::task::JoinHandle;
use tokio::time::Instant;
use tokio_tungstenite::WebSocketStream;
use tokio_tungstenite::tungstenite::Message;
use tokio_tungstenite::tungstenite::protocol::Role;
use url::Url;

const KEY: &str = "sk-planted-marker-0123456789";
/// Captions, which tell which words were heard, need the telephone's rate.
pub(crate) const RATE: usize = 8_000;
const FRAME: usize = RATE / 50;
/// A loudspeaker begins to play this many frames after the first sound has come, as every client does: networks jitter.
const JITTER_BUFFER: u32 = 5;

struct NoLedger;

#[async_trait::async_trait]
impl Ledger for NoLedger {
    async fn record(&self, _: LedgerEntry) -> Result<(), Error> {
        Ok(())
    }
}

/// Emulated vendors: the recogniser's and the synthesiser's sockets are apart, so that each can have its own trouble.
pub(crate) struct Vendors {
    pub(crate) hearing: Server,
    pub(crate) speaking: Server,
    gateway: Gateway,
    dialer: Dialer,
    cache: SpeechCache,
}

impl Vendors {
    pub(crate) async fn new(rules: Vec<(&str, Answer)>) -> Arc<Self> {
        let rules = rules.into_iter().map(|(when, then)| Rule { when: when.into(), then }).collect();
        let options = Options {
            api_key: Some(KEY.into()),
            mind: Mind { rules },
            event_gap: Duration::from_millis(2),
            ..Options::default()
        };
        let hearing = Server::start(options.clone()).await.unwrap();
        let speaking = Server::start(options).await.unwrap();
        let configuration = format!(
            "[providers.openai]\nbase_url = \"{}\"\n[tasks.talk]\nmodality = \"chat\"\nmodels = [\"openai/gpt-5-mini\"]\n",
            hearing.openai()
        );
        let gateway = Gateway::new(
            Configuration::parse(&configuration).unwrap(),
            Arc::new(StaticKeys::default().with("openai", KEY.into())),
            Arc::new(Unlimited),
            Arc::new(NoLedger),
            true,
        );
        let cache = SpeechCache::default();
        Arc::new(Self { hearing, speaking, gateway: gateway.unwrap(), dialer: Dialer::new(), cache })
    }

    fn attempt(base_url: Url, model: &str) -> Attempt {
        Attempt {
            provider: ProviderName::new("vendor"),
            model: model.into(),
            key: Some(ApiKey::new(KEY.to_owned().into())),
            base_url,
            trusted_address: true,
            deadline: Instant::now() + Duration::from_secs(10),
            first_byte: Duration::from_secs(5),
            idle: Duration::from_secs(5),
            idempotency_key: "k".into(),
        }
    }
}

struct Stack(Arc<Vendors>);

impl Services for Stack {
    fn listen(&self, rate: Rate, language: Language) -> BoxFuture<'static, Result<Listening, Error>> {
        let attempt = Vendors::attempt(self.0.hearing.deepgram(), "flux-general-en");
        let vendor = DeepgramLive::new(self.0.dialer.clone());
        let mut request = ListeningRequest::new(Encoding::Pcm16(rate.0));
        request.language = Some(language.tag().to_owned());
        request.eager_threshold = Some(0.5);
        Box::pin(async move { vendor.listen(&request, &attempt).await })
    }

    fn speak(&self, rate: Rate, language: Language) -> BoxFuture<'static, Result<Speaking, Error>> {
        let attempt = Vendors::attempt(self.0.speaking.cartesia(), "sonic-3");
        let vendor = CartesiaLive::new(self.0.dialer.clone());
        let mut request = SpeakingRequest::new(Encoding::Pcm16(rate.0));
        request.voice = Some("a0e99841-438c-4a64-b679-ae501e7d6091".into());
        request.language = Some(language.tag().to_owned());
        Box::pin(async move { vendor.open(&request, &attempt).await })
    }

    fn chat(&self, request: ChatRequest) -> BoxFuture<'static, Result<ChatStream, Error>> {
        let gateway = self.0.gateway.clone();
        Box::pin(async move {
            let mut call = GatewayCall::new("talk", Owner { app: "tests".into(), ..Owner::default() });
            call.restart = Some(false);
            Ok(gateway.chat(&call, request).await?.value)
        })
    }
}

/// The application: stores turns, and has one slow tool.
#[derive(Default)]
pub(crate) struct Desk {
    turns: Mutex<BTreeMap<i32, Turn>>,
    tools: Mutex<Vec<String>>,
}

impl Desk {
    /// Turns with words, in order.
    pub(crate) fn turns(&self) -> Vec<Turn> {
        self.turns.lock().unwrap().values().filter(|turn| !turn.text.is_empty()).cloned().collect()
    }

    pub(crate) fn words(&self, side: Side) -> Vec<String> {
        let turns = self.turns();
        let of = turns.iter().filter(|turn| turn.speaker == side);
        of.flat_map(|turn| turn.text.split_whitespace().map(str::to_owned).collect::<Vec<_>>()).collect()
    }

    pub(crate) fn tools(&self) -> Vec<String> {
        self.tools.lock().unwrap().clone()
    }
}

struct OneCall(Arc<Desk>);

impl Call for OneCall {
    fn run_tool(&self, call: ToolCall) -> BoxFuture<'static, ToolAnswer> {
        self.0.tools.lock().unwrap().push(call.name);
        Box::pin(async {
            tokio::time::sleep(Duration::from_millis(2_500)).await;
            ToolAnswer { output: json!("seven tables are free"), then: None }
        })
    }

    fn record(&self, entry: Entry) {
        if let Entry::Turn(turn) = entry {
            self.0.turns.lock().unwrap().insert(turn.ordinal, turn);
        }
    }

    fn finish(&self, _: Ending, _: Millis) -> BoxFuture<'static, ()> {
        Box::pin(std::future::ready(()))
    }
}

/// A conversation, and the person in it.
pub(crate) struct Scene {
    pub(crate) desk: Arc<Desk>,
    pub(crate) lobby: Lobby,
    pub(crate) person: Person,
    conversation: JoinHandle<Ending>,
    handover: watch::Sender<Option<Instant>>,
}

pub(crate) fn settings() -> Settings {
    Settings { rate: Rate(RATE as u32), turns: Turns::Recognizer, ..Settings::default() }
}

pub(crate) async fn sockets() -> (WebSocketStream<DuplexStream>, WebSocketStream<DuplexStream>) {
    let (near, far) = tokio::io::duplex(64 * 1024);
    tokio::join!(
        WebSocketStream::from_raw_socket(near, Role::Server, None),
        WebSocketStream::from_raw_socket(far, Role::Client, None)
    )
}

impl Scene {
    pub(crate) async fn new(vendors: &Arc<Vendors>, settings: Settings) -> Self {
        let (near, far) = sockets().await;
        let lobby = Lobby::default();
        let (handover, stopping) = watch::channel(None);
        let link = Link::new(near, Framing::Binary);
        let (desk, conversation) = begin(vendors, settings, link, Mode::default(), &lobby, stopping);
        Self { desk, lobby, person: Person::new(far), conversation, handover }
    }

    /// A conversation over a connection of the test's own.
    pub(crate) fn over(
        vendors: &Arc<Vendors>,
        settings: Settings,
        link: Link,
        mode: Mode,
    ) -> (Arc<Desk>, JoinHandle<Ending>) {
        let (_, stopping) = watch::channel(None);
        begin(vendors, settings, link, mode, &Lobby::default(), stopping)
    }

    /// The server stops; the conversation ends at its next quiet moment.
    pub(crate) async fn end(mut self) -> (Arc<Desk>, Person) {
        self.handover.send(Some(Instant::now() + Duration::from_secs(20))).unwrap();
        let ending = loop {
            tokio::select! {
                ending = &mut self.conversation => break ending.unwrap(),
                () = self.person.live(Duration::from_millis(100)) => {}
            }
        };
        assert_eq!(ending, Ending::HandedOver);
        (self.desk, self.person)
    }

    /// The person comes back on a new connection.
    pub(crate) async fn come_back(&mut self) {
        let (near, far) = sockets().await;
        let token = self.person.resume_token.clone().expect("no way back was told");
        let back =
            self.lobby.come_back(&token, Link::new(near, Framing::Binary), Some(self.person.played)).await;
        assert!(back.is_ok(), "the conversation is gone");
        self.person.socket = Some(far);
    }
}

fn begin(
    vendors: &Arc<Vendors>,
    settings: Settings,
    link: Link,
    mode: Mode,
    lobby: &Lobby,
    stopping: watch::Receiver<Option<Instant>>,
) -> (Arc<Desk>, JoinHandle<Ending>) {
    let desk = Arc::new(Desk::default());
    let introduction = Introduction {
        session_id: "sess".into(),
        npc_name: "Ada".into(),
        voice: ("cartesia".into(), "a0e9".into(), 100),
        mode,
        sample_rate: RATE as u32,
        resume_window: Duration::from_secs(10),
    };
    let (browser, _outbox) = Browser::new(link, introduction, lobby);
    let tools = vec![Tool {
        name: "tables".into(),
        description: "Counts free tables.".into(),
        parameters: json!({"type": "object", "properties": {}}),
        strict: false,
    }];
    let agent = Agent {
        instructions: "Be kind.".into(),
        tools,
        settings,
        sensitivity: Sensitivity::default(),
        services: Arc::new(Stack(Arc::clone(vendors))),
        call: Arc::new(OneCall(Arc::clone(&desk))),
        before: Before::default(),
        cache: Some(vendors.cache.clone()),
        voice: "cartesia/a0e9".into(),
        recorder: None,
    };
    (desk, tokio::spawn(run(browser, agent, stopping)))
}

/// Somebody with a microphone and a loudspeaker.
pub(crate) struct Person {
    socket: Option<WebSocketStream<DuplexStream>>,
    speaker: Speaker,
    microphone: VecDeque<i16>,
    loudspeaker: VecDeque<i16>,
    pub(crate) played: u64,
    acknowledged: u64,
    sequence: u32,
    sent: u64,
    /// Everything that came out of the loudspeaker, silence included.
    pub(crate) heard: Vec<i16>,
    pub(crate) messages: Vec<Value>,
    pub(crate) resume_token: Option<String>,
    next: Option<Instant>,
    /// Frames since sound came after silence.
    buffering: u32,
}

impl Person {
    fn new(socket: WebSocketStream<DuplexStream>) -> Self {
        Self {
            socket: Some(socket),
            speaker: Speaker::detect(),
            microphone: VecDeque::new(),
            loudspeaker: VecDeque::new(),
            played: 0,
            acknowledged: 0,
            sequence: 0,
            sent: 0,
            heard: Vec::new(),
            messages: Vec::new(),
            resume_token: None,
            next: None,
            buffering: 0,
        }
    }

    /// Says something from now on, while they live.
    pub(crate) async fn say(&mut self, text: &str) {
        let spoken = self.speaker.say(text).await;
        self.microphone.extend(&spoken.samples);
    }

    /// Loses the connection, without a word.
    pub(crate) fn lose_connection(&mut self) {
        self.socket = None;
    }

    /// Lets time pass: speaks, listens, and tells what was played.
    pub(crate) async fn live(&mut self, time: Duration) {
        let mut ticks = time.as_millis() / 20;
        while ticks > 0 {
            let next = self.next.unwrap_or_else(Instant::now);
            let message = async {
                match &mut self.socket {
                    Some(socket) => socket.next().await,
                    None => std::future::pending().await,
                }
            };
            tokio::select! {
                biased;
                () = tokio::time::sleep_until(next) => {
                    self.next = Some(next + Duration::from_millis(20));
                    ticks -= 1;
                    self.tick().await;
                }
                message = message => match message {
                    Some(Ok(message)) => self.take(message).await,
                    _ => self.socket = None,
                },
            }
        }
    }

    /// Lets time pass until something has happened.
    pub(crate) async fn until(&mut self, what: &str, happened: impl Fn(&Self) -> bool) {
        for _ in 0..1_000 {
            if happened(self) {
                return;
            }
            self.live(Duration::from_millis(20)).await;
        }
        panic!("never: {what}; {:?}", self.messages);
    }

    async fn send(&mut self, kind: u8, position: u64, samples: &[i16]) {
        let mut bytes = vec![kind, 0, 0, 0];
        bytes.extend(self.sequence.to_le_bytes());
        bytes.extend(position.to_le_bytes());
        bytes.extend(samples.iter().flat_map(|s| s.to_le_bytes()));
        self.sequence += 1;
        if let Some(socket) = &mut self.socket {
            let _ = socket.send(Message::binary(bytes)).await;
        }
    }

    async fn tick(&mut self) {
        let frame: Vec<i16> = (0..FRAME).map(|_| self.microphone.pop_front().unwrap_or(0)).collect();
        self.send(1, self.sent, &frame).await;
        self.sent += FRAME as u64;
        self.buffering = if self.loudspeaker.is_empty() { 0 } else { self.buffering + 1 };
        let playing = if self.buffering > JITTER_BUFFER { self.loudspeaker.len().min(FRAME) } else { 0 };
        self.heard.extend(self.loudspeaker.drain(..playing));
        self.heard.resize(self.heard.len() + FRAME - playing, 0);
        self.played += playing as u64;
        let due = self.played - self.acknowledged >= RATE as u64 / 10 || self.loudspeaker.is_empty();
        if due && self.played > self.acknowledged {
            self.acknowledged = self.played;
            self.send(2, self.played, &[]).await;
        }
    }

    async fn take(&mut self, message: Message) {
        match message {
            Message::Binary(bytes) if bytes[0] == 1 => {
                self.loudspeaker
                    .extend(bytes[16..].chunks_exact(2).map(|b| i16::from_le_bytes([b[0], b[1]])));
            }
            Message::Binary(bytes) if bytes[0] == 3 => {
                self.loudspeaker.clear();
                self.acknowledged = self.played;
                self.send(4, self.played, &[]).await;
            }
            Message::Text(text) => {
                let message: Value = serde_json::from_str(&text).unwrap();
                if message["type"] == "ready" {
                    self.resume_token = message["resume_token"].as_str().map(str::to_owned);
                    // What was on its way when the connection broke is sent again.
                    self.loudspeaker.clear();
                }
                self.messages.push(message);
            }
            _ => {}
        }
    }

    pub(crate) fn is_hearing(&self) -> bool {
        !self.loudspeaker.is_empty()
    }

    /// How often the agent has finished.
    pub(crate) fn answers(&self) -> usize {
        self.messages.iter().filter(|message| message["type"] == "generation_end").count()
    }

    /// The words that arrived whole, read from the waveform.
    pub(crate) fn heard_words(&self) -> Vec<String> {
        let mut decoder = CaptionDecoder::new();
        let mut words = decoder.push(&self.heard);
        words.extend(decoder.push(&[0; RATE]));
        words.into_iter().map(|word| word.text).collect()
    }
}

pub(crate) fn says(text: &str) -> Answer {
    Answer { text: text.into(), ..Answer::default() }
}
