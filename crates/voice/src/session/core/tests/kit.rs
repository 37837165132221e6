//! A world around a core: a clock, a network, a telephone that plays at 8 kHz, and the server's events as text.

use std::collections::{HashMap, HashSet, VecDeque};
use std::time::Duration;

use serde_json::{Value, json};

use super::super::{Core, Effect};
use crate::session::{Agent, Ending, Entry, Millis, Resumed, Settings, ToolAnswer, Turn};
use crate::upstreams::realtime::SessionShape;

/// What the telephone and the network between do.
#[derive(Default)]
pub(super) struct Phone {
    queue: VecDeque<Played>,
    /// Milliseconds of the agent's voice that came out of the telephone.
    pub(super) heard_ms: u64,
    to_phone: VecDeque<(u64, Value)>,
    from_phone: VecDeque<(u64, String)>,
    /// One way, in milliseconds.
    pub(super) down: u64,
    pub(super) up: u64,
    /// The telephone does not answer marks.
    pub(super) mute: bool,
}

type Input<'a> = dyn FnOnce(&mut Core, Millis, &mut Vec<Effect>) + 'a;

enum Played {
    Audio(u64),
    Mark(String),
}

impl Phone {
    fn step(&mut self, now: u64) {
        while self.to_phone.front().is_some_and(|(at, _)| *at <= now) {
            let (_, message) = self.to_phone.pop_front().unwrap();
            match message["event"].as_str().unwrap() {
                "media" => {
                    let payload = message["media"]["payload"].as_str().unwrap();
                    self.queue.push_back(Played::Audio(super::super::audio_ms(payload)));
                }
                "mark" => {
                    self.queue.push_back(Played::Mark(message["mark"]["name"].as_str().unwrap().to_owned()));
                }
                "clear" => {
                    for item in std::mem::take(&mut self.queue) {
                        if let Played::Mark(name) = item {
                            self.echo(now, name);
                        }
                    }
                }
                other => panic!("Twilio does not take `{other}`"),
            }
        }
        let mut budget = 1;
        loop {
            match self.queue.front_mut() {
                Some(Played::Mark(_)) => {
                    let Some(Played::Mark(name)) = self.queue.pop_front() else { unreachable!() };
                    self.echo(now, name);
                }
                Some(Played::Audio(0)) => drop(self.queue.pop_front()),
                Some(Played::Audio(left)) if budget > 0 => {
                    *left -= 1;
                    budget = 0;
                    self.heard_ms += 1;
                }
                _ => break,
            }
        }
    }

    fn echo(&mut self, now: u64, name: String) {
        if !self.mute {
            self.from_phone.push_back((now + self.up, name));
        }
    }

    pub(super) fn is_silent(&self) -> bool {
        self.queue.is_empty() && self.to_phone.is_empty() && self.from_phone.is_empty()
    }
}

/// A session and everything around it.
pub(super) struct World {
    pub(super) core: Core,
    pub(super) now: Millis,
    /// Everything that the core decided, with its time.
    pub(super) log: Vec<(Millis, Effect)>,
    pub(super) phone: Phone,
    /// Upstream sessions come up by themselves.
    pub(super) obliging: bool,
    /// When the core wants to be called: a moment once named is kept, as the driver does.
    armed: Option<Millis>,
    ended: bool,
    started: bool,
    pub(super) dialling: HashSet<u32>,
    pub(super) open: HashSet<u32>,
    asked: HashMap<u32, u32>,
    speaking: HashMap<u32, String>,
    pub(super) tools: HashSet<String>,
    counter: u32,
}

pub(super) fn settings() -> Settings {
    Settings { max_duration: Duration::from_secs(48 * 3600), ..Settings::default() }
}

pub(super) fn agent(greeting: Option<&str>) -> Agent {
    Agent {
        shape: SessionShape {
            instructions: "Be kind.".into(),
            voice: "marin".into(),
            transcription_model: "gpt-transcribe".into(),
            language: None,
            tools: Vec::new(),
            idle_timeout_ms: None,
        },
        greeting: greeting.map(str::to_owned),
    }
}

/// `ms` milliseconds of mu-law in base64.
pub(super) fn ulaw(ms: u64) -> String {
    base64_simd::STANDARD.encode_to_string(vec![0x55; ms as usize * 8])
}

pub(super) fn start() -> String {
    json!({"event":"start","sequenceNumber":"1","streamSid":"MZ1","start":{"accountSid":"AC1","streamSid":"MZ1",
        "callSid":"CA1","tracks":["inbound"],"customParameters":{},
        "mediaFormat":{"encoding":"audio/x-mulaw","sampleRate":8000,"channels":1}}})
    .to_string()
}

pub(super) fn media(payload: &str) -> String {
    json!({"event":"media","streamSid":"MZ1","media":{"track":"inbound","chunk":"1","timestamp":"20","payload":payload}})
        .to_string()
}

impl World {
    /// A socket that has just been opened.
    pub(super) fn new(settings: Settings) -> Self {
        Self {
            core: Core::new(settings),
            now: Millis(0),
            log: Vec::new(),
            phone: Phone::default(),
            obliging: true,
            armed: None,
            ended: false,
            started: false,
            dialling: HashSet::new(),
            open: HashSet::new(),
            asked: HashMap::new(),
            speaking: HashMap::new(),
            tools: HashSet::new(),
            counter: 0,
        }
    }

    /// A call that has been answered; nothing has been said.
    pub(super) fn answered(settings: Settings, greeting: Option<&str>) -> Self {
        let mut world = Self::new(settings);
        world.caller(&start());
        world.admit(greeting);
        world
    }

    /// A call on which the caller was greeted and nobody speaks.
    pub(super) fn greeted(settings: Settings) -> Self {
        let mut world = Self::answered(settings, Some("Good morning."));
        world.agent_says("greeting", "Good morning.", 1_000);
        world.run(1_200);
        world
    }

    pub(super) fn admit(&mut self, greeting: Option<&str>) {
        let agent = agent(greeting);
        self.act(|core, now, out| core.admitted(now, agent, None, out));
    }

    pub(super) fn resume(&mut self, resumed: Resumed) {
        let agent = agent(Some("Good morning."));
        self.act(|core, now, out| core.admitted(now, agent, Some(resumed), out));
    }

    /// Gives the core an input, checks what must hold of every output, and lets the network carry it.
    pub(super) fn act(&mut self, input: impl FnOnce(&mut Core, Millis, &mut Vec<Effect>)) {
        self.react(Box::new(input));
    }

    fn react(&mut self, input: Box<Input<'_>>) {
        let mut out = Vec::new();
        input(&mut self.core, self.now, &mut out);
        self.arm();
        let mut answers = Vec::new();
        for effect in out {
            assert!(!self.ended, "{effect:?} after the end");
            self.check(&effect, &mut answers);
            self.log.push((self.now, effect));
        }
        for (generation, answer) in answers {
            if answer.is_null() {
                self.act(|core, now, out| core.dialled(now, generation, out));
                self.server_on(generation, json!({"type":"session.created","session":{"type":"realtime"}}));
            } else {
                self.server_on(generation, answer);
            }
        }
    }

    fn check(&mut self, effect: &Effect, answers: &mut Vec<(u32, Value)>) {
        match effect {
            Effect::Admit(_) => self.started = true,
            Effect::Dial { generation } => {
                self.dialling.insert(*generation);
                if self.obliging {
                    self.dialling.remove(generation);
                    self.open.insert(*generation);
                    answers.push((*generation, Value::Null));
                }
            }
            Effect::Drop { generation } => self.forget(*generation),
            Effect::ToUpstream { generation, text } => {
                assert!(self.open.contains(generation), "{text} to {generation}, which is not open");
                let event: Value = serde_json::from_str(text).unwrap();
                let kind = event["type"].as_str().unwrap();
                assert!(
                    !["input_audio_buffer.commit", "input_audio_buffer.clear"].contains(&kind),
                    "{kind} while the server detects turns"
                );
                if kind == "response.create" && event["response"]["metadata"].is_null() {
                    let asked = self.asked.entry(*generation).or_default();
                    *asked += 1;
                    assert!(*asked == 1, "a response was asked for while one is awaited");
                    assert!(
                        !self.speaking.contains_key(generation),
                        "a response was asked for during another"
                    );
                }
                if kind == "session.update" && self.obliging {
                    answers.push((*generation, json!({"type":"session.updated","session":{}})));
                }
            }
            Effect::ToCaller(text) => {
                assert!(self.started, "{text} before `start`");
                let message: Value = serde_json::from_str(text).unwrap();
                assert_eq!(message["streamSid"], "MZ1");
                self.phone.to_phone.push_back((self.now.0 + self.phone.down, message));
            }
            Effect::RunTool(call) => {
                assert!(self.tools.insert(call.call_id.clone()), "{} runs twice at once", call.call_id);
            }
            Effect::Record(Entry::Tool { .. } | Entry::Turn(_) | Entry::Alive) => {}
            Effect::Finish(_) => self.ended = true,
        }
    }

    fn forget(&mut self, generation: u32) {
        self.open.remove(&generation);
        self.dialling.remove(&generation);
        self.asked.remove(&generation);
        self.speaking.remove(&generation);
    }

    /// Lets time pass: the telephone plays, marks travel, deadlines are kept.
    pub(super) fn run(&mut self, ms: u64) {
        for _ in 0..ms {
            self.now.0 += 1;
            self.phone.step(self.now.0);
            while self.phone.from_phone.front().is_some_and(|(at, _)| *at <= self.now.0) {
                let (_, name) = self.phone.from_phone.pop_front().unwrap();
                self.caller(&json!({"event":"mark","streamSid":"MZ1","mark":{"name":name}}).to_string());
            }
            self.tick_if_due();
        }
    }

    /// Lets much time pass in silence.
    pub(super) fn leap(&mut self, time: Duration) {
        assert!(self.phone.is_silent() || self.phone.mute);
        let until = self.now + time;
        self.arm();
        while let Some(due) = self.armed.filter(|due| *due <= until) {
            self.now = self.now.max(due);
            self.tick_if_due();
            self.arm();
        }
        self.now = until;
    }

    pub(super) fn tick_if_due(&mut self) {
        self.arm();
        if self.armed.is_some_and(|due| due <= self.now) {
            self.armed = None;
            self.act(Core::tick);
            let next = self.core.next_deadline(self.now);
            assert!(next.is_none_or(|next| next > self.now), "a deadline stays due at {:?}", self.now);
        }
    }

    fn arm(&mut self) {
        if self.armed.is_none_or(|due| due > self.now) {
            self.armed = self.core.next_deadline(self.now);
        }
    }

    pub(super) fn caller(&mut self, text: &str) {
        self.act(|core, now, out| core.caller_message(now, text, out));
    }

    pub(super) fn hang_up(&mut self) {
        self.caller(r#"{"event":"stop","streamSid":"MZ1","stop":{"accountSid":"AC1","callSid":"CA1"}}"#);
    }

    /// The upstream session that speaks, as far as the world can know: the one dialled last.
    pub(super) fn newest(&self) -> u32 {
        self.open.iter().copied().max().unwrap_or(0)
    }

    /// An event of the newest upstream session.
    pub(super) fn server(&mut self, event: Value) {
        self.server_on(self.newest(), event);
    }

    pub(super) fn server_on(&mut self, generation: u32, event: Value) {
        let summary = !event["response"]["metadata"]["purpose"].is_null();
        match event["type"].as_str() {
            Some("response.created") if !summary => {
                self.asked.remove(&generation);
                let id = event["response"]["id"].as_str().unwrap_or_default().to_owned();
                self.speaking.insert(generation, id);
            }
            Some("response.done")
                if self.speaking.get(&generation).map(String::as_str) == event["response"]["id"].as_str() =>
            {
                self.speaking.remove(&generation);
            }
            Some("error") if event["error"]["code"] == "conversation_already_has_active_response" => {
                self.asked.remove(&generation);
            }
            _ => {}
        }
        let text = event.to_string();
        self.act(|core, now, out| core.upstream_message(now, generation, &text, out));
    }

    pub(super) fn lose(&mut self, generation: u32) {
        self.forget(generation);
        self.act(|core, now, out| core.upstream_lost(now, generation, "closed with 1011: oops", out));
    }

    pub(super) fn response(&mut self, id: &str) {
        self.server(json!({"type":"response.created","response":{"id":id,"status":"in_progress"}}));
    }

    pub(super) fn done(&mut self, id: &str, status: &str) {
        self.server(json!({"type":"response.done","response":{"id":id,"status":status}}));
    }

    pub(super) fn audio(&mut self, response: &str, ms: u64) {
        self.server(json!({"type":"response.output_audio.delta","response_id":response,
            "item_id":format!("item-{response}"),"delta":ulaw(ms)}));
    }

    pub(super) fn words(&mut self, response: &str, words: &str) {
        self.server(json!({"type":"response.output_audio_transcript.delta","response_id":response,
            "item_id":format!("item-{response}"),"delta":words}));
    }

    pub(super) fn audio_done(&mut self, response: &str) {
        self.server(json!({"type":"response.output_audio.done","response_id":response,
            "item_id":format!("item-{response}")}));
    }

    /// A whole response, delivered in an instant.
    pub(super) fn agent_says(&mut self, id: &str, words: &str, ms: u64) {
        self.response(id);
        self.words(id, words);
        self.audio(id, ms);
        self.audio_done(id);
        self.done(id, "completed");
    }

    pub(super) fn caller_speaks(&mut self, item: &str) {
        self.server(json!({"type":"input_audio_buffer.speech_started","item_id":item,"audio_start_ms":0}));
    }

    pub(super) fn caller_stops(&mut self, item: &str) {
        self.server(json!({"type":"input_audio_buffer.speech_stopped","item_id":item,"audio_end_ms":0}));
        self.server(json!({"type":"input_audio_buffer.committed","item_id":item}));
    }

    pub(super) fn transcribed_on(&mut self, generation: u32, item: &str, words: &str) {
        self.server_on(
            generation,
            json!({"type":"conversation.item.input_audio_transcription.completed",
            "item_id":item,"content_index":0,"transcript":words}),
        );
    }

    /// The caller says something, from onset to transcript.
    pub(super) fn caller_says(&mut self, words: &str) -> String {
        self.counter += 1;
        let item = format!("user-{}", self.counter);
        self.caller_speaks(&item);
        self.run(500);
        self.caller_stops(&item);
        self.transcribed_on(self.newest(), &item, words);
        item
    }

    pub(super) fn call(&mut self, response: &str, call_id: &str, name: &str, arguments: &str) {
        self.server(json!({"type":"response.function_call_arguments.done","response_id":response,
            "item_id":"f","call_id":call_id,"name":name,"arguments":arguments}));
    }

    pub(super) fn tool_answers(&mut self, call_id: &str, output: Value, then: Option<Ending>) {
        self.tools.remove(call_id);
        self.act(|core, now, out| core.tool_finished(now, call_id, ToolAnswer { output, then }, out));
    }

    // What was decided.

    /// Events sent to upstream sessions: (generation, event), caller audio left out.
    pub(super) fn commands(&self) -> Vec<(u32, Value)> {
        let events = self.log.iter().filter_map(|(_, effect)| match effect {
            Effect::ToUpstream { generation, text } => {
                Some((*generation, serde_json::from_str::<Value>(text).unwrap()))
            }
            _ => None,
        });
        events.filter(|(_, event)| event["type"] != "input_audio_buffer.append").collect()
    }

    pub(super) fn commands_of(&self, kind: &str) -> Vec<Value> {
        self.commands().into_iter().map(|(_, event)| event).filter(|event| event["type"] == kind).collect()
    }

    /// Responses asked for, summaries left out.
    pub(super) fn requests(&self) -> usize {
        self.commands_of("response.create").iter().filter(|e| e["response"]["metadata"].is_null()).count()
    }

    /// Instructions of the last response asked for; empty when it had none.
    pub(super) fn last_request(&self) -> String {
        let all = self.commands_of("response.create");
        let last = all.iter().rfind(|e| e["response"]["metadata"].is_null());
        last.and_then(|e| e["response"]["instructions"].as_str()).unwrap_or_default().to_owned()
    }

    /// Outputs of functions sent upstream: (call id, output).
    pub(super) fn outputs(&self) -> Vec<(String, String)> {
        let items = self.commands_of("conversation.item.create");
        let outputs = items.iter().map(|e| &e["item"]).filter(|i| i["type"] == "function_call_output");
        outputs
            .map(|i| (i["call_id"].as_str().unwrap().to_owned(), i["output"].as_str().unwrap().to_owned()))
            .collect()
    }

    /// Conversation items given to one session, as `role: text` or `type: call id`.
    pub(super) fn told(&self, generation: u32) -> Vec<String> {
        let items = self
            .commands()
            .into_iter()
            .filter(|(g, e)| *g == generation && e["type"] == "conversation.item.create");
        items
            .map(|(_, e)| {
                let item = &e["item"];
                match item["type"].as_str().unwrap() {
                    "message" => format!(
                        "{}: {}",
                        item["role"].as_str().unwrap(),
                        item["content"][0]["text"].as_str().unwrap()
                    ),
                    other => format!("{other}: {}", item["call_id"].as_str().unwrap()),
                }
            })
            .collect()
    }

    /// Caller audio that one session was given, in milliseconds.
    pub(super) fn listened_ms(&self, generation: u32) -> u64 {
        self.log
            .iter()
            .filter_map(|(_, effect)| match effect {
                Effect::ToUpstream { generation: g, text } if *g == generation => {
                    let event: Value = serde_json::from_str(text).unwrap();
                    (event["type"] == "input_audio_buffer.append")
                        .then(|| super::super::audio_ms(event["audio"].as_str().unwrap()))
                }
                _ => None,
            })
            .sum()
    }

    /// Messages to the telephone of one kind.
    pub(super) fn to_caller(&self, kind: &str) -> usize {
        let start = format!(r#"{{"event":"{kind}""#);
        self.log
            .iter()
            .filter(|(_, e)| matches!(e, Effect::ToCaller(text) if text.starts_with(&start)))
            .count()
    }

    pub(super) fn dials(&self) -> Vec<u64> {
        self.log.iter().filter(|(_, e)| matches!(e, Effect::Dial { .. })).map(|(at, _)| at.0).collect()
    }

    pub(super) fn endings(&self) -> Vec<Ending> {
        self.log
            .iter()
            .filter_map(|(_, effect)| match effect {
                Effect::Finish(ending) => Some(*ending),
                _ => None,
            })
            .collect()
    }

    pub(super) fn turns(&self) -> Vec<&Turn> {
        self.log
            .iter()
            .filter_map(|(_, effect)| match effect {
                Effect::Record(Entry::Turn(turn)) => Some(turn),
                _ => None,
            })
            .collect()
    }

    /// The transcript as it would be read now: the last version of every turn, in order.
    pub(super) fn transcript(&self) -> Vec<String> {
        let mut latest = std::collections::BTreeMap::new();
        for turn in self.turns() {
            latest.insert(turn.ordinal, format!("{:?}: {}", turn.speaker, turn.text));
        }
        latest.into_values().collect()
    }
}
