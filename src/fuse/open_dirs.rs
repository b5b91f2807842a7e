//! Directories that are open, each with the listing that it had when it was read from its start.

use std::collections::HashMap;
use std::ffi::OsStr;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, PoisonError, RwLock};

use crate::backing::FileKind;
use crate::tree::Listing;

/// Listings by handle, from `opendir` to `releasedir`; `None` where it was not read yet, and need
/// not be while the kernel has the listing of an unchanging directory.
#[derive(Debug, Default)]
pub(super) struct OpenDirs {
    last: AtomicU64,
    listings: RwLock<HashMap<u64, Option<Arc<Listing>>>>,
}

impl OpenDirs {
    /// A new handle.
    pub(super) fn open(&self) -> u64 {
        let handle = self.last.fetch_add(1, Ordering::Relaxed) + 1;
        self.listings.write().unwrap_or_else(PoisonError::into_inner).insert(handle, None);
        handle
    }

    /// The listing of `handle` to go on from the cookie `after`: from the start it is read anew,
    /// and stays the same until its end.
    ///
    /// # Errors
    /// What `read` fails with.
    pub(super) fn listing<E>(
        &self,
        handle: u64,
        after: u64,
        read: impl FnOnce() -> Result<Arc<Listing>, E>,
    ) -> Result<Arc<Listing>, E> {
        let known = self.listings.read().unwrap_or_else(PoisonError::into_inner);
        if after > 0
            && let Some(Some(listing)) = known.get(&handle)
        {
            return Ok(Arc::clone(listing));
        }
        drop(known);
        let listing = read()?;
        let mut listings = self.listings.write().unwrap_or_else(PoisonError::into_inner);
        if let Some(kept) = listings.get_mut(&handle) {
            *kept = Some(Arc::clone(&listing));
        }
        Ok(listing)
    }

    /// Closes `handle`.
    pub(super) fn close(&self, handle: u64) {
        self.listings.write().unwrap_or_else(PoisonError::into_inner).remove(&handle);
    }
}

/// A line of `readdir`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct DirEntry<'a> {
    /// Where to go on behind it: its position, counted from 1.
    pub(super) cookie: u64,
    /// Its name.
    pub(super) name: &'a OsStr,
    /// Its inode number.
    pub(super) ino: u64,
    /// What it is.
    pub(super) kind: FileKind,
    /// Whether it may be looked up at once.
    pub(super) is_cheap: bool,
}

/// The entries of the directory `own` behind the cookie `after`: `.`, `..`, then the children.
/// None behind a cookie that was never given out.
pub(super) fn entries(
    listing: &Listing,
    own: u64,
    after: u64,
) -> impl Iterator<Item = DirEntry<'_>> {
    let dots = [(1, ".", own), (2, "..", listing.parent)].map(|(cookie, name, ino)| DirEntry {
        cookie,
        name: OsStr::new(name),
        ino,
        kind: FileKind::Directory,
        is_cheap: false,
    });
    let first = after.saturating_sub(2);
    let children = listing.children.get(first as usize..).unwrap_or_default();
    let children = children.iter().zip(first.saturating_add(3)..).map(|(child, cookie)| DirEntry {
        cookie,
        name: &child.name,
        ino: child.ino,
        kind: child.kind,
        is_cheap: child.is_cheap,
    });
    dots.into_iter().filter(move |dot| dot.cookie > after).chain(children)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::tree::Child;

    fn listing() -> Listing {
        let child = |(name, ino): (&str, u64)| Child {
            name: name.into(),
            ino,
            kind: FileKind::Regular,
            is_cheap: true,
        };
        let children = [("a", 10), ("b", 11), ("c", 12)].map(child).into();
        Listing { children, parent: 1 }
    }

    #[test]
    fn every_cookie_leads_to_the_entries_behind_it() {
        let listing = listing();
        let names = |after| -> Vec<_> {
            entries(&listing, 5, after).map(|entry| (entry.cookie, entry.name, entry.ino)).collect()
        };
        let all = names(0);
        let shown: Vec<_> =
            all.iter().map(|(_, name, ino)| (name.to_str().unwrap(), *ino)).collect();
        assert_eq!(shown, [(".", 5), ("..", 1), ("a", 10), ("b", 11), ("c", 12)]);
        for (position, (cookie, ..)) in all.iter().enumerate() {
            assert_eq!(names(*cookie), all[position + 1..]);
        }
    }

    #[test]
    fn a_forged_cookie_leads_nowhere() {
        let listing = listing();
        for cookie in [6, 1 << 32, i64::MAX as u64, u64::MAX - 2, u64::MAX - 1, u64::MAX] {
            assert_eq!(entries(&listing, 5, cookie).count(), 0, "{cookie}");
        }
    }

    #[test]
    fn a_listing_stays_until_it_is_read_from_its_start_again() {
        let dirs = OpenDirs::default();
        let (one, two) = (dirs.open(), dirs.open());
        assert_ne!(one, two);
        let read = |after| dirs.listing(one, after, || Ok::<_, ()>(Arc::new(listing()))).unwrap();
        let first = read(0);
        assert!(Arc::ptr_eq(&first, &read(2)));
        assert!(!Arc::ptr_eq(&first, &read(0)));
        dirs.close(one);
        assert_eq!(dirs.listing(one, 2, || Err(())).unwrap_err(), (), "nothing is kept");
        assert_eq!(dirs.listings.read().unwrap().len(), 1);
    }
}
