//! What was looked at last and costs little: as many values as a number says, or as many bytes.

use std::hash::Hash;
use std::num::NonZeroUsize;
use std::sync::{Mutex, MutexGuard, PoisonError};

use lru::LruCache;

use crate::metrics::Usage;

/// Values by key, the least recently used first to go.
#[derive(Debug)]
pub(super) struct Recent<K: Hash + Eq, V> {
    state: Mutex<State<K, V>>,
    /// What they may weigh together; the last one stays in any case.
    bound: usize,
    /// Always the same for the same value.
    weight_of: fn(&V) -> usize,
}

#[derive(Debug)]
struct State<K: Hash + Eq, V> {
    values: LruCache<K, V>,
    weight: usize,
    usage: Usage,
}

impl<K: Hash + Eq, V: Clone> Recent<K, V> {
    /// Nothing yet; `count` is how many there may be.
    pub(super) fn new(count: NonZeroUsize) -> Recent<K, V> {
        Recent::weighed(count.get(), |_| 1)
    }

    /// The same; `bound` is how much they may weigh.
    pub(super) fn weighed(bound: usize, weight_of: fn(&V) -> usize) -> Recent<K, V> {
        let state = State { values: LruCache::unbounded(), weight: 0, usage: Usage::default() };
        Recent { state: Mutex::new(state), bound, weight_of }
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
        state.weight += (self.weight_of)(&value);
        if let Some((_, old)) = state.values.push(key, value) {
            state.weight -= (self.weight_of)(&old);
        }
        while state.weight > self.bound
            && state.values.len() > 1
            && let Some((_, old)) = state.values.pop_lru()
        {
            state.weight -= (self.weight_of)(&old);
            state.usage.evictions += 1;
        }
    }

    pub(super) fn clear(&self) {
        let mut state = self.lock();
        state.values.clear();
        state.weight = 0;
    }

    pub(super) fn usage(&self) -> Usage {
        self.lock().usage
    }

    fn lock(&self) -> MutexGuard<'_, State<K, V>> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
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

    #[test]
    fn what_weighs_too_much_drives_out_others_but_not_itself() {
        let recent = Recent::weighed(10, |value: &usize| *value);
        (1..=4).for_each(|key| recent.put(key, 3));
        assert_eq!([1, 2, 3, 4].map(|key| recent.get(&key)), [None, Some(3), Some(3), Some(3)]);
        recent.put(2, 1);
        recent.put(5, 3);
        assert_eq!([2, 3, 5].map(|key| recent.get(&key)), [Some(1), Some(3), Some(3)]);
        recent.put(6, 100);
        assert_eq!([5, 6].map(|key| recent.get(&key)), [None, Some(100)]);
        recent.clear();
        recent.put(7, 10);
        assert_eq!([6, 7].map(|key| recent.get(&key)), [None, Some(10)]);
    }
}
