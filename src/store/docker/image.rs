//! One image, from its config and the layer database.

use std::sync::Arc;

use super::named::names;
use super::roots::Roots;
use crate::backing::Root;
use crate::digest::{ChainId, DiffId, Digest, ImageId};
use crate::error::{Error, Result};
use crate::store::config::diff_ids;
use crate::store::driver::{DirId, Home};
use crate::store::files::{JSON_MAX, if_found, required, value};
use crate::store::{Image, Layer, LayerSource};

/// Reads the image `id`.
pub(super) fn read(roots: &Roots, home: &mut Home<'_>, id: ImageId) -> Result<Image> {
    let config = config(&roots.image, id)?;
    let path = roots.image.path().join(config_path(id));
    let diff_ids = diff_ids(&config).map_err(|why| Error::corrupt(path, why))?;
    let layers = layers(&roots.image, home, &diff_ids).map_err(|err| {
        // Docker removes the config first, so a layer that went with it is no damage.
        match roots.image.stat(config_path(id)) {
            Err(gone) if gone.is_not_found() => Error::not_found(id.to_string()),
            _ => err,
        }
    })?;
    Ok(Image {
        id,
        config: config.into(),
        layers,
        parent: parent(&roots.image, id)?,
        last_tagged: metadata(&roots.image, id, "lastUpdated", |text| Some(text.to_owned()))?,
        references: names(roots, id),
        target: None,
        platforms: Vec::new(),
        stored: None,
        descriptions: Vec::new(),
    })
}

fn config_path(id: ImageId) -> String {
    format!("imagedb/content/sha256/{}", id.hex())
}

/// The config of `id`, which hashes to that.
pub(super) fn config(image: &Root, id: ImageId) -> Result<Vec<u8>> {
    let path = config_path(id);
    let Some(config) = if_found(image.read(&path, JSON_MAX))? else {
        return Err(Error::not_found(id.to_string()));
    };
    match Digest::of(&config) == id.0 {
        true => Ok(config),
        false => Err(Error::corrupt(image.path().join(path), "not what its name says")),
    }
}

/// The image that `id` was built upon, as recorded.
pub(super) fn parent(image: &Root, id: ImageId) -> Result<Option<ImageId>> {
    metadata(image, id, "parent", |text| ImageId::parse(text).ok())
}

fn metadata<T>(
    image: &Root,
    id: ImageId,
    name: &str,
    parse: impl FnOnce(&str) -> Option<T>,
) -> Result<Option<T>> {
    if_found(value(image, &format!("imagedb/metadata/sha256/{}/{name}", id.hex()), parse))
}

fn layers(image: &Arc<Root>, home: &mut Home<'_>, diff_ids: &[DiffId]) -> Result<Vec<Layer>> {
    let mut layers: Vec<Layer> = Vec::with_capacity(diff_ids.len());
    for (below, &diff_id) in diff_ids.iter().enumerate() {
        let parent = layers.last().map(|layer| layer.chain_id);
        let chain_id = ChainId::of(parent, diff_id);
        let record = LayerRecord::read(image, chain_id)?;
        let path = layer_path(chain_id);
        if record.diff_id != diff_id || record.parent != parent {
            return Err(Error::corrupt(image.path().join(path), "describes another layer"));
        }
        let dirs = home.image_layer(&record.cache_id, below)?;
        layers.push(Layer {
            diff_id,
            chain_id,
            size: record.size,
            directory: record.cache_id.to_string(),
            dirs,
            source: LayerSource::TarSplit {
                root: Arc::clone(image),
                path: format!("{path}/tar-split.json.gz").into(),
            },
        });
    }
    Ok(layers)
}

fn layer_path(id: ChainId) -> String {
    format!("layerdb/sha256/{}", id.hex())
}

/// What the layer database says of a layer.
#[derive(Debug)]
pub(super) struct LayerRecord {
    /// Its directory.
    pub(super) cache_id: DirId,
    diff_id: DiffId,
    parent: Option<ChainId>,
    size: u64,
}

impl LayerRecord {
    /// Reads the record of the layer `id`; it may say anything.
    pub(super) fn read(image: &Root, id: ChainId) -> Result<LayerRecord> {
        let path = |name: &str| format!("{}/{name}", layer_path(id));
        Ok(LayerRecord {
            cache_id: required(value(image, &path("cache-id"), DirId::parse))?,
            diff_id: required(value(image, &path("diff"), |text| DiffId::parse(text).ok()))?,
            parent: if_found(value(image, &path("parent"), |text| ChainId::parse(text).ok()))?,
            size: required(value(image, &path("size"), parse_size))?,
        })
    }

    /// Bytes of its files' contents.
    pub(super) fn size(&self) -> u64 {
        self.size
    }
}

/// A number of bytes in decimal that a file can have (`i64` in Docker).
pub(super) fn parse_size(text: &str) -> Option<u64> {
    let digits = text.bytes().all(|byte| byte.is_ascii_digit());
    text.parse::<i64>().ok().filter(|_| digits).and_then(|size| size.try_into().ok())
}
