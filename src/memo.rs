//! What was worked out and may be asked for again: each thing once, however many ask at a time, and
//! the least recently used first to go where it all grows too heavy.

use std::collections::HashMap;
use std::collections::hash_map::Entry;
use std::fmt::Debug;
use std::hash::Hash;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};

use crate::error::{Error, Result};
use crate::metrics::Usage;
use crate::weighed::{Weigh, Weighed};

/// Answers, each worked out by the first who asks while the others wait for it.
#[derive(Debug)]
pub(crate) struct Memo<K: Hash + Eq, V>(Mutex<State<K, V>>);

#[derive(Debug)]
struct State<K: Hash + Eq, V> {
    known: Weighed<K, V>,
    under_way: HashMap<K, Arc<Work<V>>>,
    usage: Usage,
}

/// An answer that somebody is working out.
#[derive(Debug)]
struct Work<V> {
    answer: Mutex<Option<Result<V>>>,
    is_there: Condvar,
}

impl<K: Hash + Eq + Clone, V: Weigh + Clone> Memo<K, V> {
    /// Nothing yet; `bound` is how many bytes it may come to weigh.
    pub(crate) fn new(bound: usize) -> Memo<K, V> {
        let known = Weighed::new(bound);
        Memo(Mutex::new(State { known, under_way: HashMap::new(), usage: Usage::default() }))
    }

    /// The answer, where it is known.
    pub(crate) fn get(&self, key: &K) -> Option<V> {
        self.lock().known.get(key).cloned()
    }

    /// Forgets one answer.
    pub(crate) fn remove(&self, key: &K) {
        self.lock().known.remove(key);
    }

    /// Forgets the answers of which that is true.
    pub(crate) fn forget(&self, is_wrong: impl Fn(&V) -> bool) {
        let known = self.lock().known.all();
        for (key, _) in known.iter().filter(|(_, value)| is_wrong(value)) {
            self.lock().known.remove(key);
        }
    }

    /// The answer, which `make` works out where it is neither known nor under way.
    ///
    /// # Errors
    /// That of `make`, for all who wait for it; whoever asks later tries again.
    pub(crate) fn get_or_make(&self, key: K, make: impl FnOnce() -> Result<V>) -> Result<V> {
        let work = {
            let mut state = self.lock();
            if let Some(known) = state.known.get(&key).cloned() {
                state.usage.asked(true);
                return Ok(known);
            }
            match state.under_way.entry(key.clone()) {
                Entry::Occupied(entry) => {
                    let work = Arc::clone(entry.get());
                    state.usage.asked(true);
                    drop(state);
                    return work.wait();
                }
                Entry::Vacant(entry) => {
                    let work = Arc::clone(entry.insert(Arc::default()));
                    state.usage.asked(false);
                    work
                }
            }
        };
        let mut worker = Worker { memo: self, key, work, answer: None };
        let made = make();
        worker.answer = Some(again(&made));
        made
    }

    /// How often [`Memo::get_or_make`] had the answer, also where somebody was at it.
    pub(crate) fn usage(&self) -> Usage {
        self.lock().usage
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
                let gone = state.known.put(self.key.clone(), value.clone());
                state.usage.evictions += gone;
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
        assert_eq!(memo.usage(), Usage { hits: 64, misses: 1, evictions: 0 });
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
}
