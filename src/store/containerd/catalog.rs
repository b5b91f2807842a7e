//! All names of a namespace at one moment.

use std::sync::Arc;

use super::container;
use super::names::Images;
use super::snapshots::Snapshotter;
use super::state::State;
use crate::digest::ImageId;
use crate::error::Result;
use crate::store::Catalog;
use crate::store::docker::containers;
use crate::store::docker::records::Era;
use crate::store::parents::cut_parents;
use crate::store::volumes;

/// Reads all names.
pub(super) fn read(state: &State<'_>, is_docker: bool) -> Result<Catalog> {
    let mut catalog = Catalog::default();
    let images = Images::read(state);
    read_images(state, &images, &mut catalog);
    match &state.roots.containers {
        Some(root) => {
            let is_ours = |driver: &str| Snapshotter::named(driver).is_some();
            containers::list(root, Era::Content, is_ours, &mut catalog)?;
        }
        None if is_docker => {}
        None => catalog.containers = container::list(state, &images),
    }
    match volumes::names(state.roots.volumes.as_ref()) {
        Ok(names) => catalog.volumes = names,
        Err(err) => catalog.damaged.push(Arc::new(err)),
    }
    Ok(catalog)
}

fn read_images(state: &State<'_>, images: &Images, catalog: &mut Catalog) {
    // Of several names of an image, the first in order has its parent.
    for record in &images.records {
        catalog.images.entry(ImageId(record.target.digest)).or_insert(record.parent);
    }
    let known: Vec<ImageId> = catalog.images.keys().copied().collect();
    for parent in catalog.images.values_mut() {
        // A parent that was removed is no damage: nothing of it is needed.
        *parent = parent.filter(|id| known.binary_search(id).is_ok());
    }
    let mut damaged = |why: String| catalog.damaged.push(Arc::new(state.corrupt(why)));
    for (id, why) in cut_parents(&mut catalog.images) {
        damaged(format!("image {id}: {why}"));
    }
    for why in &images.rejected {
        damaged(why.clone());
    }
    for name in images.unnameable() {
        damaged(format!("image {name:?}: no reference, so it is shown by its ID alone"));
    }
    let digests = images.digests().map(|(name, it)| (ImageId(name), ImageId(it.target.digest)));
    catalog.aliases = digests.collect();
    let references = images.references().into_iter();
    catalog.references =
        references.map(|(text, record)| (text, ImageId(record.target.digest))).collect();
}
