//! The person's turns: voice, words, and when a turn is over.

use std::time::Duration;

use super::Core;
use crate::cascade::Turns;
use crate::cascade::clock::Samples;
use crate::cascade::events::{Effect, Hearing, Voice};
use crate::cascade::language::normalised;
use crate::session::Ending;

/// Audio before the detector fires that belongs to the speech.
pub(super) const LEAD_IN: Duration = Duration::from_millis(600);
/// A voice without words is forgotten after this much silence.
const FORGET_AFTER: Duration = Duration::from_secs(4);
/// Where a recogniser tells turns, its silence about one is not waited for any longer than this.
const OVERDUE: Duration = Duration::from_secs(4);
/// Wait before another recogniser is opened; doubled for each further attempt.
const REOPEN: Duration = Duration::from_millis(200);
/// A recogniser that must be relieved is relieved in mid-speech after this.
const AGING: Duration = Duration::from_secs(20);
/// Words of one turn; what exceeds them is another turn.
const LONGEST_TURN: usize = 16 * 1024;

/// Where the recogniser stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Recogniser {
    Closed,
    Opening,
    Ready,
    /// To be opened again then.
    Waiting(Samples),
}

/// A turn of the person, in progress.
#[derive(Debug)]
pub(super) struct UserTurn {
    ordinal: i32,
    started: Samples,
    finals: String,
    partial: String,
    /// Since when final words are waited for.
    finalizing: Option<Samples>,
    /// An answer was begun for these words.
    pub(super) guessed: bool,
}

impl UserTurn {
    /// The model failed at a guess: the turn's end is waited for.
    pub(super) fn guess_no_more(&mut self) {
        self.guessed = true;
    }

    pub(super) fn text(&self) -> String {
        match (self.finals.is_empty(), self.partial.is_empty()) {
            (_, true) => self.finals.clone(),
            (true, _) => self.partial.clone(),
            _ => format!("{} {}", self.finals, self.partial),
        }
    }
}

/// What is known of the person's voice.
#[derive(Debug)]
pub(super) struct Ears {
    pub(super) voice: bool,
    /// The voice has lasted without words: it does not silence the agent any more.
    pub(super) ignored: bool,
    voice_at: Samples,
    quiet_since: Samples,
    pub(super) turn: Option<UserTurn>,
    /// Place of the last voice without words, should they come after all.
    forgotten: Option<(i32, Samples)>,
    /// Speech up to here is in the transcript: no other recogniser must hear it again.
    consumed: Samples,
    /// Words that a turn was ended with although they were not final.
    unconfirmed: Option<usize>,
    recogniser: Recogniser,
    /// Since when there is none.
    without_since: Option<Samples>,
    attempts: u32,
    aging: Option<Samples>,
}

impl Default for Ears {
    fn default() -> Self {
        Self {
            voice: false,
            ignored: false,
            voice_at: Samples(0),
            quiet_since: Samples(0),
            turn: None,
            forgotten: None,
            consumed: Samples(0),
            unconfirmed: None,
            recogniser: Recogniser::Closed,
            without_since: None,
            attempts: 0,
            aging: None,
        }
    }
}

impl Ears {
    pub(super) fn open(&mut self, now: Samples, out: &mut Vec<Effect>) {
        self.recogniser = Recogniser::Opening;
        self.without_since.get_or_insert(now);
        out.push(Effect::Listen { from: now });
    }

    pub(super) fn is_ready(&self) -> bool {
        self.recogniser == Recogniser::Ready
    }

    /// Whether the person is speaking, or has and is not understood yet.
    pub(super) fn is_hearing(&self) -> bool {
        (self.voice && !self.ignored) || self.turn.is_some()
    }
}

impl Core {
    pub(super) fn voice(&mut self, now: Samples, voice: Voice, out: &mut Vec<Effect>) {
        match voice {
            Voice::Started if !self.ears.voice => {
                self.ears.voice = true;
                self.ears.ignored = false;
                self.ears.voice_at = now;
                self.ears.unconfirmed = None;
                self.ears.forgotten = None;
                match &mut self.ears.turn {
                    Some(turn) => {
                        turn.finalizing = None;
                        if std::mem::take(&mut turn.guessed) {
                            self.drop_guess(out);
                        }
                    }
                    None => self.open_turn(now, now),
                }
                if !self.mouth.is_protected() {
                    if self.mouth.is_sounding() {
                        self.mouth.pause(now, out);
                    } else {
                        self.mouth.quiet = true;
                    }
                }
            }
            Voice::Ended if self.ears.voice => {
                self.ears.voice = false;
                self.ears.ignored = false;
                self.ears.quiet_since = now;
                if self.ears.turn.is_none() {
                    self.mouth.resume();
                }
            }
            Voice::Started | Voice::Ended => {}
        }
    }

    fn open_turn(&mut self, now: Samples, started: Samples) {
        let (ordinal, started) = match self.ears.forgotten.take() {
            Some(place) => place,
            None => (self.ledger.reserve(), started),
        };
        self.ears.turn = Some(UserTurn {
            ordinal,
            started,
            finals: String::new(),
            partial: String::new(),
            finalizing: None,
            guessed: false,
        });
        self.idle_since = Some(now);
    }

    pub(super) fn hearing(&mut self, now: Samples, hearing: Hearing, out: &mut Vec<Effect>) {
        match hearing {
            Hearing::Ready => {
                self.ears.recogniser = Recogniser::Ready;
                self.ears.without_since = None;
                self.ears.attempts = 0;
                self.ears.aging = None;
                // It has just been told the whole turn, after whose end it is asked for final words once more.
                if let Some(since) = self.ears.turn.as_mut().and_then(|turn| turn.finalizing.as_mut()) {
                    *since = now;
                    out.push(Effect::Finalize);
                }
            }
            Hearing::Partial(text) => {
                let text = self.beyond_unconfirmed(&text, false);
                if text.is_empty() && self.ears.turn.is_none() {
                    return;
                }
                self.turn(now).partial = text;
                self.words(now, out);
            }
            Hearing::Final(text) => {
                let text = self.beyond_unconfirmed(&text, true);
                if text.is_empty() && self.ears.turn.is_none() {
                    return;
                }
                let turn = self.turn(now);
                turn.partial.clear();
                if !text.is_empty() {
                    if !turn.finals.is_empty() {
                        turn.finals.push(' ');
                    }
                    turn.finals.push_str(&text);
                }
                let complete = turn.finalizing.is_some() || turn.finals.len() > LONGEST_TURN;
                self.words(now, out);
                if complete && (!self.ears.voice || self.settings.turns == Turns::Manual) {
                    self.end_turn(now, out);
                }
            }
            Hearing::EagerEnd(text) => {
                let text = self.beyond_unconfirmed(&text, false);
                if !text.is_empty() {
                    let turn = self.turn(now);
                    turn.finals.clear();
                    turn.partial = text;
                    self.words(now, out);
                    self.guess(now, out);
                }
            }
            Hearing::Resumed => self.drop_guess(out),
            Hearing::EndOfTurn(text) => {
                let text = self.beyond_unconfirmed(&text, true);
                if self.ears.turn.is_none() && text.is_empty() {
                    return;
                }
                let turn = self.turn(now);
                turn.finals = text;
                turn.partial.clear();
                self.words(now, out);
                self.end_turn(now, out);
            }
            Hearing::Language(language) => self.language = language,
            Hearing::Aging => self.ears.aging = Some(self.ears.aging.unwrap_or(now)),
            Hearing::Lost { fatal } => self.recogniser_lost(now, fatal, out),
        }
    }

    /// Text without the words that a turn was already ended with.
    fn beyond_unconfirmed(&mut self, text: &str, is_final: bool) -> String {
        let text = text.trim();
        let Some(count) = self.ears.unconfirmed else { return text.to_owned() };
        if is_final {
            self.ears.unconfirmed = None;
        }
        text.split_whitespace().skip(count).collect::<Vec<_>>().join(" ")
    }

    /// The turn that words belong to.
    fn turn(&mut self, now: Samples) -> &mut UserTurn {
        if self.ears.turn.is_none() {
            let started = if self.ears.voice { self.ears.voice_at } else { now };
            self.open_turn(now, started);
        }
        self.ears.turn.as_mut().expect("just opened")
    }

    /// The words of the turn have changed.
    fn words(&mut self, now: Samples, out: &mut Vec<Effect>) {
        let Some(turn) = &self.ears.turn else { return };
        let text = turn.text();
        if text.is_empty() {
            return;
        }
        self.idle_since = Some(now);
        out.push(Effect::Transcript { text: text.clone(), is_final: false });
        let guess = self.generation.as_ref().and_then(|g| g.speculative.as_ref());
        if guess.is_some_and(|guess| *guess != normalised(&text)) {
            self.drop_guess(out);
        }
        if self.is_answering() && !self.mouth.is_protected() && !self.language.is_backchannel(&text) {
            self.interrupt(now, out);
        }
    }

    /// The turn may be over: the answer is begun, and nothing of it is heard until the turn is.
    fn guess(&mut self, now: Samples, out: &mut Vec<Effect>) {
        let possible = self.settings.speculate
            && self.settings.voice_output
            && self.drain_by.is_none()
            && self.generation.is_none()
            && !self.mouth.is_busy()
            && !self.tools.is_running()
            && now >= self.ask_from;
        if let Some(turn) = &mut self.ears.turn
            && possible
            && !turn.guessed
        {
            turn.guessed = true;
            let text = turn.text();
            self.ask(now, Some(text), out);
        }
    }

    pub(super) fn end_turn(&mut self, now: Samples, out: &mut Vec<Effect>) {
        let Some(turn) = self.ears.turn.take() else { return };
        let text = turn.text();
        self.mouth.quiet = false;
        if text.is_empty() {
            self.ears.forgotten = Some((turn.ordinal, turn.started));
            self.drop_guess(out);
            self.nothing_said();
            return;
        }
        if !turn.partial.is_empty() {
            self.ears.unconfirmed = Some(turn.partial.split_whitespace().count());
        }
        self.ears.consumed = if self.ears.voice { now } else { self.ears.quiet_since };
        out.push(Effect::Transcript { text: text.clone(), is_final: true });
        self.user_said(now, turn.ordinal, turn.started, &text, out);
        if self.is_answering() && self.language.is_backchannel(&text) {
            // They listen; that is all.
            self.go_on();
            return;
        }
        let from = if self.ears.voice { now } else { self.ears.quiet_since };
        self.tools.new_turn();
        self.measure_from(from);
        self.noted(now, |measures| &mut measures.transcribed);
        let guessed = self.generation.as_ref().and_then(|g| g.speculative.as_ref());
        if guessed.is_some_and(|guess| *guess == normalised(&text)) && self.drain_by.is_none() {
            self.promote(now, out);
        } else {
            self.drop_guess(out);
            self.want_answer = true;
        }
    }

    /// It was nothing, or only a sign of attention.
    fn go_on(&mut self) {
        if !self.ears.voice || self.ears.ignored {
            self.mouth.resume();
        }
    }

    /// A voice said nothing. If the agent was cut off by words that were taken back, it still owes an answer.
    fn nothing_said(&mut self) {
        self.go_on();
        if !self.is_answering() && !self.tools.is_running() && self.ledger.is_due() {
            self.want_answer = true;
        }
    }

    pub(super) fn committed(&mut self, now: Samples, out: &mut Vec<Effect>) {
        self.ears.voice = false;
        self.ears.quiet_since = now;
        if self.settings.voice_input {
            self.turn(now).finalizing = Some(now);
            out.push(Effect::Finalize);
        }
    }

    pub(super) fn ears_tick(&mut self, now: Samples, out: &mut Vec<Effect>) {
        self.recogniser_tick(now, out);
        let rate = self.rate;
        let silence = now - self.ears.quiet_since;
        let voice = self.ears.voice;
        let text = self.ears.turn.as_ref().map(UserTurn::text).unwrap_or_default();
        // A voice without words, however long, silences nobody for long.
        if voice
            && !self.ears.ignored
            && (self.mouth.is_paused() || self.mouth.quiet)
            && text.is_empty()
            && now - self.ears.voice_at >= rate.samples(self.settings.max_pause)
        {
            self.ears.ignored = true;
            self.mouth.resume();
        }
        if !voice && silence >= rate.samples(self.settings.resume_after) {
            let nothing = text.is_empty() || self.language.is_backchannel(&text);
            if (self.mouth.is_paused() || self.mouth.quiet) && nothing {
                self.mouth.resume();
            }
        }
        if !self.ears.is_ready() || self.ears.turn.is_none() || voice {
            return;
        }
        let finalizing = self.ears.turn.as_ref().and_then(|turn| turn.finalizing);
        if let Some(since) = finalizing {
            if now - since >= rate.samples(self.settings.final_timeout) {
                self.end_turn(now, out);
            }
            return;
        }
        let (eager, end) = match self.settings.turns {
            Turns::Silence { eager, end } => (Some(eager), end),
            Turns::Recognizer => (None, OVERDUE),
            // Somebody else tells; the recogniser's final words are waited for then.
            Turns::Manual => (None, FORGET_AFTER * 4),
        };
        if eager.is_some_and(|eager| silence >= rate.samples(eager)) && !text.is_empty() {
            self.guess(now, out);
        }
        if silence >= rate.samples(end) {
            if let Some(turn) = &mut self.ears.turn {
                turn.finalizing = Some(now);
            }
            out.push(Effect::Finalize);
        }
    }

    fn recogniser_lost(&mut self, now: Samples, fatal: bool, out: &mut Vec<Effect>) {
        if self.ears.recogniser == Recogniser::Closed {
            return;
        }
        let since = *self.ears.without_since.get_or_insert(now);
        if fatal || now - since >= self.rate.samples(self.settings.outage_budget) {
            self.wind_down(now, Ending::UpstreamFailed, out);
            return;
        }
        self.ears.attempts += 1;
        let wait = REOPEN * (1 << self.ears.attempts.min(4));
        let wait = if self.ears.attempts == 1 { Duration::ZERO } else { wait };
        self.ears.recogniser = Recogniser::Waiting(now + self.rate.samples(wait));
        self.recogniser_tick(now, out);
    }

    fn recogniser_tick(&mut self, now: Samples, out: &mut Vec<Effect>) {
        match self.ears.recogniser {
            Recogniser::Waiting(at) if now >= at => {
                self.ears.recogniser = Recogniser::Opening;
                let from = self.replay_from(now);
                out.push(Effect::Listen { from });
            }
            Recogniser::Opening | Recogniser::Waiting(_) => {
                let budget = self.rate.samples(self.settings.outage_budget);
                if self.ears.without_since.is_some_and(|since| now - since >= budget) {
                    self.wind_down(now, Ending::UpstreamFailed, out);
                }
            }
            Recogniser::Ready => {
                let overdue = self.ears.aging.is_some_and(|since| now - since >= self.rate.samples(AGING));
                if overdue || self.ears.aging.is_some() && !self.ears.is_hearing() {
                    self.ears.aging = None;
                    let from = self.replay_from(now);
                    self.ears.recogniser = Recogniser::Opening;
                    self.ears.without_since = Some(now);
                    out.push(Effect::Listen { from });
                }
            }
            Recogniser::Closed => {}
        }
    }

    /// From where another recogniser must listen, so that it hears the whole turn: words that the last one wrote of it
    /// are written again.
    fn replay_from(&mut self, now: Samples) -> Samples {
        let lead_in = self.rate.samples(LEAD_IN);
        let oldest = Samples(now - Samples(self.rate.samples(self.settings.ring))).max(self.ears.consumed);
        // A voice that said nothing may have said something that is still to be written.
        let forgotten = self.ears.forgotten.map(|(_, started)| started);
        let Some(turn) = &mut self.ears.turn else {
            return Samples(forgotten.unwrap_or(now) - Samples(lead_in)).max(oldest);
        };
        let from = Samples(turn.started - Samples(lead_in)).max(self.ears.consumed);
        turn.partial.clear();
        if from >= oldest {
            turn.finals.clear();
            return from;
        }
        // Too long ago to be heard again: what was written of it stays.
        oldest.max(self.ears.voice_at)
    }

    /// Words that were understood, of a turn that will not be finished.
    pub(super) fn keep_turn(&mut self, now: Samples, out: &mut Vec<Effect>) {
        if let Some(turn) = self.ears.turn.take() {
            let text = turn.text();
            if !text.is_empty() {
                self.user_said(now, turn.ordinal, turn.started, &text, out);
            }
        }
    }
}
