//! What `stat` tells of a tar, and that whoever reads gets a tar of that length or none.

use std::sync::Arc;

use super::Tree;
use super::archives::{Archive, Made};
use super::node::ArchiveNode;
use super::shelf::Shelf;
use crate::archive::lengths;
use crate::backing::Time;
use crate::digest::{Digest, ImageId};
use crate::error::{Error, Result};
use crate::recipe::Recipe;

/// A tar as `stat` tells of it.
#[derive(Debug, Clone, Copy)]
pub(super) struct Told {
    pub(super) len: u64,
    pub(super) mtime: Time,
    /// [`Made::stamp`].
    pub(super) stamp: u64,
    /// The stamp of the files that it is made from; 0 where they never change.
    pub(super) files: u64,
}

impl Tree {
    /// What is told of a tar. The export of an image, which takes a walk over all of its files, is
    /// not made for it where the cache has its length.
    pub(super) fn told(&self, shelf: &Arc<Shelf>, archive: &Archive) -> Result<Told> {
        let Archive::Image(id) = archive else { return self.told_of_made(shelf, archive) };
        let files = archive.version(shelf, 0)?;
        if self.archives.has(&(shelf.name.clone(), archive.key(), files)) {
            return self.told_of_made(shelf, archive);
        }
        // Making it tells what is wrong.
        let Ok(key) = self.length_key(shelf, *id) else {
            return self.told_of_made(shelf, archive);
        };
        let cache = &self.options.cache;
        if let Some(len) = lengths::kept(cache, key) {
            return Ok(Told { len, mtime: shelf.config(*id)?.mtime(), stamp: 0, files });
        }
        let told = self.told_of_made(shelf, archive)?;
        // What was removed while it was walked over has lost its key.
        if self.length_key(shelf, *id).is_ok_and(|now| now == key) {
            cache.keep_length(key, told.len);
        }
        Ok(told)
    }

    fn told_of_made(&self, shelf: &Arc<Shelf>, archive: &Archive) -> Result<Told> {
        let (Made { recipe, mtime, stamp, .. }, files) = self.made_with_files(shelf, archive)?;
        Ok(Told { len: recipe.len(), mtime, stamp, files })
    }

    /// The bytes of a tar of which `len` was told.
    ///
    /// # Errors
    /// ESTALE where it is not as long, and as [`Tree::bytes`].
    pub(super) fn recipe(&self, node: &ArchiveNode, len: u64) -> Result<Arc<Recipe>> {
        let recipe = self.bytes(node)?;
        if recipe.len() == len {
            return Ok(recipe);
        }
        if let Archive::Image(id) = &node.archive
            && let Ok(key) = self.length_key(&node.shelf, *id)
        {
            self.options.cache.forget_length(key);
        }
        Err(Error::stale(node.archive.key()))
    }

    /// What the cache knows the length of an image's export by.
    fn length_key(&self, shelf: &Shelf, id: ImageId) -> Result<Digest> {
        let layers = &shelf.image(id)?.image.layers;
        lengths::key(layers, shelf.store.info().conventions, self.flavour(shelf))
    }
}
