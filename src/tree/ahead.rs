//! What somebody who walks through a tree reads next: the rest of a directory, once two of its
//! files were read in their order; and once that was so in several, all of the next ones, as soon
//! as they are listed.
//!
//! Small files alone count, here and as evidence: a large one is worth its requests.

use std::ffi::OsString;
use std::num::NonZeroUsize;
use std::sync::{Mutex, MutexGuard, PoisonError};

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

/// Processes whose reading is.
const READERS: NonZeroUsize = NonZeroUsize::MIN.saturating_add(15);

/// In how many directories a process has read files in order when it is taken to read all of the
/// next ones.
const WALKED: u32 = 2;

/// How many directories are read ahead as they are listed while the process reads nothing. It reads
/// nothing where all is there before it asks, so this costs few requests; and whoever has turned to
/// listing alone costs no more than so many.
const LISTED: u32 = 8;

/// A directory of which somebody is likely to read what follows.
#[derive(Debug)]
pub struct Walk {
    /// Its inode number.
    pub dir: u64,
    /// Two files of it that were read, one after the other; `None`: it was listed, and all follows.
    read: Option<(OsString, OsString)>,
}

/// Where files were read lately, and by whom.
#[derive(Debug)]
pub(super) struct Walks(Mutex<Seen>);

#[derive(Debug)]
struct Seen {
    dirs: LruCache<u64, Watched>,
    /// By process ID.
    readers: LruCache<u32, Habit>,
}

/// How a process reads.
#[derive(Debug, Default)]
struct Habit {
    /// Directories in which it read files in order.
    walked: u32,
    /// Directories that were read ahead as it listed them, since it last read a file.
    listed: u32,
}

#[derive(Debug)]
struct Watched {
    /// Name of the small file that was read last.
    last: OsString,
    /// Whether its rest is being read ahead.
    is_taken: bool,
}

impl Default for Walks {
    fn default() -> Walks {
        let (dirs, readers) = (LruCache::new(WATCHED), LruCache::new(READERS));
        Walks(Mutex::new(Seen { dirs, readers }))
    }
}

impl Walks {
    fn lock(&self) -> MutexGuard<'_, Seen> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Tree {
    /// Notes that the file `ino` is about to be read from `offset` on: from now on it is nothing
    /// to read ahead. Where that makes it likely that the rest of its directory is read, tells so;
    /// after which [`Tree::rest_is_read`] has to be called.
    pub fn reads(&self, ino: u64, offset: u64, reader: Reader) -> Option<Walk> {
        self.inodes.mark_read(ino);
        if offset > 0 {
            return None;
        }
        let known = self.known(ino).ok()?; // whoever reads it is told why
        let Node::Merged { tree, entry, .. } = &*known.node else { return None };
        if !is_worth_it(tree, entry) {
            return None;
        }
        let mut seen = self.walks.lock();
        let Seen { dirs, readers } = &mut *seen;
        let habit = readers.get_or_insert_mut(reader.pid, Habit::default);
        habit.listed = 0;
        let Some(watched) = dirs.get_mut(&known.parent) else {
            dirs.put(known.parent, Watched { last: entry.name.clone(), is_taken: false });
            return None;
        };
        let from = std::mem::replace(&mut watched.last, entry.name.clone());
        if watched.is_taken || from >= entry.name {
            return None;
        }
        watched.is_taken = true;
        habit.walked += 1;
        Some(Walk { dir: known.parent, read: Some((from, entry.name.clone())) })
    }

    /// Notes that `reader` has listed the directory `dir` to its end. Where it is one who reads all
    /// that it lists, tells so; after which [`Tree::rest_is_read`] has to be called.
    pub fn lists(&self, dir: u64, reader: Reader) -> Option<Walk> {
        let mut seen = self.walks.lock();
        let habit = seen.readers.get_mut(&reader.pid).filter(|habit| habit.walked >= WALKED)?;
        if habit.listed == LISTED {
            *habit = Habit { walked: WALKED - 1, listed: 0 };
            return None;
        }
        habit.listed += 1;
        seen.dirs.put(dir, Watched { last: OsString::new(), is_taken: true });
        Some(Walk { dir, read: None })
    }

    /// The files behind those of `walk` that the kernel knows, by inode number, in their order;
    /// none where others lie between two that were read.
    ///
    /// # Errors
    /// Fails where the directory can't be listed, or was forgotten.
    pub fn rest(&self, walk: &Walk) -> Result<Vec<u64>> {
        let known = self.known(walk.dir)?;
        let (from, to) = walk.read.as_ref().map(|(from, to)| (&**from, &**to)).unwrap_or_default();
        let mut rest = Vec::new();
        let mut add = |tree: &MergedTree, entry: &Entry| {
            let name = entry.name.as_os_str();
            if name > from && name != to && is_worth_it(tree, entry) {
                let identity = tree.identity(walk.dir, entry, 1); // its depth is for symlinks
                rest.extend(self.inodes.find(&identity).map(|ino| (name > to, ino)));
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
        if let Some(watched) = self.walks.lock().dirs.get_mut(&dir) {
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
