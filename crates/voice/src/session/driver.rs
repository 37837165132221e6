//! Runs a session: one task that reads and writes its sockets, dials upstreams, runs tools and keeps the clock.

use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::task::Poll;
use std::time::Duration;

use futures_util::StreamExt as _;
use futures_util::stream::FuturesUnordered;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::sync::watch;
use tokio::time::{Instant, Interval, MissedTickBehavior, Sleep};
use tokio_tungstenite::WebSocketStream;

use super::core::{Core, Effect};
use super::wire::{Incoming, Wire};
use super::{Admission, BoxFuture, Call, Ending, Host, Millis, Settings, ToolAnswer};
use crate::upstreams::realtime::{Command, ConnectError, Connector, UpstreamSocket};

/// A caller who does not read: above this many waiting bytes the upstream is not read either.
const CALLER_BACKLOG: usize = 256 * 1024;
/// An upstream that does not read: above this many waiting bytes (5 s of speech) the oldest audio is dropped.
const UPSTREAM_BACKLOG: usize = 64 * 1024;
/// Signs of life are asked for this many times within [`Settings::silence_timeout`].
const PINGS: u32 = 4;
/// The first round trips of a call are measured closer together: one alone may have waited for a busy start.
const EARLY_PINGS: u32 = 4;
/// Time between those.
const EARLY_PING: Duration = Duration::from_millis(250);
/// Longest goodbye on a socket.
const CLOSE_LIMIT: Duration = Duration::from_secs(2);
/// Longest wait for the application to store the end of a call.
const FINISH_LIMIT: Duration = Duration::from_secs(10);
/// Messages handled before other tasks get a turn.
const BURST: usize = 32;

/// What every session of a process shares.
#[derive(Clone)]
pub struct Engine {
    /// Times and bounds.
    pub settings: Settings,
    /// Opens upstream sessions.
    pub connector: Connector,
    /// The application.
    pub host: Arc<dyn Host>,
    /// Set to a moment when the server is stopping: sessions hand over before it.
    pub handover: watch::Receiver<Option<Instant>>,
}

type Dial = BoxFuture<'static, (u32, Result<UpstreamSocket, ConnectError>)>;
type Tool = BoxFuture<'static, (String, ToolAnswer)>;

struct Upstream {
    generation: u32,
    wire: Wire<tokio_tungstenite::MaybeTlsStream<tokio::net::TcpStream>>,
}

struct Driver<S> {
    core: Core,
    began: Instant,
    caller: Wire<S>,
    caller_open: bool,
    upstreams: Vec<Upstream>,
    dials: FuturesUnordered<Dial>,
    tools: FuturesUnordered<Tool>,
    admission: Option<BoxFuture<'static, Result<Admission, String>>>,
    call: Option<Arc<dyn Call>>,
    timer: Pin<Box<Sleep>>,
    timer_at: Option<Millis>,
    pulse: Interval,
    /// Early measurements still to be made.
    early_pings: u32,
    /// Since when the caller takes nothing.
    clogged_since: Option<Instant>,
    effects: Vec<Effect>,
    ended: Option<Ending>,
    engine: Engine,
}

/// Runs one session on an open caller socket until it ends. Returns why it ended.
///
/// Cancel-safe in so far as dropping the future closes both sockets; the application is then not told.
pub async fn run<S>(socket: WebSocketStream<S>, engine: Engine) -> Ending
where
    S: AsyncRead + AsyncWrite + Unpin + Send,
{
    let began = Instant::now();
    let mut pulse =
        tokio::time::interval((engine.settings.silence_timeout / PINGS).max(Duration::from_millis(10)));
    pulse.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let mut handover = engine.handover.clone();
    let mut driver = Driver {
        core: Core::new(engine.settings.clone()),
        began,
        caller: Wire::new(socket),
        caller_open: true,
        upstreams: Vec::with_capacity(1),
        dials: FuturesUnordered::new(),
        tools: FuturesUnordered::new(),
        admission: None,
        call: None,
        timer: Box::pin(tokio::time::sleep_until(began)),
        timer_at: None,
        pulse,
        early_pings: EARLY_PINGS,
        clogged_since: None,
        effects: Vec::new(),
        ended: None,
        engine,
    };
    driver.note_handover(*handover.borrow_and_update());
    let mut watching = true;
    loop {
        driver.set_timer();
        tokio::select! {
            biased;
            () = std::future::poll_fn(|context| driver.poll(context)) => {}
            changed = handover.changed(), if watching => {
                // Without its sender there is nobody left to stop for.
                watching = changed.is_ok();
                let by = *handover.borrow_and_update();
                driver.note_handover(by);
            }
        }
        if let Some(ending) = driver.ended {
            driver.wind_up(ending).await;
            return ending;
        }
    }
}

impl<S: AsyncRead + AsyncWrite + Unpin + Send> Driver<S> {
    fn now(&self) -> Millis {
        Millis(u64::try_from(self.began.elapsed().as_millis()).unwrap_or(u64::MAX))
    }

    fn note_handover(&mut self, by: Option<Instant>) {
        if let Some(by) = by {
            let latest = Millis(u64::try_from((by - self.began).as_millis()).unwrap_or(u64::MAX));
            let now = self.now();
            self.core.hand_over(now, latest, &mut self.effects);
            self.apply();
        }
    }

    fn set_timer(&mut self) {
        let now = self.now();
        if self.timer_at.is_some_and(|at| at <= now) {
            return; // due: what happened since must not put it off
        }
        let due = self.core.next_deadline(now);
        if due != self.timer_at {
            self.timer_at = due;
            if let Some(due) = due {
                // Never in the past: a deadline that stays due must not spin.
                let due = Millis(due.0.max(now.0 + 1));
                self.timer.as_mut().reset(self.began + Duration::from_millis(due.0));
            }
        }
    }

    /// Handles whatever is ready; pending when nothing is.
    fn poll(&mut self, context: &mut std::task::Context<'_>) -> Poll<()> {
        let mut progressed = false;
        for _ in 0..BURST {
            if self.ended.is_some() {
                return Poll::Ready(());
            }
            if !self.poll_once(context) {
                break;
            }
            progressed = true;
        }
        let clogged = self.caller.backlog() >= CALLER_BACKLOG;
        self.poll_writes(context);
        // Upstreams that were not read for the backlog's sake have left no waker behind.
        let unclogged = clogged && self.caller.backlog() < CALLER_BACKLOG;
        if progressed || unclogged { Poll::Ready(()) } else { Poll::Pending }
    }

    fn poll_writes(&mut self, context: &mut std::task::Context<'_>) {
        // Pending is fine: the socket wakes this task when it takes more.
        let _ = self.caller.poll_write(context);
        for upstream in &mut self.upstreams {
            let _ = upstream.wire.poll_write(context);
        }
    }

    fn poll_once(&mut self, context: &mut std::task::Context<'_>) -> bool {
        let mut any = false;
        if let Some(admission) = &mut self.admission
            && let Poll::Ready(decision) = admission.as_mut().poll(context)
        {
            self.admission = None;
            self.decided(decision);
            any = true;
        }
        if self.caller_open
            && let Poll::Ready(message) = self.caller.poll_read(context)
        {
            any = true;
            let now = self.now();
            match message {
                Incoming::Text(text) => self.core.caller_message(now, &text, &mut self.effects),
                Incoming::Binary => tracing::debug!("binary message from the caller's side ignored"),
                Incoming::Closed(why) => {
                    tracing::debug!(why, "the caller's socket is closed");
                    self.caller_open = false;
                    self.core.caller_lost(now, &mut self.effects);
                }
            }
            self.apply();
        }
        if let Some(took) = self.caller.take_round_trip() {
            let now = self.now();
            self.core.caller_round_trip(now, took);
        }
        if self.caller.backlog() < CALLER_BACKLOG {
            self.clogged_since = None;
            any |= self.poll_upstreams(context);
        } else {
            self.clogged_since.get_or_insert_with(Instant::now);
        }
        if self.pulse.poll_tick(context).is_ready() {
            any = true;
            self.check_pulse();
        }
        // Asking an empty set costs two atomic writes, a hundred times a second and call. What is added to one counts
        // as progress, so that it is asked again.
        while !self.dials.is_empty()
            && let Poll::Ready(Some((generation, dialled))) = self.dials.poll_next_unpin(context)
        {
            any = true;
            self.dialled(generation, dialled);
        }
        while !self.tools.is_empty()
            && let Poll::Ready(Some((call_id, answer))) = self.tools.poll_next_unpin(context)
        {
            any = true;
            let now = self.now();
            self.core.tool_finished(now, &call_id, answer, &mut self.effects);
            self.apply();
        }
        if self.timer_at.is_some() && self.timer.as_mut().poll(context).is_ready() {
            any = true;
            self.timer_at = None;
            let now = self.now();
            self.core.tick(now, &mut self.effects);
            self.apply();
            self.set_timer();
        }
        any
    }

    /// Finds sockets whose other end is gone without a word, or no longer listens; asks the others for a sign of life.
    fn check_pulse(&mut self) {
        let limit = self.engine.settings.silence_timeout;
        let now = self.now();
        let clogged = self.clogged_since.is_some_and(|since| since.elapsed() >= limit / 2);
        if self.caller_open && (clogged || self.caller.heard_at().elapsed() >= limit) {
            tracing::warn!(clogged, "the caller's side is silent");
            self.caller_open = false;
            self.core.caller_lost(now, &mut self.effects);
            self.apply();
            return;
        }
        self.caller.ping();
        if self.early_pings > 0 {
            self.early_pings -= 1;
            self.pulse.reset_after(EARLY_PING.min(self.pulse.period()));
        }
        // Upstreams that are not read for the caller's backlog cannot show that they live.
        if self.clogged_since.is_none() {
            let silent = |u: &Upstream| u.wire.heard_at().elapsed() >= limit;
            while let Some(index) = self.upstreams.iter().position(silent) {
                let generation = self.upstreams[index].generation;
                self.upstreams.swap_remove(index);
                self.core.upstream_lost(now, generation, "shows no sign of life", &mut self.effects);
                self.apply();
            }
        }
        for upstream in &mut self.upstreams {
            upstream.wire.ping();
        }
    }

    fn poll_upstreams(&mut self, context: &mut std::task::Context<'_>) -> bool {
        let mut any = false;
        let mut index = 0;
        while index < self.upstreams.len() {
            let generation = self.upstreams[index].generation;
            if let Poll::Ready(message) = self.upstreams[index].wire.poll_read(context) {
                any = true;
                let now = self.now();
                match message {
                    Incoming::Text(text) => {
                        self.core.upstream_message(now, generation, &text, &mut self.effects);
                    }
                    Incoming::Binary => tracing::debug!("binary upstream message ignored"),
                    Incoming::Closed(why) => {
                        self.upstreams.swap_remove(index);
                        self.core.upstream_lost(now, generation, &why, &mut self.effects);
                    }
                }
                self.apply();
            }
            index += 1;
        }
        any
    }

    fn decided(&mut self, decision: Result<Admission, String>) {
        let now = self.now();
        match decision {
            Ok(Admission { agent, call, resumed }) => {
                self.call = Some(call);
                self.core.admitted(now, agent, resumed, &mut self.effects);
            }
            Err(reason) => {
                tracing::warn!(reason, "stream refused");
                self.core.refused(now, &mut self.effects);
            }
        }
        self.apply();
    }

    fn dialled(&mut self, generation: u32, dialled: Result<UpstreamSocket, ConnectError>) {
        let now = self.now();
        match dialled {
            Ok(socket) => {
                self.upstreams.push(Upstream { generation, wire: Wire::new(socket) });
                self.core.dialled(now, generation, &mut self.effects);
            }
            Err(error) => {
                tracing::warn!(generation, %error, "no upstream session");
                metrics::counter!("longhouse_voice_dial_failures_total").increment(1);
                self.core.dial_failed(now, generation, error.is_fatal(), &mut self.effects);
            }
        }
        self.apply();
    }

    /// Carries out what the core decided, in order.
    fn apply(&mut self) {
        let mut effects = std::mem::take(&mut self.effects);
        for effect in effects.drain(..) {
            match effect {
                Effect::ToUpstream { generation, text } => {
                    if let Some(upstream) = self.upstreams.iter_mut().find(|u| u.generation == generation) {
                        upstream.wire.push(text);
                        let dropped = upstream.wire.shed(UPSTREAM_BACKLOG, Command::is_audio);
                        if dropped > 0 {
                            metrics::counter!("longhouse_voice_shed_messages_total").increment(dropped);
                        }
                    }
                }
                Effect::ToCaller(text) => {
                    // Nothing is sent to a caller who has gone (B18).
                    if self.caller_open {
                        self.caller.push(text);
                    }
                }
                Effect::Record(entry) => {
                    if let Some(call) = &self.call {
                        call.record(entry);
                    }
                }
                Effect::RunTool(call) => self.run_tool(call),
                Effect::Dial { generation } => {
                    let connector = self.engine.connector.clone();
                    self.dials.push(Box::pin(async move { (generation, connector.connect().await) }));
                }
                Effect::Drop { generation } => self.drop_upstream(generation),
                Effect::Admit(start) => self.admission = Some(self.engine.host.admit(start)),
                Effect::Finish(ending) => self.ended = Some(ending),
            }
        }
        self.effects = effects;
    }

    fn run_tool(&mut self, call: super::ToolCall) {
        let Some(application) = &self.call else { return };
        let call_id = call.call_id.clone();
        let name = call.name.clone();
        let run = application.run_tool(call);
        let limit = self.engine.settings.tool_timeout + Duration::from_millis(100);
        // A task of its own: a panic in a tool is an error answer, not the end of the call.
        let task = tokio::spawn(async move { tokio::time::timeout(limit, run).await });
        let abort = AbortOnDrop(task.abort_handle());
        self.tools.push(Box::pin(async move {
            let _abort = abort;
            let answer = match task.await {
                Ok(Ok(answer)) => answer,
                Ok(Err(_)) => failure("this took too long; apologise and offer to take a message"),
                Err(error) => {
                    tracing::error!(tool = name, %error, "a tool failed");
                    failure("this failed; apologise and offer to take a message")
                }
            };
            (call_id, answer)
        }));
    }

    fn drop_upstream(&mut self, generation: u32) {
        if let Some(index) = self.upstreams.iter().position(|u| u.generation == generation) {
            let upstream = self.upstreams.swap_remove(index);
            tokio::spawn(upstream.wire.close(CLOSE_LIMIT));
        }
    }

    async fn wind_up(mut self, ending: Ending) {
        let now = self.now();
        for upstream in self.upstreams.drain(..) {
            tokio::spawn(upstream.wire.close(CLOSE_LIMIT));
        }
        // A caller who left while the application still decided may have a row already.
        // Whoever is still on the line does not wait for it: the webhook has something to say to them.
        if let Some(admission) = self.admission.take() {
            let at = self.core.since_call_began(now);
            tokio::spawn(async move {
                if let Ok(Ok(admission)) = tokio::time::timeout(FINISH_LIMIT, admission).await {
                    admission.call.finish(ending, at).await;
                }
            });
        }
        // The row is final before the caller's socket closes, since what Twilio asks next depends on it.
        if let Some(call) = self.call.take() {
            let at = self.core.since_call_began(now);
            if tokio::time::timeout(FINISH_LIMIT, call.finish(ending, at)).await.is_err() {
                tracing::error!(ending = ending.name(), "the end of a call could not be stored in time");
            }
        }
        if self.caller_open {
            self.caller.close(CLOSE_LIMIT).await;
        }
        let counters = self.core.counters();
        metrics::counter!("longhouse_voice_sessions_total", "ending" => ending.name()).increment(1);
        metrics::counter!("longhouse_voice_barge_ins_total").increment(counters.barge_ins);
        tracing::info!(
            ending = ending.name(),
            seconds = (now - Millis(0)).as_secs_f64(),
            barge_ins = counters.barge_ins,
            takeovers = counters.takeovers,
            dropped_deltas = counters.dropped_deltas,
            unknown_events = counters.unknown_events,
            malformed = counters.malformed,
            "session ended"
        );
    }
}

fn failure(text: &str) -> ToolAnswer {
    ToolAnswer { output: serde_json::json!({ "error": text }), then: None }
}

/// Ends a task with its owner.
struct AbortOnDrop(tokio::task::AbortHandle);

impl Drop for AbortOnDrop {
    fn drop(&mut self) {
        self.0.abort();
    }
}
