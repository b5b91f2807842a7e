//! Directories of layers as they were listed last, for the lookups that follow.

use std::ffi::OsStr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use super::recent::Recent;
use crate::metrics::Usage;
use crate::overlay::own::{OwnEntry, What};
use crate::overlay::{Entry, Place};
use crate::weighed::Weigh;

/// Memory that listings may take, in bytes: some 1,500 names, or one directory of any size.
const BOUND: usize = 512 << 10;

/// What memory is allocated in, in bytes, about: a small piece takes as much more than it holds.
const PIECE: usize = 24;

/// Something that a directory lists.
pub(super) trait Named {
    fn name(&self) -> &OsStr;

    /// Memory that it takes, in bytes, about.
    fn weight(&self) -> usize;
}

impl Named for Entry {
    fn name(&self) -> &OsStr {
        &self.name
    }

    fn weight(&self) -> usize {
        let places = [&self.place, &self.data].into_iter().chain(&self.lowers);
        size_of::<Entry>() + self.name.len() + PIECE + places.map(of_place).sum::<usize>()
    }
}

impl Named for OwnEntry {
    fn name(&self) -> &OsStr {
        &self.name
    }

    fn weight(&self) -> usize {
        let place = match &self.what {
            What::File(place) => of_place(place),
            What::Whiteout | What::Opaque => 0,
        };
        size_of::<OwnEntry>() + self.name.len() + PIECE + place
    }
}

/// Memory that a place takes besides its own size.
fn of_place(place: &Place) -> usize {
    place.path.len() + PIECE
}

/// A directory as it was listed last.
#[derive(Debug)]
pub(super) struct Listed<T> {
    /// Sorted by name, bytewise.
    pub(super) entries: Vec<T>,
    listed: Instant,
    weight: usize,
}

impl<T: Named> Listed<T> {
    pub(super) fn find(&self, name: &OsStr) -> Option<&T> {
        let at = self.entries.binary_search_by(|entry| entry.name().cmp(name));
        at.ok().map(|at| &self.entries[at])
    }
}

impl<T> Listed<T> {
    /// How long ago it was listed.
    pub(super) fn age(&self) -> Duration {
        self.listed.elapsed()
    }
}

impl<T> Weigh for Arc<Listed<T>> {
    fn weight(&self) -> usize {
        self.weight
    }
}

/// Directories that were listed last, by inode number.
#[derive(Debug)]
pub(super) struct DirectoryCache<T>(Recent<u64, Arc<Listed<T>>>);

impl<T> Default for DirectoryCache<T> {
    fn default() -> DirectoryCache<T> {
        DirectoryCache(Recent::new(BOUND))
    }
}

impl<T: Named> DirectoryCache<T> {
    pub(super) fn get(&self, ino: u64) -> Option<Arc<Listed<T>>> {
        self.0.get(&ino)
    }

    /// Keeps what a directory holds now.
    pub(super) fn put(&self, ino: u64, mut entries: Vec<T>) -> Arc<Listed<T>> {
        entries.shrink_to_fit();
        let weight = entries.iter().map(Named::weight).sum();
        let listed = Arc::new(Listed { entries, listed: Instant::now(), weight });
        self.0.put(ino, Arc::clone(&listed));
        listed
    }

    /// Keeps nothing.
    pub(super) fn clear(&self) {
        self.0.clear();
    }

    pub(super) fn usage(&self) -> Usage {
        self.0.usage()
    }
}

#[cfg(test)]
mod tests {
    use std::ffi::OsString;

    use super::*;

    #[derive(Debug)]
    struct Heavy(OsString);

    impl Named for Heavy {
        fn name(&self) -> &OsStr {
            &self.0
        }

        fn weight(&self) -> usize {
            BOUND / 100
        }
    }

    fn names(count: usize) -> Vec<Heavy> {
        (0..count).map(|number| Heavy(format!("{number:04}").into())).collect()
    }

    #[test]
    fn listings_stay_up_to_a_bound_and_one_however_large() {
        let cache = DirectoryCache::default();
        (0..10).for_each(|ino| drop(cache.put(ino, names(30))));
        let there = |cache: &DirectoryCache<Heavy>| -> Vec<u64> {
            (0..20).filter(|&ino| cache.get(ino).is_some()).collect()
        };
        assert_eq!(there(&cache), [7, 8, 9]);
        assert!(cache.get(8).unwrap().find(OsStr::new("0029")).is_some());
        assert!(cache.get(8).unwrap().find(OsStr::new("0030")).is_none());
        cache.put(10, names(500));
        assert_eq!(there(&cache), [10]);
        cache.put(11, names(1));
        assert_eq!(there(&cache), [11]);
        assert_eq!(cache.usage().evictions, 11);
    }
}
