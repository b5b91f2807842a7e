//! The stored blobs of an image: what its target leads to, as far as it is here.

use std::collections::BTreeMap;
use std::sync::Arc;

use crate::backing::Checked;
use crate::digest::Digest;
use crate::error::{Error, Result};
use crate::recipe::{Recipe, RecipeBuilder, Verify};
use crate::store::manifest::{Document, MANIFEST_MAX, Manifest};
use crate::store::{Blob, Descriptor, Image, LayerStore};

/// Deepest nest of indexes.
const DEPTH_MAX: usize = 4;

/// Most blobs of one image: all layers for all platforms that there are.
const BLOBS_MAX: usize = 1 << 14;

/// The stored blobs of an image.
#[derive(Debug)]
pub struct Content {
    /// What they are reached from: an index, or a manifest.
    pub target: Descriptor,
    /// The manifest of the image itself; all of its blobs are here.
    pub manifest: Manifest,
    /// All blobs that are here, by digest, but for those that were left out.
    pub blobs: BTreeMap<Digest, Blob>,
}

impl Content {
    /// The blobs of `image`; `None` where the store keeps none, or not all that this image, on its
    /// platform, is made of.
    ///
    /// # Errors
    /// Fails when the store can't be read, or a document is not what its digest says.
    pub fn read(store: &dyn LayerStore, image: &Image) -> Result<Option<Content>> {
        let Some(target) = &image.target else { return Ok(None) };
        let blobs = reachable(store, target.digest)?;
        let manifest = image.stored.as_ref().map_or(target.digest, |stored| stored.manifest);
        let Some(manifest) = blobs.get(&manifest) else { return Ok(None) };
        let Document::Manifest(manifest) = document(manifest)? else { return Ok(None) };
        let mut children = children(&manifest);
        let is_whole = children.all(|child| blobs.contains_key(&child.digest));
        drop(children);
        Ok(is_whole.then(|| Content { target: target.clone(), manifest, blobs }))
    }

    /// Leaves out the lowest `shared` layers, as far as `base`, the manifest of another image, has
    /// them as the same blobs: whoever has that image does not look for them. A blob that stands for
    /// another layer as well stays.
    pub fn leave_out(&mut self, base: &Manifest, shared: usize) {
        let digests = |manifest: &Manifest| -> Vec<Digest> {
            manifest.layers.iter().map(|layer| layer.descriptor.digest).collect()
        };
        let (ours, theirs) = (digests(&self.manifest), digests(base));
        let (lowest, others) = ours.split_at(shared.min(ours.len()));
        for (digest, other) in lowest.iter().zip(&theirs) {
            if digest == other && !others.contains(digest) {
                self.blobs.remove(digest);
            }
        }
    }

    /// The bytes of a blob, which must have its digest.
    ///
    /// # Errors
    /// Fails when it is longer than a file can be.
    pub fn part(blob: &Blob, verify: Verify) -> Result<Arc<Recipe>> {
        let mut recipe = RecipeBuilder::new();
        Ok(Arc::new(match verify {
            Verify::Passing => {
                recipe.push_bytes(Arc::new(Checked::new(Arc::clone(&blob.bytes), blob.digest)));
                recipe.finish()?
            }
            Verify::Always => {
                recipe.push_bytes(Arc::clone(&blob.bytes));
                recipe.finish_sealed(blob.digest)?
            }
        }))
    }
}

/// The manifest of `image` itself, on its platform; `None` where it is not here.
///
/// # Errors
/// Fails when the store can't be read, or the manifest is not what its digest says.
pub fn manifest(store: &dyn LayerStore, image: &Image) -> Result<Option<Manifest>> {
    let Some(target) = &image.target else { return Ok(None) };
    let digest = image.stored.as_ref().map_or(target.digest, |stored| stored.manifest);
    let Some(blob) = store.blob(digest)? else { return Ok(None) };
    Ok(match document(&blob)? {
        Document::Manifest(manifest) => Some(manifest),
        Document::Index(_) => None,
    })
}

/// All stored blobs that the index or manifest `target` leads to, itself among them, by digest. As
/// in containerd's export, an index's manifest that is not here is passed over, and one of which a
/// part is not here stands alone.
///
/// # Errors
/// Fails when the store can't be read, or a document is not what its digest says.
pub fn reachable(store: &dyn LayerStore, target: Digest) -> Result<BTreeMap<Digest, Blob>> {
    let mut walk = Walk { store, blobs: BTreeMap::new() };
    walk.visit(target, DEPTH_MAX)?;
    Ok(walk.blobs)
}

/// The blobs of a manifest that an archive holds: not those that nobody may pass on.
fn children(manifest: &Manifest) -> impl Iterator<Item = &Descriptor> {
    let layers = manifest.layers.iter().map(|layer| &layer.descriptor);
    std::iter::once(&manifest.config).chain(layers.filter(|layer| !is_foreign(layer)))
}

/// containerd images/mediatypes.go, `IsNonDistributable`.
fn is_foreign(layer: &Descriptor) -> bool {
    let kinds = [
        "application/vnd.oci.image.layer.nondistributable.",
        "application/vnd.docker.image.rootfs.foreign.",
    ];
    kinds.iter().any(|kind| layer.media_type.starts_with(kind))
}

struct Walk<'a> {
    store: &'a dyn LayerStore,
    blobs: BTreeMap<Digest, Blob>,
}

impl Walk<'_> {
    /// Takes in what the index or manifest `digest` leads to.
    fn visit(&mut self, digest: Digest, depth: usize) -> Result<()> {
        let Some(blob) = self.store.blob(digest)? else { return Ok(()) };
        let document = document(&blob)?;
        self.put(blob)?;
        match document {
            Document::Index(index) if depth > 0 => {
                index.entries.iter().try_for_each(|it| self.entry(it.descriptor.digest, depth - 1))
            }
            Document::Index(_) => Err(Error::corrupt(digest.to_string(), "indexes nest too deep")),
            Document::Manifest(manifest) => {
                let blobs = children(&manifest).map(|child| self.store.blob(child.digest));
                match blobs.collect::<Result<Option<Vec<Blob>>>>()? {
                    Some(blobs) => blobs.into_iter().try_for_each(|blob| self.put(blob)),
                    None => Ok(()),
                }
            }
        }
    }

    /// Takes in an entry of an index; what is neither a manifest nor an index leads nowhere.
    fn entry(&mut self, digest: Digest, depth: usize) -> Result<()> {
        if self.blobs.contains_key(&digest) {
            return Ok(());
        }
        match self.store.blob(digest)? {
            Some(blob) if document(&blob).is_err() => self.put(blob),
            Some(_) => self.visit(digest, depth),
            None => Ok(()),
        }
    }

    fn put(&mut self, blob: Blob) -> Result<()> {
        if self.blobs.len() == BLOBS_MAX {
            return Err(Error::corrupt(blob.digest.to_string(), "leads to too many blobs"));
        }
        self.blobs.insert(blob.digest, blob);
        Ok(())
    }
}

/// A stored index or manifest, which has its digest.
fn document(blob: &Blob) -> Result<Document> {
    let corrupt = |why: String| Error::corrupt(blob.bytes.path(), why);
    if blob.bytes.len() > MANIFEST_MAX {
        return Err(corrupt(format!("larger than {MANIFEST_MAX} bytes")));
    }
    let mut bytes = vec![0; blob.bytes.len() as usize];
    blob.bytes.read_at(0, &mut bytes)?;
    match Digest::of(&bytes) == blob.digest {
        true => Document::parse(&bytes).map_err(corrupt),
        false => Err(corrupt("not what its name says".to_owned())),
    }
}
