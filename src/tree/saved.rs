//! What archives of images hold: which images under which names, their blobs as stored or their
//! layers' tars, less what a base has.

use std::sync::Arc;

use super::Tree;
use super::archives::{Archive, Made, Summed};
use super::names::Names;
use super::node::{ImageView, Scope};
use super::shelf::{Loaded, Shelf};
use crate::archive::Flavour;
use crate::archive::containerd::{self, StoredImage};
use crate::archive::content::{self, Content};
use crate::archive::layers;
use crate::archive::mtime_of;
use crate::archive::save::{self, SavedImage};
use crate::backing::Fingerprint;
use crate::digest::ImageId;
use crate::error::{Error, Result};
use crate::oci::ImageConfig;
use crate::store::{Image, Layer, LayerSource};

/// An image, and the references that it is saved under.
pub(super) type Named = (ImageId, Vec<String>);

/// An image and all of its blobs.
pub(super) type StoredView = (Arc<Loaded>, Content);

impl Tree {
    /// The image as it is given out, where some layer of it had to be rebuilt from its files, or nobody
    /// noted its digest: then that has to be known, for which all of the layer is read once.
    pub(super) fn fitted(
        &self,
        shelf: &Arc<Shelf>,
        loaded: &Loaded,
    ) -> Result<Option<(Image, ImageConfig)>> {
        let layers = &loaded.image.layers;
        if layers.iter().all(has_diff_id) {
            return Ok(None);
        }
        let mut digests = Vec::new();
        for (index, layer) in layers.iter().enumerate() {
            digests.push(match has_diff_id(layer) {
                true => layer.diff_id.0,
                false => {
                    let archive = Archive::of_layer(loaded.image.id, index, layer);
                    let recipe = self.made(shelf, &archive)?.recipe;
                    let key = (shelf.name.clone(), archive.key(), 0);
                    self.archives.digests.get_or_make(key, || recipe.digest().map(Summed))?.0
                }
            });
        }
        layers::fitted(&loaded.image, &loaded.config.parsed, &digests).map(Some)
    }

    pub(super) fn make_save(
        &self,
        shelf: &Arc<Shelf>,
        images: &[(ImageId, Vec<String>)],
        flavour: Flavour,
        base: Option<ImageId>,
    ) -> Result<Made> {
        let base = base.map(|base| shelf.image(base)).transpose()?;
        self.with_images(shelf, images, base.as_deref(), flavour, |images| {
            let created = images.iter().map(|image| mtime_of(image.config.created.as_ref()));
            let mtime = created.max().unwrap_or_default();
            Ok(Made::sealed(save::save(images, flavour)?, mtime))
        })
    }

    /// Images with all of their blobs, but for the layers that `base` has; `None` where the store has
    /// not all of them.
    pub(super) fn stored(
        &self,
        shelf: &Shelf,
        images: &[Named],
        base: Option<ImageId>,
    ) -> Result<Option<Vec<StoredView>>> {
        let base = base.map(|base| shelf.image(base)).transpose()?;
        let mut found = Vec::new();
        for (id, _) in images {
            let loaded = shelf.image(*id)?;
            let content = Content::read(&*shelf.store, &loaded.image)?;
            let Some(mut content) = content else { return Ok(None) };
            if let Some(base) = &base
                && let Some(manifest) = content::manifest(&*shelf.store, &base.image)?
            {
                content.leave_out(&manifest, shared_layers(&loaded.image, &base.image));
            }
            found.push((loaded, content));
        }
        Ok(Some(found))
    }

    /// Moves with the bytes of what containerd would export, which tell of other names as well and
    /// of blobs that may yet come; 0 where it has not all that it takes.
    pub(super) fn stored_stamp(
        &self,
        shelf: &Shelf,
        images: &[Named],
        base: Option<ImageId>,
    ) -> Result<u64> {
        let Some(found) = self.stored(shelf, images, base)? else { return Ok(0) };
        let mut stamp = Fingerprint::new();
        for (loaded, content) in &found {
            let digests: Vec<_> = content.blobs.keys().collect();
            stamp.add(format!("{:?} {digests:?}", loaded.image.stored).as_bytes());
        }
        Ok(stamp.finish().max(1))
    }

    /// What containerd exports of images of which the store has all blobs.
    pub(super) fn make_stored(
        &self,
        shelf: &Shelf,
        images: &[Named],
        base: Option<ImageId>,
        stamp: u64,
    ) -> Result<Made> {
        let found = self.stored(shelf, images, base)?;
        let found = found.ok_or_else(|| Error::stale("blobs that were just here"))?;
        let mtime = found.iter().map(|(loaded, _)| loaded.config.mtime()).max();
        let stored = found.iter().zip(images).map(|((loaded, content), (_, references))| {
            StoredImage { image: &loaded.image, references, content }
        });
        let recipe = containerd::archive(&stored.collect::<Vec<_>>(), self.options.verify)?;
        Ok(Made { stamp, ..Made::sealed(recipe, mtime.unwrap_or_default()) })
    }

    /// Calls `make` with the images and the tars of their layers, without those that `base` has, as an
    /// archive of that flavour has them.
    pub(super) fn with_images<T>(
        &self,
        shelf: &Arc<Shelf>,
        images: &[(ImageId, Vec<String>)],
        base: Option<&Loaded>,
        flavour: Flavour,
        make: impl FnOnce(&[SavedImage<'_>]) -> Result<T>,
    ) -> Result<T> {
        let mut loaded = Vec::new();
        for (id, references) in images {
            let image = shelf.image(*id)?;
            let mut layers = Vec::new();
            for (index, layer) in image.image.layers.iter().enumerate() {
                let archive = Archive::of_layer(*id, index, layer);
                layers.push(self.made(shelf, &archive)?.recipe);
            }
            // No digest stands in what that Docker wrote.
            let fitted = match flavour == Flavour::Docker19 && !image.image.descriptions.is_empty()
            {
                true => None,
                false => self.fitted(shelf, &image)?,
            };
            loaded.push((fitted, image, references, layers));
        }
        let saved = loaded.iter().map(|(fitted, loaded, references, layers)| SavedImage {
            image: fitted.as_ref().map_or(&loaded.image, |(image, _)| image),
            config: fitted.as_ref().map_or(&loaded.config.parsed, |(_, config)| config),
            references,
            layers,
            omitted: base.map_or(0, |base| shared_layers(&loaded.image, &base.image)),
        });
        make(&saved.collect::<Vec<_>>())
    }
}

impl ImageView {
    /// What `save.tar` holds under this name in that flavour.
    pub(super) fn saved(&self, flavour: Flavour) -> Result<Vec<Named>> {
        let mut images = Vec::new();
        add_saved(&*self.shelf.names()?, self.id, &self.scope, flavour, &mut images);
        Ok(images)
    }
}

/// Adds what one name of a request stands for: a repository for its references in order; an image
/// takes the place of the first that names it. containerd lists what it was asked for, one by one.
pub(super) fn add_saved(
    names: &Names,
    id: ImageId,
    scope: &Scope,
    flavour: Flavour,
    images: &mut Vec<Named>,
) {
    let mut add = |id: ImageId, tag: Option<&str>| {
        let mut known = images.iter_mut().filter(|(known, _)| *known == id);
        if flavour == Flavour::Containerd {
            let is_known = known.any(|(_, tags)| match tag {
                Some(tag) => tags.iter().any(|known| known == tag),
                None => tags.is_empty() || matches!(scope, Scope::Repository(_)),
            });
            if !is_known {
                images.push((id, tag.into_iter().map(str::to_owned).collect()));
            }
            return;
        }
        let tag = tag.map(str::to_owned);
        match known.next() {
            Some((_, tags)) => tags.extend(tag.filter(|tag| !tags.contains(tag))),
            None => images.push((id, tag.into_iter().collect())),
        }
    };
    match scope {
        Scope::Id => add(id, None),
        // A digest adds the image, but no tag.
        Scope::Reference(text) => add(id, Some(text.as_str()).filter(|text| !text.contains('@'))),
        Scope::Repository(repository) => {
            for (reference, text, id) in names.references(repository) {
                add(*id, reference.tag.as_ref().map(|_| text.as_str()));
            }
        }
    }
}

/// How many layers of `image`, from the lowest up, `base` has in the same place: what a loader does
/// not look for where it has the base.
pub(super) fn shared_layers(image: &Image, base: &Image) -> usize {
    let pairs = image.layers.iter().zip(&base.layers);
    pairs.take_while(|(one, other)| one.chain_id == other.chain_id).count()
}

/// Whether a layer's tar is the one that the engine once had.
pub(super) fn is_exact(layer: &Layer) -> bool {
    match &layer.source {
        LayerSource::TarSplit { .. } | LayerSource::Undigested { .. } | LayerSource::Blob(_) => {
            true
        }
        LayerSource::Missing => false,
    }
}

/// Whether a layer's tar has its diff ID.
fn has_diff_id(layer: &Layer) -> bool {
    match &layer.source {
        LayerSource::TarSplit { .. } | LayerSource::Blob(_) => true,
        LayerSource::Undigested { .. } | LayerSource::Missing => false,
    }
}
