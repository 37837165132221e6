//! The state machine of a conversation.

mod answering;
mod hearing;
#[cfg(test)]
mod tests;

use std::time::Duration;

use self::answering::{Generation, Tools};
use self::hearing::Ears;
use super::clock::{Rate, Samples};
use super::events::{Effect, Event, Said, Speech, Thought, TurnMeasures};
use super::language::Language;
use super::ledger::Ledger;
use super::mouth::Mouth;
use super::{Saying, Settings};
use crate::session::{Ending, Entry};

/// Longest text that is typed at once.
const LONGEST_TYPED: usize = 8 * 1024;
/// Most digits of one number.
const MOST_DIGITS: usize = 64;
/// The sign of life that goes into the journal.
const ALIVE: Duration = Duration::from_secs(30);
/// While something goes on, time matters at this grain.
const BUSY_TICK: Duration = Duration::from_millis(20);
/// Otherwise at this one.
const IDLE_TICK: Duration = Duration::from_millis(250);

/// What a conversation is doing.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum State {
    /// Waiting for the person.
    Listening,
    /// The person speaks.
    UserSpeaking,
    /// They are probably done; the answer is begun.
    EagerEnd,
    /// The answer is being written.
    Thinking,
    /// The agent speaks.
    Speaking,
    /// The agent fell silent because of a voice, and may go on.
    Paused,
    /// Tools run.
    Tool,
    /// There is no speech recogniser at the moment.
    Rollover,
    /// The server stops; the conversation ends at the next quiet moment.
    Draining,
    /// It is over.
    Finished,
}

/// How a conversation begins that goes on from an earlier one.
#[derive(Debug, Clone, Default)]
pub struct Before {
    /// What was said.
    pub said: Vec<Said>,
    /// The number of the next turn.
    pub next_ordinal: i32,
}

/// A conversation. Give it every event in order, and a [`Core::tick`] at [`Core::next_deadline`].
#[derive(Debug)]
pub struct Core {
    settings: Settings,
    rate: Rate,
    language: Language,
    ledger: Ledger,
    mouth: Mouth,
    ears: Ears,
    generation: Option<Generation>,
    generations: u32,
    tools: Tools,
    /// The person is owed an answer.
    want_answer: bool,
    /// Not before this moment, after a failure.
    ask_from: Samples,
    failures: u32,
    started: Option<Samples>,
    resumed: bool,
    /// Since when nobody has done anything.
    idle_since: Option<Samples>,
    idle_prompts: usize,
    digits: String,
    digits_at: Samples,
    /// Ends the conversation when the agent has said what it says.
    ending: Option<Ending>,
    /// The same, but of the answer that is still to be written.
    after_answer: Option<Ending>,
    /// It ends as soon as it is known what was heard.
    closing: bool,
    /// The person's connection is lost.
    away: bool,
    /// An answer was heard to its end, and its turn may be over.
    answered: bool,
    drain_by: Option<Samples>,
    alive_at: Samples,
    measures: Option<Measuring>,
    finished: bool,
}

/// The turn that is being measured.
#[derive(Debug, Clone, Copy)]
struct Measuring {
    from: Samples,
    sent: u64,
    heard: u64,
    turn: TurnMeasures,
}

impl Core {
    /// A conversation that has not begun.
    pub fn new(settings: Settings, before: Before) -> Self {
        let rate = settings.rate;
        Self {
            rate,
            language: settings.language,
            ledger: Ledger::new(rate, before.said.clone(), before.next_ordinal),
            mouth: Mouth::new(&settings),
            ears: Ears::default(),
            generation: None,
            generations: 0,
            tools: Tools::default(),
            want_answer: matches!(before.said.last(), Some(Said::User(_))),
            ask_from: Samples(0),
            failures: 0,
            started: None,
            resumed: !before.said.is_empty(),
            idle_since: None,
            idle_prompts: 0,
            digits: String::new(),
            digits_at: Samples(0),
            ending: None,
            after_answer: None,
            closing: false,
            away: false,
            answered: false,
            drain_by: None,
            alive_at: Samples(0),
            measures: None,
            finished: false,
            settings,
        }
    }

    /// What it is doing.
    pub fn state(&self) -> State {
        let speaks = self.ears.voice && !self.ears.ignored;
        if self.finished {
            State::Finished
        } else if self.drain_by.is_some() {
            State::Draining
        } else if self.mouth.is_paused() {
            State::Paused
        } else if self.generation.as_ref().is_some_and(|g| g.speculative.is_some()) {
            State::EagerEnd
        } else if self.mouth.is_sounding() {
            State::Speaking
        } else if self.tools.is_running() {
            State::Tool
        } else if self.ears.turn.as_ref().is_some_and(|turn| speaks || !turn.text().is_empty()) {
            State::UserSpeaking
        } else if self.generation.is_some() || self.want_answer || self.mouth.is_busy() {
            State::Thinking
        } else if self.settings.voice_input && !self.ears.is_ready() {
            State::Rollover
        } else {
            State::Listening
        }
    }

    /// The language of the conversation, as far as it has been heard.
    pub fn language(&self) -> Language {
        self.language
    }

    /// What a model would be told now.
    pub fn context(&self) -> Vec<Said> {
        self.ledger.context(Vec::new())
    }

    /// Samples of the agent that were heard, of those that were sent.
    pub fn heard(&self, now: Samples) -> (u64, u64) {
        (self.mouth.heard(now), self.mouth.sent())
    }

    /// When [`Core::tick`] is due; `None` when it is over.
    pub fn next_deadline(&self, now: Samples) -> Option<Samples> {
        let busy = self.mouth.is_busy()
            || self.ears.voice
            || self.ears.turn.is_some()
            || self.generation.is_some()
            || self.tools.is_running()
            || self.drain_by.is_some();
        let grain = if busy { BUSY_TICK } else { IDLE_TICK };
        (!self.finished).then(|| now + self.rate.samples(grain))
    }

    /// Takes an event, and appends what follows from it to `out`.
    pub fn step(&mut self, now: Samples, event: Event, out: &mut Vec<Effect>) {
        if self.finished {
            return;
        }
        let last_words =
            matches!(event, Event::Played(_) | Event::Cleared(_) | Event::Back(_) | Event::Gone(_));
        if self.closing && !last_words {
            return;
        }
        match event {
            Event::Started => self.start(now, out),
            Event::Voice(voice) => self.voice(now, voice, out),
            Event::Hearing(hearing) => self.hearing(now, hearing, out),
            Event::Typed(text) => self.typed(now, &text, out),
            Event::Digit(digit) => self.digit(now, digit, out),
            Event::Interrupt => {
                if self.is_answering() && !self.mouth.is_protected() {
                    self.interrupt(now, out);
                }
            }
            Event::Committed => self.committed(now, out),
            Event::Played(position) => self.mouth.played(now, position),
            Event::Cleared(position) => {
                self.mouth.cleared(now, position, &mut self.ledger, out);
            }
            Event::Thought { generation, thought } => self.thought(now, generation, thought, out),
            Event::Speech { utterance, speech } => {
                if matches!(speech, Speech::Audio(_)) {
                    self.noted(now, |turn| &mut turn.first_speech);
                }
                self.mouth.speech(now, utterance, speech);
            }
            Event::ToolFinished { call_id, answer } => self.tool_finished(now, &call_id, answer, out),
            Event::Away => {
                self.away = true;
                self.voice(now, super::events::Voice::Ended, out);
                self.mouth.away(now);
            }
            Event::Back(played) => {
                self.away = false;
                self.idle_since = Some(now);
                self.mouth.back(now, played, &mut self.ledger, out);
            }
            Event::Drain(by) => {
                self.drop_guess(out);
                self.drain_by = Some(self.drain_by.map_or(by, |known| known.min(by)));
            }
            Event::Gone(ending) => self.finish(now, ending, out),
        }
        self.settle(now, out);
    }

    /// Time has passed.
    pub fn tick(&mut self, now: Samples, out: &mut Vec<Effect>) {
        if self.finished || self.closing {
            self.settle(now, out);
            return;
        }
        self.ears_tick(now, out);
        self.tools_tick(now, out);
        if !self.digits.is_empty() && now - self.digits_at >= self.rate.samples(self.settings.digit_gap) {
            self.digits_complete(now, out);
        }
        if now - self.alive_at >= self.rate.samples(ALIVE) {
            self.alive_at = now;
            out.push(Effect::Record(Entry::Alive));
        }
        if self.started.is_some_and(|at| now - at >= self.rate.samples(self.settings.max_duration)) {
            self.wind_down(now, Ending::TimeLimit, out);
        }
        self.settle(now, out);
    }

    fn start(&mut self, now: Samples, out: &mut Vec<Effect>) {
        if self.started.is_some() {
            return;
        }
        self.started = Some(now);
        self.alive_at = now;
        self.idle_since = Some(now);
        if self.settings.voice_input {
            self.ears.open(now, out);
        }
        if let Some(Saying { text, protected }) = self.settings.greeting.clone()
            && !self.resumed
        {
            self.say(now, &text, protected, out);
        }
    }

    /// Says fixed words.
    fn say(&mut self, now: Samples, text: &str, protected: bool, out: &mut Vec<Effect>) {
        let answer = self.mouth.open();
        let mut sentences = Vec::new();
        let mut cutter = super::Sentences::new(self.language);
        cutter.push(text, &mut sentences);
        cutter.finish(&mut sentences);
        out.push(Effect::Show(text.to_owned()));
        for sentence in sentences {
            self.mouth.say(now, answer, &sentence, self.language, protected, &mut self.ledger);
        }
        self.mouth.close(answer);
    }

    /// Whether the agent is saying something, or about to.
    fn is_answering(&self) -> bool {
        self.mouth.is_busy() && !self.mouth.held
            || self.generation.as_ref().is_some_and(|g| g.speculative.is_none())
    }

    fn typed(&mut self, now: Samples, text: &str, out: &mut Vec<Effect>) {
        let mut end = text.len().min(LONGEST_TYPED);
        while !text.is_char_boundary(end) {
            end -= 1;
        }
        let text = text[..end].trim();
        if text.is_empty() {
            return;
        }
        self.drop_guess(out);
        if self.is_answering() && !self.mouth.is_protected() {
            self.interrupt(now, out);
        }
        let ordinal = self.ledger.reserve();
        self.user_said(now, ordinal, now, text, out);
        self.measure_from(now);
        self.want_answer = true;
    }

    fn user_said(&mut self, now: Samples, ordinal: i32, started: Samples, text: &str, out: &mut Vec<Effect>) {
        self.idle_since = Some(now);
        self.idle_prompts = 0;
        let turn = self.ledger.user(ordinal, started, now, text);
        out.push(Effect::Record(Entry::Turn(turn)));
    }

    fn digit(&mut self, now: Samples, digit: char, out: &mut Vec<Effect>) {
        if !matches!(digit, '0'..='9' | '*' | '#' | 'A'..='D') {
            return;
        }
        if self.digits.is_empty() && self.is_answering() && !self.mouth.is_protected() {
            self.interrupt(now, out);
        }
        self.digits_at = now;
        if digit != '#' {
            self.digits.push(digit);
        }
        if digit == '#' || self.digits.len() >= MOST_DIGITS {
            self.digits_complete(now, out);
        }
    }

    fn digits_complete(&mut self, now: Samples, out: &mut Vec<Effect>) {
        let digits = std::mem::take(&mut self.digits);
        let text = if digits.is_empty() { "[pressed #]".to_owned() } else { format!("[pressed {digits}]") };
        self.typed(now, &text, out);
    }

    /// The agent is cut off: what was heard stands.
    fn interrupt(&mut self, now: Samples, out: &mut Vec<Effect>) {
        self.drop_generation(out);
        let spoke = self.mouth.is_busy();
        if let Some(measuring) = &mut self.measures {
            measuring.turn.interrupted = spoke;
            measuring.turn.sent = self.mouth.sent().saturating_sub(measuring.sent);
        }
        self.mouth.cut(now, &mut self.ledger, out);
        if spoke {
            out.push(Effect::AnswerOver { interrupted: true });
        }
        self.answered = false;
        self.tools.new_turn();
        // Who speaks at a goodbye has something to say.
        if self.ending == Some(Ending::AgentEnded) {
            self.ending = None;
        }
        // What was asked before is in the context, and answered with what comes now.
        self.want_answer = false;
    }

    /// Ends the conversation when the agent is done speaking.
    fn end_after_speech(&mut self, ending: Ending) {
        self.ending = Some(ending);
    }

    /// Everything that follows from where things stand.
    fn settle(&mut self, now: Samples, out: &mut Vec<Effect>) {
        if self.finished {
            return;
        }
        let noticed = self.mouth.pump(now, &mut self.ledger, out);
        if self.closing {
            if !self.mouth.is_busy() {
                self.finish(now, self.ending.unwrap_or(Ending::HandedOver), out);
            }
            return;
        }
        if noticed.hopeless {
            self.wind_down(now, Ending::UpstreamFailed, out);
            return;
        }
        self.measure(now);
        self.answered |= noticed.over.is_some();
        let quiet = !self.is_answering() && !self.tools.is_running() && self.generation.is_none();
        if quiet && !self.mouth.is_busy() && !self.want_answer {
            if std::mem::take(&mut self.answered) {
                out.push(Effect::AnswerOver { interrupted: false });
                self.idle_since = Some(now);
            }
            if let Some(ending) = self.ending {
                self.finish(now, ending, out);
                return;
            }
            self.close_measures(now, out);
        }
        if let Some(by) = self.drain_by {
            let between = quiet && !self.ears.is_hearing() && self.digits.is_empty();
            if between || now >= by {
                self.wind_down(now, Ending::HandedOver, out);
            }
            return;
        }
        self.try_ask(now, out);
        self.check_idle(now, quiet, out);
    }

    fn check_idle(&mut self, now: Samples, quiet: bool, out: &mut Vec<Effect>) {
        if !quiet || self.away || self.ears.is_hearing() || self.want_answer || !self.digits.is_empty() {
            self.idle_since = Some(now);
            return;
        }
        let Some(idle) = self.settings.idle.clone() else { return };
        let since = self.idle_since.unwrap_or(now);
        if now - since < self.rate.samples(idle.after) {
            return;
        }
        self.idle_since = Some(now);
        if let Some(prompt) = idle.prompts.get(self.idle_prompts) {
            self.idle_prompts += 1;
            self.say(now, prompt, false, out);
        } else if let Some(goodbye) = &idle.goodbye {
            self.say(now, goodbye, false, out);
            self.end_after_speech(Ending::AgentEnded);
        }
    }

    /// A turn begins to be measured at the end of the person's speech.
    fn measure_from(&mut self, from: Samples) {
        let (sent, heard) = (self.mouth.sent(), self.mouth.sent());
        self.measures = Some(Measuring { from, sent, heard, turn: TurnMeasures::default() });
    }

    fn noted(&mut self, now: Samples, note: impl FnOnce(&mut TurnMeasures) -> &mut Option<Duration>) {
        if let Some(measuring) = &mut self.measures {
            let took = self.rate.duration(now - measuring.from);
            note(&mut measuring.turn).get_or_insert(took);
        }
    }

    fn measure(&mut self, now: Samples) {
        let Some(measuring) = self.measures else { return };
        if self.mouth.sent() > measuring.sent {
            self.noted(now, |turn| &mut turn.first_sent);
        }
        if self.mouth.heard(now) > measuring.heard {
            self.noted(now, |turn| &mut turn.first_heard);
        }
    }

    fn close_measures(&mut self, now: Samples, out: &mut Vec<Effect>) {
        if self.measures.is_some_and(|m| m.turn.first_token.is_some() || m.turn.interrupted)
            && let Some(mut measuring) = self.measures.take()
        {
            let turn = &mut measuring.turn;
            turn.heard = self.mouth.heard(now).saturating_sub(measuring.heard);
            turn.sent = turn.sent.max(turn.heard);
            out.push(Effect::Measured(*turn));
        }
    }

    /// Ends the conversation as soon as it is known how much of the agent was heard.
    fn wind_down(&mut self, now: Samples, ending: Ending, out: &mut Vec<Effect>) {
        if self.finished || self.closing {
            return;
        }
        self.closing = true;
        self.ending = Some(ending);
        self.drop_guess(out);
        self.drop_generation(out);
        self.tools.abandon();
        // Words that were understood are kept, also when nobody is left to answer them.
        self.keep_turn(now, out);
        if self.mouth.is_busy() {
            self.mouth.cut(now, &mut self.ledger, out);
        }
        if !self.mouth.is_busy() {
            self.finish(now, ending, out);
        }
    }

    /// The end, with what is known now.
    fn finish(&mut self, now: Samples, ending: Ending, out: &mut Vec<Effect>) {
        if self.finished {
            return;
        }
        self.drop_guess(out);
        self.drop_generation(out);
        self.keep_turn(now, out);
        if self.mouth.is_busy() {
            self.mouth.cut(now, &mut self.ledger, out);
            if self.mouth.is_settling() {
                self.mouth.cleared(now, None, &mut self.ledger, out);
            }
        }
        self.finished = true;
        out.push(Effect::Finish(ending));
    }

    fn thought(&mut self, now: Samples, generation: u32, thought: Thought, out: &mut Vec<Effect>) {
        if self.generation.as_ref().is_some_and(|g| g.id == generation) {
            self.think(now, thought, out);
        }
    }
}
