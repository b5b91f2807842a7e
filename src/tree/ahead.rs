//! What somebody who walks through a tree reads next: the rest of a directory, once two of its
//! files were read in their order.
//!
//! Small files alone count, here and as evidence: a large one is worth its requests.

use std::ffi::OsString;
use std::num::NonZeroUsize;
use std::sync::{Mutex, PoisonError};

use lru::LruCache;

use super::merged::MergedTree;
use super::node::Node;
use super::own;
use super::{Reader, Tree};
use crate::backing::{Access, FileKind};
use crate::error::Result;
use crate::overlay::Entry;

/// Largest file that is read ahead, in bytes: what one message to the kernel holds.
pub const MAX: u64 = 1 << 20;

/// Directories in which reading is watched.
const WATCHED: NonZeroUsize = NonZeroUsize::MIN.saturating_add(63);

/// Two files of a directory that were read, one after the other.
#[derive(Debug)]
pub struct Walk {
    /// Inode number of the directory.
    pub dir: u64,
    from: OsString,
    to: OsString,
}

/// Directories in which files were read lately.
#[derive(Debug)]
pub(super) struct Walks(Mutex<LruCache<u64, Watched>>);

#[derive(Debug)]
struct Watched {
    /// Name of the small file that was read last.
    last: OsString,
    /// Whether its rest is being read ahead.
    is_taken: bool,
}

impl Default for Walks {
    fn default() -> Walks {
        Walks(Mutex::new(LruCache::new(WATCHED)))
    }
}

impl Tree {
    /// Notes that the file `ino` is about to be read from `offset` on: from now on it is nothing
    /// to read ahead. Where that makes it likely that the rest of its directory is read, tells so;
    /// after which [`Tree::rest_is_read`] has to be called.
    pub fn reads(&self, ino: u64, offset: u64) -> Option<Walk> {
        self.inodes.mark_read(ino);
        let known = self.known(ino).ok()?; // whoever reads it is told why
        let Node::Merged { tree, entry, .. } = &*known.node else { return None };
        if offset > 0 || !is_worth_it(tree, entry) {
            return None;
        }
        let mut walks = self.walks.0.lock().unwrap_or_else(PoisonError::into_inner);
        let Some(watched) = walks.get_mut(&known.parent) else {
            walks.put(known.parent, Watched { last: entry.name.clone(), is_taken: false });
            return None;
        };
        let from = std::mem::replace(&mut watched.last, entry.name.clone());
        if watched.is_taken || from >= entry.name {
            return None;
        }
        watched.is_taken = true;
        Some(Walk { dir: known.parent, from, to: entry.name.clone() })
    }

    /// The files behind those of `walk` that the kernel knows, by inode number, in their order;
    /// none where others lie between the two.
    ///
    /// # Errors
    /// Fails where the directory can't be listed, or was forgotten.
    pub fn rest(&self, walk: &Walk) -> Result<Vec<u64>> {
        let known = self.known(walk.dir)?;
        let mut rest = Vec::new();
        let mut add = |tree: &MergedTree, entry: &Entry| {
            if entry.name > walk.from && entry.name != walk.to && is_worth_it(tree, entry) {
                let identity = tree.identity(walk.dir, entry, 1); // its depth is for symlinks
                rest.extend(self.inodes.find(&identity).map(|ino| (entry.name > walk.to, ino)));
            }
        };
        match &*known.node {
            Node::Merged { tree, entry, .. } => {
                let listed = self.merged_listing(walk.dir, tree, entry)?;
                listed.entries.iter().for_each(|entry| add(tree, entry));
            }
            Node::Own { tree, entry, .. } => {
                let listed = self.own_listing(walk.dir, tree, entry)?;
                listed
                    .entries
                    .iter()
                    .filter_map(own::entry)
                    .for_each(|own| add(tree.files(), &own));
            }
            Node::Place(_) | Node::Document(_) | Node::Link(_) | Node::Archive(_) => {}
        }
        let is_gapless = rest.iter().all(|&(is_behind, ino)| is_behind || !self.is_unread(ino));
        Ok(rest
            .into_iter()
            .filter(|&(is_behind, _)| is_behind && is_gapless)
            .map(|r| r.1)
            .collect())
    }

    /// Whether the kernel knows the file `ino`, and never asked for its bytes.
    #[must_use]
    pub fn is_unread(&self, ino: u64) -> bool {
        self.inodes.is_unread(ino)
    }

    /// The whole file `ino`, one of [`Tree::rest`], at the start of `buf`, and checked like any
    /// other read. Returns its size.
    ///
    /// # Errors
    /// Those of [`Tree::read`].
    pub fn read_ahead(&self, ino: u64, buf: &mut [u8]) -> Result<usize> {
        let size = (self.attr(ino)?.size as usize).min(buf.len());
        self.read(ino, 0, &mut buf[..size], Reader { uid: 0, pid: 0 })
    }

    /// The rest of the directory `dir` was read ahead, as far as that could be done.
    pub fn rest_is_read(&self, dir: u64) {
        let mut walks = self.walks.0.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(watched) = walks.get_mut(&dir) {
            watched.is_taken = false;
        }
    }
}

/// Whether an entry is a small file that nobody can change.
fn is_worth_it(tree: &MergedTree, entry: &Entry) -> bool {
    let is_sealed = |layer: usize| tree.stack().layers()[layer].root.access() == Access::Sealed;
    entry.stat.kind == FileKind::Regular
        && (1..=MAX).contains(&entry.stat.size)
        && is_sealed(entry.place.layer)
        && is_sealed(entry.data.layer)
}
