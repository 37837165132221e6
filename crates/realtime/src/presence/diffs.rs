//! `presence_diff`: what changed on a channel, gathered while changes come fast.
//!
//! The first change after a quiet while is told at once, further ones together. In a crowd that arrives, everybody
//! would otherwise hear of everybody one by one.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;

use super::{Entry, Topic, grouped};

/// Shortest time between two diffs of a channel, in milliseconds.
const PAUSE: u64 = 100;

#[derive(Debug, Default)]
struct Pending {
    due: u64,
    /// By `phx_ref`.
    joins: BTreeMap<Arc<str>, Entry>,
    leaves: BTreeMap<Arc<str>, Entry>,
}

/// Changes that clients have not been told yet.
#[derive(Debug, Default)]
pub(crate) struct Diffs {
    topics: HashMap<Topic, Pending>,
}

impl Diffs {
    pub(crate) fn joined(&mut self, topic: Topic, entry: Entry, now: u64) {
        let pending = self.pending(topic, now);
        pending.leaves.remove(&entry.reference);
        pending.joins.insert(Arc::clone(&entry.reference), entry);
    }

    pub(crate) fn left(&mut self, topic: Topic, entry: Entry, now: u64) {
        let pending = self.pending(topic, now);
        // Told even if its coming was not: who came in between has it in the state that they began with.
        pending.joins.remove(&entry.reference);
        pending.leaves.insert(Arc::clone(&entry.reference), entry);
    }

    fn pending(&mut self, topic: Topic, now: u64) -> &mut Pending {
        self.topics.entry(topic).or_insert_with(|| Pending { due: now, ..Pending::default() })
    }

    /// The payloads that are due. What remains is due at [`Self::next`].
    pub(crate) fn due(&mut self, now: u64) -> Vec<(Topic, String)> {
        let mut told = Vec::new();
        self.topics.retain(|topic, pending| {
            if pending.due > now {
                return true;
            }
            if pending.joins.is_empty() && pending.leaves.is_empty() {
                return false;
            }
            let joins = grouped(pending.joins.values());
            let leaves = grouped(pending.leaves.values());
            told.push((topic.clone(), format!(r#"{{"joins":{joins},"leaves":{leaves}}}"#)));
            // Stays for a pause, empty, so that the next change waits for its end.
            *pending = Pending { due: now + PAUSE, ..Pending::default() };
            true
        });
        told
    }

    /// When there is something to do.
    pub(crate) fn next(&self) -> Option<u64> {
        self.topics.values().map(|pending| pending.due).min()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn entry(reference: &str) -> Entry {
        Entry::new("k".into(), reference.into(), None, "{}")
    }

    #[test]
    fn the_first_at_once_and_the_rest_together() {
        let topic = Topic { private: false, name: "realtime:a".into() };
        let mut diffs = Diffs::default();
        diffs.joined(topic.clone(), entry("1"), 0);
        let told = diffs.due(0);
        assert_eq!(told[0].1, r#"{"joins":{"k":{"metas":[{"phx_ref":"1"}]}},"leaves":{}}"#);
        diffs.joined(topic.clone(), entry("2"), 10);
        diffs.joined(topic.clone(), entry("3"), 20);
        diffs.left(topic.clone(), entry("3"), 30);
        assert!(diffs.due(99).is_empty());
        assert_eq!(diffs.next(), Some(100));
        let told = diffs.due(100);
        assert_eq!(
            told[0].1,
            r#"{"joins":{"k":{"metas":[{"phx_ref":"2"}]}},"leaves":{"k":{"metas":[{"phx_ref":"3"}]}}}"#
        );
        assert!(diffs.due(200).is_empty());
        assert_eq!(diffs.next(), None, "nothing is kept for quiet channels");
    }

    #[test]
    fn gone_and_back_is_here() {
        let topic = Topic { private: false, name: "realtime:a".into() };
        let mut diffs = Diffs::default();
        diffs.left(topic.clone(), entry("1"), 0);
        diffs.joined(topic, entry("1"), 0);
        assert!(diffs.due(0)[0].1.ends_with(r#""leaves":{}}"#));
    }
}
