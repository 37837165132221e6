//! The decisions of a session: events and the time go in, effects come out. No IO, no clock of its own.

mod leg;
mod tools;
mod upstream;

use std::time::Duration;

use leg::{Leg, LegState};
use tools::Tools;

use super::playback::{BYTES_PER_MS, Playback};
use super::replay::Replay;
use super::transcript::Transcript;
use super::{Agent, Ending, Entry, Millis, Resumed, Settings, ToolAnswer, ToolCall};
use crate::callers::twilio::frames::{Incoming, Start, Writer};
use crate::upstreams::realtime::{Command, SessionShape};

/// Something for the IO side to do, in order.
#[derive(Debug, PartialEq)]
pub enum Effect {
    /// Ask the application about this stream.
    Admit(Start),
    /// Open an upstream session; answer with [`Core::dialled`] or [`Core::dial_failed`].
    Dial {
        /// Names the session in what follows.
        generation: u32,
    },
    /// Send to an upstream session.
    ToUpstream {
        /// Which.
        generation: u32,
        /// JSON text.
        text: String,
    },
    /// Close an upstream session.
    Drop {
        /// Which.
        generation: u32,
    },
    /// Send to the caller.
    ToCaller(String),
    /// Run a tool; answer with [`Core::tool_finished`].
    RunTool(ToolCall),
    /// Report to the application.
    Record(Entry),
    /// The session is over: store, close, stop.
    Finish(Ending),
}

/// Where the call stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Phase {
    AwaitStart { deadline: Millis },
    Admitting { deadline: Millis },
    Live,
    Finished,
}

/// What the agent is doing upstream.
#[derive(Debug, Default)]
struct Response {
    /// The response that speaks now.
    active: Option<String>,
    /// We asked for one that has not begun.
    requested: bool,
    /// What we asked for last answers something, rather than being said for its own sake.
    is_answer: bool,
    /// The response whose remaining audio is dropped, because the caller cut in.
    muted: Option<String>,
    /// The upstream owes us something since then.
    owed_since: Option<Millis>,
    /// One more is wanted once the current one ends.
    follow_up: bool,
    /// The current or last one has been audible.
    spoke: bool,
    failures: u32,
}

impl Response {
    fn is_busy(&self) -> bool {
        self.requested || self.active.is_some()
    }
}

/// A greeting that could not be asked for at once.
#[derive(Debug, Default)]
struct Greeting {
    /// The event that asked for it.
    asked: Option<u64>,
    /// To be asked for before anything else.
    due: bool,
    /// Being said; what the caller said before it is answered next.
    before_answer: bool,
}

/// Numbers a session counts for logs and metrics.
#[derive(Debug, Default, Clone, Copy)]
pub struct Counters {
    /// Events that neither side's documentation knows.
    pub unknown_events: u64,
    /// Messages that could not be read.
    pub malformed: u64,
    /// Audio messages dropped because the caller had cut in.
    pub dropped_deltas: u64,
    /// Times the caller cut in.
    pub barge_ins: u64,
    /// Upstream sessions opened after the first.
    pub takeovers: u64,
    /// Upstream errors that the session survived.
    pub upstream_errors: u64,
}

/// The state of one session.
#[derive(Debug)]
pub struct Core {
    settings: Settings,
    phase: Phase,
    agent: Option<Agent>,
    writer: Option<Writer>,
    greeted: bool,
    greeting: Greeting,
    /// This session goes on with a call and has not said so yet.
    resumed: bool,
    /// This session goes on with a call.
    continues: bool,
    /// Milliseconds of the call before this session, added to what is reported.
    offset: Duration,
    active: Option<Leg>,
    next: Option<Leg>,
    /// A session that has been relieved, kept briefly for late transcriptions.
    relieved: Option<(u32, Millis)>,
    generations: u32,
    outage_since: Option<Millis>,
    attempts: u32,
    retry_at: Option<Millis>,
    playback: Playback,
    transcript: Transcript,
    replay: Replay,
    response: Response,
    tools: Tools,
    caller_speaking: bool,
    /// The caller's last item was committed and not answered yet.
    unanswered: bool,
    /// The caller said something that no session has turned into words: the next one hears it from the ring.
    unheard: bool,
    /// The caller stopped speaking; the first audio after it ends the latency measurement.
    stopped_at: Option<Millis>,
    silent_timeouts: u32,
    ending: Option<(Ending, Millis)>,
    /// How the agent is to take its leave, once nobody speaks.
    goodbye: Option<&'static str>,
    handover_by: Option<Millis>,
    next_health: Millis,
    event_ids: u64,
    counters: Counters,
}

/// A goodbye that takes longer than this is cut short.
const GOODBYE_LIMIT: Duration = Duration::from_secs(20);
/// Unanswered idle prompts after which the agent says goodbye.
const SILENT_TIMEOUTS: u32 = 3;

impl Core {
    /// A session whose socket has just been opened.
    pub fn new(settings: Settings) -> Self {
        let deadline = Millis(0) + settings.start_timeout;
        let next_health = Millis(0) + settings.health_interval;
        Self {
            settings,
            phase: Phase::AwaitStart { deadline },
            agent: None,
            writer: None,
            greeted: false,
            greeting: Greeting::default(),
            resumed: false,
            continues: false,
            offset: Duration::ZERO,
            active: None,
            next: None,
            relieved: None,
            generations: 0,
            outage_since: None,
            attempts: 0,
            retry_at: None,
            playback: Playback::default(),
            transcript: Transcript::new(0, Vec::new()),
            replay: Replay::default(),
            response: Response::default(),
            tools: Tools::default(),
            caller_speaking: false,
            unanswered: false,
            unheard: false,
            stopped_at: None,
            silent_timeouts: 0,
            ending: None,
            goodbye: None,
            handover_by: None,
            next_health,
            event_ids: 0,
            counters: Counters::default(),
        }
    }

    /// What has been counted so far.
    pub fn counters(&self) -> Counters {
        self.counters
    }

    /// Whether the session is over; no further effect is produced.
    pub fn is_finished(&self) -> bool {
        self.phase == Phase::Finished
    }

    /// A text message from the caller's side.
    pub fn caller_message(&mut self, now: Millis, text: &str, out: &mut Vec<Effect>) {
        match crate::callers::twilio::frames::parse(text) {
            Ok(message) => self.caller_event(now, message, out),
            Err(error) => {
                self.counters.malformed += 1;
                tracing::debug!(%error, "unreadable message from the caller's side");
            }
        }
    }

    fn caller_event(&mut self, now: Millis, message: Incoming<'_>, out: &mut Vec<Effect>) {
        if self.is_finished() {
            return;
        }
        match message {
            Incoming::Media { payload, .. } => self.caller_audio(payload, out),
            Incoming::Mark { name } => {
                if name.parse().is_ok_and(|id| self.playback.marked(now, id)) {
                    self.heard_more(now, out);
                }
            }
            Incoming::Start(start) => match self.phase {
                Phase::AwaitStart { .. } if start.is_ulaw_8k => {
                    self.writer = Some(Writer::new(&start.stream_sid));
                    self.phase = Phase::Admitting { deadline: now + self.settings.admit_timeout };
                    out.push(Effect::Admit(start));
                }
                Phase::AwaitStart { .. } => self.finish(now, Ending::Refused, out),
                _ => self.counters.unknown_events += 1, // a second `start` changes nothing
            },
            Incoming::Dtmf { digit } => self.key_pressed(now, digit, out),
            // `stop` is final whatever the phase (B18).
            Incoming::Stop => {
                let ending = self.ending.map_or(Ending::CallerHungUp, |(ending, _)| ending);
                self.finish(now, ending, out);
            }
            Incoming::Connected => {}
            Incoming::Unknown(event) => {
                self.counters.unknown_events += 1;
                tracing::debug!(event, "unknown event from the caller's side");
            }
        }
    }

    fn caller_audio(&mut self, payload: &str, out: &mut Vec<Effect>) {
        if !self.is_connected() {
            // Nobody listens yet: what is said is kept up to the ring's limit, not only its last moment.
            self.replay.hold();
        }
        if !self.replay.push(payload) {
            self.counters.malformed += 1;
            return;
        }
        // Until an upstream is ready the ring holds what was said (bounded); then it is flushed in order.
        if let Some(leg) = self.active.as_ref().filter(|leg| leg.is_ready()) {
            let text = Command::Append(payload).to_json(0);
            out.push(Effect::ToUpstream { generation: leg.generation, text });
        }
    }

    fn key_pressed(&mut self, now: Millis, digit: char, out: &mut Vec<Effect>) {
        if self.phase != Phase::Live {
            return;
        }
        let note = format!("(pressed the {digit} key on the telephone)");
        self.event_ids += 1;
        let item_id = format!("key-{}", self.event_ids);
        self.transcript.caller_started(&item_id, now);
        if let Some(turn) = self.transcript.caller_words(&item_id, &note, now) {
            self.record_turns(vec![turn], out);
        }
        if self.is_connected() {
            let item = crate::upstreams::realtime::HistoryItem::Caller(note);
            self.command(&Command::History(&item), out);
        }
        self.respond_or_follow_up(now, out);
    }

    /// How long the network takes to the far end and back.
    pub fn caller_round_trip(&mut self, now: Millis, took: Duration) {
        self.playback.round_trip(now, took);
    }

    /// The caller's socket is gone without a `stop`.
    pub fn caller_lost(&mut self, now: Millis, out: &mut Vec<Effect>) {
        let ending = match (self.phase, self.ending) {
            (Phase::AwaitStart { .. } | Phase::Admitting { .. }, _) => Ending::Refused,
            (_, Some((ending, _))) => ending,
            _ => Ending::ConnectionLost,
        };
        self.finish(now, ending, out);
    }

    /// The application takes the call.
    pub fn admitted(&mut self, now: Millis, agent: Agent, resumed: Option<Resumed>, out: &mut Vec<Effect>) {
        if !matches!(self.phase, Phase::Admitting { .. }) {
            return;
        }
        self.phase = Phase::Live;
        self.agent = Some(agent);
        if let Some(resumed) = resumed {
            self.resumed = true;
            self.continues = true;
            self.greeted = true;
            self.offset = resumed.elapsed;
            self.transcript = Transcript::new(resumed.next_ordinal, resumed.history);
        }
        self.outage_since = Some(now);
        self.dial(now, out);
    }

    /// The application refuses the stream.
    pub fn refused(&mut self, now: Millis, out: &mut Vec<Effect>) {
        self.finish(now, Ending::Refused, out);
    }

    /// The server is stopping: hand the call over at the next quiet moment, at the latest then.
    pub fn hand_over(&mut self, now: Millis, latest: Millis, out: &mut Vec<Effect>) {
        self.handover_by = Some(latest);
        self.tick(now, out);
    }

    /// The application asks for the end of the session once the agent has spoken.
    fn end_after_speech(&mut self, now: Millis, ending: Ending) {
        self.ending.get_or_insert((ending, now + GOODBYE_LIMIT));
    }

    /// A tool has answered.
    pub fn tool_finished(&mut self, now: Millis, call_id: &str, answer: ToolAnswer, out: &mut Vec<Effect>) {
        if !self.is_finished() {
            self.tool_answered(now, call_id, answer, out);
            self.settle(now, out);
        }
    }

    /// When [`Core::tick`] wants to be called next. A moment that was named and has come must be kept, even if
    /// another input arrives first and the next one is later.
    pub fn next_deadline(&self, now: Millis) -> Option<Millis> {
        match self.phase {
            Phase::Finished => return None,
            Phase::AwaitStart { deadline } | Phase::Admitting { deadline } => return Some(deadline),
            Phase::Live => {}
        }
        let mut soonest = self.next_health.or_earlier(self.retry_at);
        let legs = [&self.active, &self.next];
        for leg in legs.into_iter().flatten() {
            soonest = soonest.or_earlier(leg.deadline(&self.settings));
        }
        if let Some(active) = self.active.as_ref().filter(|leg| leg.is_ready()) {
            match &self.next {
                None if self.ending.is_none() => soonest = soonest.or_earlier(Some(active.renew_at)),
                Some(next) if next.is_ready() => {
                    let summary = active.summary_by.filter(|&by| by > now);
                    soonest = soonest.or_earlier(Some(active.replace_by)).or_earlier(summary);
                }
                _ => {}
            }
        }
        soonest = soonest
            .or_earlier(self.relieved.map(|(_, at)| at))
            .or_earlier(self.response.owed_since.map(|at| at + self.settings.stall_timeout))
            .or_earlier(self.tools.deadline(&self.settings))
            .or_earlier(self.ending.map(|(_, at)| at))
            .or_earlier(self.handover_by)
            .or_earlier(Some(Millis(0) + self.settings.max_duration).filter(|_| self.ending.is_none()));
        if self.ending.is_some()
            || self.handover_by.is_some()
            || self.next.as_ref().is_some_and(Leg::is_ready)
        {
            soonest = soonest.or_earlier(self.playback.idle_at(now));
        }
        Some(soonest)
    }

    /// Acts on what has become due.
    pub fn tick(&mut self, now: Millis, out: &mut Vec<Effect>) {
        match self.phase {
            Phase::Finished => return,
            Phase::AwaitStart { deadline } | Phase::Admitting { deadline } => {
                if now >= deadline || self.handover_by.is_some() {
                    self.finish(now, Ending::Refused, out);
                }
                return;
            }
            Phase::Live => {}
        }
        if now >= self.next_health {
            self.next_health = now + self.settings.health_interval;
            tracing::info!(
                minutes = (now - Millis(0)).as_secs() / 60,
                upstream_open = self.is_connected(),
                barge_ins = self.counters.barge_ins,
                takeovers = self.counters.takeovers,
                upstream_errors = self.counters.upstream_errors,
                "Session health check"
            );
            out.push(Effect::Record(Entry::Alive));
        }
        if self.ending.is_none() && now >= Millis(0) + self.settings.max_duration {
            self.end_after_speech(now, Ending::TimeLimit);
            self.goodbye =
                Some("Say in one sentence that this call has reached its longest time, and say goodbye.");
        }
        if self.retry_at.is_some_and(|at| now >= at) {
            self.dial(now, out);
        }
        self.check_legs(now, out);
        if self.is_finished() {
            return;
        }
        self.check_tools(now, out);
        self.settle(now, out);
    }

    /// What can only be decided when everything else has been: takeover, handover, the end.
    fn settle(&mut self, now: Millis, out: &mut Vec<Effect>) {
        if self.phase != Phase::Live {
            return;
        }
        if let Some(words) = self.goodbye
            && self.is_connected()
            && !self.response.is_busy()
            && !self.caller_speaking
        {
            self.goodbye = None;
            self.request(now, &Command::RespondWith(words), out);
        }
        if let Some((ending, by)) = self.ending {
            let spoken = self.goodbye.is_none()
                && !self.response.is_busy()
                && self.playback.is_idle(now)
                && self.tools.is_empty();
            if spoken || now >= by {
                self.finish(now, ending, out);
                return;
            }
        }
        if let Some(by) = self.handover_by
            && (self.is_quiet(now) || now >= by)
        {
            self.finish(now, Ending::HandedOver, out);
            return;
        }
        self.take_over_if_due(now, out);
    }

    /// A turn boundary: nobody speaks, nothing is owed, everything sent has been heard.
    fn is_quiet(&self, now: Millis) -> bool {
        !self.caller_speaking
            && !self.unanswered
            && !self.response.is_busy()
            && self.tools.is_empty()
            && self.playback.is_idle(now)
            && (self.greeted || self.agent.as_ref().is_none_or(|a| a.greeting.is_none()))
    }

    fn is_connected(&self) -> bool {
        self.active.as_ref().is_some_and(Leg::is_ready)
    }

    fn shape(&self) -> Option<&SessionShape> {
        self.agent.as_ref().map(|agent| &agent.shape)
    }

    fn command(&mut self, command: &Command<'_>, out: &mut Vec<Effect>) {
        if let Some(generation) = self.active.as_ref().map(|leg| leg.generation) {
            self.command_to(generation, command, out);
        }
    }

    fn command_to(&mut self, generation: u32, command: &Command<'_>, out: &mut Vec<Effect>) {
        self.event_ids += 1;
        out.push(Effect::ToUpstream { generation, text: command.to_json(self.event_ids) });
    }

    /// Asks for a response now, or after the one that is going on (B11, defect 32: never two at once).
    fn respond_or_follow_up(&mut self, now: Millis, out: &mut Vec<Effect>) {
        if !self.is_connected() {
            return; // the takeover asks for it
        }
        if self.response.is_busy() || self.caller_speaking {
            self.response.follow_up = true;
        } else {
            self.request(now, &Command::Respond, out);
        }
    }

    fn say(&mut self, now: Millis, instructions: &str, out: &mut Vec<Effect>) {
        if self.is_connected() && !self.response.is_busy() {
            self.request(now, &Command::RespondWith(instructions), out);
        }
    }

    fn request(&mut self, now: Millis, command: &Command<'_>, out: &mut Vec<Effect>) {
        self.response.requested = true;
        self.response.is_answer = matches!(command, Command::Respond);
        self.response.follow_up = false;
        self.response.owed_since = Some(now);
        self.command(command, out);
    }

    fn to_caller(&self, text: impl FnOnce(&Writer) -> String, out: &mut Vec<Effect>) {
        if let Some(writer) = &self.writer {
            out.push(Effect::ToCaller(text(writer)));
        }
    }

    fn heard_more(&mut self, now: Millis, out: &mut Vec<Effect>) {
        let turns = self.transcript.progress(self.playback.heard(now), now);
        self.record_turns(turns, out);
        self.settle(now, out);
    }

    fn record_turns(&self, turns: Vec<super::Turn>, out: &mut Vec<Effect>) {
        for mut turn in turns {
            turn.started = turn.started + self.offset;
            turn.ended = turn.ended + self.offset;
            out.push(Effect::Record(Entry::Turn(turn)));
        }
    }

    /// Time since the call (not only this session) began.
    pub fn since_call_began(&self, now: Millis) -> Millis {
        now + self.offset
    }

    fn finish(&mut self, now: Millis, ending: Ending, out: &mut Vec<Effect>) {
        if self.is_finished() {
            return;
        }
        self.phase = Phase::Finished;
        // What was being said counts as far as it was heard.
        let heard = self.playback.heard(now);
        self.transcript.interrupt(heard);
        let turns = self.transcript.progress(heard, now);
        self.record_turns(turns, out);
        for leg in [self.active.take(), self.next.take()].into_iter().flatten() {
            out.push(Effect::Drop { generation: leg.generation });
        }
        if let Some((generation, _)) = self.relieved.take() {
            out.push(Effect::Drop { generation });
        }
        out.push(Effect::Finish(ending));
    }

    /// The caller began to speak while the agent was (B23): stop the far end, cut the item to what was heard.
    fn barge_in(&mut self, now: Millis, out: &mut Vec<Effect>) {
        if self.playback.is_idle(now) && self.response.active.is_none() {
            return;
        }
        let had_audio = !self.playback.is_idle(now);
        let position = self.playback.heard(now);
        let cut = self.transcript.interrupt(position);
        if had_audio {
            self.counters.barge_ins += 1;
            self.to_caller(Writer::clear, out);
            self.playback.clear(now);
        }
        for (item_id, audio_end_ms) in cut {
            self.command(&Command::Truncate { item_id: &item_id, audio_end_ms }, out);
        }
        self.response.muted = self.response.active.clone();
        let turns = self.transcript.progress(position, now);
        self.record_turns(turns, out);
    }

    fn play(&mut self, now: Millis, item_id: &str, payload: &str, out: &mut Vec<Effect>) {
        let bytes = decoded_len(payload);
        if bytes == 0 {
            return;
        }
        if self.playback.sent() == 0 {
            metrics::histogram!("longhouse_voice_first_audio_seconds")
                .record((now - Millis(0)).as_secs_f64());
        }
        self.response.spoke = true;
        if let Some(stopped) = self.stopped_at.take() {
            metrics::histogram!("longhouse_voice_reply_seconds").record((now - stopped).as_secs_f64());
        }
        self.transcript.agent_audio(item_id, self.playback.sent(), bytes, now);
        let mark = self.playback.push(now, bytes);
        self.to_caller(|w| w.media(payload), out);
        if let Some(mark) = mark {
            self.to_caller(|w| w.mark(mark), out);
        }
    }
}

/// Bytes that padded base64 decodes to.
fn decoded_len(payload: &str) -> u64 {
    let padding = payload.bytes().rev().take(2).take_while(|&b| b == b'=').count();
    (payload.len() / 4 * 3).saturating_sub(padding) as u64
}

/// Milliseconds of G.711 in a base64 payload.
pub fn audio_ms(payload: &str) -> u64 {
    decoded_len(payload) / BYTES_PER_MS
}

#[cfg(test)]
mod tests;
