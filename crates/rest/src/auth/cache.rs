//! A bounded map from tokens to what they proved.

use std::collections::{HashMap, VecDeque};
use std::fmt;
use std::sync::{Arc, Mutex, PoisonError};

/// Keeps the most used entries: when full, the oldest goes unless it was used since its last turn.
pub(super) struct Cache<T> {
    capacity: usize,
    entries: Mutex<Entries<T>>,
}

struct Entries<T> {
    by_token: HashMap<Arc<str>, Entry<T>>,
    turns: VecDeque<Arc<str>>,
}

struct Entry<T> {
    value: Arc<T>,
    used: bool,
}

impl<T> fmt::Debug for Cache<T> {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "Cache(of at most {})", self.capacity)
    }
}

impl<T> Cache<T> {
    pub(super) fn new(capacity: usize) -> Self {
        Self { capacity, entries: Mutex::new(Entries { by_token: HashMap::new(), turns: VecDeque::new() }) }
    }

    pub(super) fn get(&self, token: &str) -> Option<Arc<T>> {
        if self.capacity == 0 {
            return None;
        }
        let mut entries = self.entries.lock().unwrap_or_else(PoisonError::into_inner);
        let entry = entries.by_token.get_mut(token)?;
        entry.used = true;
        Some(entry.value.clone())
    }

    pub(super) fn insert(&self, token: &str, value: Arc<T>) {
        if self.capacity == 0 {
            return;
        }
        let mut entries = self.entries.lock().unwrap_or_else(PoisonError::into_inner);
        let Entries { by_token, turns } = &mut *entries;
        while by_token.len() >= self.capacity {
            let Some(oldest) = turns.pop_front() else { break };
            match by_token.get_mut(&oldest) {
                Some(entry) if entry.used => {
                    entry.used = false;
                    turns.push_back(oldest);
                }
                _ => drop(by_token.remove(&oldest)),
            }
        }
        let token: Arc<str> = token.into();
        if by_token.insert(token.clone(), Entry { value, used: false }).is_none() {
            turns.push_back(token);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keeps_what_is_used_within_its_bound() {
        let cache = Cache::new(2);
        cache.insert("a", Arc::new(1));
        cache.insert("b", Arc::new(2));
        assert_eq!(cache.get("a").as_deref(), Some(&1));
        cache.insert("c", Arc::new(3));
        assert_eq!(cache.get("a").as_deref(), Some(&1), "used");
        assert_eq!(cache.get("b"), None, "unused");
        for number in 0..100 {
            cache.insert(&number.to_string(), Arc::new(number));
        }
        assert_eq!(cache.entries.lock().expect("not poisoned").turns.len(), 2);
    }

    #[test]
    fn none_without_capacity() {
        let cache = Cache::new(0);
        cache.insert("a", Arc::new(1));
        assert_eq!(cache.get("a"), None);
    }
}
