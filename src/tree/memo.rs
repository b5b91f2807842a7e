//! What was worked out and may be asked for again: each thing once, however many ask at a time, and
//! the least recently used first to go where it all grows too heavy.

use std::collections::HashMap;
use std::collections::hash_map::Entry;
use std::fmt::Debug;
use std::hash::Hash;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};

use lru::LruCache;

use crate::error::{Error, Result};

/// Something whose memory is counted.
pub(super) trait Weigh {
    /// Memory that it takes, in bytes, about.
    fn weight(&self) -> usize;
}

/// Values by key, as many as weigh no more than a bound together; the last one stays in any case.
#[derive(Debug)]
pub(super) struct Weighed<K: Hash + Eq, V> {
    values: LruCache<K, V>,
    weight: usize,
    bound: usize,
}

impl<K: Hash + Eq + Clone, V: Weigh + Clone> Weighed<K, V> {
    pub(super) fn new(bound: usize) -> Weighed<K, V> {
        Weighed { values: LruCache::unbounded(), weight: 0, bound }
    }

    pub(super) fn get(&mut self, key: &K) -> Option<&V> {
        self.values.get(key)
    }

    /// All of them, the one that was used last first.
    pub(super) fn all(&self) -> Vec<(K, V)> {
        self.values.iter().map(|(key, value)| (key.clone(), value.clone())).collect()
    }

    pub(super) fn remove(&mut self, key: &K) {
        if let Some(old) = self.values.pop(key) {
            self.weight -= old.weight();
        }
    }

    pub(super) fn put(&mut self, key: K, value: V) {
        self.weight += value.weight();
        if let Some((_, old)) = self.values.push(key, value) {
            self.weight -= old.weight();
        }
        while self.weight > self.bound && self.values.len() > 1 {
            if let Some((_, old)) = self.values.pop_lru() {
                self.weight -= old.weight();
            }
        }
    }
}

/// Answers, each worked out by the first who asks while the others wait for it.
#[derive(Debug)]
pub(super) struct Memo<K: Hash + Eq, V>(Mutex<State<K, V>>);

#[derive(Debug)]
struct State<K: Hash + Eq, V> {
    known: Weighed<K, V>,
    under_way: HashMap<K, Arc<Work<V>>>,
}

/// An answer that somebody is working out.
#[derive(Debug)]
struct Work<V> {
    answer: Mutex<Option<Result<V>>>,
    is_there: Condvar,
}

impl<K: Hash + Eq + Clone, V: Weigh + Clone> Memo<K, V> {
    /// Nothing yet; `bound` is how many bytes it may come to weigh.
    pub(super) fn new(bound: usize) -> Memo<K, V> {
        let known = Weighed::new(bound);
        Memo(Mutex::new(State { known, under_way: HashMap::new() }))
    }

    /// The answer, where it is known.
    pub(super) fn get(&self, key: &K) -> Option<V> {
        self.lock().known.get(key).cloned()
    }

    /// Forgets the answers of which that is true.
    pub(super) fn forget(&self, is_wrong: impl Fn(&V) -> bool) {
        let known = self.lock().known.all();
        for (key, _) in known.iter().filter(|(_, value)| is_wrong(value)) {
            self.lock().known.remove(key);
        }
    }

    /// The answer, which `make` works out where it is neither known nor under way.
    ///
    /// # Errors
    /// That of `make`, for all who wait for it; whoever asks later tries again.
    pub(super) fn get_or_make(&self, key: K, make: impl FnOnce() -> Result<V>) -> Result<V> {
        let work = {
            let mut state = self.lock();
            if let Some(known) = state.known.get(&key) {
                return Ok(known.clone());
            }
            match state.under_way.entry(key.clone()) {
                Entry::Occupied(entry) => {
                    let work = Arc::clone(entry.get());
                    drop(state);
                    return work.wait();
                }
                Entry::Vacant(entry) => Arc::clone(entry.insert(Arc::default())),
            }
        };
        let mut worker = Worker { memo: self, key, work, answer: None };
        let made = make();
        worker.answer = Some(again(&made));
        made
    }

    fn lock(&self) -> MutexGuard<'_, State<K, V>> {
        lock(&self.0)
    }
}

impl<V> Default for Work<V> {
    fn default() -> Work<V> {
        Work { answer: Mutex::new(None), is_there: Condvar::new() }
    }
}

impl<V: Clone> Work<V> {
    fn wait(&self) -> Result<V> {
        let mut answer = lock(&self.answer);
        loop {
            match &*answer {
                Some(answer) => return again(answer),
                None => answer = self.is_there.wait(answer).unwrap_or_else(PoisonError::into_inner),
            }
        }
    }
}

/// Who works something out. However that ends, those who wait are told.
struct Worker<'a, K: Hash + Eq + Clone, V: Weigh + Clone> {
    memo: &'a Memo<K, V>,
    key: K,
    work: Arc<Work<V>>,
    answer: Option<Result<V>>,
}

impl<K: Hash + Eq + Clone, V: Weigh + Clone> Drop for Worker<'_, K, V> {
    fn drop(&mut self) {
        let broken = || Err(Error::corrupt("stratafs", "a defect: what worked it out panicked"));
        let answer = self.answer.take().unwrap_or_else(broken);
        {
            let mut state = self.memo.lock();
            state.under_way.remove(&self.key);
            if let Ok(value) = &answer {
                state.known.put(self.key.clone(), value.clone());
            }
        }
        *lock(&self.work.answer) = Some(answer);
        self.work.is_there.notify_all();
    }
}

fn again<V: Clone>(answer: &Result<V>) -> Result<V> {
    match answer {
        Ok(value) => Ok(value.clone()),
        Err(err) => Err(err.again()),
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use std::panic::{AssertUnwindSafe, catch_unwind};
    use std::sync::Barrier;
    use std::sync::atomic::{AtomicUsize, Ordering};
    use std::thread;
    use std::time::Duration;

    use super::*;

    impl Weigh for usize {
        fn weight(&self) -> usize {
            *self
        }
    }

    /// Asks for the same by 64 threads at once; their answers, and how often it was worked out.
    fn ask(
        memo: &Memo<u8, usize>,
        answer: impl Fn() -> Result<usize> + Sync,
    ) -> (Vec<Result<usize>>, usize) {
        let (count, barrier) = (AtomicUsize::new(0), Barrier::new(64));
        let reader = || {
            barrier.wait();
            memo.get_or_make(7, || {
                count.fetch_add(1, Ordering::Relaxed);
                thread::sleep(Duration::from_millis(300)); // until all have come
                answer()
            })
        };
        let answers = thread::scope(|scope| {
            let readers: Vec<_> = (0..64).map(|_| scope.spawn(reader)).collect();
            readers.into_iter().map(|reader| reader.join().unwrap()).collect()
        });
        (answers, count.into_inner())
    }

    #[test]
    fn of_64_who_ask_at_once_one_works_it_out() {
        let memo = Memo::new(1000);
        let (answers, count) = ask(&memo, || Ok(5));
        assert!(answers.iter().all(|answer| matches!(answer, Ok(5))));
        assert_eq!(count, 1);
        assert_eq!(memo.get_or_make(7, || panic!("it is known")).unwrap(), 5);
    }

    #[test]
    fn an_error_reaches_all_who_wait_and_the_next_tries_again() {
        let memo = Memo::new(1000);
        let (answers, count) = ask(&memo, || Err(Error::stale("it")));
        let said = |answer: &Result<usize>| answer.as_ref().unwrap_err().to_string();
        assert!(answers.iter().all(|answer| said(answer) == Error::stale("it").to_string()));
        assert_eq!(count, 1);
        assert_eq!(memo.get_or_make(7, || Ok(6)).unwrap(), 6);
    }

    #[test]
    fn a_panic_keeps_nobody_waiting() {
        let memo: Memo<u8, usize> = Memo::new(1000);
        let panic = || memo.get_or_make(7, || panic!("as a defect would"));
        assert!(catch_unwind(AssertUnwindSafe(panic)).is_err());
        assert_eq!(memo.get_or_make(7, || Ok(6)).unwrap(), 6);
    }

    #[test]
    fn the_least_recently_used_goes_first() {
        let mut values: Weighed<u8, usize> = Weighed::new(10);
        for (key, weight) in [(1, 4), (2, 4)] {
            values.put(key, weight);
        }
        assert_eq!(values.get(&1), Some(&4));
        values.put(3, 4);
        assert_eq!([1, 2, 3].map(|key| values.get(&key).copied()), [Some(4), None, Some(4)]);
        values.put(4, 100);
        assert_eq!([1, 3, 4].map(|key| values.get(&key).copied()), [None, None, Some(100)]);
        values.put(5, 10);
        values.put(5, 9);
        assert_eq!(values.get(&5), Some(&9));
        assert_eq!(values.weight, 9);
    }
}
