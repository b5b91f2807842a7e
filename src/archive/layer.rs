//! A layer's tar, byte for byte: the stored one, or one made from its tar-split record and its
//! unpacked directory.
//!
//! Docker puts a layer together from the *mounted* layer: a path of the record may cross a symlink
//! of a layer below (`bin -> usr/bin`), or of the layer itself. Almost none does, so each directory
//! is tried once in the layer's own files, and only a path that is not found there as it stands is
//! resolved in the merged view. A wrong answer could not give wrong bytes: the record has a
//! checksum of each file.

use std::ffi::OsStr;
use std::os::unix::ffi::OsStrExt;
use std::path::Path;
use std::sync::Arc;

use super::layers::Layers;
use super::outlined::Outlined;
use crate::backing::Root;
use crate::digest::Digest;
use crate::error::{Error, Result};
use crate::overlay::{Stack, parent_and_name};
use crate::recipe::{Expect, FileRef, Recipe, RecipeBuilder, Verify};
use crate::store::{Layer, LayerDir, LayerSource};
use crate::tar::name::rooted;
use crate::tar::outline::{Block, Part};
use crate::tar::read::Entries;

/// The uncompressed tar of `layer`. Reads the outline of its record, and no file of the layer yet; a
/// compressed blob is inflated once.
///
/// # Errors
/// Fails when the record is missing or damaged.
pub(super) fn layer_tar(layer: &Layer, layers: &Layers, verify: Verify) -> Result<Recipe> {
    let mut recipe = RecipeBuilder::new();
    match &layer.source {
        LayerSource::TarSplit { root, path } => {
            push_outlined(&mut recipe, layer, layers, root, path)?;
            if recipe.is_empty() && layer.diff_id.0 != Digest::of(b"") {
                return Err(Error::corrupt(&layer.directory, "its tar-split record is empty"));
            }
            match verify {
                Verify::Passing => recipe.finish(),
                Verify::Always => recipe.finish_sealed(layer.diff_id.0),
            }
        }
        LayerSource::Undigested { root, path } => {
            push_outlined(&mut recipe, layer, layers, root, path)?;
            recipe.finish()
        }
        LayerSource::Blob(blob) => {
            recipe.push_bytes(layers.blob(blob, layer.diff_id)?);
            recipe.finish()
        }
        LayerSource::Missing => {
            Err(Error::unsupported(&layer.directory, "a layer of which the engine kept no tar"))
        }
    }
}

fn push_outlined(
    recipe: &mut RecipeBuilder,
    layer: &Layer,
    layers: &Layers,
    root: &Arc<Root>,
    path: &Path,
) -> Result<()> {
    let outlined = Outlined::open(layer, root, path, layers.cache())?;
    recipe.push_pages(Arc::new(outlined), layers.pool());
    Ok(())
}

/// What a block of a layer's outline stands for, whose files are in `dirs`.
pub(super) fn page(block: &Block, dirs: &[LayerDir]) -> Option<Result<Recipe>> {
    let mut bodies = Bodies::new(dirs)?;
    let mut recipe = RecipeBuilder::new();
    for part in block.parts()? {
        match part {
            Part::Raw(bytes) => {
                // The padding of the file before, which need not be kept.
                let zeros = bytes.iter().take_while(|byte| **byte == 0).count();
                recipe.push_zeros(zeros as u64);
                recipe.push_inline(&bytes[zeros..]);
            }
            Part::File { crc: None, .. } => {}
            Part::File { name, size, crc: Some(crc) } => {
                bodies.push(&mut recipe, name, size, Expect::Crc(crc));
            }
        }
    }
    Some(recipe.finish())
}

/// Paths of the entries of a layer's tar, in its order: relative to the root, and clean. `None` where
/// the engine kept neither the tar nor a record of it.
///
/// # Errors
/// Fails when the tar or the record is missing or damaged.
pub(super) fn names(layer: &Layer, layers: &Layers) -> Result<Option<Vec<Vec<u8>>>> {
    let mut names = Vec::new();
    match &layer.source {
        LayerSource::TarSplit { root, path } | LayerSource::Undigested { root, path } => {
            let outlined = Outlined::open(layer, root, path, layers.cache())?;
            outlined.visit(|part| {
                if let Part::File { name, .. } = part {
                    names.push(rooted(name));
                }
            })?;
        }
        LayerSource::Blob(blob) => {
            let bytes = layers.blob(blob, layer.diff_id)?;
            let mut entries = Entries::new(&*bytes);
            while let Some(entry) = entries.next()? {
                names.push(rooted(&entry.name));
            }
        }
        LayerSource::Missing => return Ok(None),
    }
    Ok(Some(names))
}

/// Finds the files that a record names.
struct Bodies<'a> {
    own: &'a LayerDir,
    stack: Stack,
    /// The directory that was tried last, and whether it is one of the layer's own.
    last: Option<(Vec<u8>, bool)>,
}

impl<'a> Bodies<'a> {
    fn new(dirs: &'a [LayerDir]) -> Option<Bodies<'a>> {
        Some(Bodies { own: dirs.first()?, stack: Stack::new(dirs.to_vec()), last: None })
    }

    fn push(&mut self, recipe: &mut RecipeBuilder, name: &[u8], size: u64, expect: Expect) {
        let path = rooted(name);
        let (directory, base) = parent_and_name(&path);
        if self.is_own(directory) {
            let root = &self.own.root;
            recipe.push_file(&FileRef { root, directory, name: base, size, expect });
            return;
        }
        match self.stack.resolve(&path) {
            Ok(entry) => {
                let root = &self.stack.layers()[entry.data.layer].root;
                let (directory, name) = parent_and_name(&entry.data.path);
                recipe.push_file(&FileRef { root, directory, name, size, expect });
            }
            // The read of this one file fails, as Docker's does; the rest of the layer is right.
            Err(_) => {
                let root = &self.own.root;
                recipe.push_file(&FileRef { root, directory, name: base, size, expect });
            }
        }
    }

    fn is_own(&mut self, directory: &[u8]) -> bool {
        if let Some((last, is_own)) = &self.last
            && last == directory
        {
            return *is_own;
        }
        let is_own = self.own.root.dir(Path::new(OsStr::from_bytes(directory))).is_ok();
        self.last = Some((directory.to_vec(), is_own));
        is_own
    }
}
