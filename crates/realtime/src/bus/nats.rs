//! A bus over NATS: at most once, reconnecting without end.

use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use async_nats::{Client, ConnectOptions, Event, ServerAddr};
use bytes::{BufMut, Bytes, BytesMut};
use futures_util::StreamExt;
use tokio::sync::{mpsc, watch};
use tokio_util::sync::{CancellationToken, DropGuard};

use super::{Delivery, EventBus, Health, NodeId, Subscription};

/// Most messages that wait for one subscriber, and for the connection.
const MOST_WAITING: usize = 4_096;
/// Longest pause between two attempts to connect.
const LONGEST_PAUSE: Duration = Duration::from_secs(4);
/// How often the connection is proven; two unanswered proofs end it.
const PING: Duration = Duration::from_secs(5);

/// How to reach NATS.
#[derive(Debug, Clone)]
pub struct NatsOptions {
    /// `nats://[user:password@]host:port` or `tls://…`, several joined by commas.
    pub servers: String,
    /// Begins every subject, so that projects can share a server.
    pub prefix: String,
}

/// Why there is no bus.
#[derive(Debug, thiserror::Error)]
pub enum NatsError {
    /// An address that cannot be read.
    #[error("the address of NATS cannot be read: {0}; expected nats://host:port, several joined by commas")]
    Address(String),
    /// NATS refuses us.
    #[error("cannot set up the connection to NATS: {0}; check realtime.nats_url and its credentials")]
    Refused(String),
}

/// One node on NATS.
#[derive(Debug)]
pub struct Nats {
    node: NodeId,
    prefix: String,
    outgoing: mpsc::Sender<(String, Bytes)>,
    commands: mpsc::UnboundedSender<(String, mpsc::Sender<Delivery>)>,
    health: Arc<watch::Sender<Health>>,
    _running: DropGuard,
}

impl Nats {
    /// Begins to connect, and returns at once: a NATS that is away is waited for.
    ///
    /// # Errors
    /// An address that cannot be read.
    pub async fn connect(options: &NatsOptions) -> Result<Self, NatsError> {
        let servers = addresses(&options.servers)?;
        let health = Arc::new(watch::Sender::new(Health::CutOff));
        let client = client_options(&health)
            .connect(servers)
            .await
            .map_err(|error| NatsError::Refused(error.to_string()))?;
        let node = NodeId::random();
        let running = CancellationToken::new();
        let (outgoing, to_send) = mpsc::channel(MOST_WAITING);
        let (commands, to_subscribe) = mpsc::unbounded_channel();
        let worker = Worker { node, client, health: Arc::clone(&health), running: running.clone() };
        tokio::spawn(worker.run(to_send, to_subscribe));
        Ok(Self {
            node,
            prefix: options.prefix.clone(),
            outgoing,
            commands,
            health,
            _running: running.drop_guard(),
        })
    }
}

fn addresses(servers: &str) -> Result<Vec<ServerAddr>, NatsError> {
    servers
        .split(',')
        .map(|server| {
            server.trim().parse().map_err(|error: std::io::Error| NatsError::Address(error.to_string()))
        })
        .collect()
}

fn client_options(health: &Arc<watch::Sender<Health>>) -> ConnectOptions {
    let health = Arc::clone(health);
    let epoch = Arc::new(AtomicU64::new(0));
    ConnectOptions::new()
        .name("longhouse")
        .retry_on_initial_connect()
        .max_reconnects(None)
        .no_echo()
        .ping_interval(PING)
        .client_capacity(MOST_WAITING)
        .subscription_capacity(MOST_WAITING)
        .reconnect_delay_callback(|attempts| {
            // 0, 100, 200, 400 … ms, so that a restart of NATS is hardly noticed.
            if attempts <= 1 {
                Duration::ZERO
            } else {
                LONGEST_PAUSE.min(Duration::from_millis(50 << attempts.min(10)))
            }
        })
        .event_callback(move |event| {
            match event {
                Event::Connected => {
                    let epoch = epoch.fetch_add(1, Ordering::Relaxed) + 1;
                    tracing::info!(epoch, "connected to NATS");
                    metrics::gauge!("realtime_bus_connected").set(1.0);
                    health.send_replace(Health::Connected { epoch });
                }
                Event::Disconnected => {
                    tracing::warn!("cut off from NATS; other servers are not heard until it is back");
                    metrics::gauge!("realtime_bus_connected").set(0.0);
                    health.send_replace(Health::CutOff);
                }
                Event::SlowConsumer(_) => metrics::counter!("realtime_bus_dropped_total").increment(1),
                other => tracing::debug!(%other, "NATS"),
            }
            std::future::ready(())
        })
}

impl EventBus for Nats {
    fn node(&self) -> NodeId {
        self.node
    }

    fn publish(&self, subject: &str, payload: Bytes) {
        // While cut off, what the client would store up for later is stale by then: state is sent anew instead.
        let connected = matches!(*self.health.borrow(), Health::Connected { .. });
        if !connected || self.outgoing.try_send((format!("{}.{subject}", self.prefix), payload)).is_err() {
            metrics::counter!("realtime_bus_dropped_total").increment(1);
        }
    }

    fn subscribe(&self, subject: &str) -> Subscription {
        let (sender, receiver) = mpsc::channel(MOST_WAITING);
        // The worker ends with `self` only, so that it is there.
        let _ = self.commands.send((format!("{}.{subject}", self.prefix), sender));
        Subscription { receiver }
    }

    fn health(&self) -> watch::Receiver<Health> {
        self.health.subscribe()
    }
}

/// Keeps the order of subscriptions and publications.
struct Worker {
    node: NodeId,
    client: Client,
    health: Arc<watch::Sender<Health>>,
    running: CancellationToken,
}

impl fmt::Debug for Worker {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.debug_struct("Worker").field("node", &self.node).finish_non_exhaustive()
    }
}

impl Worker {
    async fn run(
        self,
        mut to_send: mpsc::Receiver<(String, Bytes)>,
        mut to_subscribe: mpsc::UnboundedReceiver<(String, mpsc::Sender<Delivery>)>,
    ) {
        loop {
            tokio::select! {
                biased;
                () = self.running.cancelled() => return,
                Some((subject, sender)) = to_subscribe.recv() => self.subscribe(subject, sender).await,
                Some((subject, payload)) = to_send.recv() => self.send(subject, payload).await,
                else => return,
            }
        }
    }

    async fn send(&self, subject: String, payload: Bytes) {
        let mut framed = BytesMut::with_capacity(payload.len() + 8);
        framed.put_u64(self.node.number());
        framed.put(payload);
        if let Err(error) = self.client.publish(subject, framed.freeze()).await {
            metrics::counter!("realtime_bus_dropped_total").increment(1);
            tracing::debug!(%error, "a message for other servers is lost");
        }
    }

    async fn subscribe(&self, subject: String, sender: mpsc::Sender<Delivery>) {
        // The library subscribes again by itself whenever it reconnects.
        let mut messages = match self.client.subscribe(subject).await {
            Ok(messages) => messages,
            Err(error) => {
                tracing::error!(%error, "cannot subscribe to other servers' messages; restart this server");
                self.health.send_replace(Health::CutOff);
                return;
            }
        };
        let (node, running) = (self.node, self.running.clone());
        tokio::spawn(async move {
            loop {
                let message = tokio::select! {
                    () = running.cancelled() => return,
                    () = sender.closed() => return,
                    message = messages.next() => message,
                };
                let Some(message) = message else { return };
                let mut payload = message.payload;
                if payload.len() < 8 {
                    continue;
                }
                let from = NodeId::from_number(bytes::Buf::get_u64(&mut payload));
                if from != node && sender.try_send(Delivery { from, payload }).is_err() {
                    metrics::counter!("realtime_bus_dropped_total").increment(1);
                }
            }
        });
    }
}
