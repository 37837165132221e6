//! Who writes to which upload in this process, so that a newer request can have an older one end first.
//!
//! A client that comes back asks how far its upload has come. Its former connection may still be open on our side, with
//! bytes that are about to count: it is ended, what it brought is stored, and only then is the answer true.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use tokio::sync::{Notify, watch};
use uuid::Uuid;

/// Longest wait for an older request to store what it has.
const PATIENCE: Duration = Duration::from_secs(5);

/// The writers of this process.
#[derive(Debug, Default)]
pub(crate) struct Writers {
    running: Mutex<HashMap<Uuid, Running>>,
}

#[derive(Debug, Clone)]
struct Running {
    stop: Arc<Notify>,
    done: watch::Receiver<()>,
}

/// One that writes, until it is dropped.
#[derive(Debug)]
pub(super) struct Writing {
    writers: Arc<Writers>,
    id: Uuid,
    pub(super) stop: Arc<Notify>,
    // Dropped with it, which tells who waits.
    _done: watch::Sender<()>,
}

impl Writers {
    /// Ends the one that writes to an upload now, if there is one, and waits until it has.
    pub(super) async fn interrupt(&self, id: Uuid) {
        let running = self.lock().get(&id).cloned();
        if let Some(mut running) = running {
            running.stop.notify_one();
            // Whoever takes longer is outrun by number: see `take_over`.
            let _ = tokio::time::timeout(PATIENCE, running.done.changed()).await;
        }
    }

    pub(super) fn begin(self: &Arc<Self>, id: Uuid) -> Writing {
        let (sender, done) = watch::channel(());
        let stop = Arc::new(Notify::new());
        self.lock().insert(id, Running { stop: Arc::clone(&stop), done });
        Writing { writers: Arc::clone(self), id, stop, _done: sender }
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, HashMap<Uuid, Running>> {
        self.running.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for Writing {
    fn drop(&mut self) {
        let mut running = self.writers.lock();
        // A newer one may stand there by now.
        if running.get(&self.id).is_some_and(|one| Arc::ptr_eq(&one.stop, &self.stop)) {
            running.remove(&self.id);
        }
    }
}
