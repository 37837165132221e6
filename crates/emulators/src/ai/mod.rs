//! Strict model providers over HTTP: `OpenAI` (chat completions, responses, speech, transcription, pictures,
//! embeddings, moderation), Anthropic Messages, Gemini; and the speech and pictures of Deepgram, ElevenLabs, Cartesia and
//! Replicate.
//!
//! Sockets too: streaming recognition and speech of Deepgram, Cartesia and ElevenLabs, sessions of Gemini Live, `OpenAI`
//! Realtime and xAI.
//!
//! One server speaks them all, each below a path of its own ([`Server::openai`], [`Server::anthropic`],
//! [`Server::gemini`]). Requests are judged as the vendors judge them: unknown fields, roles, pairing of tool calls and
//! results, sizes, keys and versions. Answers come from a [`Mind`]: rules, and without any a mind of simple manners that
//! calls the tools it is asked to, fills the schema it is given and repeats what it was told. [`Faults`] script what
//! goes wrong. Sources: the vendors' references and the types of their SDKs as of November 2026.
//!
//! ```no_run
//! # async fn run() -> std::io::Result<()> {
//! use longhouse_emulators::ai::{Options, Server};
//! let server = Server::start(Options::default()).await?;
//! println!("OPENAI_BASE_URL={}", server.openai());
//! # server.stop().await;
//! # Ok(()) }
//! ```

mod anthropic;
mod cartesia;
mod deepgram;
mod elevenlabs;
mod exchange;
mod fault;
mod gemini;
mod live;
mod mind;
mod multipart;
mod openai;
mod replicate;
mod reply;
mod shape;
mod sound;

use std::collections::VecDeque;
use std::io;
use std::net::{Ipv4Addr, SocketAddr};
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::Duration;

pub use fault::{Fault, Faults};
pub use live::{LiveAction, LiveFault, LiveFaults, LiveOptions, LiveRecord};
pub use mind::{Answer, Mind, Rule};
use tokio::net::TcpListener;
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use url::Url;

use crate::openai as realtime;
use crate::speech::Speaker;

/// Records kept; the oldest make room.
const MAX_RECORDS: usize = 4_096;

/// How the server behaves.
#[derive(Debug, Clone)]
pub struct Options {
    /// Where to listen; port 0 picks a free one.
    pub listen: SocketAddr,
    /// The key that clients must present; without one, any does.
    pub api_key: Option<String>,
    /// What it answers.
    pub mind: Mind,
    /// The pause between two events of a stream.
    pub event_gap: Duration,
    /// The voice.
    pub speaker: Speaker,
    /// What goes wrong.
    pub faults: Faults,
    /// How the sockets behave.
    pub live: LiveOptions,
    /// How sessions of `OpenAI` Realtime and xAI behave; address, key and voice are this server's.
    pub realtime: realtime::Options,
}

impl Default for Options {
    fn default() -> Self {
        Self {
            listen: SocketAddr::from((Ipv4Addr::LOCALHOST, 0)),
            api_key: None,
            mind: Mind::default(),
            event_gap: Duration::ZERO,
            speaker: Speaker::detect(),
            faults: Faults::default(),
            live: LiveOptions::default(),
            realtime: realtime::Options::default(),
        }
    }
}

/// One request and what became of it.
#[derive(Debug, Clone, Default)]
pub struct Record {
    /// Method and path, without the vendor's prefix: `POST /v1/chat/completions`.
    pub route: String,
    /// The body, where it is JSON.
    pub body: serde_json::Value,
    /// The header `idempotency-key`, if it came.
    pub idempotency_key: Option<String>,
    /// The status of the answer.
    pub status: u16,
    /// Bytes of the answer that were sent.
    pub sent: usize,
    /// How it ended; `None` while it is under way.
    pub end: Option<End>,
}

/// How an exchange ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum End {
    /// The whole answer was sent.
    Done,
    /// The client went away before.
    Cancelled,
    /// A scripted fault cut it.
    Cut,
}

/// A running server. It stops when dropped.
#[derive(Debug)]
pub struct Server {
    address: SocketAddr,
    shared: Arc<Shared>,
    tasks: TaskTracker,
}

#[derive(Debug)]
struct Shared {
    options: Options,
    /// The faults, and how many requests have come since they were set.
    faults: Mutex<(Faults, usize)>,
    records: Mutex<VecDeque<Arc<Mutex<Record>>>>,
    /// How many answers are under way.
    open: watch::Sender<usize>,
    live: live::LiveShared,
    realtime: Arc<realtime::Shared>,
    xai: Arc<realtime::Shared>,
    tasks: TaskTracker,
    stop: CancellationToken,
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().expect("no code panics while it holds this lock")
}

impl Server {
    /// Listens and serves.
    ///
    /// # Errors
    /// When the address cannot be bound.
    pub async fn start(options: Options) -> io::Result<Self> {
        let listener = TcpListener::bind(options.listen).await?;
        let address = listener.local_addr()?;
        let tasks = TaskTracker::new();
        let sessions = |vendor| {
            let (api_key, speaker) = (options.api_key.clone(), options.speaker.clone());
            realtime::shared(realtime::Options { api_key, speaker, vendor, ..options.realtime.clone() })
        };
        let shared = Arc::new(Shared {
            faults: Mutex::new((options.faults.clone(), 0)),
            live: live::LiveShared::new(&options.live),
            realtime: sessions(realtime::Vendor::OpenAi),
            xai: sessions(realtime::Vendor::Xai),
            options,
            records: Mutex::default(),
            open: watch::Sender::new(0),
            tasks: tasks.clone(),
            stop: CancellationToken::new(),
        });
        tasks.spawn(exchange::accept(listener, Arc::clone(&shared), tasks.clone()));
        Ok(Self { address, shared, tasks })
    }

    fn url(&self, path: &str) -> Url {
        Url::parse(&format!("http://{}{path}", self.address)).expect("a socket address makes a valid URL")
    }

    /// Base URL of `OpenAI`: `http://127.0.0.1:PORT/openai/v1`.
    #[must_use]
    pub fn openai(&self) -> Url {
        self.url("/openai/v1")
    }

    /// Base URL of Anthropic: `http://127.0.0.1:PORT/anthropic`.
    #[must_use]
    pub fn anthropic(&self) -> Url {
        self.url("/anthropic")
    }

    /// Base URL of Gemini: `http://127.0.0.1:PORT/gemini/v1beta`.
    #[must_use]
    pub fn gemini(&self) -> Url {
        self.url("/gemini/v1beta")
    }

    /// Base URL of Deepgram: `http://127.0.0.1:PORT/deepgram`.
    #[must_use]
    pub fn deepgram(&self) -> Url {
        self.url("/deepgram")
    }

    /// Base URL of ElevenLabs: `http://127.0.0.1:PORT/elevenlabs`.
    #[must_use]
    pub fn elevenlabs(&self) -> Url {
        self.url("/elevenlabs")
    }

    /// Base URL of Cartesia: `http://127.0.0.1:PORT/cartesia`.
    #[must_use]
    pub fn cartesia(&self) -> Url {
        self.url("/cartesia")
    }

    /// Base URL of Replicate: `http://127.0.0.1:PORT/replicate/v1`.
    #[must_use]
    pub fn replicate(&self) -> Url {
        self.url("/replicate/v1")
    }

    /// Base URL of xAI, whose sessions this server speaks: `http://127.0.0.1:PORT/xai/v1`.
    #[must_use]
    pub fn xai(&self) -> Url {
        self.url("/xai/v1")
    }

    /// All sockets so far, oldest first, without those of `OpenAI` and xAI.
    #[must_use]
    pub fn sockets(&self) -> Vec<LiveRecord> {
        self.shared.live.records()
    }

    /// Sessions of `OpenAI` Realtime so far, oldest first.
    #[must_use]
    pub fn realtime_sessions(&self) -> Vec<realtime::SessionRecord> {
        self.shared.realtime.records()
    }

    /// Sessions of xAI so far, oldest first.
    #[must_use]
    pub fn xai_sessions(&self) -> Vec<realtime::SessionRecord> {
        self.shared.xai.records()
    }

    /// Changes what goes wrong with sockets from now on; they are counted from 0 again.
    pub fn set_live_faults(&self, faults: LiveFaults) {
        self.shared.live.set_faults(faults);
    }

    /// Changes what goes wrong with sessions of `OpenAI` and xAI from now on.
    pub fn set_realtime_faults(&self, faults: realtime::Faults) {
        self.shared.realtime.set_faults(faults.clone());
        self.shared.xai.set_faults(faults);
    }

    /// How many sockets are open, those of all vendors.
    #[must_use]
    pub fn open_sockets(&self) -> usize {
        *self.shared.live.open.borrow()
    }

    /// Waits until no socket is open.
    pub async fn sockets_closed(&self) {
        let mut open = self.shared.live.open.subscribe();
        // The sender lives as long as the server.
        let _ = open.wait_for(|open| *open == 0).await;
    }

    /// All requests so far, oldest first.
    #[must_use]
    pub fn records(&self) -> Vec<Record> {
        lock(&self.shared.records).iter().map(|record| lock(record).clone()).collect()
    }

    /// Changes what goes wrong with requests from now on; they are counted from 0 again.
    pub fn set_faults(&self, faults: Faults) {
        *lock(&self.shared.faults) = (faults, 0);
    }

    /// How many answers are under way.
    #[must_use]
    pub fn open(&self) -> usize {
        *self.shared.open.borrow()
    }

    /// Waits until no answer is under way.
    pub async fn idle(&self) {
        let mut open = self.shared.open.subscribe();
        // The sender lives as long as the server.
        let _ = open.wait_for(|open| *open == 0).await;
    }

    /// Ends everything, and waits until all is gone.
    pub async fn stop(self) {
        self.shared.stop.cancel();
        self.tasks.close();
        self.tasks.wait().await;
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        self.shared.stop.cancel();
    }
}
