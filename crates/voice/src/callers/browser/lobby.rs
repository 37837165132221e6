//! Where a person who lost their network finds their conversation again.

use std::collections::HashMap;
use std::fmt::Write as _;
use std::sync::{Arc, Mutex, MutexGuard};

use sha2::{Digest as _, Sha256};
use tokio::sync::mpsc;

use super::connection::Link;

/// A person who comes back.
pub(super) struct Return {
    pub(super) link: Link,
    /// Samples that they have played in all, where they know.
    pub(super) played: Option<u64>,
}

type Doors = HashMap<[u8; 32], mpsc::Sender<Return>>;

/// Conversations of this process that can be come back to. Clones share them.
#[derive(Clone, Default)]
pub struct Lobby {
    doors: Arc<Mutex<Doors>>,
}

impl std::fmt::Debug for Lobby {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Lobby").field("conversations", &self.doors().len()).finish()
    }
}

/// A conversation's way back; it closes when this is dropped.
pub(super) struct Door {
    lobby: Lobby,
    key: [u8; 32],
    pub(super) returns: mpsc::Receiver<Return>,
}

impl Lobby {
    fn doors(&self) -> MutexGuard<'_, Doors> {
        self.doors.lock().unwrap_or_else(std::sync::PoisonError::into_inner)
    }

    /// Conversations that can be come back to.
    pub fn len(&self) -> usize {
        self.doors().len()
    }

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// A way back, and the token for it.
    pub(super) fn open(&self) -> (String, Door) {
        let mut secret = [0u8; 32];
        for half in secret.chunks_mut(16) {
            half.copy_from_slice(uuid::Uuid::new_v4().as_bytes());
        }
        let token = secret.iter().fold(String::with_capacity(64), |mut token, byte| {
            // Writing to a string cannot fail.
            let _ = write!(token, "{byte:02x}");
            token
        });
        let key = hash(&token);
        let (sender, returns) = mpsc::channel(1);
        self.doors().insert(key, sender);
        (token, Door { lobby: self.clone(), key, returns })
    }

    /// Gives a connection to the conversation that it belongs to.
    ///
    /// # Errors
    /// The connection, when there is no such conversation any more.
    pub async fn come_back(&self, token: &str, link: Link, played: Option<u64>) -> Result<(), Link> {
        let door = self.doors().get(&hash(token)).cloned();
        match door {
            Some(door) => door.send(Return { link, played }).await.map_err(|returned| returned.0.link),
            None => Err(link),
        }
    }
}

impl Drop for Door {
    fn drop(&mut self) {
        self.lobby.doors().remove(&self.key);
    }
}

fn hash(token: &str) -> [u8; 32] {
    Sha256::digest(token.as_bytes()).into()
}
