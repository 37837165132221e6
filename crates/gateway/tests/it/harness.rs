//! A gateway whose providers are emulators, and a ledger that tests read.

use std::sync::{Arc, Mutex};
use std::time::Duration;

use async_trait::async_trait;
use longhouse_emulators::ai::{Options, Server};
use longhouse_gateway::keys::{Owner, StaticKeys};
use longhouse_gateway::ledger::{Entry, Ledger};
use longhouse_gateway::quotas::Unlimited;
use longhouse_gateway::routing::Call;
use longhouse_gateway::{Configuration, Error, Gateway};
use tokio::sync::watch;

/// The key that emulators want; it must appear in no message.
pub(crate) const KEY: &str = "sk-planted-marker-0123456789";

/// What calls were recorded.
#[derive(Clone, Debug)]
pub(crate) struct Book {
    entries: Arc<Mutex<Vec<Entry>>>,
    count: watch::Sender<usize>,
}

impl Default for Book {
    fn default() -> Self {
        Self { entries: Arc::default(), count: watch::Sender::new(0) }
    }
}

#[async_trait]
impl Ledger for Book {
    async fn record(&self, entry: Entry) -> Result<(), Error> {
        self.entries.lock().unwrap().push(entry);
        self.count.send_modify(|count| *count += 1);
        Ok(())
    }
}

impl Book {
    /// The entries, when there are this many.
    pub(crate) async fn entries(&self, count: usize) -> Vec<Entry> {
        self.count.subscribe().wait_for(|found| *found >= count).await.unwrap();
        self.entries.lock().unwrap().clone()
    }
}

/// A vendor of the emulator, and a model of it.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) enum Vendor {
    Responses,
    Completions,
    Anthropic,
    Gemini,
}

impl Vendor {
    pub(crate) fn model(self) -> &'static str {
        match self {
            Self::Responses => "openai/gpt-5-mini",
            Self::Completions => "local/gpt-4.1",
            Self::Anthropic => "anthropic/claude-haiku-5-5",
            Self::Gemini => "gemini/gemini-3-flash-preview",
        }
    }
}

/// Everything that a test needs.
pub(crate) struct Bench {
    pub(crate) server: Server,
    pub(crate) gateway: Gateway,
    pub(crate) book: Book,
}

impl Bench {
    /// `tasks` is TOML; providers are there already.
    pub(crate) async fn new(options: Options, tasks: &str) -> Self {
        let options = Options { api_key: Some(KEY.to_owned()), ..options };
        let server = Server::start(options).await.unwrap();
        let providers = format!(
            "[providers.openai]\nbase_url = \"{}\"\n[providers.local]\nprotocol = \"openai-compatible\"\nbase_url = \"{}\"\n\
             [providers.anthropic]\nbase_url = \"{}\"\n[providers.gemini]\nbase_url = \"{}\"\n\
             [providers.deepgram]\nbase_url = \"{}\"\n[providers.elevenlabs]\nbase_url = \"{}\"\n\
             [providers.cartesia]\nbase_url = \"{}\"\n[providers.replicate]\nbase_url = \"{}\"\n\
             [providers.nowhere]\nprotocol = \"openai-compatible\"\nbase_url = \"http://127.0.0.1:1/v1\"\n",
            server.openai(),
            server.openai(),
            server.anthropic(),
            server.gemini(),
            server.deepgram(),
            server.elevenlabs(),
            server.cartesia(),
            server.replicate()
        );
        let configuration = Configuration::parse(&format!("{providers}{tasks}")).unwrap();
        let mut keys = StaticKeys::default();
        for provider in
            ["openai", "local", "anthropic", "gemini", "deepgram", "elevenlabs", "cartesia", "replicate"]
        {
            keys = keys.with(provider, KEY.into());
        }
        let book = Book::default();
        let gateway =
            Gateway::new(configuration, Arc::new(keys), Arc::new(Unlimited), Arc::new(book.clone()), false)
                .unwrap();
        Self { server, gateway, book }
    }

    /// One chat task `t` over one model, tried once.
    pub(crate) async fn one(vendor: Vendor, options: Options) -> Self {
        Self::new(options, &task(&[vendor.model()], "attempts = 1")).await
    }
}

/// A chat task `t`.
pub(crate) fn task(models: &[&str], more: &str) -> String {
    format!("[tasks.t]\nmodality = \"chat\"\nmodels = {models:?}\n{more}\n")
}

pub(crate) fn call() -> Call {
    Call::new("t", Owner { app: "tests".into(), ..Owner::default() })
}

/// No test waits longer than this for anything.
pub(crate) async fn soon<T>(future: impl Future<Output = T>) -> T {
    tokio::time::timeout(Duration::from_secs(20), future).await.expect("it takes too long")
}
