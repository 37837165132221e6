//! One upstream session in its life: dialled, configured, ready, renewed.

use std::time::Duration;

use super::{Command, Core, Effect, Ending, Millis, Settings};
use crate::session::time::Millis as Moment;

/// A session that has worked this long is a working one: its loss begins an outage of its own.
const PROVEN_AFTER: Duration = Duration::from_secs(5);

/// How far an upstream session has come.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum LegState {
    Dialling,
    Configuring,
    Ready,
}

/// One upstream session.
#[derive(Debug)]
pub(super) struct Leg {
    pub(super) generation: u32,
    pub(super) state: LegState,
    /// When it came to this state.
    pub(super) since: Moment,
    /// Another session is opened then.
    pub(super) renew_at: Moment,
    /// The other takes over then, turn boundary or not.
    pub(super) replace_by: Moment,
    /// The takeover waits for a summary of this session until then.
    pub(super) summary_by: Option<Moment>,
}

impl Leg {
    fn new(generation: u32, now: Moment, cap: Duration) -> Self {
        let mut leg = Self {
            generation,
            state: LegState::Dialling,
            since: now,
            renew_at: now,
            replace_by: now,
            summary_by: None,
        };
        leg.lasts_until(now, now + cap);
        leg
    }

    /// Plans the takeover before `end`: opened 40 % of the life ahead, but not more than five minutes.
    pub(super) fn lasts_until(&mut self, now: Moment, end: Moment) {
        let life = end - now;
        let lead = (life * 2 / 5).min(Duration::from_secs(300));
        self.renew_at = now + (life - lead);
        self.replace_by = now + (life - (lead / 4));
    }

    pub(super) fn is_ready(&self) -> bool {
        self.state == LegState::Ready
    }

    pub(super) fn deadline(&self, settings: &Settings) -> Option<Moment> {
        match self.state {
            // The dialler has a deadline of its own; this one catches a dialler that never answers.
            LegState::Dialling => Some(self.since + settings.ready_timeout * 2),
            LegState::Configuring => Some(self.since + settings.ready_timeout),
            LegState::Ready => None,
        }
    }
}

impl Core {
    /// Opens a session: the first, another after a failure, or the next one before a cap.
    pub(super) fn dial(&mut self, now: Millis, out: &mut Vec<Effect>) {
        self.retry_at = None;
        self.generations += 1;
        self.attempts += 1;
        if self.generations > 1 {
            self.counters.takeovers += 1;
        }
        let leg = Leg::new(self.generations, now, self.settings.session_cap);
        out.push(Effect::Dial { generation: leg.generation });
        if self.active.is_none() {
            self.active = Some(leg);
        } else {
            self.next = Some(leg);
        }
    }

    /// The socket of a session is open.
    pub fn dialled(&mut self, now: Millis, generation: u32, out: &mut Vec<Effect>) {
        if self.is_finished() {
            return;
        }
        match self.leg(generation) {
            Some(leg) => {
                leg.state = LegState::Configuring;
                leg.since = now;
            }
            None => out.push(Effect::Drop { generation }),
        }
    }

    /// A session could not be opened. `fatal`: another attempt cannot succeed either.
    pub fn dial_failed(&mut self, now: Millis, generation: u32, fatal: bool, out: &mut Vec<Effect>) {
        self.leg_lost(now, generation, fatal, "could not be opened", out);
    }

    /// The socket of a session is closed.
    pub fn upstream_lost(&mut self, now: Millis, generation: u32, why: &str, out: &mut Vec<Effect>) {
        if self.relieved.is_some_and(|(relieved, _)| relieved == generation) {
            self.relieved = None;
            self.transcript.forget_relieved();
            return;
        }
        self.leg_lost(now, generation, false, why, out);
    }

    pub(super) fn leg(&mut self, generation: u32) -> Option<&mut Leg> {
        [&mut self.active, &mut self.next].into_iter().flatten().find(|leg| leg.generation == generation)
    }

    pub(super) fn leg_lost(
        &mut self,
        now: Millis,
        generation: u32,
        fatal: bool,
        why: &str,
        out: &mut Vec<Effect>,
    ) {
        if self.is_finished() {
            return;
        }
        if self.next.as_ref().is_some_and(|leg| leg.generation == generation) {
            self.next = None;
            tracing::warn!(generation, why, "the next upstream session failed");
            // The current one still works: try again soon, there is time.
            if let Some(active) = &mut self.active {
                active.renew_at = now + Duration::from_secs(5).min(self.settings.session_cap / 10);
            }
            return;
        }
        let Some(lost) = self.active.as_ref().filter(|leg| leg.generation == generation) else { return };
        // One that breaks as soon as it is ready is part of the outage, or the session would redial for ever.
        if lost.is_ready() && now - lost.since >= PROVEN_AFTER.min(self.settings.session_cap / 4) {
            self.attempts = 0;
            self.outage_since = None;
        }
        tracing::warn!(generation, why, fatal, "the upstream session is gone");
        metrics::counter!("longhouse_voice_upstream_lost_total").increment(1);
        self.active = None;
        let outage = *self.outage_since.get_or_insert(now);
        self.interrupt_by_outage(now, false, out);
        if let Some(next) = self.next.take() {
            let ready = next.is_ready();
            self.active = Some(next);
            if ready {
                self.start_on_active(now, out);
            }
            return;
        }
        if fatal || now - outage >= self.settings.outage_budget {
            self.finish(now, Ending::UpstreamFailed, out);
            return;
        }
        // At once for a working session that broke, then 250 ms, 500 ms, 1 s, 2 s.
        let wait = match self.attempts {
            0 => Duration::ZERO,
            n => Duration::from_millis(125 << n.min(4)),
        };
        if wait.is_zero() {
            self.dial(now, out);
        } else {
            self.retry_at = Some(now + wait);
        }
    }

    /// The agent's current words end with what has been sent; what the caller said is kept for the next session.
    /// `lingers`: the session can still deliver words that it owes.
    fn interrupt_by_outage(&mut self, now: Millis, lingers: bool, out: &mut Vec<Effect>) {
        let unfinished = self.response.is_busy() || self.response.follow_up;
        if let Some(mark) = self.playback.close() {
            self.to_caller(|w| w.mark(mark), out);
        }
        self.transcript.break_off();
        let turns = self.transcript.progress(self.playback.heard(now), now);
        self.record_turns(turns, out);
        self.unanswered |= self.caller_speaking;
        self.unheard |= self.transcript.forget_unanswered(lingers) || self.caller_speaking;
        if unfinished && !self.unheard && self.playback.sent() == 0 && self.transcript.is_empty() {
            // Not a word of it has been said: the next session begins as this one did.
            if self.continues {
                self.resumed = true;
            } else {
                self.greeted = false;
            }
        }
        let greeting = std::mem::take(&mut self.greeting);
        self.greeted &= !greeting.due;
        self.tools.forget_collected();
        self.response = super::Response {
            follow_up: unfinished,
            failures: self.response.failures,
            ..super::Response::default()
        };
        self.caller_speaking = false;
    }

    pub(super) fn check_legs(&mut self, now: Millis, out: &mut Vec<Effect>) {
        let overdue: Vec<u32> = [&self.active, &self.next]
            .into_iter()
            .flatten()
            .filter(|leg| leg.deadline(&self.settings).is_some_and(|at| now >= at))
            .map(|leg| leg.generation)
            .collect();
        for generation in overdue {
            out.push(Effect::Drop { generation });
            self.leg_lost(now, generation, false, "was not ready in time", out);
        }
        if self.is_finished() {
            return;
        }
        if self.response.owed_since.is_some_and(|at| now >= at + self.settings.stall_timeout) {
            self.response.owed_since = None;
            if let Some(generation) = self.active.as_ref().filter(|l| l.is_ready()).map(|l| l.generation) {
                out.push(Effect::Drop { generation });
                self.leg_lost(now, generation, false, "went silent", out);
                if self.is_finished() {
                    return;
                }
            }
        }
        if let Some((generation, at)) = self.relieved
            && now >= at
        {
            self.relieved = None;
            self.transcript.forget_relieved();
            out.push(Effect::Drop { generation });
        }
        let renew = self.next.is_none()
            && self.ending.is_none()
            && self.active.as_ref().is_some_and(|leg| leg.is_ready() && now >= leg.renew_at);
        if renew {
            self.renew(now, out);
        }
    }

    /// Opens the next session ahead of the cap and asks the current one for a summary.
    fn renew(&mut self, now: Millis, out: &mut Vec<Effect>) {
        self.dial(now, out);
        let Some(active) = &mut self.active else { return };
        let patience = (active.replace_by - now) / 2;
        active.summary_by = Some(now + patience.min(Duration::from_secs(10)));
        self.command(
            &Command::Summarise(
                "Summarise this telephone call so far in at most 120 words, as notes for a colleague who takes over: \
                 who calls, what they want, what was said and agreed, what is open. Facts only.",
            ),
            out,
        );
    }

    /// Hands the conversation to the next session at a turn boundary, or when time is up.
    pub(super) fn take_over_if_due(&mut self, now: Millis, out: &mut Vec<Effect>) {
        let (Some(active), Some(next)) = (&self.active, &self.next) else { return };
        if !next.is_ready() {
            return;
        }
        let summary_open = active.summary_by.is_some_and(|by| now < by);
        let calm = self.is_quiet(now) && !self.transcript.awaits_words(now) && !summary_open;
        if !calm && now < active.replace_by {
            return;
        }
        let (relieved, taking_over) = (active.generation, next.generation);
        if !calm {
            // Mid-turn: what the caller is saying is heard again by the next session.
            self.interrupt_by_outage(now, true, out);
        }
        tracing::info!(from = relieved, to = taking_over, calm, "another upstream session takes over");
        metrics::counter!("longhouse_voice_takeovers_total", "calm" => if calm { "yes" } else { "no" })
            .increment(1);
        if let Some((generation, _)) = self.relieved.replace((relieved, now + Duration::from_secs(3))) {
            out.push(Effect::Drop { generation });
        }
        self.active = self.next.take();
        self.start_on_active(now, out);
    }
}
