//! One image: from its ID, the digest of an index or a manifest, to its config and layers.

use std::collections::{BTreeMap, HashSet};
use std::sync::Arc;

use super::names::Images;
use super::records::texts;
use super::state::State;
use crate::digest::{ChainId, DiffId, Digest, ImageId};
use crate::error::{Error, Result};
use crate::store::config::diff_ids;
use crate::store::files::JSON_MAX;
use crate::store::manifest::{Document, Index, IndexEntry, MANIFEST_MAX, Manifest, Platform};
use crate::store::{Blob, Descriptor, Image, Layer, LayerSource, Stored};

/// Deepest nest of indexes, and most manifests in them.
const DEPTH_MAX: usize = 4;
const MANIFESTS_MAX: usize = 1024;

/// Begins the labels that say where a blob was pulled from or pushed to.
const SOURCES: &str = "containerd.io/distribution.source.";

/// Reads the image `id`.
pub(super) fn read(state: &State<'_>, id: ImageId) -> Result<Image> {
    let images = Images::read(state);
    let resolved = Resolved::read(state, &images, id)?;
    let config = resolved.config(state)?;
    let path = format!("image {id}");
    let diff_ids = diff_ids(&config).map_err(|why| Error::corrupt(path, why))?;
    let named = Named::read(state, &images, &resolved);
    Ok(Image {
        id,
        layers: layers(state, &resolved, &diff_ids)?,
        config: config.into(),
        parent: images.of(id.0).find_map(|record| record.parent),
        last_tagged: named.last_tagged,
        references: named.references,
        target: Some(resolved.target.clone()),
        platforms: resolved.platforms(),
        stored: Some(Stored {
            manifest: resolved.chosen.descriptor.digest,
            platform: resolved.index.and(resolved.chosen.platform.clone()),
            annotations: named.annotations,
            sources: named.sources,
            size: resolved.size(),
        }),
        descriptions: Vec::new(),
    })
}

/// The config of the image `id`, whose bytes have the digest that its manifest says.
pub(super) fn config(state: &State<'_>, id: ImageId) -> Result<Vec<u8>> {
    Resolved::read(state, &Images::read(state), id)?.config(state)
}

/// What an ID leads to.
struct Resolved {
    id: ImageId,
    /// What the ID is the digest of.
    target: Descriptor,
    /// The index whose entry that is, for an image of one platform of several.
    index: Option<Digest>,
    is_index: bool,
    /// Every platform of which the manifest is here.
    found: Vec<Found>,
    /// The one that counts.
    chosen: Found,
}

/// A manifest that is here.
#[derive(Debug, Clone)]
struct Found {
    descriptor: Descriptor,
    platform: Option<Platform>,
    manifest: Manifest,
}

impl Resolved {
    fn read(state: &State<'_>, images: &Images, id: ImageId) -> Result<Resolved> {
        let record = images.of(id.0).next();
        let Some(bytes) = state.document(id.0, MANIFEST_MAX)? else {
            return Err(match record {
                Some(record) => state.corrupt(format!("image {:?}: {id} is missing", record.name)),
                None => Error::not_found(id.to_string()),
            });
        };
        let corrupt = |why: String| Error::corrupt(format!("image {id}"), why);
        let document = Document::parse(&bytes).map_err(corrupt)?;
        let (target, entry) = match record {
            Some(record) => (record.target.clone(), None),
            None => entry_of(state, images, id)?,
        };
        let (index, platform) = entry.unzip();
        match document {
            Document::Manifest(manifest) => {
                let chosen =
                    Found { descriptor: target.clone(), platform: platform.flatten(), manifest };
                let found = Vec::new();
                Ok(Resolved { id, target, index, is_index: false, found, chosen })
            }
            Document::Index(list) => {
                let mut walk = Walk { state, met: HashSet::from([id.0]), found: Vec::new() };
                walk.index(&list, DEPTH_MAX)?;
                let found = walk.found;
                let chosen = choose(&found).cloned();
                let chosen =
                    chosen.ok_or_else(|| corrupt("none of its manifests is here".into()))?;
                Ok(Resolved { id, target, index, is_index: true, found, chosen })
            }
        }
    }

    fn config(&self, state: &State<'_>) -> Result<Vec<u8>> {
        let digest = self.chosen.manifest.config.digest;
        let config = state.document(digest, JSON_MAX)?;
        config.ok_or_else(|| Error::corrupt(format!("image {}", self.id), "its config is missing"))
    }

    /// By name, each once, sorted.
    fn platforms(&self) -> Vec<(String, ImageId)> {
        let mut platforms = BTreeMap::new();
        for found in &self.found {
            let name = found.platform.as_ref().and_then(Platform::name);
            if let Some(name) = name {
                platforms.entry(name).or_insert(ImageId(found.descriptor.digest));
            }
        }
        platforms.into_iter().collect()
    }

    fn size(&self) -> u64 {
        let Found { descriptor, manifest, .. } = &self.chosen;
        let index = if self.is_index { self.target.size } else { 0 };
        let layers = manifest.layers.iter().map(|layer| layer.descriptor.size);
        let blobs = [index, descriptor.size, manifest.config.size];
        layers.chain(blobs).fold(0, u64::saturating_add)
    }
}

/// The index that lists a manifest, and the platform that it says that is for.
type Listed = (Digest, Option<Platform>);

/// What an index says of the manifest `id`, which no record points at.
fn entry_of(
    state: &State<'_>,
    images: &Images,
    id: ImageId,
) -> Result<(Descriptor, Option<Listed>)> {
    for record in &images.records {
        let digest = record.target.digest;
        let Ok(Some(bytes)) = state.document(digest, MANIFEST_MAX) else { continue };
        let Ok(Document::Index(index)) = Document::parse(&bytes) else { continue };
        let mut walk = Walk { state, met: HashSet::from([digest]), found: Vec::new() };
        walk.index(&index, DEPTH_MAX)?;
        if let Some(found) = walk.found.into_iter().find(|it| it.descriptor.digest == id.0) {
            return Ok((found.descriptor, Some((digest, found.platform))));
        }
    }
    Err(Error::not_found(id.to_string()))
}

/// A walk over an index, and those that it lists.
struct Walk<'a> {
    state: &'a State<'a>,
    met: HashSet<Digest>,
    found: Vec<Found>,
}

impl Walk<'_> {
    fn index(&mut self, index: &Index, depth: usize) -> Result<()> {
        for entry in &index.entries {
            let is_known = !self.met.insert(entry.descriptor.digest);
            if is_known || entry.is_attestation() || self.met.len() > MANIFESTS_MAX {
                continue;
            }
            self.entry(entry, depth)?;
        }
        Ok(())
    }

    /// Takes in a manifest. One that is not here, or damaged, does not hide the others.
    fn entry(&mut self, entry: &IndexEntry, depth: usize) -> Result<()> {
        let IndexEntry { descriptor, platform } = entry;
        let document = match self.state.document(descriptor.digest, MANIFEST_MAX) {
            Ok(Some(bytes)) => Document::parse(&bytes),
            Ok(None) | Err(_) => return Ok(()),
        };
        match document {
            Ok(Document::Manifest(manifest)) => {
                let (descriptor, platform) = (descriptor.clone(), platform.clone());
                self.found.push(Found { descriptor, platform, manifest });
                Ok(())
            }
            Ok(Document::Index(index)) if depth > 1 => self.index(&index, depth - 1),
            Ok(Document::Index(_)) | Err(_) => Ok(()),
        }
    }
}

/// The manifest for this host, or else the first.
fn choose(found: &[Found]) -> Option<&Found> {
    found.iter().min_by_key(|found| Platform::distance(found.platform.as_ref()))
}

/// What records and labels say of an image.
struct Named {
    /// In the order of the records.
    references: Vec<String>,
    annotations: BTreeMap<String, BTreeMap<String, String>>,
    sources: BTreeMap<String, String>,
    last_tagged: Option<String>,
}

impl Named {
    fn read(state: &State<'_>, images: &Images, resolved: &Resolved) -> Named {
        let named = resolved.index.unwrap_or(resolved.id.0);
        let references = images.references().into_iter();
        let references = references.filter(|(_, record)| record.target.digest == named);
        let mut references: Vec<_> = references.collect();
        references.sort_by(|one, other| one.1.name.cmp(&other.1.name));
        let shown = references.iter().map(|(text, _)| text.clone()).collect();
        let annotations = references.into_iter().map(|(text, record)| match resolved.index {
            // An image of one platform has what its index says of it.
            Some(_) => (text, resolved.target.annotations.clone()),
            None => (text, record.target.annotations.clone()),
        });
        let labels = state.blob_record(resolved.id.0).and_then(|blob| blob.bucket(b"labels"));
        let mut sources = texts(labels);
        sources.retain(|key, _| key.starts_with(SOURCES));
        let updated = images.of(named).filter_map(|record| record.updated.as_ref());
        let last_tagged = updated.max_by_key(|updated| updated.instant());
        Named {
            references: shown,
            annotations: annotations.collect(),
            sources,
            last_tagged: last_tagged.map(|updated| updated.as_str().to_owned()),
        }
    }
}

fn layers(state: &State<'_>, resolved: &Resolved, diff_ids: &[DiffId]) -> Result<Vec<Layer>> {
    let stored = &resolved.chosen.manifest.layers;
    if stored.len() != diff_ids.len() {
        let why = format!("{} layers and {} diff IDs", stored.len(), diff_ids.len());
        return Err(Error::corrupt(format!("image {}", resolved.id), why));
    }
    let mut chain_ids: Vec<ChainId> = Vec::with_capacity(diff_ids.len());
    for diff_id in diff_ids {
        chain_ids.push(ChainId::of(chain_ids.last().copied(), *diff_id));
    }
    let unpacked = state.layers(&chain_ids)?;
    let mut dirs = state.layer_dirs(&unpacked)?.into_iter();
    let mut layers = Vec::with_capacity(diff_ids.len());
    for (index, (diff_id, stored)) in diff_ids.iter().zip(stored).enumerate() {
        let digest = stored.descriptor.digest;
        let source = match state.blob(digest)? {
            Some(bytes) => LayerSource::Blob(Blob { digest, bytes: Arc::new(bytes) }),
            None => LayerSource::Missing,
        };
        let snapshot = unpacked.get(index);
        layers.push(Layer {
            diff_id: *diff_id,
            chain_id: chain_ids[index],
            size: snapshot.and_then(|snapshot| snapshot.size).unwrap_or(0),
            directory: snapshot.map_or_else(|| digest.hex(), |it| it.number.to_string()),
            dirs: dirs.next().unwrap_or_default(),
            source,
        });
    }
    Ok(layers)
}
