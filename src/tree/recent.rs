//! What was looked at last and costs little: as many values as a number says.

use std::hash::Hash;
use std::num::NonZeroUsize;
use std::sync::{Mutex, MutexGuard, PoisonError};

use lru::LruCache;

use crate::metrics::Usage;

/// Values by key, the least recently used first to go.
#[derive(Debug)]
pub(super) struct Recent<K: Hash + Eq, V>(Mutex<State<K, V>>);

#[derive(Debug)]
struct State<K: Hash + Eq, V> {
    values: LruCache<K, V>,
    usage: Usage,
}

impl<K: Hash + Eq, V: Clone> Recent<K, V> {
    /// Nothing yet; `count` is how many there may be.
    pub(super) fn new(count: NonZeroUsize) -> Recent<K, V> {
        Recent(Mutex::new(State { values: LruCache::new(count), usage: Usage::default() }))
    }

    pub(super) fn get(&self, key: &K) -> Option<V> {
        let mut state = self.lock();
        let found = state.values.get(key).cloned();
        state.usage.asked(found.is_some());
        found
    }

    pub(super) fn put(&self, key: K, value: V) {
        self.put_if(key, value, || true);
    }

    /// Keeps `value` unless `is_valid` denies it, while nobody else looks.
    pub(super) fn put_if(&self, key: K, value: V, is_valid: impl FnOnce() -> bool) {
        let mut state = self.lock();
        if !is_valid() {
            return;
        }
        let is_full = state.values.len() == state.values.cap().get();
        let is_more = state.values.put(key, value).is_none();
        state.usage.evictions += u64::from(is_full && is_more);
    }

    pub(super) fn clear(&self) {
        self.lock().values.clear();
    }

    pub(super) fn usage(&self) -> Usage {
        self.lock().usage
    }

    fn lock(&self) -> MutexGuard<'_, State<K, V>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn usage_tells_what_was_there_and_what_had_to_go() {
        let recent = Recent::new(NonZeroUsize::MIN);
        assert_eq!(recent.get(&1), None);
        recent.put(1, "one");
        recent.put(1, "still one");
        assert_eq!(recent.get(&1), Some("still one"));
        recent.put(2, "two");
        recent.put_if(3, "three", || false);
        assert_eq!((recent.get(&1), recent.get(&2)), (None, Some("two")));
        recent.clear();
        assert_eq!(recent.usage(), Usage { hits: 2, misses: 2, evictions: 1 });
    }
}
