//! One image, from its entry, its config and the list of layers.

use std::path::PathBuf;
use std::sync::Arc;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;

use super::catalog::find_image;
use super::layers::{Layers, Listed};
use super::lists;
use super::roots::Roots;
use crate::digest::{ChainId, DiffId, Digest, ImageId};
use crate::error::{Error, Result};
use crate::store::config::diff_ids;
use crate::store::driver::{DirId, Home};
use crate::store::files::{JSON_MAX, if_found};
use crate::store::{Image, Layer, LayerSource};

/// Reads the image `id`.
pub(super) fn read(
    roots: &Roots,
    layers: &Layers,
    home: &mut Home<'_>,
    id: ImageId,
) -> Result<Image> {
    let record = find_image(roots, id)?;
    if !record.has_config {
        return lists::image(roots, layers, home, record);
    }
    let (path, config) = config(roots, id)?;
    let diff_ids = diff_ids(&config).map_err(|why| Error::corrupt(&path, why))?;
    let chain = match &record.layer {
        Some(top) => layers.chain(top)?,
        None => Vec::new(),
    };
    if chain.len() != diff_ids.len() {
        let why = format!("lists {} layers, and has {}", diff_ids.len(), chain.len());
        return Err(Error::corrupt(path, why));
    }
    Ok(Image {
        id,
        config: config.into(),
        layers: described(roots, home, &chain, &diff_ids)?,
        parent: None,
        last_tagged: None,
        references: record.names,
        target: None,
        platforms: Vec::new(),
        stored: None,
        descriptions: Vec::new(),
    })
}

/// The layers `chain`, lowest first, whose tars have these digests.
fn described(
    roots: &Roots,
    home: &mut Home<'_>,
    chain: &[&Listed],
    diff_ids: &[DiffId],
) -> Result<Vec<Layer>> {
    let mut layers: Vec<Layer> = Vec::with_capacity(chain.len());
    let mut parent: Option<&DirId> = None;
    for (layer, &diff_id) in chain.iter().zip(diff_ids) {
        let record = &layer.record;
        let list = roots.parts.get(layer.part).map(|part| &part.layers);
        let root = list.ok_or_else(|| Error::not_found(record.id.to_string()))?;
        // A layer of which only parts were fetched has no digest here.
        if record.diff_id.is_some_and(|known| known != diff_id) {
            let path = root.path().join("layers.json");
            return Err(Error::corrupt(path, format!("{} is another layer", record.id)));
        }
        let below = layers.last().map(|layer| layer.chain_id);
        let tar_split = format!("{}.tar-split.gz", record.id);
        layers.push(Layer {
            diff_id,
            chain_id: ChainId::of(below, diff_id),
            size: record.size,
            directory: record.id.to_string(),
            dirs: home.layer_upon(&record.id, parent)?,
            source: LayerSource::TarSplit { root: Arc::clone(root), path: tar_split.into() },
        });
        parent = Some(&record.id);
    }
    Ok(layers)
}

/// Where the config of `id` lies in `<driver>-images`: a file named after the digest, which is not
/// plain enough to be one (containers/storage, `makeBigDataBaseName`).
pub(super) fn config_path(id: ImageId) -> String {
    format!("{}/={}", id.hex(), STANDARD.encode(id.to_string()))
}

/// The config of `id`, which hashes to that, and where it lies.
pub(super) fn config(roots: &Roots, id: ImageId) -> Result<(PathBuf, Vec<u8>)> {
    let path = config_path(id);
    for part in &roots.parts {
        let shown = part.images.path().join(&path);
        match if_found(part.images.read(&path, JSON_MAX))? {
            Some(config) if Digest::of(&config) == id.0 => return Ok((shown, config)),
            Some(_) => return Err(Error::corrupt(shown, "not what its name says")),
            None if if_found(part.images.stat(id.hex()))?.is_some() => {
                return Err(Error::corrupt(shown, "missing"));
            }
            None => {}
        }
    }
    Err(Error::not_found(id.to_string()))
}
