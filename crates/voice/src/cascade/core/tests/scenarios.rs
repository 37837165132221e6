//! One situation each, told step by step.

use std::time::Duration;

use serde_json::json;

use super::super::{Before, Core, State};
use crate::cascade::clock::{Rate, Samples};
use crate::cascade::events::{Effect, Event, Hearing, Said, Speech, Thought, Voice};
use crate::cascade::{Idle, Saying, Settings, Turns};
use crate::session::{Ending, Entry, ToolAnswer, ToolCall, Turn};

const RATE: u64 = 8_000;
/// How long every word takes to say.
const WORD: u64 = RATE / 4;

/// A conversation whose far end plays at once and tells exactly what it has played.
struct Scene {
    core: Core,
    now: u64,
    buffered: u64,
    played: u64,
    effects: Vec<Effect>,
    /// Speech is synthesised at once, with word times, unless this is off.
    speaks: bool,
}

impl Scene {
    fn new(settings: Settings) -> Self {
        let settings = Settings { rate: Rate(RATE as u32), word_times: true, ..settings };
        let mut scene = Self {
            core: Core::new(settings, Before::default()),
            now: 0,
            buffered: 0,
            played: 0,
            effects: Vec::new(),
            speaks: true,
        };
        scene.event(Event::Started);
        scene.event(Event::Hearing(Hearing::Ready));
        scene
    }

    fn event(&mut self, event: Event) {
        let mut out = Vec::new();
        self.core.step(Samples(self.now), event, &mut out);
        self.apply(out);
    }

    fn apply(&mut self, effects: Vec<Effect>) {
        for effect in effects {
            self.effects.push(effect.clone());
            match effect {
                Effect::Play(samples) => self.buffered += samples.len() as u64,
                Effect::Clear => {
                    self.buffered = 0;
                    self.event(Event::Cleared(Some(self.played)));
                }
                Effect::Speak { utterance, text, .. } if self.speaks => {
                    let words: Vec<_> = text
                        .split_whitespace()
                        .enumerate()
                        .map(|(n, word)| (word.to_owned(), n as u64 * WORD, (n as u64 + 1) * WORD))
                        .collect();
                    let length = words.len() * WORD as usize;
                    for speech in [Speech::Words(words), Speech::Audio(vec![1; length]), Speech::Done] {
                        self.event(Event::Speech { utterance, speech });
                    }
                }
                _ => {}
            }
        }
    }

    fn pass(&mut self, ms: u64) {
        for _ in 0..ms / 10 {
            self.now += RATE / 100;
            let played = self.buffered.min(RATE / 100);
            self.buffered -= played;
            self.played += played;
            if played > 0 {
                self.event(Event::Played(self.played));
            }
            let mut out = Vec::new();
            self.core.tick(Samples(self.now), &mut out);
            self.apply(out);
        }
    }

    /// The person says something that is understood at once; their turn ends with it.
    fn say(&mut self, text: &str) {
        self.event(Event::Voice(Voice::Started));
        self.event(Event::Hearing(Hearing::Partial(text.into())));
        self.pass(200);
        self.event(Event::Voice(Voice::Ended));
        self.event(Event::Hearing(Hearing::Final(text.into())));
        self.event(Event::Hearing(Hearing::EndOfTurn(text.into())));
    }

    fn asks(&self) -> Vec<(u32, Vec<Said>)> {
        let asks = self.effects.iter().filter_map(|effect| match effect {
            Effect::Ask { generation, context, .. } => Some((*generation, context.clone())),
            _ => None,
        });
        asks.collect()
    }

    /// The model answers the last question.
    fn answer(&mut self, text: &str) {
        let generation = self.asks().last().expect("nobody was asked").0;
        self.event(Event::Thought { generation, thought: Thought::Text(text.into()) });
        self.event(Event::Thought { generation, thought: Thought::Done });
    }

    fn turns(&self) -> Vec<(String, bool)> {
        let mut turns: std::collections::BTreeMap<i32, Turn> = std::collections::BTreeMap::new();
        for effect in &self.effects {
            if let Effect::Record(Entry::Turn(turn)) = effect {
                turns.insert(turn.ordinal, turn.clone());
            }
        }
        turns.into_values().filter(|t| !t.text.is_empty()).map(|t| (t.text, t.interrupted)).collect()
    }

    fn ending(&self) -> Option<Ending> {
        self.effects.iter().find_map(|effect| match effect {
            Effect::Finish(ending) => Some(*ending),
            _ => None,
        })
    }

    fn count(&self, wanted: impl Fn(&Effect) -> bool) -> usize {
        self.effects.iter().filter(|effect| wanted(effect)).count()
    }
}

fn told_turns() -> Settings {
    Settings { turns: Turns::Recognizer, ..Settings::default() }
}

#[test]
fn who_cuts_in_is_heard_and_only_what_they_heard_is_kept() {
    let mut scene = Scene::new(told_turns());
    scene.say("What are your hours?");
    assert_eq!(scene.core.state(), State::Thinking);
    scene.answer("We are open from nine to five on weekdays.");
    assert_eq!(scene.core.state(), State::Speaking);
    scene.pass(1_100); // four words and a part
    scene.event(Event::Voice(Voice::Started));
    assert_eq!(scene.core.state(), State::Paused);
    assert_eq!(scene.count(|e| *e == Effect::Clear), 1);
    scene.event(Event::Hearing(Hearing::Partial("And on".into())));
    assert_eq!(scene.turns()[1], ("We are open from".to_owned(), true));
    scene.event(Event::Hearing(Hearing::EndOfTurn("And on Sundays?".into())));
    let (_, context) = scene.asks().pop().unwrap();
    assert_eq!(
        context,
        [
            Said::User("What are your hours?".into()),
            Said::Agent { text: "We are open from".into(), interrupted: true },
            Said::User("And on Sundays?".into()),
        ]
    );
}

#[test]
fn noise_and_a_listeners_noises_only_make_it_wait() {
    let mut scene = Scene::new(told_turns());
    scene.say("Tell me.");
    scene.answer("One two three four five six seven eight.");
    scene.pass(900);
    scene.event(Event::Voice(Voice::Started));
    let sent = scene.played;
    scene.pass(300);
    assert_eq!((scene.played, scene.core.state()), (sent, State::Paused), "it talks over them");
    scene.event(Event::Voice(Voice::Ended));
    scene.pass(1_000);
    assert_eq!(scene.core.state(), State::Speaking);
    scene.event(Event::Voice(Voice::Started));
    scene.event(Event::Hearing(Hearing::Partial("uh-huh".into())));
    scene.event(Event::Voice(Voice::Ended));
    scene.event(Event::Hearing(Hearing::EndOfTurn("Uh-huh.".into())));
    scene.pass(4_000);
    let said = [("Tell me.", false), ("One two three four five six seven eight.", false), ("Uh-huh.", false)];
    assert_eq!(scene.turns(), said.map(|(text, cut)| (text.to_owned(), cut)));
    assert_eq!(scene.asks().len(), 1);
}

#[test]
fn it_goes_on_from_the_exact_sample_where_that_is_wanted() {
    let mut scene = Scene::new(Settings { resume_whole_words: false, ..told_turns() });
    scene.say("Tell me.");
    scene.answer("One two three four.");
    scene.pass(600);
    scene.event(Event::Voice(Voice::Started));
    scene.event(Event::Voice(Voice::Ended));
    scene.pass(4_000);
    assert_eq!(scene.played, 4 * WORD, "samples were lost or repeated");
    let whole = {
        let mut scene = Scene::new(told_turns());
        scene.say("Tell me.");
        scene.answer("One two three four.");
        scene.pass(600);
        scene.event(Event::Voice(Voice::Started));
        scene.event(Event::Voice(Voice::Ended));
        scene.pass(4_000);
        scene.played
    };
    assert!(whole > 4 * WORD && whole < 5 * WORD, "a broken word is said again: {whole}");
}

#[test]
fn a_guess_that_was_wrong_leaves_no_trace() {
    let mut scene = Scene::new(told_turns());
    scene.event(Event::Voice(Voice::Started));
    scene.event(Event::Hearing(Hearing::EagerEnd("I would like".into())));
    assert_eq!(scene.core.state(), State::EagerEnd);
    scene.answer("Yes? What would you like?");
    scene.pass(500);
    assert_eq!(scene.played, 0, "a guess was heard");
    scene.event(Event::Hearing(Hearing::Resumed));
    scene.event(Event::Hearing(Hearing::Partial("I would like a table".into())));
    scene.event(Event::Voice(Voice::Ended));
    scene.event(Event::Hearing(Hearing::EndOfTurn("I would like a table.".into())));
    scene.answer("For when?");
    scene.pass(2_000);
    assert_eq!(scene.turns(), [("I would like a table.".to_owned(), false), ("For when?".to_owned(), false)]);
    assert_eq!(scene.count(|e| matches!(e, Effect::Show(text) if text.contains("What would"))), 0);
}

#[test]
fn a_guess_that_was_right_is_heard_at_once() {
    let mut scene = Scene::new(told_turns());
    scene.event(Event::Voice(Voice::Started));
    scene.event(Event::Voice(Voice::Ended));
    scene.event(Event::Hearing(Hearing::EagerEnd("A table please".into())));
    scene.answer("For when?");
    scene.pass(200);
    scene.event(Event::Hearing(Hearing::EndOfTurn("A table, please.".into())));
    assert_eq!(scene.asks().len(), 1, "asked twice");
    assert_eq!(scene.core.state(), State::Speaking);
    scene.pass(2_000);
    assert_eq!(scene.turns().len(), 2);
    let measured = scene.effects.iter().find_map(|e| match e {
        Effect::Measured(turn) => Some(*turn),
        _ => None,
    });
    let measured = measured.expect("the turn was not measured");
    assert!(measured.speculative && !measured.interrupted);
    assert_eq!((measured.sent, measured.heard), (2 * WORD, 2 * WORD));
    assert!(measured.first_heard >= measured.first_sent && measured.first_sent >= measured.first_token);
}

#[test]
fn words_that_are_written_late_stand_where_they_were_said() {
    let mut scene = Scene::new(Settings {
        idle: Some(Idle {
            after: Duration::from_secs(5),
            prompts: vec!["Are you there?".into()],
            goodbye: None,
        }),
        ..Settings::default()
    });
    scene.event(Event::Voice(Voice::Started));
    scene.pass(500);
    scene.event(Event::Voice(Voice::Ended));
    scene.pass(9_000); // the recogniser says nothing, and the agent asks
    assert_eq!(scene.turns(), [("Are you there?".to_owned(), false)]);
    scene.event(Event::Hearing(Hearing::Final("Hello, I am here".into())));
    scene.pass(3_000);
    assert_eq!(scene.turns(), [("Hello, I am here".to_owned(), false), ("Are you there?".to_owned(), false)]);
}

#[test]
fn a_protected_notice_is_said_to_the_end() {
    let notice = Saying { text: "This call is recorded for training.".into(), protected: true };
    let mut scene = Scene::new(Settings { greeting: Some(notice), ..told_turns() });
    scene.pass(300);
    scene.say("I want to book a table.");
    assert_eq!(scene.core.state(), State::Speaking);
    assert!(scene.asks().is_empty(), "it answers before it is done");
    scene.event(Event::Interrupt);
    scene.pass(3_000);
    let turns = scene.turns();
    assert_eq!(turns[0], ("This call is recorded for training.".to_owned(), false));
    assert_eq!(scene.asks().len(), 1);
}

#[test]
fn tools_that_take_long_are_bridged_and_answered_once() {
    let mut scene = Scene::new(told_turns());
    scene.say("Do you have a table?");
    let generation = scene.asks()[0].0;
    let call = ToolCall { call_id: "c".into(), name: "tables".into(), arguments: serde_json::Map::new() };
    scene.event(Event::Thought { generation, thought: Thought::Call(call) });
    scene.event(Event::Thought { generation, thought: Thought::Done });
    assert_eq!(scene.core.state(), State::Tool);
    scene.pass(3_000);
    assert_eq!(scene.turns()[1].0, "One moment, please.");
    let answer = ToolAnswer { output: json!({"free": 2}), then: Some(Ending::AgentEnded) };
    for _ in 0..2 {
        scene.event(Event::ToolFinished { call_id: "c".into(), answer: answer.clone() });
    }
    let asks = scene.asks();
    assert_eq!(asks.len(), 2);
    assert!(matches!(&asks[1].1[1], Said::Tools(calls) if calls[0].1 == json!({"free": 2})));
    scene.answer("There are two. Goodbye.");
    assert_eq!(scene.ending(), None, "it ends before it has spoken");
    scene.pass(3_000);
    assert_eq!(scene.ending(), Some(Ending::AgentEnded));
}

#[test]
fn keys_are_one_number_and_cut_in() {
    let mut scene = Scene::new(Settings {
        greeting: Some(Saying { text: "Press one for sales and two for service.".into(), protected: false }),
        ..told_turns()
    });
    scene.pass(1_000);
    for digit in "12".chars() {
        scene.event(Event::Digit(digit));
        scene.pass(300);
    }
    assert!(scene.asks().is_empty());
    scene.pass(2_500);
    assert_eq!(scene.asks().len(), 1);
    assert_eq!(scene.turns()[1].0, "[pressed 12]");
    assert!(scene.turns()[0].1);
}

#[test]
fn nobody_there_is_asked_and_then_left() {
    let mut scene = Scene::new(Settings {
        idle: Some(Idle {
            after: Duration::from_secs(5),
            prompts: vec!["Hello?".into(), "Anybody?".into()],
            goodbye: Some("Goodbye.".into()),
        }),
        ..told_turns()
    });
    scene.pass(14_000);
    assert_eq!(scene.turns().len(), 2);
    scene.pass(8_000);
    assert_eq!(scene.ending(), Some(Ending::AgentEnded));
    assert_eq!(scene.turns()[2].0, "Goodbye.");
}

#[test]
fn writing_instead_of_speaking_works_in_all_modes() {
    for (voice_input, voice_output) in [(false, false), (false, true), (true, false)] {
        let mut scene = Scene::new(Settings { voice_input, voice_output, ..told_turns() });
        if voice_input {
            scene.say("Hello");
        } else {
            scene.event(Event::Typed("Hello".into()));
        }
        scene.answer("*waves* Good day. How are you?");
        scene.pass(3_000);
        assert_eq!(scene.turns()[1], ("Good day. How are you?".to_owned(), false));
        assert_eq!(scene.count(|e| matches!(e, Effect::Play(_))) > 0, voice_output);
        assert_eq!(scene.count(|e| matches!(e, Effect::AnswerOver { interrupted: false })), 1);
    }
}

#[test]
fn a_recogniser_that_breaks_off_is_replaced_and_hears_the_turn_again() {
    let mut scene = Scene::new(Settings::default());
    scene.pass(3_000);
    let began = scene.now;
    scene.event(Event::Voice(Voice::Started));
    scene.event(Event::Hearing(Hearing::Final("I would".into())));
    scene.pass(1_000);
    scene.event(Event::Hearing(Hearing::Lost { fatal: false }));
    let listen = scene.effects.iter().rev().find_map(|e| match e {
        Effect::Listen { from } => Some(from.0),
        _ => None,
    });
    assert_eq!(listen, Some(began - RATE * 6 / 10), "it misses the beginning, or hears too much");
    scene.event(Event::Hearing(Hearing::Ready));
    scene.event(Event::Hearing(Hearing::Final("I would like two".into())));
    scene.event(Event::Voice(Voice::Ended));
    scene.pass(2_600);
    assert_eq!(scene.turns()[0].0, "I would like two");
    scene.event(Event::Hearing(Hearing::Lost { fatal: false }));
    scene.pass(9_000);
    assert_eq!(scene.ending(), Some(Ending::UpstreamFailed));
}

#[test]
fn asked_to_end_it_finishes_its_sentence_or_is_cut_at_the_limit() {
    for (limit, interrupted) in [(10 * RATE, false), (RATE, true)] {
        let mut scene = Scene::new(told_turns());
        scene.say("Tell me.");
        scene.answer("One two three four five six seven eight.");
        scene.pass(600);
        scene.event(Event::Drain(Samples(scene.now + limit)));
        assert_eq!(scene.core.state(), State::Draining);
        scene.pass(4_000);
        assert_eq!(scene.ending(), Some(Ending::HandedOver));
        assert_eq!(scene.turns()[1].1, interrupted);
        assert_eq!(scene.core.state(), State::Finished);
    }
}

#[test]
fn a_model_that_fails_is_asked_again_and_given_up_politely() {
    let mut scene = Scene::new(told_turns());
    scene.say("Hello");
    for _ in 0..3 {
        let generation = scene.asks().last().unwrap().0;
        scene.event(Event::Thought { generation, thought: Thought::Failed { fatal: false } });
        scene.pass(5_000);
    }
    assert_eq!(scene.asks().len(), 4);
    let generation = scene.asks().last().unwrap().0;
    scene.event(Event::Thought { generation, thought: Thought::Failed { fatal: false } });
    scene.pass(8_000);
    assert_eq!(scene.ending(), Some(Ending::UpstreamFailed));
    assert!(scene.turns()[1].0.starts_with("I'm sorry"));
}
