//! Layers of which the engine kept the files and not the tar. containerd does not fetch a layer
//! whose snapshot it has already; what it then exports can't be loaded. Here the layer is packed
//! anew, as the engine would pack the changes of a container: the same at all times, though not the
//! bytes that it came in, and config and manifest are made to fit.

use std::sync::Arc;

use sha2::{Digest as _, Sha256};

use super::export::{self, Style};
use crate::digest::{ChainId, DiffId, Digest, ImageId};
use crate::error::{Error, Result};
use crate::oci::ImageConfig;
use crate::overlay::Stack;
use crate::overlay::changes::{Flavor, changes};
use crate::recipe::Recipe;
use crate::store::{Image, Layer, LayerDir, LayerSource, Marks};

/// The tar of a layer, from its files; `below` are those of the layers below it.
///
/// # Errors
/// Corrupt where there are none.
pub fn layer_tar(layer: &Layer, below: &[LayerDir]) -> Result<Recipe> {
    let Some(own) = layer.dirs.first() else {
        let shown = format!("layer {}", layer.diff_id);
        return Err(Error::corrupt(shown, "missing: neither its blob nor its files are here"));
    };
    let below = Stack::new(below.to_vec());
    let prefix = match own.marks {
        Marks::Trusted => "trusted.overlay.",
        Marks::User => "user.overlay.",
        Marks::Fuse | Marks::Aufs | Marks::Copied | Marks::Complete => {
            let new = Stack::new(layer.dirs.clone());
            let changes = changes(&new, &below, Flavor::From28)?;
            return Ok(export::naive_diff(&new, &changes, &Style::Plain)?.recipe);
        }
    };
    let raw = Stack::new(vec![LayerDir { marks: Marks::Complete, ..own.clone() }]);
    Ok(export::native_diff(&raw, &below, prefix, &Style::Plain)?.recipe)
}

/// `image` with what its layers' `tars` make of it, and its config; `None` where each is the tar
/// that it came in. Reads those that are not.
///
/// # Errors
/// Fails when a tar can't be read, or the config makes no sense.
pub fn fitted(image: &Image, tars: &[Arc<Recipe>]) -> Result<Option<(Image, ImageConfig)>> {
    let is_missing = |layer: &Layer| match layer.source {
        LayerSource::TarSplit { .. } | LayerSource::Blob(_) => false,
        LayerSource::Missing => true,
    };
    if !image.layers.iter().any(is_missing) {
        return Ok(None);
    }
    let corrupt = |why: String| Error::corrupt(format!("image {}", image.id), why);
    let mut config = String::from_utf8(image.config.to_vec())
        .map_err(|_| corrupt("its config is no text".to_owned()))?;
    let mut layers = image.layers.clone();
    let mut below = None;
    for (layer, tar) in layers.iter_mut().zip(tars) {
        if is_missing(layer) {
            let diff_id = DiffId(digest(tar)?);
            // Wherever it stands: a config that says it elsewhere means this layer, too.
            config = config.replace(&layer.diff_id.to_string(), &diff_id.to_string());
            layer.diff_id = diff_id;
        }
        layer.chain_id = ChainId::of(below, layer.diff_id);
        below = Some(layer.chain_id);
    }
    let parsed = ImageConfig::parse(config.as_bytes()).map_err(|why| corrupt(why.to_string()))?;
    let config: Arc<[u8]> = config.into_bytes().into();
    let id = ImageId(Digest::of(&config));
    Ok(Some((Image { id, config, layers, ..image.clone() }, parsed)))
}

fn digest(tar: &Recipe) -> Result<Digest> {
    let mut hash = Sha256::new();
    tar.scan(|part| hash.update(part))?;
    Ok(Digest::from_hash(hash))
}
