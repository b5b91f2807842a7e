//! The documents of an OCI image layout (image-spec, `image-layout.md`).
//!
//! `index.json` lists what has a name. What it lists may be an image for one platform, an index of
//! several, or an index that somebody else's tool has put around either.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;

use serde::Deserialize;

use super::contents::{CONFIG_MAX, Config, Contents, Entry, Stored};
use crate::digest::{Digest, ImageId};
use crate::error::{Error, Result};
use crate::store::Descriptor;
use crate::store::manifest::{Document, Index, IndexEntry, MANIFEST_MAX, Platform};

/// The list of what has a name.
pub(super) const INDEX: &str = "index.json";

/// The file that says by which rules the others are read.
pub(super) const VERSION: &str = "oci-layout";

/// Where blobs lie.
pub(super) const BLOBS: &str = "blobs/sha256";

/// What it says, since there is but one set of rules.
const VERSION_1: &str = "1.0.0";

/// The name of an image in full, as containerd and Docker write it.
const FULL_NAME: &str = "io.containerd.image.name";

/// Its name, or but a tag (image-spec, `annotations.md`).
const NAME: &str = "org.opencontainers.image.ref.name";

/// How deep indexes may lie in one another.
const DEPTH_MAX: u8 = 8;

/// How many bytes of manifests and indexes are read, and how many entries of indexes are looked at:
/// those of an index that has several names count each time.
const BYTES_MAX: u64 = 32 << 20;
const STEPS_MAX: u32 = 1 << 20;

/// The name of the file that a blob is.
pub(super) fn blob(digest: Digest) -> String {
    format!("{BLOBS}/{}", digest.hex())
}

/// The digest in the name of such a file.
pub(super) fn digest_of(name: &str) -> Option<Digest> {
    Digest::from_hex(name.strip_prefix(BLOBS)?.strip_prefix('/')?).ok()
}

/// Adds the images of a layout, where `contents` has one.
pub(super) fn read(contents: &mut Contents) {
    let index = match index(contents) {
        Ok(Some(index)) => index,
        Ok(None) => return,
        Err(err) => return contents.damaged(err),
    };
    let mut walk = Walk {
        contents,
        documents: HashMap::new(),
        bytes: 0,
        steps: 0,
        targets: Vec::new(),
        by_name: HashMap::new(),
    };
    walk.reject(INDEX, &index.rejected);
    for entry in index.entries.iter().filter(|entry| !entry.is_attestation()) {
        walk.target(entry, 0);
    }
    let targets = std::mem::take(&mut walk.targets);
    targets.into_iter().for_each(|target| walk.add(target));
}

/// The list of what has a name; `None` where there is no layout.
fn index(contents: &Contents) -> Result<Option<Index>> {
    #[derive(Deserialize)]
    struct Layout {
        #[serde(rename = "imageLayoutVersion")]
        version: String,
    }
    let Some(json) = contents.files.read(INDEX, MANIFEST_MAX)? else { return Ok(None) };
    if let Some(layout) = contents.files.read(VERSION, MANIFEST_MAX)? {
        let path = contents.files.path(VERSION);
        let layout: Layout = serde_json::from_slice(&layout)
            .map_err(|err| Error::corrupt(path.clone(), err.to_string()))?;
        if layout.version != VERSION_1 {
            let what = format!("version {:.40} of the layout", layout.version.escape_debug());
            return Err(Error::unsupported(path, what));
        }
    }
    match Document::parse(&json) {
        Ok(Document::Index(index)) => Ok(Some(index)),
        Ok(Document::Manifest(_)) => {
            Err(Error::corrupt(contents.files.path(INDEX), "a manifest where an index belongs"))
        }
        Err(why) => Err(Error::corrupt(contents.files.path(INDEX), why)),
    }
}

/// A document that was read.
#[derive(Clone)]
enum Parsed {
    Index(Arc<Index>),
    /// The image that a manifest describes, and its layers.
    Image(ImageId, Arc<[Stored]>),
    /// A manifest of something else.
    Artifact,
}

/// What has one name, or none.
struct Target {
    name: Option<String>,
    /// `None` where the list has several of that name.
    descriptor: Option<Descriptor>,
    /// Whether its manifests are those of several platforms.
    is_index: bool,
    found: Vec<Found>,
}

/// A manifest that is there.
struct Found {
    id: ImageId,
    platform: Option<Platform>,
    layers: Arc<[Stored]>,
    descriptor: Descriptor,
}

/// What one entry of a list stands for.
#[derive(Default)]
struct Gathered {
    found: Vec<Found>,
    /// The indexes that were walked: each once.
    indexes: HashSet<Digest>,
}

/// The way through all documents.
struct Walk<'a> {
    contents: &'a mut Contents,
    /// What was read, or is damaged or absent (`None`), so far.
    documents: HashMap<Digest, Option<Parsed>>,
    bytes: u64,
    steps: u32,
    targets: Vec<Target>,
    /// Where in `targets` each name is.
    by_name: HashMap<String, usize>,
}

impl Walk<'_> {
    fn reject(&mut self, name: &str, rejected: &[String]) {
        for why in rejected {
            self.contents.damaged(Error::corrupt(self.contents.files.path(name), why.clone()));
        }
    }

    /// Takes in what stands in a list by a name of its own, or at its top.
    fn target(&mut self, entry: &IndexEntry, depth: u8) {
        let (mut gathered, before) = (Gathered::default(), self.targets.len());
        let is_index = self.gather(entry, depth, &mut gathered);
        let found = gathered.found;
        if found.is_empty() && self.targets.len() > before {
            return; // all of it has names of its own
        }
        if found.is_empty() {
            let name = blob(entry.descriptor.digest);
            let why = "nothing of this image is here";
            return self.contents.damaged(Error::corrupt(self.contents.files.path(&name), why));
        }
        let name = name_of(&entry.descriptor);
        let known = name.as_ref().and_then(|name| self.by_name.get(name).copied());
        match known.and_then(|at| self.targets.get_mut(at)) {
            Some(earlier) => {
                earlier.descriptor = None;
                earlier.is_index = true;
                earlier.found.extend(found);
            }
            None => {
                if let Some(name) = &name {
                    self.by_name.insert(name.clone(), self.targets.len());
                }
                let descriptor = Some(entry.descriptor.clone());
                self.targets.push(Target { name, descriptor, is_index, found });
            }
        }
    }

    /// Finds the manifests that an entry of a list stands for; returns whether it is an index.
    fn gather(&mut self, entry: &IndexEntry, depth: u8, gathered: &mut Gathered) -> bool {
        match self.document(&entry.descriptor, depth) {
            Ok(Some(Parsed::Image(id, layers))) => {
                gathered.found.extend(self.found(entry, id, layers, depth));
                false
            }
            Ok(Some(Parsed::Artifact)) => {
                let path = self.contents.files.path(&blob(entry.descriptor.digest));
                self.contents.damaged(Error::unsupported(path, "an artifact, and no image"));
                false
            }
            Ok(Some(Parsed::Index(index))) => {
                if !gathered.indexes.insert(entry.descriptor.digest) {
                    return true;
                }
                let own = name_of(&entry.descriptor);
                for inner in index.entries.iter().filter(|inner| !inner.is_attestation()) {
                    let name = name_of(&inner.descriptor);
                    let is_apart = name.is_some() && name != own;
                    if is_apart {
                        self.target(inner, depth + 1);
                    }
                    if !is_apart || own.is_some() {
                        self.gather(inner, depth + 1, gathered);
                    }
                }
                true
            }
            Ok(None) => false,
            Err(err) => {
                self.contents.damaged(err);
                false
            }
        }
    }

    /// The image that a manifest describes; `None` where it is for a platform of which nothing is
    /// here.
    fn found(
        &mut self,
        entry: &IndexEntry,
        id: ImageId,
        layers: Arc<[Stored]>,
        depth: u8,
    ) -> Option<Found> {
        let is_here = self.contents.files.holds(&blob(id.0));
        match is_here {
            false if depth > 0 => return None,
            // It keeps its name, and says what is wrong where it is looked at.
            false => {
                let path = self.contents.files.path(&blob(id.0));
                self.contents.damaged(Error::corrupt(path, "missing"));
            }
            true => {}
        }
        let platform = match &entry.platform {
            None if depth > 0 => platform_of(self.contents, id),
            platform => platform.clone(),
        };
        Some(Found { id, platform, layers, descriptor: entry.descriptor.clone() })
    }

    /// Reads a manifest or an index; `None` where it is not here, or was found damaged before.
    fn document(&mut self, descriptor: &Descriptor, depth: u8) -> Result<Option<Parsed>> {
        let name = blob(descriptor.digest);
        let path = self.contents.files.path(&name);
        self.steps += 1;
        if self.steps > STEPS_MAX || self.bytes > BYTES_MAX || depth > DEPTH_MAX {
            return Err(Error::unsupported(path, "more manifests, or deeper, than are read"));
        }
        if let Some(known) = self.documents.get(&descriptor.digest) {
            return Ok(known.clone());
        }
        self.documents.insert(descriptor.digest, None);
        let Some(json) = self.contents.files.read(&name, MANIFEST_MAX)? else { return Ok(None) };
        self.bytes = self.bytes.saturating_add(json.len() as u64);
        if Digest::of(&json) != descriptor.digest || json.len() as u64 != descriptor.size {
            return Err(Error::corrupt(path, "not what the index says"));
        }
        let parsed = match Document::parse(&json).map_err(|why| Error::corrupt(path, why))? {
            Document::Manifest(manifest) if !manifest.is_image() => Parsed::Artifact,
            Document::Manifest(manifest) => {
                let layers = manifest.layers.into_iter().map(|layer| Stored::Blob {
                    digest: layer.descriptor.digest,
                    size: layer.descriptor.size,
                    url: layer.urls.into_iter().next().map(Into::into),
                });
                Parsed::Image(ImageId(manifest.config.digest), layers.collect())
            }
            Document::Index(index) => {
                self.reject(&name, &index.rejected);
                Parsed::Index(Arc::new(index))
            }
        };
        self.documents.insert(descriptor.digest, Some(parsed.clone()));
        Ok(Some(parsed))
    }

    /// Takes the images of a target in: that of this host's platform, or else the first, has the
    /// name; the others are found from there.
    fn add(&mut self, target: Target) {
        let is_host = |found: &&Found| {
            let name = found.platform.as_ref().and_then(Platform::name);
            name.is_some() && name == Platform::host().name()
        };
        let shown = target.found.iter().find(is_host).or(target.found.first());
        let Some(shown) = shown.map(|found| found.id) else { return };
        let mut platforms: Vec<(String, ImageId)> = Vec::new();
        for found in &target.found {
            let new = || Entry::new(Config::File(blob(found.id.0)), Arc::clone(&found.layers));
            let entry = self.contents.add(found.id, new);
            entry.target.get_or_insert_with(|| found.descriptor.clone());
            let name = found.platform.as_ref().and_then(Platform::name);
            match name.filter(|_| target.is_index) {
                Some(name) if platforms.iter().all(|(known, _)| *known != name) => {
                    platforms.push((name, found.id));
                }
                // One that no platform leads to is an image like any other.
                _ => self.contents.list(found.id),
            }
        }
        platforms.sort();
        self.contents.list(shown);
        if let Some(entry) = self.contents.entry_mut(shown)
            && target.is_index
        {
            entry.platforms = platforms;
            entry.target = target.descriptor;
        }
        if let Some(name) = target.name {
            self.contents.name(shown, &name, INDEX);
        }
    }
}

/// The name that an entry of a list has.
fn name_of(descriptor: &Descriptor) -> Option<String> {
    let named = |key| descriptor.annotations.get(key).filter(|name: &&String| !name.is_empty());
    named(FULL_NAME).or_else(|| named(NAME)).cloned()
}

/// The platform that a config is for.
fn platform_of(contents: &Contents, id: ImageId) -> Option<Platform> {
    let json = contents.files.read(&blob(id.0), CONFIG_MAX).ok()??;
    // A config that can't be read says so when somebody looks at the image.
    serde_json::from_slice(&json).ok()
}
