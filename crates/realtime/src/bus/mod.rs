//! How servers of one project tell each other: a bus that loses messages rather than making anyone wait.
//!
//! A node never hears itself. What may be lost must heal: whoever keeps state over the bus watches
//! [`EventBus::health`] and sends its state anew after [`Health::CutOff`].

mod local;
mod nats;

use std::fmt;

use bytes::Bytes;
use tokio::sync::{mpsc, watch};
use uuid::Uuid;

pub use local::{Local, LocalBus};
pub use nats::{Nats, NatsError, NatsOptions};

/// One run of one server. A restarted server is another node.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct NodeId(u64);

impl NodeId {
    /// A new node.
    pub fn random() -> Self {
        Self(Uuid::new_v4().as_u64_pair().0)
    }

    /// The node as a number, for the wire.
    pub const fn number(self) -> u64 {
        self.0
    }

    /// The node with this number.
    pub const fn from_number(number: u64) -> Self {
        Self(number)
    }
}

impl fmt::Display for NodeId {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "{:016x}", self.0)
    }
}

/// A message of another node.
#[derive(Debug, Clone)]
pub struct Delivery {
    /// Who published it.
    pub from: NodeId,
    /// What was published.
    pub payload: Bytes,
}

/// Whether other nodes can be reached.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Health {
    /// Messages flow. The number grows with each reconnection: state that was missed must be asked for anew.
    Connected {
        /// How often this node has connected.
        epoch: u64,
    },
    /// Nothing goes out or comes in; the bus tries to connect again without end.
    CutOff,
}

/// Messages on one subject. Bounded: what does not fit is dropped and counted in `realtime_bus_dropped_total`.
#[derive(Debug)]
pub struct Subscription {
    receiver: mpsc::Receiver<Delivery>,
}

impl Subscription {
    /// The next message; `None` when the bus has ended.
    pub async fn next(&mut self) -> Option<Delivery> {
        self.receiver.recv().await
    }
}

/// Carries messages between the servers of one project.
pub trait EventBus: fmt::Debug + Send + Sync + 'static {
    /// This node.
    fn node(&self) -> NodeId;

    /// Whether there is certainly nobody else, so that nothing needs to be written for others.
    fn is_alone(&self) -> bool {
        false
    }

    /// Sends to every other node that has subscribed. Never waits: where the way out is full or cut, the message is
    /// dropped and counted in `realtime_bus_dropped_total`.
    fn publish(&self, subject: &str, payload: Bytes);

    /// What other nodes publish on `subject` (letters, digits, `.`), from now on until the subscription is dropped.
    /// Takes effect before anything that this node publishes later.
    fn subscribe(&self, subject: &str) -> Subscription;

    /// Whether other nodes can be reached, now and whenever that changes.
    fn health(&self) -> watch::Receiver<Health>;
}
