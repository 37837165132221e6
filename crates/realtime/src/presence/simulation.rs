//! A day of several servers in virtual time: joins, leaves, crashes, restarts, losses and partitions.

use std::collections::{BTreeMap, BTreeSet};

use rand::rngs::StdRng;
use rand::{RngExt as _, SeedableRng};

use super::replica::{BEAT, DOWN, Effect, Message, Replica};
use super::{Diffs, Entry, Topic};
use crate::bus::NodeId;

const DAY: u64 = 24 * 60 * 60 * 1_000;

/// A client as `realtime-js` has it: it is told diffs and keeps a state. By `phx_ref`.
#[derive(Default)]
struct Client {
    state: BTreeSet<(String, String)>,
}

impl Client {
    fn told(&mut self, payload: &str) {
        let payload: serde_json::Value = serde_json::from_str(payload).unwrap();
        let refs = |part: &str| -> Vec<(String, String)> {
            let keys = payload[part].as_object().unwrap();
            keys.iter()
                .flat_map(|(key, presence)| {
                    let metas = presence["metas"].as_array().unwrap();
                    metas.iter().map(move |meta| (key.clone(), meta["phx_ref"].as_str().unwrap().to_owned()))
                })
                .collect()
        };
        self.state.extend(refs("joins"));
        for left in refs("leaves") {
            self.state.remove(&left);
        }
    }
}

struct Node {
    id: NodeId,
    replica: Replica,
    diffs: Diffs,
    /// One client that stays, on each channel.
    clients: BTreeMap<Topic, Client>,
    /// What it tracks, by serial: the truth.
    tracked: BTreeMap<u64, (Topic, String)>,
    side: u8,
}

struct World {
    random: StdRng,
    now: u64,
    nodes: Vec<Node>,
    /// (due, receiver, sender, message); in order for each pair.
    mail: Vec<(u64, NodeId, NodeId, Message)>,
    serial: u64,
    loss: f64,
}

impl World {
    fn new(seed: u64, nodes: usize) -> Self {
        let mut world = Self {
            random: StdRng::seed_from_u64(seed),
            now: 0,
            nodes: Vec::new(),
            mail: Vec::new(),
            serial: 0,
            loss: 0.0,
        };
        for _ in 0..nodes {
            world.start();
        }
        world
    }

    fn start(&mut self) {
        self.serial += 1;
        let id = NodeId::from_number(self.serial);
        let replica = Replica::new(id);
        self.nodes.push(Node {
            id,
            replica,
            diffs: Diffs::default(),
            clients: BTreeMap::new(),
            tracked: BTreeMap::new(),
            side: 0,
        });
        let last = self.nodes.len() - 1;
        let effects = self.nodes[last].replica.connected();
        self.apply(last, effects);
    }

    fn apply(&mut self, index: usize, effects: Vec<Effect>) {
        let (from, side) = (self.nodes[index].id, self.nodes[index].side);
        for effect in effects {
            match effect {
                Effect::Joined(topic, entry) => self.nodes[index].diffs.joined(topic, entry, self.now),
                Effect::Left(topic, entry) => self.nodes[index].diffs.left(topic, entry, self.now),
                Effect::Publish(message) => {
                    let message = Message::from_bus(&message.to_bus()).unwrap();
                    let receivers: Vec<NodeId> = self
                        .nodes
                        .iter()
                        .filter(|node| node.id != from && node.side == side)
                        .map(|node| node.id)
                        .collect();
                    for to in receivers {
                        if !self.random.random_bool(self.loss) {
                            self.mail.push((self.now + 5, to, from, message.clone()));
                        }
                    }
                }
            }
        }
    }

    fn deliver(&mut self) {
        let due: Vec<_> = self.mail.extract_if(.., |(due, ..)| *due <= self.now).collect();
        for (_, to, from, message) in due {
            if let Some(index) = self.nodes.iter().position(|node| node.id == to) {
                let effects = self.nodes[index].replica.receive(from, message, self.now);
                self.apply(index, effects);
            }
        }
    }

    fn step(&mut self, busy: bool) {
        self.now += 250;
        self.deliver();
        for index in 0..self.nodes.len() {
            let effects = self.nodes[index].replica.tick(self.now);
            self.apply(index, effects);
        }
        if busy {
            self.something_happens();
        }
        self.deliver();
        for node in &mut self.nodes {
            for (topic, payload) in node.diffs.due(self.now) {
                node.clients.entry(topic).or_default().told(&payload);
            }
        }
    }

    fn something_happens(&mut self) {
        let index = self.random.random_range(0..self.nodes.len());
        match self.random.random_range(0..1_000) {
            0..300 => {
                self.serial += 1;
                let topic = Topic {
                    private: self.random.random_bool(0.5),
                    name: format!("realtime:{}", self.random.random_range(0..4)).into(),
                };
                self.track(index, self.serial, topic);
            }
            300..400 => {
                let again = self.nodes[index]
                    .tracked
                    .iter()
                    .next()
                    .map(|(serial, (topic, _))| (*serial, topic.clone()));
                if let Some((serial, topic)) = again {
                    self.track(index, serial, topic);
                }
            }
            400..750 => {
                let serials: Vec<u64> = self.nodes[index].tracked.keys().copied().collect();
                if !serials.is_empty() {
                    let serial = serials[self.random.random_range(0..serials.len())];
                    self.nodes[index].tracked.remove(&serial);
                    let effects = self.nodes[index].replica.untrack(serial);
                    self.apply(index, effects);
                }
            }
            750..753 if self.nodes.len() > 2 => {
                // Crashes, and says nothing.
                self.nodes.remove(index);
            }
            753..756 if self.nodes.len() > 2 => {
                self.apply(index, vec![Effect::Publish(Message::Bye)]);
                self.nodes.remove(index);
            }
            756..762 if self.nodes.len() < 5 => self.start(),
            762..768 => self.partition(),
            768..778 => self.heal(),
            778..785 => self.loss = self.random.random_range(0.0..0.4),
            785..800 => self.loss = 0.0,
            _ => {}
        }
    }

    fn track(&mut self, index: usize, serial: u64, topic: Topic) {
        let node = &mut self.nodes[index];
        self.serial += 1;
        let reference = format!("F{}", self.serial);
        let key = format!("k{}", serial % 3);
        let previous = node.replica.tracked(&topic, serial).map(|entry| entry.reference.to_string());
        let entry = Entry::new(key.as_str().into(), reference.clone(), previous.as_deref(), "{}");
        node.tracked.insert(serial, (topic.clone(), reference));
        let effects = node.replica.track(serial, &topic, entry);
        self.apply(index, effects);
    }

    fn partition(&mut self) {
        for node in &mut self.nodes {
            node.side = self.random.random_range(0..2);
        }
    }

    fn heal(&mut self) {
        for index in 0..self.nodes.len() {
            self.nodes[index].side = 0;
        }
        for index in 0..self.nodes.len() {
            let effects = self.nodes[index].replica.connected();
            self.apply(index, effects);
        }
    }

    /// Quiet for as long as it takes at most.
    fn settle(&mut self) {
        self.loss = 0.0;
        self.heal();
        let until = self.now + DOWN + 2 * BEAT + 2_000;
        while self.now < until {
            self.step(false);
        }
    }

    fn check(&self) {
        let mut truth: BTreeMap<Topic, BTreeSet<String>> = BTreeMap::new();
        for (topic, reference) in self.nodes.iter().flat_map(|node| node.tracked.values()) {
            truth.entry(topic.clone()).or_default().insert(reference.clone());
        }
        let all = truth.values().map(BTreeSet::len).sum::<usize>();
        for node in &self.nodes {
            let (topics, entries, peers) = node.replica.size();
            assert_eq!((topics, entries, peers), (truth.len(), all, self.nodes.len() - 1), "leaked or lost");
            for (topic, references) in &truth {
                let seen: BTreeSet<String> =
                    node.replica.entries(topic).map(|entry| entry.reference.to_string()).collect();
                assert_eq!(&seen, references, "server {} at {}", node.id, self.now);
            }
            for (topic, client) in &node.clients {
                let told: BTreeSet<String> =
                    client.state.iter().map(|(_, reference)| reference.clone()).collect();
                assert_eq!(&told, truth.get(topic).unwrap_or(&BTreeSet::new()), "clients of {topic:?}");
            }
            assert_eq!(node.diffs.next(), None, "diffs of quiet channels are kept");
        }
    }
}

#[test]
fn a_day_of_crashes_and_partitions_converges() {
    let mut world = World::new(20_261_121, 3);
    while world.now < DAY {
        let hour = world.now + 60 * 60 * 1_000;
        while world.now < hour {
            world.step(true);
        }
        world.settle();
        world.check();
    }
    for index in 0..world.nodes.len() {
        for serial in std::mem::take(&mut world.nodes[index].tracked).into_keys() {
            let effects = world.nodes[index].replica.untrack(serial);
            world.apply(index, effects);
        }
    }
    world.settle();
    world.check();
    assert!(world.nodes.iter().all(|node| node.replica.size().0 == 0), "a channel is leaked");
}

proptest::proptest! {
    #![proptest_config(proptest::prelude::ProptestConfig::with_cases(24))]
    #[test]
    fn any_ten_minutes_converge(seed: u64, nodes in 2_usize..5) {
        let mut world = World::new(seed, nodes);
        while world.now < 600_000 {
            world.step(true);
        }
        world.settle();
        world.check();
    }
}

#[test]
fn a_large_state_goes_in_parts() {
    let mut owner = Replica::new(NodeId::from_number(1));
    let mut other = Replica::new(NodeId::from_number(2));
    let topic = Topic { private: false, name: "realtime:a".into() };
    let payload = format!(r#"{{"text":"{}"}}"#, "x".repeat(1_000));
    for serial in 0..500 {
        owner.track(serial, &topic, Entry::new("k".into(), format!("r{serial}"), None, &payload));
    }
    let asked = other.receive(NodeId::from_number(1), Message::Beat { number: 500 }, 0);
    assert_eq!(asked, [Effect::Publish(Message::Ask { whom: NodeId::from_number(1) })]);
    let told = owner.receive(NodeId::from_number(2), Message::Ask { whom: NodeId::from_number(1) }, 0);
    assert!(told.len() > 1);
    for effect in told {
        let Effect::Publish(message) = effect else { panic!("{effect:?}") };
        assert!(message.to_bus().len() < 512 * 1024, "NATS refuses more than 1 MB");
        other.receive(NodeId::from_number(1), message, 1);
    }
    assert_eq!(other.entries(&topic).count(), 500);
}
