//! The middle of the service: rooms, presence and followers of this server, joined with other servers by the bus.

pub(crate) mod followers;
pub(crate) mod rooms;
mod running;

use std::collections::HashMap;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};
use std::time::Instant;

use longhouse_database::Database;
use tokio::sync::Notify;

use crate::broadcast::Broadcast;
use crate::bus::EventBus;
use crate::changes::{Change, DatabaseBroadcast, Sink, Source, SubscriptionId, SystemStatus};
use crate::identity::Verify;
use crate::limits::{Limits, Window};
use crate::presence::{Diffs, Effect, Entry, Replica, Topic, grouped};
use crate::socket::outgoing::{Close, Outgoing};
use followers::Followers;
use rooms::Rooms;

/// Where broadcasts of other servers come from.
const BROADCAST: &str = "broadcast";
/// Where presence of other servers comes from.
const PRESENCE: &str = "presence";
/// One socket of this many has its lag measured.
const MEASURED: u64 = 16;

#[derive(Debug)]
struct Presence {
    replica: Replica,
    diffs: Diffs,
    events: Window,
}

/// The shared state of the service on this server.
pub(crate) struct Hub {
    pub(crate) limits: Limits,
    pub(crate) database: Database,
    pub(crate) verify: Verify,
    pub(crate) rooms: Rooms,
    pub(crate) followers: Followers,
    bus: Arc<dyn EventBus>,
    source: OnceLock<Arc<dyn Source>>,
    presence: Mutex<Presence>,
    /// Wakes the task that sends diffs which are due later.
    diffs_wait: Notify,
    joins: Mutex<Window>,
    sockets: Mutex<HashMap<u64, Arc<Outgoing>>>,
    connections: AtomicUsize,
    serial: AtomicU64,
    started: Instant,
}

impl std::fmt::Debug for Hub {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter.debug_struct("Hub").field("bus", &self.bus).finish_non_exhaustive()
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Hub {
    pub(crate) fn new(limits: Limits, database: Database, verify: Verify, bus: Arc<dyn EventBus>) -> Self {
        let presence = Presence {
            replica: Replica::new(bus.node()),
            diffs: Diffs::default(),
            events: Window::default(),
        };
        Self {
            limits,
            database,
            verify,
            rooms: Rooms::default(),
            followers: Followers::default(),
            bus,
            source: OnceLock::new(),
            presence: Mutex::new(presence),
            diffs_wait: Notify::new(),
            joins: Mutex::default(),
            sockets: Mutex::default(),
            connections: AtomicUsize::new(0),
            serial: AtomicU64::new(1),
            started: Instant::now(),
        }
    }

    /// Where changes of the database come from. Set once.
    pub(crate) fn set_source(&self, source: Arc<dyn Source>) {
        if self.source.set(source).is_err() {
            tracing::error!("the source of changes was set twice; the first one stays");
        }
    }

    pub(crate) fn source(&self) -> Option<&Arc<dyn Source>> {
        self.source.get()
    }

    /// Milliseconds since the start.
    pub(crate) fn now(&self) -> u64 {
        self.started.elapsed().as_millis() as u64
    }

    /// A number that nothing else of this process has.
    pub(crate) fn serial(&self) -> u64 {
        self.serial.fetch_add(1, Ordering::Relaxed)
    }

    /// Whether another join may happen in this second.
    pub(crate) fn may_join(&self) -> bool {
        lock(&self.joins).take(self.now(), 1_000, self.limits.joins_per_second)
    }

    /// A new socket; `None` where there are too many.
    pub(crate) fn connect(self: &Arc<Self>) -> Option<Connection> {
        let most = self.limits.connections;
        let taken = self
            .connections
            .fetch_update(Ordering::Relaxed, Ordering::Relaxed, |count| (count < most).then_some(count + 1));
        taken.ok()?;
        let serial = self.serial();
        let outgoing = Outgoing::new(self.limits.outgoing, serial.is_multiple_of(MEASURED));
        lock(&self.sockets).insert(serial, Arc::clone(&outgoing));
        metrics::gauge!("realtime_connections").increment(1.0);
        Some(Connection { hub: Arc::clone(self), serial, outgoing })
    }

    /// Closes every socket, since this server stops.
    pub(crate) fn close_all(&self) {
        for outgoing in lock(&self.sockets).values() {
            outgoing.close(Close::Restart);
        }
    }

    /// (sockets, rooms, members, followers)
    pub(crate) fn size(&self) -> (usize, usize, usize, usize) {
        let (rooms, members) = self.rooms.size();
        (lock(&self.sockets).len(), rooms, members, self.followers.len())
    }

    /// Sends a message to a channel, on all servers. `except`: the channel of a socket here that does not want it.
    pub(crate) fn broadcast(&self, broadcast: &Broadcast, except: Option<u64>) {
        if !self.bus.is_alone() {
            self.bus.publish(BROADCAST, broadcast.to_bus());
        }
        self.broadcast_here(broadcast, except);
    }

    fn broadcast_here(&self, broadcast: &Broadcast, except: Option<u64>) {
        if let Some(room) = self.rooms.get(broadcast.private, &broadcast.topic) {
            room.broadcast(broadcast, except);
        }
    }

    /// Everybody on a channel, as `presence_state` has it.
    pub(crate) fn presence_state(&self, topic: &Topic) -> String {
        grouped(lock(&self.presence).replica.entries(topic))
    }

    /// Whether another presence event may happen in this second.
    pub(crate) fn may_change_presence(&self) -> bool {
        let now = self.now();
        lock(&self.presence).events.take(now, 1_000, self.limits.presence_per_second)
    }

    /// The channel `serial` tracks `payload`, a JSON object.
    pub(crate) fn track(&self, serial: u64, topic: &Topic, key: &Arc<str>, payload: &str) {
        let reference = format!("F{:x}{:x}", self.bus.node().number() & 0xffff_ffff, self.serial());
        let mut presence = lock(&self.presence);
        let previous = presence.replica.tracked(topic, serial).map(|entry| Arc::clone(&entry.reference));
        let entry = Entry::new(Arc::clone(key), reference, previous.as_deref(), payload);
        let effects = presence.replica.track(serial, topic, entry);
        self.apply(&mut presence, effects);
    }

    /// The channel `serial` tracks nothing any more.
    pub(crate) fn untrack(&self, serial: u64) {
        let mut presence = lock(&self.presence);
        let effects = presence.replica.untrack(serial);
        self.apply(&mut presence, effects);
    }

    /// Diffs leave while the lock is held, so that they leave in order; nothing here waits.
    fn apply(&self, presence: &mut Presence, effects: Vec<Effect>) {
        let now = self.now();
        for effect in effects {
            match effect {
                Effect::Publish(message) => {
                    if !self.bus.is_alone() {
                        self.bus.publish(PRESENCE, message.to_bus());
                    }
                }
                Effect::Joined(topic, entry) => presence.diffs.joined(topic, entry, now),
                Effect::Left(topic, entry) => presence.diffs.left(topic, entry, now),
            }
        }
        self.send_diffs(presence, now);
    }

    fn send_diffs(&self, presence: &mut Presence, now: u64) {
        for (topic, payload) in presence.diffs.due(now) {
            if let Some(room) = self.rooms.get(topic.private, &topic.name) {
                room.presence_diff(&payload);
            }
        }
        if presence.diffs.next().is_some() {
            self.diffs_wait.notify_one();
        }
    }
}

impl Sink for Hub {
    fn change(&self, receivers: &[SubscriptionId], change: &Arc<Change>) {
        self.followers.change(receivers, change);
    }

    fn database_broadcast(&self, message: DatabaseBroadcast) {
        self.broadcast(&message.into(), None);
    }

    fn system(&self, receivers: &[SubscriptionId], status: SystemStatus, message: &str) {
        self.followers.system(receivers, status, message);
    }
}

/// A socket's place among all. Dropped, it is free again.
#[derive(Debug)]
pub(crate) struct Connection {
    hub: Arc<Hub>,
    serial: u64,
    pub(crate) outgoing: Arc<Outgoing>,
}

impl Connection {
    pub(crate) fn hub(&self) -> &Arc<Hub> {
        &self.hub
    }
}

impl Drop for Connection {
    fn drop(&mut self) {
        lock(&self.hub.sockets).remove(&self.serial);
        self.hub.connections.fetch_sub(1, Ordering::Relaxed);
        metrics::gauge!("realtime_connections").decrement(1.0);
    }
}
