//! What was looked at last and costs little: as much as a bound says.

use std::hash::Hash;
use std::sync::{Mutex, MutexGuard, PoisonError};

use crate::metrics::Usage;
use crate::weighed::{Weigh, Weighed};

/// Values by key, the least recently used first to go.
#[derive(Debug)]
pub(super) struct Recent<K: Hash + Eq, V>(Mutex<State<K, V>>);

#[derive(Debug)]
struct State<K: Hash + Eq, V> {
    values: Weighed<K, V>,
    usage: Usage,
}

impl<K: Hash + Eq + Clone, V: Weigh + Clone> Recent<K, V> {
    /// Nothing yet; `bound` is how much they may weigh.
    pub(super) fn new(bound: usize) -> Recent<K, V> {
        Recent(Mutex::new(State { values: Weighed::new(bound), usage: Usage::default() }))
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
        if is_valid() {
            let gone = state.values.put(key, value);
            state.usage.evictions += gone;
        }
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
        let recent = Recent::new(8);
        assert_eq!(recent.get(&1), None);
        recent.put(1, 7);
        recent.put(1, 8);
        assert_eq!(recent.get(&1), Some(8));
        recent.put(2, 6);
        recent.put_if(3, 5, || false);
        assert_eq!((recent.get(&1), recent.get(&2)), (None, Some(6)));
        recent.clear();
        assert_eq!(recent.usage(), Usage { hits: 2, misses: 2, evictions: 1 });
    }
}
