//! Which number stands for which node, for as long as the kernel remembers it.
//!
//! 1. A number is a pure function of what it names ([`Identity`]), so it is the same under every
//!    name, on every mount. Two nodes whose numbers fall together are told apart by the rest of the
//!    identity, and the later one takes the next free number.
//! 2. Kernels remember millions of files. Of one that never changes no more is kept than what finds
//!    it again ([`Trace`]) in the directory that it was looked up in: its name, and what it was seen
//!    as. That directory stays for as long, whether the kernel forgets it or not.
//! 3. Whoever reads a file asks for it again and again, so the last few are kept whole.

use std::collections::HashMap;
use std::ffi::{OsStr, OsString};
use std::num::NonZeroUsize;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Instant;

use lru::{DefaultHasher, LruCache};
use rustix::io::Errno;

use super::identity::Identity;
use super::merged::MergedTree;
use super::node::Node;
use super::{Attr, ROOT};
use crate::backing::FileKind;
use crate::error::{Error, Result};

use arena::{Arena, At};
use files::{File, Files};

mod arena;
mod files;
#[cfg(test)]
mod tests;

/// How many files that can be found again are kept whole: more than are read at a time.
const RECENT: NonZeroUsize = NonZeroUsize::MIN.saturating_add(255);

/// A node that the kernel knows.
#[derive(Debug, Clone)]
pub(super) struct Known {
    pub(super) node: Arc<Node>,
    pub(super) attr: Attr,
    /// Inode number of a directory that it was found in.
    pub(super) parent: u64,
    /// When it was looked up last.
    pub(super) seen: Instant,
    pub(super) identity: Identity,
}

/// What there is to know of a number.
#[derive(Debug)]
pub(super) enum Held {
    Known(Known),
    /// Of a file of sealed layers, where to find it again.
    Trace(Trace),
}

/// What finds a file of sealed layers again.
#[derive(Debug)]
pub(super) struct Trace {
    pub(super) ino: u64,
    /// A directory that it was found in.
    pub(super) dir: Known,
    pub(super) name: OsString,
    rest: u64,
    stamp: u64,
}

impl Trace {
    /// Whether it leads to a file with that identity and that stamp of its attributes.
    pub(super) fn is_of(&self, identity: &Identity, stamp: u64) -> bool {
        (self.rest, self.stamp) == (identity.rest, stamp)
    }
}

/// All nodes that the kernel knows.
#[derive(Debug)]
pub(super) struct Inodes(Mutex<Table>);

#[derive(Debug)]
struct Table {
    /// By inode number.
    slots: HashMap<u64, Slot, DefaultHasher>,
    nodes: Arena<Box<Whole>>,
    /// Files of sealed layers that were asked for last.
    recent: LruCache<u64, Known>,
}

/// What a number stands for: in 8 bytes, as the table may have room for twice as many.
#[derive(Debug, Clone, Copy)]
struct Slot {
    /// A position in [`Table::nodes`].
    node: At,
    /// Where it is only the directory: which of [`Whole::files`].
    file: Option<At>,
}

#[derive(Debug)]
struct Whole {
    known: Known,
    lookups: u64,
    /// Whether its bytes were ever asked for.
    is_read: bool,
    /// Files that can be found again in this directory. It stays while there are any.
    files: Option<Box<Files>>,
}

impl Default for Inodes {
    fn default() -> Inodes {
        let recent = LruCache::new(RECENT);
        Inodes(Mutex::new(Table { slots: HashMap::default(), nodes: Arena::default(), recent }))
    }
}

impl Inodes {
    /// Makes a node known, or finds it known already, and counts one reference. `attr.ino` is
    /// what the answer's will be.
    pub(super) fn admit(
        &self,
        identity: Identity,
        parent: u64,
        node: impl FnOnce() -> Node,
        attr: Attr,
    ) -> Attr {
        let mut table = self.lock();
        let attr = Attr { ino: table.number(&identity), ..attr };
        match table.look_up(&attr) {
            None => {
                let (node, seen) = (Arc::new(node()), Instant::now());
                table.insert(Known { node, attr, parent, seen, identity });
            }
            // A directory is its name: what it is merged of may have changed.
            Some(slot) if attr.kind == FileKind::Directory && slot.file.is_none() => {
                if let Some(whole) = table.nodes.get_mut(slot.node) {
                    whole.known.node = Arc::new(node());
                }
            }
            Some(_) => {}
        }
        attr
    }

    /// As [`Inodes::admit`], for a file that can be found again as `name` in the directory `dir` for
    /// as long as that is known, and is the same while the `stamp` of its attributes is.
    ///
    /// # Errors
    /// ESTALE where that directory is not known any more.
    pub(super) fn admit_file(
        &self,
        identity: Identity,
        dir: u64,
        name: &OsStr,
        stamp: u64,
        attr: Attr,
    ) -> Result<Attr> {
        let mut table = self.lock();
        let attr = Attr { ino: table.number(&identity), ..attr };
        if table.look_up(&attr).is_none() {
            let node = table.directory(dir).ok_or_else(|| unknown(dir))?;
            let whole = table.nodes.get_mut(node).ok_or_else(|| unknown(dir))?;
            let files = whole.files.get_or_insert_default();
            let at = files.add(name, identity.rest, stamp);
            let at = at.ok_or_else(|| Error::errno_of(name, Errno::NOMEM))?;
            table.slots.insert(attr.ino, Slot { node, file: Some(at) });
        }
        Ok(attr)
    }

    /// Makes the root known, for ever.
    pub(super) fn admit_root(&self, node: Node, attr: Attr) {
        let (identity, node) = (Identity::of(&[b"root"]), Arc::new(node));
        self.lock().insert(Known { node, attr, parent: ROOT, seen: Instant::now(), identity });
    }

    /// Keeps a file that was found, for those who ask for it next, if it is still what it was when
    /// it was looked up first.
    pub(super) fn keep(&self, found: Known, stamp: u64) {
        let mut table = self.lock();
        let ino = found.attr.ino;
        if table.file(ino).is_some_and(|file| file.stamp == stamp) {
            table.recent.put(ino, found);
        }
    }

    /// The node of that number.
    ///
    /// # Errors
    /// ESTALE where the kernel was never told of it.
    pub(super) fn get(&self, ino: u64) -> Result<Held> {
        let mut table = self.lock();
        let slot = table.slots.get(&ino).ok_or_else(|| unknown(ino))?;
        let (node, file) = (slot.node, slot.file);
        if file.is_some()
            && let Some(known) = table.recent.get(&ino)
        {
            return Ok(Held::Known(known.clone()));
        }
        let whole = table.nodes.get(node).ok_or_else(|| unknown(ino))?;
        match file {
            None => Ok(Held::Known(whole.known.clone())),
            Some(at) => whole.trace(ino, at).map(Held::Trace).ok_or_else(|| unknown(ino)),
        }
    }

    /// Trees of merged layers that anything known is of.
    pub(super) fn trees(&self) -> Vec<Arc<MergedTree>> {
        let table = self.lock();
        let trees = table.nodes.iter().filter_map(|whole| whole.known.node.tree());
        let trees: HashMap<_, _> = trees.map(|tree| (Arc::as_ptr(tree), tree)).collect();
        trees.into_values().cloned().collect()
    }

    /// Forgets all files of a tree; whoever has one open is told that it is stale.
    pub(super) fn let_go(&self, tree: &Arc<MergedTree>) {
        let mut table = self.lock();
        let Table { slots, nodes, recent } = &mut *table;
        nodes.retain(|whole| whole.known.node.tree().is_none_or(|its| !Arc::ptr_eq(its, tree)));
        slots.retain(|_, slot| nodes.get(slot.node).is_some());
        recent.clear();
    }

    /// Notes that bytes of the node of that number are asked for.
    pub(super) fn mark_read(&self, ino: u64) {
        let mut table = self.lock();
        if let Some(file) = table.file(ino) {
            file.mark_read();
        } else if let Some(whole) = table.whole(ino) {
            whole.is_read = true;
        }
    }

    /// Whether the node of that number is known, and its bytes were never asked for.
    pub(super) fn is_unread(&self, ino: u64) -> bool {
        let mut table = self.lock();
        match table.file(ino) {
            Some(file) => !file.is_read(),
            None => table.whole(ino).is_some_and(|whole| !whole.is_read),
        }
    }

    /// The number of a node that is known.
    pub(super) fn find(&self, identity: &Identity) -> Option<u64> {
        let table = self.lock();
        let ino = table.number(identity);
        table.slots.contains_key(&ino).then_some(ino)
    }

    /// Gives back `count` references.
    pub(super) fn forget(&self, ino: u64, count: u64) {
        if ino != ROOT {
            self.lock().forget(ino, count);
        }
    }

    pub(super) fn len(&self) -> usize {
        self.lock().slots.len()
    }

    fn lock(&self) -> MutexGuard<'_, Table> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Table {
    /// The number that a node has, or will have.
    fn number(&self, identity: &Identity) -> u64 {
        let mut ino = identity.ino();
        while self.slots.get(&ino).is_some_and(|slot| !self.is_of(slot, identity)) {
            ino = next(ino);
        }
        ino
    }

    fn is_of(&self, slot: &Slot, identity: &Identity) -> bool {
        self.nodes.get(slot.node).is_some_and(|whole| match slot.file {
            None => whole.known.identity == *identity,
            Some(at) => whole.file(at).is_some_and(|file| file.rest == identity.rest),
        })
    }

    /// There may be no more nodes than an arena holds: of those beyond, none is known.
    fn insert(&mut self, known: Known) {
        let ino = known.attr.ino;
        let whole = Whole { known, lookups: 1, is_read: false, files: None };
        if let Some(node) = self.nodes.add(Box::new(whole)) {
            self.slots.insert(ino, Slot { node, file: None });
        }
    }

    /// Counts a reference to a node with these attributes; `None` where it is not known.
    fn look_up(&mut self, attr: &Attr) -> Option<Slot> {
        let slot = *self.slots.get(&attr.ino)?;
        let whole = self.nodes.get_mut(slot.node)?;
        match slot.file {
            None => {
                whole.lookups += 1;
                whole.known.attr = *attr;
                whole.known.seen = Instant::now();
            }
            Some(at) => whole.file_mut(at)?.look_up(),
        }
        Some(slot)
    }

    fn forget(&mut self, ino: u64, count: u64) {
        let Some(&Slot { node, file }) = self.slots.get(&ino) else { return };
        let Some(whole) = self.nodes.get_mut(node) else { return };
        match file {
            None => whole.lookups = whole.lookups.saturating_sub(count),
            Some(at) if whole.forget(at, count) => {
                self.slots.remove(&ino);
                self.recent.pop(&ino);
            }
            Some(_) => {}
        }
        if whole.lookups == 0 && !whole.has_files() {
            self.slots.remove(&whole.known.attr.ino);
            self.nodes.remove(node);
        }
    }

    /// Where the directory of that number is.
    fn directory(&self, ino: u64) -> Option<At> {
        let slot = self.slots.get(&ino)?;
        slot.file.is_none().then_some(slot.node)
    }

    fn whole(&mut self, ino: u64) -> Option<&mut Whole> {
        let node = self.directory(ino)?;
        self.nodes.get_mut(node).map(|whole| &mut **whole)
    }

    /// The file of that number, where it is one that can be found again.
    fn file(&mut self, ino: u64) -> Option<&mut File> {
        let slot = *self.slots.get(&ino)?;
        self.nodes.get_mut(slot.node)?.file_mut(slot.file?)
    }
}

impl Whole {
    fn file(&self, at: At) -> Option<&File> {
        self.files.as_ref()?.get(at)
    }

    fn file_mut(&mut self, at: At) -> Option<&mut File> {
        self.files.as_mut()?.get_mut(at)
    }

    fn trace(&self, ino: u64, at: At) -> Option<Trace> {
        let files = self.files.as_ref()?;
        let file = files.get(at)?;
        let name = files.name(file).to_owned();
        Some(Trace { ino, dir: self.known.clone(), name, rest: file.rest, stamp: file.stamp })
    }

    /// Takes back lookups of a file in this directory; true where it is forgotten.
    fn forget(&mut self, at: At, count: u64) -> bool {
        self.files.as_mut().is_some_and(|files| files.forget(at, count))
    }

    fn has_files(&self) -> bool {
        self.files.as_ref().is_some_and(|files| !files.is_empty())
    }
}

/// The number that is tried where another node has `ino`.
fn next(ino: u64) -> u64 {
    ino.wrapping_add(1).max(ROOT + 1)
}

fn unknown(ino: u64) -> Error {
    Error::stale(format!("inode {ino}"))
}
