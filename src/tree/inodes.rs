//! Which number stands for which node, for as long as the kernel remembers it.
//!
//! A number is a pure function of what it names (see [`Identity`]), so it is the same under every
//! name, on every mount. Two nodes whose numbers fall together are told apart by the rest of the
//! identity, and the later one takes the next free number.

use std::collections::HashMap;
use std::collections::hash_map::Entry;
use std::ffi::OsStr;
use std::os::unix::ffi::OsStrExt;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Instant;

use super::merged::MergedTree;
use super::node::Node;
use super::{Attr, ROOT};
use crate::backing::FileKind;
use crate::digest::Digest;
use crate::error::{Error, Result};

/// What a node is, over mounts: equal identities are the same unchanging content.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(super) struct Identity(Digest);

impl Identity {
    /// The node that these parts tell, the first of which says what kind of parts they are.
    pub(super) fn of(parts: &[&[u8]]) -> Identity {
        let mut all = Vec::with_capacity(128);
        for part in parts {
            all.extend_from_slice(&(part.len() as u64).to_le_bytes());
            all.extend_from_slice(part);
        }
        Identity(Digest::of(&all))
    }

    /// The entry `name` of the directory `parent`; `version` differs whenever its content does.
    pub(super) fn of_name(parent: u64, name: &OsStr, version: &[u8]) -> Identity {
        Identity::of(&[b"name", &parent.to_le_bytes(), name.as_bytes(), version])
    }

    /// The inode number that it would have if no other node had it: neither 0 nor the root's.
    pub(super) fn ino(&self) -> u64 {
        self.0.prefix().max(ROOT + 1)
    }
}

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
    lookups: u64,
    /// Whether its bytes were ever asked for.
    is_read: bool,
}

#[derive(Debug, Default)]
pub(super) struct Inodes(Mutex<HashMap<u64, Known>>);

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
        let mut known = self.lock();
        let mut ino = identity.ino();
        loop {
            match known.entry(ino) {
                Entry::Occupied(mut entry) if entry.get().identity == identity => {
                    let entry = entry.get_mut();
                    entry.lookups += 1;
                    entry.attr = Attr { ino, ..attr };
                    entry.seen = Instant::now();
                    // A directory is its name: what it is merged of may have changed.
                    if attr.kind == FileKind::Directory {
                        entry.node = Arc::new(node());
                    }
                    return entry.attr;
                }
                Entry::Occupied(_) => ino = next(ino),
                Entry::Vacant(entry) => {
                    let attr = Attr { ino, ..attr };
                    let node = Arc::new(node());
                    let seen = Instant::now();
                    let (lookups, is_read) = (1, false);
                    entry.insert(Known { node, attr, parent, seen, identity, lookups, is_read });
                    return attr;
                }
            }
        }
    }

    /// Makes the root known, for ever.
    pub(super) fn admit_root(&self, node: Node, attr: Attr) {
        let identity = Identity::of(&[b"root"]);
        let (node, seen) = (Arc::new(node), Instant::now());
        let known = Known { node, attr, parent: ROOT, seen, identity, lookups: 1, is_read: false };
        self.lock().insert(ROOT, known);
    }

    /// The node of that number.
    ///
    /// # Errors
    /// ESTALE where the kernel was never told of it.
    pub(super) fn get(&self, ino: u64) -> Result<Known> {
        self.lock().get(&ino).cloned().ok_or_else(|| Error::stale(format!("inode {ino}")))
    }

    /// Files of merged layers that are known, by the tree that they are of.
    pub(super) fn trees(&self) -> Vec<Arc<MergedTree>> {
        let known = self.lock();
        let trees = known.values().filter_map(|known| known.node.tree());
        let trees: HashMap<_, _> = trees.map(|tree| (Arc::as_ptr(tree), tree)).collect();
        trees.into_values().cloned().collect()
    }

    /// Forgets all files of a tree; whoever has one open is told that it is stale.
    pub(super) fn let_go(&self, tree: &Arc<MergedTree>) {
        let is_of = |node: &Node| node.tree().is_some_and(|its| Arc::ptr_eq(its, tree));
        self.lock().retain(|_, known| !is_of(&known.node));
    }

    /// The node of that number, whose bytes are asked for; `None` where there is none.
    pub(super) fn mark_read(&self, ino: u64) -> Option<Known> {
        let mut known = self.lock();
        let known = known.get_mut(&ino)?;
        known.is_read = true;
        Some(known.clone())
    }

    /// Whether the node of that number is known, and its bytes were never asked for.
    pub(super) fn is_unread(&self, ino: u64) -> bool {
        self.lock().get(&ino).is_some_and(|known| !known.is_read)
    }

    /// The number of a node that is known.
    pub(super) fn find(&self, identity: &Identity) -> Option<u64> {
        let known = self.lock();
        let mut ino = identity.ino();
        while known.get(&ino)?.identity != *identity {
            ino = next(ino);
        }
        Some(ino)
    }

    /// Gives back `count` references.
    pub(super) fn forget(&self, ino: u64, count: u64) {
        let mut known = self.lock();
        if ino == ROOT {
            return;
        }
        if let Entry::Occupied(mut entry) = known.entry(ino) {
            entry.get_mut().lookups = entry.get().lookups.saturating_sub(count);
            if entry.get().lookups == 0 {
                entry.remove();
            }
        }
    }

    pub(super) fn len(&self) -> usize {
        self.lock().len()
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<u64, Known>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The number that is tried where another node has `ino`.
fn next(ino: u64) -> u64 {
    ino.wrapping_add(1).max(ROOT + 1)
}
