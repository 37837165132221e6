//! The agent's answers: what the model writes, the tools it wants, and when it is asked.

use std::time::Duration;

use serde_json::json;

use super::Core;
use crate::cascade::clock::Samples;
use crate::cascade::events::{Effect, Said, Thought};
use crate::cascade::language::normalised;
use crate::cascade::{Directions, Sentences};
use crate::session::{Ending, Entry, ToolAnswer, ToolCall};

/// Longest answer; the rest is not said.
const LONGEST_ANSWER: usize = 32 * 1024;
/// Most tools of one answer.
const MOST_CALLS: usize = 16;
/// Rounds of tools after which the model must have spoken.
const MOST_ROUNDS: u32 = 8;
/// Failures in a row after which there is no hope.
const HOPELESS: u32 = 4;
/// Wait after a failure; doubled for each further one.
const RETRY: Duration = Duration::from_millis(250);

/// An answer that is being written.
#[derive(Debug)]
pub(super) struct Generation {
    pub(super) id: u32,
    /// Its place in the mouth.
    answer: u32,
    directions: Directions,
    sentences: Sentences,
    written: usize,
    calls: Vec<ToolCall>,
    /// Begun before the turn was over, for these words.
    pub(super) speculative: Option<Vec<String>>,
    /// Text of it that may not be shown yet.
    unshown: String,
    done: bool,
}

/// Tools that run.
#[derive(Debug, Default)]
pub(super) struct Tools {
    running: Vec<(ToolCall, Samples)>,
    since: Samples,
    filled: bool,
    rounds: u32,
}

impl Tools {
    /// The person has said something else: what comes now is no follow-up.
    pub(super) fn new_turn(&mut self) {
        self.rounds = 0;
    }

    /// Nobody waits for them any more.
    pub(super) fn abandon(&mut self) {
        self.running.clear();
    }

    pub(super) fn is_running(&self) -> bool {
        !self.running.is_empty()
    }
}

impl Core {
    /// Asks the model if the person is owed an answer and the floor is free.
    pub(super) fn try_ask(&mut self, now: Samples, out: &mut Vec<Effect>) {
        let understood = self.ears.turn.as_ref().is_some_and(|turn| !turn.text().is_empty());
        let follow_up = self.tools.rounds > 0 && !self.mouth.is_settling() && !self.mouth.is_protected();
        let free = !self.mouth.is_busy() || follow_up;
        if self.want_answer
            && free
            && !understood
            && self.started.is_some()
            && self.generation.is_none()
            && !self.tools.is_running()
            && self.ending.is_none()
            && now >= self.ask_from
        {
            self.ask(now, None, out);
        }
    }

    /// Asks the model; `guess`: the words of a turn that is probably over.
    pub(super) fn ask(&mut self, now: Samples, guess: Option<String>, out: &mut Vec<Effect>) {
        self.mouth.place(now, &mut self.ledger);
        let mut context = self.ledger.context(self.mouth.pending());
        let speculative = guess.is_some();
        if let Some(text) = &guess {
            context.push(Said::User(text.clone()));
        } else {
            self.want_answer = false;
        }
        if context.is_empty() {
            return;
        }
        self.generations += 1;
        self.mouth.held = speculative;
        self.generation = Some(Generation {
            id: self.generations,
            answer: self.mouth.open(),
            directions: Directions::default(),
            sentences: Sentences::new(self.language),
            written: 0,
            calls: Vec::new(),
            speculative: guess.map(|text| normalised(&text)),
            unshown: String::new(),
            done: false,
        });
        out.push(Effect::Ask { generation: self.generations, context, speculative });
    }

    pub(super) fn think(&mut self, now: Samples, thought: Thought, out: &mut Vec<Effect>) {
        match thought {
            Thought::Text(text) => self.write(now, &text, out),
            Thought::Call(call) => {
                if let Some(generation) = &mut self.generation
                    && generation.calls.len() < MOST_CALLS
                {
                    generation.calls.push(call);
                }
                self.noted(now, |turn| &mut turn.first_token);
            }
            Thought::Done => {
                if let Some(generation) = &mut self.generation {
                    generation.done = true;
                }
                self.failures = 0;
                self.written(now, out);
            }
            Thought::Failed { fatal } => self.thought_failed(now, fatal, out),
        }
    }

    fn write(&mut self, now: Samples, text: &str, out: &mut Vec<Effect>) {
        self.noted(now, |turn| &mut turn.first_token);
        let Some(generation) = &mut self.generation else { return };
        if generation.done || generation.written + text.len() > LONGEST_ANSWER {
            return;
        }
        generation.written += text.len();
        let spoken =
            if self.settings.strip_directions { generation.directions.push(text) } else { text.to_owned() };
        let mut sentences = Vec::new();
        generation.sentences.push(&spoken, &mut sentences);
        self.emit(now, spoken, sentences, out);
    }

    fn emit(&mut self, now: Samples, shown: String, sentences: Vec<String>, out: &mut Vec<Effect>) {
        let Some(generation) = &mut self.generation else { return };
        if generation.speculative.is_some() {
            generation.unshown.push_str(&shown);
        } else if !shown.is_empty() {
            out.push(Effect::Show(shown));
        }
        for sentence in sentences {
            self.mouth.say(now, generation.answer, &sentence, self.language, false, &mut self.ledger);
        }
    }

    /// The model has written everything: what remains of it is said, and tools are run.
    fn written(&mut self, now: Samples, out: &mut Vec<Effect>) {
        let Some(generation) = &mut self.generation else { return };
        let rest = generation.directions.finish();
        let mut sentences = Vec::new();
        generation.sentences.push(&rest, &mut sentences);
        generation.sentences.finish(&mut sentences);
        self.emit(now, rest, sentences, out);
        // Tools act on the world: not for a guess.
        if self.generation.as_ref().is_some_and(|g| g.speculative.is_none()) {
            self.conclude(now, out);
        }
    }

    fn conclude(&mut self, now: Samples, out: &mut Vec<Effect>) {
        let Some(generation) = self.generation.take() else { return };
        if generation.calls.is_empty() || self.tools.rounds >= MOST_ROUNDS {
            self.mouth.close(generation.answer);
            self.tools.rounds = 0;
            self.ending = self.ending.or(self.after_answer.take());
            return;
        }
        // What it says before its tools run stands before them.
        self.mouth.place(now, &mut self.ledger);
        self.mouth.close(generation.answer);
        self.ledger.tools(now, &generation.calls);
        self.tools.rounds += 1;
        self.tools.since = now;
        self.tools.filled = false;
        for call in generation.calls {
            self.tools.running.push((call.clone(), now));
            out.push(Effect::RunTool(call));
        }
    }

    /// The turn is over, as was guessed: what waits may be heard.
    pub(super) fn promote(&mut self, now: Samples, out: &mut Vec<Effect>) {
        self.mouth.held = false;
        let Some(generation) = &mut self.generation else { return };
        generation.speculative = None;
        let shown = std::mem::take(&mut generation.unshown);
        let (done, wrote) = (generation.done, generation.written > 0);
        if !shown.is_empty() {
            out.push(Effect::Show(shown));
        }
        if let Some(measuring) = &mut self.measures {
            measuring.turn.speculative = true;
        }
        if wrote || done {
            self.noted(now, |turn| &mut turn.first_token);
        }
        if done {
            self.conclude(now, out);
        }
    }

    /// The turn was not over: nobody hears of the answer.
    pub(super) fn drop_guess(&mut self, out: &mut Vec<Effect>) {
        if self.generation.as_ref().is_some_and(|g| g.speculative.is_some()) {
            self.drop_generation(out);
            if let Some(turn) = &mut self.ears.turn {
                turn.guessed = false;
            }
            self.mouth.forget(out);
        }
    }

    pub(super) fn drop_generation(&mut self, out: &mut Vec<Effect>) {
        if let Some(generation) = self.generation.take() {
            self.mouth.close(generation.answer);
            if !generation.done {
                out.push(Effect::CancelAsk(generation.id));
            }
        }
    }

    fn thought_failed(&mut self, now: Samples, fatal: bool, out: &mut Vec<Effect>) {
        if self.generation.as_ref().is_some_and(|g| g.speculative.is_some()) {
            // The turn's end asks again, and that counts.
            if let Some(generation) = &mut self.generation {
                generation.done = true;
            }
            self.drop_guess(out);
            if let Some(turn) = &mut self.ears.turn {
                turn.guess_no_more();
            }
            return;
        }
        self.failures += 1;
        let Some(answer) = self.generation.as_ref().map(|g| g.answer) else { return };
        let spoke = self.mouth.has_words(answer);
        if let Some(generation) = &mut self.generation {
            generation.done = true;
            generation.calls.clear();
        }
        if spoke {
            // What was written stands; the person asks on if it was not enough.
            self.written(now, out);
            return;
        }
        self.drop_generation(out);
        if fatal || self.failures >= HOPELESS {
            let apology = self.language.apology();
            self.say(now, apology, false, out);
            self.end_after_speech(Ending::UpstreamFailed);
            return;
        }
        self.ask_from = now + (self.rate.samples(RETRY) << self.failures.min(5));
        self.want_answer = true;
    }

    pub(super) fn tool_finished(
        &mut self,
        now: Samples,
        call_id: &str,
        answer: ToolAnswer,
        out: &mut Vec<Effect>,
    ) {
        let Some(index) = self.tools.running.iter().position(|(call, _)| call.call_id == call_id) else {
            return;
        };
        let (call, since) = self.tools.running.swap_remove(index);
        self.ledger.answered(call_id, answer.output.clone());
        out.push(Effect::Record(Entry::Tool {
            after: self.ledger.latest(),
            name: call.name,
            arguments: serde_json::Value::Object(call.arguments).to_string(),
            output: answer.output.to_string(),
            took: self.rate.duration(now - since),
        }));
        if let Some(ending) = answer.then {
            self.after_answer = Some(ending);
        }
        if self.tools.running.is_empty() {
            self.want_answer = true;
        }
    }

    pub(super) fn tools_tick(&mut self, now: Samples, out: &mut Vec<Effect>) {
        if !self.tools.is_running() {
            return;
        }
        let late = self.rate.samples(self.settings.tool_timeout);
        while let Some((call, _)) = self.tools.running.iter().find(|(_, since)| now - *since >= late) {
            let call_id = call.call_id.clone();
            let output = json!({"error": "the tool took too long; say so, and offer to try again"});
            self.tool_finished(now, &call_id, ToolAnswer { output, then: None }, out);
        }
        if self.tools.is_running()
            && !self.tools.filled
            && now - self.tools.since >= self.rate.samples(self.settings.filler_after)
            && !self.mouth.is_busy()
            && !self.ears.is_hearing()
            && self.drain_by.is_none()
        {
            self.tools.filled = true;
            let filler = self.settings.filler.clone().unwrap_or_else(|| self.language.filler().to_owned());
            self.say(now, &filler, false, out);
        }
    }
}
