//! The shared state: what every server tracks, as far as this one has heard.

use std::collections::btree_map::Entry as Slot;
use std::collections::{BTreeMap, HashMap, HashSet};

use super::{Entry, EntryId, Topic};
use crate::bus::NodeId;

/// How often a server says how far it is, in milliseconds.
pub(crate) const BEAT: u64 = 1_500;
/// Silence after which what a server tracks is gone.
pub(crate) const DOWN: u64 = 10_000;
/// Shortest time between two questions to the same server.
const PATIENCE: u64 = 1_000;
/// Most bytes of entries in one message; a larger state goes in parts.
const PART: usize = 200 * 1024;

/// One change of what a server tracks.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Delta {
    /// Tracks, or tracks something else under the same serial.
    Track { serial: u64, topic: Topic, entry: Entry },
    /// Tracks no longer.
    Untrack { serial: u64 },
}

/// What servers say to each other.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Message {
    /// The sender's next change; `number` counts them from 1.
    Delta { number: u64, delta: Delta },
    /// How many changes the sender has told so far.
    Beat { number: u64 },
    /// Asks everybody to say how far they are: the sender is new, or was cut off.
    Hello,
    /// Asks one server for its state.
    Ask { whom: NodeId },
    /// One part of the sender's state as of its change `number`.
    State { number: u64, part: u32, parts: u32, entries: Vec<(u64, Topic, Entry)> },
    /// The sender goes, and takes along all that it tracks.
    Bye,
}

/// What the surroundings are to do.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Effect {
    /// Tell the other servers.
    Publish(Message),
    /// Somebody appeared on a channel.
    Joined(Topic, Entry),
    /// Somebody went.
    Left(Topic, Entry),
}

/// What another server tracks.
#[derive(Debug, Default)]
struct Peer {
    /// Its last change that is in here.
    number: u64,
    heard: u64,
    asked: Option<u64>,
    entries: HashMap<u64, Topic>,
    /// Parts of a state that has not come whole yet.
    parts: Option<Parts>,
}

#[derive(Debug)]
struct Parts {
    number: u64,
    missing: HashSet<u32>,
    entries: Vec<(u64, Topic, Entry)>,
}

/// All that is known about who is on which channel.
#[derive(Debug)]
pub(crate) struct Replica {
    node: NodeId,
    number: u64,
    beaten: u64,
    own: HashMap<u64, Topic>,
    peers: HashMap<NodeId, Peer>,
    topics: HashMap<Topic, BTreeMap<EntryId, Entry>>,
}

impl Replica {
    pub(crate) fn new(node: NodeId) -> Self {
        Self {
            node,
            number: 0,
            beaten: 0,
            own: HashMap::new(),
            peers: HashMap::new(),
            topics: HashMap::new(),
        }
    }

    /// Everybody on a channel.
    pub(crate) fn entries(&self, topic: &Topic) -> impl Iterator<Item = &Entry> {
        self.topics.get(topic).into_iter().flat_map(BTreeMap::values)
    }

    /// What this server's channel `serial` tracks.
    pub(crate) fn tracked(&self, topic: &Topic, serial: u64) -> Option<&Entry> {
        self.topics.get(topic)?.get(&EntryId { node: self.node, serial })
    }

    /// (channels with somebody on them, entries of all servers, other servers)
    pub(crate) fn size(&self) -> (usize, usize, usize) {
        let entries = self.own.len() + self.peers.values().map(|peer| peer.entries.len()).sum::<usize>();
        (self.topics.len(), entries, self.peers.len())
    }

    /// This server's channel `serial` tracks something, in place of what it tracked before.
    pub(crate) fn track(&mut self, serial: u64, topic: &Topic, entry: Entry) -> Vec<Effect> {
        let mut effects = Vec::new();
        if self.own.get(&serial).is_some_and(|before| before != topic) {
            effects = self.untrack(serial);
        }
        self.own.insert(serial, topic.clone());
        self.put(EntryId { node: self.node, serial }, topic, entry.clone(), &mut effects);
        let delta = Delta::Track { serial, topic: topic.clone(), entry };
        effects.push(self.tell(delta));
        effects
    }

    /// This server's channel `serial` tracks nothing any more.
    pub(crate) fn untrack(&mut self, serial: u64) -> Vec<Effect> {
        let mut effects = Vec::new();
        let Some(topic) = self.own.remove(&serial) else { return effects };
        self.take(EntryId { node: self.node, serial }, &topic, &mut effects);
        effects.push(self.tell(Delta::Untrack { serial }));
        effects
    }

    fn tell(&mut self, delta: Delta) -> Effect {
        self.number += 1;
        Effect::Publish(Message::Delta { number: self.number, delta })
    }

    /// Messages flow, for the first time or again.
    pub(crate) fn connected(&mut self) -> Vec<Effect> {
        vec![Effect::Publish(Message::Hello), Effect::Publish(Message::Beat { number: self.number })]
    }

    /// Time passes. To be called at least every [`BEAT`].
    pub(crate) fn tick(&mut self, now: u64) -> Vec<Effect> {
        let mut effects = Vec::new();
        if now.saturating_sub(self.beaten) >= BEAT {
            self.beaten = now;
            effects.push(Effect::Publish(Message::Beat { number: self.number }));
        }
        let silent: Vec<NodeId> = self
            .peers
            .iter()
            .filter(|(_, peer)| now.saturating_sub(peer.heard) >= DOWN)
            .map(|(node, _)| *node)
            .collect();
        for node in silent {
            self.forget(node, &mut effects);
        }
        effects
    }

    /// Another server says something.
    pub(crate) fn receive(&mut self, from: NodeId, message: Message, now: u64) -> Vec<Effect> {
        let mut effects = Vec::new();
        if from == self.node {
            return effects;
        }
        if message == Message::Bye {
            self.forget(from, &mut effects);
            return effects;
        }
        self.peers.entry(from).or_default().heard = now;
        match message {
            Message::Delta { number, delta } => self.change(from, number, delta, now, &mut effects),
            Message::Beat { number } => self.ask_if_behind(from, number, now, &mut effects),
            Message::Hello => effects.push(Effect::Publish(Message::Beat { number: self.number })),
            Message::Ask { whom } => {
                if whom == self.node {
                    self.tell_all(&mut effects);
                }
            }
            Message::State { number, part, parts, entries } => {
                self.gather(from, number, (part, parts), entries, &mut effects);
            }
            Message::Bye => {}
        }
        effects
    }

    fn change(&mut self, from: NodeId, number: u64, delta: Delta, now: u64, effects: &mut Vec<Effect>) {
        let peer = self.peers.entry(from).or_default();
        if number != peer.number + 1 {
            self.ask_if_behind(from, number, now, effects);
            return;
        }
        peer.number = number;
        match delta {
            Delta::Track { serial, topic, entry } => {
                let id = EntryId { node: from, serial };
                if let Some(before) = peer.entries.insert(serial, topic.clone())
                    && before != topic
                {
                    self.take(id, &before, effects);
                }
                self.put(id, &topic, entry, effects);
            }
            Delta::Untrack { serial } => {
                if let Some(topic) = peer.entries.remove(&serial) {
                    self.take(EntryId { node: from, serial }, &topic, effects);
                }
            }
        }
    }

    fn ask_if_behind(&mut self, from: NodeId, number: u64, now: u64, effects: &mut Vec<Effect>) {
        let peer = self.peers.entry(from).or_default();
        let asked_lately = peer.asked.is_some_and(|asked| now.saturating_sub(asked) < PATIENCE);
        if number > peer.number && !asked_lately {
            peer.asked = Some(now);
            effects.push(Effect::Publish(Message::Ask { whom: from }));
        }
    }

    /// The whole state, in parts of bounded size.
    fn tell_all(&self, effects: &mut Vec<Effect>) {
        let mut parts = vec![Vec::new()];
        let mut size = 0;
        for (serial, topic) in &self.own {
            let Some(entry) = self.tracked(topic, *serial) else { continue };
            size += entry.meta.len() + entry.key.len() + topic.name.len() + 64;
            if size > PART {
                parts.push(Vec::new());
                size = 0;
            }
            if let Some(part) = parts.last_mut() {
                part.push((*serial, topic.clone(), entry.clone()));
            }
        }
        let count = parts.len() as u32;
        effects.extend(parts.into_iter().zip(0..).map(|(entries, part)| {
            Effect::Publish(Message::State { number: self.number, part, parts: count, entries })
        }));
    }

    /// One part of another server's state; the last one replaces what was known of it.
    fn gather(
        &mut self,
        from: NodeId,
        number: u64,
        (part, parts): (u32, u32),
        entries: Vec<(u64, Topic, Entry)>,
        effects: &mut Vec<Effect>,
    ) {
        let peer = self.peers.entry(from).or_default();
        if number <= peer.number || part >= parts {
            return;
        }
        let gathered = match peer.parts.take() {
            Some(gathered) if gathered.number == number => gathered,
            _ => Parts { number, missing: (0..parts).collect(), entries: Vec::new() },
        };
        let gathered = peer.parts.insert(gathered);
        if gathered.missing.remove(&part) {
            gathered.entries.extend(entries);
        }
        if gathered.missing.is_empty()
            && let Some(whole) = peer.parts.take()
        {
            self.replace(from, whole, effects);
        }
    }

    fn replace(&mut self, from: NodeId, whole: Parts, effects: &mut Vec<Effect>) {
        let peer = self.peers.entry(from).or_default();
        peer.number = whole.number;
        peer.asked = None;
        let topics = whole.entries.iter().map(|(serial, topic, _)| (*serial, topic.clone())).collect();
        let before = std::mem::replace(&mut peer.entries, topics);
        let kept: HashMap<u64, &Topic> =
            whole.entries.iter().map(|(serial, topic, _)| (*serial, topic)).collect();
        for (serial, topic) in before {
            if kept.get(&serial) != Some(&&topic) {
                self.take(EntryId { node: from, serial }, &topic, effects);
            }
        }
        for (serial, topic, entry) in whole.entries {
            self.put(EntryId { node: from, serial }, &topic, entry, effects);
        }
    }

    fn forget(&mut self, node: NodeId, effects: &mut Vec<Effect>) {
        let Some(peer) = self.peers.remove(&node) else { return };
        for (serial, topic) in peer.entries {
            self.take(EntryId { node, serial }, &topic, effects);
        }
    }

    fn put(&mut self, id: EntryId, topic: &Topic, entry: Entry, effects: &mut Vec<Effect>) {
        match self.topics.entry(topic.clone()).or_default().entry(id) {
            Slot::Occupied(slot) if *slot.get() == entry => return,
            Slot::Occupied(mut slot) => {
                let before = slot.insert(entry.clone());
                effects.push(Effect::Left(topic.clone(), before));
            }
            Slot::Vacant(slot) => {
                slot.insert(entry.clone());
            }
        }
        effects.push(Effect::Joined(topic.clone(), entry));
    }

    fn take(&mut self, id: EntryId, topic: &Topic, effects: &mut Vec<Effect>) {
        let Some(entries) = self.topics.get_mut(topic) else { return };
        if let Some(entry) = entries.remove(&id) {
            effects.push(Effect::Left(topic.clone(), entry));
        }
        if entries.is_empty() {
            self.topics.remove(topic);
        }
    }
}
