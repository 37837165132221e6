//! What holds whatever arrives, in whatever order, at whatever time.

use std::collections::{HashMap, HashSet};
use std::time::Duration;

use proptest::prelude::*;
use serde_json::json;

use super::kit::*;
use crate::session::core::{Core, Effect};
use crate::session::{Ending, Settings, Speaker};

#[derive(Debug, Clone)]
enum Step {
    Wait(u16),
    Leap(u32),
    Start,
    Admit(bool),
    Refuse,
    Media(u8),
    Key(char),
    Garbage(u8),
    Mark(u8),
    Dialled(u8),
    DialFailed(u8, bool),
    Created(u8),
    Updated(u8),
    Lost(u8),
    SpeechStarted(u8, u8),
    SpeechStopped(u8, u8),
    Words(u8, u8),
    Idle(u8),
    Response(u8),
    Audio(u8, u8, u16),
    Said(u8, u8),
    AudioDone(u8, u8),
    Call(u8, u8, u8, bool),
    Done(u8, u8, u8),
    Summary(u8),
    Error(u8, u8),
    Tool(u8, u8),
    HandOver(u16),
    Gone,
    Stop,
}

fn step() -> impl Strategy<Value = Step> {
    let leg = 0..2_u8;
    let id = 0..4_u8;
    prop_oneof![
        12 => (1..3_000_u16).prop_map(Step::Wait),
        2 => (1..400_000_u32).prop_map(Step::Leap),
        2 => Just(Step::Start),
        2 => any::<bool>().prop_map(Step::Admit),
        1 => (0..40_u8).prop_map(|n| if n == 0 { Step::Refuse } else { Step::Media(n) }),
        4 => (1..50_u8).prop_map(Step::Media),
        1 => prop_oneof![Just('0'), Just('#')].prop_map(Step::Key),
        1 => any::<u8>().prop_map(Step::Garbage),
        1 => any::<u8>().prop_map(Step::Mark),
        4 => leg.clone().prop_map(Step::Dialled),
        1 => (leg.clone(), prop::bool::weighted(0.1)).prop_map(|(l, f)| Step::DialFailed(l, f)),
        4 => leg.clone().prop_map(Step::Created),
        6 => leg.clone().prop_map(Step::Updated),
        1 => leg.clone().prop_map(Step::Lost),
        5 => (leg.clone(), id.clone()).prop_map(|(l, i)| Step::SpeechStarted(l, i)),
        6 => (leg.clone(), id.clone()).prop_map(|(l, i)| Step::SpeechStopped(l, i)),
        5 => (leg.clone(), id.clone()).prop_map(|(l, i)| Step::Words(l, i)),
        1 => leg.clone().prop_map(Step::Idle),
        8 => id.clone().prop_map(Step::Response),
        10 => (leg.clone(), id.clone(), 1..2_000_u16).prop_map(|(l, i, ms)| Step::Audio(l, i, ms)),
        6 => (leg.clone(), id.clone()).prop_map(|(l, i)| Step::Said(l, i)),
        6 => (leg.clone(), id.clone()).prop_map(|(l, i)| Step::AudioDone(l, i)),
        5 => (leg.clone(), id.clone(), id.clone(), prop::bool::weighted(0.8))
            .prop_map(|(l, i, c, ok)| Step::Call(l, i, c, ok)),
        9 => (leg.clone(), id.clone(), prop_oneof![5 => Just(0_u8), 1 => 1..5_u8])
            .prop_map(|(l, i, s)| Step::Done(l, i, s)),
        2 => leg.clone().prop_map(Step::Summary),
        1 => (leg, 0..5_u8).prop_map(|(l, e)| Step::Error(l, e)),
        5 => (id, 0..12_u8).prop_map(|(c, then)| Step::Tool(c, then)),
        1 => (1..60_000_u16).prop_map(|ms| if ms < 50_000 { Step::Wait(ms) } else { Step::HandOver(ms) }),
        1 => (0..12_u8).prop_map(|n| match n { 0 => Step::Gone, 1 => Step::Stop, _ => Step::Wait(5) }),
    ]
}

/// What the world saw beyond what `World` itself checks.
struct Checks {
    world: World,
    /// The server's turn number, so that ids are as unique as a server's.
    round: HashMap<(char, u8), u32>,
    heard: u64,
    response_open: HashSet<(u32, String)>,
}

impl Checks {
    fn id(&mut self, kind: char, slot: u8, next: bool) -> String {
        let round = self.round.entry((kind, slot)).or_default();
        *round += u32::from(next);
        format!("{kind}{slot}-{round}")
    }

    /// The session in that place: 0 is the one that listens, 1 another. Only who listens can answer.
    fn leg(&self, place: u8) -> Option<u32> {
        let listening = self.world.core.active.as_ref().map(|leg| leg.generation);
        let mut open: Vec<u32> = self.world.open.iter().copied().collect();
        open.sort_unstable_by_key(|generation| (Some(*generation) != listening, *generation));
        open.get(usize::from(place)).copied()
    }

    fn server(&mut self, place: u8, event: serde_json::Value) {
        if let Some(generation) = self.leg(place) {
            self.world.server_on(generation, event);
        }
    }

    fn apply(&mut self, step: Step) {
        let world = &mut self.world;
        match step {
            Step::Wait(ms) => world.run(u64::from(ms)),
            Step::Leap(ms) => {
                for _ in 0..20 {
                    if world.phone.is_silent() {
                        break;
                    }
                    world.run(500);
                }
                if world.phone.is_silent() {
                    world.leap(Duration::from_millis(u64::from(ms)));
                }
            }
            Step::Start => world.caller(&start()),
            Step::Admit(greets) => world.admit(greets.then_some("Good morning.")),
            Step::Refuse => world.act(Core::refused),
            Step::Media(frames) => {
                for _ in 0..frames {
                    world.caller(&media(&ulaw(20)));
                }
            }
            Step::Key(digit) => {
                world.caller(&json!({"event":"dtmf","dtmf":{"digit":digit}}).to_string());
            }
            Step::Garbage(n) => {
                let texts = ["", "{", "[]", "null", r#"{"event":"media"}"#, r#"{"type":"response.done"}"#];
                let text = texts[usize::from(n) % texts.len()];
                world.caller(text);
                let generation = world.newest();
                world.act(|core, now, out| core.upstream_message(now, generation, text, out));
                world.tool_answers("no such call", json!(null), Some(Ending::AgentEnded));
            }
            Step::Mark(n) => {
                world.caller(&json!({"event":"mark","mark":{"name":n.to_string()}}).to_string());
            }
            Step::Dialled(place) => {
                let mut waiting: Vec<u32> = world.dialling.iter().copied().collect();
                waiting.sort_unstable();
                if let Some(&generation) = waiting.get(usize::from(place)) {
                    world.dialling.remove(&generation);
                    world.open.insert(generation);
                    world.act(|core, now, out| core.dialled(now, generation, out));
                }
            }
            Step::DialFailed(place, fatal) => {
                let mut waiting: Vec<u32> = world.dialling.iter().copied().collect();
                waiting.sort_unstable();
                if let Some(&generation) = waiting.get(usize::from(place)) {
                    world.dialling.remove(&generation);
                    world.act(|core, now, out| core.dial_failed(now, generation, fatal, out));
                }
            }
            Step::Created(l) => self.server(l, json!({"type":"session.created","session":{}})),
            Step::Updated(l) => self.server(l, json!({"type":"session.updated","session":{}})),
            Step::Lost(l) => {
                if let Some(generation) = self.leg(l) {
                    self.world.lose(generation);
                }
            }
            Step::SpeechStarted(l, i) => {
                let item = self.id('u', i, true);
                self.server(l, json!({"type":"input_audio_buffer.speech_started","item_id":item}));
            }
            Step::SpeechStopped(l, i) => {
                let item = self.id('u', i, false);
                self.server(l, json!({"type":"input_audio_buffer.speech_stopped","item_id":item}));
                self.server(l, json!({"type":"input_audio_buffer.committed","item_id":item}));
            }
            Step::Words(l, i) => {
                let item = self.id('u', i, false);
                let words = if i == 0 { "" } else { "Some words, then. And more!" };
                if let Some(generation) = self.leg(l) {
                    self.world.transcribed_on(generation, &item, words);
                }
            }
            Step::Idle(l) => self.server(l, json!({"type":"input_audio_buffer.timeout_triggered"})),
            Step::Response(i) => {
                // A server runs one response at a time, and none where nothing was said.
                let Some(generation) = self.leg(0) else { return };
                let listens = self.world.core.is_connected();
                if listens && !self.response_open.iter().any(|(g, _)| *g == generation) {
                    let id = self.id('r', i, true);
                    self.response_open.insert((generation, id.clone()));
                    self.server(0, json!({"type":"response.created","response":{"id":id}}));
                }
            }
            Step::Audio(l, i, ms) => {
                let id = self.id('r', i, false);
                let open = self.leg(l).is_some_and(|g| self.response_open.contains(&(g, id.clone())));
                if open {
                    self.server(
                        l,
                        json!({"type":"response.output_audio.delta","response_id":id,
                        "item_id":format!("i-{id}"),"delta":ulaw(u64::from(ms))}),
                    );
                }
            }
            Step::Said(l, i) => {
                let id = self.id('r', i, false);
                self.server(
                    l,
                    json!({"type":"response.output_audio_transcript.delta","response_id":id,
                    "item_id":format!("i-{id}"),"delta":"Well said. Né? "}),
                );
            }
            Step::AudioDone(l, i) => {
                let id = self.id('r', i, false);
                self.server(
                    l,
                    json!({"type":"response.output_audio.done","response_id":id,"item_id":format!("i-{id}")}),
                );
            }
            Step::Call(l, i, c, ok) => {
                let id = self.id('r', i, false);
                let call = self.id('c', c, true);
                let arguments = if ok { "{}" } else { "{" };
                self.server(
                    l,
                    json!({"type":"response.function_call_arguments.done","response_id":id,
                    "call_id":call,"name":"f","arguments":arguments}),
                );
            }
            Step::Done(l, i, s) => {
                let id = self.id('r', i, false);
                let Some(generation) = self.leg(l) else { return };
                if self.response_open.remove(&(generation, id.clone())) {
                    let status = ["completed", "cancelled", "incomplete", "failed", "?"][usize::from(s)];
                    self.server(l, json!({"type":"response.done","response":{"id":id,"status":status}}));
                }
            }
            Step::Summary(l) => self.server(
                l,
                json!({"type":"response.done","response":{"id":"s",
                "status":"completed","metadata":{"purpose":"handover-summary"},
                "output":[{"content":[{"text":"So far."}]}]}}),
            ),
            Step::Error(l, e) => {
                let code = ["", "session_expired", "invalid_value", "rate_limit", "insufficient_quota"];
                self.server(l, json!({"type":"error","error":{"code":code[usize::from(e)],"message":"m"}}));
            }
            Step::Tool(c, then) => {
                let call = self.id('c', c, false);
                let then = match then {
                    0 => Some(Ending::AgentEnded),
                    1 => Some(Ending::Transferred),
                    _ => None,
                };
                let runs = self.world.tools.contains(&call);
                let before = self.world.outputs().len();
                self.world.tool_answers(&call, json!({"ok":true}), then);
                let told = self.world.outputs().len() - before;
                let listens = self.world.core.is_connected();
                if !runs || self.world.core.is_finished() {
                    assert!(told <= 1);
                } else {
                    // Given up before, the model has its answer already.
                    let late = self.world.outputs()[..before].iter().any(|(id, _)| *id == call);
                    assert!(late || told == usize::from(listens), "{call}: told {told} times");
                }
            }
            Step::HandOver(ms) => {
                let latest = world.now + Duration::from_millis(u64::from(ms));
                world.act(|core, now, out| core.hand_over(now, latest, out));
            }
            Step::Gone => world.act(Core::caller_lost),
            Step::Stop => world.hang_up(),
        }
    }

    fn check(&mut self) {
        let now = self.world.now;
        let heard = self.world.core.playback.heard(now);
        assert!(heard >= self.heard || self.world.endings().len() == 1, "the heard position went back");
        assert!(heard <= self.world.core.playback.sent());
        self.heard = heard;
        assert!(self.world.endings().len() <= 1);
        if self.world.core.is_finished() {
            assert!(self.world.open.is_empty(), "upstream sessions left open: {:?}", self.world.open);
        }
    }
}

/// What must hold of everything that was decided in a call.
fn judge(world: &World) {
    // An id stands for one run; every run is told to a session once, unless the call ends first.
    let mut runs: HashSet<&str> = HashSet::new();
    for (_, effect) in &world.log {
        if let Effect::RunTool(call) = effect {
            assert!(runs.insert(&call.call_id), "{} was run twice", call.call_id);
        }
    }
    let mut told: HashSet<(u32, String)> = HashSet::new();
    for (generation, event) in world.commands() {
        if event["item"]["type"] == "function_call_output" {
            let call_id = event["item"]["call_id"].as_str().unwrap().to_owned();
            assert!(
                told.insert((generation, call_id.clone())),
                "{call_id} was told twice to session {generation}"
            );
        }
    }
    // A place in the conversation belongs to one turn, and places follow the order of speech.
    let mut places: HashMap<i32, (Speaker, crate::session::Millis)> = HashMap::new();
    for turn in world.turns() {
        let (speaker, _) = *places.entry(turn.ordinal).or_insert((turn.speaker, turn.started));
        assert_eq!(speaker, turn.speaker, "two speakers at {}", turn.ordinal);
        assert!(turn.ended >= turn.started && !turn.text.is_empty());
    }
    let mut order: Vec<_> = places.into_iter().collect();
    order.sort_unstable_by_key(|(ordinal, _)| *ordinal);
    assert!(order.windows(2).all(|w| w[0].1.1 <= w[1].1.1), "{order:?}");
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 96, ..ProptestConfig::default() })]

    #[test]
    fn nothing_that_arrives_breaks_a_call(
        steps in prop::collection::vec(step(), 1..160),
        obliging in prop::bool::weighted(0.7),
        prompt in prop::bool::weighted(0.8),
        delay in prop_oneof![Just(0_u64), 1..150_u64],
        cap in prop_oneof![Just(5_u64), Just(60), Just(3_600)],
    ) {
        let settings = Settings { session_cap: Duration::from_secs(cap), ..settings() };
        let mut world = World::new(settings);
        world.obliging = obliging;
        (world.phone.up, world.phone.down) = (delay, delay / 2);
        if prompt {
            world.caller(&start());
            world.admit(Some("Good morning."));
        }
        let mut checks = Checks {
            world,
            round: HashMap::new(),
            heard: 0,
            response_open: HashSet::new(),
        };
        for step in steps {
            checks.apply(step);
            let open = checks.world.open.clone();
            checks.response_open.retain(|(generation, _)| open.contains(generation));
            checks.check();
        }
        // However it stands, it comes to an end.
        checks.world.hang_up();
        checks.check();
        prop_assert_eq!(checks.world.endings().len(), 1);
        judge(&checks.world);
    }
}
