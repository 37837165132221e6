//! `/realtime/v1`: channels that carry broadcasts, presence and the database's changes, as Supabase's clients expect.
//!
//! A [`Realtime`] is one server's part. Servers of one project find each other by an [`bus::EventBus`]; changes come
//! from a [`changes::Source`], which finds its way back by [`Realtime::sink`].

mod api;
mod broadcast;
pub mod bus;
pub mod changes;
mod channel;
mod hub;
mod identity;
mod limits;
mod meters;
mod presence;
pub mod protocol;
mod socket;

use std::fmt;
use std::future::Future;
use std::sync::Arc;

use axum::Router;
use axum::routing::any;
use longhouse_database::Database;
use longhouse_server::Drain;

pub use identity::{TokenError, Verify};
pub use limits::Limits;

use bus::EventBus;
use changes::{Sink, Source};
use hub::Hub;

/// What the service is made of.
pub struct Options {
    /// Where the policies of private channels are.
    pub database: Database,
    /// Whose token it is.
    pub verify: Verify,
    /// The way to other servers.
    pub bus: Arc<dyn EventBus>,
    /// Bounds.
    pub limits: Limits,
}

impl fmt::Debug for Options {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter
            .debug_struct("Options")
            .field("bus", &self.bus)
            .field("limits", &self.limits)
            .finish_non_exhaustive()
    }
}

/// How much there is on this server.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Size {
    /// Sockets.
    pub connections: usize,
    /// Channels with at least one member.
    pub channels: usize,
    /// Channels of sockets: each socket counts in each of its channels.
    pub members: usize,
    /// Members that follow the database.
    pub followers: usize,
}

/// The service. Cheap to clone.
#[derive(Debug, Clone)]
pub struct Realtime {
    hub: Arc<Hub>,
}

impl Realtime {
    /// Puts the parts together. Nothing is heard of other servers before [`Self::run`].
    pub fn new(options: Options) -> Self {
        let Options { database, verify, bus, limits } = options;
        meters::describe();
        Self { hub: Arc::new(Hub::new(limits, database, verify, bus)) }
    }

    /// Where changes and the database's broadcasts go.
    pub fn sink(&self) -> Arc<dyn Sink> {
        Arc::clone(&self.hub) as Arc<dyn Sink>
    }

    /// Where changes come from. To be set once, before clients come; without it, who asks for changes is told that there
    /// are none.
    pub fn follow(&self, source: Arc<dyn Source>) {
        self.hub.set_source(source);
    }

    /// The routes, to be nested at `/realtime/v1`: `/websocket` and `/api/broadcast`.
    pub fn router(&self) -> Router {
        Router::new()
            .route("/websocket", any(socket::connect))
            .merge(api::router())
            .with_state(Arc::clone(&self.hub))
    }

    /// Hears other servers and tells them that this one lives, until the process stops; closes sockets when it drains.
    pub fn run(&self, drain: Drain) -> impl Future<Output = ()> + Send + 'static {
        Arc::clone(&self.hub).run(drain)
    }

    /// How much there is on this server.
    pub fn size(&self) -> Size {
        let (connections, channels, members, followers) = self.hub.size();
        Size { connections, channels, members, followers }
    }
}
