//! Directories that are being read, each with the listing that it had when that began.
//!
//! Without an `opendir` (see [`super`]) no handle says who reads, so cookies do: besides the
//! position they name the turn, of which every reading of a directory that may change gets its own.

use std::ffi::OsStr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};

use crate::backing::FileKind;
use crate::error::Result;
use crate::memo::Memo;
use crate::tree::Listing;
use crate::weighed::Weigh;

/// Memory that listings may take before the least recently used go, in bytes.
const BOUND: usize = 16 << 20;

/// Bits of a cookie that hold the position; those above it hold the turn, the sign stays free.
const POSITION: u32 = 32;

/// Listings by inode number and turn.
#[derive(Debug)]
pub(super) struct Listings {
    last: AtomicU32,
    under_way: Memo<(u64, Turn), Arc<Listing>>,
}

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
        Listings { last: AtomicU32::new(0), under_way: Memo::new(BOUND) }
    }

    /// The listing of `ino` to go on from the cookie `after`: that of the same turn. At the start,
    /// or where it had to go meanwhile, it is read anew; that of a directory that can't change by
    /// one at a time, and the others wait for it.
    ///
    /// # Errors
    /// What `read` fails with.
    pub(super) fn read(
        &self,
        ino: u64,
        after: u64,
        is_immutable: bool,
        read: impl FnOnce() -> Result<Arc<Listing>>,
    ) -> Result<Reading> {
        let position = after & ((1 << POSITION) - 1);
        let turn = (after >> POSITION) as Turn;
        if position > 0
            && !is_immutable
            && let Some(listing) = self.under_way.get(&(ino, turn))
        {
            return Ok(Reading { ino, turn, position, listing });
        }
        let turn = if is_immutable { 0 } else { self.next() };
        let listing = self.under_way.get_or_make((ino, turn), read)?;
        Ok(Reading { ino, turn, position, listing })
    }

    /// Drops what somebody came to the end of. Should he go back, it is read anew.
    pub(super) fn end(&self, reading: &Reading) {
        self.under_way.remove(&(reading.ino, reading.turn));
    }

    /// A turn that is not 0, and was not given out for long.
    fn next(&self) -> Turn {
        let last = self.last.fetch_add(1, Ordering::Relaxed);
        last % (Turn::MAX >> 1) + 1
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
    use std::cell::Cell;
    use std::thread;
    use std::time::Duration;

    use super::*;
    use crate::error::Error;
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
        let read = || Ok(listing(names));
        let reading = listings.read(INO, after, is_immutable, read).unwrap();
        let shown = |entry: DirEntry| (entry.cookie, entry.name.to_str().unwrap().to_owned());
        reading.entries().map(shown).collect()
    }

    /// What the listings weigh that are kept.
    fn kept(listings: &Listings) -> usize {
        let kept = Cell::new(0);
        listings.under_way.forget(|listing| {
            kept.set(kept.get() + listing.weight());
            false
        });
        kept.get()
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
            let read = || Ok(listing(&["a"]));
            let reading = listings.read(INO, 0, is_immutable, read).unwrap();
            let cookie = reading.entries().last().unwrap().cookie;
            listings.end(&reading);
            let fails = || Err(Error::stale("it"));
            assert!(listings.read(INO, cookie, is_immutable, fails).is_err());
            assert_eq!(kept(&listings), 0);
        }
    }

    #[test]
    fn of_many_who_read_a_directory_at_once_one_lists_it() {
        let listings = Listings::new();
        let listed = AtomicU32::new(0);
        let slowly = || {
            listed.fetch_add(1, Ordering::Relaxed);
            thread::sleep(Duration::from_millis(50));
            Ok(listing(&["a"]))
        };
        thread::scope(|scope| {
            for _ in 0..8 {
                scope.spawn(|| {
                    let reading = listings.read(INO, 0, true, slowly).unwrap();
                    assert_eq!(reading.entries().count(), 3);
                });
            }
        });
        assert_eq!(listed.into_inner(), 1);
    }

    #[test]
    fn listings_that_nobody_ended_are_bounded() {
        let listings = Listings::new();
        let names = ["a name of some length that is repeated"; 1000];
        for _ in 0..1000 {
            behind(&listings, 0, false, &names);
        }
        let kept = kept(&listings);
        assert!((BOUND / 2..=BOUND).contains(&kept), "{kept}");
    }
}
