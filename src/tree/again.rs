//! Files of sealed layers, found again: all that is kept of one is its name and what it was seen as
//! ([`Trace`]), until somebody asks for more.

use std::sync::Arc;
use std::time::Instant;

use super::inodes::{Held, Known, Trace};
use super::node::Node;
use super::{Attr, Tree, own};
use crate::error::{Error, Result};

impl Tree {
    /// The node of that number.
    ///
    /// # Errors
    /// ESTALE where the kernel was never told of it. Of a file that is not what it was when it was
    /// looked up: ESTALE where its layer was removed, else EIO.
    pub(super) fn known(&self, ino: u64) -> Result<Known> {
        match self.inodes.get(ino)? {
            Held::Known(known) => Ok(known),
            Held::Trace(trace) => self.find_again(&trace),
        }
    }

    fn find_again(&self, trace: &Trace) -> Result<Known> {
        let (parent, name) = (trace.dir.attr.ino, &trace.name);
        let (tree, found, dir, depth) = match &*trace.dir.node {
            Node::Merged { tree, entry, depth } => {
                (tree, self.merged_entry(parent, tree, entry, name), entry, depth + 1)
            }
            Node::Own { tree, entry, depth } => {
                let found = self.own_entry(parent, tree, entry, name);
                let found = found.map(|own| own.as_ref().and_then(own::entry));
                (tree.files(), found, entry, depth + 1)
            }
            Node::Place(_) | Node::Document(_) | Node::Link(_) | Node::Archive(_) => {
                return Err(Error::stale(name));
            }
        };
        let found = match found {
            Err(err) if err.is_not_found() || err.is_misplaced() => None,
            found => found?,
        };
        let entry = found.ok_or_else(|| tree.lost(dir, name))?;
        let (identity, stamp) = (tree.identity(parent, &entry, depth), entry.stat.stamp());
        if !trace.is_of(&identity, stamp) {
            return Err(tree.lost(dir, name));
        }
        let attr = Attr { ino: trace.ino, ..tree.attr(identity, &entry, depth)? };
        let node = Arc::new(Node::Merged { tree: Arc::clone(tree), entry, depth });
        let known = Known { node, attr, parent, seen: Instant::now(), identity };
        self.inodes.keep(known.clone(), stamp);
        Ok(known)
    }
}
