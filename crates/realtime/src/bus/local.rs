//! A bus within one process: nothing leaves it. Several nodes on one [`Local`] are several servers to each other.

use std::collections::HashMap;
use std::fmt;
use std::sync::{Arc, Mutex, PoisonError};

use bytes::Bytes;
use tokio::sync::{mpsc, watch};

use super::{Delivery, EventBus, Health, NodeId, Subscription};

/// Most messages that wait for one subscriber.
const MOST_WAITING: usize = 4_096;

type Subjects = HashMap<String, Vec<(NodeId, mpsc::Sender<Delivery>)>>;

/// Joins the nodes of one process.
#[derive(Clone, Default)]
pub struct Local {
    subjects: Arc<Mutex<Subjects>>,
}

impl fmt::Debug for Local {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.debug_struct("Local").finish_non_exhaustive()
    }
}

impl Local {
    /// A node of its own on this bus.
    pub fn join(&self) -> LocalBus {
        LocalBus {
            node: NodeId::random(),
            local: self.clone(),
            health: watch::Sender::new(Health::Connected { epoch: 1 }),
        }
    }
}

/// One node of a [`Local`].
#[derive(Debug)]
pub struct LocalBus {
    node: NodeId,
    local: Local,
    health: watch::Sender<Health>,
}

impl EventBus for LocalBus {
    fn node(&self) -> NodeId {
        self.node
    }

    /// Every node, and whoever may still make one, holds the subjects.
    fn is_alone(&self) -> bool {
        Arc::strong_count(&self.local.subjects) == 1
    }

    fn publish(&self, subject: &str, payload: Bytes) {
        let mut subjects = self.local.subjects.lock().unwrap_or_else(PoisonError::into_inner);
        let Some(subscribers) = subjects.get_mut(subject) else { return };
        subscribers.retain(|(_, sender)| !sender.is_closed());
        for (node, sender) in subscribers.iter() {
            let delivery = Delivery { from: self.node, payload: payload.clone() };
            if *node != self.node && sender.try_send(delivery).is_err() {
                metrics::counter!("realtime_bus_dropped_total").increment(1);
            }
        }
    }

    fn subscribe(&self, subject: &str) -> Subscription {
        let (sender, receiver) = mpsc::channel(MOST_WAITING);
        let mut subjects = self.local.subjects.lock().unwrap_or_else(PoisonError::into_inner);
        subjects.entry(subject.to_owned()).or_default().push((self.node, sender));
        Subscription { receiver }
    }

    fn health(&self) -> watch::Receiver<Health> {
        self.health.subscribe()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn who_is_alone_knows() {
        let bus = Local::default().join();
        assert!(bus.is_alone());
        let local = Local::default();
        assert!(!local.join().is_alone(), "another may join");
    }

    #[tokio::test]
    async fn others_hear_and_the_publisher_does_not() {
        let local = Local::default();
        let (one, other) = (local.join(), local.join());
        let (mut at_one, mut at_other) = (one.subscribe("a"), other.subscribe("a"));
        one.publish("b", Bytes::from_static(b"elsewhere"));
        one.publish("a", Bytes::from_static(b"first"));
        other.publish("a", Bytes::from_static(b"second"));
        let heard = at_other.next().await.unwrap();
        assert_eq!((heard.from, &heard.payload[..]), (one.node(), &b"first"[..]));
        assert_eq!(&at_one.next().await.unwrap().payload[..], b"second");
    }
}
