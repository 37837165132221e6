//! One channel of one socket.

pub(crate) mod authorization;
pub(crate) mod config;
mod following;

use std::sync::Arc;

use longhouse_database::Claims;

use crate::broadcast::PREFIX;
use crate::changes::{SubscriptionId, SystemStatus};
use crate::hub::Hub;
use crate::hub::followers::{Follower, system_payload};
use crate::hub::rooms::Room;
use crate::identity::Identity;
use crate::limits::Window;
use crate::presence::Topic;
use crate::protocol::{Head, Ref, Version};
use crate::socket::outgoing::Outgoing;
use authorization::{Question, Rights};
use config::Join;
use following::Following;

/// One channel of one socket. Dropped, nothing of it is left anywhere.
#[derive(Debug)]
pub(crate) struct Channel {
    hub: Arc<Hub>,
    pub(crate) outgoing: Arc<Outgoing>,
    pub(crate) version: Version,
    pub(crate) serial: u64,
    pub(crate) join_ref: Ref,
    pub(crate) room: Arc<Room>,
    /// The token that it was joined or refreshed with.
    pub(crate) token: Box<str>,
    pub(crate) identity: Identity,
    pub(crate) rights: Rights,
    pub(crate) own: bool,
    pub(crate) ack: bool,
    pub(crate) presence: bool,
    pub(crate) presence_key: Arc<str>,
    /// What it tracks, as the client wrote it.
    pub(crate) tracked: Option<Box<str>>,
    pub(crate) presence_events: Window,
    following: Option<Following>,
}

impl Channel {
    /// The name on the wire.
    pub(crate) fn topic(&self) -> &str {
        &self.room.name
    }

    /// The name without the prefix.
    pub(crate) fn name(&self) -> &str {
        self.topic().strip_prefix(PREFIX).unwrap_or_default()
    }

    /// As whom the database is asked about this channel.
    pub(crate) fn question<'q>(&'q self, headers: &'q str) -> Question<'q> {
        Question { claims: &self.identity.claims, topic: self.name(), headers }
    }

    /// A message to this one client.
    pub(crate) fn push(&self, event: &str, payload: &str) {
        let head = Head { join_ref: &self.join_ref, reference: &Ref::NONE, topic: self.topic() };
        self.outgoing.push(self.version.message(head, event, payload.as_bytes()));
    }

    /// The answer to a message. `response` is JSON text.
    pub(crate) fn reply(&self, reference: &Ref, ok: bool, response: &str) {
        let head = Head { join_ref: &self.join_ref, reference, topic: self.topic() };
        self.outgoing.push(self.version.reply(head, ok, response));
    }

    /// Says that the channel is over.
    pub(crate) fn say_closed(&self) {
        let head = Head { join_ref: &self.join_ref, reference: &self.join_ref, topic: self.topic() };
        self.outgoing.push(self.version.message(head, "phx_close", b"{}"));
    }

    /// Says why the channel is over, and that it is.
    pub(crate) fn shut_down(&self, message: &str) {
        tracing::debug!(topic = self.topic(), message, "closing a channel");
        self.push("system", &system_payload("system", SystemStatus::Error, message, self.topic()));
        self.say_closed();
    }

    fn presence_topic(&self) -> Topic {
        Topic { private: self.room.private, name: Arc::clone(&self.room.name) }
    }

    /// Who is here.
    pub(crate) fn push_presence_state(&self) {
        self.push("presence_state", &self.hub.presence_state(&self.presence_topic()));
    }

    /// Tells everybody. `payload` is a JSON object.
    pub(crate) fn track(&mut self, payload: &str) {
        self.hub.track(self.serial, &self.presence_topic(), &self.presence_key, payload);
        self.tracked = Some(payload.into());
    }

    /// Tells everybody that it is gone.
    pub(crate) fn untrack(&mut self) {
        self.tracked = None;
        self.hub.untrack(self.serial);
    }

    /// Whether this member may see presence: on public channels always.
    pub(crate) fn sees_presence(&self) -> bool {
        !self.room.private || self.rights.read_presence == Some(true)
    }

    /// Passes changed rights on to where messages are sent.
    pub(crate) fn permit(&self) {
        let broadcasts = !self.room.private || self.rights.read_broadcasts == Some(true);
        self.room.permit(self.serial, broadcasts, self.sees_presence());
    }

    /// Begins to follow the database, as the client asked when it joined.
    pub(crate) fn follow(&mut self, join: Join) {
        if join.bindings.is_empty() && !join.replication_ready {
            return;
        }
        let follower = Follower {
            outgoing: Arc::clone(&self.outgoing),
            version: self.version,
            join_ref: self.join_ref.clone(),
            topic: Arc::clone(&self.room.name),
            bindings: join.bindings.iter().map(|binding| binding.id).collect(),
        };
        self.hub.followers.add(self.serial, follower);
        self.following = Some(Following::start(self, join));
    }

    /// The client has another token.
    pub(crate) fn renew(&mut self, token: &str, identity: Identity) {
        self.token = token.into();
        self.identity = identity;
        if let Some(following) = &self.following {
            following.renew(Arc::clone(&self.identity.claims));
        }
    }
}

impl Drop for Channel {
    fn drop(&mut self) {
        self.hub.rooms.leave(&self.room, self.serial);
        if self.tracked.is_some() {
            self.hub.untrack(self.serial);
        }
        if self.following.is_some() {
            self.hub.followers.remove(self.serial);
        }
    }
}

/// What a channel is made of when its join is granted.
#[derive(Debug)]
pub(crate) struct Granted {
    pub(crate) serial: u64,
    pub(crate) join_ref: Ref,
    pub(crate) room: Arc<Room>,
    pub(crate) token: Box<str>,
    pub(crate) identity: Identity,
    pub(crate) rights: Rights,
}

impl Channel {
    pub(crate) fn new(
        hub: Arc<Hub>,
        (outgoing, version): (Arc<Outgoing>, Version),
        granted: Granted,
        join: &Join,
    ) -> Self {
        let Granted { serial, join_ref, room, token, identity, rights } = granted;
        let key = join.presence_key.clone().unwrap_or_else(|| uuid::Uuid::new_v4().to_string());
        Self {
            hub,
            outgoing,
            version,
            serial,
            join_ref,
            room,
            token,
            identity,
            rights,
            own: join.own,
            ack: join.ack,
            presence: join.presence,
            presence_key: key.into(),
            tracked: None,
            presence_events: Window::default(),
            following: None,
        }
    }
}

/// The claims under which a channel's subscriptions run, as they are renewed.
type SharedClaims = tokio::sync::watch::Sender<Arc<Claims>>;

/// Ids of a channel's subscriptions.
fn subscription_ids(serial: u64, count: usize) -> Vec<SubscriptionId> {
    (0..count).map(|binding| crate::hub::followers::subscription(serial, binding)).collect()
}
