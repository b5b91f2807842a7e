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

use super::layers::Layers;
use crate::backing::Root;
use crate::digest::Digest;
use crate::error::{Error, Result};
use crate::overlay::{Stack, parent_and_name};
use crate::recipe::{Expect, FileRef, Recipe, RecipeBuilder, Verify};
use crate::store::{Layer, LayerDir, LayerSource};
use crate::tar::name::rooted;
use crate::tar::read::Entries;
use crate::tar::split::{self, Entry, SplitError};

/// The uncompressed tar of `layer`. Reads its record, and no file of the layer yet; a compressed blob
/// is inflated once.
///
/// # Errors
/// Fails when the record is missing or damaged.
pub(super) fn layer_tar(layer: &Layer, layers: &Layers, verify: Verify) -> Result<Recipe> {
    match &layer.source {
        LayerSource::TarSplit { root, path } => {
            let recipe = rebuilt(layer, root, path)?;
            if recipe.is_empty() && layer.diff_id.0 != Digest::of(b"") {
                return Err(Error::corrupt(&layer.directory, "its tar-split record is empty"));
            }
            match verify {
                Verify::Passing => recipe.finish(),
                Verify::Always => recipe.finish_sealed(layer.diff_id.0),
            }
        }
        LayerSource::Undigested { root, path } => rebuilt(layer, root, path)?.finish(),
        LayerSource::Blob(blob) => {
            let mut recipe = RecipeBuilder::new();
            recipe.push_bytes(layers.blob(blob, layer.diff_id)?);
            recipe.finish()
        }
        LayerSource::Missing => {
            Err(Error::unsupported(&layer.directory, "a layer of which the engine kept no tar"))
        }
    }
}

fn rebuilt(layer: &Layer, root: &Root, name: &Path) -> Result<RecipeBuilder> {
    let missing = || Error::corrupt(&layer.directory, "no layer directory");
    let mut bodies = Bodies::new(&layer.dirs).ok_or_else(missing)?;
    let mut recipe = RecipeBuilder::new();
    read_record(root, name, |entry| {
        match entry {
            Entry::Segment(bytes) => recipe.push_inline(&bytes),
            Entry::File { crc: None, .. } => {}
            Entry::File { name, size, crc: Some(crc) } => {
                bodies.push(&mut recipe, &name, size, Expect::Crc(crc))?;
            }
        }
        Ok(())
    })?;
    Ok(recipe)
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
            read_record(root, path, |entry| {
                if let Entry::File { name, .. } = entry {
                    names.push(rooted(&name));
                }
                Ok(())
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

fn read_record(
    root: &Root,
    name: &Path,
    visit: impl FnMut(Entry) -> Result<(), Problem>,
) -> Result<()> {
    let shown = root.path().join(name);
    let record = root.open_file(name).map_err(|err| match err {
        err if err.is_not_found() || err.is_misplaced() => {
            Error::corrupt(&shown, "missing: the layer's tar can't be rebuilt without it")
        }
        err => err,
    })?;
    split::read(record, visit).map_err(|problem| match problem {
        Problem::Record(SplitError(why)) => Error::corrupt(&shown, why),
        Problem::Other(err) => err,
    })
}

enum Problem {
    Record(SplitError),
    Other(Error),
}

impl From<SplitError> for Problem {
    fn from(err: SplitError) -> Problem {
        Problem::Record(err)
    }
}

impl From<Error> for Problem {
    fn from(err: Error) -> Problem {
        Problem::Other(err)
    }
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

    fn push(
        &mut self,
        recipe: &mut RecipeBuilder,
        name: &[u8],
        size: u64,
        expect: Expect,
    ) -> Result<()> {
        let path = rooted(name);
        let (directory, base) = parent_and_name(&path);
        if self.is_own(directory) {
            let root = &self.own.root;
            recipe.push_file(&FileRef { root, directory, name: base, size, expect });
            return Ok(());
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
        Ok(())
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
