//! The database's changes, each for those who may see it.

mod ask;
mod batch;
mod catalog;
mod compile;
mod filter;
mod identity;
mod leader;
mod messages;
mod payload;
mod pgoutput;
mod policy;
mod registry;
mod router;
mod service;
mod slot;
mod values;

use std::fmt;
use std::sync::Arc;

use async_trait::async_trait;
use bytes::Bytes;
use longhouse_database::Claims;
use serde::Deserialize;

pub use messages::{KEPT, MOST_REPLAYED, replay};
pub use service::{Changes, ChangesOptions};

/// One binding of one channel of one socket to changes. Made by the channel, unique in this process.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct SubscriptionId(pub u64);

/// Which changes a client asks for, as it writes them in `config.postgres_changes`.
#[derive(Debug, Clone, Default, PartialEq, Eq, Hash, Deserialize)]
pub struct Wanted {
    /// `INSERT`, `UPDATE`, `DELETE` or `*`.
    #[serde(default)]
    pub event: Option<String>,
    /// Schema, or `*`.
    #[serde(default)]
    pub schema: Option<String>,
    /// Table, or `*`; absent means all of the schema.
    #[serde(default)]
    pub table: Option<String>,
    /// `column=operator.value`, several joined by commas.
    #[serde(default)]
    pub filter: Option<String>,
    /// Columns that the records show; absent means all.
    #[serde(default)]
    pub select: Option<Vec<String>>,
}

/// A subscription that cannot be; the message is shown to the client in a `system` message.
#[derive(Debug, thiserror::Error)]
pub enum SubscribeError {
    /// What the client asks for makes no sense; asking again is of no use.
    #[error("{0}")]
    Invalid(String),
    /// The server cannot serve it now; the channel tries again after a while.
    #[error("{0}")]
    Unavailable(String),
}

/// One change of one row, serialised once for all that receive it.
#[derive(Debug)]
pub struct Change {
    /// The JSON object that clients get as `data`: schema, table, commit_timestamp, type, columns, record, old_record, errors.
    pub data: Bytes,
}

/// A row of `realtime.messages` that the database sent (`realtime.send`, `realtime.broadcast_changes`).
#[derive(Debug, Clone)]
pub struct DatabaseBroadcast {
    /// `messages.id`, which clients see as `meta.id`.
    pub id: String,
    /// Channel, without the prefix `realtime:`.
    pub topic: String,
    /// Event.
    pub event: String,
    /// What it carries.
    pub payload: BroadcastPayload,
    /// Whether private channels hear it (or else public ones).
    pub private: bool,
}

/// What a broadcast carries.
#[derive(Debug, Clone)]
pub enum BroadcastPayload {
    /// JSON text.
    Json(Bytes),
    /// Bytes; clients of the older serializer cannot be told.
    Binary(Bytes),
}

/// How a subscription is doing, for the client's `system` message.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum SystemStatus {
    /// It works.
    Ok,
    /// It does not, at the moment or at all.
    Error,
}

/// Where changes go: the hub of this node. None of these waits.
pub trait Sink: Send + Sync {
    /// A change for these subscriptions of this node. Ids of subscriptions that have ended are ignored.
    fn change(&self, receivers: &[SubscriptionId], change: &Arc<Change>);

    /// A message of the database. To be called on the one node that reads it: the sink tells the other nodes.
    fn database_broadcast(&self, message: DatabaseBroadcast);

    /// Something that the holders of these subscriptions should know.
    fn system(&self, receivers: &[SubscriptionId], status: SystemStatus, message: &str);
}

/// Where changes come from.
#[async_trait]
pub trait Source: fmt::Debug + Send + Sync + 'static {
    /// Begins a subscription under an id that the caller made, as the holder of `claims`. Changes may reach the
    /// sink before this returns.
    async fn subscribe(
        &self,
        id: SubscriptionId,
        claims: &Claims,
        wanted: &Wanted,
    ) -> Result<(), SubscribeError>;

    /// Ends subscriptions. Returns at once; unknown ones are ignored.
    fn unsubscribe(&self, ids: &[SubscriptionId]);

    /// The holder has new claims, which decide from now on.
    async fn renew(&self, ids: &[SubscriptionId], claims: &Claims);

    /// Whether changes flow: `Err` says why not and what to do.
    fn status(&self) -> Result<(), String>;

    /// Somebody has joined a channel, to which the database may send messages. Returns at once.
    fn attend(&self);

    /// Waits until changes and messages that are committed from now on reach the sink.
    async fn ready(&self) -> Result<(), SubscribeError>;
}
