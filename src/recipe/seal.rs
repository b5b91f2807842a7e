//! A recipe that is held to a digest as a whole, before any of its bytes is given out.
//!
//! Checksums of files say nothing of what stands between them, nor of a record that was made to
//! deceive; a digest of all the bytes does. Of many readers, one reads it all through and the others
//! wait for what it finds.

use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};

use sha2::{Digest as _, Sha256};

use crate::digest::Digest;
use crate::error::{Error, Result};

#[derive(Debug)]
pub(super) struct Seal {
    digest: Digest,
    state: Mutex<State>,
    settled: Condvar,
}

#[derive(Debug)]
enum State {
    /// Nobody has looked yet, or a file has moved since.
    Unknown,
    /// Somebody is reading it all.
    Checking,
    /// It has its digest.
    Whole,
    /// It could not be read, or has another digest. Whoever waited is told; the next one looks again.
    Broken(String),
}

impl Seal {
    pub(super) fn new(digest: Digest) -> Seal {
        Seal { digest, state: Mutex::new(State::Unknown), settled: Condvar::new() }
    }

    /// Makes sure that all the bytes, which `scan` adds to a hash, have the digest.
    pub(super) fn check(&self, scan: impl FnOnce(&mut Sha256) -> Result<()>) -> Result<()> {
        let mut state = self.lock();
        let mut has_waited = false;
        loop {
            match &*state {
                State::Whole => return Ok(()),
                State::Broken(why) if has_waited => return Err(self.broken(why.clone())),
                State::Checking => {
                    has_waited = true;
                    state = self.settled.wait(state).unwrap_or_else(PoisonError::into_inner);
                }
                State::Unknown | State::Broken(_) => break,
            }
        }
        *state = State::Checking;
        drop(state);
        let mut check = Check { seal: self, found: State::Broken("the check panicked".into()) };
        let mut hash = Sha256::new();
        let result = scan(&mut hash).and_then(|()| match Digest::from_hash(hash) == self.digest {
            true => Ok(()),
            false => Err(self.broken("its bytes have another digest".into())),
        });
        check.found = match &result {
            Ok(()) => State::Whole,
            Err(err) => State::Broken(err.to_string()),
        };
        result
    }

    /// Lets the next reader look again: a file is not as it was when it was looked at.
    pub(super) fn reopen(&self) {
        let mut state = self.lock();
        if matches!(*state, State::Whole) {
            *state = State::Unknown;
        }
    }

    fn broken(&self, why: String) -> Error {
        Error::corrupt(format!("layer {}", self.digest), why)
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A check that is under way; when it ends, however it does, it says what it found.
struct Check<'a> {
    seal: &'a Seal,
    found: State,
}

impl Drop for Check<'_> {
    fn drop(&mut self) {
        *self.seal.lock() = std::mem::replace(&mut self.found, State::Unknown);
        self.seal.settled.notify_all();
    }
}

#[cfg(test)]
mod tests {
    use std::panic::{AssertUnwindSafe, catch_unwind};
    use std::sync::atomic::{AtomicU32, Ordering};
    use std::thread;
    use std::time::Duration;

    use super::*;

    fn hello(hash: &mut Sha256) -> Result<()> {
        hash.update(b"hello");
        Ok(())
    }

    #[test]
    fn of_many_readers_one_looks_and_all_are_told() {
        for (digest, is_whole) in [(Digest::of(b"hello"), true), (Digest::of(b"other"), false)] {
            let seal = Seal::new(digest);
            let looks = AtomicU32::new(0);
            let look = || {
                seal.check(|hash| {
                    looks.fetch_add(1, Ordering::Relaxed);
                    thread::sleep(Duration::from_millis(200)); // until all the others wait
                    hello(hash)
                })
            };
            thread::scope(|scope| {
                let readers: Vec<_> = (0..64).map(|_| scope.spawn(look)).collect();
                for reader in readers {
                    assert_eq!(reader.join().unwrap().is_ok(), is_whole);
                }
            });
            assert_eq!(looks.load(Ordering::Relaxed), 1);
        }
    }

    #[test]
    fn a_failure_is_not_remembered_and_a_success_until_something_moves() {
        let seal = Seal::new(Digest::of(b"hello"));
        let fails = |_: &mut Sha256| Err(Error::stale("file"));
        assert!(seal.check(fails).is_err());
        assert!(seal.check(|_| Ok(())).is_err(), "these bytes have another digest");
        seal.check(hello).unwrap();
        seal.check(fails).unwrap();
        seal.reopen();
        assert!(seal.check(fails).is_err());
    }

    #[test]
    fn a_check_that_panics_leaves_no_reader_waiting() {
        let seal = Seal::new(Digest::of(b"hello"));
        let panics = AssertUnwindSafe(|| seal.check(|_| panic!("a defect")));
        assert!(catch_unwind(panics).is_err());
        seal.check(hello).unwrap();
    }
}
