//! What of the tree the kernel's overlayfs can show by itself: `rootfs/` of images whose layers it
//! would have mounted for the engine.

use std::sync::Arc;

use super::Tree;
use super::names::is_short;
use super::node::Node;
use crate::backing::Root;
use crate::store::Marks;
use crate::tree::Symlinks;

/// Layers for a kernel overlay.
#[derive(Debug, Clone)]
pub struct KernelLayers {
    /// Directories on disk, topmost first.
    pub layers: Vec<Arc<Root>>,
    /// Whether their marks are xattrs of users, as rootless engines write them.
    pub are_users: bool,
}

impl Tree {
    /// The paths of `rootfs/` of all images that a pattern matches, under each of their references.
    #[must_use]
    pub fn rootfs_of(&self, patterns: &[glob::Pattern]) -> Vec<String> {
        let mut paths = Vec::new();
        for (above, shelf) in self.shelves() {
            let names = match shelf.names() {
                Ok(names) => names,
                Err(err) => {
                    self.report(&err);
                    continue;
                }
            };
            let slash = if above.is_empty() { "" } else { "/" };
            let is_meant = |name: &&str| patterns.iter().any(|pattern| pattern.matches(name));
            let meant = names.all_references().filter(is_meant).filter(|name| is_short(name));
            paths.extend(meant.map(|name| format!("{above}{slash}images/{name}/rootfs")));
        }
        paths
    }

    /// The layers of the `rootfs/` with that inode number.
    ///
    /// # Errors
    /// Says why a kernel overlay would not show the same.
    pub fn kernel_layers(&self, ino: u64) -> Result<KernelLayers, &'static str> {
        let Ok(known) = self.known(ino) else { return Err("it has just changed") };
        let Node::Merged { tree, depth: 0, .. } = &*known.node else {
            return Err("no merged layers");
        };
        let layers = tree.stack().layers();
        let marks = layers.first().map(|layer| layer.marks);
        if tree.is_live() || self.options.symlinks != Symlinks::Raw {
            return Err("files that change, or symlinks that are shown otherwise");
        }
        if layers.iter().any(|layer| layer.owners.is_some() || layer.root.descriptor().is_none()) {
            return Err("layers in a file, or owners that are shown otherwise");
        }
        let are_users = match marks {
            Some(Marks::Trusted) => false,
            Some(Marks::User) => true,
            Some(Marks::Fuse | Marks::Aufs | Marks::Copied | Marks::Complete) | None => {
                return Err("layers that are not the kernel's");
            }
        };
        if layers.iter().any(|layer| Some(layer.marks) != marks) {
            return Err("layers of several kinds");
        }
        Ok(KernelLayers {
            layers: layers.iter().map(|layer| layer.root.clone()).collect(),
            are_users,
        })
    }
}
