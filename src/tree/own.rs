//! One layer's own files: `diff/`. A deletion shows as an empty file `.wh.NAME`, an opaque
//! directory holds `.wh..wh..opq`.

use std::ffi::OsStr;
use std::sync::Arc;

use super::directories::Listed;
use super::identity::Identity;
use super::merged::MergedTree;
use super::node::Node;
use super::{Attr, Child, Symlinks, Tree};
use crate::backing::{FileKind, Time};
use crate::error::{Error, Result};
use crate::overlay::own::{OwnEntry, OwnTree, What};
use crate::overlay::{Entry, Stack};
use crate::recipe::Recipe;
use crate::store::shown_id;

/// One layer's own files.
#[derive(Debug)]
pub(super) struct OwnFiles {
    own: OwnTree,
    /// The layer, alone where its directory tells what is its own, through which its files are read as
    /// they are in any `rootfs/`.
    files: Arc<MergedTree>,
}

impl OwnFiles {
    /// What the topmost layer of `new` holds itself. Where its directory holds more than that,
    /// `part` says what of it the layer's own is.
    pub(super) fn new(
        new: Stack,
        symlinks: Symlinks,
        mtime: Time,
        part: impl FnOnce(Stack) -> Result<OwnTree>,
    ) -> Result<OwnFiles> {
        let top = new.layers().first().cloned().ok_or_else(|| Error::not_found("diff"))?;
        let (own, shown) = match top.marks.hold_changes_alone() {
            true => (OwnTree::overlay(top.clone()), Stack::new(vec![top])),
            false => (part(new.clone())?, new),
        };
        Ok(OwnFiles { own, files: Arc::new(MergedTree::new(shown, symlinks, mtime)) })
    }

    pub(super) fn own(&self) -> &OwnTree {
        &self.own
    }

    pub(super) fn files(&self) -> &Arc<MergedTree> {
        &self.files
    }

    /// The top as the entry `name` of `parent`.
    pub(super) fn identity(&self, parent: u64, name: &OsStr) -> Identity {
        let version = self.own.fingerprint() ^ self.files.version();
        Identity::of_name(parent, name, &version.to_le_bytes())
    }
}

impl Tree {
    /// The children of a directory of own files.
    pub(super) fn list_own(
        &self,
        ino: u64,
        tree: &OwnFiles,
        dir: &Entry,
        depth: usize,
    ) -> Result<Vec<Child>> {
        let listed = self.own_dirs.put(ino, tree.own.read_dir(&dir.place.path)?);
        let children = listed.entries.iter().map(|own| match entry(own) {
            Some(entry) => tree.files.child(ino, &entry, depth + 1),
            None => Child {
                ino: mark_identity(ino, own).ino(),
                name: own.name.clone(),
                kind: FileKind::Regular,
                is_cheap: true,
            },
        });
        Ok(children.collect())
    }

    /// Looks up `name` in a directory of own files, and counts a reference to it.
    pub(super) fn find_own(
        &self,
        parent: u64,
        tree: &Arc<OwnFiles>,
        dir: &Entry,
        depth: usize,
        name: &OsStr,
    ) -> Result<Attr> {
        let depth = depth + 1;
        let own = self.own_entry(parent, tree, dir, name)?;
        let own = own.ok_or_else(|| Error::not_found(name))?;
        let Some(entry) = entry(&own) else {
            let identity = mark_identity(parent, &own);
            let attr = Attr {
                ttl: tree.files.ttl(),
                permissions: own.stat.permissions(),
                uid: shown_id(own.stat.uid),
                gid: shown_id(own.stat.gid),
                ..self.plain_attr(identity.ino(), own.stat.mtime)
            };
            let node = || Node::Document(Box::new(Recipe::inline(Vec::new())));
            return Ok(self.inodes.admit(identity, parent, node, attr));
        };
        let identity = tree.files.identity(parent, &entry, depth);
        let attr = tree.files.attr(identity, &entry, depth)?;
        if !entry.is_dir() && !tree.files.is_live() {
            return self.inodes.admit_file(identity, parent, name, entry.stat.stamp(), attr);
        }
        let node = || match entry.is_dir() {
            true => Node::Own { tree: Arc::clone(tree), entry, depth },
            false => Node::Merged { tree: Arc::clone(&tree.files), entry, depth },
        };
        Ok(self.inodes.admit(identity, parent, node, attr))
    }

    /// The entry `name` of a directory of own files.
    pub(super) fn own_entry(
        &self,
        ino: u64,
        tree: &OwnFiles,
        dir: &Entry,
        name: &OsStr,
    ) -> Result<Option<OwnEntry>> {
        match self.own_dirs.get(ino).filter(|listed| tree.files.is_current(listed)) {
            Some(listed) => Ok(listed.find(name).cloned()),
            None => tree.own.lookup(&dir.place.path, name),
        }
    }

    /// What a directory of own files holds, from memory where that is still so.
    pub(super) fn own_listing(
        &self,
        ino: u64,
        tree: &OwnFiles,
        dir: &Entry,
    ) -> Result<Arc<Listed<OwnEntry>>> {
        match self.own_dirs.get(ino).filter(|listed| tree.files.is_current(listed)) {
            Some(listed) => Ok(listed),
            None => Ok(self.own_dirs.put(ino, tree.own.read_dir(&dir.place.path)?)),
        }
    }
}

/// A file of the layer as an entry of the layer alone; `None` for what stands for a mark.
pub(super) fn entry(own: &OwnEntry) -> Option<Entry> {
    let What::File(place) = &own.what else { return None };
    Some(Entry {
        name: own.name.clone(),
        stat: own.stat,
        place: place.clone(),
        data: place.clone(),
        lowers: if own.stat.is_dir() { vec![place.clone()] } else { Vec::new() },
    })
}

fn mark_identity(parent: u64, own: &OwnEntry) -> Identity {
    Identity::of_name(parent, &own.name, b"mark")
}
