//! A simulated world: a person, a network, a recogniser, a model, a synthesiser and tools, all from one seed.
//!
//! `CASCADE_SEEDS=1234 cargo nextest run -p longhouse-voice simulation` replays one seed and `CASCADE_SEEDS=0..100000`
//! runs many.

mod services;

use std::cmp::Reverse;
use std::collections::{BTreeMap, BinaryHeap, HashMap, VecDeque};
use std::time::Duration;

use serde_json::json;

use super::super::{Before, Core, State};
use crate::cascade::clock::{Rate, Samples};
use crate::cascade::events::{Effect, Event, Hearing, Said, Voice};
use crate::cascade::language::normalised;
use crate::cascade::{Idle, Language, Saying, Settings, Turns};
use crate::session::{Ending, Entry, Speaker, ToolAnswer, ToolCall};

const RATE: u64 = 8_000;
const STEP: u64 = RATE / 100;
/// The person says the last thing by then.
const TALK: u64 = 45 * RATE;
/// Then everybody has this long to finish.
const QUIET: u64 = 40 * RATE;

/// Deterministic dice (splitmix64).
struct Dice(u64);

impl Dice {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    fn below(&mut self, n: u64) -> u64 {
        self.next() % n.max(1)
    }

    /// Samples of a time between these, in milliseconds.
    fn ms(&mut self, from: u64, to: u64) -> u64 {
        (from + self.below(to - from + 1)) * RATE / 1_000
    }

    fn chance(&mut self, percent: u64) -> bool {
        self.below(100) < percent
    }
}

/// How the far end tells what it has played.
#[derive(Debug, Clone, Copy, PartialEq)]
enum Tells {
    Exactly,
    ByMarks,
    Nothing,
}

#[derive(Debug, PartialEq)]
enum Due {
    Core(Event),
    /// Of a recogniser, which may be gone.
    Ears(u32, Hearing),
    /// Reaches the far end.
    Play(Vec<i16>),
    Mark(u64),
    Clear,
    /// The person's next act.
    Act,
    /// A word has been said, and a recogniser may notice.
    Notice,
    /// Chunks of an utterance go on from this sample.
    Synthesise(u32),
    Think(u32),
}

struct Utterance {
    audio: Vec<i16>,
    words: Vec<(String, u64, u64)>,
    at: usize,
    told: usize,
    fails_at: Option<usize>,
}

struct Answer {
    pieces: VecDeque<String>,
    calls: Vec<ToolCall>,
    fails: bool,
}

/// The recogniser at work.
struct Recogniser {
    number: u32,
    /// Words before this are not heard.
    from: u64,
    ready: bool,
    /// Index of the next word of the person's that it has not noticed.
    next: usize,
    /// Words of the present turn or segment.
    segment: Vec<String>,
    eager: bool,
    finalize: bool,
}

struct World {
    dice: Dice,
    core: Core,
    now: u64,
    queue: BinaryHeap<Reverse<(u64, u64)>>,
    due: HashMap<u64, Due>,
    sequence: u64,
    tells: Tells,
    told_times: bool,
    there: u64,
    back: u64,
    troubles: bool,
    // far end
    buffer: VecDeque<i16>,
    marks: VecDeque<(u64, u64)>,
    played: u64,
    received: u64,
    heard: Vec<i16>,
    renditions: HashMap<i16, (String, usize)>,
    clears: usize,
    // person
    words: Vec<(String, u64, u64)>,
    speaking: bool,
    last_word_end: u64,
    typed: Vec<String>,
    // services
    recognisers: u32,
    recogniser: Option<Recogniser>,
    utterances: HashMap<u32, Utterance>,
    answers: HashMap<u32, Answer>,
    asked: u32,
    contexts: HashMap<u32, Vec<Said>>,
    begun: HashMap<u32, bool>,
    turns: BTreeMap<i32, (Speaker, String)>,
    finished: Option<(u64, Ending)>,
    log: Vec<String>,
    most_waiting: usize,
}

fn settings(dice: &mut Dice) -> Settings {
    let turns = match dice.below(3) {
        0 => Turns::Recognizer,
        _ => Turns::Silence { eager: Duration::from_millis(250), end: Duration::from_millis(600) },
    };
    Settings {
        rate: Rate(RATE as u32),
        language: Language::English,
        greeting: dice.chance(60).then(|| Saying {
            text: "Hello and welcome. This call is recorded.".into(),
            protected: dice.chance(50),
        }),
        turns,
        speculate: dice.chance(80),
        resume_whole_words: dice.chance(70),
        idle: dice.chance(40).then(|| Idle {
            after: Duration::from_secs(9),
            prompts: vec!["Are you still there?".into()],
            goodbye: None,
        }),
        voice_output: dice.chance(90),
        ..Settings::default()
    }
}

impl World {
    fn new(seed: u64) -> Self {
        let mut dice = Dice(seed);
        let mut settings = settings(&mut dice);
        let told_times = dice.chance(75);
        settings.word_times = told_times;
        let tells = if dice.chance(70) {
            Tells::Exactly
        } else if dice.chance(50) {
            Tells::ByMarks
        } else {
            Tells::Nothing
        };
        let (there, back) = (dice.ms(0, 150), dice.ms(0, 150));
        let mut world = Self {
            core: Core::new(settings, Before::default()),
            now: 0,
            queue: BinaryHeap::new(),
            due: HashMap::new(),
            sequence: 0,
            tells,
            told_times,
            there,
            back,
            troubles: dice.chance(60),
            dice,
            buffer: VecDeque::new(),
            marks: VecDeque::new(),
            played: 0,
            received: 0,
            heard: Vec::new(),
            renditions: HashMap::new(),
            clears: 0,
            words: Vec::new(),
            speaking: false,
            last_word_end: 0,
            typed: Vec::new(),
            recognisers: 0,
            recogniser: None,
            utterances: HashMap::new(),
            answers: HashMap::new(),
            asked: 0,
            contexts: HashMap::new(),
            begun: HashMap::new(),
            turns: BTreeMap::new(),
            finished: None,
            log: Vec::new(),
            most_waiting: 0,
        };
        world.at(0, Due::Core(Event::Started));
        let first = world.dice.ms(100, 4_000);
        world.at(first, Due::Act);
        world
    }

    fn at(&mut self, delay: u64, due: Due) {
        self.sequence += 1;
        self.queue.push(Reverse((self.now + delay, self.sequence)));
        self.due.insert(self.sequence, due);
    }

    fn step(&mut self, event: Event) {
        if !matches!(event, Event::Speech { .. } | Event::Played(_)) {
            self.log.push(format!("{:>8.2} {event:?}", self.now as f64 / RATE as f64));
        }
        let speaking = self.core.state() == State::Speaking && !self.core.mouth.is_protected();
        let voice = event == Event::Voice(Voice::Started);
        let mut out = Vec::new();
        self.core.step(Samples(self.now), event, &mut out);
        if voice && speaking {
            let now = Samples(self.now);
            let (heard, sent) = self.core.heard(now);
            assert!(out.contains(&Effect::Clear) || heard == sent, "the agent goes on talking");
        }
        self.apply(out);
    }

    fn apply(&mut self, effects: Vec<Effect>) {
        assert!(effects.len() < 500, "a storm of effects");
        for effect in effects {
            if !matches!(effect, Effect::Play(_) | Effect::Mark(_)) {
                self.log.push(format!("{:>8.2}      -> {effect:?}", self.now as f64 / RATE as f64));
            }
            assert!(self.finished.is_none(), "after the end: {effect:?}");
            match effect {
                Effect::Play(samples) => self.at(self.there, Due::Play(samples)),
                Effect::Mark(position) => self.at(self.there, Due::Mark(position)),
                Effect::Clear => {
                    self.clears += 1;
                    self.at(self.there, Due::Clear);
                }
                Effect::Show(_)
                | Effect::Transcript { .. }
                | Effect::AnswerOver { .. }
                | Effect::Measured(_) => {}
                Effect::Ask { generation, context, speculative } => {
                    self.ask(generation, context, speculative);
                }
                Effect::CancelAsk(generation) => {
                    assert!(self.answers.remove(&generation).is_some(), "cancels what does not run");
                }
                Effect::Speak { utterance, text, .. } => self.speak(utterance, &text),
                Effect::CancelSpeak(utterance) => {
                    assert!(self.utterances.remove(&utterance).is_some(), "cancels what does not run");
                }
                Effect::RunTool(call) => {
                    let took = self.dice.ms(50, if self.dice.0.is_multiple_of(5) { 12_000 } else { 2_500 });
                    let answer = ToolAnswer { output: json!({"found": call.call_id}), then: None };
                    self.at(took, Due::Core(Event::ToolFinished { call_id: call.call_id, answer }));
                }
                Effect::Listen { from } => self.listen(from.0),
                Effect::Finalize => {
                    if let Some(recogniser) = &mut self.recogniser {
                        recogniser.finalize = true;
                    }
                    let delay = self.dice.ms(30, 300);
                    self.at(delay, Due::Notice);
                }
                Effect::Record(Entry::Turn(turn)) => {
                    let known = self.turns.insert(turn.ordinal, (turn.speaker, turn.text));
                    assert!(known.is_none_or(|(speaker, _)| speaker == turn.speaker), "a place taken twice");
                }
                Effect::Record(_) => {}
                Effect::Finish(ending) => self.finished = Some((self.now, ending)),
            }
        }
    }

    // ---- the person

    fn act(&mut self) {
        if self.now > TALK {
            return;
        }
        let mut delay = 0;
        match self.dice.below(12) {
            0..=5 => {
                let count = 1 + self.dice.below(7);
                delay = self.utter(count, false);
            }
            6 => delay = self.utter(1, true),
            7 | 8 => {
                // A cough, or a lorry.
                let length =
                    if self.dice.chance(80) { self.dice.ms(120, 700) } else { self.dice.ms(2_000, 5_000) };
                self.at(RATE * 8 / 100, Due::Core(Event::Voice(Voice::Started)));
                self.at(length + RATE / 5, Due::Core(Event::Voice(Voice::Ended)));
                delay = length + RATE / 4;
            }
            9 => {
                let text = format!("t{}", self.typed.len());
                self.typed.push(text.clone());
                self.at(0, Due::Core(Event::Typed(text)));
            }
            10 => {
                self.typed.push("[pressed 42]".into());
                for (n, digit) in "42".chars().enumerate() {
                    self.at(n as u64 * RATE / 5, Due::Core(Event::Digit(digit)));
                }
                if self.dice.chance(50) {
                    self.at(RATE, Due::Core(Event::Digit('#')));
                }
                delay = RATE * 3;
            }
            _ => self.at(0, Due::Core(Event::Interrupt)),
        }
        let pause = if self.dice.chance(30) { self.dice.ms(100, 1_500) } else { self.dice.ms(1_500, 9_000) };
        self.at(delay + pause + RATE / 4, Due::Act);
    }

    /// Says words from now on; returns how long that takes.
    fn utter(&mut self, count: u64, noise: bool) -> u64 {
        let mut at = self.now;
        let mut begun = at;
        for n in 0..count {
            let length = self.dice.ms(150, 400);
            let word = if noise { "yeah".to_owned() } else { format!("u{}", self.words.len()) };
            self.words.push((word, at, at + length));
            at += length;
            self.last_word_end = at;
            self.at(at - self.now + 1, Due::Notice);
            let hesitates = n + 1 < count && self.dice.chance(20);
            if hesitates || n + 1 == count {
                // The detector is a little late at both ends.
                self.at(begun - self.now + RATE * 8 / 100, Due::Core(Event::Voice(Voice::Started)));
                self.at(at - self.now + RATE * 2 / 10, Due::Core(Event::Voice(Voice::Ended)));
                for silence in [310, 820, 1_400] {
                    self.at(at - self.now + silence * RATE / 1_000, Due::Notice);
                }
            }
            if hesitates {
                at += self.dice.ms(350, 1_100);
                begun = at;
            }
        }
        at - self.now
    }

    // ---- the far end

    fn play(&mut self) {
        let before = self.played;
        for _ in 0..STEP {
            let Some(sample) = self.buffer.pop_front() else { break };
            if sample < 0 {
                self.word_begins(-sample);
            }
            self.heard.push(sample);
            self.played += 1;
        }
        while self.marks.front().is_some_and(|(_, at)| *at <= self.played) {
            if let Some((position, _)) = self.marks.pop_front() {
                self.at(self.back, Due::Core(Event::Played(position)));
            }
        }
        let told = self.played / (RATE / 10);
        if self.tells == Tells::Exactly
            && (told > before / (RATE / 10) || (self.buffer.is_empty() && self.played > before))
        {
            self.at(self.back, Due::Core(Event::Played(self.played)));
        }
    }

    /// When the first word of an answer is heard, its model knew exactly what had been heard before.
    fn word_begins(&mut self, id: i16) {
        let word = self.renditions[&id].0.clone();
        let Some(generation) = word
            .strip_prefix(['G', 'g'])
            .and_then(|w| w.split_once('w'))
            .and_then(|(generation, _)| generation.parse::<u32>().ok())
        else {
            return;
        };
        if self.begun.insert(generation, true).is_some() || !self.is_exact() {
            return;
        }
        let context: Vec<String> = self.contexts[&generation]
            .iter()
            .filter_map(|said| match said {
                Said::Agent { text, .. } => Some(text.split_whitespace().map(str::to_owned)),
                _ => None,
            })
            .flatten()
            .collect();
        let heard = self.decode();
        assert_eq!(context, heard, "generation {generation} was not told what was heard");
    }

    fn is_exact(&self) -> bool {
        self.tells == Tells::Exactly && self.told_times
    }

    /// Words that arrived whole.
    fn decode(&self) -> Vec<String> {
        let mut words = Vec::new();
        let mut at = 0;
        while at < self.heard.len() {
            let id = -self.heard[at];
            at += 1;
            if id > 0 {
                let (word, length) = &self.renditions[&id];
                let run = self.heard[at..].iter().take(length - 1).take_while(|s| **s == id).count();
                // The last hundredth of a second of a word is not missed.
                if run + 1 + (RATE as usize / 100).min(length / 4) >= *length {
                    words.push(word.clone());
                }
            }
        }
        words
    }

    fn run(&mut self) {
        let mut drained = None;
        while self.finished.is_none() {
            while let Some(Reverse((time, number))) = self.queue.peek().copied() {
                if time > self.now {
                    break;
                }
                self.queue.pop();
                let Some(due) = self.due.remove(&number) else { continue };
                self.handle(due);
                if self.finished.is_some() {
                    return;
                }
            }
            self.play();
            if self.now.is_multiple_of(2 * STEP) {
                let mut out = Vec::new();
                self.core.tick(Samples(self.now), &mut out);
                self.apply(out);
            }
            self.most_waiting = self.most_waiting.max(self.core.mouth.waiting());
            self.now += STEP;
            if self.now > TALK + QUIET && drained.is_none() {
                drained = Some(self.now);
                assert!(
                    matches!(
                        self.core.state(),
                        State::Listening | State::Speaking | State::Rollover | State::Tool
                    ),
                    "stuck in {:?}",
                    self.core.state()
                );
                let by = Samples(self.now + 5 * RATE);
                self.step(Event::Drain(by));
            }
            assert!(drained.is_none_or(|at| self.now < at + 6 * RATE), "does not end when it is asked to");
        }
    }

    fn handle(&mut self, due: Due) {
        match due {
            Due::Core(Event::Voice(voice)) => {
                self.speaking = voice == Voice::Started;
                self.step(Event::Voice(voice));
            }
            Due::Core(event) => self.step(event),
            Due::Ears(number, hearing) => {
                let Some(recogniser) = self.recogniser.as_mut().filter(|r| r.number == number) else {
                    return;
                };
                match hearing {
                    Hearing::Ready => {
                        recogniser.ready = true;
                        self.at(RATE / 50, Due::Notice);
                        self.at(RATE, Due::Notice);
                    }
                    Hearing::Lost { .. } => self.recogniser = None,
                    _ => {}
                }
                self.step(Event::Hearing(hearing));
            }
            Due::Play(samples) => {
                self.received += samples.len() as u64;
                self.buffer.extend(samples);
            }
            Due::Mark(position) => {
                if self.tells == Tells::ByMarks {
                    self.marks.push_back((position, self.received));
                }
            }
            Due::Clear => {
                self.received -= self.buffer.len() as u64;
                self.buffer.clear();
                for (position, _) in std::mem::take(&mut self.marks) {
                    self.at(self.back, Due::Core(Event::Played(position)));
                }
                let exact = (self.tells == Tells::Exactly).then_some(self.played);
                if self.tells != Tells::Nothing {
                    self.at(self.back, Due::Core(Event::Cleared(exact)));
                }
            }
            Due::Act => self.act(),
            Due::Notice => self.notice(),
            Due::Synthesise(utterance) => self.synthesise(utterance),
            Due::Think(generation) => self.think(generation),
        }
    }

    fn check(&self) {
        let (_, ending) = self.finished.expect("it has ended");
        // A service that fails again and again, as one dice in many has it, ends the conversation in order.
        let gave_up = self.troubles && ending == Ending::UpstreamFailed;
        assert!(ending == Ending::HandedOver || gave_up, "{ending:?}");
        assert!(self.most_waiting <= 70 * RATE as usize, "{} samples wait", self.most_waiting);
        // Stored transcript = model context.
        let stored: Vec<(Speaker, String)> =
            self.turns.values().filter(|(_, text)| !text.is_empty()).cloned().collect();
        let told: Vec<(Speaker, String)> = self
            .core
            .context()
            .into_iter()
            .filter_map(|said| match said {
                Said::User(text) => Some((Speaker::Caller, text)),
                Said::Agent { text, .. } => Some((Speaker::Agent, text)),
                Said::Tools(_) => None,
            })
            .collect();
        assert_eq!(stored, told, "transcript and context differ");
        // Heard words = stored transcript.
        let words_of = |speaker: Speaker| -> Vec<String> {
            let of = stored.iter().filter(|(who, _)| *who == speaker);
            of.flat_map(|(_, text)| text.split_whitespace().map(str::to_owned)).collect()
        };
        if self.core.settings.voice_output {
            let heard = self.decode();
            let agent = words_of(Speaker::Agent);
            if self.is_exact() {
                assert_eq!(heard, agent, "heard and stored words differ");
            } else {
                let most = 4 * self.clears + 4 * usize::from(self.troubles) + 2;
                assert!(heard.len().abs_diff(agent.len()) <= most, "{heard:?}\n{agent:?}");
            }
        }
        if gave_up {
            return;
        }
        // No turn of the person is lost, doubled or out of order.
        let person = words_of(Speaker::Caller);
        let spoken: Vec<String> = self.words.iter().map(|(word, _, _)| word.clone()).collect();
        let kept: Vec<String> =
            person.iter().filter(|word| word.starts_with('u') || *word == "yeah").cloned().collect();
        assert_eq!(kept, spoken, "spoken words were lost");
        let typed: Vec<String> = stored
            .iter()
            .filter(|(who, text)| *who == Speaker::Caller && (text.starts_with('t') || text.starts_with('[')))
            .map(|(_, text)| text.clone())
            .collect();
        assert_eq!(typed, self.typed, "typed words were lost");
        assert!(normalised("").is_empty());
    }
}

fn replay(seed: u64) {
    let mut world = World::new(seed);
    let result = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| {
        world.run();
        world.check();
    }));
    if let Err(panic) = result {
        let from =
            world.log.len().saturating_sub(if std::env::var("CASCADE_SEEDS").is_ok() { 100_000 } else { 60 });
        eprintln!("{}", world.log[from..].join("\n"));
        eprintln!("replay with CASCADE_SEEDS={seed}");
        std::panic::resume_unwind(panic);
    }
}

#[test]
fn simulation() {
    let seeds = std::env::var("CASCADE_SEEDS").unwrap_or_else(|_| "0..400".into());
    let seeds = match seeds.split_once("..") {
        Some((from, to)) => from.parse().unwrap()..to.parse().unwrap(),
        None => {
            let seed: u64 = seeds.parse().unwrap();
            seed..seed + 1
        }
    };
    for seed in seeds {
        replay(seed);
    }
}
