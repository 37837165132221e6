//! Who on this server is on which channel, and how a message reaches them.

use std::collections::HashMap;
use std::hash::{BuildHasher, RandomState};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, RwLock};

use bytes::Bytes;

use crate::broadcast::{Broadcast, Frames};
use crate::protocol::Version;
use crate::socket::outgoing::Outgoing;

const SHARDS: usize = 64;

/// One channel of one socket, in its room.
#[derive(Debug)]
pub(crate) struct Member {
    /// Serial of the channel, unique in this process.
    pub(crate) serial: u64,
    pub(crate) outgoing: Arc<Outgoing>,
    pub(crate) version: Version,
    /// Whether it may receive broadcasts.
    pub(crate) broadcasts: bool,
    /// Whether it may receive presence.
    pub(crate) presence: bool,
    /// Messages that it got when it joined.
    pub(crate) replayed: Option<Box<[String]>>,
}

/// All members of one channel on this server.
#[derive(Debug)]
pub(crate) struct Room {
    /// The name on the wire, shared by all that belongs to the room.
    pub(crate) name: Arc<str>,
    pub(crate) private: bool,
    members: RwLock<Vec<Member>>,
}

impl Room {
    /// Sends to everybody who may receive it, but not to the channel `except`. Returns to how many.
    pub(crate) fn broadcast(&self, broadcast: &Broadcast, except: Option<u64>) -> usize {
        let frames = Frames::of(broadcast);
        let members = self.members.read().unwrap_or_else(PoisonError::into_inner);
        let mut sent = 0;
        for member in members.iter() {
            if !member.broadcasts || Some(member.serial) == except {
                continue;
            }
            if let (Some(replayed), Some(id)) = (&member.replayed, broadcast.id.as_deref())
                && replayed.iter().any(|replayed| replayed == id)
            {
                continue;
            }
            if let Some(frame) = frames.get(member.version) {
                member.outgoing.push(frame.clone());
                sent += 1;
            }
        }
        sent
    }

    /// Tells everybody who may know what changed in the presence.
    pub(crate) fn presence_diff(&self, payload: &str) {
        let members = self.members.read().unwrap_or_else(PoisonError::into_inner);
        let mut frames: [Option<Bytes>; 2] = [None, None];
        for member in members.iter().filter(|member| member.presence) {
            let frame = frames[usize::from(member.version == Version::V2)].get_or_insert_with(|| {
                member.version.to_all(&self.name, "presence_diff", payload.as_bytes())
            });
            member.outgoing.push(frame.clone());
        }
    }

    fn members(&self) -> std::sync::RwLockWriteGuard<'_, Vec<Member>> {
        self.members.write().unwrap_or_else(PoisonError::into_inner)
    }

    /// Changes what a member may receive.
    pub(crate) fn permit(&self, serial: u64, broadcasts: bool, presence: bool) {
        if let Some(member) = self.members().iter_mut().find(|member| member.serial == serial) {
            member.broadcasts = broadcasts;
            member.presence = presence;
        }
    }
}

/// Public and private rooms of one shard, by name.
type Shard = [HashMap<Arc<str>, Arc<Room>>; 2];

/// All rooms of this server. A room is there while it has a member.
#[derive(Debug)]
pub(crate) struct Rooms {
    shards: Vec<Mutex<Shard>>,
    hasher: RandomState,
}

impl Default for Rooms {
    fn default() -> Self {
        Self { shards: (0..SHARDS).map(|_| Mutex::default()).collect(), hasher: RandomState::new() }
    }
}

impl Rooms {
    fn shard(&self, name: &str) -> MutexGuard<'_, Shard> {
        let index = self.hasher.hash_one(name) as usize % SHARDS;
        self.shards[index].lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The room, if anybody here is in it.
    pub(crate) fn get(&self, private: bool, name: &str) -> Option<Arc<Room>> {
        self.shard(name)[usize::from(private)].get(name).cloned()
    }

    /// Lets a member in.
    pub(crate) fn enter(&self, private: bool, name: &Arc<str>, member: Member) -> Arc<Room> {
        let mut shard = self.shard(name);
        let room = shard[usize::from(private)].entry(Arc::clone(name)).or_insert_with(|| {
            Arc::new(Room { name: Arc::clone(name), private, members: RwLock::default() })
        });
        room.members().push(member);
        Arc::clone(room)
    }

    /// Lets a member out; the last one closes the room.
    pub(crate) fn leave(&self, room: &Room, serial: u64) {
        let mut shard = self.shard(&room.name);
        let mut members = room.members();
        if let Some(index) = members.iter().position(|member| member.serial == serial) {
            members.swap_remove(index);
        }
        if members.is_empty() {
            shard[usize::from(room.private)].remove(&room.name);
        } else if members.capacity() > 64 && members.len() < members.capacity() / 4 {
            members.shrink_to_fit();
        }
    }

    /// (rooms, members)
    pub(crate) fn size(&self) -> (usize, usize) {
        let mut size = (0, 0);
        for shard in &self.shards {
            let shard = shard.lock().unwrap_or_else(PoisonError::into_inner);
            for room in shard.iter().flat_map(HashMap::values) {
                size.0 += 1;
                size.1 += room.members.read().unwrap_or_else(PoisonError::into_inner).len();
            }
        }
        size
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rooms_close_behind_the_last() {
        let rooms = Rooms::default();
        let member = |serial| Member {
            serial,
            outgoing: Outgoing::new(1_000, false),
            version: Version::V2,
            broadcasts: true,
            presence: true,
            replayed: None,
        };
        let name: Arc<str> = "realtime:a".into();
        let public = rooms.enter(false, &name, member(1));
        let private = rooms.enter(true, &name, member(2));
        rooms.enter(false, &name, member(3));
        assert_eq!(rooms.size(), (2, 3));
        rooms.leave(&public, 1);
        rooms.leave(&public, 1);
        rooms.leave(&private, 2);
        assert_eq!(rooms.size(), (1, 1));
        rooms.leave(&public, 3);
        assert_eq!(rooms.size(), (0, 0));
        assert!(rooms.get(false, "realtime:a").is_none());
    }
}
