//! A channel's subscriptions to changes: made after the join is answered, tried again while the database is away.

use std::sync::Arc;
use std::time::Duration;

use longhouse_database::Claims;
use rand::RngExt as _;
use tokio::sync::watch;
use tokio_util::sync::{CancellationToken, DropGuard};

use super::config::{Binding, Join};
use super::{Channel, SharedClaims, subscription_ids};
use crate::broadcast::PREFIX;
use crate::changes::{Source, SubscribeError, SubscriptionId, SystemStatus};
use crate::hub::followers::system_payload;
use crate::protocol::{Head, Ref, Version};
use crate::socket::outgoing::Outgoing;

/// Least and most pause before another attempt, in milliseconds.
const PAUSE: std::ops::Range<u64> = 5_000..10_000;
/// How long a client waits for the database's broadcasts to flow.
const READY: Duration = Duration::from_secs(30);
/// Pause before they are asked for again.
const READY_PAUSE: Duration = Duration::from_millis(500);

/// The subscriptions of one channel. Dropped, they end.
#[derive(Debug)]
pub(super) struct Following {
    claims: SharedClaims,
    _ends: DropGuard,
}

impl Following {
    pub(super) fn start(channel: &Channel, join: Join) -> Self {
        let (claims, renewed) = watch::channel(Arc::clone(&channel.identity.claims));
        let ends = CancellationToken::new();
        let task = Task {
            source: channel.hub.source().cloned(),
            ids: subscription_ids(channel.serial, join.bindings.len()),
            bindings: join.bindings,
            replication_ready: join.replication_ready,
            claims: renewed,
            told: Told {
                outgoing: Arc::clone(&channel.outgoing),
                version: channel.version,
                join_ref: channel.join_ref.clone(),
                topic: Arc::clone(&channel.room.name),
            },
        };
        tokio::spawn(task.run(ends.clone()));
        Self { claims, _ends: ends.drop_guard() }
    }

    pub(super) fn renew(&self, claims: Arc<Claims>) {
        self.claims.send_replace(claims);
    }
}

/// Who is told how it goes.
struct Told {
    outgoing: Arc<Outgoing>,
    version: Version,
    join_ref: Ref,
    topic: Arc<str>,
}

impl Told {
    fn system(&self, extension: &str, status: SystemStatus, message: &str) {
        let head = Head { join_ref: &self.join_ref, reference: &Ref::NONE, topic: &self.topic };
        let payload = system_payload(extension, status, message, &self.topic);
        self.outgoing.push(self.version.message(head, "system", payload.as_bytes()));
    }
}

struct Task {
    source: Option<Arc<dyn Source>>,
    ids: Vec<SubscriptionId>,
    bindings: Vec<Binding>,
    replication_ready: bool,
    claims: watch::Receiver<Arc<Claims>>,
    told: Told,
}

impl Task {
    async fn run(mut self, ends: CancellationToken) {
        let Some(source) = self.source.clone() else {
            let topic = self.told.topic.strip_prefix(PREFIX).unwrap_or_default();
            tracing::debug!(topic, "a client asks for changes that this server does not follow");
            let message = "Unable to subscribe to changes: this server does not follow the database; set wal_level=logical and realtime.changes=true";
            self.told.system("postgres_changes", SystemStatus::Error, message);
            return;
        };
        tokio::select! {
            () = ends.cancelled() => {}
            () = self.follow(&*source) => ends.cancelled().await,
        }
        // Whatever was begun ends here, also what was under way when the channel was left.
        source.unsubscribe(&self.ids);
    }

    /// Returns when there is nothing left to do but to wait for the end.
    async fn follow(&mut self, source: &dyn Source) {
        if self.replication_ready {
            self.tell_when_ready(source).await;
        }
        if self.bindings.is_empty() {
            return;
        }
        loop {
            let claims = self.claims.borrow_and_update().clone();
            match self.subscribe(source, &claims).await {
                Ok(()) => {
                    self.told.system("postgres_changes", SystemStatus::Ok, "Subscribed to PostgreSQL");
                    break;
                }
                Err(SubscribeError::Invalid(message)) => {
                    source.unsubscribe(&self.ids);
                    self.told.system("postgres_changes", SystemStatus::Error, &message);
                    return;
                }
                Err(SubscribeError::Unavailable(message)) => {
                    source.unsubscribe(&self.ids);
                    self.told.system("postgres_changes", SystemStatus::Error, &message);
                }
            }
            let pause = Duration::from_millis(rand::rng().random_range(PAUSE));
            tokio::time::sleep(pause).await;
        }
        while self.claims.changed().await.is_ok() {
            let claims = self.claims.borrow_and_update().clone();
            source.renew(&self.ids, &claims).await;
        }
    }

    async fn subscribe(&self, source: &dyn Source, claims: &Claims) -> Result<(), SubscribeError> {
        for (id, binding) in self.ids.iter().zip(&self.bindings) {
            match &binding.wanted {
                Ok(wanted) => source.subscribe(*id, claims, wanted).await?,
                Err(message) => return Err(SubscribeError::Invalid(message.clone())),
            }
        }
        Ok(())
    }

    async fn tell_when_ready(&self, source: &dyn Source) {
        let wait = async {
            while source.ready().await.is_err() {
                tokio::time::sleep(READY_PAUSE).await;
            }
        };
        if tokio::time::timeout(READY, wait).await.is_ok() {
            self.told.system("system", SystemStatus::Ok, "Replication connection established");
        } else {
            let message = "Replication connection was not established in time";
            self.told.system("system", SystemStatus::Error, message);
        }
    }
}
