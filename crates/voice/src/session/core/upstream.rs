//! What upstream events do to a session.

use std::time::Duration;

use super::{Command, Core, Effect, Ending, LegState, Millis, SILENT_TIMEOUTS};
use crate::upstreams::realtime::{ApiError, ResponseStatus, ServerEvent, event_id, parse};

/// Responses that fail in a row before the session is replaced.
const RESPONSE_FAILURES: u32 = 3;
/// Responses that fail in a row, whichever session they were asked of, before the call is given up.
const HOPELESS_FAILURES: u32 = 6;

impl Core {
    /// A text message from an upstream session.
    pub fn upstream_message(&mut self, now: Millis, generation: u32, text: &str, out: &mut Vec<Effect>) {
        if self.is_finished() {
            return;
        }
        match parse(text) {
            Ok(event) => self.upstream_event(now, generation, event, out),
            Err(error) => {
                self.counters.malformed += 1;
                tracing::warn!(%error, "unreadable upstream event");
            }
        }
    }

    fn upstream_event(
        &mut self,
        now: Millis,
        generation: u32,
        event: ServerEvent<'_>,
        out: &mut Vec<Effect>,
    ) {
        // Words that a relieved session still owes are welcome; nothing else of it is.
        if let ServerEvent::CallerTranscript { item_id, text } = &event {
            if let Some(turn) = self.transcript.caller_words(item_id, text.as_deref().unwrap_or(""), now) {
                self.record_turns(vec![turn], out);
                if self.transcript.has_all_words() && !self.caller_speaking {
                    // In writing already: another session must not hear it a second time.
                    self.replay.release();
                }
            }
            self.settle(now, out);
            return;
        }
        match event {
            ServerEvent::SessionCreated { expires_at } => {
                self.session_created(now, generation, expires_at, out);
                return;
            }
            ServerEvent::SessionUpdated => {
                self.session_updated(now, generation, out);
                return;
            }
            ServerEvent::Unknown(kind) => {
                self.counters.unknown_events += 1;
                metrics::counter!("longhouse_voice_unknown_upstream_events_total").increment(1);
                tracing::debug!(kind, "unknown upstream event");
                return;
            }
            ServerEvent::Error(error) => {
                self.upstream_error(now, generation, &error, out);
                return;
            }
            _ => {}
        }
        if !self.active.as_ref().is_some_and(|leg| leg.generation == generation && leg.is_ready()) {
            return;
        }
        self.live_event(now, event, out);
    }

    fn session_created(
        &mut self,
        now: Millis,
        generation: u32,
        expires_at: Option<u64>,
        out: &mut Vec<Effect>,
    ) {
        let cap = self.settings.session_cap;
        let Some(leg) = self.leg(generation) else { return };
        if leg.state != LegState::Configuring {
            return;
        }
        let promised = expires_at.and_then(|at| {
            let wall = std::time::UNIX_EPOCH.elapsed().ok()?.as_secs();
            at.checked_sub(wall).map(Duration::from_secs)
        });
        let life = promised.filter(|p| !p.is_zero()).map_or(cap, |p| p.min(cap));
        leg.lasts_until(now, now + life);
        let Some(shape) = self.shape().cloned() else { return };
        self.command_to(generation, &Command::Configure(&shape), out);
    }

    fn session_updated(&mut self, now: Millis, generation: u32, out: &mut Vec<Effect>) {
        let is_active = self.active.as_ref().is_some_and(|leg| leg.generation == generation);
        let Some(leg) = self.leg(generation) else { return };
        if leg.state != LegState::Configuring {
            return;
        }
        leg.state = LegState::Ready;
        leg.since = now;
        if is_active {
            self.start_on_active(now, out);
        } else {
            self.settle(now, out);
        }
    }

    /// The active session is ready: it learns what was said, hears what was not answered, and speaks if it is due.
    pub(super) fn start_on_active(&mut self, now: Millis, out: &mut Vec<Effect>) {
        // The outage is over when this session has worked for a while; see `leg_lost`.
        if let Some(since) = self.outage_since {
            metrics::histogram!("longhouse_voice_upstream_wait_seconds").record((now - since).as_secs_f64());
        }
        self.retry_at = None;
        for item in self.transcript.for_takeover() {
            self.command(&Command::History(&item), out);
        }
        let unheard = std::mem::take(&mut self.unheard);
        // Lead-in or unanswered speech: either way the new session listens from there on, in order.
        if let Some(audio) = self.replay.snapshot() {
            self.command(&Command::Append(&audio), out);
        }
        let broken_off = std::mem::take(&mut self.response.follow_up);
        if !self.greeted {
            self.greeted = true;
            if self.greet(now, out) {
                return;
            }
        }
        if self.resumed {
            self.resumed = false;
            let instructions = "The line was interrupted for a moment. Apologise in a few words and go on where the \
                                conversation stopped; answer what the caller asked last if it was not answered.";
            self.request(now, &Command::RespondWith(instructions), out);
        } else if !unheard && broken_off && !self.transcript.agent_is_due() {
            let instructions = "You were cut off in mid-sentence. Go on from exactly where your last words stopped, \
                                without repeating them and without a greeting.";
            self.request(now, &Command::RespondWith(instructions), out);
        } else if !unheard && (broken_off || self.transcript.agent_is_due()) && self.tools.is_empty() {
            self.request(now, &Command::Respond, out);
        }
    }

    /// Asks for the greeting; `false` when there is none.
    fn greet(&mut self, now: Millis, out: &mut Vec<Effect>) -> bool {
        let greeting = self.agent.as_ref().and_then(|agent| agent.greeting.as_deref()).map(str::trim);
        let Some(greeting) = greeting.filter(|words| !words.is_empty()) else { return false };
        let instructions =
            format!("Greet the caller with exactly these words and nothing else: \"{greeting}\"");
        self.request(now, &Command::RespondWith(&instructions), out);
        self.greeting.asked = Some(self.event_ids);
        true
    }

    fn live_event(&mut self, now: Millis, event: ServerEvent<'_>, out: &mut Vec<Effect>) {
        match event {
            ServerEvent::Audio { response_id, item_id, payload } => {
                if self.response.muted.as_deref() == Some(&*response_id) {
                    self.counters.dropped_deltas += 1;
                    return;
                }
                self.response.owed_since = Some(now);
                self.answered();
                if !self.caller_speaking {
                    // What was kept while nobody listened has been listened to.
                    self.replay.release();
                }
                self.play(now, &item_id, payload, out);
            }
            ServerEvent::AgentTranscript { response_id, item_id, text }
                if self.response.muted.as_deref() != Some(&*response_id) =>
            {
                self.transcript.agent_words(&item_id, &text, self.playback.sent(), now);
            }
            ServerEvent::AudioDone { item_id } => {
                self.transcript.agent_audio_done(&item_id);
                if let Some(mark) = self.playback.close() {
                    self.to_caller(|w| w.mark(mark), out);
                }
                self.heard_more(now, out);
            }
            ServerEvent::SpeechStarted { item_id } => {
                self.caller_speaking = true;
                self.silent_timeouts = 0;
                self.replay.hold();
                self.response.owed_since = None;
                self.transcript.caller_started(&item_id, now);
                // Who speaks at a goodbye has something to say.
                if self.ending.is_some_and(|(ending, _)| ending == Ending::AgentEnded) {
                    self.ending = None;
                    self.goodbye = None;
                }
                self.barge_in(now, out);
            }
            ServerEvent::SpeechStopped => {
                self.caller_speaking = false;
                self.stopped_at = Some(now);
                self.transcript.caller_stopped(now);
            }
            ServerEvent::Committed { item_id } => {
                self.caller_speaking = false;
                self.transcript.caller_started(&item_id, now);
                self.transcript.caller_stopped(now);
                self.unanswered = true;
                self.response.owed_since = Some(now);
            }
            ServerEvent::IdleTimeout => self.caller_is_silent(now),
            ServerEvent::ResponseCreated { response_id, is_summary: false } => {
                self.response.active = Some(response_id);
                self.response.requested = false;
                self.response.spoke = false;
                self.response.owed_since = Some(now);
                // It sees every tool output sent so far.
                self.response.follow_up = false;
            }
            ServerEvent::FunctionCall { response_id, call_id, name, arguments } => {
                self.response.owed_since = Some(now);
                self.tools.collect(&response_id, &call_id, &name, &arguments);
            }
            ServerEvent::ResponseDone { summary: Some(summary), .. } => {
                if !summary.trim().is_empty() {
                    self.transcript.summarised(summary.trim());
                }
                if let Some(active) = &mut self.active {
                    active.summary_by = None;
                }
                self.settle(now, out);
            }
            ServerEvent::ResponseDone { response_id, status, failure, summary: None } => {
                self.response_done(now, &response_id, status, failure, out);
            }
            _ => {}
        }
    }

    fn response_done(
        &mut self,
        now: Millis,
        response_id: &str,
        status: ResponseStatus,
        failure: Option<ApiError>,
        out: &mut Vec<Effect>,
    ) {
        if self.response.active.as_deref() == Some(response_id) {
            self.response.active = None;
            self.response.owed_since = None;
        }
        if self.response.muted.as_deref() == Some(response_id) {
            self.response.muted = None;
        }
        self.transcript.response_over(status == ResponseStatus::Completed);
        if std::mem::take(&mut self.greeting.before_answer) && status == ResponseStatus::Completed {
            self.response.follow_up = true;
        }
        let calls = self.tools.take_collected(response_id);
        match status {
            ResponseStatus::Completed => {
                self.response.failures = 0;
                if !calls.is_empty() || !self.caller_speaking {
                    self.answered();
                }
                self.run_tools(now, calls, out);
            }
            // Calls of a cancelled response are not run: the model has not decided on them.
            ResponseStatus::Cancelled | ResponseStatus::Incomplete => {}
            ResponseStatus::Failed => {
                self.counters.upstream_errors += 1;
                self.response.failures += 1;
                tracing::warn!(?failure, failures = self.response.failures, "the agent's response failed");
                self.response.follow_up = true;
                let fatal = failure.is_some_and(|f| f.is_fatal());
                if fatal || self.response.failures >= HOPELESS_FAILURES {
                    self.finish(now, Ending::UpstreamFailed, out);
                    return;
                }
                if self.response.failures.is_multiple_of(RESPONSE_FAILURES) {
                    if let Some(generation) = self.active.as_ref().map(|l| l.generation) {
                        out.push(Effect::Drop { generation });
                        self.leg_lost(now, generation, false, "fails to respond", out);
                    }
                    return;
                }
            }
        }
        if self.response.follow_up && !self.response.is_busy() && !self.caller_speaking {
            self.follow_up(now, out);
        }
        self.heard_more(now, out);
    }

    /// The caller's words are answered: no other session needs to hear them.
    fn answered(&mut self) {
        if std::mem::take(&mut self.unanswered) {
            self.replay.release();
            self.transcript.answered();
        }
    }

    fn caller_is_silent(&mut self, now: Millis) {
        // The server speaks of its own accord now.
        if !self.response.is_busy() {
            self.response.requested = true;
            self.response.owed_since = Some(now);
        }
        self.silent_timeouts += 1;
        if self.silent_timeouts >= SILENT_TIMEOUTS && self.ending.is_none() {
            self.end_after_speech(now, Ending::AgentEnded);
            self.goodbye = Some("Nobody has answered. Say goodbye in one short sentence.");
        }
    }

    fn upstream_error(&mut self, now: Millis, generation: u32, error: &ApiError, out: &mut Vec<Effect>) {
        self.counters.upstream_errors += 1;
        metrics::counter!("longhouse_voice_upstream_errors_total").increment(1);
        tracing::warn!(
            generation,
            kind = error.kind,
            code = error.code,
            message = error.message,
            "upstream error"
        );
        if self.relieved.is_some_and(|(relieved, _)| relieved == generation) {
            return;
        }
        let ready = self.leg(generation).is_some_and(|leg| leg.is_ready());
        if error.is_fatal() || error.ends_session() || !ready {
            out.push(Effect::Drop { generation });
            self.leg_lost(now, generation, error.is_fatal(), "reported an error", out);
            return;
        }
        if error.code == "conversation_already_has_active_response" {
            // The server's voice detector was faster; what we wanted is asked for afterwards.
            let is_ours = !error.event_id.is_empty();
            self.response.requested &= !is_ours;
            // Refused on the server's own account, it is the caller's words that wait.
            self.response.follow_up |= !is_ours || self.response.is_answer;
            if is_ours && self.greeting.asked.is_some_and(|id| error.event_id == event_id(id)) {
                self.greet_first(now, out);
            }
        }
    }

    /// The caller spoke before anybody listened, and the server began to answer: they are greeted first.
    fn greet_first(&mut self, now: Millis, out: &mut Vec<Effect>) {
        self.greeting.due = true;
        match self.response.active.clone() {
            Some(answer) => {
                self.response.muted = Some(answer);
                self.response.follow_up = true;
                self.command(&Command::Cancel, out);
            }
            None => self.follow_up(now, out),
        }
    }

    /// Asks for what had to wait.
    fn follow_up(&mut self, now: Millis, out: &mut Vec<Effect>) {
        if std::mem::take(&mut self.greeting.due) && self.greet(now, out) {
            self.greeting.before_answer = true;
        } else {
            self.request(now, &Command::Respond, out);
        }
    }
}
