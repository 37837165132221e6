//! What the hub does by itself: listens to other servers, tells them that it lives, and sends diffs that are due.

use std::sync::Arc;
use std::time::Duration;

use longhouse_server::{Drain, Phase};
use tokio::sync::watch;

use super::{BROADCAST, Hub, PRESENCE, lock};
use crate::broadcast::Broadcast;
use crate::bus::{Health, Subscription};
use crate::presence::{Message, Replica};

/// How often others hear that this server lives, unless something else is due.
const BEAT: Duration = Duration::from_millis(crate::presence::BEAT);
/// Over how much of a drain's time sockets are closed at most: their clients go elsewhere, not all at once.
const CLOSING: Duration = Duration::from_secs(5);

impl Hub {
    /// Runs until the process stops. What is subscribed here is heard from the first call on.
    pub(crate) async fn run(self: Arc<Self>, drain: Drain) {
        let broadcasts = self.bus.subscribe(BROADCAST);
        let presence = self.bus.subscribe(PRESENCE);
        let health = self.bus.health();
        tokio::select! {
            () = self.hear_broadcasts(broadcasts) => {}
            () = self.keep_presence(presence, health) => {}
            () = drain.stopping() => {}
            () = self.close_when_draining(drain.subscribe()) => {}
        }
        self.bus.publish(PRESENCE, Message::Bye.to_bus());
    }

    async fn hear_broadcasts(&self, mut broadcasts: Subscription) {
        while let Some(delivery) = broadcasts.next().await {
            metrics::counter!("realtime_bus_messages_total", "subject" => BROADCAST).increment(1);
            match Broadcast::from_bus(delivery.payload) {
                Some(broadcast) => self.broadcast_here(&broadcast, None),
                None => {
                    tracing::warn!(from = %delivery.from, "a broadcast of another server cannot be read; do all run the same version?");
                }
            }
        }
    }

    async fn keep_presence(&self, mut messages: Subscription, mut health: watch::Receiver<Health>) {
        let mut beat = tokio::time::interval(BEAT);
        health.mark_changed();
        loop {
            let due = lock(&self.presence).diffs.next();
            let pause = Duration::from_millis(due.map_or(0, |due| due.saturating_sub(self.now())));
            tokio::select! {
                delivery = messages.next() => {
                    let Some(delivery) = delivery else { return };
                    metrics::counter!("realtime_bus_messages_total", "subject" => PRESENCE).increment(1);
                    let Some(message) = Message::from_bus(&delivery.payload) else {
                        tracing::warn!(from = %delivery.from, "presence of another server cannot be read; do all run the same version?");
                        continue;
                    };
                    let now = self.now();
                    self.with_replica(|replica| replica.receive(delivery.from, message, now));
                }
                changed = health.changed() => {
                    if changed.is_err() {
                        return;
                    }
                    let connected = matches!(*health.borrow_and_update(), Health::Connected { .. });
                    metrics::gauge!("realtime_bus_connected").set(f64::from(u8::from(connected)));
                    if connected {
                        self.with_replica(Replica::connected);
                    }
                }
                _ = beat.tick() => {
                    let now = self.now();
                    self.with_replica(|replica| replica.tick(now));
                    self.measure();
                }
                () = tokio::time::sleep(pause), if due.is_some() => {
                    let now = self.now();
                    self.send_diffs(&mut lock(&self.presence), now);
                }
                () = self.diffs_wait.notified(), if due.is_none() => {}
            }
        }
    }

    fn with_replica(&self, act: impl FnOnce(&mut Replica) -> Vec<crate::presence::Effect>) {
        let mut presence = lock(&self.presence);
        let effects = act(&mut presence.replica);
        self.apply(&mut presence, effects);
    }

    fn measure(&self) {
        let (topics, entries, peers) = lock(&self.presence).replica.size();
        let (rooms, members) = self.rooms.size();
        metrics::gauge!("realtime_presence_channels").set(topics as f64);
        metrics::gauge!("realtime_presence_entries").set(entries as f64);
        metrics::gauge!("realtime_servers").set((peers + 1) as f64);
        metrics::gauge!("realtime_channels").set(rooms as f64);
        metrics::gauge!("realtime_channel_members").set(members as f64);
        metrics::gauge!("realtime_followers").set(self.followers.len() as f64);
    }

    /// Asks every socket to go elsewhere, in a random order over some seconds. Never returns: the drain waits for them.
    async fn close_when_draining(&self, mut phase: watch::Receiver<Phase>) {
        let draining = phase.wait_for(|phase| *phase != Phase::Running).await.map(|phase| *phase);
        if let Ok(Phase::Draining { deadline }) = draining {
            let left = deadline.saturating_duration_since(tokio::time::Instant::now());
            let sockets: Vec<_> = lock(&self.sockets).values().cloned().collect();
            let steps = 50.min(sockets.len()).max(1);
            let pause = CLOSING.min(left / 2) / steps as u32;
            for some in sockets.chunks(sockets.len().div_ceil(steps).max(1)) {
                for outgoing in some {
                    outgoing.close(crate::socket::outgoing::Close::Restart);
                }
                tokio::time::sleep(pause).await;
            }
            self.close_all();
        }
        std::future::pending::<()>().await;
    }
}
