//! Which channels follow the database, and how a change reaches them.

use std::collections::HashMap;
use std::sync::{Arc, PoisonError, RwLock};

use bytes::Bytes;

use crate::broadcast::PREFIX;
use crate::changes::{Change, SubscriptionId, SystemStatus};
use crate::protocol::{Head, Ref, Version, json_string};
use crate::socket::outgoing::Outgoing;

/// Most bindings of one channel.
pub(crate) const MOST_BINDINGS: usize = 1 << BINDING_BITS;
/// A subscription's id is the serial of its channel, and its place among the channel's bindings.
const BINDING_BITS: u32 = 7;
/// Most frames of one change that are kept while it is sent; with more different ones each is made anew.
const MOST_FRAMES: usize = 16;

/// The id of a channel's binding.
pub(crate) fn subscription(serial: u64, binding: usize) -> SubscriptionId {
    SubscriptionId((serial << BINDING_BITS) | (binding & (MOST_BINDINGS - 1)) as u64)
}

/// A channel with bindings to changes.
#[derive(Debug)]
pub(crate) struct Follower {
    pub(crate) outgoing: Arc<Outgoing>,
    pub(crate) version: Version,
    pub(crate) join_ref: Ref,
    /// Name on the wire.
    pub(crate) topic: Arc<str>,
    /// The client's ids of its bindings.
    pub(crate) bindings: Box<[u32]>,
}

/// Channels with bindings, by serial.
#[derive(Debug, Default)]
pub(crate) struct Followers {
    all: RwLock<HashMap<u64, Follower>>,
}

impl Followers {
    pub(crate) fn add(&self, serial: u64, follower: Follower) {
        self.all.write().unwrap_or_else(PoisonError::into_inner).insert(serial, follower);
    }

    pub(crate) fn remove(&self, serial: u64) {
        self.all.write().unwrap_or_else(PoisonError::into_inner).remove(&serial);
    }

    pub(crate) fn len(&self) -> usize {
        self.all.read().unwrap_or_else(PoisonError::into_inner).len()
    }

    /// Sends a change; each channel gets it once, with the ids of all its bindings that it matches.
    pub(crate) fn change(&self, receivers: &[SubscriptionId], change: &Change) {
        let mut sorted;
        let receivers = if receivers.is_sorted() {
            receivers
        } else {
            sorted = receivers.to_vec();
            sorted.sort_unstable();
            &sorted[..]
        };
        let all = self.all.read().unwrap_or_else(PoisonError::into_inner);
        let mut frames: Vec<(&Follower, Vec<u32>, Bytes)> = Vec::new();
        let mut ids = Vec::new();
        for of_channel in receivers.chunk_by(|one, other| serial(*one) == serial(*other)) {
            let Some(follower) = all.get(&serial(of_channel[0])) else { continue };
            ids.clear();
            ids.extend(of_channel.iter().filter_map(|id| follower.bindings.get(binding(*id)).copied()));
            ids.dedup();
            let known = frames.iter().find(|(other, of, _)| {
                other.version == follower.version && *of == ids && other.topic == follower.topic
            });
            if let Some((_, _, frame)) = known {
                follower.outgoing.push(frame.clone());
                continue;
            }
            let frame = encode(follower, &ids, change);
            if frames.len() < MOST_FRAMES {
                frames.push((follower, ids.clone(), frame.clone()));
            }
            follower.outgoing.push(frame);
        }
    }

    /// Tells the channels of subscriptions how these are doing.
    pub(crate) fn system(&self, receivers: &[SubscriptionId], status: SystemStatus, message: &str) {
        let mut serials: Vec<u64> = receivers.iter().copied().map(serial).collect();
        serials.sort_unstable();
        serials.dedup();
        let all = self.all.read().unwrap_or_else(PoisonError::into_inner);
        for follower in serials.iter().filter_map(|serial| all.get(serial)) {
            let head = Head { join_ref: &follower.join_ref, reference: &Ref::NONE, topic: &follower.topic };
            let payload = system_payload("postgres_changes", status, message, &follower.topic);
            follower.outgoing.push(follower.version.message(head, "system", payload.as_bytes()));
        }
    }
}

fn serial(id: SubscriptionId) -> u64 {
    id.0 >> BINDING_BITS
}

fn binding(id: SubscriptionId) -> usize {
    id.0 as usize & (MOST_BINDINGS - 1)
}

fn encode(follower: &Follower, ids: &[u32], change: &Change) -> Bytes {
    let mut payload = Vec::with_capacity(change.data.len() + 16 + 11 * ids.len());
    payload.extend_from_slice(br#"{"ids":"#);
    serde_json::to_writer(&mut payload, ids).expect("numbers are JSON, and memory takes them");
    payload.extend_from_slice(br#","data":"#);
    payload.extend_from_slice(&change.data);
    payload.push(b'}');
    follower.version.to_all(&follower.topic, "postgres_changes", &payload)
}

/// What a `system` message says. `topic` is the name on the wire.
pub(crate) fn system_payload(extension: &str, status: SystemStatus, message: &str, topic: &str) -> String {
    let status = match status {
        SystemStatus::Ok => "ok",
        SystemStatus::Error => "error",
    };
    let channel = topic.strip_prefix(PREFIX).unwrap_or(topic);
    format!(
        r#"{{"extension":"{extension}","status":"{status}","message":{},"channel":{}}}"#,
        json_string(message),
        json_string(channel)
    )
}
