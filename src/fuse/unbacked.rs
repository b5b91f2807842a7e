//! References that the kernel gives back although the tree never counted them.
//!
//! `readdirplus` must list a name whose lookup fails, with its inode number, and may not claim
//! attributes for it. There is one way to say so (Linux `fs/fuse/readdir.c`): attributes that the
//! kernel refuses. It lists the name, ignores the rest, and forgets the number once. That forget
//! is nobody's: the tree counted no reference, and must not lose one that it did count.

use std::collections::HashMap;
use std::sync::{Mutex, MutexGuard, PoisonError};

/// How often the kernel will forget each inode number beyond what the tree counted.
#[derive(Debug, Default)]
pub(super) struct Unbacked {
    /// No count is 0.
    counts: Mutex<HashMap<u64, u64>>,
}

impl Unbacked {
    /// One forget of `ino` will come that is not the tree's.
    pub(super) fn add(&self, ino: u64) {
        *self.counts().entry(ino).or_default() += 1;
    }

    /// How many of the `count` references to `ino` that the kernel gives back are the tree's.
    pub(super) fn settle(&self, ino: u64, count: u64) -> u64 {
        let mut counts = self.counts();
        let Some(unbacked) = counts.get_mut(&ino) else { return count };
        let settled = count.min(*unbacked);
        *unbacked -= settled;
        if *unbacked == 0 {
            counts.remove(&ino);
        }
        count - settled
    }

    fn counts(&self) -> MutexGuard<'_, HashMap<u64, u64>> {
        self.counts.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_forget_that_nobody_counted_does_not_reach_the_tree() {
        let unbacked = Unbacked::default();
        assert_eq!(unbacked.settle(7, 3), 3);
        unbacked.add(7);
        unbacked.add(7);
        assert_eq!(unbacked.settle(8, 1), 1);
        assert_eq!(unbacked.settle(7, 1), 0);
        assert_eq!(unbacked.settle(7, 5), 4);
        assert_eq!(unbacked.settle(7, 1), 1);
    }
}
