//! The road to the database, with a barrier: what a restart or a network failure looks like from the server.

use std::net::SocketAddr;

use secrecy::{ExposeSecret, SecretString};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;
use url::Url;

/// What becomes of connections.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Road {
    /// They pass.
    Open,
    /// They are accepted and nothing moves: an overloaded server, a lost network path.
    Stalled,
    /// Existing ones break, new ones are closed at once: a server that restarts.
    Gone,
}

/// A TCP relay in front of Postgres.
pub(crate) struct Outage {
    address: SocketAddr,
    road: watch::Sender<Road>,
}

impl Outage {
    /// Relays to the server of a database URL.
    pub(crate) async fn before(database: &SecretString) -> Self {
        let url = Url::parse(database.expose_secret()).unwrap();
        let target = format!("{}:{}", url.host_str().unwrap(), url.port().unwrap());
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let (road, watching) = watch::channel(Road::Open);
        tokio::spawn(async move {
            while let Ok((near, _)) = listener.accept().await {
                if *watching.borrow() != Road::Gone {
                    tokio::spawn(relay(near, target.clone(), watching.clone()));
                }
            }
        });
        Self { address, road }
    }

    /// The same database, by this road.
    pub(crate) fn url(&self, database: &SecretString) -> SecretString {
        let mut url = Url::parse(database.expose_secret()).unwrap();
        url.set_port(Some(self.address.port())).unwrap();
        String::from(url).into()
    }

    pub(crate) fn set(&self, road: Road) {
        self.road.send_replace(road);
    }
}

async fn relay(mut near: TcpStream, target: String, mut road: watch::Receiver<Road>) {
    if road.wait_for(|road| *road == Road::Open).await.is_err() {
        return;
    }
    let Ok(mut far) = TcpStream::connect(target).await else { return };
    // Without this each query waits 40 ms for an acknowledgement.
    near.set_nodelay(true).unwrap();
    far.set_nodelay(true).unwrap();
    tokio::select! {
        biased;
        changed = road.changed() => if changed.is_err() { return },
        _ = tokio::io::copy_bidirectional(&mut near, &mut far) => return,
    }
    // Bytes may have been under way: the connection is not used again.
    let _ = road.wait_for(|road| *road != Road::Stalled).await;
}
