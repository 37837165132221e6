//! A strict `OpenAI` Realtime (GA) server over WebSocket: `GET /v1/realtime?model=…`.
//!
//! It validates what it gets as the vendor does, detects turns with a real detector on the audio that arrives, reads
//! the words that emulated callers carry in their audio (see [`crate::speech`]), answers by [`Rule`]s, and speaks
//! faster than real time. [`Faults`] script what can go wrong. Sources: the vendor's GA reference and SDK types as of
//! November 2026.
//!
//! ```no_run
//! # async fn run() -> std::io::Result<()> {
//! use longhouse_emulators::openai::{Options, Server};
//! let server = Server::start(Options::default()).await?;
//! println!("{}?model=gpt-realtime-2.1", server.url());
//! # server.stop().await;
//! # Ok(()) }
//! ```

mod config;
mod conversation;
mod faults;
mod handshake;
mod input;
mod record;
mod response;
mod rules;
mod session;
mod validate;
mod xai;

use std::{
    collections::VecDeque,
    io,
    net::{Ipv4Addr, SocketAddr},
    sync::{
        Arc, Mutex, MutexGuard,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};

pub use faults::{Action, After, Fault, Faults};
pub(crate) use handshake::{admission, serve_socket};
pub use record::{ClientEvent, Closed, Said, SentError, SessionRecord};
pub use rules::{Match, Rule, Then, ToolCall};
use tokio::net::TcpListener;
use tokio_util::{sync::CancellationToken, task::TaskTracker};
use url::Url;

use crate::speech::Speaker;

/// Sessions at once; more are refused with 503.
const MAX_SESSIONS: usize = 4_096;
/// Records kept; the oldest make room.
const MAX_RECORDS: usize = 2_048;

/// Whose dialect is spoken.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Vendor {
    /// The original.
    #[default]
    OpenAi,
    /// xAI's voice agent: other places for the voice and the detection of turns, PCM of many rates, transcripts as all
    /// words so far, pings within the protocol.
    Xai,
}

/// How the server behaves.
#[derive(Debug, Clone)]
pub struct Options {
    /// Whose dialect is spoken.
    pub vendor: Vendor,
    /// Where to listen; port 0 picks a free one.
    pub listen: SocketAddr,
    /// The key that clients must present; without one, any non-empty bearer token does.
    pub api_key: Option<String>,
    /// Scripted answers, tried in order before the built-in manners of a receptionist.
    pub rules: Vec<Rule>,
    /// How long a session may last: 60 minutes at the vendor.
    pub session_cap: Duration,
    /// How long the model takes from `response.created` to its first output, give or take a fifth.
    pub first_audio_latency: Duration,
    /// Milliseconds of audio in one delta.
    pub delta_ms: u32,
    /// The pause between deltas: less than `delta_ms` is faster than real time.
    pub delta_gap: Duration,
    /// How long after a commit the user's transcript comes.
    pub transcription_delay: Duration,
    /// What goes wrong.
    pub faults: Faults,
    /// Decides ids and latencies.
    pub seed: u64,
    /// The voice.
    pub speaker: Speaker,
    /// Keep the raw bytes of both directions in the records.
    pub record_audio: bool,
}

impl Default for Options {
    fn default() -> Self {
        Self {
            vendor: Vendor::default(),
            listen: SocketAddr::from((Ipv4Addr::LOCALHOST, 0)),
            api_key: None,
            rules: Vec::new(),
            session_cap: Duration::from_secs(3_600),
            first_audio_latency: Duration::from_millis(200),
            delta_ms: 200,
            delta_gap: Duration::from_millis(20),
            transcription_delay: Duration::from_millis(300),
            faults: Faults::default(),
            seed: 1,
            speaker: Speaker::detect(),
            record_audio: false,
        }
    }
}

/// A running server. It stops when dropped.
#[derive(Debug)]
pub struct Server {
    address: SocketAddr,
    shared: Arc<Shared>,
    tasks: TaskTracker,
}

#[derive(Debug)]
pub(crate) struct Shared {
    options: Options,
    /// The faults, and how many connections have come since they were set.
    faults: Mutex<(Faults, usize)>,
    records: Mutex<VecDeque<Arc<Mutex<SessionRecord>>>>,
    sessions: AtomicUsize,
    open: AtomicUsize,
    refused: AtomicUsize,
    stop: CancellationToken,
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().expect("no code panics while it holds this lock")
}

/// What sessions share, for servers that accept their sockets themselves.
pub(crate) fn shared(options: Options) -> Arc<Shared> {
    Arc::new(Shared {
        faults: Mutex::new((options.faults.clone(), 0)),
        options,
        records: Mutex::default(),
        sessions: AtomicUsize::new(0),
        open: AtomicUsize::new(0),
        refused: AtomicUsize::new(0),
        stop: CancellationToken::new(),
    })
}

impl Shared {
    pub(crate) fn records(&self) -> Vec<SessionRecord> {
        lock(&self.records).iter().map(|record| lock(record).clone()).collect()
    }

    pub(crate) fn set_faults(&self, faults: Faults) {
        *lock(&self.faults) = (faults, 0);
    }
}

impl Server {
    /// Listens and serves.
    ///
    /// # Errors
    /// When the address cannot be bound.
    pub async fn start(options: Options) -> io::Result<Self> {
        let listener = TcpListener::bind(options.listen).await?;
        let address = listener.local_addr()?;
        let shared = shared(options);
        let tasks = TaskTracker::new();
        tasks.spawn(accept(listener, Arc::clone(&shared), tasks.clone()));
        Ok(Self { address, shared, tasks })
    }

    /// Where it listens: `ws://127.0.0.1:PORT/v1/realtime`; clients add `?model=…`.
    #[must_use]
    pub fn url(&self) -> Url {
        Url::parse(&format!("ws://{}/v1/realtime", self.address)).expect("a socket address makes a valid URL")
    }

    /// The logs of all sessions so far, oldest first.
    #[must_use]
    pub fn sessions(&self) -> Vec<SessionRecord> {
        self.shared.records()
    }

    /// Changes what goes wrong for connections from now on; they are counted from 0 again.
    pub fn set_faults(&self, faults: Faults) {
        self.shared.set_faults(faults);
    }

    /// How many sessions are open.
    #[must_use]
    pub fn open_sessions(&self) -> usize {
        self.shared.open.load(Ordering::Acquire)
    }

    /// How many upgrades were refused.
    #[must_use]
    pub fn refused(&self) -> usize {
        self.shared.refused.load(Ordering::Acquire)
    }

    /// Closes every session with 1001, and waits until all are gone.
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

async fn accept(listener: TcpListener, shared: Arc<Shared>, tasks: TaskTracker) {
    loop {
        let accepted = tokio::select! {
            accepted = listener.accept() => accepted,
            () = shared.stop.cancelled() => return,
        };
        match accepted {
            Ok((stream, _)) => {
                let shared = Arc::clone(&shared);
                tasks.spawn(async move {
                    shared.open.fetch_add(1, Ordering::AcqRel);
                    Box::pin(handshake::serve(stream, &shared)).await;
                    shared.open.fetch_sub(1, Ordering::AcqRel);
                });
            }
            // Out of descriptors: wait for some to be freed rather than spin.
            Err(error) => {
                tracing::warn!(%error, "the emulator could not accept a connection; retrying");
                tokio::time::sleep(Duration::from_millis(50)).await;
            }
        }
    }
}
