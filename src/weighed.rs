//! What was used last, as much as a bound on memory leaves room for.

use std::fmt::Debug;
use std::hash::Hash;

use lru::LruCache;

/// Something whose memory is counted.
pub(crate) trait Weigh {
    /// Memory that it takes, in bytes, about.
    fn weight(&self) -> usize;
}

/// Values by key, as many as weigh no more than a bound together; the last one stays in any case.
#[derive(Debug)]
pub(crate) struct Weighed<K: Hash + Eq, V> {
    values: LruCache<K, V>,
    weight: usize,
    bound: usize,
}

impl<K: Hash + Eq + Clone, V: Weigh + Clone> Weighed<K, V> {
    pub(crate) fn new(bound: usize) -> Weighed<K, V> {
        Weighed { values: LruCache::unbounded(), weight: 0, bound }
    }

    pub(crate) fn get(&mut self, key: &K) -> Option<&V> {
        self.values.get(key)
    }

    pub(crate) fn clear(&mut self) {
        self.values.clear();
        self.weight = 0;
    }

    /// All of them, the one that was used last first.
    pub(crate) fn all(&self) -> Vec<(K, V)> {
        self.values.iter().map(|(key, value)| (key.clone(), value.clone())).collect()
    }

    pub(crate) fn remove(&mut self, key: &K) {
        if let Some(old) = self.values.pop(key) {
            self.weight -= old.weight();
        }
    }

    /// Keeps `value`; how many others had to go.
    pub(crate) fn put(&mut self, key: K, value: V) -> u64 {
        self.weight += value.weight();
        if let Some((_, old)) = self.values.push(key, value) {
            self.weight -= old.weight();
        }
        let mut gone = 0;
        while self.weight > self.bound && self.values.len() > 1 {
            if let Some((_, old)) = self.values.pop_lru() {
                self.weight -= old.weight();
                gone += 1;
            }
        }
        gone
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    impl Weigh for usize {
        fn weight(&self) -> usize {
            *self
        }
    }

    #[test]
    fn the_least_recently_used_goes_first() {
        let mut values: Weighed<u8, usize> = Weighed::new(10);
        for (key, weight) in [(1, 4), (2, 4)] {
            values.put(key, weight);
        }
        assert_eq!(values.get(&1), Some(&4));
        assert_eq!(values.put(3, 4), 1);
        assert_eq!([1, 2, 3].map(|key| values.get(&key).copied()), [Some(4), None, Some(4)]);
        values.put(4, 100);
        assert_eq!([1, 3, 4].map(|key| values.get(&key).copied()), [None, None, Some(100)]);
        values.put(5, 10);
        values.put(5, 9);
        assert_eq!(values.get(&5), Some(&9));
        assert_eq!(values.weight, 9);
    }
}
