//! Lists of manifests (`podman manifest create`, `buildah manifest`): images for several platforms. In
//! the store such a list is an image without config and layers, whose manifest is an index of the
//! manifests of others (containers/common libimage/manifests).

use std::collections::{BTreeMap, HashMap};

use super::catalog::{all_images, find_image};
use super::image;
use super::layers::Layers;
use super::records::ImageRecord;
use super::roots::Roots;
use crate::backing::Root;
use crate::digest::{Digest, ImageId};
use crate::error::{Error, Result};
use crate::json::{Escapes, Json};
use crate::store::Image;
use crate::store::driver::Home;
use crate::store::files::{if_found, required};
use crate::store::manifest::{Document, Index, MANIFEST_MAX, Platform};
use crate::time::Timestamp;

/// Reads the list `id` in `<driver>-images`.
///
/// # Errors
/// Unsupported where it is something else without a config: an artifact.
pub(super) fn read(images: &Root, id: ImageId) -> Result<Index> {
    let path = format!("{}/manifest", id.hex());
    let json = required(images.read(&path, MANIFEST_MAX))?;
    let shown = images.path().join(path);
    match Document::parse(&json) {
        Ok(Document::Index(index)) => Ok(index),
        Ok(Document::Manifest(_)) => Err(Error::unsupported(shown, "no image: it has no config")),
        Err(why) => Err(Error::corrupt(shown, why)),
    }
}

/// What a list leads to.
#[derive(Debug, Default)]
struct Listed {
    /// By platform, each once.
    platforms: BTreeMap<String, ImageId>,
    /// The image for this host, or else the first that is here.
    shown: Option<ImageId>,
}

fn listed(roots: &Roots, id: ImageId) -> Result<Listed> {
    let mut index = None;
    for part in &roots.parts {
        if if_found(part.images.stat(id.hex()))?.is_some() {
            index = Some(read(&part.images, id)?);
            break;
        }
    }
    let index = index.ok_or_else(|| Error::not_found(id.to_string()))?;
    let mut here: HashMap<Digest, ImageId> = HashMap::new();
    for record in all_images(roots)?.into_iter().filter(|record| record.has_config) {
        for digest in record.manifests {
            here.entry(digest).or_insert(record.id);
        }
    }
    let (mut listed, mut nearest) = (Listed::default(), u8::MAX);
    for entry in index.entries.iter().filter(|entry| !entry.is_attestation()) {
        let Some(image) = here.get(&entry.descriptor.digest) else { continue };
        let distance = Platform::distance(entry.platform.as_ref());
        if distance < nearest {
            (listed.shown, nearest) = (Some(*image), distance);
        }
        if let Some(name) = entry.platform.as_ref().and_then(Platform::name) {
            listed.platforms.entry(name).or_insert(*image);
        }
    }
    Ok(listed)
}

/// The image that the list `record` shows, under the list's own ID and names.
pub(super) fn image(
    roots: &Roots,
    layers: &Layers,
    home: &mut Home<'_>,
    record: ImageRecord,
) -> Result<Image> {
    let Listed { platforms, shown } = listed(roots, record.id)?;
    let platforms = platforms.into_iter().collect();
    let Some(shown) = shown else {
        return Ok(Image {
            id: record.id,
            config: empty_config(&record).into(),
            layers: Vec::new(),
            parent: None,
            last_tagged: None,
            references: record.names,
            target: None,
            platforms,
            stored: None,
            descriptions: Vec::new(),
        });
    };
    let image = image::read(roots, layers, home, shown)?;
    Ok(Image { id: record.id, references: record.names, platforms, ..image })
}

/// The config of the image that the list `id` shows; the error `why` where it is no list.
pub(super) fn config(roots: &Roots, id: ImageId, why: Error) -> Result<Vec<u8>> {
    let record = find_image(roots, id)?;
    if record.has_config {
        return Err(why);
    }
    match listed(roots, id)?.shown {
        Some(shown) => Ok(image::config(roots, shown)?.1),
        None => Ok(empty_config(&record)),
    }
}

/// That of an image without layers, for a list of which nothing is here.
fn empty_config(record: &ImageRecord) -> Vec<u8> {
    let created = Timestamp::parse(&record.created).unwrap_or_else(Timestamp::zero);
    let rootfs = Json::object([("type", "layers".into()), ("diff_ids", Json::Array(Vec::new()))]);
    let config = Json::object([("created", created.as_str().into()), ("rootfs", rootfs)]);
    config.to_bytes(Escapes::DOCKER_29)
}
