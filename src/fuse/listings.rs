//! Directories that are being read, each with the listing that it had when that began.
//!
//! Without an `opendir` (see [`super`]) no handle says who reads, so cookies do: besides the
//! position they name the turn, of which every reading of a directory that may change gets its own.

use std::ffi::OsStr;
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};

use crate::backing::FileKind;
use crate::tree::Listing;
use crate::weighed::{Weigh, Weighed};

/// Memory that listings may take before the least recently used go, in bytes.
const BOUND: usize = 16 << 20;

/// Bits of a cookie that hold the position; those above it hold the turn, the sign stays free.
const POSITION: u32 = 32;

/// Listings by inode number and turn.
#[derive(Debug)]
pub(super) struct Listings {
    last: AtomicU32,
    state: Mutex<State>,
    /// Somebody is done with a directory that can't change.
    done: Condvar,
}

#[derive(Debug)]
struct State {
    kept: Weighed<(u64, Turn), Arc<Listing>>,
    /// Directories that can't change and are being listed, by inode number.
    under_way: Vec<u64>,
}

/// That a directory is being listed.
struct UnderWay<'a>(&'a Listings, u64);

/// Number of a reading of a directory that may change; 0 for all of one that can't.
type Turn = u32;

/// A place in a listing.
#[derive(Debug)]
pub(super) struct Reading {
    ino: u64,
    turn: Turn,
    /// Position of what was read last, counted from 1.
    position: u64,
    listing: Arc<Listing>,
}

/// A line of `readdir`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct DirEntry<'a> {
    /// Where to go on behind it.
    pub(super) cookie: u64,
    /// Its name.
    pub(super) name: &'a OsStr,
    /// Its inode number.
    pub(super) ino: u64,
    /// What it is.
    pub(super) kind: FileKind,
    /// Whether it is `.` or `..`.
    pub(super) is_dot: bool,
    /// Whether it may be looked up at once.
    pub(super) is_cheap: bool,
}

impl Listings {
    pub(super) fn new() -> Listings {
        let state = State { kept: Weighed::new(BOUND), under_way: Vec::new() };
        Listings { last: AtomicU32::new(0), state: Mutex::new(state), done: Condvar::new() }
    }

    /// The listing of `ino` to go on from the cookie `after`: that of the same turn. At the start,
    /// or where it had to go meanwhile, it is read anew; that of a directory that can't change by
    /// one at a time, and the others wait for it.
    ///
    /// # Errors
    /// What `read` fails with.
    pub(super) fn read<E>(
        &self,
        ino: u64,
        after: u64,
        is_immutable: bool,
        read: impl FnOnce() -> Result<Arc<Listing>, E>,
    ) -> Result<Reading, E> {
        let position = after & ((1 << POSITION) - 1);
        let turn = match position {
            _ if is_immutable => 0,
            0 => 0, // at the start, whatever stands above
            _ => (after >> POSITION) as Turn,
        };
        let mut state = self.lock();
        loop {
            if let Some(listing) = state.kept.get(&(ino, turn)).cloned() {
                return Ok(Reading { ino, turn, position, listing });
            }
            if !is_immutable || !state.under_way.contains(&ino) {
                break;
            }
            state = self.done.wait(state).unwrap_or_else(PoisonError::into_inner);
        }
        let _under_way = is_immutable.then(|| {
            state.under_way.push(ino);
            UnderWay(self, ino)
        });
        drop(state);
        let listing = read()?;
        let turn = if is_immutable || turn > 0 { turn } else { self.next() };
        self.lock().kept.put((ino, turn), Arc::clone(&listing));
        Ok(Reading { ino, turn, position, listing })
    }

    /// Drops what somebody came to the end of. Should he go back, it is read anew.
    pub(super) fn end(&self, reading: &Reading) {
        self.lock().kept.remove(&(reading.ino, reading.turn));
    }

    /// A turn that is not 0, and was not given out for long.
    fn next(&self) -> Turn {
        let last = self.last.fetch_add(1, Ordering::Relaxed);
        last % (Turn::MAX >> 1) + 1
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for UnderWay<'_> {
    fn drop(&mut self) {
        self.0.lock().under_way.retain(|&ino| ino != self.1);
        self.0.done.notify_all();
    }
}

impl Reading {
    /// Whether the directory may change.
    pub(super) fn is_changing(&self) -> bool {
        self.turn > 0
    }

    /// The entries that follow: `.`, `..`, then the children. None behind a position that was never
    /// given out.
    pub(super) fn entries(&self) -> impl Iterator<Item = DirEntry<'_>> {
        let cookie = |position: u64| u64::from(self.turn) << POSITION | position;
        let dots = [(1, ".", self.ino), (2, "..", self.listing.parent)];
        let dots = dots.into_iter().filter(|&(position, ..)| position > self.position);
        let dots = dots.map(move |(position, name, ino)| DirEntry {
            cookie: cookie(position),
            name: OsStr::new(name),
            ino,
            kind: FileKind::Directory,
            is_dot: true,
            is_cheap: false,
        });
        let first = self.position.saturating_sub(2);
        let children = self.listing.children.get(first as usize..).unwrap_or_default();
        let children = children.iter().zip(first + 3..).map(move |(child, position)| DirEntry {
            cookie: cookie(position),
            name: &child.name,
            ino: child.ino,
            kind: child.kind,
            is_dot: false,
            is_cheap: child.is_cheap,
        });
        dots.chain(children)
    }
}

impl Weigh for Arc<Listing> {
    fn weight(&self) -> usize {
        let names: usize = self.children.iter().map(|child| child.name.len()).sum();
        size_of::<Listing>() + size_of_val(&self.children[..]) + names
    }
}

#[cfg(test)]
mod tests {
    use std::thread;
    use std::time::Duration;

    use super::*;
    use crate::tree::Child;

    const INO: u64 = 5;

    fn listing(names: &[&str]) -> Arc<Listing> {
        let child = |(name, ino): (&&str, u64)| Child {
            name: name.into(),
            ino,
            kind: FileKind::Regular,
            is_cheap: true,
        };
        Arc::new(Listing { children: names.iter().zip(10..).map(child).collect(), parent: 1 })
    }

    /// Cookies and names behind `after`, if the directory holds `names` by then.
    fn behind(
        listings: &Listings,
        after: u64,
        is_immutable: bool,
        names: &[&str],
    ) -> Vec<(u64, String)> {
        let read = || Ok::<_, ()>(listing(names));
        let reading = listings.read(INO, after, is_immutable, read).unwrap();
        let shown = |entry: DirEntry| (entry.cookie, entry.name.to_str().unwrap().to_owned());
        reading.entries().map(shown).collect()
    }

    #[test]
    fn every_cookie_leads_to_the_entries_behind_it() {
        for is_immutable in [false, true] {
            let listings = Listings::new();
            let read = |after| behind(&listings, after, is_immutable, &["a", "b", "c"]);
            let all = read(0);
            let names: Vec<_> = all.iter().map(|(_, name)| &name[..]).collect();
            assert_eq!(names, [".", "..", "a", "b", "c"]);
            for (position, (cookie, _)) in all.iter().enumerate() {
                assert!(i64::try_from(*cookie).is_ok());
                assert_eq!(read(*cookie), all[position + 1..]);
            }
        }
    }

    #[test]
    fn a_forged_cookie_leads_nowhere_and_changes_nothing() {
        let listings = Listings::new();
        let turn = 1 << POSITION;
        for cookie in [6, turn - 1, 9 * turn + 7, i64::MAX as u64, u64::MAX - 2, u64::MAX] {
            assert_eq!(behind(&listings, cookie, false, &["old"]), [], "{cookie:x}");
        }
        for cookie in [0, turn, 77 * turn] {
            assert_eq!(behind(&listings, cookie, false, &["new"])[2].1, "new", "{cookie:x}");
        }
    }

    #[test]
    fn a_listing_stays_until_it_is_read_from_its_start_again() {
        let listings = Listings::new();
        let read = |after, names: &[&str]| behind(&listings, after, false, names);
        let first = read(0, &["a", "b"]);
        let second = read(0, &["c"]);
        assert_eq!(read(first[1].0, &[]), first[2..]);
        assert_eq!(read(second[1].0, &[]), second[2..]);
        assert_eq!(read(0, &["d"])[2].1, "d");
    }

    #[test]
    fn what_was_read_to_its_end_is_not_kept() {
        let listings = Listings::new();
        for is_immutable in [true, false] {
            let read = || Ok::<_, ()>(listing(&["a"]));
            let reading = listings.read(INO, 0, is_immutable, read).unwrap();
            let cookie = reading.entries().last().unwrap().cookie;
            listings.end(&reading);
            assert!(listings.read(INO, cookie, is_immutable, || Err(())).is_err());
            assert!(listings.lock().kept.all().is_empty());
        }
    }

    #[test]
    fn of_many_who_read_a_directory_at_once_one_lists_it() {
        let listings = Listings::new();
        let (listed, failed) = (AtomicU32::new(0), AtomicU32::new(0));
        let slowly = || {
            thread::sleep(Duration::from_millis(20));
            match listed.fetch_add(1, Ordering::Relaxed) {
                0 => Err(()), // only he who listed it is told
                _ => Ok(listing(&["a"])),
            }
        };
        thread::scope(|scope| {
            for _ in 0..8 {
                scope.spawn(|| match listings.read(INO, 0, true, slowly) {
                    Ok(reading) => assert_eq!(reading.entries().count(), 3),
                    Err(()) => drop(failed.fetch_add(1, Ordering::Relaxed)),
                });
            }
        });
        assert_eq!((listed.into_inner(), failed.into_inner()), (2, 1));
        assert!(listings.lock().under_way.is_empty());
    }

    #[test]
    fn listings_that_nobody_ended_are_bounded() {
        let listings = Listings::new();
        let names = ["a name of some length that is repeated"; 1000];
        for _ in 0..1000 {
            behind(&listings, 0, false, &names);
        }
        let kept: usize =
            listings.lock().kept.all().iter().map(|(_, listing)| listing.weight()).sum();
        assert!((BOUND / 2..=BOUND).contains(&kept), "{kept}");
    }
}
