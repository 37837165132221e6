//! A multi-tenant phone receptionist: Twilio calls are answered by a speech model that knows the tenant's business.
//!
//! The voice webhook finds the tenant of the called number and answers with TwiML that opens a media stream; the
//! stream runs a [`longhouse_voice::session`] whose application side is here. Everything that touches the database acts
//! as the Postgres role `receptionist_agent`, which row-level security confines to the tenant of the line.

pub mod demo;
mod desk;
mod domain;
mod routes;
mod store;
mod tools;

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use desk::Desk;
use longhouse_database::Database;
use longhouse_database::migrations::Embedded;
use longhouse_server::{Drain, Phase, PublicOrigin};
use longhouse_voice::callers::twilio::signature::Verifier;
use longhouse_voice::session::Settings;
use longhouse_voice::session::driver::Engine;
use longhouse_voice::upstreams::realtime::Connector;
use tokio::sync::watch;
use url::Url;
use utoipa_axum::router::OpenApiRouter;

pub use domain::token::StreamTokens;
pub use routes::WEBHOOKS;
pub use store::AGENT_ROLE;

/// The application's schema.
pub const SCHEMA: &str = "receptionist";

/// The migrations of [`SCHEMA`].
pub const MIGRATIONS: &[Embedded] = &[
    Embedded { version: "0001", name: "foundation", sql: include_str!("../migrations/0001_foundation.sql") },
    Embedded { version: "0002", name: "booking", sql: include_str!("../migrations/0002_booking.sql") },
    Embedded { version: "0003", name: "people", sql: include_str!("../migrations/0003_people.sql") },
];

/// Before the drain deadline by this much, calls that found no quiet moment are handed over all the same.
const HANDOVER_MARGIN: Duration = Duration::from_secs(3);
/// How often calls of dead servers are looked for.
const SWEEP_INTERVAL: Duration = Duration::from_secs(30);

/// What the receptionist is made of.
pub struct Options {
    /// Requests' database.
    pub database: Database,
    /// The speech service.
    pub connector: Connector,
    /// Model that writes down what callers say.
    pub transcription_model: String,
    /// Times and bounds of calls.
    pub session: Settings,
    /// Checks Twilio's signatures.
    pub verifier: Verifier,
    /// The account whose streams are ours, if known.
    pub account_sid: Option<String>,
    /// Stream tokens; the same on every server of a deployment.
    pub tokens: StreamTokens,
    /// Where Twilio opens streams, when not here.
    pub stream_url: Option<Url>,
    /// Calls at once.
    pub max_calls: usize,
    /// The process's way out.
    pub drain: Drain,
}

/// The running application.
pub struct Receptionist {
    shared: Arc<Shared>,
}

pub(crate) struct Shared {
    pub(crate) database: Database,
    pub(crate) verifier: Verifier,
    pub(crate) tokens: StreamTokens,
    pub(crate) configured_stream_url: Option<Url>,
    pub(crate) engine: Engine,
    pub(crate) drain: Drain,
    max_calls: usize,
    calls: Arc<AtomicUsize>,
}

/// A call's place among the calls at once; given back when dropped.
pub(crate) struct Seat(Arc<AtomicUsize>);

impl Drop for Seat {
    fn drop(&mut self) {
        let left = self.0.fetch_sub(1, Ordering::Relaxed) - 1;
        metrics::gauge!("longhouse_voice_active_calls").set(left as f64);
    }
}

impl Shared {
    pub(crate) fn has_capacity(&self) -> bool {
        self.calls.load(Ordering::Relaxed) < self.max_calls
    }

    pub(crate) fn take_seat(&self) -> Option<Seat> {
        let taken = self
            .calls
            .fetch_update(Ordering::Relaxed, Ordering::Relaxed, |n| (n < self.max_calls).then_some(n + 1))
            .ok()?;
        metrics::gauge!("longhouse_voice_active_calls").set((taken + 1) as f64);
        Some(Seat(Arc::clone(&self.calls)))
    }

    /// Where the stream is opened: without a query, because Twilio drops it.
    pub(crate) fn stream_url(&self, origin: &PublicOrigin) -> String {
        match &self.configured_stream_url {
            Some(url) => url.as_str().trim_end_matches('/').to_owned(),
            None => format!("{}/functions/v1/twilio-voice-realtime", origin.websocket()),
        }
    }
}

/// A stream's address as Twilio takes it, the same for the route, the TwiML and the signature: no query, no
/// fragment, no slash at the end.
fn plain(mut url: Url) -> Url {
    url.set_query(None);
    url.set_fragment(None);
    let path = url.path().trim_end_matches('/').to_owned();
    url.set_path(&path);
    url
}

/// The description of the application's routes, without a running application.
pub fn openapi() -> utoipa::openapi::OpenApi {
    routes::described().into_openapi()
}

impl Receptionist {
    /// Starts the application and its background work.
    pub fn start(options: Options) -> Self {
        describe_metrics();
        let (announce, handover) = watch::channel(None);
        tokio::spawn(announce_handover(options.drain.clone(), announce));
        tokio::spawn(sweep(options.database.clone(), options.drain.clone()));
        let desk = Desk {
            database: options.database.clone(),
            tokens: options.tokens.clone(),
            account_sid: options.account_sid,
            transcription_model: options.transcription_model,
        };
        let engine = Engine {
            settings: options.session,
            connector: options.connector,
            host: Arc::new(desk),
            handover,
        };
        let shared = Shared {
            database: options.database,
            verifier: options.verifier,
            tokens: options.tokens,
            configured_stream_url: options.stream_url.map(plain),
            engine,
            drain: options.drain,
            max_calls: options.max_calls,
            calls: Arc::new(AtomicUsize::new(0)),
        };
        Self { shared: Arc::new(shared) }
    }

    /// The application's routes.
    pub fn router(&self) -> OpenApiRouter {
        routes::router(Arc::clone(&self.shared))
    }

    /// (calls now, calls at most).
    pub fn capacity(&self) -> (usize, usize) {
        (self.shared.calls.load(Ordering::Relaxed), self.shared.max_calls)
    }
}

/// Turns the process's drain into the moment by which calls must be handed over.
async fn announce_handover(drain: Drain, announce: watch::Sender<Option<tokio::time::Instant>>) {
    let mut phases = drain.subscribe();
    loop {
        let by = match *phases.borrow_and_update() {
            Phase::Running => None,
            Phase::Draining { deadline } => {
                Some(deadline - HANDOVER_MARGIN.min(deadline - tokio::time::Instant::now()))
            }
            Phase::Stopping => Some(tokio::time::Instant::now()),
        };
        announce.send_replace(by);
        if phases.changed().await.is_err() {
            return;
        }
    }
}

/// Closes calls that a dead server left open, until this one stops.
async fn sweep(database: Database, drain: Drain) {
    let mut ticks = tokio::time::interval(SWEEP_INTERVAL);
    ticks.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    loop {
        tokio::select! {
            () = drain.draining() => return,
            _ = ticks.tick() => {}
        }
        match store::close_lost_calls(&database).await {
            Ok(0) => {}
            Ok(count) => tracing::warn!(count, "closed calls that a dead server had left open"),
            Err(error) => tracing::warn!(%error, "cannot look for calls that were left open"),
        }
    }
}

fn describe_metrics() {
    longhouse_voice::session::describe_metrics();
    metrics::describe_counter!(
        "longhouse_receptionist_journal_dropped_total",
        "Entries of transcripts that were lost; must stay zero."
    );
    metrics::counter!("longhouse_receptionist_journal_dropped_total").increment(0);
    metrics::describe_counter!(
        "longhouse_receptionist_rejected_webhooks_total",
        "Requests whose Twilio signature did not fit."
    );
    metrics::counter!("longhouse_receptionist_rejected_webhooks_total").increment(0);
    metrics::describe_counter!("longhouse_receptionist_webhooks_total", "Webhooks answered, by situation.");
}
